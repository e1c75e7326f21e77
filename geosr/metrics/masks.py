"""Which pixels a figure is about."""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 16
"""Pixels along a side below which a square has too few frequencies to say anything about them."""


def known(image: Tensor, valid: Tensor | None) -> Tensor:
    """Valid pixels (batch, y, x) of an image (batch, band, y, x); None says that all are."""
    return torch.ones_like(image[:, 0], dtype=torch.bool) if valid is None else valid


def cleared(image: Tensor, valid: Tensor) -> Tensor:
    """Image in float64 with 0 where it is not valid."""
    return torch.where(valid.unsqueeze(1), image.double(), 0.0)


def mean_over(figure: Tensor, valid: Tensor) -> Tensor:
    """Mean of a figure (batch, y, x) over the valid pixels, in float32; NaN without any."""
    return figure[valid].mean().float()


def touched(valid: Tensor, before: int, after: int) -> Tensor:
    """Pixels (batch, y, x) with an invalid one among those ``before`` above and left to ``after`` below and right.

    >>> touched(torch.tensor([[[True, True, False, True, True]]]), 1, 0).int().tolist()
    [[[0, 0, 1, 1, 0]]]
    """
    invalid = F.pad((~valid).double().unsqueeze(1), (before, after, before, after))
    return F.max_pool2d(invalid, before + after + 1, stride=1).squeeze(1) > 0


def largest_square(valid: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the largest square of a mask (y, x) that is all valid, the first of several; maybe empty.

    >>> largest_square(torch.tensor([[True, True, False], [True, True, True]]))
    (slice(0, 2, None), slice(0, 2, None))
    """
    counts = F.pad(valid.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    side, too_large = 0, min(valid.shape) + 1
    top = left = 0
    while too_large - side > 1:  # a square holds every smaller one
        k = (side + too_large) // 2
        full = counts[k:, k:] - counts[:-k, k:] - counts[k:, :-k] + counts[:-k, :-k] == k * k
        if full.any():
            side, (top, left) = k, divmod(int(full.flatten().int().argmax()), full.shape[1])
        else:
            too_large = k
    return slice(top, top + side), slice(left, left + side)
