"""The folder of a run: where a new one goes, and where an earlier one was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from geosr import files
from geosr.config.document import read_document
from geosr.config.schema import Config
from geosr.errors import ConfigError, OutputError
from geosr.models.checkpoint import CHECKPOINT

CONFIG = "config.yaml"
"""The run's settings."""
LOG = "train.log"
"""What the run said; the process that writes it holds a lock on it as long as the run lasts."""


def new_run(config: Config) -> Path:
    """A folder that was not there before: ``Logging.dir/project/name``.

    The name is ``Logging.name``, else the environment's WANDB_NAME, else ``Model.name`` and the time; where it is taken
    it gets ``-2``, ``-3`` and so on. Two runs that start at once get one each.

    Raises:
        ConfigError: The name is none, or the folder cannot be made.
    """
    name = config.Logging.name or os.environ.get("WANDB_NAME") or f"{config.Model.name}-{datetime.now():%Y%m%d-%H%M%S}"
    if name in (".", "..") or Path(name).name != name:
        origin = "Logging.name" if config.Logging.name else "WANDB_NAME"
        raise ConfigError(f"{origin} is {name!r}; a run's name is that of one folder, such as first-try")
    project = _project(config)
    try:
        project.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = project / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ConfigError(
            f"a run cannot be kept in {project}: {error.strerror or error}; name a folder with Logging.dir"
        ) from error
    raise AssertionError("there are numbers enough")


def latest_run(config: Config) -> Path | None:
    """The run of this ``Model.name`` in the same project whose checkpoint is the youngest; None where there is none."""
    checkpoints = [
        path for path in _project(config).glob(f"*/{CHECKPOINT}") if _model_name(path.parent) == config.Model.name
    ]
    return max(checkpoints, key=lambda path: path.stat().st_mtime_ns).parent if checkpoints else None


def find_checkpoint(where: str, config: Config) -> Path:
    """The checkpoint to continue with.

    Args:
        where: ``auto`` for that of the latest run, the folder of a run, or a checkpoint (.ckpt).
        config: Says where runs are, and the name of the model that ``auto`` looks for.

    Raises:
        ConfigError: There is no such checkpoint.
    """
    if where == "auto":
        run = latest_run(config)
        if run is None:
            raise ConfigError(
                f"no run of {config.Model.name!r} in {_project(config)} has a {CHECKPOINT} to continue with; name "
                "another's folder, or start anew without Model.continue_training (--resume)"
            )
        return run / CHECKPOINT
    path = Path(where)
    if path.is_dir():
        path = path / CHECKPOINT
        if not path.is_file():
            others = " ".join(other.name for other in other_checkpoints(path))
            way = f"go on with another of its checkpoints ({others})" if others else "start anew"
            raise ConfigError(f"{where} has no {CHECKPOINT}: the run stopped before its first validation; {way}")
    if path.suffix != ".ckpt" or not path.is_file():
        raise ConfigError(f"{where!r} is no run to continue; give auto, the folder of a run, or a checkpoint (.ckpt)")
    return path


def other_checkpoints(path: Path) -> list[Path]:
    """The checkpoints of the run that a checkpoint belongs to, without that one itself."""
    return sorted(other for other in path.parent.glob("*.ckpt") if other != path and other.is_file())


def held(folder: Path) -> Any:
    """The run's folder, as long as the block lasts: no other process works in it; a process that dies lets go of it.

    Raises:
        OutputError: Another process does.
    """
    return files.locked(folder / LOG, what=f"the run in {folder}", inherited=False)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The writing of a file of a run: the error names it, the reason and what to do.

    Raises:
        OutputError: The disk is full, or the file cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}") from error


def _project(config: Config) -> Path:
    return Path(config.Logging.dir) / config.Logging.project


def _model_name(folder: Path) -> str | None:
    """``Model.name`` of the run in this folder; None where its settings cannot be read."""
    try:
        return str(read_document(folder / CONFIG)["Model"]["name"])
    except (ConfigError, KeyError, TypeError):
        return None
