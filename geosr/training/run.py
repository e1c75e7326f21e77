"""One training run: data, networks and trainer, and what it leaves behind."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from geosr import __version__
from geosr.config import Config, check, load_config
from geosr.data.datamodule import GeoSRDataModule
from geosr.errors import ConfigError
from geosr.models import save_model
from geosr.models.checkpoint import FACTS
from geosr.models.hardware import keep_freed_memory, native_bf16, pick_device, start_threads
from geosr.training.build import build_networks
from geosr.training.debug import shrunk
from geosr.training.folder import CONFIG, find_checkpoint, new_run
from geosr.training.module import SuperResolution
from geosr.training.optim import is_better_higher
from geosr.training.report import SUMMARY, write_report
from geosr.training.trainer import make_trainer, stoppable, without_noise

log = logging.getLogger("geosr")

LOG = "train.log"
"""What the run said."""
FOLDER = "GEOSR_RUN_FOLDER"
"""Environment variable by which the first of several processes tells the others where the run is."""


def train(
    config: str | Path | Config = "config_20m.yaml",
    overrides: Sequence[str] = (),
    *,
    debug: bool = False,
    quiet: bool = False,
) -> Path:
    """Path of the weights file that a run of ``config`` ends with.

    A run with a discriminator ends with its last averaged weights: by the figures that compare pixels the best would be
    those from before the adversarial phase. Without one it ends with those of the best validation.

    Args:
        config: A configuration, its file, or the name of a shipped one.
        overrides: ``Section.key=value`` settings on top of the file's. ``Model.continue_training=auto`` goes on with
            the latest run of the same name.
        debug: Train small networks for 16 steps, to see everything work.
        quiet: No progress bar.

    Raises:
        ConfigError: The configuration or the data that it names does not hold.
        TrainingError: A loss is not finite any more.
    """
    settings = check(config) if isinstance(config, Config) else load_config(config, overrides)
    run = prepare_run(shrunk(settings) if debug else settings)
    with run.logged():
        return run.train(quiet=quiet)


@dataclass(frozen=True)
class Run:
    """A run that is ready to start."""

    config: Config
    data: GeoSRDataModule
    module: SuperResolution
    folder: Path
    checkpoint: Path | None
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
            f"on {_device(config)} in {self.module.precision}{processes}",
            f"{'continuing' if self.checkpoint else 'writing to'} {self.folder}",
        ]
        return "\n".join(lines)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Everything that geosr says meanwhile also goes to the run's log."""
        if rank_zero_only.rank not in (None, 0):
            yield
            return
        handler = logging.FileHandler(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            handler.close()

    def train(self, *, quiet: bool) -> Path:
        """Train to the end, or until it is interrupted; the path of the weights file."""
        started = perf_counter()
        self._announce()
        best = self._best()
        with without_noise():
            trainer = make_trainer(self, [best], quiet=quiet)
            with stoppable(trainer) as stop:
                try:
                    trainer.fit(self.module, self.data, ckpt_path=self.checkpoint, weights_only=True)
                except BaseException as error:
                    self._tell("interrupted" if isinstance(error, SystemExit) else "failed", started)
                    raise
            self._take(best)
            measured = self._measured(trainer, interrupted=stop.is_set())
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()
        return self._finish(measured, interrupted=stop.is_set(), started=started)

    @rank_zero_only
    def _announce(self) -> None:
        """Say what will happen, and keep the settings."""
        log.info("%s\n%s\n%s", self.data.describe(), self.module.networks.describe(), self.describe())
        (self.folder / CONFIG).write_text(yaml.safe_dump(self.config.to_dict(), sort_keys=False), "utf-8")

    def _best(self) -> ModelCheckpoint:
        """Keeps the two best checkpoints, and the last."""
        metric = self.config.Schedulers.metric
        return ModelCheckpoint(
            self.folder,
            "best-{updates:.0f}",
            monitor=metric,
            mode="max" if is_better_higher(metric) else "min",
            save_top_k=2,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def _take(self, best: ModelCheckpoint) -> None:
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

    def _finish(self, measured: Mapping[str, Any], *, interrupted: bool, started: float) -> Path:
        """Write weights, summary and report, and say where they are."""
        path = self.folder / f"{self.config.Model.name}.safetensors"
        if rank_zero_only.rank not in (None, 0):
            return path
        figures = quality(measured)
        self._export(path, figures, seconds=round(perf_counter() - started))
        report = self._tell("interrupted" if interrupted else "finished", started, measured)
        if figures:
            log.info("%s", describe_quality(figures))
        log.info("weights: %s\nreport: %s", path, report)
        if interrupted:
            log.info("interrupted at step %s; go on with --resume %s", f"{self.module.step:,}", self.folder)
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
                "device": _device_name(_device(self.config)),
                "config": self.config.to_dict(),
                "scenes": self.data.sources(),
                "attribution": "contains modified Copernicus Sentinel data",
            },
            quality=dict(figures),
        )
        save_model(trained, path)

    @rank_zero_only
    def _tell(self, status: str, started: float, measured: Mapping[str, Any] | None = None) -> Path:
        """Write how the run ended, and the report."""
        weights = self.folder / f"{self.config.Model.name}.safetensors"
        summary = {
            "status": status,
            "step": self.module.step,
            "steps": self.module.schedule.total,
            "seconds": round(perf_counter() - started, 1),
            "weights": weights.name if weights.is_file() else None,
            "metrics": {
                name: round(float(value), 6)
                for name, value in (measured or {}).items()
                if name.startswith(("val_metrics/", "validation/"))
            },
        }
        (self.folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
        return write_report(self.folder)


def prepare_run(config: Config, *, folder: Path | None = None) -> Run:
    """Data and networks of a run; everything that can be wrong with the configuration is found here.

    Args:
        config: The configuration.
        folder: Where the run writes; None makes a new one, or takes that of the run that is continued.
    """
    _require_devices(config)
    keep_freed_memory()
    start_threads()
    L.seed_everything(config.Training.seed, verbose=False)
    where = config.Model.continue_training
    checkpoint = None if where is None else find_checkpoint(where, config)
    data = GeoSRDataModule(config)
    networks = build_networks(config, data)
    module = SuperResolution(networks, config, data.schedule, precision=_precision(config))
    if folder is None:  # the last thing: a run that cannot start leaves nothing
        folder = checkpoint.parent if checkpoint else _new_folder(config)
    module.folder = folder
    return Run(config, data, module, folder, checkpoint)


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
    kind = _device(config)
    if wanted == "gpu" and kind == "cpu":
        kind = "cuda"
    if kind in there and there[kind] < several:
        raise ConfigError(
            f"Training.accelerator is {wanted!r} and Training.devices {several}; this machine has {there[kind]} {kind} "
            f"devices. Set Training.accelerator=cpu, or Training.devices={max(there[kind], 1)} (--devices)"
        )


def _device(config: Config) -> str:
    """What ``Training.accelerator`` means on this machine."""
    wanted = config.Training.accelerator
    return pick_device("auto" if wanted == "gpu" else wanted).type


def _device_name(kind: str) -> str:
    """What cards call a device: the name of a GPU, or how many threads computed."""
    return torch.cuda.get_device_name() if kind == "cuda" else f"{kind}, {torch.get_num_threads()} threads"


def _precision(config: Config) -> str:
    """What ``Training.precision`` means on this machine."""
    if config.Training.precision != "auto":
        return config.Training.precision
    return "bf16-mixed" if native_bf16(_device(config)) else "32-true"


def quality(measured: Mapping[str, float]) -> dict[str, float]:
    """Figures of the last validation as a weights file tells them: PSNR in dB, SAM in degrees."""
    if not measured:
        return {}
    values = {name.rpartition("/")[2]: value for name, value in measured.items() if name.startswith("val_metrics/")}
    figures = {"psnr": values["psnr"], "psnr_over_bicubic": values["psnr_gain"]}
    for name in ("sam", "ssim", "consistency"):
        for ending in ("", "_bicubic"):
            value = values[name + ending]
            figures[name + ending] = math.degrees(value) if name == "sam" else value
    return {name: round(float(value), 6) for name, value in figures.items()}


def describe_quality(figures: Mapping[str, float]) -> str:
    """A line of validation figures, each next to that of bicubic interpolation."""
    return (
        "validation: PSNR {psnr:.2f} dB ({psnr_over_bicubic:+.2f} dB over bicubic), SAM {sam:.3f}° (bicubic "
        "{sam_bicubic:.3f}°), SSIM {ssim:.4f} (bicubic {ssim_bicubic:.4f}), degraded output differs from the input by "
        "{consistency:.1e} (bicubic {consistency_bicubic:.1e})"
    ).format_map(figures)
