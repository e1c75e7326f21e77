"""``esrgan``: ESRGAN's generator, RRDBNet."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.models.blocks import RRDB, Trunk, initialise, prime_factors
from geosr.models.generator import BICUBIC_REACH, FIRST_DETAIL, Generator

_SLOPE = 0.2


class ESRGAN(Generator):
    """Dense blocks with a skip around them, nearest-neighbour enlargements each with a convolution, and two more.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1; one enlargement for each of its prime factors.
        channels: Feature channels.
        blocks: Number of RRDB blocks of three dense blocks each.
        growth_channels: Channels that each convolution adds in a dense block.
        res_scale: Factor on the residual branch of a block.
        global_skip: Add the output to the bicubic-upsampled input.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.

    References:
        X. Wang et al., "ESRGAN", ECCVW 2018, Sec. 3.1 and Fig. 4.
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
        global_skip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=global_skip)
        self.factors = prime_factors(scale)
        self.head = nn.Conv2d(bands, channels, 3, padding=1)
        stack = [RRDB(channels, kernel=3, growth=growth_channels, res_scale=res_scale) for _ in range(blocks)]
        self.body = Trunk(*stack)
        self.fuse = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsample = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in self.factors)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, bands, 3, padding=1)
        lowest = -2  # the SR pixel furthest up that the first one depends on, before the last two convolutions
        for factor in reversed(self.factors):
            lowest = (lowest - 1) // factor
        self.reach = max(2 + sum(block.reach for block in stack) - lowest, BICUBIC_REACH)
        initialise(self, slope=_SLOPE)
        initialise(self.body, slope=_SLOPE, gain=0.1)  # Sec. 3.1: deep stacks start with small residuals
        nn.init.kaiming_normal_(self.tail.weight, nonlinearity="linear")
        if global_skip:
            self.tail.weight.data.mul_(FIRST_DETAIL)

    def resolve(self, features: Tensor) -> Tensor:
        """The network's output for normalised input."""
        first = self.head(features)
        features = first + self.fuse(self.body(first))
        for factor, convolution in zip(self.factors, self.upsample, strict=True):
            enlarged = F.interpolate(features, scale_factor=factor, mode="nearest")
            features = F.leaky_relu_(convolution(enlarged), _SLOPE)
        return self.tail(F.leaky_relu_(self.refine(features), _SLOPE))
