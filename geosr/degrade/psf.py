"""The point-spread function of a coarser sensor, and images as that sensor would have seen them."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, log, pi, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.degrade.resample import exporting, gather


@dataclass(frozen=True)
class PSF:
    """Gaussian optics and a square detector: what turns ``scale`` x ``scale`` HR pixels into one LR pixel.

    Averaging over the detector alone leaves a contrast (modulation transfer, MTF) of 2/pi at the LR Nyquist
    frequency, the averaging over an HR pixel that the image has seen already included; the Gaussian brings the
    product down to ``mtf``. A Gaussian of standard deviation sigma has the transfer ``exp(-2 (pi sigma f)**2)``, and
    the LR Nyquist frequency is ``1 / (2 scale)`` cycles per HR pixel, hence
    ``sigma = sqrt(-2 ln(mtf pi / 2)) scale / pi``.

    >>> round(PSF(scale=2).sigma, 4), PSF(scale=2).radius, PSF(scale=4).kernel.size
    (0.7809, 3, 14)

    References:
        B. Aiazzi et al., "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery", PE&RS 72(5), 2006.
    """

    scale: int
    """HR pixels per LR pixel, along each axis."""
    mtf: float = 0.3
    """Contrast left at the LR Nyquist frequency, below 2/pi = 0.637."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"scale is {self.scale}; it must be a whole number of at least 1")
        if not 0 < self.mtf < 2 / pi:
            raise ValueError(f"mtf is {self.mtf}; the detector alone leaves 2/pi = 0.637, so 0 < mtf < 0.637")

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian, in HR pixels."""
        return sqrt(-2 * log(self.mtf * pi / 2)) * self.scale / pi

    @cached_property
    def radius(self) -> int:
        """HR pixels that the Gaussian reaches to either side: three standard deviations, rounded up."""
        return ceil(3 * self.sigma)

    @cached_property
    def kernel(self) -> np.ndarray:
        """Weights along one axis, Gaussian and detector together; they sum to 1."""
        position = np.arange(-self.radius, self.radius + 1)
        gaussian = np.exp(-0.5 * (position / self.sigma) ** 2)
        return np.convolve(gaussian / gaussian.sum(), np.full(self.scale, 1 / self.scale))


def degrade(hr: Tensor, psf: PSF) -> Tensor:
    """LR image (batch, band, y / scale, x / scale) of an HR image, in its unit: blurred, then averaged.

    Beyond its edge the image is continued by reflection (the edge pixel itself is not repeated).

    Args:
        hr: Image (batch, band, y, x) whose height and width are multiples of ``psf.scale``.
        psf: The point-spread function; the same for every band.

    Raises:
        ValueError: The size is no multiple of the scale.
    """
    height, width = hr.shape[-2:]
    if height % psf.scale or width % psf.scale:
        raise ValueError(f"an HR image of {height} x {width} pixels does not divide by the scale {psf.scale}")
    return gather(reflect(hr, psf.radius), psf.kernel.tolist(), psf.scale)


def reflect(image: Tensor, pad: int) -> Tensor:
    """Image with ``pad`` pixels of its own mirror on each side; an image narrower than that mirrors repeatedly.

    >>> reflect(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 3)[0, 0, 0].tolist()
    [2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0]
    """
    height, width = image.shape[-2:]
    if not exporting() and pad < min(height, width):  # a graph takes images of any size
        return F.pad(image, (pad,) * 4, mode="reflect")
    rows = image.index_select(-2, mirrored(height, pad, image.device))
    return rows.index_select(-1, mirrored(width, pad, image.device))


def mirrored(size: int, pad: int, device: torch.device) -> Tensor:
    """Where the positions ``-pad ... size + pad - 1`` of a line of ``size`` pixels between two mirrors are found."""
    period = torch.full((1,), max(2 * size - 2, 1), device=device)  # a single pixel is its own mirror image
    position = torch.arange(-pad, size + pad, device=device).remainder(period)
    return torch.minimum(position, period - position)
