"""Losses of SR alone: how restless it is."""

import torch
from torch import Tensor


def tv(sr: Tensor, valid: Tensor, *, isotropic: bool = False) -> Tensor:
    """Total variation in reflectance: the mean ``|dy|`` plus the mean ``|dx|`` between valid neighbours.

    Isotropic, it is the mean length of the gradient, ``sqrt(dy**2 + dx**2)``, which does not prefer edges along the
    grid; where nothing varies its derivative is 0.

    Args:
        sr: SR reflectance (batch, band, y, x).
        valid: Valid pixels (batch, y, x); a difference counts where both of its pixels are, the length of a gradient
            where all three are. Without any the mean is 0.
        isotropic: Take that length.

    References:
        L. I. Rudin, S. Osher, E. Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60,
        1992 (isotropic).
        S. Esedoglu, S. Osher, "Decomposition of images by the anisotropic Rudin-Osher-Fatemi model", Comm. Pure Appl.
        Math. 57, 2004 (anisotropic).
    """
    known = valid.unsqueeze(1)
    if isotropic:
        return _mean_length(sr, known)
    down = _mean_step(sr[..., 1:, :], sr[..., :-1, :], known[..., 1:, :] & known[..., :-1, :])
    right = _mean_step(sr[..., 1:], sr[..., :-1], known[..., 1:] & known[..., :-1])
    return down + right


def _mean_step(here: Tensor, before: Tensor, known: Tensor) -> Tensor:
    """Mean absolute difference where ``known`` (batch, 1, y, x), over the bands."""
    step = torch.where(known, here - before, 0.0).abs()
    return step.sum() / (known.sum() * step.shape[1]).clamp(min=1)


def _mean_length(sr: Tensor, known: Tensor) -> Tensor:
    """Mean length of the gradient where a pixel and its neighbours below and to the right are ``known``."""
    here, below, beside = (slice(-1), slice(-1)), (slice(1, None), slice(-1)), (slice(-1), slice(1, None))
    counts = known[..., *here] & known[..., *below] & known[..., *beside]
    down = torch.where(counts, sr[..., *below] - sr[..., *here], 0.0)
    right = torch.where(counts, sr[..., *beside] - sr[..., *here], 0.0)
    square = down.square() + right.square()
    varies = square > 0
    length = torch.where(varies, torch.where(varies, square, 1.0).sqrt(), 0.0)  # the root of 0 has no derivative
    return length.sum() / (counts.sum() * sr.shape[1]).clamp(min=1)
