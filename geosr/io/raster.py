"""Rasters: reflectance with its grid, its mask and its units, read from files that say what their numbers mean."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geosr.errors import BandError, GridError, InputError, RadiometryError, UsageError, did_you_mean
from geosr.io.safe import ProductMetadata, product_metadata
from geosr.radiometry import Radiometry, representable
from geosr.sensors import canonical_band, get_sensor

logger = logging.getLogger(__name__)

_SAMPLE_SIDE = 512  # pixels along the longer side of the decimated read behind `Scene.describe_values`


@dataclass(frozen=True)
class Raster:
    """Reflectance of a scene or of a window of it, with everything that it needs to stay a measurement.

    Raises:
        GridError: The shapes do not belong together.
    """

    array: NDArray[np.float32]
    """Reflectance (1.0 = 100 %), float32 ``(band, y, x)``; invalid pixels are NaN."""
    valid: NDArray[np.bool_]
    """Where every band is a measurement, ``(y, x)``."""
    geobox: GeoBox
    """The grid: CRS, affine transform and shape ``(y, x)``."""
    bands: tuple[str, ...]
    """Band names in the order of `array`."""
    radiometry: Radiometry
    """How digital numbers encode this reflectance."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        if self.array.ndim != 3 or self.array.dtype != np.float32:
            raise GridError(f"array is {self.array.dtype} {self.array.shape}; it must be float32 (band, y, x)")
        if self.array.shape[0] != len(self.bands):
            raise GridError(
                f"array has {self.array.shape[0]} bands and {len(self.bands)} are named ({' '.join(self.bands)})"
            )
        for name, shape in (("valid", self.valid.shape), ("geobox", tuple(self.geobox.shape))):
            if shape != self.array.shape[1:]:
                raise GridError(
                    f"{name} has shape {shape} and array (y, x) = {self.array.shape[1:]}; they must be equal"
                )

    def to_digital(self) -> NDArray[Any]:
        """The digital numbers (DN) of this raster, ``(band, y, x)``; whatever is not `valid` is nodata."""
        return self.radiometry.to_digital(np.where(self.valid, self.array, np.float32(np.nan)))


class _Said(NamedTuple):
    """A value and who said it."""

    value: float
    source: str


@dataclass(frozen=True)
class _Layer:
    """One band of a scene: where it is stored and what is known of its encoding."""

    path: str
    index: int
    description: str | None
    in_file_name: str | None
    scale: _Said | None
    offset: _Said | None
    nodata: _Said | None
    saturated: _Said | None


@dataclass(frozen=True)
class _Flags:
    """What the user says about the encoding, for what the file does not say."""

    scale: float | None
    offset: float | None
    nodata: float | None
    sensor: str | None
    baseline: str | None

    def radiometry(self, *, silent: bool) -> Radiometry | None:
        """What ``--sensor`` says; a baseline is only asked for where the file needs one."""
        if self.sensor is None:
            return None
        sensor = get_sensor(self.sensor)
        needed = sensor.offset_since is None or self.baseline is not None or (silent and self.scale is None)
        return sensor.radiometry(self.baseline) if needed else None

    @property
    def sensor_source(self) -> str:
        return f"flag --sensor {self.sensor}" + (f" --baseline {self.baseline}" if self.baseline else "")


