"""Configurations of opensr-srgan (0.4 and 0.5) as settings of geosr that mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geosr.config.schema import flat, settings
from geosr.errors import ConfigError
from geosr.sensors import RGB

HALLMARK = "Model.in_bands"
"""Without it opensr-srgan builds no network."""

RENAMED: Mapping[str, str] = {
    "Data.batch_size": "Data.train_batch_size",
    "Data.root_dir": "Data.root",
    "Data.dataset_root": "Data.root",
    "Generator.block_type": "Generator.model_type",
    "Logging.output_dir": "Logging.dir",
    "Logging.wandb.project": "Logging.project",
    "Model.in_bands": "Data.bands",
    "Training.device": "Training.accelerator",
    "Training.gpus": "Training.devices",
    "Training.perceptual_loss_weight": "Training.Losses.perceptual_weight",
    "Training.val_check_interval": "Training.val_every",
    "Schedulers.gradient_clip_val": "Optimizers.gradient_clip_val",
    "TruncatedVGG.i": "Training.Losses.perceptual_layers",
    "TruncatedVGG.j": "Training.Losses.perceptual_layers",
}
"""Settings that have another name here, and whose values may be written otherwise."""

NO_EFFECT: Mapping[str, str] = {
    "Data.normalization": "units come from the scenes' metadata, and the network normalises reflectance band by band",
    "Data.sen2naip_phase": "Data.split parts training and validation",
    "Data.sen2naip_taco_file": "Data.root and Data.train_scenes name the scenes, or Data.catalog a data set",
    "Data.sen2naip_val_fraction": "Data.split parts training and validation",
    "Logging.output_dir": "a run writes into Logging.dir/project/name",
    "Training.find_unused_parameters": "each network's processes exchange what that network needs",
    "Training.Losses.fixed_idx": f"the perceptual loss finds {' '.join(RGB)} by name",
    "Training.Losses.max_val": "PSNR and SSIM have a peak of 1 (reflectance)",
    "Training.Losses.randomize_bands": f"the perceptual loss finds {' '.join(RGB)} by name",
    "Training.Losses.ssim_win": "SSIM has a window of 11",
}
"""Settings that nothing here corresponds to, and why."""

DEFAULTS: Mapping[str, Any] = {
    "Data.train_batch_size": 8,
    "Data.num_workers": 4,
    "Generator.scaling_factor": 4,
    "Training.max_epochs": 1000,
    "Training.pretrain_g_only": False,
    "Training.g_pretrain_steps": 0,
    "Training.adv_loss_ramp_steps": 20_000,
    "Training.EMA.enabled": False,
    "Training.Losses.sam_weight": 0.05,
    "Training.Losses.perceptual_weight": 0.1,
    "Training.Losses.perceptual_layers": {"conv5_4": 1.0},
    "Schedulers.patience": 5,
    "Schedulers.threshold": 1e-3,
    "Schedulers.min_lr": 1e-7,
}
"""What opensr-srgan takes where its file is silent, as far as geosr would take something else."""

FACTS: Mapping[str, Any] = {
    "Generator.global_skip": False,
    "Generator.consistency": False,
    "Training.max_steps": None,
    "Training.Losses.perceptual_white": 1.0,
}
"""What opensr-srgan has no setting for, and geosr's defaults would do otherwise."""

# Version 0.4.3: its runtime configurations feed the RGB-NIR preset B04 B03 B02 B08 (deployment/srgan_hpc/config.py),
# its Sentinel-2 data set stacks R G B NIR in this order (data/sen2_test), and its perceptual loss takes the bands
# 0 1 2 for red, green and blue (fixed_idx in configs/config_10m.yaml). The same places name the six bands of 20 m.
BANDS: Mapping[int, tuple[str, ...]] = {
    3: RGB,
    4: (*RGB, "B08"),
    6: ("B05", "B06", "B07", "B8A", "B11", "B12"),
}
"""Sentinel-2 bands of opensr-srgan's models by their number, in the order of its channels."""

FAMILIES: Mapping[str, Sequence[str]] = {
    "srresnet": ("srresnet", "sr_resnet"),
    "esrgan": ("esrgan", "rrdbnet", "rrdb_net"),
    "stochastic": (
        *("stochastic_gan", "stochastic", "stochasticgan", "cgan"),
        *("conditional_cgan", "conditional_gan"),
    ),
}
BLOCKS: Mapping[str, Sequence[str]] = {
    "srresnet": ("standard", "srresnet", "vanilla", "classic", "default", "basic"),
    "res": ("res", "residual", "resblocks"),
    "rcab": ("rcab", "attention", "channel_attention"),
    "rrdb": ("rrdb", "dense", "residual_in_residual"),
    "lka": ("lka", "large_kernel"),
}
"""Words for the blocks of its SRResNet, by the architecture here; `FAMILIES` likewise for whole generators."""

