"""Settings that are allowed one by one and cannot work together."""

from __future__ import annotations

from collections.abc import Mapping

from geosr.config.names import ALWAYS_VALIDATED, CONTENT_LOSSES, SATELLITE_METRICS
from geosr.config.schema import Config, LossesSection
from geosr.errors import did_you_mean
from geosr.sensors import INDICES, RGB, get_sensor


def content_weights(losses: LossesSection) -> Mapping[str, float]:
    """Weight of each content loss, by its name."""
    return {name: getattr(losses, f"{name}_weight") for name in CONTENT_LOSSES}


def problems(config: Config) -> list[str]:
    """What does not go together and what to change, a line each; none: the run can start."""
    return [
        *_of_the_run(config),
        *_of_the_losses(config),
        *_of_the_bands(config),
        *_of_the_guide(config),
        *_of_the_networks(config),
        *_of_the_schedule(config),
    ]


def _of_the_run(config: Config) -> list[str]:
    training, model = config.Training, config.Model
    wrong = []
    if training.max_steps is None and training.max_epochs is None:
        wrong.append("Training.max_steps and Training.max_epochs are null, so the run has no end; give one of them")
    if training.precision == "16-mixed" and training.accelerator == "cpu":
        wrong.append("Training.precision is '16-mixed', which needs a GPU; a CPU takes 'bf16-mixed' or '32-true'")
    if model.load_checkpoint is not None and model.continue_training is not None:
        wrong.append(
            "Model.continue_training goes on with the weights of its own run, so Model.load_checkpoint would have no "
            "effect; give one of them"
        )
    return wrong


def _of_the_losses(config: Config) -> list[str]:
    training, losses = config.Training, config.Training.Losses
    weights = content_weights(losses)
    wrong = []
    if not any(weights.values()):
        keys = " ".join(f"{name}_weight" for name in weights)
        wrong.append(f"Training.Losses has no content loss, so nothing ties SR to LR; give one a weight ({keys})")
    wrong += [
        f"Training.pretrain_losses names {name}, which has no weight; give Training.Losses.{name}_weight one"
        for name in training.pretrain_losses
        if not weights[name]
    ]
    if losses.feature_matching_weight and not losses.adv_loss_beta:
        wrong.append(
            f"Training.Losses.feature_matching_weight is {losses.feature_matching_weight}, and without adv_loss_beta "
            "there is no discriminator whose features could be matched; give adv_loss_beta a value above 0"
        )
    if losses.relativistic_average_d and losses.adv_loss_type == "wasserstein":
        wrong.append(
            "Training.Losses.relativistic_average_d compares probabilities, and wasserstein has none; set it to false, "
            "or adv_loss_type to bce, hinge or lsgan"
        )
    return wrong


def _of_the_bands(config: Config) -> list[str]:
    """Losses that look at bands by name."""
    losses, bands = config.Training.Losses, config.Data.bands
    metric, weight = losses.perceptual_metric, losses.perceptual_weight
    sentinel = get_sensor("sentinel-2-l1c").band_names
    wrong = []
    if weight and metric in SATELLITE_METRICS and not set(sentinel) & set(bands):
        wrong.append(
            f"Training.Losses.perceptual_weight is {weight}, and {metric} looks at {' '.join(sentinel)}; Data.bands "
            "has none of them: set the weight to 0"
        )
    if weight and metric not in SATELLITE_METRICS and (missing := [band for band in RGB if band not in bands]):
        wrong.append(
            f"Training.Losses.perceptual_weight is {weight}, and {metric} looks at {' '.join(RGB)}; Data.bands has no "
            f"{' '.join(missing)}: set perceptual_metric to ssl4eo, which looks at all bands, or the weight to 0"
        )
    if losses.indices_weight and not any(set(pair) <= set(bands) for pair in INDICES.values()):
        known = ", ".join(f"{name} ({' '.join(pair)})" for name, pair in INDICES.items())
        wrong.append(
            f"Training.Losses.indices_weight is {losses.indices_weight}, and Data.bands ({' '.join(bands)}) has the "
            f"bands of no index: add those of one of {known}, or set the weight to 0"
        )
    wrong += [
        f"Training.Losses.band_weights names {name!r}, and Data.bands has {' '.join(bands)}" + did_you_mean(name, bands)
        for name in losses.band_weights
        if name not in bands
    ]
    if not any(losses.band_weights.get(name, 1.0) for name in bands):
        wrong.append(
            "Training.Losses.band_weights gives every band the weight 0; give one more, or set l1_weight, "
            "charbonnier_weight and mse_weight to 0 instead"
        )
    return wrong


