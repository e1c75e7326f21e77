"""Where the values that a run logs go: a table in its folder, TensorBoard, Weights & Biases."""

import csv
import io
import os
import secrets
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from geosr import files
from geosr.config.schema import Config
from geosr.errors import ConfigError
from geosr.training.folder import writing

METRICS = "metrics.csv"
"""One row for each time that values were logged; a value that was not logged then is empty."""
TENSORBOARD = "tensorboard"
"""Folder, in that of the run, of TensorBoard's files."""
WANDB_ID = "wandb_id.txt"
"""What Weights & Biases calls the run."""


def make_loggers(config: Config, folder: Path, *, resumed_at: int | None) -> list[Logger]:
    """The loggers of a run; of several processes only the first writes.

    Args:
        config: Says which there are besides the table.
        folder: The run's folder.
        resumed_at: The last step, counted from 0, that a run which continues had done; what was logged of later ones is
            dropped, as they are done again. None where a run starts.

    Raises:
        ConfigError: Weights & Biases is not installed.
    """
    loggers: list[Logger] = [MetricsTable(folder, resumed_at=resumed_at)]
    if config.Logging.tensorboard:
        purge = None if resumed_at is None else resumed_at + 1
        loggers.append(
            TensorBoardLogger(
                folder, name="", version="", sub_dir=TENSORBOARD, default_hp_metric=False, purge_step=purge
            )
        )
    if config.Logging.wandb.enabled:
        if find_spec("wandb") is None:
            raise ConfigError(
                "Logging.wandb.enabled needs the package wandb, which is not installed: pip install 'geosr[wandb]', or "
                "set Logging.wandb.enabled=false"
            )
        loggers.append(
            WandbLogger(
                name=folder.name,
                save_dir=folder,
                version=_wandb_id(folder),
                project=config.Logging.project,
                entity=config.Logging.wandb.entity,
                config=config.to_dict(),
            )
        )
    return loggers


class MetricsTable(Logger):
    """A CSV table that gets each row as it is logged, so that a run that is killed loses none.

    Args:
        folder: Where ``metrics.csv`` is written.
        resumed_at: Rows up to this step stay, later ones go; None starts an empty table.
    """

    def __init__(self, folder: Path, *, resumed_at: int | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.path = folder / METRICS
        self.columns = ["step"]
        if rank_zero_only.rank in (None, 0):
            kept = [] if resumed_at is None else [row for row in read_metrics(folder) if row["step"] <= resumed_at]
            self._rewrite(kept)

    @property
    def name(self) -> str:
        """Nothing: the folder is the run's own."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the folder is the run's own."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return os.fspath(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the settings are in the run's folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": 0 if step is None else step} | {name: float(value) for name, value in metrics.items()}
        if row.keys() <= set(self.columns):
            with writing(self.path), open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        else:
            self._rewrite([*read_metrics(self.folder), row])

    def _rewrite(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace the table by these rows, with a column for each of their names."""
        names = {name: None for row in rows for name in row}
        self.columns += [name for name in names if name not in self.columns]
        table = io.StringIO()
        writer = csv.DictWriter(table, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        with writing(self.path):
            files.write(self.path, table.getvalue(), sync=False)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Rows of the table in a run's folder: the values that were logged, by name, and their ``step``.

    A last row that a killed process did not finish is left out; without a table there are none.
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    return [
        {name: int(value) if name == "step" else float(value) for name, value in row.items() if value}
        for row in csv.DictReader(lines)
    ]


def _wandb_id(folder: Path) -> str:
    """What Weights & Biases calls the run in this folder: the same again when it continues."""
    path = folder / WANDB_ID
    if rank_zero_only.rank in (None, 0) and not path.is_file():
        with writing(path):
            files.write(path, secrets.token_hex(4))
    return path.read_text().strip() if path.is_file() else ""
