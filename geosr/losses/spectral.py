"""Spectral losses: how far the ratios between bands are off."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DARK = 1e-4
"""Reflectance up to which a spectrum has no direction: one digital number of Sentinel-2."""


def sam(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    """Mean spectral angle in radians over the valid pixels (batch, y, x); 0 when there are none.

    A pixel whose spectrum is no longer than ``DARK`` in either image has angle 0. That bounds the gradient, which grows
    as a spectrum gets shorter. Equal spectra have gradient 0; HR gets none.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Which pixels count.

    References:
        F. A. Kruse et al., "The spectral image processing system (SIPS)", Remote Sens. Environ. 44, 1993.
    """
    angle: Tensor = _SpectralAngle.apply(sr.float(), hr.float(), valid)  # type: ignore[no-untyped-call]
    return angle.sum() / valid.sum().clamp(min=1)


class _SpectralAngle(torch.autograd.Function):
    """Angle between two spectra in radians (batch, y, x), with the gradient of the first.

    With ``across`` the part of HR that is perpendicular to SR, it is ``atan2(|across| |sr|, sr . hr)``, accurate where
    an arc cosine loses small angles, and its gradient ``-across / (|across| |sr|)``. Derived by hand because autograd's
    chain is singular at equal spectra and takes three times as long.
    """

    @staticmethod
    def forward(ctx: Any, sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
        """Angle, 0 where a pixel is not valid or dark."""
        along, square = (sr * hr).sum(1), (sr * sr).sum(1)
        across = hr - sr * (along / square).unsqueeze(1)  # exactly 0 for equal spectra
        opposite = (square * (across * across).sum(1)).sqrt()
        dark = (square <= DARK**2) | ((hr * hr).sum(1) <= DARK**2)
        counts = valid & ~dark  # a spectrum that is not a number is not dark
        turned = counts & (opposite != 0)
        ctx.save_for_backward(torch.where(turned.unsqueeze(1), across.div_(opposite.neg().unsqueeze(1)), 0.0))
        return torch.where(counts, torch.atan2(opposite, along), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of SR."""
        (slope,) = ctx.saved_tensors
        return slope * gradients[0].unsqueeze(1), None, None
