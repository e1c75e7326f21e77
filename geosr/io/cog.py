"""Cloud-Optimised GeoTIFFs, assembled from blocks that were compressed once.

GDAL's COG driver copies a finished file and compresses all of it again; its GeoTIFF driver cannot continue a file
after a crash. Here a block is compressed when it is ready and appended to a plain file, and the end of the job writes
the TIFF directories and copies the blocks behind them. rasterio makes the GeoTIFF tags, so that CRS, scale, offset,
nodata and metadata are stored the way that GDAL stores them.

References:
    Adobe, "TIFF Revision 6.0", 1992, sections 2 and 15; the BigTIFF design note, for 64-bit offsets.
    GDAL, "COG driver", for the order of directories and data and for the structural metadata in front of them.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import zstandard
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from geosr.errors import OutputError
from geosr.grid import BLOCK
from geosr.io.blocks import Block, BlockFile
from geosr.radiometry import Radiometry
from geosr.sensors import common_name

ZSTD_LEVEL = 1
"""On SR images level 9 gives files 8 % smaller than level 1 and takes 20 times as long."""


@dataclass(frozen=True)
class Profile:
    """Everything about an output raster except its pixels."""

    geobox: GeoBox
    bands: tuple[str, ...]
    radiometry: Radiometry
    """Its ``dtype`` is the type of the file."""
    tags: Mapping[str, str] = field(default_factory=dict)
    encodings: Mapping[str, Radiometry] = field(default_factory=dict)
    """Of bands whose scale and offset are others, by name; type and nodata are the file's."""

    def encoding(self, band: str) -> Radiometry:
        """How a band is encoded."""
        return self.encodings.get(band, self.radiometry)

    def to_digital(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Digital numbers (band, y, x) of what each band holds (reflectance, NaN where invalid)."""
        if not self.encodings:
            return self.radiometry.to_digital(values)
        return np.stack([self.encoding(band).to_digital(plane) for band, plane in zip(self.bands, values, strict=True)])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return np.dtype(self.radiometry.dtype)

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Height and width of the image and of its overviews, each half the last, until one block holds all."""
        shapes = [(self.geobox.shape[0], self.geobox.shape[1])]
        while max(shapes[-1]) > BLOCK:
            shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        return shapes


AT_ONCE = 16
"""Blocks that are in memory while the finished file is written."""


def block_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of blocks of an image."""
    return -(-shape[0] // BLOCK), -(-shape[1] // BLOCK)


def encode(digital: NDArray[Any]) -> bytes:
    """Compressed block of (band, y, x) digital numbers, at most 512 x 512: horizontal differences, then Zstandard.

    Beyond the image its edge goes on: zeros there would be taken for pixels by the overview of an odd last row.
    """
    bands, height, width = digital.shape
    pixels = np.empty((BLOCK, BLOCK, bands), digital.dtype)
    pixels[:height, :width] = digital.transpose(1, 2, 0)
    pixels[:height, width:] = pixels[:height, width - 1 : width]
    pixels[height:] = pixels[height - 1]
    words = pixels.view(f"u{digital.dtype.itemsize}")  # TIFF's predictor 2 subtracts the bits of floats as integers
    words[:, 1:] -= words[:, :-1].copy()
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(pixels.data)


def decode(data: bytes, bands: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Digital numbers (band, 512, 512) of a compressed block."""
    words = np.frombuffer(zstandard.ZstdDecompressor().decompress(data), f"u{dtype.itemsize}").reshape(
        BLOCK, BLOCK, bands
    )
    return np.cumsum(words, axis=1, dtype=words.dtype).view(dtype).transpose(2, 0, 1)


def overview_place(window: tuple[slice, slice], profile: Profile) -> int:
    """Number of the first overview's block that holds an image window of 1024 x 1024 pixels; it follows the image's."""
    image, overview = (block_grid(shape) for shape in profile.levels[:2])
    return image[0] * image[1] + window[0].start // (2 * BLOCK) * overview[1] + window[1].start // (2 * BLOCK)


def add_overviews(
    blocks: BlockFile, made: Mapping[int, Block], profile: Profile, executor: Executor
) -> list[list[Block]]:
    """The blocks of every level, the image first; each overview pixel is the mean of the valid ones of its four.

    Args:
        blocks: The file that new overviews go to.
        made: Blocks by number, row by row: all of the image, and those of overviews that exist already.
        profile: The raster.
        executor: Runs the compression.

    Raises:
        OutputError: A block of the image is missing.
    """
    levels: list[list[Block]] = []
    first = 0
    for level, shape in enumerate(profile.levels):
        rows, columns = block_grid(shape)
        missing = [place for place in range(rows * columns) if first + place not in made]
        if missing and level == 0:
            raise OutputError(
                f"{len(missing)} of the {rows * columns} blocks of the image are missing, first that in row "
                f"{missing[0] // columns} and column {missing[0] % columns}; the same command makes them"
            )

        def overview(place: int, level: int = level, shape: tuple[int, int] = shape, columns: int = columns) -> bytes:
            row, column = divmod(place, columns)
            finer_columns = block_grid(profile.levels[level - 1])[1]
            halves = np.zeros((len(profile.bands), BLOCK, BLOCK), profile.dtype)
            half = BLOCK // 2
            for down, right in np.ndindex(2, 2):
                source = (2 * row + down) * finer_columns + 2 * column + right
                if 2 * column + right < finer_columns and source < len(levels[level - 1]):
                    block = decode(levels[level - 1][source].read(), len(profile.bands), profile.dtype)
                    there = slice(down * half, (down + 1) * half), slice(right * half, (right + 1) * half)
                    halves[:, *there] = halve(block, profile.radiometry)
            return encode(halves[:, : shape[0] - row * BLOCK, : shape[1] - column * BLOCK])

        new = dict(zip(missing, map(blocks.append, executor.map(overview, missing)), strict=True))
        levels.append([new[place] if place in new else made[first + place] for place in range(rows * columns)])
        blocks.flush()
        first += rows * columns
    return levels


def halve(digital: NDArray[Any], radiometry: Radiometry) -> NDArray[Any]:
    """Mean of each 2 x 2 digital numbers (band, y, x), of the valid ones only; nodata where none is.

    An odd last row or column counts twice.
    """
    odd = [size % 2 for size in digital.shape[1:]]
    if any(odd):
        digital = np.pad(digital, ((0, 0), (0, odd[0]), (0, odd[1])), mode="edge")
    if digital.dtype.kind in "iu" and not (digital == radiometry.nodata).any():
        work = np.int64 if digital.itemsize > 2 else np.int32
        rows = np.add(digital[:, ::2], digital[:, 1::2], dtype=work)
        mean = ((rows[..., ::2] + rows[..., 1::2] + 2) >> 2).astype(digital.dtype)
        if not (mean == radiometry.nodata).any():
            return mean
    reflectance = radiometry.to_reflectance(digital)
    quarters = np.stack([reflectance[:, down::2, right::2] for down in (0, 1) for right in (0, 1)])
    valid = np.isfinite(quarters)
    total = np.where(valid, quarters, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return radiometry.to_digital(total / valid.sum(axis=0))


def write_cog(path: Path, profile: Profile, levels: Sequence[Sequence[Block]], executor: Executor) -> None:
    """Write the file: directories of all levels first, then the blocks, smallest overview first.

    Args:
        path: The file to write.
        profile: The raster.
        levels: Blocks of every level, as `add_overviews` returns them.
        executor: Reads blocks, and checks that they are as they were written, while others are copied.

    Raises:
        OutputError: A block is missing, or not as it was written.
    """
    for shape, level in zip(profile.levels, levels, strict=True):
        if len(level) != (wanted := prod(block_grid(shape))):
            raise OutputError(f"{path} would have {len(level)} blocks for an image that takes {wanted}")
    data_size = sum(block.length for level in levels for block in level)
    layout = _BIG if data_size > 3_900_000_000 else _CLASSIC
    template = _template_tags(profile, layout)
    directories = [
        _directory(template, shape, level, overview=index > 0)
        for index, (shape, level) in enumerate(zip(profile.levels, levels, strict=True))
    ]
    head = layout.header + _STRUCTURE
    position = len(head) + sum(layout.directory_size(directory) for directory in directories)
    for directory, level in reversed(list(zip(directories, levels, strict=True))):
        offsets = []
        for block in level:
            offsets.append(position)
            position += block.length
        directory[_TILE_OFFSETS] = _Entry(layout.offset_type, struct.pack(f"<{len(level)}{layout.offset}", *offsets))
    with path.open("wb") as file:
        file.write(head)
        for index, directory in enumerate(directories):
            file.write(layout.pack(directory, at=file.tell(), last=index == len(directories) - 1))
        for level in reversed(levels):
            for first in range(0, len(level), AT_ONCE):
                for data in executor.map(Block.read, level[first : first + AT_ONCE]):
                    file.write(data)


_STRUCTURE_TEXT = b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
_STRUCTURE = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_STRUCTURE_TEXT) + _STRUCTURE_TEXT
_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _TILE_OFFSETS, _TILE_BYTE_COUNTS, _NODATA = 254, 256, 257, 324, 325, 42113
_STRUCTURAL = {254, 256, 257, 258, 259, 262, 277, 284, 317, 322, 323, 324, 325, 338, 339, 42113}
"""Tags that say how pixels are stored; overviews carry these and no others."""
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class _Entry(NamedTuple):
    """A tag's TIFF type and its values as little-endian bytes."""

    type: int
    data: bytes


_Directory = dict[int, _Entry]


@dataclass(frozen=True)
class _Layout:
    """Widths of the numbers in a classic TIFF or a BigTIFF."""

    big: bool

    @property
    def offset(self) -> str:
        return "Q" if self.big else "I"

    @property
    def offset_type(self) -> int:
        return 16 if self.big else 4

    @property
    def width(self) -> int:
        return 8 if self.big else 4

    @property
    def header(self) -> bytes:
        first = 16 if self.big else 8
        first += len(_STRUCTURE)
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if self.big else struct.pack("<2sHI", b"II", 42, first)

    def directory_size(self, directory: _Directory) -> int:
        """Bytes of a directory and of the values that do not fit into it."""
        return self._entries_size(directory) + sum(
            _even(len(e.data)) for e in directory.values() if len(e.data) > self.width
        )

    def _entries_size(self, directory: _Directory) -> int:
        return 8 + 20 * len(directory) + 8 if self.big else 2 + 12 * len(directory) + 4

    def pack(self, directory: _Directory, *, at: int, last: bool) -> bytes:
        """A directory that starts at byte ``at``, and behind it the values that do not fit into it."""
        following = at + self.directory_size(directory)
        entries = struct.pack("<Q" if self.big else "<H", len(directory))
        values = b""
        for tag, entry in sorted(directory.items()):
            count = len(entry.data) // _TYPE_SIZES[entry.type]
            entries += struct.pack(f"<HH{self.offset}", tag, entry.type, count)
            if len(entry.data) <= self.width:
                entries += entry.data.ljust(self.width, b"\0")
            else:
                entries += struct.pack(f"<{self.offset}", at + self._entries_size(directory) + len(values))
                values += entry.data.ljust(_even(len(entry.data)), b"\0")
        return entries + struct.pack(f"<{self.offset}", 0 if last else following) + values

    def unpack(self, file: bytes) -> Iterator[tuple[int, _Entry]]:
        """The tags of the first directory of a TIFF."""
        start, number, entry = (8, "<Q", "<HHQ8s") if self.big else (4, "<H", "<HHI4s")
        (at,) = struct.unpack_from(f"<{self.offset}", file, start)
        (count,) = struct.unpack_from(number, file, at)
        at += struct.calcsize(number)
        for _ in range(count):
            tag, type_, values, inline = struct.unpack_from(entry, file, at)
            length = values * _TYPE_SIZES[type_]
            (offset,) = struct.unpack(f"<{self.offset}", inline)
            yield tag, _Entry(type_, inline[:length] if length <= self.width else file[offset : offset + length])
            at += struct.calcsize(entry)


_CLASSIC, _BIG = _Layout(big=False), _Layout(big=True)


def _even(length: int) -> int:
    return length + length % 2


def colours_of(bands: Sequence[str]) -> list[ColorInterp] | None:
    """The colour interpretation of bands by their names: red, green, blue, nir, and undefined of others.

    None, which is GDAL's grey, where no band is a colour, and of a single band. GDAL before 3.10 knows no nir.
    """
    colours = {name: ColorInterp.__members__.get(name) for name in ("red", "green", "blue", "nir")}
    found = [colours.get(common_name(band) or "") or ColorInterp.undefined for band in bands]
    return found if len(found) > 1 and any(found) else None


def _template_tags(profile: Profile, layout: _Layout) -> _Directory:
    """The tags that GDAL writes for such a raster; the file that they come from has no blocks."""
    height, width = profile.geobox.shape
    creation = {
        "driver": "GTiff", "height": height, "width": width, "count": len(profile.bands), "dtype": profile.dtype.name,
        "crs": None if profile.geobox.crs is None else str(profile.geobox.crs), "transform": profile.geobox.affine,
        "nodata": profile.radiometry.nodata, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "interleave": "pixel", "compress": "zstd", "predictor": 2, "photometric": "minisblack", "SPARSE_OK": True,
        "BIGTIFF": "YES" if layout.big else "NO", "ENDIANNESS": "LITTLE",
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**creation) as file:
            encodings = [profile.encoding(band) for band in profile.bands]
            if any((encoding.scale, encoding.offset) != (1.0, 0.0) for encoding in encodings):
                file.scales = [encoding.scale for encoding in encodings]
                file.offsets = [encoding.offset for encoding in encodings]
            file.descriptions = profile.bands
            if (colours := colours_of(profile.bands)) is not None:
                file.colorinterp = colours
            file.update_tags(**profile.tags)
        return dict(layout.unpack(bytes(memory.getbuffer())))


def _directory(template: _Directory, shape: tuple[int, int], level: Sequence[Block], *, overview: bool) -> _Directory:
    """The template's tags for a level; its tile offsets are still zero."""
    directory = {tag: entry for tag, entry in template.items() if not overview or tag in _STRUCTURAL}
    directory[_NEW_SUBFILE_TYPE] = _Entry(4, struct.pack("<I", int(overview)))
    directory[_HEIGHT] = _Entry(4, struct.pack("<I", shape[0]))
    directory[_WIDTH] = _Entry(4, struct.pack("<I", shape[1]))
    directory[_TILE_BYTE_COUNTS] = _Entry(4, struct.pack(f"<{len(level)}I", *(block.length for block in level)))
    directory[_TILE_OFFSETS] = _Entry(
        template[_TILE_OFFSETS].type, bytes(len(level) * _TYPE_SIZES[template[_TILE_OFFSETS].type])
    )
    return directory


def verify(path: Path, profile: Profile) -> None:
    """Open the finished file and compare what it says with what was meant.

    Raises:
        OutputError: They differ.
    """
    with rasterio.open(path) as file:
        found = (file.shape, file.count, file.dtypes[0], file.transform, file.nodata)
        meant = (
            tuple(profile.geobox.shape),
            len(profile.bands),
            profile.dtype.name,
            profile.geobox.affine,
            profile.radiometry.nodata,
        )
        same = all(a == b or (a != a and b != b) for a, b in zip(found, meant, strict=True))
        if not same:
            raise OutputError(f"{path} was written as {found}, meant as {meant}")
        last = tuple((n - 1) // BLOCK * BLOCK for n in file.shape)
        file.read(1, window=rasterio.windows.Window(last[1], last[0], file.width - last[1], file.height - last[0]))


def blocks_of(core: tuple[slice, slice], shape: tuple[int, int]) -> Iterable[tuple[int, tuple[slice, slice]]]:
    """Index and SR window, counted from the core's first pixel, of each block that an SR window fills."""
    _, columns = block_grid(shape)
    for top in range(core[0].start, core[0].stop, BLOCK):
        for left in range(core[1].start, core[1].stop, BLOCK):
            rows = slice(top - core[0].start, min(top + BLOCK, core[0].stop) - core[0].start)
            cols = slice(left - core[1].start, min(left + BLOCK, core[1].stop) - core[1].start)
            yield top // BLOCK * columns + left // BLOCK, (rows, cols)
