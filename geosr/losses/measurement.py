"""Losses of SR and LR: how far SR is from an image that the sensor would have seen as LR."""

import torch
from torch import Tensor

from geosr.degrade.psf import PSF, degrade
from geosr.losses.pixel import l1


def consistency(sr: Tensor, lr: Tensor, valid: Tensor, *, psf: PSF) -> Tensor:
    """Mean absolute difference between degraded SR and LR in reflectance.

    An LR pixel counts where every HR pixel under its kernel is valid, however little weight it has: nothing of an
    invalid pixel gets in, and nothing has to be made up for it. Beyond its edge SR is continued by reflection, as by
    ``degrade``. Noise in LR sets a floor that no sharp image gets below.

    Args:
        sr: SR reflectance (batch, band, y * scale, x * scale).
        lr: LR reflectance (batch, band, y, x).
        valid: Valid pixels of SR (batch, y * scale, x * scale); if no LR pixel counts, the loss is 0.
        psf: The sensor's point-spread function.

    References:
        M. Irani, S. Peleg, "Improving resolution by image registration", CVGIP 53(3), 1991.
    """
    known = valid.unsqueeze(1)
    invalid_share = degrade((~known).to(sr.dtype), psf).squeeze(1)
    return l1(degrade(torch.where(known, sr, 0.0), psf), lr, invalid_share == 0)
