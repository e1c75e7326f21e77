"""What each architecture costs and how far it sees, without computing an image."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geosr.config.schema import DataSection, GeneratorSection
from geosr.models.generator import Generator
from geosr.models.model import LARGEST_HALO
from geosr.models.registry import ARGUMENTS, build_network, generator_arguments
from geosr.models.spec import ModelSpec

SIDE = 128
"""LR pixels along one side of the image that operations are counted for."""


@dataclass(frozen=True)
class Cost:
    """An architecture in one size."""

    architecture: str
    scale: int
    bands: int
    channels: int
    blocks: int
    parameters: int
    gflop: float
    """Multiplications and additions in convolutions and matrix products for one image of 128 x 128 LR pixels, 1e9."""
    reach: int | None
    """LR pixels to each side that an output pixel depends on; None is the whole image."""
    tiling: str


def costs() -> list[Cost]:
    """Costs of all architectures that can be trained, in the size that a config has by default."""
    bands = tuple(DataSection().bands)
    return [_cost(GeneratorSection(model_type=architecture), bands) for architecture in ARGUMENTS]


def _cost(section: GeneratorSection, bands: tuple[str, ...]) -> Cost:
    name, scale = section.model_type, section.scaling_factor
    with torch.device("meta"):  # shapes without numbers
        network = build_network(ModelSpec(name, name, scale, bands, generator_arguments(section)))
        lr = torch.empty(1, len(bands), SIDE, SIDE)
    assert isinstance(network, Generator)
    reach = network.reach
    exact = reach is not None and reach <= LARGEST_HALO
    return Cost(
        architecture=name,
        scale=scale,
        bands=len(bands),
        channels=section.n_channels,
        blocks=section.n_blocks,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gflop=count_flop(network, lr) / 1e9,
        reach=reach,
        tiling="exact" if exact else "approximate",
    )


@torch.inference_mode()
def count_flop(network: nn.Module, lr: torch.Tensor) -> int:
    """Floating-point operations of a forward pass; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        network(lr)
    return int(counter.get_total_flops())
