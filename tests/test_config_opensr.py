"""Configurations of opensr-srgan. Those below have the keys and values that its releases ship, in another layout."""

import logging
from copy import deepcopy
from operator import attrgetter

import pytest
import yaml

from geosr.config import Config, load_config
from geosr.config.opensr import DEFAULTS, FACTS, NO_EFFECT, RENAMED, is_opensr, translate
from geosr.config.schema import settings
from geosr.config.show import differences
from geosr.errors import ConfigError

LOSSES = {
    **{"adv_loss_type": "bce", "relativistic_average_d": False, "adv_loss_beta": 1e-3, "adv_loss_schedule": "cosine"},
    **{"r1_gamma": 0.0, "l1_weight": 1.0, "sam_weight": 0.05, "perceptual_weight": 0.1, "perceptual_metric": "vgg"},
    **{"tv_weight": 0.0, "max_val": 1.0, "ssim_win": 11},
}
SWIR = {
    "Data": {
        **{"train_batch_size": 24, "val_batch_size": 8, "num_workers": 8, "prefetch_factor": 4},
        **{"dataset_type": "S2_6b", "normalization": "normalise_10k"},
    },
    "Model": {"in_bands": 6, "continue_training": False, "load_checkpoint": False},
    "Training": {
        **{"device": "cuda", "gpus": [2, 3], "max_epochs": 9999, "val_check_interval": 1.0, "limit_val_batches": 250},
        **{"pretrain_g_only": True, "g_pretrain_steps": 15000, "adv_loss_ramp_steps": 2500, "label_smoothing": True},
        "EMA": {"enabled": False, "decay": 0.999, "update_after_step": 0, "use_num_updates": True},
        "Losses": LOSSES,
    },
    "Generator": {
        **{"model_type": "SRResNet", "block_type": "rcab", "large_kernel_size": 9, "small_kernel_size": 3},
        **{"n_channels": 96, "n_blocks": 32, "scaling_factor": 8, "growth_channels": 32, "res_scale": 0.2},
    },
    "Discriminator": {
        **{"model_type": "standard", "n_blocks": 8, "use_spectral_norm": False, "base_channels": 64},
        "linear_size": 1024,
    },
    "Optimizers": {
        **{"optim_g_lr": 1e-4, "optim_d_lr": 1e-6, "gradient_clip_val": 1.0, "betas": [0.0, 0.99], "eps": 1e-7},
        **{"weight_decay_g": 0.0, "weight_decay_d": 0.0},
    },
    "Schedulers": {
        **{"g_warmup_steps": 2500, "g_warmup_type": "cosine", "metric_g": "val_metrics/l1", "patience_g": 50},
        **{"metric_d": "validation/DISC_adversarial_loss", "patience_d": 50, "factor_g": 0.5, "factor_d": 0.5},
    },
    "Logging": {"num_val_images": 5, "wandb": {"enabled": True, "entity": "opensr", "project": "SRGAN_20m"}},
}
"""Its config_20m.yaml; all of its releases have these keys, and not all of them values for the optional ones."""
RGBN = deepcopy(SWIR)
RGBN["Model"]["in_bands"] = 4
RGBN["Data"] |= {"dataset_type": "SEN2NAIP"}
RGBN["Training"] |= {"gpus": [0, 1]}
RGBN["Training"]["Losses"] |= {"fixed_idx": [0, 1, 2], "sam_weight": 0.0, "perceptual_weight": 0.05}
RGBN["Generator"] |= {"model_type": "esrgan", "block_type": "rrdb", "n_blocks": 16, "n_channels": 64}
RGBN["Generator"] |= {"scaling_factor": 4, "use_icnr": True}
RGBN["Discriminator"] |= {"model_type": "esrgan"}
RGBN["Schedulers"] |= {"metric_d": "discriminator/adversarial_loss"}
"""Its config_10m.yaml, with the discriminator's metric of 0.4."""
LEAST = {"Model": {"in_bands": 4}, "Training": {"max_epochs": 3, "val_check_interval": 20, "limit_val_batches": 4}}


