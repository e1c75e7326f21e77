"""What geosr writes about a published data set, in a folder of its own inside it; deleting it costs time, no data.

Published rasters seldom name their bands, scale and nodata, and some have no place. A GDAL virtual raster says all of
that and refers to the published pixels, which stay where they are.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from geosr import files
from geosr.errors import InputError, OutputError

CACHE = ".geosr"
"""Folder inside a data set that holds what geosr wrote about it."""


class Source(NamedTuple):
    """A published raster and where it lies in a virtual one."""

    file: str
    """Its path, or a name that only GDAL understands (``/vsizip/...``)."""
    row: int = 0
    """First row and column in the virtual raster."""
    column: int = 0


@contextmanager
def opened(file: str | Path) -> Iterator[DatasetReader]:
    """A published raster, whose place need not be known.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(file)
    except RasterioError as error:
        raise InputError(f"{file} is no raster that can be read ({error}); download it again") from error
    with dataset:
        yield dataset


def geobox_of(file: DatasetReader) -> GeoBox:
    """Grid of a raster; without CRS and with pixels as units where its place is unknown."""
    placed = file.crs is not None and not file.transform.is_identity
    return GeoBox(file.shape, file.transform if placed else Affine.identity(), file.crs if placed else None)


def describe(
    path: Path, source: Path, *, bands: Sequence[str], scale: float, nodata: float | None = None,
    geobox: GeoBox | None = None,
) -> str:  # fmt: skip
    """Path of a virtual raster that says of ``source`` what it does not say itself; kept until ``source`` changes.

    Args:
        path: Where the virtual raster belongs.
        source: The published raster.
        bands: Names of its bands, in its order.
        scale: Reflectance per DN.
        nodata: The DN of invalid pixels, where the source does not say it.
        geobox: Its grid, where the source does not say it.

    Raises:
        InputError: The source cannot be read or has another number of bands.
    """
    if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
        with opened(source) as file:
            grid = geobox_of(file) if geobox is None else geobox
            nodata = file.nodata if nodata is None else nodata
            write_virtual(path, [Source(str(source))], file, grid, bands=bands, scale=scale, nodata=nodata)
    return str(path)


def write_virtual(
    path: Path, sources: Sequence[Source], like: DatasetReader, geobox: GeoBox, *, bands: Sequence[str], scale: float,
    nodata: float | None,
) -> None:  # fmt: skip
    """Write a virtual raster of rasters that have the type, bands and shape of ``like``; nodata between them.

    Raises:
        InputError: ``like`` has another number of bands.
    """
    if like.count != len(bands):
        raise InputError(f"{like.name} has {like.count} bands; it should have {len(bands)} ({' '.join(bands)})")
    height, width = geobox.shape
    lines = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">']
    if geobox.crs is not None:
        axes = "2,1" if geobox.crs.geographic else "1,2"  # x first, whatever the authority says
        lines.append(f'<SRS dataAxisToSRSAxisMapping="{axes}">{escape(geobox.crs.to_wkt())}</SRS>')
        steps = ", ".join(repr(float(step)) for step in geobox.affine.to_gdal())
        lines.append(f"<GeoTransform>{steps}</GeoTransform>")
    missing = "" if nodata is None else f"<NoDataValue>{nodata:g}</NoDataValue>"
    for number, band in enumerate(bands, start=1):
        lines.append(
            f'<VRTRasterBand dataType="{_gdal_type(like)}" band="{number}"><Description>{escape(band)}</Description>'
            f"{missing}<Offset>0</Offset><Scale>{scale!r}</Scale>"
        )
        lines += [_source(source, number, path=path, like=like, whole=geobox.shape) for source in sources]
        lines.append("</VRTRasterBand>")
    with finished(path) as unfinished:
        unfinished.write_text("\n".join([*lines, "</VRTDataset>"]), encoding="utf-8")


def _gdal_type(file: DatasetReader) -> str:
    """GDAL's name of a raster's type: Byte, UInt16, Int16, Float32 ..."""
    return "Byte" if file.dtypes[0] == "uint8" else str(file.dtypes[0]).title().replace("Ui", "UI")


def _source(source: Source, band: int, *, path: Path, like: DatasetReader, whole: tuple[int, int]) -> str:
    inside = source.file.startswith("/vsi")
    name = source.file if inside else Path(os.path.relpath(source.file, path.parent)).as_posix()
    height, width = like.shape
    rectangles = "" if tuple(whole) == (height, width) else (
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{source.column}" yOff="{source.row}" xSize="{width}" ySize="{height}"/>'
    )  # fmt: skip
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="{int(not inside)}">{escape(name)}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>"
        # With these GDAL need not open a source before it reads from it.
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" '
        f'DataType="{_gdal_type(like)}" '
        f'BlockXSize="{like.block_shapes[0][1]}" BlockYSize="{like.block_shapes[0][0]}"/>{rectangles}</SimpleSource>'
    )


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name of ``path`` when it is complete.

    Raises:
        OutputError: The folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error}); geosr keeps what it knows of a data set in {CACHE} inside it, so "
            "make that folder writable or link the data set into one that is"
        ) from error
