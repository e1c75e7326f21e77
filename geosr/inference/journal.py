"""What a job is, on disk beside its target: a killed run continues where it was, and many may work on one job."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from geosr.errors import OutputError
from geosr.io.work import locked_folder, work_folder


class Journal:
    """The work folder of a target, and in it the job that its shards belong to.

    Args:
        target: What the run will end with.
        job: Everything that the pixels depend on. Work of another job is thrown away.
        call: What :func:`geosr.predict` was called with, so that the job can be finished by its target's name alone.
        restart: Throw away the work of the same job, too.
        shared: Work beside other processes that share the job. Nothing is thrown away then.
        keep: Throw nothing away, as for those that share a job, but work alone.

    Raises:
        OutputError: The folder cannot be made, another process works in it, or shares it for another job.
    """

    def __init__(
        self,
        target: Path,
        job: Mapping[str, Any],
        *,
        call: Mapping[str, Any] | None = None,
        restart: bool = False,
        shared: bool = False,
        keep: bool = False,
    ) -> None:
        self._lock = ExitStack()
        self.target = target
        try:
            self.folder = self._lock.enter_context(locked_folder(target, shared=shared))
            header = json.dumps({"job": dict(job), "call": dict(call or {})}, sort_keys=True)
            if restart or (not (shared or keep) and _job(self.folder) != json.loads(header)["job"]):
                _empty(self.folder)
            _write_once(self.folder, header)
            if _job(self.folder) != json.loads(header)["job"]:
                raise OutputError(
                    f"{self.folder} holds the work of another job; give every share the same options, or remove it"
                )
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write beside {target}: {error.strerror}") from error
        except OutputError:
            self.close()
            raise

    def close(self) -> None:
        """Keep the work for the next run and let others in."""
        self._lock.close()

    def remove(self) -> None:
        """The target is complete: the work folder goes."""
        gone = self.folder.with_name(f"{self.folder.name}-{uuid4().hex}")
        os.rename(self.folder, gone)  # a worker that is late, with a shard that another one did, writes no more into it
        self.close()
        shutil.rmtree(gone)


def stored_call(target: Path) -> dict[str, Any]:
    """What :func:`geosr.predict` was called with for the unfinished work beside a target.

    Raises:
        OutputError: There is no unfinished work.
    """
    try:
        call: dict[str, Any] = json.loads((work_folder(target) / _HEADER).read_text())["call"]
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(
            f"there is no unfinished work beside {target}; geosr predict ... --out {target} --shard 1/N begins it"
        ) from error
    return call


_HEADER = "job.json"


def _job(folder: Path) -> Any:
    """The job whose work a folder holds; None without one."""
    try:
        return json.loads((folder / _HEADER).read_text())["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_once(folder: Path, header: str) -> None:
    """Write down the job unless there is one; of several processes that try, one succeeds."""
    if _job(folder) is not None:
        return
    mine = folder / f"job-{uuid4().hex}"
    mine.write_text(header)
    try:
        os.link(mine, folder / _HEADER)
    except FileExistsError:
        if _job(folder) is None:  # a run was killed while it wrote it
            os.replace(mine, folder / _HEADER)
    mine.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Throw away everything but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