def _of_the_guide(config: Config) -> list[str]:
    data, generator = config.Data, config.Generator
    if not data.guide:
        return []
    if generator.model_type != "guided" or generator.class_path is not None:
        return [
            f"Data.guide names {' '.join(data.guide)}, and {generator.class_path or generator.model_type!r} makes "
            "nothing of a guide; set Generator.model_type to guided, and class_path to null"
        ]
    wrong = [
        f"{key} is {value!r}, and a run with Data.guide takes its images from scenes: leave it {default!r}"
        for key, value, default in (
            ("Data.dataset_type", data.dataset_type, "scenes"),
            ("Data.catalog", data.catalog, None),
            ("Data.noise", data.noise, 0.0),
            ("Data.cutblur", data.cutblur, 0.0),
        )
        if value != default
    ]
    if both := [band for band in data.guide if band in data.bands]:
        wrong.append(f"Data.guide and Data.bands both name {' '.join(both)}; a band guides or is sharpened")
    if generator.scaling_factor < 2:
        wrong.append("Generator.scaling_factor is 1, and a guide is finer than the other bands: set it to 2 or more")
    return wrong


def _of_the_networks(config: Config) -> list[str]:
    generator, critic = config.Generator, config.Discriminator
    wrong = []
    if generator.init_args and generator.class_path is None:
        wrong.append(
            f"Generator.init_args are {generator.init_args}, and there is no class that takes them; set "
            "Generator.class_path=package.module.Class"
        )
    if generator.model_type == "rcab" and generator.reduction > generator.n_channels:
        wrong.append(
            f"Generator.reduction is {generator.reduction}, more than Generator.n_channels ({generator.n_channels}), "
            "which leaves the attention no channel; lower it"
        )
    if generator.model_type == "swinir" and generator.n_channels % generator.n_heads:
        wrong.append(
            f"Generator.n_channels is {generator.n_channels}, which {generator.n_heads} heads of attention "
            f"(Generator.n_heads) cannot share; take a multiple of {generator.n_heads}"
        )
    if generator.model_type == "swinir" and generator.n_blocks * generator.depth > 1000:
        wrong.append(
            f"Generator.n_blocks is {generator.n_blocks} and Generator.depth {generator.depth}, which makes "
            f"{generator.n_blocks * generator.depth:,} layers of attention; at most 1,000 are allowed"
        )
    if critic.n_blocks is not None and critic.model_type in ("esrgan", "unet_sn"):
        wrong.append(
            f"Discriminator.n_blocks is {critic.n_blocks}, and {critic.model_type} has a fixed number of layers; leave "
            "it null, or take srgan, patchgan or multiscale"
        )
    return wrong


def _of_the_schedule(config: Config) -> list[str]:
    schedulers, losses = config.Schedulers, config.Training.Losses
    wrong = []
    if schedulers.name == "multistep" and not schedulers.milestones:
        wrong.append("Schedulers.name is 'multistep' and there are no milestones; give some, or set it to 'constant'")
    absent = [name for name, weight in content_weights(losses).items() if not weight and name not in ALWAYS_VALIDATED]
    wrong += [
        f"Schedulers.{key} is 'val_metrics/{name}', and that loss has no weight; give Training.Losses.{name}_weight "
        "one, or take val_metrics/l1"
        for key in ("metric", "metric_g", "metric_d")
        for name in absent
        if getattr(schedulers, key) == f"val_metrics/{name}"
    ]
    return wrong
