"""Compressed blocks on disk, where they wait until the file that they belong to is assembled."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from geosr import files
from geosr.errors import OutputError


class Block(NamedTuple):
    """Where a compressed block lies, and its checksum."""

    path: str
    offset: int
    length: int
    checksum: int

    def read(self) -> bytes:
        """The bytes of the block. Any thread may read.

        Raises:
            OutputError: They are not those that were written.
        """
        if crc32(data := self._stored()) != self.checksum:
            raise OutputError(f"a block of {self.path} is not as it was written; run again with --restart")
        return data

    @property
    def intact(self) -> bool:
        """Whether the bytes are those that were written."""
        return crc32(self._stored()) == self.checksum

    def _stored(self) -> bytes:
        file = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(file, self.length, self.offset)
        finally:
            os.close(file)


class BlockFile:
    """Blocks in the order in which they were finished, in a new file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._size = 0

    def append(self, data: bytes) -> Block:
        """Write one block and say where it lies."""
        self._file.write(data)
        block = Block(os.fspath(self.path), self._size, len(data), crc32(data))
        self._size += len(data)
        return block

    def flush(self) -> None:
        """Hand everything to the operating system; what was not cannot be read."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def store_blocks(path: Path, blocks: Mapping[str, bytes], *, label: str = "") -> None:
    """Write a file of blocks: a line with a label and a list of them, its checksum in front, then their bytes.

    Args:
        path: The file.
        blocks: Compressed blocks by key.
        label: What the file is and belongs to, which another file at this place would not say.

    Raises:
        OSError: It cannot be written.
    """
    listed = json.dumps([label, [[key, len(data), crc32(data)] for key, data in blocks.items()]]).encode()
    files.write(path, [b"%08x " % crc32(listed), listed, b"\n", *blocks.values()], sync=False)


def stored_blocks(path: Path, *, label: str = "") -> dict[str, Block]:
    """The blocks of a file that `store_blocks` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Its list was damaged, it is another file, or no file at all.
    """
    require_file(path)
    with path.open("rb") as file:
        checksum, _, listed = file.readline().rstrip(b"\n").partition(b" ")
        offset = file.tell()
    if checksum != b"%08x" % crc32(listed):
        raise ValueError(f"the list of blocks in {path} is not as it was written")
    found, entries = json.loads(listed)
    if found != label:
        raise ValueError(f"{path} holds the blocks of {found}, not of {label}")
    blocks = {}
    for key, length, check in entries:
        blocks[key] = Block(os.fspath(path), offset, length, check)
        offset += length
    return blocks


def require_file(path: Path) -> None:
    """Refuse what is no plain file: opening a pipe would wait for ever, and a link leads elsewhere.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is something else.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path} is no plain file")
