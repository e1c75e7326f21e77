"""The Lightning trainer of a run, and what Lightning has to be told."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar, Timer

from geosr.models.checkpoint import CHECKPOINT, FACTS
from geosr.training.health import Health
from geosr.training.loggers import make_loggers
from geosr.training.optim import is_better_higher
from geosr.training.panels import Panels
from geosr.training.report import Report
from geosr.training.timing import Timing

if TYPE_CHECKING:
    from geosr.training.run import Run

log = logging.getLogger("geosr")

NOISE = (
    "Checkpoint directory .* exists and is not empty",
    "The '.*_dataloader' does not have many workers",  # Data.num_workers decides
    ".*sync_dist=True.*",  # every process validates everything, so their figures are the same
    "The dirpath has changed",  # a run's folder may be moved
    "You're resuming from a checkpoint that ended before the epoch",  # the data module goes on with the next patches
)
"""Warnings of Lightning that a user can do nothing about, or has decided."""


def make_trainer(run: "Run", callbacks: Sequence[L.Callback], *, quiet: bool) -> L.Trainer:
    """A Lightning trainer for all steps of the run, which for Lightning are one epoch."""
    config, training, total = run.config, run.config.Training, run.module.schedule.total
    metric = config.Schedulers.metric
    resumed_at = None
    if run.checkpoint:
        resumed_at = torch.load(run.checkpoint, map_location="cpu", weights_only=True, mmap=True)[FACTS]["step"] - 1
    several: list[Any] = [
        *callbacks,
        Timing(run.data.patches_for(total - 1) * training.devices, arrived=lambda: run.data.arrived),
        Health(),
        Report(run.folder),
    ]
    if training.early_stopping_patience:
        mode = "max" if is_better_higher(metric) else "min"
        several.append(EarlyStopping(metric, mode=mode, patience=training.early_stopping_patience, check_finite=True))
    if config.Logging.num_val_images:
        several.append(Panels(run.folder, config.Data.bands, config.Logging.num_val_images))
    if training.max_time is not None:
        several.append(TimeOfThisRun(training.max_time))
    several.append(KeepLast(run.folder / CHECKPOINT))
    if not quiet:
        several.append(RichProgressBar())
    return L.Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        # In one step either network's weights are left out of a loss
        strategy="auto" if training.devices == 1 else "ddp_find_unused_parameters_true",
        use_distributed_sampler=False,  # each rank draws patches of its own
        max_epochs=1,
        val_check_interval=min(training.val_every, total),
        limit_val_batches=1.0 if training.limit_val_batches is None else training.limit_val_batches,
        callbacks=several,
        logger=make_loggers(config, run.folder, resumed_at=resumed_at),
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=run.module.every,
        benchmark=True,
    )


class KeepLast(L.Callback):
    """Saves the run as it is after its last step, however it came to be the last."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *batch: Any) -> None:
        """Save while the step's epoch lasts: Lightning would not go on with one that is over."""
        if trainer.should_stop or module.step == module.schedule.total:
            trainer.save_checkpoint(self.path)


class TimeOfThisRun(Timer):
    """Stops a run after some time, in which that of the run that it continues does not count."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start at zero."""


@contextmanager
def stoppable(trainer: L.Trainer) -> Iterator[threading.Event]:
    """The first interrupt or termination ends the run after its step, the second at once; whether there was one."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def finish_step(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        trainer.should_stop = True
        log.info("stopping after this step; once more stops at once")

    before = {number: signal.signal(number, finish_step) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_noise() -> Iterator[None]:
    """Lightning without its advertisements, its own deprecations and the warnings in ``NOISE``."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message)
            warnings.filterwarnings("ignore", ".*deprecated.*", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
