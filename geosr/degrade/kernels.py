"""The blur kernels that Real-ESRGAN draws from, and images filtered with one kernel each."""

from math import pi

import torch
from torch import Tensor

from geosr.degrade.psf import reflect


def gaussian_kernels(kind: Tensor, side: Tensor, sigma: Tensor, angle: Tensor, beta: Tensor, *, canvas: int) -> Tensor:
    """Kernels (n, canvas, canvas) that sum to 1, in float64: Gaussian, generalised Gaussian or plateau.

    With ``q`` the squared distance from the centre in standard deviations, they are ``exp(-q / 2)``,
    ``exp(-q**beta / 2)`` and ``1 / (1 + q**beta)``, zero outside ``side`` x ``side`` pixels.

    Args:
        kind: 0 Gaussian, 1 generalised, 2 plateau (n,).
        side: Odd number of pixels along a side (n,).
        sigma: Standard deviations (n, 2) in pixels along the first and second axis of the ellipse.
        angle: From the columns' direction to the first axis (n,), in radians, towards the rows' direction.
        beta: Exponent (n,).
        canvas: Odd number of pixels along a side of the result.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, section 3.2; Y.-Q. Liu et al., "Estimating generalized Gaussian blur
        kernels for out-of-focus image deblurring", IEEE TCSVT 31(3), 2021, for the shapes.
    """
    y, x, inside = _grid(side, canvas)
    cos, sin = (part[:, None, None] for part in (angle.cos(), angle.sin()))
    along, across = x * cos + y * sin, y * cos - x * sin
    distance = (along / sigma[:, :1, None]) ** 2 + (across / sigma[:, 1:, None]) ** 2
    kind, power = kind[:, None, None], beta[:, None, None]
    raised = distance ** torch.where(kind == 0, 1.0, power)
    return _normalised(torch.where(kind == 2, 1 / (1 + raised), torch.exp(-raised / 2)) * inside)


def sinc_kernels(cutoff: Tensor, side: Tensor, *, canvas: int) -> Tensor:
    """Kernels (n, canvas, canvas) that sum to 1, in float64: circular low-pass filters, which ring.

    Args:
        cutoff: Highest frequency that passes (n,), radians per pixel.
        side: Odd number of pixels along a side (n,), beyond which the kernel is zero.
        canvas: Odd number of pixels along a side of the result.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, equation 6: ``cutoff J1(cutoff r) / (2 pi r)``.
    """
    y, x, inside = _grid(side, canvas)
    radius, cutoff = torch.hypot(x, y).expand_as(inside), cutoff[:, None, None]
    centre = radius == 0
    ringing = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * pi * radius.masked_fill(centre, 1))
    return _normalised(torch.where(centre, cutoff**2 / (4 * pi), ringing) * inside)


def filtered(image: Tensor, kernels: Tensor) -> Tensor:
    """Image (batch, band, y, x), each of the batch convolved with its own kernel; the edge is mirrored.

    By Fourier transform, because the kernels do not separate: at 21 x 21 several times faster than ``conv2d``.

    Args:
        image: Float32 or float64.
        kernels: Weights (batch, n, n), n odd.
    """
    reach = kernels.shape[-1] // 2
    padded = reflect(image, reach)
    size = [_fast_length(n) for n in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(kernels.to(image)[:, None], s=size)
    whole = torch.fft.irfft2(spectrum, s=size)
    return whole[..., 2 * reach : padded.shape[-2], 2 * reach : padded.shape[-1]]


def _grid(side: Tensor, canvas: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns from the centre, and where the kernels (n, canvas, canvas) may be other than zero."""
    line = torch.arange(canvas, dtype=torch.float64) - canvas // 2
    y, x = line[:, None], line[None]
    return y, x, torch.maximum(y.abs(), x.abs()) <= side[:, None, None] // 2


def _normalised(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum((-2, -1), keepdim=True)


def _fast_length(length: int) -> int:
    """The next number without prime factors above 5, of which Fourier transforms are fast."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
