"""What each setting of a training run may be, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from geosr.config import degradation
from geosr.config.combinations import problems
from geosr.config.names import (
    CONTENT_LOSSES,
    DISCRIMINATORS,
    FIGURES,
    GENERATORS,
    NORMS,
    OBJECTIVES,
    PERCEPTUAL_METRICS,
    SCHEDULES,
    TV_KINDS,
    UPSAMPLERS,
    VARIANTS,
    VGG_LAYERS,
)
from geosr.config.rules import Rule, above, at_least, between, count, matching, nullable, odd, one_of, switch
from geosr.config.schema import Config
from geosr.errors import ConfigError, did_you_mean

METRICS = tuple(f"val_metrics/{name}" for name in FIGURES)


def _are_windows(windows: Mapping[str, list[int]]) -> bool:
    return all(
        len(window) == 4 and min(window[:2]) >= 0 and min(window[2:]) >= 1 and max(window) < 2**31
        for window in windows.values()
    )


def _are_shares(shares: list[float]) -> bool:
    return len(shares) == 3 and min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) < 1e-6


def _are_layers(layers: Mapping[str, float]) -> bool:
    return bool(layers) and set(layers) <= set(VGG_LAYERS) and all(map(above(0).holds, layers.values()))


def _rise(steps: list[int]) -> bool:
    return all(first < second for first, second in pairwise([0, *steps]))


def _is_name(name: str) -> bool:
    return name == Path(name).name != "" and name != ".."


COUNT = at_least(1)
WIDE, MANY, LONGEST = 1024, 65_536, 10_000_000
"""Channels, images at once and steps at most: far beyond what is published, and little enough to count."""
WINDOWS = Rule("scene: [row, column, height, width], the first two at least 0, the others at least 1", _are_windows)
NAME = Rule("a name, without a folder", _is_name)
DECAY = Rule("at least 0 and below 1", lambda decay: 0 <= decay < 1)
FACTOR = Rule("above 0 and below 1", lambda factor: 0 < factor < 1)
METRIC = one_of(*METRICS)

RULES: Mapping[str, Rule] = {
    "Data.dataset_type": one_of("scenes", "pairs", "store"),
    "Data.exclude": WINDOWS,
    "Data.val_windows": WINDOWS,
    "Data.bands": Rule("names of bands, at least one, each once", lambda names: 0 < len(names) == len(set(names))),
    "Data.guide": Rule("names of bands, each once", lambda names: len(names) == len(set(names))),
    "Data.companions": Rule("end of a name: another end", lambda ends: all(map(all, ends.items()))),
    "Data.gsd": Rule("above 0, or null", lambda metres: metres is None or 0 < metres < math.inf),
    "Data.patch_size": count(8192),
    "Data.split": Rule("three shares of at least 0 that sum to 1, the first above 0", _are_shares),
    "Data.split_block": above(0),
    "Data.split_buffer": at_least(0),
    "Data.val_patches": COUNT,
    "Data.stride": COUNT,
    "Data.min_valid": Rule("above 0 and at most 1", lambda share: 0 < share <= 1),
    "Data.cache": one_of("none", "memory"),
    "Data.train_batch_size": count(MANY),
    "Data.val_batch_size": count(MANY),
    "Data.num_workers": between(0, 1024),
    "Data.prefetch_factor": count(1024),
    "Data.start_method": Rule("fork, spawn, forkserver, or null", (None, "fork", "spawn", "forkserver").__contains__),
    "Data.detail": at_least(0),
    "Data.balance": between(0, 1),
    "Data.gain": at_least(1),
    "Data.band_gain": at_least(1),
    "Data.noise": at_least(0),
    "Data.cutblur": between(0, 1),
    **{f"Degradation.{key}": rule for key, rule in degradation.RULES.items()},
    "Model.name": Rule("the name of a file, without a folder", _is_name),
    "Model.variant": one_of(*VARIANTS),
    "Generator.class_path": nullable(matching("package.module.Class", r"[^\W\d]\w*(\.[^\W\d]\w*)+")),
    "Generator.model_type": one_of(*GENERATORS),
    "Generator.scaling_factor": count(64),
    "Generator.n_channels": count(WIDE),
    "Generator.n_blocks": between(0, 1000),
    "Generator.large_kernel_size": odd(255),
    "Generator.small_kernel_size": odd(255),
    "Generator.growth_channels": count(WIDE),
    "Generator.res_scale": above(0),
    "Generator.reduction": count(WIDE),
    "Generator.noise_dim": count(WIDE),
    "Generator.depth": count(1000),
    "Generator.n_heads": count(WIDE),
    "Generator.window_size": between(2, 256),
    "Generator.upsampler": one_of(*UPSAMPLERS),
    "Discriminator.model_type": one_of(*DISCRIMINATORS),
    "Discriminator.n_blocks": nullable(count(64)),
    "Discriminator.base_channels": count(WIDE),
    "Discriminator.linear_size": count(MANY),
    "Discriminator.n_scales": count(16),
    "Discriminator.norm": nullable(one_of(*NORMS)),
    "Training.max_steps": nullable(count(LONGEST)),
    "Training.max_epochs": nullable(count(LONGEST)),
    "Training.max_time": nullable(
        matching("days:hours:minutes:seconds such as 00:02:00:00", r"(?=.*[1-9])[0-9]{1,5}(:[0-9]{2}){3}")
    ),
    "Training.val_every": COUNT,
    "Training.limit_val_batches": nullable(COUNT),
    "Training.early_stopping_patience": switch(),
    "Training.precision": one_of("auto", "32-true", "bf16-mixed", "16-mixed"),
    "Training.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "Training.devices": count(1024),
    "Training.seed": Rule("from 0 to 4294967295", lambda seed: 0 <= seed < 2**32),
    "Training.accumulate_grad_batches": count(MANY),
    "Training.g_pretrain_steps": Rule("at least 0, or -1 for the whole run", at_least(-1).holds),
    "Training.pretrain_losses": Rule(
        f"some of {', '.join(CONTENT_LOSSES)}, each once",
        lambda names: set(names) <= set(CONTENT_LOSSES) and len(names) == len(set(names)),
    ),
    "Training.adv_loss_ramp_steps": at_least(0),
    "Training.d_steps_per_g": count(1024),
    "Training.d_accuracy_limit": nullable(Rule("above 0.5 and at most 1", lambda share: 0.5 < share <= 1)),
    **{f"Training.Losses.{name}_weight": switch() for name in CONTENT_LOSSES},
    "Training.Losses.charbonnier_eps": above(0),
    "Training.Losses.band_weights": Rule(
        "band: weight of at least 0", lambda weights: all(map(at_least(0).holds, weights.values()))
    ),
    "Training.Losses.fft_alpha": at_least(0),
    "Training.Losses.tv_kind": one_of(*TV_KINDS),
    "Training.Losses.perceptual_metric": one_of(*PERCEPTUAL_METRICS),
    "Training.Losses.perceptual_layers": Rule(
        "layer: weight above 0, at least one, of conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 ... conv3_4 conv4_1 ... "
        "conv4_4 conv5_1 ... conv5_4",
        _are_layers,
    ),
    "Training.Losses.perceptual_weights": Rule(
        "imagenet, random, or a .pth file", lambda name: name in ("imagenet", "random") or name.endswith(".pth")
    ),
    "Training.Losses.perceptual_white": above(0),
    "Training.Losses.adv_loss_type": one_of(*OBJECTIVES),
    "Training.Losses.adv_loss_beta": switch(),
    "Training.Losses.adv_loss_schedule": one_of("linear", "cosine"),
    "Training.Losses.feature_matching_weight": switch(),
    "Training.Losses.r1_gamma": switch(),
    "Training.Losses.r1_every": COUNT,
    "Training.Losses.gp_weight": switch(),
    "Training.EMA.decay": DECAY,
    "Training.EMA.update_after_step": at_least(0),
    "Training.EMA.device": nullable(matching("cpu, cuda, cuda:0 ..., mps", r"cpu|cuda(:\d+)?|mps")),
    "Optimizers.name": one_of("adam", "adamw"),
    "Optimizers.optim_g_lr": above(0),
    "Optimizers.optim_d_lr": above(0),
    "Optimizers.betas": Rule(
        "two numbers, each at least 0 and below 1", lambda betas: len(betas) == 2 and all(map(DECAY.holds, betas))
    ),
    "Optimizers.eps": above(0),
    "Optimizers.weight_decay_g": switch(),
    "Optimizers.weight_decay_d": switch(),
    "Optimizers.gradient_clip_val": switch(),
    "Schedulers.name": one_of(*SCHEDULES),
    "Schedulers.g_warmup_steps": at_least(0),
    "Schedulers.g_warmup_type": one_of("cosine", "linear"),
    "Schedulers.metric": METRIC,
    "Schedulers.metric_g": nullable(METRIC),
    "Schedulers.metric_d": nullable(one_of("validation/DISC_adversarial_loss", *METRICS)),
    **{
        f"Schedulers.{key}{network}": nullable(rule) if network else rule
        for key, rule in {
            "patience": at_least(0),
            "factor": FACTOR,
            "cooldown": at_least(0),
            "min_lr": at_least(0),
            "threshold": at_least(0),
        }.items()
        for network in ("", "_g", "_d")
    },
    "Schedulers.milestones": Rule("steps of at least 1 that rise", _rise),
    "Schedulers.gamma": Rule("above 0 and at most 1", lambda gamma: 0 < gamma <= 1),
    "Logging.project": NAME,
    "Logging.name": nullable(NAME),
    "Logging.every": COUNT,
    "Logging.num_val_images": switch(),
}


def check(config: Config) -> Config:
    """The configuration itself, once every setting in the table is known to hold, and they hold together.

    Raises:
        ConfigError: Some do not; one line for each, with the value and what is allowed.
    """
    wrong = []
    for key, rule in RULES.items():
        value = attrgetter(key)(config)
        if not rule.holds(value):
            hint = did_you_mean(str(value), rule.choices)
            wrong.append(f"{key} is {value!r}; allowed is {rule.allowed}{hint}")
    wrong = wrong or problems(config)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return config