_UNSET = object()


def is_opensr(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is opensr-srgan's: it counts its bands, or has several settings that only exist there."""
    keys = flat(config).keys()
    foreign = (RENAMED.keys() | NO_EFFECT.keys()) & keys
    return HALLMARK in keys or len(foreign) > 1


def translate(config: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The configuration in geosr's settings, and a line for each that changed its name or has no effect.

    Args:
        config: What an opensr-srgan YAML says.
        given: Settings of geosr that come on top, in the same form.

    Raises:
        ConfigError: The bands are not known by their number, or there are others than that.
    """
    reading = _Reading(flat(config))
    _read_data(reading, flat(given).get("Data.bands"))
    _read_networks(reading)
    _read_training(reading)
    _read_losses(reading)
    _read_schedules(reading)
    for key, reason in NO_EFFECT.items():
        reading.drop(key, reason)
    rest = {key: value for key, value in reading.theirs.items() if not (value is None and _is_section(key))}
    silent = {key: value for key, value in DEFAULTS.items() if key not in rest.keys() | reading.ours.keys()}
    if silent:
        listed = ", ".join(f"{key} {value}" for key, value in silent.items())
        reading.notes.append(f"opensr-srgan's defaults: {listed}")
    return _nested({**FACTS, **silent, **rest, **reading.ours}), reading.notes


class _Reading:
    """What is left of their settings, what they are here, and what there is to tell."""

    def __init__(self, theirs: dict[str, Any]) -> None:
        self.theirs, self.ours, self.notes = theirs, dict[str, Any](), list[str]()

    def take(self, key: str, default: Any = None) -> Any:
        """Their value, which is dealt with then."""
        return self.theirs.pop(key, default)

    def put(self, key: str, value: Any, *, instead_of: str = "") -> None:
        """Set a value here, and tell what it stands for."""
        self.ours[key] = value
        if instead_of:
            self.notes.append(f"{instead_of} -> {key}: {_words(value)}")

    def drop(self, key: str, reason: str) -> None:
        """Leave out a setting, if there is one, and tell why."""
        if self.take(key, _UNSET) is not _UNSET:
            self.tell(key, reason)

    def tell(self, key: str, reason: str) -> None:
        """Say that a setting has no effect."""
        self.notes.append(f"{key} has no effect: {reason}")

    def fix(self, key: str, value: Any, reason: str) -> None:
        """Set what their program uses whatever the file says, and tell where the file says something else."""
        if self.take(key, value) != value:
            self.tell(key, f"{reason} ({_words(value)})")
        self.ours[key] = value


def _read_data(reading: _Reading, given_bands: Sequence[str] | None) -> None:
    count = reading.take("Model.in_bands")
    bands = given_bands or reading.theirs.get("Data.bands")
    if bands is None and count is not None:
        if count not in BANDS:
            raise ConfigError(
                f"Model.in_bands is {count}, and bands are known by their names here; give Data.bands, such as "
                "Data.bands=[B04,B03,B02,B08]"
            )
        reading.put("Data.bands", list(BANDS[count]), instead_of=f"Model.in_bands: {count}")
    elif bands is not None and count not in (None, len(bands)):
        raise ConfigError(f"Model.in_bands is {count}, and Data.bands names {len(bands)} ({' '.join(bands)})")
    for part in ("train", "val"):
        if (size := reading.theirs.get("Data.batch_size")) and f"Data.{part}_batch_size" not in reading.theirs:
            reading.put(f"Data.{part}_batch_size", size, instead_of=f"Data.batch_size: {size}")
    reading.take("Data.batch_size")
    _read_scenes(reading)
    for key in ("Model.load_checkpoint", "Model.continue_training"):
        reading.ours[key] = reading.take(key) or None
    outputs = reading.take("Generator.out_channels")
    if None not in (outputs, count) and outputs != count:
        raise ConfigError(f"Generator.out_channels is {outputs}; a model has as many bands as it is given, {count}")


def _read_scenes(reading: _Reading) -> None:
    kind = reading.theirs.get("Data.dataset_type")
    root = reading.take("Data.root_dir") or reading.take("Data.dataset_root")
    reading.take("Data.dataset_root")
    if kind == "LRHRFolderDataset" and root:
        reading.put("Data.dataset_type", "pairs", instead_of=f"Data.dataset_type: {reading.take('Data.dataset_type')}")
        reading.put("Data.root", f"{root}/train/HR", instead_of=f"Data.root_dir: {root}")
        reading.put("Data.lr_root", f"{root}/train/LR", instead_of=f"Data.root_dir: {root}")
    elif kind not in ("scenes", "pairs", "store", None):
        reading.drop("Data.dataset_type", "Data.root and Data.train_scenes name the scenes (here or as overrides)")


def _read_networks(reading: _Reading) -> None:
    architecture = _generator(reading)
    reading.ours["Generator.n_blocks"] = reading.take("Generator.n_blocks", 23 if architecture == "esrgan" else 16)
    channels = reading.theirs.get("Generator.n_channels", 64)
    if architecture == "esrgan":
        for key in ("Generator.large_kernel_size", "Generator.small_kernel_size"):
            reading.drop(key, "esrgan has kernels of 3")
        reading.drop("Generator.use_icnr", "esrgan enlarges by nearest neighbours and convolves, as published")
    elif architecture == "stochastic":
        reading.fix("Generator.use_icnr", False, "opensr-srgan has it in esrgan alone")
        reading.ours["Generator.noise_dim"] = reading.take("Generator.noise_dim", 128)
        reading.ours["Generator.noise_field"] = False
    elif architecture in BLOCKS:
        reading.fix("Generator.use_icnr", False, "opensr-srgan has it in esrgan alone")
        reading.fix("Generator.res_scale", 0.2, "opensr-srgan takes one of its own for these blocks")
        if architecture == "rrdb":
            growth = max(16, channels // 3)
            reading.fix("Generator.growth_channels", growth, "opensr-srgan derives it from n_channels")
    reading.drop("Generator.noise_dim", "only stochastic_gan draws noise")
    critic = str(reading.take("Discriminator.model_type", "standard")).strip().lower()
    if critic == "standard":
        reading.put("Discriminator.model_type", "srgan", instead_of="Discriminator.model_type: standard")
        reading.ours["Discriminator.use_spectral_norm"] = reading.take("Discriminator.use_spectral_norm", True)
    else:
        reading.ours["Discriminator.model_type"] = critic
        reading.fix("Discriminator.use_spectral_norm", False, "opensr-srgan has it in standard alone")
    reading.ours["Discriminator.norm"] = "instance" if critic == "patchgan" else "batch"
    if critic == "esrgan":
        reading.drop("Discriminator.n_blocks", "esrgan has ten")
    else:
        reading.fix("Discriminator.base_channels", 64, f"opensr-srgan takes one of its own for {critic}")
        reading.fix("Discriminator.linear_size", 1024, f"opensr-srgan takes one of its own for {critic}")


def _generator(reading: _Reading) -> str:
    """The architecture that their two words name."""
    family = str(reading.take("Generator.model_type", "srresnet"))
    block = reading.take("Generator.block_type")
    architecture = _meant(family, FAMILIES)
    if architecture is None:  # an old way to name the block
        block, architecture = block or family, "srresnet" if _meant(family, BLOCKS) else None
    if architecture == "srresnet" and block is not None:
        architecture = _meant(str(block), BLOCKS)
        if architecture is None:
            raise ConfigError(f"Generator.block_type is {block!r}; allowed is one of standard, res, rcab, rrdb, lka")
        reading.put("Generator.model_type", architecture, instead_of=f"Generator.model_type: {family}, {block} blocks")
        return architecture
    if block is not None:
        reading.tell("Generator.block_type", f"{family} has blocks of its own")
    reading.ours["Generator.model_type"] = architecture or family
    return architecture or family


def _read_training(reading: _Reading) -> None:
    device = reading.take("Training.device", _UNSET)
    if device is not _UNSET:
        kind = str(device or "auto").lower()
        reading.put("Training.accelerator", kind, instead_of=f"Training.device: {device}")
    gpus = reading.take("Training.gpus", _UNSET)
    if gpus is not _UNSET:
        numbers = list(range(gpus)) if isinstance(gpus, int) else gpus if isinstance(gpus, list) else []
        count = 1 if str(device).lower() == "cpu" else max(len(numbers), 1)
        reading.put("Training.devices", count, instead_of=f"Training.gpus: {_words(gpus)}")
        if numbers not in ([], [*range(count)]):
            wanted = ",".join(map(str, numbers))
            reading.notes.append(f"which GPUs those are, CUDA_VISIBLE_DEVICES={wanted} says in the environment")
    interval = reading.take("Training.val_check_interval")
    if isinstance(interval, int):
        reading.put("Training.val_every", interval, instead_of=f"Training.val_check_interval: {interval}")
    elif interval is not None:
        reading.tell("Training.val_check_interval", "validations come every Training.val_every steps, not by epochs")
    if isinstance(limit := reading.theirs.get("Training.limit_val_batches"), float):
        reading.drop("Training.limit_val_batches", f"{limit} is a share; it is a number of batches here")
    if reading.theirs.get("Training.seed", 0) is None:
        reading.drop("Training.seed", "a run has a seed, so that it can be repeated")
    project = reading.take("Logging.wandb.project")
    if project:
        reading.put("Logging.project", project, instead_of="Logging.wandb.project")
    reading.ours["Logging.wandb.entity"] = reading.take("Logging.wandb.entity") or None


def _read_losses(reading: _Reading) -> None:
    losses = "Training.Losses"
    kind = str(reading.take(f"{losses}.adv_loss_type", "bce")).lower()
    reading.ours[f"{losses}.adv_loss_type"] = kind
    if kind == "wasserstein":
        for key in (f"{losses}.relativistic_average_d", "Training.label_smoothing"):
            reading.fix(key, False, "wasserstein has no probabilities")
    weight = reading.take("Training.perceptual_loss_weight")
    if weight is not None and f"{losses}.perceptual_weight" not in reading.theirs:
        reading.put(f"{losses}.perceptual_weight", weight, instead_of="Training.perceptual_loss_weight")
    block, layer = reading.take("TruncatedVGG.i"), reading.take("TruncatedVGG.j")
    if None not in (block, layer):
        layers = {f"conv{block}_{layer}": 1.0}
        reading.put(f"{losses}.perceptual_layers", layers, instead_of=f"TruncatedVGG: i {block}, j {layer}")
    bands = reading.ours.get("Data.bands") or reading.theirs.get("Data.bands") or RGB
    if not set(RGB) <= set(bands):
        reading.fix(f"{losses}.perceptual_weight", 0.0, f"the loss looks at {' '.join(RGB)}, which are not among them")
        return
    metric = str(reading.take(f"{losses}.perceptual_metric") or "vgg").lower()
    reading.ours[f"{losses}.perceptual_metric"] = metric
    if metric == "vgg" and reading.theirs.get(f"{losses}.perceptual_weight", DEFAULTS[f"{losses}.perceptual_weight"]):
        reading.notes.append(
            "the perceptual loss is the mean absolute difference of features before their ReLU here, the mean square "
            "after it there: its weight may need another value"
        )


def _read_schedules(reading: _Reading) -> None:
    clip = reading.take("Schedulers.gradient_clip_val")
    if clip is not None and "Optimizers.gradient_clip_val" not in reading.theirs:
        reading.put("Optimizers.gradient_clip_val", clip, instead_of="Schedulers.gradient_clip_val")
    if "Optimizers.optim_d_lr" not in reading.theirs:
        rate = float(reading.theirs.get("Optimizers.optim_g_lr", 1e-4))
        reading.put("Optimizers.optim_d_lr", max(rate / 2, 1e-6), instead_of="half of Optimizers.optim_g_lr")
    shape = str(reading.theirs.get("Schedulers.g_warmup_type", "none")).lower()
    if shape not in ("linear", "cosine"):
        reading.take("Schedulers.g_warmup_type")
        reading.fix("Schedulers.g_warmup_steps", 0, "without g_warmup_type there is no warm-up")
    generator = reading.theirs.get("Schedulers.metric_g")
    if generator is not None:
        general = reading.take("Schedulers.metric")
        reading.put("Schedulers.metric", generator, instead_of="best checkpoints and early stopping by metric_g")
        if general is not None and "Schedulers.metric_d" not in reading.theirs:
            reading.ours["Schedulers.metric_d"] = general
    if reading.theirs.get("Schedulers.metric_d") == "discriminator/adversarial_loss":
        old = f"Schedulers.metric_d: {reading.take('Schedulers.metric_d')}"
        reading.put("Schedulers.metric_d", "validation/DISC_adversarial_loss", instead_of=old)
    for key in ("patience", "factor"):  # the discriminator's are the generator's where there are none
        if f"Schedulers.{key}_g" in reading.theirs and f"Schedulers.{key}_d" not in reading.theirs:
            reading.ours[f"Schedulers.{key}_d"] = reading.theirs[f"Schedulers.{key}_g"]


def _meant(word: str, table: Mapping[str, Sequence[str]]) -> str | None:
    plain = word.strip().lower().replace(" ", "_").replace("-", "_")
    return next((meaning for meaning, words in table.items() if plain in words), None)


def _words(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _is_section(key: str) -> bool:
    return settings().get(key, "").endswith("Section")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, word = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[word] = value
    return nested