def with_changes(config, **changes):
    """The configuration with some settings, given as Section__key, changed or (None: gone)."""
    changed = deepcopy(config)
    for key, value in changes.items():
        *sections, word = key.split("__")
        place = changed
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            place.pop(word, None)
        else:
            place[word] = value
    return changed


@pytest.fixture
def load(tmp_path):
    """Loads a configuration from a file, with overrides."""

    def loaded(config, *overrides):
        (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(config))
        return load_config(tmp_path / "theirs.yaml", overrides)

    return loaded


def notes(config, given=None):
    return translate(config, given or {})[1]


def test_what_has_the_same_name_has_the_same_value(load):
    config = load(SWIR).to_dict()
    for section, renamed in {
        "Data": {"dataset_type", "normalization"},
        "Generator": {"model_type", "block_type"},
        "Discriminator": {"model_type"},
        "Optimizers": set(),
        "Schedulers": set(),
    }.items():
        for key in SWIR[section].keys() - renamed:
            assert config[section][key] == SWIR[section][key], key
    for key in LOSSES.keys() - {"max_val", "ssim_win", "perceptual_weight"}:
        assert config["Training"]["Losses"][key] == LOSSES[key]
    assert config["Training"]["EMA"] == {**SWIR["Training"]["EMA"], "device": None}


def test_what_has_another_name_has_its_meaning(load):
    config = load(SWIR)
    assert config.Data.bands == ["B05", "B06", "B07", "B8A", "B11", "B12"]
    assert config.Data.dataset_type == "scenes"
    assert config.Generator.model_type == "rcab"
    assert config.Discriminator.model_type == "srgan"
    assert (config.Training.accelerator, config.Training.devices) == ("cuda", 2)
    assert (config.Training.max_steps, config.Training.max_epochs) == (None, 9999)
    assert config.Model.load_checkpoint is config.Model.continue_training is None
    assert config.Logging.project == "SRGAN_20m"
    assert (config.Logging.wandb.enabled, config.Logging.wandb.entity) == (True, "opensr")


def test_its_networks_are_built_as_it_builds_them(load):
    rcab, esrgan = load(SWIR), load(RGBN)
    assert not rcab.Generator.global_skip
    assert not rcab.Generator.consistency
    assert not rcab.Generator.use_icnr
    assert rcab.Discriminator.norm == "batch"
    assert esrgan.Generator.model_type == "esrgan"
    assert esrgan.Generator.n_blocks == 16
    assert esrgan.Discriminator.model_type == "esrgan"
    assert esrgan.Discriminator.n_blocks is None
    assert load(with_changes(RGBN, Discriminator__model_type="patchgan")).Discriminator.norm == "instance"


def test_the_defaults_are_its_own(load):
    config = load(LEAST)
    assert config.Generator.model_type == "srresnet"
    assert (config.Generator.n_blocks, config.Generator.scaling_factor) == (16, 4)
    assert config.Discriminator.use_spectral_norm
    assert config.Training.adv_loss_ramp_steps == 20_000
    assert not config.Training.pretrain_g_only
    assert not config.Training.EMA.enabled
    assert (config.Training.Losses.sam_weight, config.Training.Losses.perceptual_weight) == (0.05, 0.1)
    assert config.Training.Losses.perceptual_layers == {"conv5_4": 1.0}
    assert config.Optimizers.optim_d_lr == 5e-5
    assert config.Schedulers.g_warmup_steps == 0
    assert (config.Schedulers.patience, config.Schedulers.threshold, config.Schedulers.min_lr) == (5, 1e-3, 1e-7)
    assert load(with_changes(LEAST, Generator__model_type="esrgan")).Generator.n_blocks == 23


