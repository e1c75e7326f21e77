"""Files that appear complete or not at all: written beside their target, synced to disk and renamed; locks; SHA-256.

Every file or folder that geosr leaves behind gets its name here, so that a full disk, a kill or a power cut never
leaves half of one under the target's name, and what was there before stays until the new one is whole.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from geosr.errors import OutputError


@contextmanager
def replacing(
    target: str | os.PathLike[str], *, folder: Path | None = None, sync: bool = True, overwrite: bool = True
) -> Iterator[Path]:
    """A path to write a new file or folder at, which takes the target's name when the block ends without an error.

    Args:
        target: The file or folder. What is there already is replaced in one step (a folder: moved away, then removed).
        folder: Where the new one grows, on the same file system; None: beside the target.
        sync: Reach the disk before the rename, so that the target is whole after a power cut, too. Work that is
            checked when it is read again can do without.
        overwrite: Replace what has the target's name.

    Raises:
        FileExistsError: The target exists and is not to be replaced.
        OutputError: The target exists and is neither a file nor a folder (a device, a pipe).
        OSError: It cannot be written; nothing is left of it then.
    """
    target = Path(target)
    require_replaceable(target)
    ending = target.suffix if len(os.fsencode(target.suffix)) <= _ENDING else ""
    handle, name = tempfile.mkstemp(dir=folder or target.parent, prefix=f".{shortened(target.name)}-", suffix=ending)
    unfinished = Path(name)
    try:
        os.close(handle)
        unfinished.unlink()  # the block decides whether it becomes a file or a folder
        yield unfinished
        publish(unfinished, target, folder=folder, sync=sync, overwrite=overwrite)
    except BaseException:
        remove(unfinished)
        raise


def write(
    target: str | os.PathLike[str],
    content: bytes | str | Iterable[bytes],
    *,
    folder: Path | None = None,
    sync: bool = True,
    overwrite: bool = True,
) -> Path:
    """Write a file (text as UTF-8) under its name in one step; the path of the file.

    Of several processes that write it, the last one wins. Arguments and errors are those of `replacing`.
    """
    parts = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content
    with (
        replacing(target, folder=folder, sync=sync, overwrite=overwrite) as unfinished,
        unfinished.open("wb") as file,
    ):
        file.writelines(parts)
    return Path(target)


_NAME, _ENDING = 100, 20  # bytes of a target's name and of its ending in the names of temporary files, at most 255


def shortened(name: str) -> str:
    """The beginning of a name, which leaves room for more in what a file's name may hold."""
    return os.fsencode(name)[:_NAME].decode(errors="ignore")


def publish(
    unfinished: Path, target: Path, *, folder: Path | None = None, sync: bool = True, overwrite: bool = True
) -> None:
    """Give a finished file or folder its target's name.

    Args:
        unfinished: The file or folder, on the target's file system.
        target: Its name from now on.
        folder: Where a folder that is replaced waits to be removed; None: beside the target.
        sync: Reach the disk before and after the rename.
        overwrite: Replace what has that name.

    Raises:
        FileExistsError: Something has that name and is not to be replaced.
        OSError: It cannot be synced or renamed; what was there before has its name still.
    """
    if sync:
        sync_to_disk(unfinished)
    if not overwrite:
        _publish_new(unfinished, target)
    elif target.is_dir() and not target.is_symlink():
        _publish_over_folder(unfinished, target, folder or target.parent)
    else:
        os.replace(unfinished, target)
    if sync:
        _sync(target.parent)


def _publish_new(unfinished: Path, target: Path) -> None:
    """Give the target's name unless there is such a file, also one that another process has just made."""
    if not unfinished.is_dir():
        try:
            os.link(unfinished, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
        else:
            unfinished.unlink()
            return
    if os.path.lexists(target):  # a file system without links: another process may come between
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(unfinished, target)


def _publish_over_folder(unfinished: Path, target: Path, folder: Path) -> None:
    """Replace a folder, which goes when the new one has its name and comes back where that fails."""
    away = Path(tempfile.mkdtemp(dir=folder, prefix=f".{shortened(target.name)}-"))
    replaced = away / "replaced"
    try:
        os.rename(target, replaced)
        os.rename(unfinished, target)
    except BaseException:
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(away)


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
    else:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder of geosr's own, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_replaceable(target: Path) -> None:
    """Refuse a target that is neither a file nor a folder: renaming onto a device would replace the device.

    Raises:
        OutputError: It exists and is something else.
    """
    try:
        mode = target.stat().st_mode
    except OSError:  # it does not exist, or the error of writing it says more
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(f"{target} exists and is neither a file nor a folder; choose another name")


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths mean one file, through links and mounts; neither needs to exist."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)


@contextmanager
def locked(path: Path, *, what: str, shared: bool = False, inherited: bool = True) -> Iterator[None]:
    """Hold a lock file as long as the block runs; the operating system frees it where the process is killed.

    Args:
        path: The lock file, which is made where it is absent and stays.
        what: What the lock protects, for the message.
        shared: Let others in who share it; else this process is the only one.
        inherited: Processes that this one forks hold it, too, until they end: right where they write. False: where
            they only read, a killed process leaves the lock free at once.

    Raises:
        OutputError: Another process holds it, or it is a link.
        OSError: It cannot be made.
    """
    handle = _lock(path, what=what, shared=shared)
    while not _is_open(path, handle):  # who had it removed it, with its folder perhaps: this lock is nobody's
        os.close(handle)
        handle = _lock(path, what=what, shared=shared)
    _OPEN.add(handle)
    if not inherited:
        _OWN.add(handle)
    try:
        yield
    finally:
        if handle in _OPEN:  # a forked process has closed its own already
            os.close(handle)
        _OPEN.discard(handle)
        _OWN.discard(handle)


_OPEN: set[int] = set()
_OWN: set[int] = set()
"""Handles of locks that are held, and of those that forked processes do not inherit."""


def _let_go() -> None:
    """In a forked process: close the locks that belong to the one that forked it, which keeps them."""
    for handle in _OWN:
        os.close(handle)
        _OPEN.discard(handle)
    _OWN.clear()


os.register_at_fork(after_in_child=_let_go)


def _lock(path: Path, *, what: str, shared: bool) -> int:
    """A handle that has a lock file locked."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise OutputError(f"{path} is a symbolic link and no lock file of geosr's; remove it") from error
        raise
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if not isinstance(error, BlockingIOError):
            raise
        raise OutputError(f"another geosr process is writing {what}; wait for it, or choose another name") from error
    return handle


def _is_open(path: Path, handle: int) -> bool:
    """Whether a handle's file is still the one at this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
