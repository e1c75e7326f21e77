"""The accessor ``.geosr`` of xarray's DataArrays and Datasets, and scenes opened as such.

``import geosr`` registers it, in either order with ``import xarray``.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal

from geosr.errors import extra

with extra("xarray", "a scene as an xarray object"):
    import xarray as xr

if TYPE_CHECKING:
    from geosr.compare import Comparison
    from geosr.grid import Window
    from geosr.inference import SuperResolver
    from geosr.inference.cubes import Info
    from geosr.io.xarray import Cube


def open(  # as rasterio's
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    sensor: str | None = None,
    baseline: str | None = None,
    item: str | None = None,
    resolution: int | None = None,
    mask: Sequence[str] = (),
    mask_dilate: float = 0.0,
    chunks: int | Literal["auto"] | None = "auto",
) -> xr.Dataset:
    """A scene as a Dataset with a variable for each band: digital numbers, read when they are computed.

    Their unit is in the attributes, so ``.geosr`` knows it.

    Args:
        sources: As :func:`geosr.predict` takes them: rasters, a Zarr store, a product, a STAC item, a folder of bands.
        bands: Band names in file order; of a source that offers a choice, those to open.
        scale: Reflectance per digital number, where the files do not say.
        offset: Reflectance at digital number 0.
        nodata: The digital number of an invalid pixel.
        sensor: A sensor whose product specification says how reflectance is encoded.
        baseline: Processing baseline, for Sentinel-2.
        item: ``collection/id`` of an item, where the source is a STAC API.
        resolution: Metres, where the source has images of several resolutions; None: the finest.
        mask: Kinds of masks that make pixels invalid: ``clouds``, ``defects``, ``snow``.
        mask_dilate: Metres around masked pixels that are invalid too.
        chunks: Side of a chunk, pixels; None reads everything now.

    Raises:
        GeosrError: See its children; the message says what to do.
    """
    from geosr.io.inputs import open_input
    from geosr.io.xarray_scene import scene_to_xarray

    scene = open_input(
        sources,
        item=item,
        bands=bands,
        scale=scale,
        offset=offset,
        nodata=nodata,
        sensor=sensor,
        baseline=baseline,
        resolution=resolution,
        mask=mask,
        mask_dilate=mask_dilate,
    )
    return scene_to_xarray(scene, chunks=chunks)


@xr.register_dataarray_accessor("geosr")
@xr.register_dataset_accessor("geosr")
class GeosrAccessor:
    """Super-resolution of an xarray object: a DataArray of bands, or a Dataset with a variable for each.

    Every method takes the names of the bands, in order, where the object does not name them, and ``scale``,
    ``offset``, ``nodata``, ``sensor`` and ``baseline`` where it does not say what its values are, as `geosr.predict`.
    """

    def __init__(self, obj: xr.DataArray | xr.Dataset) -> None:
        self._obj = obj

    def superresolve(
        self,
        model: str | PathLike[str] | SuperResolver | None = None,
        *,
        bands: Sequence[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        ensemble: int | None = None,
        seed: int | None = None,
        tta: bool = False,
        confidence: bool = False,
        variant: str | None = None,
        factor: int | None = None,
        trust: str | Sequence[str] = (),
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        sensor: str | None = None,
        baseline: str | None = None,
    ) -> xr.DataArray | xr.Dataset:
        """The model's bands on the finer grid: same outline, names, dimensions, units, type and encoding.

        A lazy object gives a lazy one: nothing is read by the call, and chunks are as many times larger. Dates of a
        time series are images of their own. Of a model that takes noise an ensemble may be asked for: its mean then,
        and its spread as further bands, ``B02_spread`` and so on. Where one array holds all bands, that is reflectance.

        Args:
            model: A shipped model's name, a file, a run's folder, a file on the Hugging Face hub, or a loaded model;
                None chooses the shipped one that fits.
            bands: Names of the bands, in order.
            device: ``auto``, ``cpu``, ``cuda``, ``mps``.
            precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
            batch_size: Tiles that the network takes at once, inside a chunk.
            ensemble: Members of the ensemble.
            seed: The first member; the others have the seeds after it.
            tta: Mean of the eight orientations of the input (D4 self-ensemble), in about eight times the time.
            confidence: Further bands that say how sure the model is: the spread of 8 samples, or the expected error,
                ``B02_error`` and so on; as :func:`geosr.predict`.
            variant: Which of the shipped models that fit: ``standard`` (None), ``fast`` or ``detail``.
            factor: How many times finer the shipped model is to make the bands; None: the one that fits best decides.
            trust: Modules whose code may run for a model of a class of one's own, as for `geosr.load_model`.
            scale: Reflectance per value, where the object does not say.
            offset: Reflectance at value 0.
            nodata: The value of an invalid pixel.
            sensor: A sensor whose product specification says how reflectance is encoded.
            baseline: Processing baseline, for Sentinel-2.

        Raises:
            GeosrError: See its children; the message says what to do.
        """
        from geosr.inference.cubes import superresolve_cube

        cube = self._cube(bands, scale, offset, nodata, sensor, baseline)
        return superresolve_cube(
            cube, model, device=device, precision=precision, batch_size=batch_size, ensemble=ensemble, seed=seed,
            tta=tta, confidence=confidence, variant=variant, factor=factor, trust=trust,
        )  # fmt: skip

    def reflectance(
        self,
        *,
        bands: Sequence[str] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        sensor: str | None = None,
        baseline: str | None = None,
    ) -> xr.DataArray | xr.Dataset:
        """Reflectance (1.0 = 100 %), float32, NaN where a pixel is invalid in any band; lazy where the object is.

        Args:
            bands: Names of the bands, in order.
            scale: Reflectance per value, where the object does not say; likewise up to ``baseline``.
            offset: Reflectance at value 0.
            nodata: The value of an invalid pixel.
            sensor: A sensor whose product specification says how reflectance is encoded.
            baseline: Processing baseline, for Sentinel-2.

        Raises:
            RadiometryError: What the values mean is unknown.
        """
        from geosr.io.xarray_views import reflectance_of

        return reflectance_of(self._cube(bands, scale, offset, nodata, sensor, baseline).known)

    def rgb(
        self,
        stretch: tuple[float, float] | None = None,
        *,
        bands: Sequence[str] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        sensor: str | None = None,
        baseline: str | None = None,
    ) -> xr.DataArray:
        """Colours, 0 to 1, along a last dimension ``rgb``: ``.rgb().plot.imshow()``.

        Args:
            stretch: Reflectance that is shown black, and white; lazy then where the object is. By default the 1st and
                99th percentile, for which pixels are read.
            bands: Names of the bands, in order.
            scale: As for `reflectance`; likewise up to ``baseline``.
            offset: Reflectance at value 0.
            nodata: The value of an invalid pixel.
            sensor: A sensor whose product specification says how reflectance is encoded.
            baseline: Processing baseline, for Sentinel-2.

        Raises:
            RadiometryError: What the values mean is unknown.
        """
        from geosr.io.xarray_views import rgb_of

        return rgb_of(self._cube(bands, scale, offset, nodata, sensor, baseline).known, stretch=stretch)

    def compare(
        self,
        sr: xr.DataArray | xr.Dataset,
        *,
        window: Window | None = None,
        bands: Sequence[str] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        sensor: str | None = None,
        baseline: str | None = None,
    ) -> Comparison:
        """This object and what it became: a slider in a notebook, and ``.save("compare.png")``.

        Args:
            sr: What `superresolve` returned.
            window: Rows and columns of this object to show, as slices; by default the part with the most detail.
            bands: Names of the bands, in order.
            scale: As for `reflectance`; likewise up to ``baseline``.
            offset: Reflectance at value 0.
            nodata: The value of an invalid pixel.
            sensor: A sensor whose product specification says how reflectance is encoded.
            baseline: Processing baseline, for Sentinel-2.

        Raises:
            GridError: The two do not cover the same ground.
        """
        from geosr.compare import compare_cubes
        from geosr.io.xarray import describe

        return compare_cubes(
            self._cube(bands, scale, offset, nodata, sensor, baseline).known,
            describe(sr).known,
            window=window,
        )

    def info(
        self,
        *,
        bands: Sequence[str] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        sensor: str | None = None,
        baseline: str | None = None,
    ) -> Info:
        """What the object says of its bands, grid and units, where each fact comes from, and which models fit.

        Args:
            bands: Names of the bands, in order.
            scale: As for `reflectance`; likewise up to ``baseline``.
            offset: Reflectance at value 0.
            nodata: The value of an invalid pixel.
            sensor: A sensor whose product specification says how reflectance is encoded.
            baseline: Processing baseline, for Sentinel-2.
        """
        from geosr.inference.cubes import info_of

        return info_of(self._cube(bands, scale, offset, nodata, sensor, baseline))

    def _cube(
        self,
        bands: Sequence[str] | None,
        scale: float | None,
        offset: float | None,
        nodata: float | None,
        sensor: str | None,
        baseline: str | None,
    ) -> Cube:
        """The object, with what the caller says of it."""
        from geosr.io.claims import Claims
        from geosr.io.xarray import describe

        claims = Claims(scale, offset, nodata, sensor, baseline, "argument")
        return describe(self._obj, bands=bands, claims=claims)