def test_defaults_are_listed_where_they_apply():
    assert any(
        note.startswith("opensr-srgan's defaults: ") and "adv_loss_ramp_steps 20000" in note for note in notes(LEAST)
    )
    assert not any("adv_loss_ramp_steps" in note for note in notes(SWIR))


def test_every_key_that_is_renamed_or_dropped_is_told():
    told = "\n".join(notes(RGBN))
    for key in ("Training.device", "Training.gpus", "Logging.wandb.project", "Model.in_bands", "Schedulers.metric_d"):
        assert f"{key}" in told
        assert "->" in told
    for key in ("Data.normalization", "Data.dataset_type", "Training.Losses.fixed_idx", "Training.Losses.max_val"):
        assert f"{key} has no effect: " in told
    assert "CUDA_VISIBLE_DEVICES" not in told
    assert "CUDA_VISIBLE_DEVICES=2,3" in "\n".join(notes(SWIR))


def test_the_log_has_a_line_for_each(load, caplog):
    with caplog.at_level(logging.INFO, "geosr"):
        load(SWIR)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "theirs.yaml is a configuration of opensr-srgan"
    assert [line.strip() for line in lines[1:]] == notes(SWIR)


def test_overrides_are_geosrs_and_win(load):
    config = load(
        RGBN, "Training.val_every=7", "Generator.model_type=compact", "Data.root=x", "Data.train_scenes=[a.tif]"
    )
    assert config.Training.val_every == 7
    assert config.Generator.model_type == "compact"
    assert (config.Data.root, config.Data.train_scenes) == ("x", ["a.tif"])
    with pytest.raises(ConfigError, match=r"Training\.gpus is no setting; .* Training\.devices here"):
        load(RGBN, "Training.gpus=[0]")
    with pytest.raises(ConfigError, match=r"Data\.normalization is no setting; .* units come from"):
        load(RGBN, "Data.normalization=normalise_10k")


def test_what_is_written_is_geosrs_own(load, tmp_path):
    config = load(SWIR)
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(config.to_dict()))
    assert not is_opensr(config.to_dict())
    assert load_config(tmp_path / "written.yaml") == config


def test_a_configuration_of_geosr_is_not_taken_for_one(load):
    assert not is_opensr(Config().to_dict())
    assert not is_opensr({"Training": {"gpus": [0]}})
    with pytest.raises(ConfigError, match=r"Training\.gpus is no setting; opensr-srgan's .* is Training\.devices here"):
        load({"Training": {"gpus": [0]}})


@pytest.mark.parametrize(
    ("count", "bands"),
    [
        (3, ["B04", "B03", "B02"]),
        (4, ["B04", "B03", "B02", "B08"]),
        (6, ["B05", "B06", "B07", "B8A", "B11", "B12"]),
    ],
)
def test_the_obvious_bands_are_taken_by_their_number(load, count, bands):
    assert load(with_changes(SWIR, Model__in_bands=count)).Data.bands == bands


def test_other_bands_must_be_named(load):
    five = with_changes(SWIR, Model__in_bands=5)
    with pytest.raises(ConfigError, match=r"Model\.in_bands is 5.*give Data\.bands"):
        load(five)
    assert load(five, "Data.bands=[B02,B03,B04,B08,B11]").Data.bands[-1] == "B11"
    assert load(with_changes(five, Data__bands=["B02", "B03", "B04", "B08", "B12"])).Data.bands[-1] == "B12"
    with pytest.raises(ConfigError, match=r"Model\.in_bands is 5, and Data\.bands names 2 \(B02 B03\)"):
        load(five, "Data.bands=[B02,B03]")


def test_a_generator_cannot_add_bands(load):
    with pytest.raises(ConfigError, match=r"Generator\.out_channels is 3"):
        load(with_changes(SWIR, Generator__out_channels=3))
    load(with_changes(SWIR, Generator__out_channels=6))


