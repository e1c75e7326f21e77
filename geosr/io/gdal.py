"""Raster files that GDAL opens, as the source of a scene."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from geosr.errors import GridError, InputError
from geosr.grid import Window
from geosr.io.safe import ProductMetadata, product_metadata
from geosr.io.source import Said, StoredBand, said_encoding, unreadable
from geosr.radiometry import representable
from geosr.sensors import canonical_band

_LISTS = (".vrt", ".xml", ".wms", ".gti", ".zip", ".safe")
_REFERENCES = {
    "VRT", "DERIVED", "GTI", "STACIT", "STACTA", "WMS", "WMTS", "WCS", "HTTP", "OGCAPI", "DAAS", "EEDAI", "EEDA", "NGW",
    "PLMOSAIC", "PLSCENES", "PostGISRaster", "Rasterlite", "GDALG", "PRF", "KMLSUPEROVERLAY", "ESRIC",
}  # fmt: skip
"""GDAL's drivers of files that name other files, addresses or databases."""

_OPENING = threading.Lock()  # warnings are silenced for the whole process, so one file is opened at a time
if hasattr(os, "register_at_fork"):  # a child that is forked while another thread opens must find the lock free
    os.register_at_fork(before=_OPENING.acquire, after_in_parent=_OPENING.release, after_in_child=_OPENING.release)


class GdalFile:
    """One raster file; a :class:`geosr.io.source.Source`.

    Args:
        path: What GDAL opens.
        named: The names that the user gives its bands, if any.

    Raises:
        InputError: The file does not exist or is no raster.
        GridError: It lies on no grid.
    """

    def __init__(self, path: str, *, named: Sequence[str] | None = None) -> None:
        with _OPENING:
            self._file = _open(path)
        file = self._file
        self.path = file.name
        self.name = re.split(r"[/\\]", file.name)[-1]
        try:
            self.geobox = _geobox(file, self.name)
        except GridError:
            file.close()
            raise
        self.alpha = _alpha(file, named)
        self._numbers = [number for number in file.indexes if number - 1 not in self.alpha]
        self.bands = tuple(_stored_band(file, number) for number in self._numbers)
        self.row_bytes = _row_bytes(file)
        flags = file.mask_flag_enums[0]
        # GDAL's own mask of an alpha band does not count: it knows none beyond four bands, and takes NIR for one.
        self._masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @property
    def product(self) -> ProductMetadata | None:
        """The Sentinel-2 product that the file is an image of."""
        file = self._file
        product = product_metadata(self.path)
        held = product is not None and product.decodes(self.path, dtype=file.dtypes[0], driver=file.driver)
        return product if held else None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._file.closed

    def read(
        self,
        bands: Sequence[int],
        window: Window,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Digital numbers of some bands; see :class:`geosr.io.source.Source`."""
        numbers = [self._numbers[band] for band in bands]
        out_shape = None if shape is None else (len(numbers), *shape)
        try:
            return self._file.read(numbers, window=_window(window), out_shape=out_shape, resampling=resampling)
        except RasterioError as error:
            raise unreadable(self.path, window, f"{_cause(error)}; the file may be truncated") from error

    def mask(self, window: Window, *, shape: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """Where the file's mask and alpha bands leave pixels in; see :class:`geosr.io.source.Source`."""
        place = _window(window)
        found = None
        try:
            if self._masked:
                found = self._file.dataset_mask(window=place, out_shape=shape) > 0
            if self.alpha:
                numbers = [band + 1 for band in self.alpha]
                out_shape = None if shape is None else (len(numbers), *shape)
                opaque = (self._file.read(numbers, window=place, out_shape=out_shape) > 0).all(axis=0)
                found = opaque if found is None else found & opaque
        except RasterioError as error:
            raise unreadable(self.path, window, f"{_cause(error)}; the file may be truncated") from error
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: str) -> DatasetReader:
    """A raster, or an error that says what is wrong with the path."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; give the raster files in it")
    # A scheme, GDAL's file systems and its DRIVER:... names are left to GDAL.
    if not re.match(r"/vsi|\w{2,}:", path) and not os.path.exists(path):
        raise InputError(f"{path} does not exist")
    if os.path.exists(path) and not os.path.isfile(path):  # GDAL would wait for whoever writes into a pipe
        raise InputError(f"{path} is a pipe, a socket or a device; give a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the scene says it in geosr's own words
            file = _opened(path)
    except (RasterioError, ValueError) as error:  # rasterio does not catch what no path or address can be
        lists = _drivers(path) is not None and "not recognized" in _cause(error)
        hint = "; a list of other files, such as a VRT, is opened where its name ends in .vrt" if lists else ""
        raise InputError(f"{path} cannot be opened as a raster ({_cause(error)}{hint})") from error
    if file.count == 0:
        inside = "\n  ".join(file.subdatasets)
        file.close()
        raise InputError(f"{path} holds no bands of its own" + (f"; choose one of\n  {inside}" if inside else ""))
    return file


@ensure_env_with_credentials
def _opened(path: str) -> DatasetReader:
    """What `rasterio.open` gives, which takes one driver and no list of those allowed."""
    return DatasetReader(path, driver=_drivers(path), sharing=False)


def _drivers(path: str) -> list[str] | None:
    """The GDAL drivers that may open a path: those of lists of other files and addresses only where its name says so.

    What looks like an image and is a list, such as a VRT in ``scene.tif``, would make GDAL read files and ask addresses
    of the file's choice.
    """
    if path.lower().endswith(_LISTS) or re.match(r"\s*[<{]|(?!(?i:https?|s3|gs|az|file):)[A-Za-z]\w+:", path):
        return None
    return _image_drivers()


@cache
def _image_drivers() -> list[str]:
    """GDAL's drivers of formats that hold their pixels themselves."""
    with rasterio.Env() as env:
        return [name for name in env.drivers() if name not in _REFERENCES]


