"""Compressed blocks on disk, where they wait until the file that they belong to is assembled."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

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


def store_blocks(path: Path, blocks: Mapping[str, bytes]) -> None:
    """Write a file of blocks: a line that lists them, with a checksum in front, then their bytes."""
    listed = json.dumps([[key, len(data), crc32(data)] for key, data in blocks.items()]).encode()
    store(path, [b"%08x " % crc32(listed), listed, b"\n", *blocks.values()])


def stored_blocks(path: Path) -> dict[str, Block]:
    """The blocks of a file that `store_blocks` wrote.

    Raises:
        ValueError: Its list was damaged.
    """
    with path.open("rb") as file:
        checksum, _, listed = file.readline().rstrip(b"\n").partition(b" ")
        offset = file.tell()
    if checksum != b"%08x" % crc32(listed):
        raise ValueError(f"the list of blocks in {path} is not as it was written")
    blocks = {}
    for key, length, check in json.loads(listed):
        blocks[key] = Block(os.fspath(path), offset, length, check)
        offset += length
    return blocks


def store(path: Path, parts: Iterable[bytes], *, folder: Path | None = None) -> None:
    """Write a file that gets its name when it is whole; of several processes that write it, the last one wins.

    Args:
        path: The file.
        parts: Its bytes.
        folder: Where it grows, on the same file system; None: beside it, where a process that is killed leaves a part.

    Raises:
        OSError: It cannot be written; nothing is left of it then.
    """
    handle, unfinished = tempfile.mkstemp(dir=folder or path.parent, prefix=f".{path.name}-")
    try:
        with open(handle, "wb") as file:
            file.writelines(parts)
        os.chmod(unfinished, 0o666 & ~_UMASK)  # mkstemp's files are their owner's alone
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)  # who finished the job meanwhile removed the folder
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()
