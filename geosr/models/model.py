"""A model: a network, the facts about it, and the consistency layer that keeps its output a measurement."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from geosr.degrade.psf import PSF
from geosr.grid import next_multiple
from geosr.models.consistency import Consistency
from geosr.models.guided import block_means, whole_blocks
from geosr.models.registry import build_network
from geosr.models.spec import ModelSpec

LARGEST_HALO = 64
"""LR pixels; a network that reaches further is tiled approximately."""

BLEND_HALO = 32
"""LR pixels of context on each side of a tile that is blended with its neighbours."""


@runtime_checkable
class _Declares(Protocol):
    """A network that knows how many LR pixels to each side an output pixel depends on; None is the whole image."""

    @property
    def reach(self) -> int | None: ...


class Model(nn.Module):
    """SR reflectance from LR reflectance.

    Args:
        spec: Facts about the model. A ``halo`` of None becomes the network's ``reach``, measured if it has none; past
            `LARGEST_HALO` pixels, the model is tiled approximately. ``multiple_of`` becomes the network's, if it says
            one, and the halo whole blocks of it.
        network: The generator; None builds the one that ``spec`` describes. Any module from (batch, band, y, x) to
            (batch, band, y * scale, x * scale) will do. Of a model with a guide it is given whole pixels of the other
            bands, and returns these bands alone.
        trust: Modules and packages that may be imported, where ``spec`` describes a class of the user's own.
    """

    def __init__(self, spec: ModelSpec, network: nn.Module | None = None, *, trust: str | Sequence[str] = ()) -> None:
        super().__init__()
        self.network = build_network(spec, trust=trust) if network is None else network
        factor = spec.scale * spec.guide_scale
        psf = None if spec.consistency_mtf is None else PSF(factor, spec.consistency_mtf)
        self.consistency = None if psf is None else Consistency(psf)
        spec = replace(spec, multiple_of=getattr(self.network, "multiple_of", spec.multiple_of))
        self.spec = spec  # for the measurement of the halo
        spec = spec if spec.halo is not None else self._tiled(spec)
        assert spec.halo is not None
        self.spec = replace(spec, halo=next_multiple(spec.halo, spec.multiple_of))

    @classmethod
    def from_file(cls, spec: ModelSpec, network: nn.Module) -> "Model":
        """The model of a weights file, in evaluation mode; its halo is what the network depends on.

        A halo that is too small shows in the product as seams, and what a file says of it may be damaged, so it is
        found again. Only of a class of the user's own without a ``reach`` it is kept, since to measure takes long.

        Args:
            spec: What the file says of its model.
            network: The network with its weights.
        """
        found = spec.tiling == "exact" and ("." not in spec.architecture or isinstance(network, _Declares))
        return cls(replace(spec, halo=None) if found else spec, network).eval()

    def forward(self, lr: Tensor, noise: Tensor | None = None) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x), both float32.

        Args:
            lr: LR reflectance.
            noise: What a network that `TakesNoise` takes besides.
        """
        if self.spec.guide:
            return self._guided(lr)
        sr = self.network(lr) if noise is None else self.network(lr, noise)
        return sr if self.consistency is None else self.consistency(sr, lr)

    def _guided(self, lr: Tensor) -> Tensor:
        """SR reflectance of the bands that are guided; a last pixel of theirs that is cut off is completed first."""
        height, width = (side * self.spec.scale for side in lr.shape[-2:])
        whole = whole_blocks(lr, self.spec.guide_scale)
        sr = self.network(whole)
        sr = sr if self.consistency is None else self.consistency(sr, self.observed(whole))
        return sr[..., :height, :width]

    def observed(self, lr: Tensor) -> Tensor:
        """What was measured of the bands that come out, each pixel once: ``lr``, but for a model with a guide."""
        if not self.spec.guide:
            return lr
        return block_means(lr[:, len(self.spec.guide) :], self.spec.guide_scale)

    def _tiled(self, spec: ModelSpec) -> ModelSpec:
        """``spec`` with a halo: what an output pixel depends on, or where that is too far a margin for a blend."""
        if spec.tiling == "exact":
            reach = self._reach(spec)
            if reach is not None and reach <= LARGEST_HALO:
                return replace(spec, halo=reach)
        return replace(spec, tiling="approximate", halo=BLEND_HALO)

    def _reach(self, spec: ModelSpec) -> int | None:
        """LR pixels to each side that an output pixel depends on; None is the whole image, or too many to measure."""
        if not isinstance(self.network, _Declares):
            return measure_halo(self, spec)
        layer = 0 if self.consistency is None else self.consistency.reach * spec.guide_scale
        return None if self.network.reach is None else self.network.reach + layer

    def describe(self) -> str:
        """One line: name, scale, bands and number of parameters."""
        parameters, spec = sum(p.numel() for p in self.parameters()), self.spec
        bands = " ".join(spec.outputs) + (f" guided by {' '.join(spec.guide)}" if spec.guide else "")
        return f"{spec.name} (x{spec.scale * spec.guide_scale}, {bands}, {parameters:,} parameters)"


def measure_halo(model: nn.Module, spec: ModelSpec, *, largest: int = LARGEST_HALO + 1) -> int | None:
    """LR pixels to each side that the output of one LR pixel depends on: the extent of its input gradient.

    The gradient is that of a random combination of the pixel's SR values, for a random image, in float64. Where the
    network works on blocks of ``spec.multiple_of`` pixels, the reach depends on the place in the block: it is the
    largest along the block's diagonal. None means that the output depends on pixels ``largest`` away, or further.
    """
    generator = torch.Generator().manual_seed(0)
    model = deepcopy(model).double().cpu().eval()
    reach = min(16, largest)
    while True:
        start = next_multiple(reach, spec.multiple_of)
        size = 2 * start + spec.multiple_of
        lr = torch.rand(1, len(spec.bands), size, size, generator=generator, dtype=torch.float64, requires_grad=True)
        sr = model(lr)
        extent = 0
        for place in range(start, start + spec.multiple_of):
            part = slice(place * spec.scale, (place + 1) * spec.scale)
            cell = sr[..., part, part]
            weights = torch.rand(cell.shape, generator=generator, dtype=torch.float64)
            (gradient,) = torch.autograd.grad(cell, lr, weights, retain_graph=True)
            touched = gradient[0].abs().amax(0).nonzero() - place
            extent = max(extent, int(touched.abs().max()) if len(touched) else 0)
        if extent < reach:  # an extent that fills the image may be cut off by it
            return extent
        if reach == largest:
            return None
        reach = min(2 * reach, largest)
