"""Noise in units of reflectance, and digital numbers. Gradients pass the noise as if it were a constant."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geosr.degrade.draws import Draws


def detector_noise(
    image: Tensor, draws: Draws, *, snr: Sequence[float], reference: Sequence[float], shot_share: float, gain: Tensor
) -> Tensor:
    """Reflectance with the noise of photons and of read-out.

    The variance at reflectance r is ``(gain reference / snr)**2 (shot_share r / reference + 1 - shot_share)``: photon
    noise grows with the signal, read-out noise is there in the dark. At a hundred photons and more, which every
    detector of a satellite collects, the Poisson distribution of photons is a normal one.

    Args:
        image: Reflectance (batch, band, y, x).
        draws: Random numbers.
        snr: Signal-to-noise ratio of each band at its reference reflectance.
        reference: Reference reflectance of each band.
        shot_share: Share of photon noise in the variance at the reference reflectance.
        gain: Factor (batch,) on the standard deviation.
    """
    level = torch.tensor(reference, dtype=torch.float64)
    variance = (gain[:, None] * level / torch.tensor(snr, dtype=torch.float64)) ** 2
    slope, dark = (_per_band(part, image) for part in (variance * shot_share / level, variance * (1 - shot_share)))
    deviation = image.detach().clamp(min=0).mul(slope).add_(dark).sqrt_()
    return image + deviation.mul_(draws.normal(*image.shape[1:], like=image))


def gaussian_noise(image: Tensor, draws: Draws, *, deviation: Tensor, gray: Tensor) -> Tensor:
    """Reflectance with normal noise of a standard deviation (batch,) in reflectance.

    Args:
        image: Reflectance (batch, band, y, x).
        draws: Random numbers.
        deviation: Standard deviation of each image's noise.
        gray: Whether (batch,) all bands of an image get the same noise.
    """
    return image + _field(image, draws, gray).mul_(_per_image(deviation, image))


def poisson_noise(image: Tensor, draws: Draws, *, factor: Tensor, gray: Tensor, white: float) -> Tensor:
    """Reflectance with ``factor`` (batch,) times the noise of counting 255 photons at reflectance ``white``.

    The Poisson distribution is replaced by the normal one of its variance, so that what is drawn does not depend on the
    pixels. With the same noise in all bands, it is that of their mean.

    Args:
        image: Reflectance (batch, band, y, x).
        draws: Random numbers.
        factor: Factor on each image's noise.
        gray: Whether (batch,) all bands of an image get the same noise.
        white: Reflectance of 255 photons.
    """
    known = image.detach()
    signal = torch.where(_per_image(gray, image).bool(), known.mean(1, keepdim=True), known)
    deviation = signal.clamp(min=0).mul(white / 255).sqrt_().mul_(_per_image(factor, image))
    return image + deviation.mul_(_field(image, draws, gray))


def quantised(image: Tensor, *, scale: float = 1e-4) -> Tensor:
    """Reflectance rounded to whole digital numbers of ``scale`` reflectance.

    >>> quantised(torch.tensor([0.12344, 0.12346]))
    tensor([0.1234, 0.1235])
    """
    return image.div(scale).round_().mul_(scale)


def _field(image: Tensor, draws: Draws, gray: Tensor) -> Tensor:
    field = draws.normal(*image.shape[1:], like=image)
    return torch.where(_per_image(gray, image).bool(), field[:, :1], field)


def _per_image(values: Tensor, image: Tensor) -> Tensor:
    return values.to(image)[:, None, None, None]


def _per_band(values: Tensor, image: Tensor) -> Tensor:
    return values.to(image)[:, :, None, None]
