"""No setting is without effect: each is changed where it matters, and something else changes with it."""

import shutil
import warnings
from collections.abc import Mapping
from contextlib import chdir
from copy import deepcopy
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from lightning.pytorch.trainer.states import TrainerFn
from training_kit import trainer_of

import geosr.training.report
import geosr.training.run
from geosr.config import Config, check
from geosr.config.schema import settings
from geosr.data.datamodule import GeoSRDataModule
from geosr.models import load_model, save_model
from geosr.training import loggers, train
from geosr.training.loggers import read_metrics
from geosr.training.run import prepare_run
from geosr.training.trainer import make_trainer, without_noise

BASE = {
    "Data.root": "scenes",
    "Data.train_scenes": ["a.tif"],
    "Data.val_scenes": ["c.tif"],
    "Data.patch_size": 8,
    "Data.train_batch_size": 2,
    "Generator.n_channels": 8,
    "Generator.n_blocks": 1,
    "Discriminator.n_blocks": 1,
    "Discriminator.base_channels": 4,
    "Discriminator.linear_size": 8,
    "Training.max_steps": 3,
    "Training.accelerator": "cpu",
    "Training.precision": "32-true",
    "Training.EMA.enabled": False,
    "Schedulers.name": "constant",
    "Logging.name": "run",
    "Logging.every": 1,
    "Logging.num_val_images": 0,
    "Logging.tensorboard": False,
}
"""A run of three updates of a small generator."""

SPLIT = {"Data.train_scenes": ["wide.tif"], "Data.val_scenes": [], "Data.split_block": 320.0}
LACKING = SPLIT | {"Data.bands": ["B04", "B05"], "Data.stand_ins": {"B05": "B03"}}
FOUND = {"Data.train_scenes": ["*"], "Data.val_scenes": [], "Data.split_block": 320.0}
FOLDERS = FOUND | {"Data.root": "hr", "Data.lr_root": "lr"}
PAIRS = FOLDERS | {"Data.dataset_type": "pairs"}
WORKERS = {"Data.num_workers": 1}
GAN = {"Training.g_pretrain_steps": 0, "Training.Losses.adv_loss_beta": 0.1}
SWINIR = {"Generator.model_type": "swinir"}
SCALES = {"Discriminator.model_type": "multiscale", "Discriminator.n_scales": 2}
SEEN = {
    "Training.Losses.perceptual_weight": 0.1,
    "Training.Losses.perceptual_layers": {"conv1_1": 1.0},
    "Training.Losses.perceptual_weights": "random",
}
"""The perceptual loss at its smallest."""
AVERAGED = {"Training.EMA.enabled": True, "Training.EMA.decay": 0.9}
PLATEAU = GAN | {
    "Training.max_steps": 14, "Schedulers.name": "plateau", "Schedulers.patience": 1, "Optimizers.optim_d_lr": 3e-4,
}  # fmt: skip
MULTISTEP = {"Training.max_steps": 14, "Schedulers.name": "multistep", "Schedulers.milestones": [4, 8]}
GUIDED = {"Generator.model_type": "guided", "Data.guide": ["B02"], "Data.bands": ["B04", "B08"]}
COMPANIONS = GUIDED | {"Data.train_scenes": ["d_10m.tif"], "Data.val_scenes": ["e_10m.tif"], "Data.bands": ["B05"]}
COMPANIONS |= {"Data.root": "grids", "Data.companions": {"_10m.tif": "_20m.tif"}}
HIGH = {"Degradation.type": "high_order", "Degradation.queue_size": 0}
HIGH |= {"Data.train_scenes": ["b.tif"], "Data.patch_size": 24}


class Case(NamedTuple):
    """Where a setting matters."""

    probe: str
    """What to look at."""
    value: Any
    """What the setting is changed to."""
    context: Mapping[str, Any] = {}
    """Other settings, on top of ``BASE``."""


def high_order(key, value, **needs):
    """The cases of one setting in both rounds, each with what it needs in its own."""
    cases = {}
    for which in ("", "2"):
        context = {f"Degradation.high_order.{name}{which}": one for name, one in needs.items()}
        if which:
            context["Degradation.high_order.second_blur_prob"] = 1.0
        cases[f"Degradation.high_order.{key}{which}"] = Case("batch", value, HIGH | context)
    return cases


