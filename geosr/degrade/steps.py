"""The steps that degradations are made of: each takes images and streams, and returns images and what was drawn.

A setting of type `Range` is a number, or two that a number is drawn from for each image. Steps take and return
reflectance (batch, band, y, x); `resize` takes one image, as its result has a size of its own.
"""

from collections.abc import Sequence
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.config.degradation import KERNELS
from geosr.degrade.compression import jpeg2000_coded, jpeg_coded
from geosr.degrade.draws import Draws
from geosr.degrade.kernels import filtered, gaussian_kernels, sinc_kernels
from geosr.degrade.noise import gaussian_noise, poisson_noise, quantised
from geosr.errors import did_you_mean

Range = float | Sequence[float]
"""A number, or the bounds of a uniform distribution."""
Parameters = dict[str, Tensor]
"""What was drawn, by name; the first dimension of each is the batch."""

SMALLEST_KERNEL = 7
"""Pixels along a side of the smallest blur kernel."""
MODES = ("area", "bilinear", "bicubic")
"""Interpolations of a resize."""


def blur(
    image: Tensor,
    draws: Draws,
    *,
    sigma: Range = (0.2, 3.0),
    kernels: Sequence[str] = ("iso",),
    weights: Sequence[float] | None = None,
    size: int = 21,
    generalized: Range = (0.5, 4.0),
    plateau: Range = (1.0, 2.0),
    sinc: float = 0.0,
) -> tuple[Tensor, Parameters]:
    """Images blurred by a kernel of random shape each.

    Args:
        image: Reflectance.
        draws: Random numbers.
        sigma: Standard deviation in pixels, along each axis.
        kernels: Shapes to draw from; see `geosr.config.degradation.KERNELS`.
        weights: Probability of each shape; equal ones if None.
        size: Largest kernel side; sides are the odd numbers from 7 to this.
        generalized: Exponent of generalised Gaussians.
        plateau: Exponent of plateau kernels.
        sinc: Probability of a sinc kernel instead, with a cut-off from pi/5 (pi/3 below 13 pixels) to pi.
    """
    batch = len(draws)
    side = _side(draws, size)
    shape = _positions(kernels, KERNELS)[draws.choice(weights or [1.0] * len(kernels))]
    kind, isotropic = shape // 2, shape % 2 == 0
    deviation = drawn(draws, sigma, 2)
    deviation = torch.where(isotropic[:, None], deviation[:, :1], deviation)
    angle = torch.where(isotropic, 0.0, draws.uniform(-pi, pi))
    exponents = torch.stack([torch.ones(batch).double(), _exponent(draws, generalized), _exponent(draws, plateau)])
    beta = exponents[kind, torch.arange(batch)]
    ringing = draws.uniform(0, 1) < sinc
    lowest = torch.where(side < 13, pi / 3, pi / 5)
    cutoff = lowest + (pi - lowest) * draws.uniform(0, 1)
    smooth = gaussian_kernels(kind, side, deviation, angle, beta, canvas=size)
    chosen = torch.where(ringing[:, None, None], sinc_kernels(cutoff, side, canvas=size), smooth)
    told = {"kernel": torch.where(ringing, len(KERNELS), shape), "side": side, "sigma": deviation, "angle": angle}
    return filtered(image, chosen), told | {"beta": beta, "cutoff": cutoff}


def sinc(image: Tensor, draws: Draws, *, size: int = 21, probability: float = 1.0) -> tuple[Tensor, Parameters]:
    """Images that ring as after a sharp low-pass filter, with a cut-off from pi/3 to pi.

    Args:
        image: Reflectance.
        draws: Random numbers.
        size: Largest kernel side; sides are the odd numbers from 7 to this.
        probability: That an image is filtered at all.
    """
    side, cutoff = _side(draws, size), draws.uniform(pi / 3, pi)
    applied = draws.uniform(0, 1) < probability
    if applied.any():
        image = _where(applied, filtered(image, sinc_kernels(cutoff, side, canvas=size)), image)
    return image, {"applied": applied, "side": side, "cutoff": cutoff}


def resize(
    image: Tensor,
    draws: Draws,
    *,
    target: tuple[int, int],
    factors: Sequence[float],
    weights: Sequence[float] | None = None,
    modes: Sequence[str] = MODES,
    relative_to: str = "image",
) -> tuple[Tensor, Parameters]:
    """One image, enlarged or shrunk by a random factor in a random interpolation.

    Args:
        image: Reflectance (1, band, y, x).
        draws: Random numbers.
        target: Height and width of the LR image.
        factors: Smallest and largest factor.
        weights: Probabilities to enlarge (1 to the largest factor), to shrink (the smallest to 1) and to keep the size;
            if None the factor is drawn from the whole range.
        modes: Interpolations to draw from: area, bilinear, bicubic.
        relative_to: What a factor of 1 is the size of: image, or lr.
    """
    low, high = factors
    between = draws.uniform(0, 1)
    if weights is not None:
        way = draws.choice(weights)
        lows, highs = torch.tensor([1.0, low, 1.0])[way], torch.tensor([high, 1.0, 1.0])[way]
    else:
        lows, highs = torch.tensor([low]), torch.tensor([high])
    factor = lows + (highs - lows) * between
    mode = _mode(draws, modes)
    height, width = (max(int(n * float(factor)), 1) for n in (target if relative_to == "lr" else image.shape[-2:]))
    return interpolated(image, (height, width), MODES[int(mode)]), {"factor": factor, "mode": mode}


