"""``plksr``: convolutions with kernels as large as an attention window, for a part of the channels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ModelError
from geosr.models.blocks import Block, Trunk, initialise
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator


class PartialLargeKernelBlock(Block):
    """Two convolutions that mix channels, a large kernel for the first channels, and an attention; added to the input.

    Args:
        channels: Feature channels.
        kernel: Side of the large kernel; odd.
        split: Channels that the large kernel works on.
    """

    def __init__(self, channels: int, *, kernel: int, split: int) -> None:
        super().__init__()
        self.reach: int = 3 + kernel // 2
        self.split = split
        self.widen = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.narrow = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.large = nn.Conv2d(split, split, kernel, padding=kernel // 2)
        self.attention = nn.Conv2d(channels, channels, 3, padding=1)
        self.refine = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        local = self.narrow(F.gelu(self.widen(features)))
        first, rest = local[:, : self.split], local[:, self.split :]
        mixed = torch.cat([self.large(first), rest], dim=1)
        return features + self.refine(mixed * self.attention(mixed).sigmoid())


class PLKSR(Generator):
    """Blocks with partial large kernels on the LR grid, then a pixel shuffle, added to the bicubic-upsampled input.

    Chosen as the generator that sees far for few operations: transformers owe their accuracy per operation to the size
    of their windows, and a dense kernel of that size on a quarter of the channels costs what two of 3 x 3 on all of
    them do. It is a convolutional network all the same: it learns and runs fast on any device, has no windows that
    would show, and its reach is finite, so that tiles can be exact.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        channels: Feature channels; a quarter of them has large kernels.
        blocks: Number of blocks.
        kernel: Side of the large kernels; odd. Published with 17, and with 13 in the small size.
        global_skip: Add the output to the bicubic-upsampled input.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.

    References:
        D. Lee, S. Yun, Y. Ro, "Partial large kernel CNNs for efficient super-resolution", arXiv:2404.11848, 2024,
        Fig. 3, here on a bicubic instead of a nearest base.
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        kernel: int = 17,
        global_skip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=global_skip)
        if kernel % 2 == 0:
            raise ModelError(f"kernels of {kernel} pixels: their side must be odd, or the output would be displaced")
        stack = [PartialLargeKernelBlock(channels, kernel=kernel, split=max(channels // 4, 1)) for _ in range(blocks)]
        self.head = nn.Conv2d(bands, channels, 3, padding=1)
        self.body = Trunk(*stack)
        self.tail = nn.Conv2d(channels, bands * scale**2, 3, padding=1)
        self.reach = max(2 + sum(block.reach for block in stack), BICUBIC_REACH)
        initialise(self, slope=1.0)
        if global_skip:
            self.tail.weight.data.mul_(FIRST_DETAIL)

    def resolve(self, features: Tensor) -> Tensor:
        """The network's output for normalised input."""
        return F.pixel_shuffle(self.tail(self.body(self.head(features))), self.scale)
