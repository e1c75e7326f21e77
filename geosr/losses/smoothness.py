"""Losses of SR alone: how restless it is."""

import torch
from torch import Tensor


def tv(sr: Tensor, valid: Tensor) -> Tensor:
    """Anisotropic total variation in reflectance: the mean ``|dy|`` plus the mean ``|dx|`` between valid neighbours.

    Args:
        sr: SR reflectance (batch, band, y, x).
        valid: Valid pixels (batch, y, x); a difference counts where both of its pixels are. Without any the mean is 0.

    References:
        L. I. Rudin, S. Osher, E. Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60,
        1992; here the sum of both directions instead of the length of the gradient.
    """
    known = valid.unsqueeze(1)
    down = _mean_step(sr[..., 1:, :], sr[..., :-1, :], known[..., 1:, :] & known[..., :-1, :])
    right = _mean_step(sr[..., 1:], sr[..., :-1], known[..., 1:] & known[..., :-1])
    return down + right


def _mean_step(here: Tensor, before: Tensor, known: Tensor) -> Tensor:
    """Mean absolute difference where ``known`` (batch, 1, y, x), over the bands."""
    step = torch.where(known, here - before, 0.0).abs()
    return step.sum() / (known.sum() * step.shape[1]).clamp(min=1)
