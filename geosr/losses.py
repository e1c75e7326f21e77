"""Losses of (batch, band, y, x) reflectance; the pixel loss of this version."""

from torch import Tensor


def l1(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error in reflectance over the valid pixels (batch, y, x); 0 when there are none."""
    error = (sr - hr).abs().mean(dim=1)
    return (error * valid).sum() / valid.sum().clamp(min=1)
