"""Losses of the spectrum: how far the detail of every size is off."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 32
"""Pixels along a side of the windows whose spectra are compared; each overlaps the next by half."""
CELL = 4
"""Frequencies along a side of a cell, over which a window's power is averaged before it is compared."""
FLOOR = 0.002
"""Reflectance: noise of this standard deviation, which every image has, is added to both before they are compared."""


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


def log_spectral_distance(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of the local power spectra in dB: whether a place has as much detail as in HR.

    It does not matter where in its window of 32 x 32 pixels the detail lies, but which size and direction it has, and
    that flat places stay flat; where it belongs, another loss has to say. Averages over cells of 4 x 4 frequencies are
    compared, as single ones are erratic. A window counts by its share of valid pixels; without any the loss is 0, and
    that of images of less than 4 pixels along a side.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); the others are taken to be black in both images.

    References:
        A. H. Gray and J. D. Markel, "Distance measures for speech processing", IEEE TASSP 24(5), 1976; here of images,
        and of mean absolute instead of mean squared differences. R. Durall et al., "Watch your up-convolution: CNN
        based generative deep neural networks are failing to reproduce spectral distributions", CVPR 2020, train with
        the spectrum of the whole image.
    """
    side = min(WINDOW, *sr.shape[-2:])
    if side < CELL:
        return 0 * sr.sum()
    share = _windows(valid.unsqueeze(1).float(), side).mean((-2, -1))
    ours, theirs = (_decibels(_windows(torch.where(valid.unsqueeze(1), image, 0.0), side)) for image in (sr, hr))
    distance = (ours - theirs).abs().mean((-2, -1))
    return (distance * share).mean(dim=1).sum() / share.sum().clamp(min=1e-6)


def _windows(image: Tensor, side: int) -> Tensor:
    """Windows (batch, band, row, column, y, x) of an image (batch, band, y, x)."""
    return image.unfold(2, side, side // 2).unfold(3, side, side // 2)


def _decibels(windows: Tensor) -> Tensor:
    """Power of windows (..., y, x) in each cell (..., row, column), dB relative to a reflectance of 1."""
    power = torch.fft.fftshift(periodogram(windows), dim=(-2, -1))
    cells = F.avg_pool2d(power.flatten(0, -3).unsqueeze(1), CELL).squeeze(1).unflatten(0, windows.shape[:-2])
    return 10 * (cells + FLOOR**2).log10()


def periodogram(images: Tensor) -> Tensor:
    """Power (..., y, x) of the images (..., y, x) less their mean under a Hann window; of white noise its variance."""
    window = hann(images)
    off = torch.fft.fft2((images - images.mean((-2, -1), keepdim=True)) * window)
    return (off.real.square() + off.imag.square()) / window.square().sum()


def hann(image: Tensor) -> Tensor:
    """Hann window (y, x) for an image."""
    rows, columns = (torch.hann_window(n, False, dtype=image.dtype, device=image.device) for n in image.shape[-2:])
    return torch.outer(rows, columns)
