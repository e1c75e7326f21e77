import math
import re
from operator import attrgetter

import pytest

from geosr.config import Config, check, load_config
from geosr.config.checks import RULES
from geosr.config.load import shipped_configs
from geosr.config.names import DISCRIMINATORS, GENERATORS, NORMS, PERCEPTUAL_METRICS
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
    "Data.guide": [["B02", "B02"]],
    "Data.companions": [{"": "_20m.tif"}, {"_10m.tif": ""}],
    "Data.balance": [-0.1, 1.1],
    "Data.gain": [0.9, 0.0, -1.4, math.inf, math.nan],
    "Data.detail": [-0.1, math.nan],
    "Model.name": ["", "folder/name", "/name", "."],
    "Model.variant": ["quick", ""],
    "Generator.class_path": ["Network", "a..B", "a.b.", "a b.C", "1a.B"],
    "Generator.model_type": ["compcat", "interpolation", ""],
    "Generator.scaling_factor": [0, -2],
    "Generator.n_channels": [0, -64],
    "Generator.n_blocks": [-1],
    "Generator.large_kernel_size": [0, 8, -3],
    "Generator.small_kernel_size": [2],
    "Generator.growth_channels": [0],
    "Generator.res_scale": [0.0, -0.2, math.inf],
    "Generator.reduction": [0],
    "Generator.noise_dim": [0],
    "Generator.depth": [0],
    "Generator.n_heads": [0],
    "Generator.window_size": [1, -8],
    "Generator.upsampler": ["direct", "nearest", ""],
    "Discriminator.model_type": ["standard", "patch_gan", ""],
    "Discriminator.n_blocks": [0],
    "Discriminator.base_channels": [0],
    "Discriminator.linear_size": [0],
    "Discriminator.n_scales": [0, -1],
    "Discriminator.norm": ["layer", ""],
    "Training.max_steps": [0, -5],
    "Training.max_epochs": [0],
    "Training.max_time": ["2h", "2:00:00", "00:2:00:00", ""],
    "Training.val_every": [0, -5],
    "Training.limit_val_batches": [0],
    "Training.early_stopping_patience": [-1],
    "Training.precision": ["bf16", "16", ""],
    "Training.accelerator": ["gppu", "tpu"],
    "Training.devices": [0, -1],
    "Training.seed": [-1, 2**32],
    "Training.accumulate_grad_batches": [0],
    "Training.g_pretrain_steps": [-2],
    "Training.pretrain_losses": [["l2"], ["l1", "l1"], ["adversarial"]],
    "Training.adv_loss_ramp_steps": [-1],
    "Training.d_steps_per_g": [0],
    "Training.d_accuracy_limit": [0.5, 1.1, math.nan],
    "Training.Losses.l1_weight": [-1.0, math.inf, math.nan],
    "Training.Losses.sam_weight": [-0.1],
    "Training.Losses.tv_weight": [-0.1],
    "Training.Losses.perceptual_weight": [-0.1],
    **{
        f"Training.Losses.{name}_weight": [-0.1, math.inf]
        for name in ("charbonnier", "mse", "fft", "spectrum", "gradient")
    },
    **{f"Training.Losses.{name}_weight": [-0.1, math.nan] for name in ("indices", "consistency")},
    "Training.Losses.charbonnier_eps": [0.0, -1e-3],
    "Training.Losses.band_weights": [{"B02": -1.0}, {"B02": 1.0, "B03": math.inf}],
    "Training.Losses.fft_alpha": [-1.0, math.inf],
    "Training.Losses.tv_kind": ["isotropc", ""],
    "Training.Losses.perceptual_metric": ["vgg16", ""],
    "Training.Losses.perceptual_layers": [{}, {"conv3_5": 1.0}, {"relu1_1": 1.0}, {"conv1_1": 0.0}, {"conv0_1": 1.0}],
    "Training.Losses.perceptual_weights": ["imagenet1k", "vgg.pt", ""],
    "Training.Losses.perceptual_white": [0.0, -1.0],
    "Training.Losses.adv_loss_type": ["gan", ""],
    "Training.Losses.adv_loss_beta": [-1e-3],
    "Training.Losses.adv_loss_schedule": ["constant"],
    "Training.Losses.feature_matching_weight": [-0.1, math.inf],
    "Training.Losses.r1_gamma": [-1.0],
    "Training.Losses.r1_every": [0],
    "Training.Losses.gp_weight": [-10.0],
    "Training.EMA.decay": [1.0, -0.1, 1.5, math.nan],
    "Training.EMA.update_after_step": [-1],
    "Training.EMA.device": ["gpu", "cuda:", "cuda:a", ""],
    "Optimizers.name": ["sgd"],
    "Optimizers.optim_g_lr": [0.0, -1e-3, math.inf, math.nan],
    "Optimizers.optim_d_lr": [0.0],
    "Optimizers.betas": [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.99, 0.999]],
    "Optimizers.eps": [0.0, -1e-8],
    "Optimizers.weight_decay_g": [-0.1],
    "Optimizers.weight_decay_d": [-0.1],
    "Optimizers.gradient_clip_val": [-0.1, math.nan],
    "Schedulers.name": ["reduceonplateau", ""],
    "Schedulers.g_warmup_steps": [-1],
    "Schedulers.g_warmup_type": ["none"],
    "Schedulers.metric": ["l1", "val/psnr", "validation/DISC_adversarial_loss"],
    "Schedulers.metric_g": ["validation/DISC_adversarial_loss"],
    "Schedulers.metric_d": ["discriminator/adversarial_loss"],
    **{f"Schedulers.patience{network}": [-1] for network in ("", "_g", "_d")},
    **{f"Schedulers.factor{network}": [0.0, 1.0, math.nan] for network in ("", "_g", "_d")},
    **{f"Schedulers.cooldown{network}": [-1] for network in ("", "_g", "_d")},
    **{f"Schedulers.min_lr{network}": [-1e-7, math.inf] for network in ("", "_g", "_d")},
    **{f"Schedulers.threshold{network}": [-1e-4] for network in ("", "_g", "_d")},
    "Schedulers.milestones": [[0], [5, 5], [9, 3], [-1, 4]],
    "Schedulers.gamma": [0.0, 1.1],
    "Logging.project": ["", "a/b", "/tmp", ".."],
    "Logging.name": ["", "a/b"],
    "Logging.every": [0],
    "Logging.num_val_images": [-1],
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
    "Generator.class_path": [None, "mine.Network", "a.b.c_d.Net2"],
    "Generator.model_type": list(GENERATORS),
    "Generator.scaling_factor": [1, 3],
    "Generator.n_blocks": [0],
    "Discriminator.model_type": list(DISCRIMINATORS),
    "Discriminator.n_blocks": [None, 3],
    "Discriminator.norm": [None, *NORMS],
    "Discriminator.use_spectral_norm": [None, False, True],
    "Training.max_epochs": [None, 3],
    "Training.max_time": [None, "00:02:00:00", "12:00:00:30"],
    "Training.limit_val_batches": [None, 1],
    "Training.early_stopping_patience": [0],
    "Training.precision": ["auto", "32-true", "bf16-mixed", "16-mixed"],
    "Training.accelerator": ["cpu"],
    "Training.seed": [0, 2**32 - 1],
    "Training.g_pretrain_steps": [-1, 0, 300],
    "Training.pretrain_losses": [[], ["l1"]],
    "Training.d_accuracy_limit": [None, 0.51, 1.0],
    "Training.Losses.perceptual_layers": [{"conv5_4": 1.0}, {"conv1_1": 0.1, "conv2_2": 2.0}],
    "Training.Losses.perceptual_weights": ["random", "weights/vgg19.pth"],
    "Training.Losses.perceptual_metric": list(PERCEPTUAL_METRICS),
    "Training.Losses.band_weights": [{}, {"B02": 0.0, "B08": 2.5}],
    "Training.Losses.fft_alpha": [0.0],
    "Training.EMA.decay": [0.0, 0.9999],
    "Training.EMA.device": [None, "cpu", "cuda:1"],
    "Optimizers.gradient_clip_val": [0.0],
    "Schedulers.g_warmup_steps": [0],
    "Schedulers.metric": ["val_metrics/psnr_gain", "val_metrics/consistency"],
    "Schedulers.metric_d": [None, "val_metrics/l1"],
    "Schedulers.patience_d": [None, 0],
    "Schedulers.milestones": [[], [1, 2, 30]],
    "Logging.name": [None, "first"],
    "Logging.num_val_images": [0],
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
