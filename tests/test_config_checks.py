import math
import re
from operator import attrgetter

import pytest

from geosr.config import Config, check, load_config
from geosr.config.checks import MODEL_TYPES, RULES
from geosr.config.load import shipped_configs
from geosr.config.schema import settings
from geosr.errors import ConfigError

WRONG = {
    "Data.dataset_type": ["scene", ""],
    "Data.split": [[0.8, 0.2], [0.8, 0.3, 0.1], [0.0, 0.5, 0.5], [1.1, -0.1, 0.0]],
    "Data.split_block": [0.0, -1.0, math.inf],
    "Data.split_buffer": [-1.0, math.nan],
    "Data.val_patches": [0],
    "Data.stride": [0, -8],
    "Data.min_valid": [0.0, 1.1, math.nan],
    "Data.cache": ["disk", ""],
    "Data.val_batch_size": [0],
    "Data.prefetch_factor": [0],
    "Data.start_method": ["thread", ""],
    "Data.band_gain": [0.9, math.inf],
    "Data.noise": [-0.1],
    "Data.cutblur": [-0.1, 1.1],
    "Data.exclude": [{"a.tif": [0, 0, 5]}, {"a.tif": [-1, 0, 5, 5]}, {"a.tif": [0, 0, 0, 5]}],
    "Data.val_windows": [{"a.tif": []}, {"a.tif": [0, -3, 5, 5]}, {"a.tif": [0, 0, 5, -5]}],
    "Data.bands": [[], ["B02", "B02"]],
    "Data.gsd": [0, -10.0, math.nan],
    "Data.patch_size": [0, -1],
    "Data.train_batch_size": [0, -1],
    "Data.num_workers": [-1],
    "Data.gain": [0.9, 0.0, -1.4, math.inf, math.nan],
    "Data.detail": [-0.1, math.nan],
    "Model.name": ["", "folder/name", "/name", "."],
    "Generator.model_type": ["compcat", "interpolation", ""],
    "Generator.scaling_factor": [0, -2],
    "Generator.n_channels": [0, -64],
    "Generator.n_blocks": [-1],
    "Training.max_steps": [0, -5],
    "Training.val_every": [0, -5],
    "Training.precision": ["bf16", "16", ""],
    "Training.accelerator": ["gppu", "tpu"],
    "Training.seed": [-1, 2**32],
    "Training.gradient_clip_val": [-0.1, math.nan],
    "Training.Losses.l1_weight": [0.0, -1.0, math.inf],
    "Training.EMA.decay": [1.0, -0.1, 1.5, math.nan],
    "Optimizers.optim_g_lr": [0.0, -1e-3, math.inf, math.nan],
    "Optimizers.betas": [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.99, 0.999]],
    "Schedulers.g_warmup_steps": [-1],
}

ALLOWED = {
    "Data.split": [[1.0, 0.0, 0.0], [0.7, 0.2, 0.1]],
    "Data.min_valid": [1.0, 0.5],
    "Data.start_method": [None, "spawn"],
    "Data.cutblur": [0.0, 1.0],
    "Data.exclude": [{}, {"a.tif": [0, 0, 1, 1], "b.tif": [5, 6, 7, 8]}],
    "Data.bands": [["B04"]],
    "Data.gsd": [None, 0.3],
    "Data.gain": [1.0],
    "Data.detail": [0.0, 2.0],
    "Data.num_workers": [0],
    "Generator.model_type": list(MODEL_TYPES),
    "Generator.scaling_factor": [1, 3],
    "Generator.n_blocks": [0],
    "Training.precision": ["auto", "32-true", "bf16-mixed"],
    "Training.accelerator": ["cpu"],
    "Training.seed": [0, 2**32 - 1],
    "Training.gradient_clip_val": [0.0],
    "Training.EMA.decay": [0.0, 0.9999],
    "Schedulers.g_warmup_steps": [0],
}


def config_with(key, value):
    config = Config()
    section, _, word = key.rpartition(".")
    setattr(attrgetter(section)(config), word, value)
    return config


def cases(table):
    return [pytest.param(key, value, id=f"{key}={value}") for key, values in table.items() for value in values]


@pytest.mark.parametrize(("key", "value"), cases(WRONG))
def test_what_is_not_allowed_is_refused_with_key_value_and_what_is(key, value):
    with pytest.raises(ConfigError) as error:
        check(config_with(key, value))
    assert str(error.value).startswith(f"{key} is {value!r}; allowed is {RULES[key].allowed}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "value"), cases(ALLOWED))
def test_what_is_allowed_passes(key, value):
    config = config_with(key, value)
    assert check(config) is config


def test_the_defaults_pass():
    check(Config())


@pytest.mark.parametrize("name", shipped_configs())
def test_the_shipped_configs_pass(name):
    check(load_config(name))


def test_every_rule_is_tried():
    # those of Degradation are tried in test_config_degradation.py
    assert WRONG.keys() == {key for key in RULES if not key.startswith("Degradation.")}


def test_every_number_has_a_rule():
    numbers = {key for key, kind in settings().items() if re.search(r"\b(int|float)\b", kind)}
    assert numbers <= RULES.keys()


def test_all_mistakes_are_told_at_once():
    config = config_with("Training.max_steps", 0)
    config.Data.gain = 0.5
    config.Generator.model_type = "compat"
    with pytest.raises(ConfigError) as error:
        check(config)
    assert len(str(error.value).splitlines()) == 3
    assert "did you mean 'compact'?" in str(error.value)