class Scene:
    """A scene on disk or on the network, opened by :func:`open_scene`: facts at once, pixels on request.

    Threads may read at the same time; each gets file handles of its own. Closing closes them all.
    """

    name: str
    """What messages call the scene: the name of its (first) file."""
    paths: tuple[str, ...]
    """Its files, in band order."""
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

    def __init__(self, paths: Sequence[str], *, bands: Sequence[str] | None, flags: _Flags) -> None:
        self.paths = tuple(paths)
        self._flags = flags
        self._lock = threading.Lock()
        self._local = threading.local()
        self._handles: list[DatasetReader] = []
        try:
            self._inspect(bands)
        except BaseException:
            self.close()
            raise

    def _inspect(self, bands: Sequence[str] | None) -> None:
        """Collect every fact without reading a pixel."""
        first = self._handle(self.paths[0])
        if first.crs is None:
            logger.warning("%s has no coordinate reference system; its output will have none", _basename(first.name))
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        self.name = _basename(first.name) + more
        self.geobox = _geobox(first)
        self._layers: list[_Layer] = []
        dtypes: dict[str, str] = {}
        for path in self.paths:
            file = self._handle(path)
            _require_same_grid(self.geobox, _geobox(file), _basename(first.name), _basename(file.name))
            product = product_metadata(path)
            for index in file.indexes:
                dtypes.setdefault(file.dtypes[index - 1], _basename(file.name))
                self._layers.append(_layer(file, index, product=product, flags=self._flags))
        if len(dtypes) > 1:
            told = ", ".join(f"{dtype} in {name}" for dtype, name in dtypes.items())
            raise InputError(f"the bands of {self.name} have different types ({told}); convert them to one")
        (self.dtype,) = dtypes
        if np.dtype(self.dtype).kind not in "iuf":
            raise InputError(f"{self.name} holds {self.dtype} values; reflectance needs an integer or a float type")
        self.descriptions = tuple(layer.description for layer in self._layers)
        self.bands, source = _band_names(self._layers, given=bands, name=self.name)
        self.named = source is not None
        if repeated := sorted({band for band in self.bands if self.bands.count(band) > 1}):
            raise BandError(f"{self.name} has band {' '.join(repeated)} more than once; name its bands with --bands")
        self.facts = {
            "bands": source or "nothing names them; give --bands",
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

    def close(self) -> None:
        """Close every file handle of every thread."""
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()
            self._local = threading.local()

    def _handle(self, path: str) -> DatasetReader:
        """This thread's own handle of a file; GDAL's handles must not be shared between threads."""
        handles: dict[str, DatasetReader] = self._local.__dict__
        if path not in handles:
            with self._lock:
                handles[path] = _open(path)
                self._handles.append(handles[path])
        return handles[path]

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
        values: dict[str, float | None] = {}
        for fact in ("scale", "offset", "nodata", "saturated"):
            said = [getattr(layer, fact) for layer in layers]
            numbers = {f"{one.value:.9g}" if one else "none": one.value if one else None for one in said}
            if len(numbers) > 1:
                raise RadiometryError(
                    f"{self.name} has bands with different {fact} ({', '.join(numbers)}); choose bands that share one"
                )
            (values[fact],) = numbers.values()
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
        said = self._layers[0].nodata
        nodata = " --nodata 0" if said is None or said.value == 0 else ""
        lines = {
            "Sentinel-2 L2A, processing baseline 04.00 or later:": f"--scale 1e-4 --offset -0.1{nodata}",
            "Sentinel-2 before baseline 04.00, or *_HARMONIZED:": f"--scale 1e-4{nodata}",
            "values that are reflectance already:": "--scale 1",
        }
        if self.dtype == "uint8":
            lines["8-bit imagery with 255 = 100 %:"] = f"--scale {1 / 255:.15g}"
        elif np.dtype(self.dtype).kind == "f":
            lines["percent:"] = "--scale 0.01"
        told = "".join(f"\n  {meaning:<52} {flags}" for meaning, flags in lines.items())
        return f"{self.name} holds {self.dtype} {observed} and says nothing about their unit.{told}"

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

    def locate(self, position: int) -> tuple[str, int]:
        """File of the band at that position, and the band's number in it, counted from 1."""
        return self._layers[position].path, self._layers[position].index

    def read(self, window: tuple[slice, slice] | None = None, bands: Sequence[str] | None = None) -> Raster:
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
        rows, columns = self._inside(window)
        dn = self._read(indices, rows, columns)
        valid = radiometry.valid(dn) & self._mask(indices, rows, columns)
        return Raster(
            array=radiometry.to_reflectance(dn, valid=valid),
            valid=valid,
            geobox=_part(self.geobox, rows, columns),
            bands=tuple(self.bands[index] for index in indices),
            radiometry=radiometry,
        )

    def read_digital(
        self, window: tuple[slice, slice] | None = None, bands: Sequence[str] | None = None
    ) -> NDArray[Any]:
        """Digital numbers (DN) of a window as they are stored, ``(band, y, x)``; arguments as for :meth:`read`."""
        return self._read(self._indices(bands), *self._inside(window))

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
        rows, columns = slice(0, height), slice(0, width)
        kept = []
        for index, layer in enumerate(self._layers):
            dn = self._read((index,), rows, columns, out_shape=shape)
            keep = np.isfinite(dn)
            if layer.nodata is not None:
                keep &= dn != layer.nodata.value
            kept.append(dn[keep])
        return np.concatenate(kept)

    def _indices(self, bands: Sequence[str] | None) -> tuple[int, ...]:
        return tuple(range(len(self._layers))) if bands is None else self.select(bands)

    def _inside(self, window: tuple[slice, slice] | None) -> tuple[slice, slice]:
        """The window with its bounds filled in, if it lies inside the scene."""
        if window is None:
            window = (slice(None), slice(None))
        bounds = []
        for axis, part, size in zip(("rows", "columns"), window, self.geobox.shape, strict=True):
            start, stop = part.start or 0, size if part.stop is None else part.stop
            if part.step not in (None, 1) or not 0 <= start < stop <= size:
                raise GridError(f"{axis} {start}..{stop} do not lie inside {self.name}, which has {axis} 0..{size}")
            bounds.append(slice(start, stop))
        return bounds[0], bounds[1]

    def _read(
        self, indices: Sequence[int], rows: slice, columns: slice, *, out_shape: tuple[int, int] | None = None
    ) -> NDArray[Any]:
        """Stored values of some bands; bands of one file are read together."""
        shape = out_shape or (rows.stop - rows.start, columns.stop - columns.start)
        places: dict[str, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(self._layers[index].path, []).append(place)
        parts = {
            path: self._read_file(path, [self._layers[indices[place]].index for place in here], rows, columns, shape)
            for path, here in places.items()
        }
        if len(parts) == 1:
            return parts.popitem()[1]
        dn = np.empty((len(indices), *shape), self.dtype)
        for path, here in places.items():
            dn[here] = parts[path]
        return dn

    def _read_file(
        self, path: str, numbers: list[int], rows: slice, columns: slice, shape: tuple[int, int]
    ) -> NDArray[Any]:
        """Stored values of some bands of one file, counted from 1."""
        try:
            return self._handle(path).read(numbers, window=_window(rows, columns), out_shape=(len(numbers), *shape))
        except RasterioError as error:
            raise InputError(
                f"{path}: rows {rows.start}..{rows.stop}, columns {columns.start}..{columns.stop} cannot be read "
                f"({_cause(error)}); the file may be truncated"
            ) from error

    def _mask(self, indices: Sequence[int], rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Where the mask bands of the files leave pixels in; True where there is no such mask."""
        window = _window(rows, columns)
        mask = np.ones((window.height, window.width), dtype=bool)
        for path in dict.fromkeys(self._layers[index].path for index in indices):
            file = self._handle(path)
            flags = file.mask_flag_enums[0]
            # An alpha band is no such mask: GDAL takes the near infrared of many four-band aerial images for one.
            if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
                mask &= file.dataset_mask(window=window) > 0
        return mask


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
        sources: One raster, or several files on one grid; paths and whatever GDAL opens (``/vsizip/...``, ``s3://...``).
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
    if baseline is not None and sensor is None:
        raise UsageError(f"--baseline {baseline} says nothing without --sensor (sentinel-2-l2a or sentinel-2-l1c)")
    flags = _Flags(scale, offset, nodata, sensor, baseline)
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


def _open(path: str) -> DatasetReader:
    """A raster, or an error that says what is wrong with the path."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; give the raster files in it")
    # A scheme, GDAL's file systems and its DRIVER:... names are left to GDAL.
    if not re.match(r"/vsi|\w{2,}:", path) and not os.path.exists(path):
        raise InputError(f"{path} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `_geobox` says it in geosr's own words
            file = rasterio.open(path, sharing=False)
    except RasterioError as error:
        raise InputError(f"{path} cannot be opened as a raster ({_cause(error)})") from error
    if file.count == 0:
        inside = "\n  ".join(file.subdatasets)
        file.close()
        raise InputError(f"{path} holds no bands of its own" + (f"; choose one of\n  {inside}" if inside else ""))
    return file


def _geobox(file: DatasetReader) -> GeoBox:
    """The exact grid of a file."""
    if file.transform.is_identity and (file.gcps[0] or file.rpcs):
        raise GridError(
            f"{_basename(file.name)} is located by ground control points or RPCs, not on a grid; "
            "put it on one with gdalwarp first"
        )
    return GeoBox(file.shape, file.transform, file.crs and file.crs.to_string())


def _part(geobox: GeoBox, rows: slice, columns: slice) -> GeoBox:
    """The exact grid of a window."""
    a, b, c, d, e, f = geobox.affine[:6]
    corner = (c + a * columns.start + b * rows.start, f + d * columns.start + e * rows.start)
    transform = Affine(a, b, corner[0], d, e, corner[1])
    return GeoBox((rows.stop - rows.start, columns.stop - columns.start), transform, geobox.crs)


def _require_same_grid(expected: GeoBox, actual: GeoBox, expected_name: str, actual_name: str) -> None:
    for fact, ours, theirs in (
        ("CRS", expected.crs, actual.crs),
        ("shape", tuple(expected.shape), tuple(actual.shape)),
        ("transform", tuple(expected.affine)[:6], tuple(actual.affine)[:6]),
    ):
        if ours != theirs:
            raise GridError(
                f"{expected_name} has {fact} {ours} and {actual_name} has {theirs}; files of one scene share one grid"
            )


def _layer(file: DatasetReader, index: int, *, product: ProductMetadata | None, flags: _Flags) -> _Layer:
    """One band with everything that product, file and user say about it."""
    description = file.descriptions[index - 1] or None
    in_file_name = _band_in_file_name(file.name) if file.count == 1 else None
    name = _basename(file.name)
    dtype = file.dtypes[index - 1]
    scale = offset = nodata = saturated = None

    # rasterio leaves out a tag beyond the range of the type; a fraction in an integer file marks nothing either.
    tag = file.nodatavals[index - 1]
    if tag is not None and representable(tag, dtype):
        nodata = _Said(tag, "nodata tag of the file")

    if (file.scales[index - 1], file.offsets[index - 1]) != (1.0, 0.0):  # what GDAL reports without a tag
        source = "GDAL band scale and offset"
        scale, offset = _Said(file.scales[index - 1], source), _Said(file.offsets[index - 1], source)
    band = canonical_band(description or "") or in_file_name
    if product is not None and band is not None and band in product.offsets:
        source = f"product metadata {_basename(product.path)}, baseline {product.processing_baseline}"
        encoding = product.radiometry([band])
        if scale and offset and not np.allclose((scale.value, offset.value), (encoding.scale, encoding.offset)):
            logger.warning("%s: %s overrules its tags (scale %g, offset %g)", name, source, scale.value, offset.value)
        scale, offset = _Said(encoding.scale, source), _Said(encoding.offset, source)
        nodata, saturated = nodata or _said(encoding.nodata, source), _said(encoding.saturated, source)

    encoded = flags.radiometry(silent=scale is None)
    scale = _agree(name, "scale", scale, _said(flags.scale, "flag --scale"))
    offset = _agree(name, "offset", offset, _said(flags.offset, "flag --offset"))
    nodata = _agree(name, "nodata", nodata, _said(flags.nodata, "flag --nodata"))
    if encoded is not None:
        source = flags.sensor_source
        scale = _agree(name, "scale", scale, _Said(encoded.scale, source))
        offset = _agree(name, "offset", offset, _Said(encoded.offset, source))
        nodata, saturated = nodata or _said(encoded.nodata, source), saturated or _said(encoded.saturated, source)
    if saturated is not None and not representable(saturated.value, dtype):
        saturated = None
    return _Layer(file.name, index, description, in_file_name, scale, offset, nodata, saturated)


def _said(value: float | None, source: str) -> _Said | None:
    return None if value is None else _Said(value, source)


def _agree(name: str, fact: str, trusted: _Said | None, claim: _Said | None) -> _Said | None:
    """What is known after a less trusted claim, which fills silence but overrules nothing."""
    if trusted is None or claim is None:
        return trusted or claim
    same = math.isclose(trusted.value, claim.value, rel_tol=1e-6) or (
        math.isnan(trusted.value) and math.isnan(claim.value)
    )
    if not same:
        raise RadiometryError(
            f"{name} has {fact} {trusted.value:g} ({trusted.source}) and {claim.source} says {claim.value:g}; drop the "
            "flag, or correct a wrongly tagged file: gdal_edit.py -scale S -offset O -a_nodata N FILE"
        )
    return trusted


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


def _tell(said: Iterable[_Said | None]) -> str:
    """The distinct sources of a fact."""
    return ", ".join(dict.fromkeys("nothing says it" if one is None else one.source for one in said))


def _window(rows: slice, columns: slice) -> Window:
    return Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


def _basename(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _number(value: float) -> str:
    return f"{value:.10g}"


def _cause(error: BaseException) -> str:
    """GDAL's own words, which rasterio keeps in the cause."""
    return str(error.__cause__ or error).rstrip(".")
