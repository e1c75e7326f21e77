"""Small networks, images and trainers for tests of training."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from geosr.config import Config
from geosr.config.schedule import Schedule
from geosr.degrade import PSF, degrade
from geosr.models import Model, ModelSpec
from geosr.models.discriminators import build_discriminator
from geosr.training.build import Networks
from geosr.training.module import SuperResolution

BANDS = ("B02", "B03")

QUIET = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*deprecated:FutureWarning:lightning",
    "ignore:.*sync_dist=True",
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
)
"""What Lightning says about trainers that are this small."""


class Nearest(nn.Module):
    """A network of a user's own: one convolution of the enlarged image."""

    def __init__(self, bands, scale, gain=1.0):
        super().__init__()
        self.scale, self.gain = scale, gain
        self.last = nn.Conv2d(bands, bands, 3, padding=1)

    def forward(self, image):
        return self.gain * self.last(F.interpolate(image, scale_factor=self.scale, mode="nearest"))


def smooth_image(*shape, seed=0):
    """Reflectance with structure at every scale, the largest strongest."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(shape)
    for size in (1, 2, 4, 8):
        coarse = torch.rand(*shape[:2], shape[2] // size, shape[3] // size, generator=generator)
        image += 0.1 * size**0.5 * F.interpolate(coarse, size=shape[2:], mode="nearest")
    return image


def batch_of(hr, valid=None):
    """A batch as the data module makes it, LR through the point-spread function of MTF 0.3."""
    return {"hr": hr, "lr": degrade(hr, PSF(2)), "valid": torch.ones_like(hr[:, 0]) > 0 if valid is None else valid}


def config_of(steps=20, *, bands=BANDS, pretraining=-1, ramp=0, batch=2, **settings):
    """A configuration without warm-up and plateau; ``settings`` are dotted keys with __ for the dots."""
    config = Config()
    config.Data.bands, config.Data.patch_size, config.Data.train_batch_size = list(bands), 16, batch
    config.Degradation.sensor.mtf = 0.3
    config.Training.max_steps, config.Training.g_pretrain_steps = steps, pretraining
    config.Training.adv_loss_ramp_steps = ramp
    config.Schedulers.name, config.Logging.every = "constant", 1
    config.Discriminator.base_channels, config.Discriminator.n_blocks = 8, 1
    for key, value in settings.items():
        *path, name = key.split("__")
        section = config
        for part in path:
            section = vars(section)[part]
        assert name in vars(section), key
        setattr(section, name, value)
    return config


def networks_of(config, schedule):
    torch.manual_seed(0)
    bands = tuple(config.Data.bands)
    arguments = {"channels": 8, "blocks": 1, "mean": [0.3] * len(bands), "std": [0.1] * len(bands)}
    model = Model(ModelSpec("m", "compact", 2, bands, arguments, halo=11))
    needed = schedule.adversarial
    return Networks(model, build_discriminator(config.Discriminator, bands=len(bands)) if needed else None)


def module_of(config, tmp_path=None, **arguments):
    schedule = Schedule.of(config, config.Training.max_steps)
    module = SuperResolution(networks_of(config, schedule), config, schedule, **arguments)
    if tmp_path is not None:
        module.folder = tmp_path
    return module


class Recorder(Callback):
    """What was logged at every step and validation, the learning rates, and the generator's weights after each step."""

    def __init__(self):
        self.logged, self.validated, self.rates, self.weights = [], [], [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])
        self.weights.append([parameter.detach().clone() for parameter in module.model.parameters()])

    def on_validation_end(self, trainer, module):
        self.validated.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def trainer_of(*callbacks, **arguments):
    settings = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
    }  # fmt: skip
    return L.Trainer(callbacks=list(callbacks), **(settings | arguments))


def fit(module, images, *, validate=None, every=None, **arguments):
    """Train for all steps of the module's schedule on batches from ``images``, over and over; what was recorded."""
    size = module.config.Data.train_batch_size * module.config.Training.accumulate_grad_batches
    recorder = Recorder()
    batches = []
    for step in range(module.schedule.total):
        rounds = 1 if module.schedule.is_pretraining(step) else module.config.Training.d_steps_per_g
        start = len(batches) * size
        batches.append(batch_of(torch.stack([images[(start + i) % len(images)] for i in range(size * rounds)])))
    if every is not None:
        arguments["val_check_interval"] = every
    loaders = [DataLoader(batches, batch_size=None)]
    if validate is not None:
        loaders.append(DataLoader(validate, batch_size=None))
    else:
        arguments["limit_val_batches"] = 0
    trainer_of(recorder, **arguments).fit(module, *loaders)
    return recorder
