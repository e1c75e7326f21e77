"""Shards: a sharded Zarr array read and written straight in its files.

Windows are read in less than half the time that zarr-python takes, and a shard that is written has its name only when
it is whole, so that any process may write it at any time.

References:
    [1] Zarr v3, sharding codec: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/.
    [2] Zarr v3, CRC32C codec: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/crc32c/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from io import FileIO
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc, blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore

from geosr import files
from geosr.grid import Window, size
from geosr.io.work import make_folder

_MISSING = 2**64 - 1  # offset and length of a chunk that is not stored [1]


def compression(dtype: Any) -> tuple[BloscCodec, Crc32cCodec]:
    """How chunks of digital numbers of that type are compressed: smaller than with zstd, and read three times as fast.

    The bits of sixteen neighbours of one weight stand together: the upper ones, which hardly change, cost nothing.
    """
    width = np.dtype(dtype).itemsize
    return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=width), Crc32cCodec()


@dataclass(frozen=True)
class ShardedArray:
    """An array ``(band, y, x)`` on disk: all bands in one chunk, in the `compression` of ours, chunks in shards.

    It keeps no file open, so threads and forked processes may share it.
    """

    folder: str
    """Where the rows of shards lie."""
    count: int
    """Number of bands."""
    dtype: np.dtype[Any]
    chunk: tuple[int, int]
    """Rows and columns of a chunk."""
    shard: tuple[int, int]
    """Rows and columns of a shard, a multiple of `chunk`."""

    @classmethod
    def of(cls, array: zarr.Array) -> ShardedArray | None:
        """The same array, or None where it is stored in any other way."""
        store, shards = array.store_path.store, array.shards
        if not isinstance(store, LocalStore) or array.ndim != 3 or shards is None:
            return None
        codecs: Any = array.metadata.to_dict()["codecs"]
        settings = codecs[0]["configuration"]
        names = [[codec["name"] for codec in settings[key]] for key in ("codecs", "index_codecs")]
        plain = names == [["bytes", "blosc", "crc32c"], ["bytes", "crc32c"]] and settings["index_location"] == "end"
        if not plain or array.metadata.encode_chunk_key((0, 0, 0)) != "c/0/0/0" or array.chunks[0] != array.shape[0]:
            return None
        # One byte has no order, and its codec names none.
        big = settings["codecs"][0].get("configuration", {}).get("endian") == "big"
        folder = os.path.join(store.root, array.path, "c", "0")
        dtype = array.dtype.newbyteorder(">" if big else "<")
        return cls(folder, array.shape[0], dtype, (array.chunks[1], array.chunks[2]), (shards[1], shards[2]))

    def read(self, window: Window) -> NDArray[Any]:
        """The stored values of all bands of a window, ``(band, y, x)``.

        Raises:
            OSError: A shard is missing.
            ValueError: A shard is damaged, or lacks a chunk.
        """
        values = np.empty((self.count, *size(window)), self.dtype.newbyteorder("="))
        for shard, inside, place in _blocks(window, self.shard):
            part = values[:, *place]
            with FileIO(os.path.join(self.folder, *map(str, shard))) as file:
                index, end = self._index(file)
                for chunk, pixels, where in _blocks(inside, self.chunk):
                    offset, length = map(int, index[chunk])
                    if offset + length > end:  # also of a chunk that is not stored, whose numbers are the highest [1]
                        raise ValueError(f"shard {'/'.join(map(str, shard))} lacks a chunk")
                    file.seek(offset)
                    stored = _decompressed(file.read(length))
                    part[:, *where] = np.frombuffer(stored, self.dtype).reshape(-1, *self.chunk)[:, *pixels]
        return values

    def write(
        self, shard: tuple[int, int], chunks: Mapping[tuple[int, int], bytes], *, folder: Path | None = None
    ) -> int:
        """Put a shard on disk, as a whole or not at all; the CRC-32 of its file.

        Args:
            shard: Its row and column. The folder of all shards is there.
            chunks: What `encode_chunk` made, by row and column in the shard; those beyond the array's edge are missing.
            folder: Where the file grows, as for `geosr.files.write`.

        Raises:
            OSError: It cannot be written.
        """
        index = np.full(
            (*(side // step for side, step in zip(self.shard, self.chunk, strict=True)), 2), _MISSING, "<u8"
        )
        offset = 0
        for place, data in chunks.items():
            index[place] = offset, len(data)
            offset += len(data)
        path = self.path(shard)
        make_folder(path.parent)  # the array's folder is not made again: it may have moved away, finished
        parts = [*chunks.values(), _checked(index.tobytes())]
        files.write(path, parts, folder=folder, sync=False)
        return reduce(lambda crc, part: crc32(part, crc), parts, 0)

    def path(self, shard: tuple[int, int]) -> Path:
        """The file of a shard."""
        return Path(self.folder, *map(str, shard))

    def _index(self, file: FileIO) -> tuple[NDArray[np.uint64], int]:
        """Offset and length of each chunk of a shard, and where its chunks end."""
        rows, columns = (side // step for side, step in zip(self.shard, self.chunk, strict=True))
        end = file.seek(0, os.SEEK_END) - rows * columns * 16 - 4  # behind the index lies its checksum
        if end < 0:
            raise ValueError("a shard is too short")
        file.seek(end)
        index = np.frombuffer(_unchecked(file.read()), "<u8")
        return index.reshape(rows, columns, 2), end


def encode_chunk(values: NDArray[Any], side: int, fill: float) -> bytes:
    """The bytes of a square chunk in our `compression`: values ``(band, y, x)``, and the fill value beyond them."""
    padding = [(0, 0), *((0, side - length) for length in values.shape[1:])]
    whole = np.ascontiguousarray(np.pad(values, padding, constant_values=fill))
    compressed: bytes = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE).encode(whole)
    return _checked(compressed)


def _decompressed(data: bytes) -> bytes:
    """The bytes of a chunk."""
    decompressed: bytes = blosc.decompress(_unchecked(data))
    return decompressed


def _checked(data: bytes) -> bytes:
    """The bytes and, behind them, their checksum [2]."""
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _unchecked(data: bytes) -> bytes:
    """The bytes in front of their checksum, which must be theirs."""
    if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("it is not as it was written")
    return data[:-4]


def _blocks(window: Window, sides: tuple[int, int]) -> Iterator[tuple[tuple[int, ...], Window, Window]]:
    """Each block that a window touches: its row and column, the part of it, and where that lies in the window."""
    ranges = (range(part.start // side, (part.stop - 1) // side + 1) for part, side in zip(window, sides, strict=True))
    for block in product(*ranges):
        inside, place = [], []
        for number, part, side in zip(block, window, sides, strict=True):
            start, stop = max(part.start, number * side), min(part.stop, (number + 1) * side)
            inside.append(slice(start - number * side, stop - number * side))
            place.append(slice(start - part.start, stop - part.start))
        yield block, (inside[0], inside[1]), (place[0], place[1])
