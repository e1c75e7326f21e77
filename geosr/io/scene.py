"""Scenes: reflectance read on request from files and stores that say what their numbers mean."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geosr.errors import BandError, GridError, InputError, RadiometryError, did_you_mean
from geosr.grid import Window, size
from geosr.io.claims import Claims, claim, shared_encoding
from geosr.io.gdal import GdalFile
from geosr.io.raster import Raster
from geosr.io.source import Said, Source
from geosr.radiometry import Radiometry
from geosr.sensors import canonical_band

logger = logging.getLogger(__name__)

_SAMPLE_SIDE = 512  # pixels along the longer side of the decimated read behind `Scene.describe_values`


@dataclass(frozen=True)
class _Layer:
    """One band of a scene: where it is stored and what is known of its encoding."""

    path: str
    index: int
    """Position in the file or store, counted from 0."""
    description: str | None
    in_file_name: str | None
    scale: Said | None
    offset: Said | None
    nodata: Said | None
    saturated: Said | None


class Scene:
    """A scene on disk or on the network, opened by :func:`open_scene`: facts at once, pixels on request.

    Threads may read at the same time, and so may processes, forked or sent a pickled scene: each opens handles of its
    own when it first reads. Closing closes those of the process.
    """

    name: str
    """What messages call the scene: the name of its (first) file or group."""
    paths: tuple[str, ...]
    """Its files or Zarr groups, in band order."""
    geobox: GeoBox
    """The grid of the whole scene."""
    bands: tuple[str, ...]
    """Canonical names where they are known, else the file's descriptions, else ``band1``, ``band2`` ..."""
    descriptions: tuple[str | None, ...]
    """The band descriptions that the files hold."""
    named: bool
    """Whether `bands` comes from the files or the user, not from counting."""
    dtype: str
    """The type that is stored."""
    facts: dict[str, str]
    """Where bands, scale, offset, nodata and crs come from, in words."""
    naming = "--bands B02,B03,B04,B08"
    """How a user names bands, for messages."""

    def __init__(self, paths: Sequence[str], *, bands: Sequence[str] | None, flags: Claims) -> None:
        self.paths = tuple(paths)
        self._flags = flags
        self._handles: dict[tuple[int, int, str], Source] = {}
        try:
            self._inspect(bands)
        except BaseException:
            self.close()
            raise

    def _inspect(self, bands: Sequence[str] | None) -> None:
        """Collect every fact without reading a pixel."""
        first = self._source(self.paths[0])
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        self.name = first.name + more
        self.geobox = first.geobox
        self._layers: list[_Layer] = []
        dtypes: dict[str, str] = {}
        for path in self.paths:
            source = self._source(path)
            _require_same_grid(first, source)
            for band in source.bands:
                dtypes.setdefault(band.dtype, source.name)
            self._layers += _layers(path, source, flags=self._flags)
        if len(dtypes) > 1:
            told = ", ".join(f"{dtype} in {name}" for dtype, name in dtypes.items())
            raise InputError(f"the bands of {self.name} have different types ({told}); convert them to one")
        (self.dtype,) = dtypes
        if np.dtype(self.dtype).kind not in "iuf":
            raise InputError(f"{self.name} holds {self.dtype} values; reflectance needs an integer or a float type")
        self.descriptions = tuple(layer.description for layer in self._layers)
        self.bands, told_by = _band_names(self._layers, given=bands, name=self.name)
        self.named = told_by is not None
        if repeated := sorted({band for band in self.bands if self.bands.count(band) > 1}):
            raise BandError(f"{self.name} has band {' '.join(repeated)} more than once; name its bands with --bands")
        self.facts = {
            "bands": told_by or "nothing names them; give --bands",
            **{fact: _tell(getattr(layer, fact) for layer in self._layers) for fact in ("scale", "offset", "nodata")},
            "crs": "nothing" if self.geobox.crs is None else f"the file ({self.geobox.crs})",
        }

    def __repr__(self) -> str:
        height, width = self.geobox.shape
        return f"<Scene {self.name}: {' '.join(self.bands)}, {height} x {width} pixels, {self.dtype}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the handles, which the receiver opens again, and pixels, which would weigh on every task."""
        return {key: value for key, value in self.__dict__.items() if key != "_sample"} | {"_handles": {}}

    def close(self) -> None:
        """Close every handle of every thread of this process."""
        for key in [key for key in self._handles if key[0] == os.getpid()]:
            self._handles.pop(key).close()

    def _source(self, path: str) -> Source:
        """This thread's own handle: GDAL's must not be shared between threads, nor survive a fork."""
        key = (os.getpid(), threading.get_ident(), path)
        if key not in self._handles:
            self._handles[key] = _open(path)
        return self._handles[key]

    @cached_property
    def radiometry(self) -> Radiometry:
        """How the digital numbers of all bands encode reflectance.

        Raises:
            RadiometryError: Neither the files nor the user say it, or the bands differ.
        """
        return self._radiometry(range(len(self._layers)))

    def band_radiometry(self, names: Sequence[str]) -> Radiometry:
        """How the digital numbers of some bands encode reflectance; errors as for :attr:`radiometry`."""
        return self._radiometry(self.select(names))

    def _radiometry(self, indices: Iterable[int]) -> Radiometry:
        """How the digital numbers of these bands encode reflectance."""
        layers = [self._layers[index] for index in indices]
        values = shared_encoding(layers, name=self.name)
        if values["scale"] is None:
            if np.dtype(self.dtype).kind != "f":
                low, high = self.describe_values()
                raise RadiometryError(self._silence(f"values from {_number(low)} to {_number(high)}"))
            # Reflectance stays near 1 even over snow and glint: a larger median is percent or DN stored as float.
            if self._sample.size and (median := float(np.median(self._sample))) > 2:
                raise RadiometryError(self._silence(f"values with a median of {_number(median)}"))
        nodata = values["nodata"]
        if nodata is None and np.dtype(self.dtype).kind == "f":
            nodata = math.nan
        return Radiometry(
            scale=1.0 if values["scale"] is None else values["scale"],
            offset=values["offset"] or 0.0,
            nodata=nodata,
            saturated=values["saturated"],
            dtype=self.dtype,
        )

    def _silence(self, observed: str) -> str:
        """The message for a scene that nobody explained."""
        return self._flags.silence(self.name, self.dtype, observed, nodata=self._layers[0].nodata)

    def select(self, names: Sequence[str]) -> tuple[int, ...]:
        """Positions of the named bands, counted from 0; aliases such as ``red`` or ``B4`` work.

        Raises:
            BandError: The scene has no such band.
        """
        indices = []
        for name in names:
            wanted = name if name in self.bands else canonical_band(name)
            if wanted not in self.bands:
                remedy = "" if self.named else "; nothing names its bands, so give --bands"
                raise BandError(
                    f"band {name!r} is not in {self.name} ({' '.join(self.bands)})"
                    + (did_you_mean(name, self.bands) or remedy)
                )
            indices.append(self.bands.index(wanted))
        return tuple(indices)

    def read(self, window: Window | None = None, bands: Sequence[str] | None = None) -> Raster:
        """Reflectance of a window, with its mask, grid and units.

        Args:
            window: Pixel rows and columns, inside the scene; by default all.
            bands: Names of the bands to read, in the order wanted; by default all.

        Raises:
            RadiometryError: What the digital numbers mean is unknown.
            GridError: The window reaches beyond the scene.
            InputError: The file is damaged.
        """
        indices = self._indices(bands)
        radiometry = self._radiometry(indices)
        window = self._inside(window)
        dn, valid = self._read_masked(indices, radiometry, window)
        return Raster(
            array=radiometry.to_reflectance(dn, valid=valid),
            valid=valid,
            geobox=_part(self.geobox, window),
            bands=tuple(self.bands[index] for index in indices),
            radiometry=radiometry,
        )

    def read_masked(
        self, window: Window | None = None, bands: Sequence[str] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Digital numbers (DN) of a window as they are stored, ``(band, y, x)``, and where all are valid, ``(y, x)``.

        Arguments and errors are those of :meth:`read`.
        """
        indices = self._indices(bands)
        return self._read_masked(indices, self._radiometry(indices), self._inside(window))

    def _read_masked(
        self, indices: Sequence[int], radiometry: Radiometry, window: Window
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Stored values of some bands, and where numbers and mask bands leave pixels in."""
        dn = self._read(indices, window)
        valid = radiometry.valid(dn)
        mask = self._mask(indices, window)
        return dn, valid if mask is None else valid & mask

    def read_mask(self, window: Window | None = None, bands: Sequence[str] | None = None) -> NDArray[np.bool_] | None:
        """Where masks that are stored beside the bands leave pixels in, ``(y, x)``; None without such masks.

        Arguments are those of :meth:`read`.
        """
        return self._mask(self._indices(bands), self._inside(window))

    def _mask(self, indices: Sequence[int], window: Window) -> NDArray[np.bool_] | None:
        """What the masks of all files of these bands leave in."""
        paths = dict.fromkeys(self._layers[index].path for index in indices)
        masks = [mask for path in paths if (mask := self._source(path).mask(window)) is not None]
        return np.logical_and.reduce(masks) if masks else None

    def read_digital(
        self,
        window: Window | None = None,
        bands: Sequence[str] | None = None,
        *,
        shape: tuple[int, int] | None = None,
    ) -> NDArray[Any]:
        """Digital numbers (DN) of a window as they are stored, ``(band, y, x)``.

        Args:
            window: Pixel rows and columns, as for :meth:`read`.
            bands: Names of the bands, as for :meth:`read`.
            shape: Rows and columns to resample the window to, bicubically; by default its own.
        """
        return self._read(self._indices(bands), self._inside(window), shape=shape, resampling=Resampling.cubic)

    def describe_values(self) -> tuple[float, float]:
        """Lowest and highest digital number of a decimated read, nodata left out; NaN where nothing is left."""
        if not self._sample.size:
            return math.nan, math.nan
        return float(self._sample.min()), float(self._sample.max())

    @cached_property
    def _sample(self) -> NDArray[Any]:
        """Digital numbers of a decimated read of all bands, without nodata."""
        height, width = self.geobox.shape
        step = max(1, math.ceil(max(height, width) / _SAMPLE_SIDE))
        shape = (math.ceil(height / step), math.ceil(width / step))
        kept = []
        for index, layer in enumerate(self._layers):
            dn = self._read((index,), self._inside(None), shape=shape)
            keep = np.isfinite(dn)
            if layer.nodata is not None:
                keep &= dn != layer.nodata.value
            kept.append(dn[keep])
        return np.concatenate(kept)

    def _indices(self, bands: Sequence[str] | None) -> tuple[int, ...]:
        return tuple(range(len(self._layers))) if bands is None else self.select(bands)

    def _inside(self, window: Window | None) -> Window:
        """The window with its bounds filled in, if it lies inside the scene."""
        if window is None:
            window = (slice(None), slice(None))
        bounds = []
        for axis, part, length in zip(("rows", "columns"), window, self.geobox.shape, strict=True):
            start, stop = part.start or 0, length if part.stop is None else part.stop
            if part.step not in (None, 1) or not 0 <= start < stop <= length:
                raise GridError(f"{axis} {start}..{stop} do not lie inside {self.name}, which has {axis} 0..{length}")
            bounds.append(slice(start, stop))
        return bounds[0], bounds[1]

    def _read(
        self,
        indices: Sequence[int],
        window: Window,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Stored values of some bands; bands of one file are read together."""
        places: dict[str, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(self._layers[index].path, []).append(place)
        parts = {
            path: self._source(path).read(
                [self._layers[indices[place]].index for place in here], window, shape=shape, resampling=resampling
            )
            for path, here in places.items()
        }
        if len(parts) == 1:
            return parts.popitem()[1]
        dn = np.empty((len(indices), *(shape or size(window))), self.dtype)
        for path, here in places.items():
            dn[here] = parts[path]
        return dn


def open_scene(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    sensor: str | None = None,
    baseline: str | None = None,
) -> Scene:
    """A scene whose facts are known and whose pixels are read on request.

    What the digital numbers mean comes from the product's metadata, else from the file's own scale and offset tags,
    else from the arguments. An argument fills what the file does not say; one that contradicts the file is an error.
    Where all are silent, only :attr:`Scene.radiometry` and :meth:`Scene.read` fail.

    Args:
        sources: One raster, or several on one grid: paths, whatever GDAL opens (``/vsizip/...``, ``s3://...``), and
            raster groups of Zarr stores (``store.zarr``, ``store.zarr/group/sub``).
        bands: Band names in file order.
        scale: Reflectance per DN.
        offset: Reflectance at DN 0.
        nodata: The DN that marks an invalid pixel.
        sensor: A name in `geosr.sensors.SENSORS`, which stands for scale, offset and nodata.
        baseline: Processing baseline of the product, for a Sentinel-2 `sensor`.

    Raises:
        InputError: A file does not exist or is no raster.
        GridError: The files do not share one grid.
        BandError: The number of names does not fit, or a band occurs twice.
        RadiometryError: An argument contradicts the file.
        UsageError: A `baseline` came without its `sensor`.

    >>> open_scene("missing.tif")
    Traceback (most recent call last):
    geosr.errors.InputError: missing.tif does not exist
    """
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not several:
        raise InputError("no file was given; a scene needs at least one")
    flags = Claims(scale, offset, nodata, sensor, baseline)
    return Scene([os.fspath(source) for source in several], bands=bands, flags=flags)


def resolution_m(geobox: GeoBox) -> float | None:
    """Side in metres of a square with the area of one pixel, at the centre of the grid; None without a CRS.

    >>> resolution_m(GeoBox((10, 10), Affine(10, 0, 4e5, 0, -10, 5e6), "EPSG:32633"))
    10.0
    """
    if geobox.crs is None:
        return None
    a, b, c, d, e, f = geobox.affine[:6]
    if not geobox.crs.geographic:
        return math.sqrt(abs(a * e - b * d)) * geobox.crs.proj.axis_info[0].unit_conversion_factor
    height, width = geobox.shape
    longitude, latitude = c + (a * width + b * height) / 2, f + (d * width + e * height) / 2
    across, down = (
        geobox.crs.proj.get_geod().inv(longitude, latitude, longitude + east, latitude + north)[2]
        for east, north in ((a, d), (b, e))
    )
    return math.sqrt(across * down)


def _open(path: str) -> Source:
    """The file or store behind a path."""
    if _is_zarr(path):
        from geosr.io.zarr import ZarrGroup  # half a second that scenes in files need not wait for

        return ZarrGroup(path)
    return GdalFile(path)


def _is_zarr(path: str) -> bool:
    """Whether a path leads to or into a Zarr store: ``.zarr`` in its name, or a folder that says so.

    >>> _is_zarr("s3://bucket/product.zarr/measurements"), _is_zarr("scene.tif"), _is_zarr('ZARR:"a.zarr"')
    (True, False, False)
    """
    if re.match(r"/vsi|ZARR:", path):
        return False
    markers = (os.path.join(path, name) for name in ("zarr.json", ".zgroup", ".zarray"))
    return bool(re.search(r"\.zarr(/|$)", path)) or any(map(os.path.isfile, markers))


def _part(geobox: GeoBox, window: Window) -> GeoBox:
    """The exact grid of a window."""
    rows, columns = window
    a, b, c, d, e, f = geobox.affine[:6]
    corner = (c + a * columns.start + b * rows.start, f + d * columns.start + e * rows.start)
    return GeoBox(size(window), Affine(a, b, corner[0], d, e, corner[1]), geobox.crs)


def _require_same_grid(first: Source, other: Source) -> None:
    expected, actual = first.geobox, other.geobox
    for fact, ours, theirs in (
        ("CRS", expected.crs, actual.crs),
        ("shape", tuple(expected.shape), tuple(actual.shape)),
        ("transform", tuple(expected.affine)[:6], tuple(actual.affine)[:6]),
    ):
        if ours != theirs:
            raise GridError(
                f"{first.name} has {fact} {ours} and {other.name} has {theirs}; files of one scene share one grid"
            )


def _layers(path: str, source: Source, *, flags: Claims) -> list[_Layer]:
    """The bands of one file with everything that product, file and user say about them."""
    in_file_name = _band_in_file_name(source.name) if len(source.bands) == 1 else None
    product = source.product
    layers = []
    for index, stored in enumerate(source.bands):
        scale, offset, nodata, saturated = stored.scale, stored.offset, stored.nodata, stored.saturated
        band = canonical_band(stored.description or "") or in_file_name
        if product is not None and band is not None and band in product.offsets:
            said = f"product metadata {_basename(product.path)}, baseline {product.processing_baseline}"
            encoding = product.radiometry([band])
            if scale and offset and not np.allclose((scale.value, offset.value), (encoding.scale, encoding.offset)):
                tags = f"(scale {scale.value:g}, offset {offset.value:g})"
                logger.warning("%s: %s overrules its tags %s", source.name, said, tags)
            scale, offset = Said(encoding.scale, said), Said(encoding.offset, said)
            nodata, saturated = nodata or claim(encoding.nodata, said), claim(encoding.saturated, said)

        told = replace(stored, scale=scale, offset=offset, nodata=nodata, saturated=saturated)
        known = flags.explain(told, name=source.name)
        facts = (known.scale, known.offset, known.nodata, known.saturated)
        layers.append(_Layer(path, index, stored.description, in_file_name, *facts))
    return layers


def _band_names(
    layers: Sequence[_Layer], *, given: Sequence[str] | None, name: str
) -> tuple[tuple[str, ...], str | None]:
    """Names of all bands, and who gave them; None where they are only counted."""
    counted = tuple(f"band{position}" for position in range(1, len(layers) + 1))
    if given is not None:
        if len(given) != len(layers):
            raise BandError(f"--bands names {len(given)} bands ({' '.join(given)}) and {name} has {len(layers)}")
        names = tuple(canonical_band(band) or band for band in given)
        for ours, layer in zip(names, layers, strict=True):
            theirs = canonical_band(layer.description or "") or layer.in_file_name
            if theirs not in (None, ours):
                logger.warning("%s: flag --bands calls %s what the file calls %s", name, ours, theirs)
        return names, "flag --bands"
    descriptions = [layer.description or "" for layer in layers]
    # "Band 1", "Band 2" ... only count: in a file of blue, green, red and near infrared, Band 1 is not B01.
    if all(re.fullmatch(rf"([Bb]and|b)[ _]?0*{n}", text) for n, text in enumerate(descriptions, start=1)):
        return counted, None
    names = tuple(
        canonical_band(layer.description or "") or layer.in_file_name or layer.description or number
        for layer, number in zip(layers, counted, strict=True)
    )
    if names == counted:
        return counted, None
    return names, "band descriptions" if all(descriptions) else "file names" if not any(descriptions) else "the files"


def _band_in_file_name(path: str) -> str | None:
    """The Sentinel-2 band that a file name ends in: ``T33UUB_20170527_B04_10m.jp2``, ``B4.tif``, ``red.tif``."""
    stem = _basename(path).rpartition(".")[0]
    if re.match(r"L[COTEM]0\d_|HLS\.L30", stem):  # Landsat's B5 is near infrared, Sentinel-2's is red edge
        return None
    return next(filter(None, map(canonical_band, reversed(re.split(r"[_.\-\s]+", stem)))), None)


def _tell(said: Iterable[Said | None]) -> str:
    """The distinct sources of a fact."""
    return ", ".join(dict.fromkeys("nothing says it" if one is None else one.source for one in said))


def _basename(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _number(value: float) -> str:
    return f"{value:.10g}"