@pytest.mark.parametrize(
    ("family", "block", "meant"),
    [
        ("SRResNet", "standard", "srresnet"),
        ("SRResNet", None, "srresnet"),
        ("sr-resnet", "res", "res"),
        ("SRResNet", "Channel Attention", "rcab"),
        ("srresnet", "rrdb", "rrdb"),
        ("SRResNet", "large-kernel", "lka"),
        ("rcab", None, "rcab"),
        ("lka", None, "lka"),
        ("esrgan", "rrdb", "esrgan"),
        ("RRDBNet", None, "esrgan"),
        ("Stochastic-GAN", None, "stochastic"),
        ("cgan", None, "stochastic"),
    ],
)
def test_two_words_name_an_architecture(load, family, block, meant):
    config = with_changes(SWIR, Generator__model_type=family, Generator__block_type=block)
    assert load(config).Generator.model_type == meant


def test_its_stochastic_generator_draws_one_vector_for_an_image(load):
    section = load(with_changes(SWIR, Generator__model_type="stochastic_gan")).Generator
    assert (section.noise_dim, section.noise_field, section.use_icnr) == (128, False, False)
    changed = with_changes(
        SWIR, Generator__model_type="stochastic_gan", Generator__noise_dim=32, Generator__res_scale=0.5
    )
    section = load(changed).Generator
    assert (section.noise_dim, section.res_scale) == (32, 0.5)


def test_what_is_no_generator_is_refused(load):
    with pytest.raises(ConfigError, match=r"Generator\.block_type is 'rcabb'"):
        load(with_changes(SWIR, Generator__block_type="rcabb"))
    with pytest.raises(ConfigError, match=r"Generator\.model_type is 'srgan'"):
        load(with_changes(SWIR, Generator__model_type="srgan", Generator__block_type=None))


@pytest.mark.parametrize(
    ("device", "gpus", "accelerator", "devices"),
    [
        ("cuda", [0], "cuda", 1),
        ("gpu", 3, "gpu", 3),
        ("cpu", [0, 1], "cpu", 1),
        ("cpu", [], "cpu", 1),
        ("CUDA", [1, 3, 5], "cuda", 3),
        (None, None, "auto", 1),
        ("auto", -1, "auto", 1),
    ],
)
def test_gpus_are_counted(load, device, gpus, accelerator, devices):
    training = load(with_changes(SWIR, Training__device=device, Training__gpus=gpus)).Training
    assert (training.accelerator, training.devices) == (accelerator, devices)


def test_the_interval_of_validations_is_taken_in_steps_alone(load):
    assert load(with_changes(SWIR, Training__val_check_interval=40)).Training.val_every == 40
    assert load(SWIR).Training.val_every == Config().Training.val_every
    assert load(with_changes(SWIR, Training__limit_val_batches=0.5)).Training.limit_val_batches is None


def test_the_perceptual_loss_needs_its_bands(load):
    assert load(SWIR).Training.Losses.perceptual_weight == 0
    assert any(note.startswith("Training.Losses.perceptual_weight has no effect") for note in notes(SWIR))
    losses = load(RGBN).Training.Losses
    assert (losses.perceptual_weight, losses.perceptual_white) == (0.05, 1.0)
    assert load(with_changes(RGBN, TruncatedVGG={"i": 2, "j": 2})).Training.Losses.perceptual_layers == {"conv2_2": 1.0}
    old = with_changes(RGBN, Training__Losses__perceptual_weight=None, Training__perceptual_loss_weight=0.3)
    assert load(old).Training.Losses.perceptual_weight == 0.3


def test_its_other_perceptual_metric_is_that_of_the_same_name():
    theirs = with_changes(RGBN, Training__Losses__perceptual_metric="LPIPS")
    assert translate(theirs, {})[0]["Training"]["Losses"]["perceptual_metric"] == "lpips"
    assert any("its weight may need another value" in note for note in notes(RGBN))
    assert not any("its weight may need another value" in note for note in notes(theirs))


