"""How different two images look to a network that was trained for something else."""

import torch
from torch import Tensor

from geosr.losses.perceptual import DISTSLoss, LPIPSLoss, Perceptual
from geosr.metrics.masks import known

PATCH = 64
"""Pixels along a side of a patch: that of the pairs of images that LPIPS was fitted to."""


@torch.no_grad()
def lpips(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, network: LPIPSLoss) -> Tensor:
    """Learned perceptual image patch similarity, 0 for equal images; a mean over patches.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); None: all. Of each image the patches of 64 x 64 pixels count, from its corner
            on, that are all valid; an image that is smaller is one patch.
        network: What looks at them, with its weights.

    References:
        R. Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018.
    """
    return _mean_distance(sr, hr, known(hr, valid), network)


@torch.no_grad()
def dists(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, network: DISTSLoss) -> Tensor:
    """Deep image structure and texture similarity as a distance, 0 for equal images; a mean over patches.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); None: all. Of each image the patches of 64 x 64 pixels count, from its corner
            on, that are all valid; an image that is smaller is one patch.
        network: What looks at them, with its weights.

    References:
        K. Ding et al., "Image quality assessment: unifying structure and texture similarity", IEEE TPAMI 44, 2022.
    """
    return _mean_distance(sr, hr, known(hr, valid), network)


def _mean_distance(sr: Tensor, hr: Tensor, valid: Tensor, network: Perceptual) -> Tensor:
    """Mean distance of the patches, a row of them at a time: a scene at once may be more than fits into memory."""
    height, width = (min(PATCH, size) for size in valid.shape[1:])
    total, count = torch.zeros((), device=hr.device), 0
    with torch.autocast(hr.device.type, enabled=False):
        for top in range(0, valid.shape[1] - height + 1, height):
            row = slice(top, top + height)
            counts = _patches(valid[:, None, row], width).all(dim=3).all(dim=2).flatten()
            one, other = (_patches(image[:, :, row], width)[counts].float() for image in (sr, hr))
            if len(one):
                total = total + len(one) * network(one, other, torch.ones_like(one[:, 0], dtype=torch.bool))
                count += len(one)
    return total / count if count else total + torch.nan


def _patches(row: Tensor, width: int) -> Tensor:
    """Patches (patch, band, y, x) of a row of them in each image (batch, band, y, x)."""
    return row.unfold(3, width, width).movedim(3, 1).flatten(0, 1)