CASES = {
    "Data.dataset_type": Case("batch", "pairs", FOLDERS),
    "Data.root": Case("batch", "others"),
    "Data.lr_root": Case("batch", "lr_shifted", PAIRS),
    "Data.catalog": Case("batch", "geosr-demo", FOUND),
    "Data.train_scenes": Case("batch", ["b.tif"]),
    "Data.val_scenes": Case("validation", ["b.tif"]),
    "Data.exclude": Case("batch", {"a.tif": [0, 0, 32, 72]}),
    "Data.val_windows": Case("validation", {"c.tif": [0, 0, 32, 40]}),
    "Data.split": Case("validation", [0.4, 0.4, 0.2], SPLIT),
    "Data.split_block": Case("validation", 480.0, SPLIT),
    "Data.split_buffer": Case("validation", 40.0, SPLIT),
    "Data.val_patches": Case("validation", 2, SPLIT),
    "Data.bands": Case("batch", ["B04", "B08"]),
    "Data.stand_ins": Case("batch", {"B05": "B08"}, LACKING),
    "Data.guide": Case("batch", ["B03"], GUIDED),
    "Data.companions": Case("batch", {"_10m.tif": "_20m_other.tif"}, COMPANIONS),
    "Data.gsd": Case("header", 20.0),
    "Data.patch_size": Case("batch", 10),
    "Data.stride": Case("batch", 4),
    "Data.min_valid": Case("batch", 0.5),
    "Data.cache": Case("loader", "memory", WORKERS),
    "Data.train_batch_size": Case("batch", 3),
    "Data.val_batch_size": Case("validation", 3, SPLIT),
    "Data.num_workers": Case("loader", 1),
    "Data.prefetch_factor": Case("loader", 3, WORKERS),
    "Data.pin_memory": Case("loader", False),
    "Data.persistent_workers": Case("loader", False, WORKERS),
    "Data.start_method": Case("loader", "spawn", WORKERS),
    "Data.detail": Case("batch", 0.0),
    "Data.balance": Case("batch", 1.0, {"Data.train_scenes": ["a.tif", "wide.tif"]}),
    "Data.gain": Case("batch", 2.0),
    "Data.band_gain": Case("batch", 2.0),
    "Data.noise": Case("batch", 0.01),
    "Data.cutblur": Case("batch", 1.0),
    "Degradation.type": Case("batch", "high_order"),
    "Degradation.sensor.mtf": Case("batch", 0.1),
    "Degradation.sensor.mtf_jitter": Case("batch", 0.2),
    "Degradation.sensor.shift": Case("batch", 1.0),
    "Degradation.sensor.misregistration": Case("batch", 0.3),
    "Degradation.sensor.noise": Case("batch", False),
    "Degradation.sensor.snr": Case("batch", 20.0),
    "Degradation.sensor.shot_share": Case("batch", 0.1),
    "Degradation.sensor.noise_gain": Case("batch", [2.0, 3.0]),
    "Degradation.sensor.quantise": Case("batch", False),
    "Degradation.high_order.preset": Case("batch", "real-esrgan", HIGH),
    "Degradation.high_order.white": Case("batch", 1.0, HIGH),
    "Degradation.high_order.quantise": Case("batch", False, HIGH),
    "Degradation.high_order.second_blur_prob": Case("batch", 0.0, HIGH),
    "Degradation.high_order.final_sinc_prob": Case("batch", 1.0, HIGH),
    **high_order("blur_kernel_size", 7, blur_sigma=[3.0, 4.0]),
    **high_order("kernel_list", ["aniso", "iso"], kernel_list=["iso", "aniso"], kernel_prob=[1.0, 0.0]),
    **high_order("kernel_prob", [0.0, 1.0], kernel_list=["iso", "aniso"], kernel_prob=[1.0, 0.0]),
    **high_order("sinc_prob", 1.0),
    **high_order("blur_sigma", [3.0, 4.0]),
    **high_order("betag_range", [0.2, 0.3], kernel_list=["generalized_iso"], kernel_prob=[1.0], sinc_prob=0.0),
    **high_order("betap_range", [3.0, 4.0], kernel_list=["plateau_iso"], kernel_prob=[1.0], sinc_prob=0.0),
    **high_order("resize_prob", [1.0, 0.0, 0.0]),
    **high_order("resize_range", [0.3, 2.0], resize_prob=[0.5, 0.5, 0.0]),
    **high_order("gaussian_noise_prob", 0.0, gaussian_noise_prob=1.0),
    **high_order("noise_range", [20.0, 30.0], gaussian_noise_prob=1.0),
    **high_order("poisson_scale_range", [1.0, 2.0], gaussian_noise_prob=0.0),
    **high_order("gray_noise_prob", 1.0),
    **high_order("compression", "none"),
    **high_order("jpeg_range", [5.0, 10.0]),
    **high_order("jpeg2000_range", [60.0, 80.0], compression="jpeg2000"),
    "Degradation.steps": Case(
        "batch",
        [{"step": "blur", "sigma": 2.0}, {"step": "downsample"}],
        {"Degradation.type": "steps", "Degradation.steps": [{"step": "downsample"}], "Degradation.queue_size": 0},
    ),
    "Degradation.queue_size": Case("batch", 2, HIGH),
    "Model.name": Case("header", "another"),
    "Model.load_checkpoint": Case("networks", "earlier/geosr/run/model.safetensors"),
    "Model.continue_training": Case("weights", "earlier/geosr/run", GAN),
    "Model.licence": Case("header", "CC-BY-4.0"),
    "Model.variant": Case("header", "fast"),
    "Generator.class_path": Case("networks", "training_kit.Nearest"),
    "Generator.init_args": Case("networks", {"gain": 0.5}, {"Generator.class_path": "training_kit.Nearest"}),
    "Generator.model_type": Case("networks", "srresnet"),
    "Generator.scaling_factor": Case("networks", 3),
    "Generator.n_channels": Case("networks", 12),
    "Generator.n_blocks": Case("networks", 2),
    "Generator.large_kernel_size": Case("networks", 5, {"Generator.model_type": "res"}),
    "Generator.small_kernel_size": Case("networks", 5, {"Generator.model_type": "res"}),
    "Generator.growth_channels": Case("networks", 4, {"Generator.model_type": "rrdb"}),
    "Generator.res_scale": Case("networks", 1.0, {"Generator.model_type": "res"}),
    "Generator.reduction": Case("networks", 2, {"Generator.model_type": "rcab", "Generator.reduction": 4}),
    "Generator.noise_dim": Case("networks", 3, {"Generator.model_type": "stochastic"}),
    "Generator.noise_field": Case("weights", False, {"Generator.model_type": "stochastic"}),
    "Generator.depth": Case("networks", 2, SWINIR | {"Generator.depth": 1}),
    "Generator.n_heads": Case("networks", 4, SWINIR | {"Generator.n_heads": 2}),
    "Generator.window_size": Case("networks", 6, SWINIR),
    "Generator.upsampler": Case("networks", "pixelshuffledirect", SWINIR),
    "Generator.use_icnr": Case("networks", False, {"Generator.model_type": "res"}),
    "Generator.global_skip": Case("networks", False, {"Generator.model_type": "res"}),
    "Generator.consistency": Case("networks", False),
    "Discriminator.model_type": Case("networks", "srgan", GAN),
    "Discriminator.n_blocks": Case("networks", 2, GAN),
    "Discriminator.base_channels": Case("networks", 6, GAN),
    "Discriminator.linear_size": Case("networks", 6, GAN | {"Discriminator.model_type": "srgan"}),
    "Discriminator.n_scales": Case("networks", 1, GAN | SCALES),
    "Discriminator.norm": Case("networks", "batch", GAN | {"Discriminator.n_blocks": 2}),
    "Discriminator.conditional": Case("weights", True, GAN),
    "Discriminator.detail": Case("weights", True, GAN),
    "Discriminator.use_spectral_norm": Case("networks", True, GAN),
    "Training.max_steps": Case("schedule", 4),
    "Training.max_epochs": Case("schedule", 2, {"Training.max_steps": 1000}),
    "Training.max_time": Case("trainer", "00:02:00:00"),
    "Training.val_every": Case("trainer", 2),
    "Training.limit_val_batches": Case("trainer", 1),
    "Training.early_stopping_patience": Case("trainer", 5),
    "Training.precision": Case("weights", "bf16-mixed", GAN),
    "Training.accelerator": Case("trainer", "gpu"),
    "Training.devices": Case("trainer", 2),
    "Training.seed": Case("batch", 1),
    "Training.channels_last": Case("networks", False),
    "Training.compile": Case("compiled", True, GAN),
    "Training.gradient_checkpointing": Case("kept", True),
    "Training.accumulate_grad_batches": Case("weights", 2, GAN),
    "Training.pretrain_g_only": Case("schedule", False),
    "Training.g_pretrain_steps": Case("schedule", 1),
    "Training.pretrain_losses": Case("weights", ["l1"], {"Training.Losses.sam_weight": 1.0}),
    "Training.adv_loss_ramp_steps": Case("schedule", 2, GAN),
    "Training.label_smoothing": Case("weights", True, GAN),
    "Training.d_steps_per_g": Case("weights", 2, GAN),
    "Training.d_accuracy_limit": Case(
        "weights", 0.51, GAN | {"Training.Losses.adv_loss_type": "wasserstein", "Optimizers.optim_d_lr": 0.01}
    ),
    "Training.Losses.l1_weight": Case("weights", 2.0, {"Training.Losses.sam_weight": 0.1}),
    "Training.Losses.sam_weight": Case("weights", 0.1),
    **{
        f"Training.Losses.{name}_weight": Case("weights", 0.1)
        for name in ("tv", "charbonnier", "mse", "fft", "spectrum", "gradient", "indices")
    },
    "Training.Losses.charbonnier_eps": Case("weights", 1e-2, {"Training.Losses.charbonnier_weight": 1.0}),
    "Training.Losses.band_weights": Case("weights", {"B08": 3.0}),
    "Training.Losses.fft_alpha": Case("weights", 0.0, {"Training.Losses.fft_weight": 1.0}),
    "Training.Losses.tv_kind": Case("weights", "isotropic", {"Training.Losses.tv_weight": 1.0}),
    "Training.Losses.consistency_weight": Case("weights", 0.1, {"Generator.consistency": False}),
    "Training.Losses.perceptual_metric": Case("weights", "ssl4eo", SEEN),
    "Training.Losses.perceptual_weight": Case("weights", 0.2, SEEN),
    "Training.Losses.perceptual_layers": Case("weights", {"conv1_2": 1.0}, SEEN),
    "Training.Losses.perceptual_weights": Case("weights", "vgg.pth", SEEN),
    "Training.Losses.perceptual_white": Case("weights", 1.0, SEEN),
    "Training.Losses.l1_gt_usm": Case("weights", True),
    "Training.Losses.percep_gt_usm": Case("weights", True, SEEN),
    "Training.Losses.gan_gt_usm": Case("weights", True, GAN),
    "Training.Losses.adv_loss_type": Case("weights", "hinge", GAN),
    "Training.Losses.relativistic_average_d": Case("weights", True, GAN),
    "Training.Losses.adv_loss_beta": Case("weights", 0.2, GAN),
    "Training.Losses.adv_loss_schedule": Case("schedule", "linear", GAN | {"Training.adv_loss_ramp_steps": 3}),
    "Training.Losses.feature_matching_weight": Case("weights", 0.1, GAN),
    "Training.Losses.r1_gamma": Case("weights", 1.0, GAN),
    "Training.Losses.r1_every": Case("weights", 2, GAN | {"Training.Losses.r1_gamma": 1.0}),
    "Training.Losses.gp_weight": Case("weights", 1.0, GAN),
    "Training.EMA.enabled": Case("weights", True),
    "Training.EMA.decay": Case("weights", 0.1, AVERAGED),
    "Training.EMA.update_after_step": Case("weights", 1, AVERAGED),
    "Training.EMA.use_num_updates": Case("weights", False, AVERAGED),
    "Training.EMA.device": Case("average", "cpu", AVERAGED),
    "Optimizers.name": Case("weights", "adamw", {"Optimizers.weight_decay_g": 0.1}),
    "Optimizers.optim_g_lr": Case("weights", 2e-4, GAN),
    "Optimizers.optim_d_lr": Case("weights", 2e-4, GAN),
    "Optimizers.betas": Case("weights", [0.9, 0.99]),
    "Optimizers.eps": Case("weights", 1e-3),
    "Optimizers.weight_decay_g": Case("weights", 0.1),
    "Optimizers.weight_decay_d": Case("weights", 0.1, GAN),
    "Optimizers.gradient_clip_val": Case("weights", 1e-6),
    "Schedulers.name": Case("rates", "cosine", PLATEAU),
    "Schedulers.g_warmup_steps": Case("rates", 3, PLATEAU),
    "Schedulers.g_warmup_type": Case("rates", "linear", PLATEAU | {"Schedulers.g_warmup_steps": 4}),
    "Schedulers.metric": Case("rates", "val_metrics/psnr", PLATEAU),
    "Schedulers.metric_g": Case("rates", "val_metrics/psnr", PLATEAU),
    "Schedulers.metric_d": Case("rates", "val_metrics/psnr", PLATEAU),
    "Schedulers.milestones": Case("rates", [5, 8], MULTISTEP),
    "Schedulers.gamma": Case("rates", 0.1, MULTISTEP),
    **{
        f"Schedulers.{key}{network}": Case("rates", value, PLATEAU)
        for key, value in {"patience": 3, "factor": 0.1, "cooldown": 2, "min_lr": 5e-5, "threshold": 0.5}.items()
        for network in ("", "_g", "_d")
    },
    "Logging.dir": Case("files", "elsewhere"),
    "Logging.project": Case("files", "landscapes"),
    "Logging.name": Case("files", "first-try"),
    "Logging.every": Case("files", 2),
    "Logging.num_val_images": Case("files", 1),
    "Logging.tensorboard": Case("files", True),
    "Logging.wandb.enabled": Case("trainer", True),
    "Logging.wandb.entity": Case("trainer", "a-team", {"Logging.wandb.enabled": True}),
}
"""Where each setting matters, and what shows it."""


