"""What a job is, on disk beside its target: a killed run continues where it was, and many may work on one job.

The work folder stays until everything that the run writes has its name. What is finished and waits for its name is
listed in it, so that a run that was killed in between is completed, and knows its own files from those of others.
"""

import filecmp
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from geosr import files
from geosr.errors import OutputError
from geosr.io.work import JOB, LOCK, empty, locked_folder, remove_leftovers, remove_work, require_own, work_folder

PUBLISHING = "publishing.json"
"""The file that lists what is finished and waits for its name."""


class Staged(NamedTuple):
    """A finished file or folder in the work folder, and the name that it is to have."""

    path: Path
    target: Path
    copied: bool = False
    """Whether the target is a copy, as of a small file that may be wanted on another file system."""
    fresh: bool = False
    """Whether nothing may have the target's name, as of a folder: one that is there has files of others in it."""


class Journal:
    """The work folder of a target, and in it the job that its shards belong to.

    Args:
        target: What the run will end with.
        job: Everything that the pixels depend on. Work of another job is thrown away.
        call: What :func:`geosr.predict` was called with, so that the job can be finished by its target's name alone.
        writes: Everything that the run gives a name.
        require: Called with those of them that a killed run of this job has published, before anything is thrown away
            or written; its errors are passed on.
        restart: Throw away the work of the same job, too.
        shared: Work beside other processes that share the job. Nothing is thrown away then.
        keep: Throw nothing away, as for those that share a job, but work alone.

    Raises:
        OutputError: The folder cannot be made or is not geosr's own, another process works in it, or shares it for
            another job.
    """

    def __init__(
        self,
        target: Path,
        job: Mapping[str, Any],
        *,
        call: Mapping[str, Any] | None = None,
        writes: Collection[Path] = (),
        require: Callable[[Collection[Path]], None] | None = None,
        restart: bool = False,
        shared: bool = False,
        keep: bool = False,
    ) -> None:
        self._lock = ExitStack()
        self.target = target
        header = json.loads(json.dumps({"job": dict(job), "call": dict(call or {})}))
        try:
            self.folder = self._lock.enter_context(locked_folder(target, shared=shared))
            self._writes = sorted(map(str, writes))
            found = _job(self.folder)
            finishing = _without_once(found) == _without_once(header["job"]) and not restart and not shared
            self._waiting = _waiting(self.folder, self._writes) if finishing else []
            if require is not None:
                self._require(require, alone=not shared)
            if self._waiting:
                return
            if restart or not (found == header["job"] or shared or keep):
                empty(self.folder)
            _write_once(self.folder, header)
            if _job(self.folder) != header["job"]:
                raise OutputError(
                    f"{self.folder} holds the work of another job; give every share the same options, or remove it"
                )
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write beside {target}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def _require(self, require: Callable[[Collection[Path]], None], *, alone: bool) -> None:
        """Call `require`, and leave no folder behind where it refuses a run that found none."""
        try:
            require({staged.target for staged in self._waiting if _is_published(staged, self.folder)})
        except BaseException:
            if alone and os.listdir(self.folder) == [LOCK]:
                remove_work(self.folder)
            raise

    @property
    def complete(self) -> bool:
        """Whether an earlier run of the job has finished everything, and was killed before all of it had its name."""
        return bool(self._waiting)

    def publish(self, staged: Sequence[Staged], *, overwrite: bool) -> None:
        """Give everything that is finished its name, and remove the work folder.

        Args:
            staged: What is finished, in the order in which it gets its name; the result itself comes last.
            overwrite: Replace what has these names.

        Raises:
            OutputError: A target exists.
            OSError: They cannot be written.
        """
        for one in staged:
            files.sync_to_disk(one.path)
        listed = [
            [str(one.path.relative_to(self.folder)), str(one.target), one.copied, one.fresh, _identity(one.path)]
            for one in staged
        ]
        files.write(self.folder / PUBLISHING, _sealed({"staged": listed, "writes": self._writes}))
        self._waiting = list(staged)
        self.finish(overwrite=overwrite)

    def finish(self, *, overwrite: bool) -> None:
        """Give what waits for its name that name, and remove the work folder; errors as for `publish`."""
        for one in self._waiting:
            if _is_published(one, self.folder):
                continue
            try:
                if one.copied:
                    near = os.stat(one.target.parent).st_dev == os.stat(self.folder).st_dev
                    folder = self.folder if near else None  # a run that is killed leaves nothing beside the target
                    files.write(one.target, one.path.read_bytes(), folder=folder, overwrite=overwrite)
                else:
                    replace = overwrite and not one.fresh
                    files.publish(one.path, one.target, folder=self.folder, overwrite=replace)
            except FileExistsError as error:
                raise OutputError(
                    f"{one.target} exists, and did not when the work began; give --overwrite to replace it"
                ) from error
        remove_work(self.folder)
        self.close()

    def close(self) -> None:
        """Keep the work for the next run and let others in."""
        self._lock.close()


