"""Losses of the spectrum: how far the detail of every size is off."""

import torch
from torch import Tensor


def focal_frequency(sr: Tensor, hr: Tensor, valid: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Mean squared difference of the Fourier coefficients, reflectance squared, the more of the worse ones.

    Each coefficient of an image and band is weighted by how far it is off, ``|difference| ** alpha``, over the largest
    such weight: what the network already gets right counts little. The weights have no gradient. Invalid pixels are
    equal in both images, and the mean is over the valid ones: with ``alpha = 0`` this is ``mse`` (Parseval).

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); without any the loss is 0.
        alpha: How much more the worse coefficients count; 0: all alike.

    References:
        L. Jiang et al., "Focal frequency loss for image reconstruction and synthesis", ICCV 2021, section 3.3;
        with an orthonormal transform, and one weight of at most 1 for each coefficient.
    """
    # The transform is linear: that of the difference is the difference of both.
    off = torch.fft.fft2(torch.where(valid.unsqueeze(1), sr - hr, 0.0), norm="ortho")
    square = off.real.square() + off.imag.square()
    weight = square.detach() ** (alpha / 2)
    largest = weight.amax(dim=(-2, -1), keepdim=True)
    weight = torch.where(largest > 0, weight / largest, 0.0)
    return (weight * square).mean(dim=1).sum() / valid.sum().clamp(min=1)