# What can be seen; none of it holds the configuration itself, which would show every change


def batch(config):
    """What the networks see in every update."""
    data = GeoSRDataModule(config)
    data.trainer = SimpleNamespace(training=True, global_rank=0, world_size=1)
    return [data.on_after_batch_transfer(one, 0) for one in data.train_dataloader()]


def validation(config):
    """What is validated on."""
    data = GeoSRDataModule(config)
    return [data.on_after_batch_transfer(one, 0) for one in data.val_dataloader()]


def loader(config):
    """How batches are read, where there is a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        made = GeoSRDataModule(config).train_dataloader()
    start = made.multiprocessing_context and made.multiprocessing_context.get_start_method()
    return made.num_workers, made.prefetch_factor, made.persistent_workers, made.pin_memory, start


def prepared(config):
    """A run that leaves nothing behind."""
    return prepare_run(config, folder=Path("scratch"))


def networks(config):
    """How weights lie in memory, and what the networks make of an image."""
    module = prepared(config).module
    image = torch.rand(1, len(config.Data.bands), 48, 48, generator=torch.Generator().manual_seed(0))
    made = [network.eval()(image) for network in (module.model, module.networks.discriminator) if network is not None]
    return {name: (value.shape, value.stride()) for name, value in module.named_parameters()}, made


def header(config):
    """What the weights file says of the model."""
    file = save_model(prepared(config).module.model, Path("scratch") / "x.safetensors").path
    return load_model(file).spec.to_dict()


def schedule(config):
    """Phases, and the adversarial weight at each step."""
    planned = GeoSRDataModule(config).schedule
    return planned.phases(), [planned.adversarial_weight(step) for step in range(planned.total)]


def weights(config):
    """Weights of both networks and those that are exported after the updates that were made."""
    run, updates = prepared(config), Updates()
    with without_noise():
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")  # what stops a run does not matter
        trainer = trainer_of(updates, limit_val_batches=0)
        trainer.fit(run.module, run.data, ckpt_path=run.checkpoint, weights_only=True)
    return updates.losses, run.module.state_dict(), run.module.best.state_dict()


class Updates(L.Callback):
    """The generator's loss in each update."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, *batch):
        self.losses.append(float(outputs["loss"]))


