"""Work folders: where an output grows beside its target, in one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geosr.errors import OutputError


@contextmanager
def locked_folder(target: Path) -> Iterator[Path]:
    """The hidden folder beside ``target`` that holds its unfinished work, which stays when the block is left.

    Raises:
        OutputError: Another process has it.
        OSError: It cannot be made.
    """
    folder = target.with_name(f".{target.name}.geosr")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another geosr is writing {target}; wait for it, or choose another --out") from error
        yield folder
