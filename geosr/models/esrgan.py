"""``esrgan``: ESRGAN's generator, RRDBNet."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ModelError, did_you_mean
from geosr.models.blocks import RRDB, Trunk, initialise, prime_factors
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator
from geosr.models.padding import padded

UPSAMPLINGS = ("nearest", "shuffle")
"""How features are enlarged: repeated and convolved, or convolved and pixel-shuffled."""

_SLOPE = 0.2


class ESRGAN(Generator):
    """Dense blocks with a skip around them, nearest-neighbour enlargements each with a convolution, and two more.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1; one enlargement for each prime factor of
            ``scale * unshuffle``.
        channels: Feature channels.
        blocks: Number of RRDB blocks of three dense blocks each.
        growth_channels: Channels that each convolution adds in a dense block.
        res_scale: Factor on the residual branch of a block.
        unshuffle: Side of the squares of LR pixels that become one pixel of as many more bands, for the dense blocks
            to work on a coarser grid: 2 and 4 make Real-ESRGAN's networks for scales 2 and 1 of its one for scale 4.
        dense_skip: Add the outputs of the dense blocks to their inputs, as published; opensr-srgan does not.
        upsampling: ``nearest``, as published, or ``shuffle``, as in opensr-srgan: convolution, pixel shuffle, PReLU.
        global_skip: Add the output to the bicubic-upsampled input.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.

    References:
        X. Wang et al., "ESRGAN", ECCVW 2018, Sec. 3.1 and Fig. 4.
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, Sec. 3.3 (pixel-unshuffle).
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        growth_channels: int = 32,
        res_scale: float = 0.2,
        unshuffle: int = 1,
        dense_skip: bool = True,
        upsampling: str = "nearest",
        global_skip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=global_skip)
        if upsampling not in UPSAMPLINGS:
            raise ModelError(
                f"upsampling {upsampling!r} is unknown ({' '.join(UPSAMPLINGS)})"
                + did_you_mean(upsampling, UPSAMPLINGS)
            )
        self.factors = prime_factors(scale * unshuffle)
        self.multiple_of, self.upsampling = unshuffle, upsampling
        self.head = nn.Conv2d(bands * unshuffle**2, channels, 3, padding=1)
        stack = [
            RRDB(channels, kernel=3, growth=growth_channels, res_scale=res_scale, dense_skip=dense_skip)
            for _ in range(blocks)
        ]
        self.body = Trunk(*stack)
        self.fuse = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsample = nn.ModuleList(self._stage(channels, factor) for factor in self.factors)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, bands, 3, padding=1)
        self.reach = max(self._reach(2 + sum(block.reach for block in stack)), BICUBIC_REACH)
        initialise(self, slope=_SLOPE)
        initialise(self.body, slope=_SLOPE, gain=0.1)  # Sec. 3.1: deep stacks start with small residuals
        nn.init.kaiming_normal_(self.tail.weight, nonlinearity="linear")
        if global_skip:
            self.tail.weight.data.mul_(FIRST_DETAIL)

    def _stage(self, channels: int, factor: int) -> nn.Module:
        if self.upsampling == "nearest":
            return nn.Conv2d(channels, channels, 3, padding=1)
        return nn.Sequential(nn.Conv2d(channels, channels * factor**2, 3, padding=1), nn.PReLU())

    def _reach(self, around: int) -> int:
        """LR pixels to each side, from where in its square it is furthest; ``around``: those before the enlargement."""
        reaches = []
        for place in range(self.multiple_of):
            highest = place * self.scale - 2  # the SR pixel furthest up that matters to the last two convolutions
            for factor in reversed(self.factors):
                highest = (highest - 1) // factor if self.upsampling == "nearest" else highest // factor - 1
            reaches.append(place - (highest - around) * self.multiple_of)
        return max(reaches)

    def resolve(self, features: Tensor) -> Tensor:
        """The network's output for normalised input."""
        height, width = (side * self.scale for side in features.shape[-2:])
        if self.multiple_of > 1:
            features = F.pixel_unshuffle(padded(features, multiple_of=self.multiple_of), self.multiple_of)
        first = self.head(features).to(features.dtype)  # low precision adds up in a sum of so many residuals
        deep = self.fuse(self.body(first))
        features = (first + deep).to(deep.dtype)
        for factor, stage in zip(self.factors, self.upsample, strict=True):
            if self.upsampling == "nearest":
                enlarged = F.interpolate(features, scale_factor=factor, mode="nearest")
                features = F.leaky_relu_(stage(enlarged), _SLOPE)
            else:
                features = F.pixel_shuffle(stage(features), factor)
        return self.tail(F.leaky_relu_(self.refine(features), _SLOPE))[..., :height, :width]