def kept(config):
    """Bytes that are kept for the generator's gradients."""
    model, total = prepared(config).module.model.train(), 0

    def count(value):
        nonlocal total
        total += value.nbytes
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        model(torch.rand(1, len(config.Data.bands), 16, 16))
    return total


def compiled(config):
    """Which modules torch.compile is given, before or in the first update."""
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda module, *_, **__: given.append(type(module).__name__))
        patch.setattr(torch, "compile", lambda module, *_, **__: (given.append(type(module).__name__), module)[1])
        weights(config)
    return given


def average(config):
    """Where the averaged weights are once the module has moved to another device."""
    module = prepared(config).module.to("meta")
    return {value.device.type for value in module.ema.model.parameters()}


def rates(config):
    """Learning rates in each update, a made-up validation after each."""
    module = prepared(config).module
    optimizers = [SimpleNamespace(param_groups=[{}]) for _ in module.plateaus]
    module.optimizers = lambda: optimizers
    seen = []
    for step in range(module.schedule.total):
        module.step = step
        module._set_rates()
        seen.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        metrics = {
            "val_metrics/l1": 1 - 0.01 * min(step, 4),  # gets a little better at first
            "val_metrics/psnr": 30.0 + step,
            "validation/DISC_adversarial_loss": 0.5 - 0.01 * min(step, 3),
        }
        trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), callback_metrics=metrics)
        for callback in module.configure_callbacks():
            callback.on_validation_end(trainer, module)
    return seen


