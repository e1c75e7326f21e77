"""Whether SR is still the measurement that LR was."""

from typing import NamedTuple

import torch
from torch import Tensor

from geosr.degrade.psf import PSF, degrade
from geosr.metrics.masks import cleared, known, mean_over
from geosr.metrics.spectral import angles


class Consistency(NamedTuple):
    """How far SR, seen by the sensor again, is from LR."""

    reflectance: Tensor
    """Mean absolute difference over bands and pixels, in reflectance."""
    angle: Tensor
    """Mean spectral angle, in degrees."""


@torch.no_grad()
def consistency(sr: Tensor, lr: Tensor, valid: Tensor | None = None, *, psf: PSF) -> Consistency:
    """Difference of degraded SR and LR in reflectance, and as a spectral angle in degrees.

    An LR pixel counts where every HR pixel under its kernel is valid. Beyond its edge SR is continued by reflection.

    Args:
        sr: SR reflectance (batch, band, y * scale, x * scale).
        lr: LR reflectance (batch, band, y, x).
        valid: Valid pixels of SR (batch, y * scale, x * scale); None: all. Those over an invalid pixel of
            LR must not be.
        psf: The sensor's point-spread function.

    References:
        M. Irani, S. Peleg, "Improving resolution by image registration", CVGIP 53(3), 1991.
    """
    valid = known(sr, valid)
    seen = degrade(cleared(sr, valid), psf)
    counted = degrade((~valid).double().unsqueeze(1), psf).squeeze(1) == 0
    difference = (seen - lr.double()).abs().mean(dim=1)
    return Consistency(mean_over(difference, counted), mean_over(angles(seen, lr), counted))
