"""``compact``: a plain stack of convolutions at LR resolution, the cheapest generator for its accuracy."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.models.blocks import Trunk, initialise
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator


class Compact(Generator):
    """Convolutions with PReLU on the LR grid, then a pixel shuffle, added to the bicubic-upsampled input.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        channels: Feature channels.
        blocks: Convolutions between the first and the last.
        mean: Per-band reflectance subtracted from the input of the convolutions.
        std: Per-band reflectance that the input of the convolutions is divided by, and their output multiplied by.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021 (SRVGGNetCompact), here on a bicubic instead of a nearest base.
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std)
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
        """What bicubic interpolation misses, normalised."""
        return F.pixel_shuffle(self.body(features), self.scale)
