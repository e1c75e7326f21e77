"""One training run: data, networks and trainer, and what it leaves behind."""

import errno
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from geosr import __version__, files
from geosr.config import Config, check, load_config
from geosr.config.checks import LONGEST
from geosr.data.datamodule import GeoSRDataModule
from geosr.errors import ConfigError, OutputError
from geosr.models import save_model
from geosr.models.checkpoint import CHECKPOINT, FACTS
from geosr.models.hardware import keep_freed_memory, native_bf16, start_threads
from geosr.training.build import build_networks
from geosr.training.checkpoints import KeepBest
from geosr.training.debug import shrunk
from geosr.training.folder import CONFIG, LOG, find_checkpoint, held, new_run, writing
from geosr.training.memory import device_of, require_memory_for_batches
from geosr.training.module import SuperResolution
from geosr.training.report import REPORT, SUMMARY, summary_of, write_report
from geosr.training.resume import Resumed, read_resumed, require_fit
from geosr.training.trainer import FirstCause, make_trainer, stoppable, why_it_stopped, without_noise

log = logging.getLogger("geosr")

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of writing, not of reading."""
FOLDER = "GEOSR_RUN_FOLDER"
"""Environment variable by which the first of several processes tells the others where the run is."""


def train(
    config: str | Path | Mapping[str, Any] | Config = "config_20m.yaml",
    overrides: Sequence[str] = (),
    *,
    debug: bool = False,
    quiet: bool = False,
) -> Path:
    """Path of the weights file that a run of ``config`` ends with.

    A run with a discriminator ends with its last averaged weights: by the figures that compare pixels the best would be
    those from before the adversarial phase. Without one it ends with those of the best validation.

    Args:
        config: A configuration, its file or the name of a shipped one, or nested settings (`settings_of` a run).
        overrides: ``Section.key=value`` settings on top of the file's. ``Model.continue_training=auto`` goes on with
            the latest run of the same name.
        debug: Train small networks for 16 steps, to see everything work.
        quiet: No progress bar.

    Raises:
        ConfigError: The configuration or the data that it names does not hold.
        ModelError: The checkpoint of the run that is continued is damaged.
        OutputError: The disk is full, or another process works in the run's folder.
        TrainingError: A loss is not finite any more.
    """
    settings = check(config) if isinstance(config, Config) else load_config(config, overrides)
    with ready_run(shrunk(settings) if debug else settings) as run:
        return run.train(quiet=quiet)


@dataclass(frozen=True)
class Run:
    """A run that is ready to start."""

    config: Config
    data: GeoSRDataModule
    module: SuperResolution
    folder: Path
    resumed: Resumed | None
    """Where an earlier run stopped, which this one continues."""

    def describe(self) -> str:
        """What will happen, a few lines."""
        config, schedule, data = self.config, self.module.schedule, self.data
        training = config.Training
        phases = ", ".join(f"{name} {start:,} to {end:,}" for name, start, end in schedule.phases())
        at_once = config.Data.train_batch_size * training.accumulate_grad_batches * training.devices
        epochs = schedule.total / data.updates_per_epoch
        processes = f", {training.devices} processes" if training.devices > 1 else ""
        lines = [
            f"{schedule.total:,} steps of {at_once} patches ({epochs:.2g} epochs), validation every "
            f"{min(training.val_every, schedule.total):,}; {phases}",
            f"on {device_of(config)} in {self.module.precision}{processes}",
            f"continuing {self.folder} after step {self.resumed.step:,}"
            if self.resumed
            else f"writing to {self.folder}",
        ]
        if training.max_time is not None:
            lines.append(f"for {training.max_time} at most, counted from now on (Training.max_time)")
        planned = self.resumed.steps if self.resumed else None
        if planned not in (None, schedule.total) and schedule.decay == "cosine":
            lines.append(
                f"the learning rates follow a cosine of {schedule.total:,} steps from here on, no longer that of "
                f"{planned:,}: the result differs from that of as many steps at once"
            )
        return "\n".join(lines)

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that this run continues."""
        return self.resumed.path if self.resumed else None

    @property
    def is_done(self) -> bool:
        """Whether the run that is continued has no step left, and all of its files are there."""
        if self.resumed is None or self.resumed.step < self.module.schedule.total:
            return False
        names = (SUMMARY, REPORT, self.weights.name)
        return (
            all((self.folder / name).is_file() for name in names)
            and summary_of(self.folder).get("status") == "finished"
        )

    @property
    def weights(self) -> Path:
        """The weights file that the run ends with."""
        return self.folder / f"{self.config.Model.name}.safetensors"

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Everything that geosr says meanwhile also goes to the run's log."""
        if rank_zero_only.rank not in (None, 0):
            yield
            return
        with writing(self.folder / LOG):
            handler = RunLog(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            with suppress(OSError):  # lines that the full disk had no place for
                handler.close()

    def train(self, *, quiet: bool) -> Path:
        """Train to the end, or until it is interrupted; the path of the weights file.

        Raises:
            OutputError: The disk is full.
            TrainingError: A loss is not finite any more.
        """
        if self.is_done and self.resumed is not None:
            log.info(
                "%s has done its %s steps: nothing is left to train. For more, raise Training.max_steps",
                self.folder, f"{self.resumed.step:,}",
            )  # fmt: skip
            return self.weights
        started, first = perf_counter(), FirstCause()
        try:
            return self._train(first, quiet=quiet, started=started)
        except BaseException as error:
            cause = error if first.error is None or isinstance(error, SystemExit) else first.error
            self._report_failure("interrupted" if isinstance(cause, SystemExit) else "failed", started)
            if isinstance(cause, OSError) and cause.errno in NO_PLACE:
                what = cause.filename or f"a file of the run in {self.folder}"
                cause = OutputError(f"{what} could not be written: {cause.strerror}")
            if isinstance(cause, OutputError):
                raise OutputError(f"{cause}; {self._way_on()}") from error
            if cause is error:
                raise
            raise cause from None

    def _train(self, first: FirstCause, *, quiet: bool, started: float) -> Path:
        self._announce()
        best = KeepBest(self.folder, self.config.Schedulers.metric)
        with without_noise():
            trainer = make_trainer(self, [first, best], quiet=quiet)
            with stoppable(trainer) as stop, warnings.catch_warnings():
                # A run may go on without the patience that it began with.
                warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")
                trainer.fit(self.module, self.data, ckpt_path=self.checkpoint, weights_only=True)
            done, total = self.module.step, self.module.schedule.total
            reason = None if done >= total else "it was interrupted" if stop.is_set() else why_it_stopped(trainer)
            status = "finished" if done >= total else "interrupted" if stop.is_set() else "stopped"
            self._take(best)
            measured = self._measured(trainer, interrupted=status == "interrupted")
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()
        return self._finish(measured, Ending(status, done, reason), started=started)

    def _way_on(self) -> str:
        """What to do when something of the run could not be written."""
        if (self.folder / CHECKPOINT).is_file():
            return f"go on with --resume {self.folder} (Model.continue_training)"
        return f"there is no checkpoint yet: remove {self.folder}, and start again"

    @rank_zero_only
    def _announce(self) -> None:
        """Say what will happen, and keep the settings."""
        log.info("%s\n%s\n%s", self.data.describe(), self.module.networks.describe(), self.describe())
        settings = self.config.to_dict()
        settings["Model"]["continue_training"] = None  # the settings of the run, wherever it is moved to
        with writing(self.folder / CONFIG):
            files.write(self.folder / CONFIG, yaml.safe_dump(settings, sort_keys=False))

    def _take(self, best: KeepBest) -> None:
        """Go back to the best validation, where no discriminator ever had a say."""
        if self.module.schedule.adversarial or not best.best_model_path:
            return
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["state_dict"])
        self.module.step = state[FACTS]["step"]

    def _measured(self, trainer: L.Trainer, *, interrupted: bool) -> Mapping[str, Any]:
        """Figures of the weights as they are: those of the last validation if it was of them, else of another one."""
        if trainer.callback_metrics.get("updates", -1) == self.module.step:
            return dict(trainer.callback_metrics)
        return {} if interrupted else trainer.validate(self.module, self.data, verbose=False)[0]

    def _finish(self, measured: Mapping[str, Any], ending: "Ending", *, started: float) -> Path:
        """Write weights, summary and report, and say where they are."""
        path = self.weights
        if rank_zero_only.rank not in (None, 0):
            return path
        figures = quality(measured)
        with writing(path):
            self._export(path, figures, seconds=round(perf_counter() - started))
        report = self._tell(ending, started, measured)
        if figures:
            log.info("%s", describe_quality(figures))
        log.info("weights: %s\nreport: %s", path, report)
        if ending.status != "finished":
            steps = f"{ending.step:,} of {self.module.schedule.total:,}"
            log.info("%s at step %s: %s; %s", ending.status, steps, ending.reason, self._way_on())
        return path

    def _export(self, path: Path, figures: Mapping[str, float], *, seconds: int) -> None:
        """Write the weights file, which says how it came about."""
        trained = self.module.best.cpu()
        trained.spec = replace(
            trained.spec,
            provenance={
                "geosr": __version__,
                "step": self.module.step,
                "seconds": seconds,
                "device": _device_name(device_of(self.config)),
                "config": self.config.to_dict(),
                "scenes": self.data.sources(),
                "attribution": "contains modified Copernicus Sentinel data",
            },
            quality=dict(figures),
        )
        save_model(trained, path)

    @rank_zero_only
    def _tell(self, ending: "Ending", started: float, measured: Mapping[str, Any] | None = None) -> Path:
        """Write how the run ended, and the report."""
        summary = {
            "status": ending.status,
            "reason": ending.reason,
            "step": ending.step,
            "steps": self.module.schedule.total,
            "seconds": round(perf_counter() - started, 1),
            "weights": self.weights.name if self.weights.is_file() else None,
            "weights_step": self.module.step if measured is not None else None,
            "metrics": {
                name: round(float(value), 6)
                for name, value in (measured or {}).items()
                if name.startswith(("val_metrics/", "validation/")) and math.isfinite(value)
            },
        }
        with writing(self.folder / SUMMARY):
            files.write(self.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        return write_report(self.folder)

    def _report_failure(self, status: str, started: float) -> None:
        """Write that the run failed, if that can be written: the cause of the failure matters more."""
        try:
            self._tell(Ending(status, self.module.step), started)
        except (OSError, OutputError) as error:
            log.warning("the report of the run could not be written either (%s)", error)


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    status: str
    """finished, stopped (by a setting), interrupted or failed."""
    step: int
    """Steps that were trained."""
    reason: str | None = None
    """Why it did not finish."""


class RunLog(logging.FileHandler):
    """A log file without which the run goes on: on a full disk the error of another file says what is wrong."""

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        """Leave the line out."""


@contextmanager
def ready_run(config: Config) -> Iterator[Run]:
    """A run that is ready to start, in a folder that no other process works in.

    Args:
        config: The configuration, which may say which run to continue.

    Raises:
        OutputError: Another process works in the folder of the run.
    """
    where = config.Model.continue_training
    alone = rank_zero_only.rank in (None, 0)
    with ExitStack() as stack:
        if where is not None and alone:
            stack.enter_context(held(find_checkpoint(where, config).parent))
        run = prepare_run(config)
        if where is None and alone:
            stack.enter_context(held(run.folder))
        stack.enter_context(run.logged())
        yield run


def prepare_run(config: Config, *, folder: Path | None = None) -> Run:
    """Data and networks of a run; everything that can be wrong with the configuration is found here.

    Args:
        config: The configuration.
        folder: Where the run writes; None makes a new one, or takes that of the run that is continued.
    """
    _require_devices(config)
    require_memory_for_batches(config, device=device_of(config))
    keep_freed_memory()
    start_threads()
    L.seed_everything(config.Training.seed, verbose=False)
    where = config.Model.continue_training
    resumed = None if where is None else read_resumed(where, config)
    data = GeoSRDataModule(config)
    if data.schedule.total > LONGEST:
        raise ConfigError(
            f"the run has {data.schedule.total:,} steps; at most {LONGEST:,} are allowed: set Training.max_steps"
        )
    networks = build_networks(config, data)
    module = SuperResolution(networks, config, data.schedule, precision=_precision(config))
    if resumed:
        require_fit(resumed, module, config)
    if folder is None:  # the last thing: a run that cannot start leaves nothing
        folder = resumed.folder if resumed else _new_folder(config)
    module.folder = folder
    return Run(config, data, module, folder, resumed)


def _new_folder(config: Config) -> Path:
    """A new folder, or that of the process that started this one."""
    if int(os.environ.get("LOCAL_RANK", 0)) and FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    folder = new_run(config)
    os.environ[FOLDER] = str(folder)
    return folder


def _require_devices(config: Config) -> None:
    """Refuse what this machine does not have."""
    wanted, several = config.Training.accelerator, config.Training.devices
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind = device_of(config)
    if wanted == "gpu" and kind == "cpu":
        kind = "cuda"
    if kind in there and there[kind] < several:
        raise ConfigError(
            f"Training.accelerator is {wanted!r} and Training.devices {several}; this machine has {there[kind]} {kind} "
            f"devices. Set Training.accelerator=cpu, or Training.devices={max(there[kind], 1)} (--devices)"
        )


def _device_name(kind: str) -> str:
    """What cards call a device: the name of a GPU, or how many threads computed."""
    return torch.cuda.get_device_name() if kind == "cuda" else f"{kind}, {torch.get_num_threads()} threads"


def _precision(config: Config) -> str:
    """What ``Training.precision`` means on this machine."""
    if config.Training.precision != "auto":
        return config.Training.precision
    return "bf16-mixed" if native_bf16(device_of(config)) else "32-true"


FIGURES = {
    "psnr": "PSNR {psnr:.2f} dB",
    "psnr_over_bicubic": "({psnr_over_bicubic:+.2f} dB over bicubic)",
    "sam": "SAM {sam:.3f}° (bicubic {sam_bicubic:.3f}°)",
    "ssim": "SSIM {ssim:.4f} (bicubic {ssim_bicubic:.4f})",
    "consistency": "degraded output differs from the input by {consistency:.1e} (bicubic {consistency_bicubic:.1e})",
}
"""Figures of a validation that a weights file keeps, and how the log says them."""


def quality(measured: Mapping[str, float]) -> dict[str, float]:
    """Figures of the last validation as a weights file keeps them: PSNR in dB, SAM in degrees.

    One that could not be measured is absent.
    """
    values = {name.rpartition("/")[2]: value for name, value in measured.items() if name.startswith("val_metrics/")}
    found = {"psnr": values.get("psnr"), "psnr_over_bicubic": values.get("psnr_gain")}
    for name in ("sam", "ssim", "consistency"):
        for ending in ("", "_bicubic"):
            value = values.get(name + ending)
            found[name + ending] = math.degrees(value) if value is not None and name == "sam" else value
    return {name: round(float(value), 6) for name, value in found.items() if value is not None and math.isfinite(value)}


def describe_quality(figures: Mapping[str, float]) -> str:
    """A line of validation figures, each next to that of bicubic interpolation; those that are absent are named."""
    there = [text.format_map(figures) for name, text in FIGURES.items() if {name, f"{name}_bicubic"} & figures.keys()]
    absent = [name.upper() for name in ("psnr", "sam", "ssim") if name not in figures]
    absent += [] if "consistency" in figures else ["consistency"]
    line = "validation: " + ", ".join(there).replace("dB, (", "dB (")
    if absent:
        line += f"; too few valid pixels lie together to measure {' and '.join(absent)}"
    return line
