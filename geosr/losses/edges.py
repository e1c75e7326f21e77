"""Losses of edges: how far the steps from pixel to pixel are off."""

import torch
from torch import Tensor

from geosr.losses.smoothness import tv


def gradient(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error of the steps down, plus that of the steps to the right, in reflectance.

    A step counts where both of its pixels are valid; without any the mean is 0. An error that is the same everywhere
    costs nothing: beside this loss another one has to hold the level.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x).

    References:
        M. Mathieu et al., "Deep multi-scale video prediction beyond mean square error", ICLR 2016, section 3.3; here
        of steps with their sign, so that an edge that falls where it should rise is an error too.
    """
    # A step of the difference is the difference of both steps.
    return tv(torch.where(valid.unsqueeze(1), sr - hr, 0.0), valid)