def published_targets(target: Path) -> set[Path]:
    """What a run that was killed while it published has written of its results: targets that are its own, not a user's.

    What remains of a run that was killed at its very end is removed.
    """
    remove_leftovers(target)
    folder = work_folder(target)
    try:
        require_own(folder)
        return {staged.target for staged in _waiting(folder) if _is_published(staged, folder)}
    except OSError:  # whatever is wrong with the place is said when it is checked
        return set()


def stored_call(target: Path) -> dict[str, Any]:
    """What :func:`geosr.predict` was called with for the unfinished work beside a target.

    Raises:
        OutputError: There is no unfinished work, or it is damaged.
    """
    folder = work_folder(target)
    try:
        require_own(folder)
        begun = (folder / JOB).exists()
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror}") from error
    if not begun:
        raise OutputError(
            f"there is no unfinished work beside {target}; geosr predict ... --out {target} --shard 1/N begins it"
        )
    call: dict[str, Any] | None = (_unsealed(folder / JOB) or {}).get("call")
    if not call:
        raise OutputError(
            f"{folder / JOB} is not as geosr wrote it, or of another version; do the shares again, which begins anew"
        )
    return call


def _sealed(content: Mapping[str, Any]) -> str:
    """JSON that says itself whether it is as it was written."""
    return json.dumps({**content, "sha256": digest(content)}, sort_keys=True)


def _unsealed(path: Path) -> dict[str, Any] | None:
    """What `_sealed` made the JSON in a file of; None where that is not there or not as it was written."""
    try:
        content = json.loads(path.read_bytes())
        intact = content.pop("sha256") == digest(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content if intact else None


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _job(folder: Path) -> Any:
    """The job whose work a folder holds; None without one."""
    return (_unsealed(folder / JOB) or {}).get("job")


def _write_once(folder: Path, header: Mapping[str, Any]) -> None:
    """Write down the job unless there is one; of several processes that try, one succeeds."""
    if _job(folder) is not None:
        return
    try:
        files.write(folder / JOB, _sealed(header), overwrite=False)
    except FileExistsError:
        if _job(folder) is None:  # it was damaged
            files.write(folder / JOB, _sealed(header))


def _without_once(job: Any) -> Any:
    """A job without what makes it another one each time: what is finished depends on its inputs no more."""
    return {**job, "once": None} if isinstance(job, dict) else job


def _waiting(folder: Path, writes: Sequence[str] | None = None) -> list[Staged]:
    """What was finished when a run was killed while it published, if all of it is still here or has its name.

    Args:
        folder: The work folder.
        writes: What the run is to write, if it must be the same.
    """
    publishing = _unsealed(folder / PUBLISHING) or {}
    if writes is not None and publishing.get("writes") != writes:
        return []
    listed = publishing.get("staged", [])
    staged = [Staged(folder / path, Path(target), *how) for path, target, *how, _ in listed]
    for one, (*_, identity) in zip(staged, listed, strict=True):
        here = os.path.lexists(one.path) and _identity(one.path) == identity
        taken = one.fresh and os.path.lexists(one.target)
        if (taken or not here) and not _is_published(one, folder):
            return []
    return staged


def _is_published(staged: Staged, folder: Path) -> bool:
    """Whether the target is what waited for its name here."""
    path, target = staged.path, staged.target
    if not os.path.lexists(target) or target.is_symlink():
        return False
    if os.path.lexists(path):
        if path.is_dir() or target.is_dir():
            return False
        return os.path.samefile(path, target) or (staged.copied and filecmp.cmp(path, target, shallow=False))
    for name, *_, identity in (_unsealed(folder / PUBLISHING) or {}).get("staged", []):
        if folder / name == path:
            return bool(_identity(target) == identity)
    return False


def _identity(path: Path) -> list[int]:
    """What a file keeps under another name and no other file has: inode, size and time; of a folder the inode."""
    status = path.stat()
    return [status.st_ino] if path.is_dir() else [status.st_ino, status.st_size, status.st_mtime_ns]