def files_of(path: str) -> list[str]:
    """The files that GDAL counts to a raster, itself included: sources of a virtual one, masks, overviews.

    What is no raster has none.
    """
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with _opened(path) as file:
                return list(file.files)
    except RasterioError:
        return []


def _geobox(file: DatasetReader, name: str) -> GeoBox:
    """The exact grid of a file."""
    if file.transform.is_identity and (file.gcps[0] or file.rpcs):
        raise GridError(
            f"{name} is located by ground control points or RPCs, not on a grid; put it on one with gdalwarp first"
        )
    return GeoBox(file.shape, file.transform, file.crs and file.crs.to_string())


def _stored_band(file: DatasetReader, index: int) -> StoredBand:
    """What the tags of a file say about one band, counted from 1."""
    dtype, tag = file.dtypes[index - 1], file.nodatavals[index - 1]
    scale, offset = said_encoding(file.scales[index - 1], file.offsets[index - 1], "GDAL band scale and offset")
    # rasterio leaves out a tag beyond the range of the type; a fraction in an integer file marks nothing either.
    nodata = Said(tag, "nodata tag of the file") if tag is not None and representable(tag, dtype) else None
    return StoredBand(file.descriptions[index - 1] or None, dtype, scale, offset, nodata)


def burn(polygons: Sequence[dict[str, Any]], shape: tuple[int, int], affine: Affine) -> NDArray[np.bool_]:
    """Which pixel centres of a grid lie in polygons (GeoJSON geometries in the grid's CRS), ``(y, x)``."""
    from rasterio.features import rasterize

    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # of the image in memory that GDAL draws on
        return rasterize(polygons, shape, transform=affine, dtype="uint8") > 0


def _alpha(file: DatasetReader, named: Sequence[str] | None) -> tuple[int, ...]:
    """Bands, counted from 0, that say which pixels are there: alpha, whose 0 is an invalid pixel.

    GDAL takes the near infrared of many four-band aerial images for alpha. A fourth band of four is alpha where the
    three before it have names and it has none, or where the user names three.
    """
    texts = [(text or "").strip() for text in file.descriptions]
    found = [
        band
        for band, (text, colour) in enumerate(zip(texts, file.colorinterp, strict=True))
        if colour is ColorInterp.alpha or text.lower() == "alpha"
    ]
    if len(found) == file.count or not found:
        return ()
    if named is not None and len(named) == file.count - len(found):
        return tuple(found)
    if named is not None and len(named) == file.count:
        return tuple(
            band for band in found if named[band].lower() == "alpha" or (band > 3 and not canonical_band(named[band]))
        )
    nameless = all(text == "" or re.fullmatch(r"([Bb]and|b)[ _]?\d+", text) for text in texts)
    return tuple(
        band for band in found if file.count != 4 or band != 3 or not (nameless or canonical_band(texts[band]))
    )


def _row_bytes(file: DatasetReader) -> int:
    """Bytes of a row of blocks of all bands of a JPEG 2000 file; 0 for other files."""
    if not file.driver.startswith("JP2"):
        return 0
    return sum(
        -(-file.width // width) * width * height * np.dtype(dtype).itemsize
        for (height, width), dtype in zip(file.block_shapes, file.dtypes, strict=True)
    )


def _window(window: Window) -> RasterWindow:
    rows, columns = window
    return RasterWindow(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


def _cause(error: BaseException) -> str:
    """GDAL's own words, which rasterio keeps in the cause."""
    return str(error.__cause__ or error).rstrip(".")
