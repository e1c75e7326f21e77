"""Several answers of a model that takes noise, as one: their mean, and how far they lie apart."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SPREAD = "_spread"
"""What is appended to a band's name for the band that holds its spread."""


def band_names(bands: Sequence[str], seeds: range) -> tuple[str, ...]:
    """Names of what an ensemble of these seeds holds: the bands and, where there are several members, their spreads.

    >>> band_names(("B02", "B08"), range(8))
    ('B02', 'B08', 'B02_spread', 'B08_spread')
    """
    return (*bands, *(f"{band}{SPREAD}" for band in bands if len(seeds) > 1))


def mean_and_spread(members: Iterable[Tensor]) -> Tensor:
    """The mean (batch, band, y, x) of the members, reflectance, then as many bands with their standard deviation.

    A single member comes back as it is. The standard deviation is that of a sample (n - 1). It says how much the
    generator varies its answer where the input leaves it open. It is no error bar: a generator that is sure and wrong
    has no spread, what all members get wrong together does not show, and nothing ties its size to the errors of the
    training scenes. Two members or three say little more than that there is a spread: its own relative error is about
    ``1 / sqrt(2 (n - 1))``.

    Args:
        members: Images of one shape, of which two are in memory at a time, and the sums.

    References:
        B. Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4(3), 1962.
    """
    waiting = iter(members)
    mean, count = next(waiting).clone(), 1
    squares = torch.zeros_like(mean)
    for count, member in enumerate(waiting, 2):
        difference = member - mean
        mean += difference / count
        squares += difference.mul_(member - mean)
    return mean if count == 1 else torch.cat([mean, squares.div_(count - 1).sqrt_()], dim=1)
