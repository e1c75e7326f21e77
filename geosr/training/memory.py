"""Memory that a run needs at least, known from its settings before anything is made."""

import os
from contextlib import suppress

import torch
from torch import nn

from geosr.config import Config
from geosr.errors import ConfigError
from geosr.models.hardware import pick_device

BYTES = 4
"""Of a float32."""
COPIES = 4
"""Of each weight: itself, its gradient, and the two moments that Adam keeps."""


def require_memory_for_batches(config: Config, *, device: str) -> None:
    """Refuse batches that are larger than the memory of the device: LR and HR images of one update.

    Raises:
        ConfigError: They are; the message says how large.
    """
    data, training, scale = config.Data, config.Training, config.Generator.scaling_factor
    adversarial = training.g_pretrain_steps != -1 or not training.pretrain_g_only
    patches = data.train_batch_size * training.accumulate_grad_batches
    patches *= training.d_steps_per_g if adversarial else 1
    pixels = data.patch_size**2 * (1 + scale**2)
    _require(
        patches * pixels * (len(data.bands) + len(data.guide)) * BYTES,
        device,
        f"the images of one update ({patches:,} patches of {data.patch_size * scale} x {data.patch_size * scale} HR "
        "pixels)",
        "Data.train_batch_size, Data.patch_size or Training.accumulate_grad_batches",
    )


def require_memory_for_networks(*networks: nn.Module, device: str) -> None:
    """Refuse networks whose weights, gradients and optimisers are larger than the memory of the device.

    Args:
        networks: The networks, on the meta device, where they take no memory.
        device: Where they are to be trained.

    Raises:
        ConfigError: They are; the message says how large.
    """
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    _require(
        weights * COPIES * BYTES,
        device,
        f"networks of {weights:,} parameters with their gradients and optimisers",
        "Generator.n_channels, Generator.n_blocks or Discriminator.base_channels",
    )


def _require(needed: int, device: str, what: str, settings: str) -> None:
    there = memory_of(device)
    if needed > there:
        raise ConfigError(
            f"{what} need at least {needed / 1e9:,.1f} GB, and the {device} of this machine has {there / 1e9:,.1f} GB; "
            f"lower {settings}"
        )


def device_of(config: Config) -> str:
    """What ``Training.accelerator`` means on this machine."""
    wanted = config.Training.accelerator
    return pick_device("auto" if wanted == "gpu" else wanted).type


def memory_of(device: str) -> int:
    """Bytes of a GPU's memory, else of the machine's."""
    if device == "cuda":
        with suppress(RuntimeError, AssertionError):  # no driver: the trainer says so
            return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
