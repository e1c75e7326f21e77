"""Work folders: where an output grows beside its target."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geosr.errors import OutputError


def work_folder(target: Path) -> Path:
    """Where the work for a target lies until it is complete: a hidden folder beside it."""
    return target.with_name(f".{target.name}.geosr")


@contextmanager
def locked_folder(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """The work folder of a target, which stays when the block is left.

    Args:
        target: What the work will become.
        shared: Let others in who share it, too; else this process is the only one.

    Raises:
        OutputError: Another process has it.
        OSError: It cannot be made.
    """
    folder = work_folder(target)
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another geosr is writing {target}; wait for it, or choose another --out") from error
        yield folder
