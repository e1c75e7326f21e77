"""Shards: windows of a sharded Zarr array straight from its files, in less than half the time that zarr-python takes.

References:
    [1] Zarr v3, sharding codec: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/.
    [2] Zarr v3, CRC32C codec: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/crc32c/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import product
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore

from geosr.grid import Window, size


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

    def _index(self, file: FileIO) -> tuple[NDArray[np.uint64], int]:
        """Offset and length of each chunk of a shard, and where its chunks end."""
        rows, columns = (side // step for side, step in zip(self.shard, self.chunk, strict=True))
        end = file.seek(0, os.SEEK_END) - rows * columns * 16 - 4  # behind the index lies its checksum
        if end < 0:
            raise ValueError("a shard is too short")
        file.seek(end)
        index = np.frombuffer(file.read(rows * columns * 16), "<u8")
        return index.reshape(rows, columns, 2), end


def _decompressed(data: bytes) -> bytes:
    """The bytes of a chunk, behind which its checksum is stored [2]."""
    if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("a chunk is not as it was written")
    decompressed: bytes = blosc.decompress(data[:-4])
    return decompressed


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
