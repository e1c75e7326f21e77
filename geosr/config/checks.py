"""What each setting of a training run may be, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path

from geosr.config import degradation
from geosr.config.rules import Rule, above, at_least, one_of
from geosr.config.schema import Config
from geosr.errors import ConfigError, did_you_mean

MODEL_TYPES = ("compact",)
"""Architectures that can be trained; keys of ``geosr.models.registry.ARCHITECTURES``."""


def _are_windows(windows: Mapping[str, list[int]]) -> bool:
    return all(len(window) == 4 and min(window[:2]) >= 0 and min(window[2:]) >= 1 for window in windows.values())


def _are_shares(shares: list[float]) -> bool:
    return len(shares) == 3 and min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) < 1e-6


COUNT = at_least(1)
WINDOWS = Rule("scene: [row, column, height, width], the first two at least 0, the others at least 1", _are_windows)

RULES: Mapping[str, Rule] = {
    "Data.dataset_type": one_of("scenes", "pairs", "store"),
    "Data.exclude": WINDOWS,
    "Data.val_windows": WINDOWS,
    "Data.bands": Rule("names of bands, at least one, each once", lambda names: 0 < len(names) == len(set(names))),
    "Data.gsd": Rule("above 0, or null", lambda metres: metres is None or 0 < metres < math.inf),
    "Data.patch_size": COUNT,
    "Data.split": Rule("three shares of at least 0 that sum to 1, the first above 0", _are_shares),
    "Data.split_block": above(0),
    "Data.split_buffer": at_least(0),
    "Data.val_patches": COUNT,
    "Data.stride": COUNT,
    "Data.min_valid": Rule("above 0 and at most 1", lambda share: 0 < share <= 1),
    "Data.cache": one_of("none", "memory"),
    "Data.train_batch_size": COUNT,
    "Data.val_batch_size": COUNT,
    "Data.num_workers": at_least(0),
    "Data.prefetch_factor": COUNT,
    "Data.start_method": Rule("fork, spawn, forkserver, or null", (None, "fork", "spawn", "forkserver").__contains__),
    "Data.detail": at_least(0),
    "Data.gain": at_least(1),
    "Data.band_gain": at_least(1),
    "Data.noise": at_least(0),
    "Data.cutblur": Rule("from 0 to 1", lambda share: 0 <= share <= 1),
    **{f"Degradation.{key}": rule for key, rule in degradation.RULES.items()},
    "Model.name": Rule("the name of a file, without a folder", lambda name: name == Path(name).name != ""),
    "Generator.model_type": one_of(*MODEL_TYPES),
    "Generator.scaling_factor": COUNT,
    "Generator.n_channels": COUNT,
    "Generator.n_blocks": at_least(0),
    "Training.max_steps": COUNT,
    "Training.val_every": COUNT,
    "Training.precision": one_of("auto", "32-true", "bf16-mixed"),
    "Training.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "Training.seed": Rule("from 0 to 4294967295", lambda seed: 0 <= seed < 2**32),
    "Training.gradient_clip_val": Rule("at least 0; 0 switches it off", at_least(0).holds),
    "Training.Losses.l1_weight": above(0),
    "Training.EMA.decay": Rule("at least 0 and below 1", lambda decay: 0 <= decay < 1),
    "Optimizers.optim_g_lr": above(0),
    "Optimizers.betas": Rule(
        "two numbers, each at least 0 and below 1",
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    ),
    "Schedulers.g_warmup_steps": at_least(0),
}


def check(config: Config) -> Config:
    """The configuration itself, once every setting in the table is known to hold.

    Raises:
        ConfigError: Some do not; one line for each, with the value and what is allowed.
    """
    wrong = []
    for key, rule in RULES.items():
        value = attrgetter(key)(config)
        if not rule.holds(value):
            hint = did_you_mean(str(value), rule.choices)
            wrong.append(f"{key} is {value!r}; allowed is {rule.allowed}{hint}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return config