def test_an_old_place_of_a_setting_is_known(load):
    old = with_changes(RGBN, Optimizers__gradient_clip_val=None, Schedulers__gradient_clip_val=0.7)
    assert load(old).Optimizers.gradient_clip_val == 0.7
    both = with_changes(RGBN, Schedulers__gradient_clip_val=0.7)
    assert load(both).Optimizers.gradient_clip_val == 1.0
    sizes = with_changes(RGBN, Data__train_batch_size=None, Data__batch_size=5)
    assert (load(sizes).Data.train_batch_size, load(sizes).Data.val_batch_size) == (5, 8)


def test_the_generators_metric_is_that_of_checkpoints(load):
    metrics = {"Schedulers__metric_g": "val_metrics/sam", "Schedulers__metric": "val_metrics/tv"}
    schedulers = load(with_changes(SWIR, **metrics)).Schedulers
    assert (schedulers.metric, schedulers.metric_g) == ("val_metrics/sam", "val_metrics/sam")
    schedulers = load(with_changes(SWIR, **metrics, Schedulers__metric_d=None)).Schedulers
    assert schedulers.metric_d == "val_metrics/tv"
    assert load(RGBN).Schedulers.metric_d == "validation/DISC_adversarial_loss"


def test_the_discriminators_schedule_is_the_generators_where_it_has_none(load):
    schedulers = load(with_changes(SWIR, Schedulers__patience_d=None, Schedulers__factor_d=None)).Schedulers
    assert (schedulers.patience_d, schedulers.factor_d) == (50, 0.5)


def test_a_warm_up_without_a_type_is_none(load):
    assert load(with_changes(SWIR, Schedulers__g_warmup_type=None)).Schedulers.g_warmup_steps == 0
    assert load(SWIR).Schedulers.g_warmup_steps == 2500


def test_wasserstein_has_no_probabilities(load):
    losses = {"Training__Losses__adv_loss_type": "Wasserstein", "Training__Losses__relativistic_average_d": True}
    config = load(with_changes(SWIR, **losses))
    assert config.Training.Losses.adv_loss_type == "wasserstein"
    assert not config.Training.Losses.relativistic_average_d
    assert not config.Training.label_smoothing


def test_folders_of_pairs_are_pairs(load):
    config = load(with_changes(RGBN, Data__dataset_type="LRHRFolderDataset", Data__root_dir="images"))
    assert (config.Data.dataset_type, config.Data.root) == ("pairs", "images/train/HR")
    assert config.Data.lr_root == "images/train/LR"


def test_an_empty_section_is_one_with_defaults(load):
    empty = deepcopy(SWIR)
    empty["Training"]["EMA"] = empty["Discriminator"] = None
    config = load(empty)
    assert not config.Training.EMA.enabled
    assert config.Discriminator.use_spectral_norm


def test_an_unknown_setting_is_still_refused(load):
    with pytest.raises(ConfigError, match=r"Training\.adv_loss_ramp_step is no setting; did you mean"):
        load(with_changes(SWIR, Training__adv_loss_ramp_step=3))


def test_a_part_that_hydra_composes_is_refused(load):
    with pytest.raises(ConfigError, match=r"\.hydra/config\.yaml"):
        load({"defaults": ["_self_", {"model": "x"}], "Data": {"train_batch_size": 3}})


def test_the_tables_name_settings():
    assert set(RENAMED.values()) | DEFAULTS.keys() | FACTS.keys() <= settings().keys()
    assert not (RENAMED.keys() | NO_EFFECT.keys()) & settings().keys()
    theirs = Config()
    for key, value in {**DEFAULTS, **FACTS}.items():
        section, _, word = key.rpartition(".")
        setattr(attrgetter(section)(theirs), word, value)
    assert differences(Config(), theirs).keys() == DEFAULTS.keys() | FACTS.keys()
