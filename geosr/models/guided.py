"""``guided``: coarse bands sharpened by finer bands of the same scene, with convolutions on the coarse grid."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.degrade.resample import bicubic
from geosr.models.blocks import Trunk, initialise
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator


class Guided(Generator):
    """Convolutions with PReLU on the coarse grid, then a pixel shuffle, added to the upsampled coarse bands.

    The coarse bands come repeated on the grid of the guide, so that a scene is one image. Their blocks are averaged
    first, which gives the measured pixels back. The guide's pixels in each block become channels: nothing of it is
    lost, and a convolution of 3 x 3 coarse pixels sees ``3 * guide_scale`` of its pixels along each side.

    Args:
        bands: Number of bands in: those of the guide first.
        scale: SR pixels per pixel of the guide, along each axis.
        guide: Number of bands that guide; without any it is ``compact``.
        guide_scale: Pixels of the guide along the side of a coarse pixel.
        channels: Feature channels.
        blocks: Convolutions between the first and the last.
        mean: Per-band reflectance subtracted from the input of the convolutions.
        std: Per-band reflectance that the input of the convolutions is divided by, and their output multiplied by.

    References:
        C. Lanaras et al., "Super-resolution of Sentinel-2 images: learning a globally applicable deep neural network",
        ISPRS J. Photogramm. Remote Sens. 146, 2018, for the task and the skip around the network.
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        guide: int = 0,
        guide_scale: int = 1,
        channels: int = 64,
        blocks: int = 10,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std)
        self.guide, self.multiple_of = guide, guide_scale
        coarse, factor = bands - guide, guide_scale * scale
        widths = [coarse + guide * guide_scale**2, *[channels] * (blocks + 1)]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 3, padding=1), nn.PReLU(width_out)]
        last = nn.Conv2d(channels, coarse * factor**2, 3, padding=1)
        self.body = Trunk(*layers, last, segment=6)
        # From the first fine pixel of a block to the last one of the furthest block.
        self.reach = guide_scale * max(blocks + 2, BICUBIC_REACH) + guide_scale - 1
        initialise(self, slope=0.25)
        last.weight.data.mul_(FIRST_DETAIL)

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, coarse band, y * scale, x * scale) of reflectance (batch, band, y, x)."""
        coarse = block_means(lr[:, self.guide :], self.multiple_of)
        detail = self.resolve(self.normalised(lr)).to(lr.dtype)
        return bicubic(coarse, self.multiple_of * self.scale).addcmul_(detail, self.std[:, self.guide :])

    def resolve(self, features: Tensor) -> Tensor:
        """What bicubic interpolation of the coarse bands misses, normalised."""
        guide = F.pixel_unshuffle(features[:, : self.guide], self.multiple_of)
        coarse = block_means(features[:, self.guide :], self.multiple_of)
        return F.pixel_shuffle(self.body(torch.cat([coarse, guide], dim=1)), self.multiple_of * self.scale)


def block_means(image: Tensor, side: int) -> Tensor:
    """Image (batch, band, y / side, x / side) of the means over blocks; of repeated pixels, those pixels.

    >>> block_means(torch.tensor([[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]), 2)
    tensor([[[[1., 2.]]]])
    """
    return F.avg_pool2d(image, side)


def repeated(image: Tensor, side: int) -> Tensor:
    """Image (batch, band, y * side, x * side) in which each pixel is a block."""
    return image.repeat_interleave(side, dim=-2).repeat_interleave(side, dim=-1)


def whole_blocks(image: Tensor, side: int) -> Tensor:
    """The image (batch, band, y, x) whose last row and column are repeated until the last blocks are whole."""
    below, right = (-length % side for length in image.shape[-2:])
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image
