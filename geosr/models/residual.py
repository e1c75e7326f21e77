"""``srresnet``, ``res``, ``rcab``, ``rrdb`` and ``lka``: a stack of residual blocks between two large kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ModelError, did_you_mean
from geosr.models.blocks import (
    RRDB,
    BatchNormBlock,
    Block,
    ChannelAttentionBlock,
    LargeKernelBlock,
    ResidualBlock,
    Trunk,
    icnr,
    initialise,
    prime_factors,
)
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator


@dataclass(frozen=True)
class BlockShape:
    """What a block may be made of; each kind takes what it needs."""

    channels: int
    kernel: int
    res_scale: float
    growth: int
    reduction: int
    dense_skip: bool


BLOCKS: Mapping[str, Callable[[BlockShape], Block]] = {
    "srresnet": lambda it: BatchNormBlock(it.channels, kernel=it.kernel),
    "res": lambda it: ResidualBlock(it.channels, kernel=it.kernel, res_scale=it.res_scale),
    "rcab": lambda it: ChannelAttentionBlock(
        it.channels, kernel=it.kernel, res_scale=it.res_scale, reduction=it.reduction
    ),
    "rrdb": lambda it: RRDB(
        it.channels, kernel=it.kernel, growth=it.growth, res_scale=it.res_scale, dense_skip=it.dense_skip
    ),
    "lka": lambda it: LargeKernelBlock(it.channels, kernel=it.kernel, res_scale=it.res_scale),
}
"""Kinds of blocks, which are names of architectures too."""


class Residual(Generator):
    """A large kernel, blocks with a skip around all of them, pixel shuffles, and a large kernel.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1; one pixel shuffle for each of its prime factors.
        block: Kind of block, a key of `BLOCKS`, or what makes one.
        channels: Feature channels.
        blocks: Number of blocks.
        large_kernel_size: Side of the first and the last kernel; odd.
        small_kernel_size: Side of the others; odd.
        res_scale: Factor on the residual branch of a block; srresnet has none.
        growth_channels: Channels that each convolution adds in a dense block of rrdb.
        reduction: Channels over those in the bottleneck of rcab's attention.
        dense_skip: Add the outputs of rrdb's dense blocks to their inputs, as published; opensr-srgan does not.
        tanh: End with a hyperbolic tangent, as opensr-srgan's SRResNet does: for weights that were trained with it.
        use_icnr: Start the convolutions before a pixel shuffle as a nearest-neighbour enlargement.
        global_skip: Add the output to the bicubic-upsampled input.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.

    References:
        C. Ledig et al., "Photo-realistic single image super-resolution using a GAN", CVPR 2017, Fig. 4; the blocks
        name theirs.
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        block: str | Callable[[BlockShape], Block],
        channels: int = 64,
        blocks: int = 10,
        large_kernel_size: int = 9,
        small_kernel_size: int = 3,
        res_scale: float = 0.2,
        growth_channels: int = 32,
        reduction: int = 16,
        dense_skip: bool = True,
        tanh: bool = False,
        use_icnr: bool = True,
        global_skip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=global_skip)
        if isinstance(block, str) and block not in BLOCKS:
            raise ModelError(f"block {block!r} is unknown ({' '.join(BLOCKS)})" + did_you_mean(block, BLOCKS))
        make_block = BLOCKS[block] if isinstance(block, str) else block
        if large_kernel_size % 2 == 0 or small_kernel_size % 2 == 0:
            raise ModelError(
                f"kernels of {large_kernel_size} and {small_kernel_size} pixels: both sides must be odd, "
                "or the output would be displaced"
            )
        large, small = large_kernel_size // 2, small_kernel_size // 2
        shape = BlockShape(channels, small_kernel_size, res_scale, growth_channels, reduction, dense_skip)
        stack = [make_block(shape) for _ in range(blocks)]
        norms = [nn.BatchNorm2d(channels)] if block == "srresnet" else []
        fuse = nn.Conv2d(channels, channels, small_kernel_size, padding=small, bias=not norms)
        self.factors, self.tanh = prime_factors(scale), tanh
        finer = [nn.Conv2d(channels, channels * factor**2, small_kernel_size, padding=small) for factor in self.factors]
        self.head = nn.Sequential(nn.Conv2d(bands, channels, large_kernel_size, padding=large), nn.PReLU())
        self.body = Trunk(*stack)
        self.fuse = nn.Sequential(fuse, *norms)
        self.upsample = nn.ModuleList(nn.Sequential(convolution, nn.PReLU()) for convolution in finer)
        self.tail = nn.Conv2d(channels, bands, large_kernel_size, padding=large)
        self.reach = _reach([each.reach for each in stack], self.factors, large=large, small=small)

        initialise(self, slope=0.25)
        nn.init.kaiming_normal_(self.tail.weight, nonlinearity="linear")
        if global_skip:
            self.tail.weight.data.mul_(FIRST_DETAIL)
        if use_icnr:
            for convolution, factor in zip(finer, self.factors, strict=True):
                icnr(convolution, factor)

    def resolve(self, features: Tensor, *given: Tensor) -> Tensor:
        """The network's output for normalised input, and for what the blocks take besides."""
        first = self.head(features)
        features, finer = first + self.fuse(self.body(first, *given)), 1
        for stage, factor in zip(self.upsample, self.factors, strict=True):
            # A PReLU of one slope gives the same before the shuffle as behind it.
            features, finer = stage(F.pixel_shuffle(features, finer) if finer > 1 else features), factor
        sr = shuffled_convolution(features, self.tail, finer)
        return torch.tanh(sr) if self.tanh else sr