def downsample(
    image: Tensor, draws: Draws, *, target: tuple[int, int], modes: Sequence[str] = ("area",)
) -> tuple[Tensor, Parameters]:
    """Images on the LR grid, whatever their size was.

    Args:
        image: Reflectance.
        draws: Random numbers.
        target: Height and width of the LR image.
        modes: Interpolations to draw from: area (the mean over an LR pixel), bilinear, bicubic.
    """
    mode = _mode(draws, modes)
    parts = [interpolated(image[i : i + 1], target, MODES[int(mode[i])]) for i in range(len(draws))]
    return torch.cat(parts), {"mode": mode}


def noise(image: Tensor, draws: Draws, *, sigma: Range, gray: float = 0.0) -> tuple[Tensor, Parameters]:
    """Images with normal noise.

    Args:
        image: Reflectance.
        draws: Random numbers.
        sigma: Standard deviation in reflectance.
        gray: Probability that all bands get the same noise.
    """
    told = {"sigma": drawn(draws, sigma), "gray": draws.uniform(0, 1) < gray}
    return gaussian_noise(image, draws, deviation=told["sigma"], gray=told["gray"]), told


def photon_noise(
    image: Tensor, draws: Draws, *, factor: Range = 1.0, white: float = 0.4, gray: float = 0.0
) -> tuple[Tensor, Parameters]:
    """Images with noise that grows with the signal.

    Args:
        image: Reflectance.
        draws: Random numbers.
        factor: Factor on the noise of counting 255 photons at ``white``.
        white: Reflectance.
        gray: Probability that all bands get the same noise.
    """
    told = {"factor": drawn(draws, factor), "gray": draws.uniform(0, 1) < gray}
    return poisson_noise(image, draws, factor=told["factor"], gray=told["gray"], white=white), told


def jpeg(image: Tensor, draws: Draws, *, quality: Range, white: float = 0.4) -> tuple[Tensor, Parameters]:
    """Images after JPEG, band by band.

    Args:
        image: Reflectance.
        draws: Random numbers.
        quality: 1 to 100.
        white: Reflectance of the picture's 255.
    """
    told = {"quality": drawn(draws, quality)}
    return jpeg_coded(image, quality=told["quality"], white=white), told


def jpeg2000(image: Tensor, draws: Draws, *, ratio: Range) -> tuple[Tensor, Parameters]:
    """Images after JPEG2000 of 16-bit digital numbers, band by band, on the CPU and without gradient.

    Args:
        image: Reflectance.
        draws: Random numbers.
        ratio: Compression ratio relative to 16 bits a pixel.
    """
    told = {"ratio": drawn(draws, ratio)}
    return jpeg2000_coded(image, ratio=told["ratio"]), told


def quantise(image: Tensor, draws: Draws, *, dn: float = 1e-4) -> tuple[Tensor, Parameters]:
    """Images rounded to whole digital numbers of ``dn`` reflectance."""
    return quantised(image, scale=dn), {}


def drawn(draws: Draws, value: Range, *shape: int) -> Tensor:
    """Numbers (batch, *shape) from a range."""
    low, high = (value, value) if isinstance(value, int | float) else value
    return draws.uniform(low, high, *shape)


def interpolated(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Image (batch, band, *size); its grid covers the same ground."""
    if image.shape[-2:] == size:
        return image
    if mode == "area":
        return F.interpolate(image, size, mode=mode)
    return F.interpolate(image, size, mode=mode, align_corners=False)


def _mode(draws: Draws, modes: Sequence[str]) -> Tensor:
    """Positions in ``MODES``, drawn from some of them."""
    return _positions(modes, MODES)[draws.choice([1.0] * len(modes))]


def _positions(names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Where names are in a list of known ones.

    Raises:
        ValueError: One is not there.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}" + did_you_mean(name, known))
    return torch.tensor([known.index(name) for name in names])


def _side(draws: Draws, largest: int) -> Tensor:
    return SMALLEST_KERNEL + 2 * draws.choice([1.0] * ((largest - SMALLEST_KERNEL) // 2 + 1))


def _exponent(draws: Draws, value: Range) -> Tensor:
    """Exponents from a range; where it has 1 inside, half of them are from below 1, as in Real-ESRGAN."""
    low, high = (value, value) if isinstance(value, int | float) else value
    unit, below = draws.uniform(0, 1), draws.uniform(0, 1) < 0.5
    if not low <= 1 <= high:
        return low + (high - low) * unit
    return torch.where(below, low + (1 - low) * unit, 1 + (high - 1) * unit)


def _where(chosen: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(chosen.to(first.device)[:, None, None, None], first, second)
