"""A model: a network, the facts about it, and the consistency layer that keeps its output a measurement."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from geosr.degrade.psf import PSF
from geosr.errors import ModelError
from geosr.models.consistency import Consistency
from geosr.models.registry import build_network
from geosr.models.spec import ModelSpec


class Model(nn.Module):
    """SR reflectance from LR reflectance.

    Args:
        spec: Facts about the model. A ``halo`` of None is measured.
        network: The generator; None builds the one that ``spec`` describes. Any module from (batch, band, y, x) to
            (batch, band, y * scale, x * scale) will do.
    """

    def __init__(self, spec: ModelSpec, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = build_network(spec) if network is None else network
        psf = None if spec.consistency_mtf is None else PSF(spec.scale, spec.consistency_mtf)
        self.consistency = None if psf is None else Consistency(psf)
        self.spec = spec if spec.halo is not None else replace(spec, halo=measure_halo(self, spec))

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x), both float32."""
        sr = self.network(lr)
        return sr if self.consistency is None else self.consistency(sr, lr)

    def describe(self) -> str:
        """One line: name, scale, bands and number of parameters."""
        parameters = sum(p.numel() for p in self.parameters())
        return f"{self.spec.name} (x{self.spec.scale}, {' '.join(self.spec.bands)}, {parameters:,} parameters)"


def measure_halo(model: nn.Module, spec: ModelSpec, *, largest: int = 128) -> int:
    """LR pixels to each side that the output of one LR pixel depends on: the extent of its input gradient.

    The gradient is that of a random combination of the pixel's SR values, for a random image, in float64.

    Raises:
        ModelError: The output depends on pixels ``largest`` away; the model cannot be tiled exactly.
    """
    generator = torch.Generator().manual_seed(0)
    model = deepcopy(model).double().cpu().eval()
    reach = 16
    while reach <= largest:
        size = 2 * reach + 1
        lr = torch.rand(1, len(spec.bands), size, size, generator=generator, dtype=torch.float64, requires_grad=True)
        centre = slice(reach * spec.scale, (reach + 1) * spec.scale)
        cell = model(lr)[..., centre, centre]
        (gradient,) = torch.autograd.grad(cell, lr, torch.rand(cell.shape, generator=generator, dtype=torch.float64))
        touched = gradient[0].abs().amax(0).nonzero() - reach
        extent = int(touched.abs().max()) if len(touched) else 0
        if extent < reach:  # an extent that fills the image may be cut off by it
            return extent
        reach *= 2
    raise ModelError(f"model {spec.name!r} depends on pixels {largest} or more away, so tiles cannot be exact")
