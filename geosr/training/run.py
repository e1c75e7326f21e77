"""One training run: data, model, trainer, and the weights file at its end."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from geosr import __version__
from geosr.config import Config, check, load_config
from geosr.data.datamodule import GeoSRDataModule
from geosr.errors import ConfigError
from geosr.models import Model, ModelSpec, load_model, save_model
from geosr.models.hardware import native_bf16
from geosr.training.module import SuperResolution

log = logging.getLogger("geosr")

NOISE = (
    "Experiment logs directory .* exists and is not empty",  # the run's folder holds the run's configuration
    "Checkpoint directory .* exists and is not empty",
    "The '.*_dataloader' does not have many workers",  # Data.num_workers decides
)
"""Warnings of Lightning that a user can do nothing about, or has decided."""


def train(
    config: str | Path | Config = "config_20m.yaml", overrides: Sequence[str] = (), *, quiet: bool = False
) -> Path:
    """Path of the weights file that a run of ``config`` ends with: the averaged weights of its best validation.

    Args:
        config: A configuration, its file, or the name of a shipped one.
        overrides: ``Section.key=value`` settings on top of the file's.
        quiet: No progress bar.

    Raises:
        ConfigError: The configuration or the data that it names does not hold.
    """
    settings = check(config) if isinstance(config, Config) else load_config(config, overrides)
    L.seed_everything(settings.Training.seed, verbose=False)
    data = GeoSRDataModule(settings)
    log.info(data.describe())
    model = build_model(settings, data)
    log.info("training %s", model.describe())
    folder = Path(settings.Logging.dir) / f"{settings.Model.name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings.to_dict(), sort_keys=False))

    module = SuperResolution(model, settings)
    best = ModelCheckpoint(folder, "best", monitor="val/psnr_over_bicubic", mode="max", save_last=True)
    with _without_noise():
        trainer = make_trainer(settings, folder, best, quiet=quiet)
        trainer.fit(module, data)
        state = torch.load(best.best_model_path, weights_only=True)
        module.load_state_dict(state["state_dict"])
        (measured,) = trainer.validate(module, data, verbose=False)
    figures = {name.removeprefix("val/"): round(value, 6) for name, value in measured.items()}
    log.info(summary(figures))
    trained = module.best.cpu()
    trained.spec = replace(
        trained.spec,
        provenance={
            "geosr": __version__,
            "step": state["global_step"],
            "config": settings.to_dict(),
            "scenes": data.sources(),
            "attribution": "contains modified Copernicus Sentinel data",
        },
        quality=figures,
    )
    weights = save_model(trained, folder / f"{settings.Model.name}.safetensors")
    return weights.path


def build_model(config: Config, data: GeoSRDataModule) -> Model:
    """The model to train: its own normalisation, fresh weights or those of ``Model.load_checkpoint``."""
    generator = config.Generator
    mean, std = data.normalisation()
    spec = ModelSpec(
        name=config.Model.name,
        architecture=generator.model_type,
        scale=generator.scaling_factor,
        bands=tuple(config.Data.bands),
        arguments={"channels": generator.n_channels, "blocks": generator.n_blocks, "mean": mean, "std": std},
        gsd=config.Data.gsd,
        consistency_mtf=data.psf.mtf if generator.consistency else None,
        licence=config.Model.licence,
    )
    if config.Model.load_checkpoint is None:
        return Model(spec)
    start = load_model(config.Model.load_checkpoint)
    for fact in ("architecture", "scale", "bands"):
        theirs, ours = getattr(start.spec, fact), getattr(spec, fact)
        if theirs != ours:
            raise ConfigError(f"Model.load_checkpoint has {fact} {theirs!r}, the configuration says {ours!r}")
    model = Model(replace(spec, arguments=start.spec.arguments))
    model.network.load_state_dict(start.network.state_dict())
    return model


def make_trainer(config: Config, folder: Path, best: ModelCheckpoint, *, quiet: bool) -> L.Trainer:
    """A Lightning trainer that validates every ``Training.val_every`` steps and logs to ``folder``."""
    training = config.Training
    precision: Any = training.precision
    if precision == "auto":
        native = native_bf16("cpu" if training.accelerator == "cpu" else "auto")
        precision = "bf16-mixed" if native else "32-true"
    callbacks: list[Any] = [best, LearningRateMonitor()]
    if not quiet:
        callbacks.append(RichProgressBar())
    return L.Trainer(
        accelerator=training.accelerator,
        devices=1,
        use_distributed_sampler=False,  # each rank draws patches of its own
        max_epochs=1,  # of max_steps batches
        max_steps=training.max_steps,
        val_check_interval=min(training.val_every, training.max_steps),
        precision=precision,
        gradient_clip_val=training.gradient_clip_val,
        callbacks=callbacks,
        logger=[CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, name="", version="")],
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, training.max_steps),
    )


def summary(figures: Mapping[str, float]) -> str:
    """A line of validation figures, each next to that of bicubic interpolation."""
    return (
        "validation: PSNR {psnr:.2f} dB ({psnr_over_bicubic:+.2f} dB over bicubic), SAM {sam:.3f}° (bicubic "
        "{sam_bicubic:.3f}°), SSIM {ssim:.4f} (bicubic {ssim_bicubic:.4f}), degraded output differs from the input by "
        "{consistency:.1e} (bicubic {consistency_bicubic:.1e})"
    ).format_map(figures)


@contextmanager
def _without_noise() -> Iterator[None]:
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
