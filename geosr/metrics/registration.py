"""Whether SR lies where it should."""

import torch
from torch import Tensor

from geosr.losses.frequency import hann
from geosr.metrics.masks import SMALLEST, known, largest_square

STEPS = 100
"""Steps per pixel in which the shift is searched."""


@torch.no_grad()
def shift(image: Tensor, reference: Tensor, valid: Tensor | None = None, *, up_to: float = 1.0) -> Tensor:
    """How far down and to the right each image lies of its reference, in pixels (batch, 2), to a hundredth.

    Phase correlation of the largest square that is all valid, under a Hann window, all bands together; its peak is
    found among whole pixels first, and then by a transform of its surroundings alone. NaN where that square has fewer
    than 16 pixels along a side.

    Args:
        image: Reflectance (batch, band, y, x).
        reference: Reflectance of the same shape.
        valid: Pixels that are valid in both (batch, y, x); None: all.
        up_to: Share of Nyquist's frequency, 0 to 1, up to which the images have something in common along each axis:
            1 / scale if the reference is interpolated LR.

    References:
        C. D. Kuglin, D. C. Hines, "The phase correlation image alignment method", IEEE Cybernetics and Society, 1975.
        M. Guizar-Sicairos et al., "Efficient subpixel image registration algorithms", Optics Letters 33(2), 2008.
    """
    pairs = zip(image, reference, known(image, valid), strict=True)
    return torch.stack([_shift(one.double(), other.double(), mask, up_to) for one, other, mask in pairs]).float()


def _shift(image: Tensor, reference: Tensor, valid: Tensor, up_to: float) -> Tensor:
    """Shift of one image (band, y, x)."""
    rows, columns = largest_square(valid)
    side = rows.stop - rows.start
    if side < SMALLEST:
        return image.new_full((2,), torch.nan)
    here, there = (_transform(one[:, rows, columns]) for one in (image, reference))
    cross = here * there.conj()
    size = cross.abs()
    faint = 100 * torch.finfo(size.dtype).eps * size.amax()  # rounding, whose phase says nothing
    phase = torch.where(size > faint, cross / size.clamp(min=faint), 0).sum(dim=0)
    frequency = torch.fft.fftfreq(side, dtype=image.dtype, device=image.device)
    near = frequency.abs() <= up_to / 2
    phase = phase * torch.outer(near, near)
    whole = _peak(torch.fft.ifft2(phase).real)
    whole = torch.where(whole > side // 2, whole - side, whole)
    fine = torch.arange(-3 * STEPS // 2, 3 * STEPS // 2 + 1, dtype=image.dtype, device=image.device) / STEPS
    down, right = (torch.exp(2j * torch.pi * torch.outer(fine + start, frequency)) for start in whole)
    return whole + fine[_peak((down @ phase @ right.mT).real).long()]


def _transform(square: Tensor) -> Tensor:
    return torch.fft.fft2((square - square.mean((-2, -1), keepdim=True)) * hann(square))


def _peak(values: Tensor) -> Tensor:
    """Row and column of the largest."""
    return torch.stack(torch.unravel_index(values.argmax(), values.shape)).to(values.dtype)
