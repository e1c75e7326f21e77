"""``compact``: a plain stack of convolutions at LR resolution, the cheapest generator for its accuracy."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ModelError, did_you_mean
from geosr.models.blocks import Trunk, initialise
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator

BASES = ("bicubic", "nearest")
"""What the convolutions' output is added to."""


class Compact(Generator):
    """Convolutions with PReLU on the LR grid, then a pixel shuffle, added to the upsampled input.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        channels: Feature channels.
        blocks: Convolutions between the first and the last.
        base: How the input is upsampled: ``bicubic``, or ``nearest`` as published.
        mean: Per-band reflectance subtracted from the input of the convolutions.
        std: Per-band reflectance that the input of the convolutions is divided by, and their output multiplied by.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021 (SRVGGNetCompact).
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        base: str = "bicubic",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if base not in BASES:
            raise ModelError(f"base {base!r} is unknown ({' '.join(BASES)})" + did_you_mean(base, BASES))
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=base == "bicubic")
        widths = [bands, *[channels] * (blocks + 1)]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 3, padding=1), nn.PReLU(width_out)]
        last = nn.Conv2d(channels, bands * scale**2, 3, padding=1)
        self.body = Trunk(*layers, last, segment=6)
        self.reach = max(blocks + 2, BICUBIC_REACH)
        initialise(self, slope=0.25)
        last.weight.data.mul_(FIRST_DETAIL)

    def resolve(self, features: Tensor) -> Tensor:
        """What bicubic interpolation misses, normalised; on the nearest base, all of it."""
        detail = F.pixel_shuffle(self.body(features), self.scale)
        if self.global_skip:
            return detail
        return detail + F.interpolate(features, scale_factor=self.scale, mode="nearest")
