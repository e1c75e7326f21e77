"""Noise that belongs to places: the same numbers for a pixel, whichever window of the scene it is seen in."""

from math import pi
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from geosr.hashing import mixed

_BITS = 24
"""Bits of a uniform number: as many as a float32 holds exactly."""


@runtime_checkable
class TakesNoise(Protocol):
    """A network whose output depends on noise, its second argument."""

    def noise(self, seed: int, origins: Tensor, *, height: int, width: int) -> Tensor:
        """The noise of one member of an ensemble, for images of that height and width.

        Args:
            seed: The member.
            origins: Row and column in the scene of each image's first pixel, int64 (batch, 2).
            height: LR pixels.
            width: LR pixels.
        """
        ...


def normal_field(seed: int, origins: Tensor, *, channels: int, height: int, width: int) -> Tensor:
    """Standard normal numbers (batch, channel, y, x), float32, that seed, row, column and channel decide.

    They come from a counter and not from a stream [1]: the bits are a hash of the pixel's place, so that any window has
    the numbers that the whole scene has there. They are the same on all devices up to the rounding of float32; the
    largest possible is 5.77.

    Args:
        seed: Another one gives other numbers everywhere.
        origins: Row and column of each image's first pixel, int64 (batch, 2); the numbers are made on its device.
        channels: Channels, each independent of the others.
        height: Rows.
        width: Columns.

    References:
        [1] J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
        G. Box, M. Muller, "A note on the generation of random normal deviates", Ann. Math. Statist. 29(2), 1958.
    """

    def along(count: int, axis: int) -> Tensor:
        return torch.arange(count, device=origins.device).view([-1 if i == axis else 1 for i in range(4)])

    row, column = (start.view(-1, 1, 1, 1) for start in origins.unbind(1))
    bits = mixed(
        torch.tensor(seed, device=origins.device),
        row + along(height, 2),
        column + along(width, 3),
        along(-(-channels // 2), 1),  # a hash holds the bits of two numbers
    )
    mask = 2**_BITS - 1
    radius = (((bits >> (64 - _BITS)) & mask) + 1).float().mul_(2**-_BITS).log_().mul_(-2).sqrt_()
    angle = (bits & mask).float().mul_(2 * pi * 2**-_BITS)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1, 2)[:, :channels]