def trainer(config):
    """What Lightning's trainer is given."""
    given = {}

    def told(kind, **arguments):
        given[kind] = {key: facts(value) for key, value in arguments.items() if key != "config"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 8)
        patch.setattr(L, "Trainer", partial(told, "trainer"))
        patch.setattr(loggers, "WandbLogger", partial(told, "wandb"))
        patch.setattr(loggers, "find_spec", lambda name: name)
        patch.setattr(loggers, "_wandb_id", lambda folder: "id")
        make_trainer(prepared(config), [], quiet=True)
    return given


def facts(value):
    """Plain values as they are, lists of objects by their kind and what is plain of them."""
    if isinstance(value, list):
        return [(type(one).__name__, {k: v for k, v in vars(one).items() if plain(v)}) for one in value if one]
    return value


def plain(value):
    return value is None or isinstance(value, bool | int | float | str)


def trained(config):
    """The folder of a run; its report, which takes most of the time, is not written."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (geosr.training.run, geosr.training.report):
            patch.setattr(module, "write_report", lambda folder, **how: folder / "report.html")
        return train(config, quiet=True).parent


def files(config):
    """Files that a run leaves, and the steps in its table."""
    before = set(Path().rglob("*"))
    folder = trained(config)
    steps = [row["step"] for row in read_metrics(folder) if "lr_generator" in row]
    left = sorted(path for path in set(Path().rglob("*")) - before if path.is_file())
    shutil.rmtree(folder)
    return [str(path.with_stem("tb") if "tfevents" in path.name else path) for path in left], steps


PROBES = {
    probe.__name__: probe
    for probe in (
        batch, validation, loader, networks, header, schedule, weights, kept, compiled, average, rates, trainer, files,
    )
}  # fmt: skip


# Where they look


RGBN = ("B02", "B03", "B04", "B08")


def write_scene(path, size, *, seed, factor=1, plus=0, hole=False, bands=RGBN):
    """Reflectance with more detail on one side than on the other; ``factor`` HR pixels are averaged to one."""
    random = np.random.default_rng(seed)
    coarse = random.integers(500, 3000, (4, *(length // 8 for length in size))).repeat(8, axis=1).repeat(8, axis=2)
    hr = coarse + random.integers(0, 400, (4, *size)) * np.linspace(0.1, 2, size[1])
    array = hr.reshape(4, size[0] // factor, factor, size[1] // factor, factor).mean((2, 4)).astype("uint16") + plus
    if hole:
        array[:, 20:28, 20:28] = 0
    path.parent.mkdir(exist_ok=True)
    side = 10 * factor
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=array.shape[1], width=array.shape[2], dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=Affine(side, 0, 400_000, 0, -side, 5_000_000),
    ) as file:  # fmt: skip
        file.write(array)
        file.scales = (1e-4,) * 4
        file.descriptions = bands


@pytest.fixture(scope="module", autouse=True)
def land(tmp_path_factory):
    """The folder to be in: scenes, pairs, an earlier run of two updates, and a file of VGG19's first weights."""
    folder = tmp_path_factory.mktemp("land")
    with chdir(folder):
        for number, name in enumerate(("a", "b", "c")):
            write_scene(Path("scenes") / f"{name}.tif", (64, 72), seed=number, hole=name == "a")
        write_scene(Path("scenes/wide.tif"), (192, 192), seed=3)
        write_scene(Path("others/a.tif"), (64, 72), seed=4)
        write_scene(Path("others/c.tif"), (64, 72), seed=5)
        write_scene(Path("hr/place_hr.tif"), (192, 192), seed=6)
        write_scene(Path("lr/place_lr.tif"), (192, 192), seed=6, factor=2)
        write_scene(Path("lr_shifted/place_lr.tif"), (192, 192), seed=6, factor=2, plus=100)
        for number, name in enumerate(("d", "e")):
            write_scene(Path(f"grids/{name}_10m.tif"), (64, 72), seed=7 + number)
            for place, ending in enumerate(("20m", "20m_other")):
                path = Path(f"grids/{name}_{ending}.tif")
                write_scene(path, (64, 72), seed=9 + place, factor=2, bands=("B05", "B06", "B07", "B8A"))
        Path("scratch").mkdir()
        generator = torch.Generator().manual_seed(1)
        filters = torch.randn(64, 3, 3, 3, generator=generator)
        torch.save({"features.0.weight": filters, "features.0.bias": torch.zeros(64)}, "vgg.pth")
        earlier = {"Logging.dir": "earlier", "Training.max_steps": 2, "Training.seed": 7}
        trained(config_of(GAN | earlier))
        yield
    look.cache_clear()


