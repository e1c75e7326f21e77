"""Scenes: reflectance read on request from files and stores that say what their numbers mean."""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geosr.errors import BandError, GridError, InputError, did_you_mean
from geosr.grid import Window, size
from geosr.io.claims import Claims, who_says
from geosr.io.gdal import GdalFile
from geosr.io.grids import Place, common_grid
from geosr.io.layers import Layer, band_labels, band_names, basename, layers_of
from geosr.io.plausibility import Plausibility, plausibility_of
from geosr.io.raster import Raster
from geosr.io.sample import Sample, Statistics
from geosr.io.source import Source, zarr_store
from geosr.radiometry import Radiometry
from geosr.sensors import canonical_name

if TYPE_CHECKING:
    from geosr.io.masks import MaskFile, SceneMask

logger = logging.getLogger(__name__)


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
    labels: tuple[str, ...]
    """The same bands as the files or the user spell them: what a result calls them."""
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
    masks: dict[str, tuple[MaskFile, ...]]
    """The masks that came with it, by kind; none of them counts unless :meth:`mask_with` says so."""
    acquired: datetime | None
    """When it was acquired, UTC, where a STAC item says it."""
    mask: SceneMask | None
    """Pixels that are invalid though their numbers are not."""
    cache_bytes: int
    """Memory that GDAL needs to decode each block only once while tiles are read row by row.

    That is two rows of blocks of all bands, for files whose blocks are large and slow to decode: JPEG 2000.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        bands: Sequence[str] | None,
        claims: Claims,
        masks: Mapping[str, tuple[MaskFile, ...]] | None = None,
        acquired: datetime | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self.masks, self.mask, self.acquired = dict(masks or {}), None, acquired
        self._claims, self._given = claims, bands if len(self.paths) == 1 else None
        self._handles: dict[tuple[int, int, str], Source] = {}
        self._places: dict[str, Place] = {}
        self._samples: dict[int, Sample] = {}
        self._plausible: dict[tuple[int, ...], Plausibility] = {}
        try:
            self._inspect(bands)
        except BaseException:
            self.close()
            raise

    def _inspect(self, bands: Sequence[str] | None) -> None:
        """Collect every fact without reading a pixel."""
        opened = [self._source(path) for path in self.paths]
        first = opened[0]
        self._places = dict(zip(self.paths, common_grid(opened), strict=True))
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        self.name = first.name + more
        self.geobox = self._places[self.paths[0]].geobox
        self._handles = {key: self._places[key[2]].put(source) for key, source in self._handles.items()}
        self._layers: list[Layer] = []
        dtypes: dict[str, str] = {}
        for path in self.paths:
            source = self._source(path)
            for band in source.bands:
                dtypes.setdefault(band.dtype, source.name)
            self._layers += layers_of(path, source, claims=self._claims)
        if len(dtypes) > 1:
            told = ", ".join(f"{dtype} in {name}" for dtype, name in dtypes.items())
            raise InputError(f"the bands of {self.name} have different types ({told}); convert them to one")
        (self.dtype,) = dtypes
        self.cache_bytes = sum(2 * self._source(path).row_bytes for path in self.paths)
        if np.dtype(self.dtype).kind not in "iuf":
            raise InputError(f"{self.name} holds {self.dtype} values; reflectance needs an integer or a float type")
        self.descriptions = tuple(layer.description for layer in self._layers)
        if self._given is not None and len(self._given) > len(self._layers):
            bands = [band for place, band in enumerate(self._given) if place not in first.alpha]
        self.bands, told_by = band_names(self._layers, given=bands, name=self.name)
        self.labels = band_labels(self._layers, self.bands, given=bands)
        self.named = told_by is not None
        if repeated := sorted({band for band in self.bands if self.bands.count(band) > 1}):
            raise BandError(f"{self.name} has band {' '.join(repeated)} more than once; name its bands with --bands")
        self.facts = {
            "bands": told_by or "nothing names them; give --bands",
            **{
                fact: who_says(getattr(layer, fact) for layer in self._layers) for fact in ("scale", "offset", "nodata")
            },
            **({"alpha": f"band {', '.join(str(place + 1) for place in first.alpha)}"} if first.alpha else {}),
            "crs": "nothing" if self.geobox.crs is None else f"the file ({self.geobox.crs})",
        }

    def __repr__(self) -> str:
        height, width = self.geobox.shape
        masked = "" if self.mask is None else f", without {self.mask}"
        return f"<Scene {self.name}: {' '.join(self.bands)}, {height} x {width} pixels, {self.dtype}{masked}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the handles, which the receiver opens again, and pixels, which would weigh on every task."""
        return self.__dict__ | {"_handles": {}, "_samples": {}}

    def close(self) -> None:
        """Close every handle of every thread of this process."""
        for key in [key for key in self._handles if key[0] == os.getpid()]:
            self._handles.pop(key).close()
        if self.mask is not None:
            self.mask.close()

    def mask_with(self, kinds: Sequence[str], *, dilate: float = 0.0) -> Self:
        """This scene with the pixels of some of its `masks` invalid, and those nearer to them than so many metres.

        The two share their open files.

        Raises:
            UsageError: There are no masks of such a kind.
            InputError: The scene has no such mask.
            GridError: A mask does not lie on the scene.
        """
        from geosr.io.masks import open_masks

        mask = open_masks(self.masks, kinds, dilate=dilate, scene=self.name)
        if mask is None:
            return self
        masked = copy.copy(self)
        masked.mask = mask
        masked.cache_bytes = self.cache_bytes + mask.cache_bytes
        masked.facts = {**self.facts, "masked": ", ".join(dict.fromkeys(basename(file.path) for file in mask.files))}
        try:
            mask.read(self.geobox, (slice(0, 1), slice(0, 1)))  # fails, where it does, before any work
        except BaseException:
            mask.close()
            raise
        return masked

    def _source(self, path: str) -> Source:
        """This thread's own handle: GDAL's must not be shared between threads, nor survive a fork."""
        key = (os.getpid(), threading.get_ident(), path)
        if key not in self._handles:
            source = _open(path, self._given)
            self._handles[key] = self._places[path].put(source) if self._places else source
        return self._handles[key]

    @property
    def steps(self) -> tuple[int, ...]:
        """Pixels of the grid along the side of a pixel that each band was sampled with: above 1 they are repeated."""
        return tuple(self._places[layer.path].step for layer in self._layers)

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

    def encoding(self, names: Sequence[str]) -> Radiometry:
        """How the digital numbers of some bands encode reflectance by what is said of them, borne out by them or not.

        Raises:
            RadiometryError: Neither the files nor the user say it, or the bands differ.
        """
        return self._said(self.select(names)).radiometry

    def _radiometry(self, indices: Iterable[int]) -> Radiometry:
        """How the digital numbers of these bands encode reflectance, once a sample of them does not contradict it."""
        return self._plausibility(tuple(indices)).radiometry

    def _plausibility(self, indices: tuple[int, ...]) -> Plausibility:
        """What is asked of the values of these bands; a sample of them has answered it."""
        if indices not in self._plausible:
            plausibility = self._said(indices)
            # The error or spread of a band may be as small as it likes.
            measured = [index for index in indices if not canonical_name(self.bands[index].rpartition("_")[0])]
            if measured and plausibility.doubtful:
                samples = [self._sampled(index) for index in measured]
                replace(plausibility, bands=tuple(self.bands[index] for index in measured)).require(
                    np.stack([sample.dn for sample in samples]),
                    np.stack([sample.valid for sample in samples]),
                    step=samples[0].step,
                )
            self._plausible[indices] = plausibility
        return self._plausible[indices]

    def _said(self, indices: Sequence[int]) -> Plausibility:
        """What is said of these bands, of which their values are to be asked."""
        layers = [self._layers[index] for index in indices]
        names = tuple(self.bands[index] for index in indices)
        return plausibility_of(
            layers, names, self._claims, name=self.name, dtype=self.dtype, extremes=self.describe_values
        )

    def select(self, names: Sequence[str]) -> tuple[int, ...]:
        """Positions of the named bands, counted from 0; aliases such as ``red`` or ``B4`` work.

        Raises:
            BandError: The scene has no such band.
        """
        indices = []
        for name in names:
            wanted = name if name in self.bands else canonical_name(name)
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
            RadiometryError: What the digital numbers mean is unknown, or one is no reflectance.
            GridError: The window reaches beyond the scene.
            InputError: The file is damaged.
        """
        indices = self._indices(bands)
        radiometry = self._radiometry(indices)
        window = self._inside(window)
        dn, valid = self._read_masked(indices, window)
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
        return self._read_masked(self._indices(bands), self._inside(window))

    def _read_masked(self, indices: tuple[int, ...], window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Stored values of some bands, and where numbers and mask bands leave pixels in."""
        plausibility = self._plausibility(indices)
        dn = self._read(indices, window)
        valid = plausibility.radiometry.valid(dn)
        mask = self._mask(indices, window) if valid.any() else None
        valid = valid if mask is None else valid & mask
        plausibility.require_range(dn, valid, corner=(window[0].start, window[1].start))
        return dn, valid

    def read_mask(self, window: Window | None = None, bands: Sequence[str] | None = None) -> NDArray[np.bool_] | None:
        """Where masks, stored beside the bands or asked for, leave pixels in, ``(y, x)``; None without such masks.

        Arguments are those of :meth:`read`.
        """
        return self._mask(self._indices(bands), self._inside(window))

    def may_be_invalid(self, bands: Sequence[str] | None = None) -> bool:
        """Whether pixels of some bands can be invalid: by nodata, saturation, a mask beside them or one asked for."""
        radiometry = self._radiometry(self._indices(bands))
        marked = radiometry.nodata is not None or radiometry.saturated is not None
        return marked or self.read_mask((slice(0, 1), slice(0, 1)), bands) is not None

    def _mask(self, indices: Sequence[int], window: Window) -> NDArray[np.bool_] | None:
        """What the masks of all files of these bands, and of the scene, leave in."""
        paths = dict.fromkeys(self._layers[index].path for index in indices)
        masks = [mask for path in paths if (mask := self._source(path).mask(window)) is not None]
        if self.mask is not None:
            masks.append(~self.mask.read(self.geobox, window))
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
        values = np.concatenate(list(self.sample.values()))
        return (float(values.min()), float(values.max())) if values.size else (math.nan, math.nan)

    @property
    def sample(self) -> dict[str, NDArray[Any]]:
        """Digital numbers (DN) of a decimated read of each band, without nodata and without order."""
        samples = {band: self._sampled(index) for index, band in enumerate(self.bands)}
        return {band: sample.dn[sample.known] for band, sample in samples.items()}

    def statistics(self) -> dict[str, Statistics]:
        """Lowest, middle and highest digital number of each band, and shares of pixels, of a decimated read."""
        return {band: self._sampled(index).statistics() for index, band in enumerate(self.bands)}

    def _sampled(self, index: int) -> Sample:
        """A decimated read of one band."""
        if index not in self._samples:
            layer = self._layers[index]
            shape = (int(self.geobox.shape[0]), int(self.geobox.shape[1]))
            self._samples[index] = Sample.of(self._source(layer.path), layer, shape)
        return self._samples[index]

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
        sources: One raster, or several whose grids fit: where pixels of some are a whole number of times as large, the
            scene is what all cover on the finest grid, and they are repeated (`Scene.steps`). Paths, whatever GDAL
            opens (``/vsizip/...``, ``s3://...``), and raster groups of Zarr stores (``store.zarr/group/sub``).
        bands: Band names in file order.
        scale: Reflectance per DN.
        offset: Reflectance at DN 0.
        nodata: The DN that marks an invalid pixel.
        sensor: A name in `geosr.sensors.SENSORS`, which stands for scale, offset and nodata.
        baseline: Processing baseline of the product, for a Sentinel-2 `sensor`.

    Raises:
        InputError: A file does not exist or is no raster.
        GridError: The grids of the files do not fit.
        BandError: The number of names does not fit, or a band occurs twice.
        RadiometryError: An argument contradicts the file.
        UsageError: A `baseline` came without its `sensor`.

    >>> open_scene("missing.tif")
    Traceback (most recent call last):
    geosr.errors.InputError: missing.tif does not exist
    """
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    claims = Claims(scale, offset, nodata, sensor, baseline)
    return open_files([os.fspath(source) for source in several], claims, bands=bands)


def open_files(
    files: Sequence[str],
    claims: Claims,
    *,
    bands: Sequence[str] | None = None,
    masks: Mapping[str, tuple[MaskFile, ...]] | None = None,
    acquired: datetime | None = None,
) -> Scene:
    """The scene of some files, with what is said of them beside what they say themselves.

    Args:
        files: As for :func:`open_scene`.
        claims: What is said of their digital numbers.
        bands: Band names in file order.
        masks: The masks that came with them, by kind.
        acquired: When the scene was acquired, UTC.

    Raises:
        GeosrError: As for :func:`open_scene`.
    """
    if not files:
        raise InputError("no file was given; a scene needs at least one")
    return Scene(files, bands=bands, claims=claims, masks=masks, acquired=acquired)


def _open(path: str, named: Sequence[str] | None) -> Source:
    """The file or store behind a path."""
    if zarr_store(path):
        from geosr.io.zarr import ZarrGroup  # half a second that scenes in files need not wait for

        return ZarrGroup(path)
    return GdalFile(path, named=named)


def _part(geobox: GeoBox, window: Window) -> GeoBox:
    """The exact grid of a window."""
    rows, columns = window
    a, b, c, d, e, f = geobox.affine[:6]
    corner = (c + a * columns.start + b * rows.start, f + d * columns.start + e * rows.start)
    return GeoBox(size(window), Affine(a, b, corner[0], d, e, corner[1]), geobox.crs)
