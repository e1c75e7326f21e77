"""The Lightning trainer of a run, and what Lightning has to be told."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar, Timer

from geosr.models.checkpoint import CHECKPOINT
from geosr.training.checkpoints import CheckpointFiles, KeepLast
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
    "Be aware that when using `ckpt_path`",  # settings may add or drop what stops a run
    "You're resuming from a checkpoint that ended before the epoch",  # the data module goes on with the next patches
)
"""Warnings of Lightning that a user can do nothing about, or has decided."""


def make_trainer(run: "Run", callbacks: Sequence[L.Callback], *, quiet: bool) -> L.Trainer:
    """A Lightning trainer for all steps of the run, which for Lightning are one epoch."""
    config, training, total = run.config, run.config.Training, run.module.schedule.total
    metric = config.Schedulers.metric
    resumed_at = run.resumed.step - 1 if run.resumed else None
    several: list[Any] = [
        *callbacks,
        Timing(run.data.patches_for(total - 1) * training.devices, arrived=lambda: run.data.arrived),
        Health(),
        Report(run.folder),
    ]
    if training.early_stopping_patience:
        mode = "max" if is_better_higher(metric) else "min"
        several.append(
            Patience(
                metric,
                mode=mode,
                patience=training.early_stopping_patience,
                strict=False,
                check_on_train_epoch_end=False,
            )
        )
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
        plugins=[CheckpointFiles()],
        logger=make_loggers(config, run.folder, resumed_at=resumed_at),
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=run.module.every,
        benchmark=True,
    )


class FirstCause(L.Callback):
    """The exception that ended a run: reporting it may fail as well, as on a full disk."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Keep the first one."""
        self.error = self.error or exception


class Patience(EarlyStopping):
    """Stops a run whose metric gets no better, with the patience that the settings have now."""

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, that of the class which wrote it in earlier versions, too."""
        return str(super().state_key).replace("Patience", "EarlyStopping")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best value and the validations since."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def is_finite(self, trainer: L.Trainer) -> bool:
        """Whether the metric of the last validation is a number."""
        value = trainer.callback_metrics.get(self.monitor)
        return value is None or bool(value.isfinite())


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


def why_it_stopped(trainer: L.Trainer) -> str | None:
    """Why a run ended before its last step, with the setting to change; None where no setting decided it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, TimeOfThisRun) and (callback.time_remaining() or 0) <= 0:
            return "the time of Training.max_time was over"
        if isinstance(callback, Patience) and not callback.is_finite(trainer):
            return f"{callback.monitor} was not finite"
        if isinstance(callback, Patience) and callback.wait_count >= callback.patience:
            return (
                f"{callback.monitor} had not become better in {callback.wait_count} validations "
                "(Training.early_stopping_patience; 0 switches it off)"
            )
    return None
