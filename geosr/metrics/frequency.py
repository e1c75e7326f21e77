"""How much detail of each size an image has: its radially averaged power spectrum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geosr.losses.frequency import periodogram
from geosr.metrics.masks import SMALLEST, known, largest_square


@dataclass(frozen=True)
class Spectrum:
    """Radially averaged power of an image."""

    frequency: Tensor
    """Cycles per pixel (frequency,), up to 0.5, which is Nyquist's."""
    power: Tensor
    """Reflectance squared (band, frequency); of white noise it is the variance, at every frequency."""


@dataclass(frozen=True)
class SpectrumGap:
    """How much stronger one spectrum is than another."""

    frequency: Tensor
    """Cycles per pixel (frequency,)."""
    decibels: Tensor
    """Power over the reference's in dB (band, frequency); below 0 detail is missing, above 0 there is too much."""
    largest: Tensor
    """The largest absolute gap in dB (band,) up to the frequency that was asked for."""


@torch.no_grad()
def spectrum(image: Tensor, valid: Tensor | None = None) -> Spectrum:
    """Power spectrum in reflectance squared, averaged over directions and images.

    Of each image it takes the largest square that is all valid, or as much of it as the image with the smallest one
    has; an image without one of 16 pixels along a side does not count. A band's mean in it is taken away, and a Hann
    window goes over it, for which the power is corrected.

    Args:
        image: Reflectance (batch, band, y, x).
        valid: Valid pixels (batch, y, x); None: all. Spectra to compare need the same.

    Returns:
        The spectrum at whole numbers of cycles in the square; without a square, no frequency.

    References:
        P. D. Welch, "The use of fast Fourier transform for the estimation of power spectra", IEEE Trans. Audio
        Electroacoustics 15(2), 1967 (modified periodograms).
    """
    squares = [(one, *largest_square(mask)) for one, mask in zip(image, known(image, valid), strict=True)]
    sides = [rows.stop - rows.start for _, rows, _ in squares]
    side = min((side for side in sides if side >= SMALLEST), default=0)
    if not side:
        return Spectrum(image.new_zeros(0), image.new_zeros(image.shape[1], 0))
    cuts = [one[:, rows, columns][:, :side, :side] for one, rows, columns in squares if rows.stop - rows.start >= side]
    power = periodogram(torch.stack(cuts).double()).mean(dim=0)
    cycles = (_radius(side, image.device) * side).round().long().flatten()
    counted = cycles <= side // 2
    total = power.new_zeros(power.shape[0], side // 2 + 1).index_add_(1, cycles[counted], power.flatten(1)[:, counted])
    mean = total[:, 1:] / cycles[counted].bincount()[1:]
    return Spectrum((torch.arange(1, side // 2 + 1, device=image.device) / side).float(), mean.float())


@torch.no_grad()
def spectrum_gap(sr: Spectrum, reference: Spectrum, *, up_to: float = 0.8) -> SpectrumGap:
    """How much stronger SR's spectrum is than HR's, or than that of real imagery, in dB.

    Args:
        sr: SR's spectrum.
        reference: The other, in the same unit; where its frequencies are others, its decibels are interpolated.
        up_to: Share of Nyquist's frequency up to which ``largest`` looks, 0 to 1.
    """
    theirs = 10 * reference.power.double().log10()
    if reference.frequency.numel() and not torch.equal(sr.frequency, reference.frequency):
        theirs = _interpolated(sr.frequency.double(), reference.frequency.double(), theirs)
    decibels = (10 * sr.power.double().log10() - theirs).float()
    looked_at = decibels[:, sr.frequency <= up_to / 2 + 1e-6].abs()
    largest = looked_at.amax(dim=1) if looked_at.numel() else looked_at.new_full((len(looked_at),), torch.nan)
    return SpectrumGap(sr.frequency, decibels, largest)


def _radius(side: int, device: torch.device) -> Tensor:
    """Cycles per pixel (y, x) of the entries of a transform."""
    frequency = torch.fft.fftfreq(side, dtype=torch.float64, device=device)
    return torch.hypot(frequency[:, None], frequency)


def _interpolated(at: Tensor, frequency: Tensor, values: Tensor) -> Tensor:
    """Values (band, frequency) between the frequencies that they are known at; beyond them those at the ends."""
    right = torch.searchsorted(frequency, at).clamp(1, len(frequency) - 1)
    share = ((at - frequency[right - 1]) / (frequency[right] - frequency[right - 1])).clamp(0, 1)
    return values[:, right - 1] * (1 - share) + values[:, right] * share
