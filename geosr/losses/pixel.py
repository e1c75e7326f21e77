"""Pixel losses: how far reflectance is off."""

from collections.abc import Sequence

import torch
from torch import Tensor


def l1(sr: Tensor, hr: Tensor, valid: Tensor, *, band_weights: Sequence[float] | None = None) -> Tensor:
    """Mean absolute error in reflectance over the valid pixels; 0 when there are none.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x).
        band_weights: How much each band counts, against the others; None: all alike.
    """
    return _mean(_difference(sr, hr, valid).abs(), valid, band_weights)


def mse(sr: Tensor, hr: Tensor, valid: Tensor, *, band_weights: Sequence[float] | None = None) -> Tensor:
    """Mean squared error, reflectance squared, over the valid pixels; 0 when there are none.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x).
        band_weights: How much each band counts, against the others; None: all alike.
    """
    return _mean(_difference(sr, hr, valid).square(), valid, band_weights)


def charbonnier(
    sr: Tensor, hr: Tensor, valid: Tensor, *, eps: float = 1e-3, band_weights: Sequence[float] | None = None
) -> Tensor:
    """Mean ``sqrt(error**2 + eps**2)`` in reflectance over the valid pixels; 0 when there are none.

    Large errors count as in ``l1``; below ``eps``, the smaller one is the less it pulls, as in ``mse``. Equal images
    have the loss ``eps``.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x).
        eps: Reflectance at which the one turns into the other; above 0.
        band_weights: How much each band counts, against the others; None: all alike.

    References:
        W.-S. Lai et al., "Deep Laplacian pyramid networks for fast and accurate super-resolution", CVPR 2017, section
        3.2, whose eps is the default here.
    """
    error = (_difference(sr, hr, valid).square() + eps**2).sqrt()
    return _mean(torch.where(valid.unsqueeze(1), error, 0.0), valid, band_weights)


def _difference(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    """SR less HR where it is valid, 0 elsewhere: chosen, not multiplied, because an invalid pixel may be NaN."""
    return torch.where(valid.unsqueeze(1), sr - hr, 0.0)


def _mean(error: Tensor, valid: Tensor, band_weights: Sequence[float] | None) -> Tensor:
    """Mean over bands and valid pixels of an error that is 0 at the others."""
    if band_weights is None:
        of_bands = error.mean(dim=1)
    else:
        weights = error.new_tensor(band_weights).view(1, -1, 1, 1)
        of_bands = (error * weights).sum(dim=1) / weights.sum()
    return of_bands.sum() / valid.sum().clamp(min=1)
