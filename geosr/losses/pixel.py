"""Pixel losses: how far reflectance is off."""

import torch
from torch import Tensor


def l1(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error in reflectance over the valid pixels (batch, y, x); 0 when there are none."""
    difference = torch.where(valid.unsqueeze(1), sr - hr, 0.0)  # chosen, not multiplied: an invalid pixel may be NaN
    return difference.abs().mean(dim=1).sum() / valid.sum().clamp(min=1)
