"""Work folders: hidden folders of geosr's own, in which an output grows beside its target.

Whatever else has the name of a work folder (a link, a folder with somebody's files) is kept, and an error names it.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from geosr import files
from geosr.errors import OutputError

JOB = "job.json"
"""The file that makes a folder geosr's own: what the work in it belongs to."""
LOCK = "lock"

_LONGEST = 200  # bytes of a target's name that its work folder's name repeats; a name has at most 255
_PASSING = r"\..+-[a-z0-9_]{8}(\..*)?"  # what `geosr.files` writes under until it is whole
_FILES = re.compile(rf"{LOCK}|job\.json|publishing\.json|overviews|tmp\w{{8}}|\.nfs\w+|{_PASSING}")
_FOLDERS = re.compile(rf"shards[-.\w]*|finished|sidecars|done|store\.zarr|{_PASSING}")


def work_folder(target: Path) -> Path:
    """Where the work for a target lies until it is complete: a hidden folder beside it."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = f"{files.shortened(name)}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return target.with_name(f".{name}.geosr")


@contextmanager
def locked_folder(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """The work folder of a target, which stays when the block is left.

    Args:
        target: What the work will become.
        shared: Let others in who share it, too; else this process is the only one.

    Raises:
        OutputError: Another process has it, or what has its name is not geosr's own.
        OSError: It cannot be made.
    """
    folder = work_folder(target)
    with ExitStack() as stack:
        while True:
            require_own(folder)
            folder.mkdir(exist_ok=True)
            try:
                stack.enter_context(files.locked(folder / LOCK, what=str(target), shared=shared))
                break
            except FileNotFoundError:  # whoever was in it has just finished and removed it
                continue
        require_own(folder)
        yield folder


def require_own(folder: Path) -> None:
    """Refuse a work folder that geosr did not make, or that holds what geosr did not put there.

    Raises:
        OutputError: It is a link or no folder, holds other files, or holds files and no job.
    """
    remedy = "geosr leaves it as it is; move it away, or choose another name for the output"
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise OutputError(f"{folder}, where the work would be done, is a link or a file; {remedy}")
    except (FileNotFoundError, NotADirectoryError):
        return
    with os.scandir(folder) as found:
        entries = list(found)
    foreign = sorted(entry.name for entry in entries if not _is_own(entry))
    if foreign:
        told = " ".join(foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        raise OutputError(f"{folder} holds what geosr did not put there ({told}); {remedy}")
    names = {entry.name for entry in entries if not re.fullmatch(_PASSING, entry.name)}
    if not names <= {LOCK} and JOB not in names:
        raise OutputError(f"{folder} holds files and no {JOB}, so it is no work folder of geosr's; {remedy}")


def _is_own(entry: os.DirEntry[str]) -> bool:
    """Whether geosr may have put this into a work folder: nothing that it writes is a link, a pipe or a device."""
    if entry.is_dir(follow_symlinks=False):
        return _FOLDERS.fullmatch(entry.name) is not None
    return entry.is_file(follow_symlinks=False) and _FILES.fullmatch(entry.name) is not None


def empty(folder: Path) -> None:
    """Throw away the work in a work folder: everything but the lock; the job goes last."""
    require_own(folder)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == JOB):
        if path.name != LOCK:
            files.remove(path)


def remove_work(folder: Path) -> None:
    """Remove a work folder whose target is complete.

    It has another name before, so that a worker that is late, with a shard that another did, writes no more into it.
    """
    gone = folder.with_name(f"{folder.name}-{uuid4().hex}")
    os.rename(folder, gone)
    files.remove(gone)


def remove_leftovers(target: Path) -> None:
    """Remove what is left where a run was killed while it removed the work folder of this target."""
    folder = work_folder(target)
    pattern = re.compile(re.escape(folder.name) + "-[0-9a-f]{32}")
    with suppress(OSError):
        for path in folder.parent.iterdir():
            if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with os.scandir(path) as entries:
                    own = all(map(_is_own, entries))
                if own:
                    files.remove(path)


def make_folder(path: Path) -> None:
    """Make a folder inside a work folder, unless it is there, in the place of a file or link of its name."""
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            path.mkdir(exist_ok=True)
