"""What a run will need, measured rather than guessed: the memory and time of an update."""

import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch

from geosr.config import Config, check, load_config
from geosr.training.run import Run, prepare_run
from geosr.training.trainer import without_noise

MEASURED = 3
"""Updates of which the last is measured; the first ones make the memory that all later ones use again."""


@dataclass(frozen=True)
class Needs:
    """What one process of a run needs."""

    description: str
    """What the run would do."""
    step_seconds: float
    """Time of an update of both networks, the wait for its data included."""
    steps: int
    memory: int
    """Largest memory in bytes: of the device where it is a GPU, else of the process."""
    device: str

    def __str__(self) -> str:
        hours, seconds = divmod(round(self.step_seconds * self.steps), 3600)
        return (
            f"{self.description}\na step takes {self.step_seconds:.3g} s and {self.memory / 1e9:.2f} GB on the "
            f"{self.device}; {self.steps:,} of them {hours} h {seconds // 60} min {seconds % 60} s, without validation"
        )


def measure_run(config: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str] = ()) -> Needs:
    """What a run would need: everything is built, a few updates are made and forgotten, nothing is written.

    Args:
        config: A configuration, its file, or the name of a shipped one.
        overrides: ``Section.key=value`` settings on top of the file's.

    Raises:
        ConfigError: The configuration or the data that it names does not hold.
    """
    settings = check(config) if isinstance(config, Config) else load_config(config, overrides)
    with tempfile.TemporaryDirectory() as folder:
        run = prepare_run(settings, folder=Path(folder))
        description = "\n".join((run.data.describe(), run.module.networks.describe(), run.describe()))
        clock = Clock()
        # The dearest updates: those with a discriminator, where there is one.
        schedule = run.module.schedule
        run.module.step = run.data.batches_made = schedule.pretraining if schedule.adversarial else 0
        with without_noise():
            trainer = _trainer(run, clock)
            trainer.fit(run.module, run.data)
    return Needs(description, clock.seconds, schedule.total, clock.memory, clock.device)


def _trainer(run: Run, clock: "Clock") -> L.Trainer:
    training = run.config.Training
    return L.Trainer(
        accelerator=training.accelerator,
        devices=1,
        max_epochs=1,
        limit_train_batches=min(MEASURED, run.module.schedule.total),
        limit_val_batches=0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Clock(L.Callback):
    """Time of the last update and the largest memory until then."""

    def __init__(self) -> None:
        self.started, self.seconds, self.memory, self.device = perf_counter(), 0.0, 0, "cpu"

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *batch: Any) -> None:
        """Read the clock."""
        device = module.device
        if device.type == "cuda":
            torch.cuda.synchronize()
            self.memory = torch.cuda.max_memory_allocated(device)
        else:
            unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
            self.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        self.device = device.type
        now = perf_counter()
        self.seconds, self.started = now - self.started, now