def _reach(blocks: Sequence[int | None], factors: Sequence[int], *, large: int, small: int) -> int | None:
    """LR pixels to each side: the sum over the layers, those behind a pixel shuffle on a finer grid."""
    lowest = -large  # the SR pixel furthest up that the first one depends on
    for factor in reversed(factors):
        lowest = lowest // factor - small
    around = large + small - lowest
    known = [reach for reach in blocks if reach is not None]
    return max(around + sum(known), BICUBIC_REACH) if len(known) == len(blocks) else None


def shuffled_convolution(features: Tensor, convolution: nn.Conv2d, factor: int) -> Tensor:
    """``convolution`` of pixel-shuffled ``features``, computed on the coarse grid where that takes less time.

    There it is a convolution as well: from all ``factor ** 2`` phases of the input to all of the output, which are
    shuffled then. Convolutions of few bands leave most of a processor idle, and these have ``factor ** 2`` as many; and
    it is the bands that are shuffled rather than the features. A 9 x 9 kernel behind a shuffle by two becomes 5 x 5,
    with a quarter more multiplications; where they would more than double, the features are shuffled.

    Args:
        features: (batch, channel * factor ** 2, y, x).
        convolution: An odd kernel, with zeros beyond the edge.
        factor: That of the shuffle.
    """
    size = convolution.kernel_size[0]
    radius = -(-(size // 2) // factor)  # coarse pixels
    span = factor * (2 * radius + 1)  # fine pixels under the coarse kernel
    if factor == 1 or span**2 > 2 * size**2:
        return convolution(F.pixel_shuffle(features, factor) if factor > 1 else features)
    before = factor * radius - size // 2
    bands, channels = convolution.weight.shape[:2]
    phases = []
    for row in range(factor):
        for column in range(factor):
            right, below = span - size - before - column, span - size - before - row
            fine = F.pad(convolution.weight, (before + column, right, before + row, below))
            split = fine.view(bands, channels, span // factor, factor, span // factor, factor)
            phases.append(split.permute(0, 1, 3, 5, 2, 4).flatten(1, 3))
    weight = torch.stack(phases, dim=1).flatten(0, 1)
    bias = None if convolution.bias is None else convolution.bias.repeat_interleave(factor**2)
    return F.pixel_shuffle(F.conv2d(features, weight, bias, padding=radius), factor)