def config_of(context):
    """The checked configuration with these settings on top of ``BASE``."""
    config = Config()
    for key, value in {**BASE, **context}.items():
        path, _, name = key.rpartition(".")
        section = attrgetter(path)(config)
        assert name in vars(section), key
        setattr(section, name, deepcopy(value))
    return check(config)


@cache
def look(probe, key):
    """What a probe sees in the context of this setting."""
    return PROBES[probe](config_of(CASES[key].context))


def same(first, second):
    """Whether nested values are equal bit for bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and bool(first == second)


def first_alike(case):
    """The first setting of the table that is looked at in the same way in the same context."""
    return next(key for key, other in CASES.items() if (other.probe, other.context) == (case.probe, case.context))


# The tests


def test_the_table_has_every_setting_and_no_other():
    known = settings()
    leaves = {key for key in known if not any(other.startswith(key + ".") for other in known)}
    assert set(CASES) == leaves


@pytest.mark.parametrize("key", CASES)
def test_a_setting_changes_what_can_be_seen(key):
    case = CASES[key]
    before = config_of(case.context)
    assert attrgetter(key)(before) != case.value
    after = PROBES[case.probe](config_of({**case.context, key: case.value}))
    unchanged = same(look(case.probe, first_alike(case)), after)
    assert not unchanged


@pytest.mark.parametrize("key", sorted({first_alike(case) for case in CASES.values()}))
def test_nothing_changes_by_itself(key):
    case = CASES[key]
    unchanged = same(look(case.probe, key), PROBES[case.probe](config_of(case.context)))
    assert unchanged
