"""Whether it shows that an image was made of tiles."""

import torch
from torch import Tensor

from geosr.metrics.masks import known

FLOOR = 1e-4
"""Reflectance below which a seam does not matter: one digital number of Sentinel-2."""
BESIDE = (8, 16)
"""Pixels from a border to what it is compared with: near, and the same place in the pattern of a network that writes
2 x 2, 4 x 4 or 8 x 8 pixels at once."""
SHORTEST = 32
"""Pixels from one border to the next that leave room for that."""


@torch.no_grad()
def seams(image: Tensor, valid: Tensor | None = None, *, period: int) -> Tensor:
    """Energy of second differences across tile borders, over that 8 and 16 pixels beside them; 1: none shows.

    It is a ratio of geometric means over pixels: smooth ground, where a seam shows, counts as much as rough ground,
    which hides it. The energy of a pixel is the mean over its bands, plus one digital number squared. Of 512 x 512
    real pixels without a seam the ratio is between 0.85 and 1.2, by chance; of more it is nearer to 1.

    Args:
        image: Reflectance (batch, band, y, x) whose tiles begin at its corner.
        valid: Valid pixels (batch, y, x); None: all. A second difference counts where its three pixels are.
        period: Pixels from one border to the next, in both directions, at least 32.

    Returns:
        The ratio; NaN where there is no border.

    Raises:
        ValueError: The period is too short for anything to be beside a border.
    """
    if period < SHORTEST:
        raise ValueError(f"the period of seams is {period} pixels; it must be at least {SHORTEST}")
    valid = known(image, valid)
    across = _log_ratios(image.double(), valid, period), _log_ratios(image.double().mT, valid.mT, period)
    return torch.cat(across).mean().exp().float()


def _log_ratios(image: Tensor, valid: Tensor, period: int) -> Tensor:
    """Logarithms of the ratio at each pixel on either side of a horizontal border."""
    height = image.shape[-2]
    bent = image[..., :-2, :] - 2 * image[..., 1:-1, :] + image[..., 2:, :]
    energy = (bent.square().mean(dim=1) + FLOOR**2).log()
    counts = valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:]
    ratios = [energy.new_zeros(0)]
    for border in range(period, height, period):
        for row in (border - 2, border - 1):  # of the differences, whose first is that of the image's second row
            for other in (row + sign * distance for distance in BESIDE for sign in (-1, 1)):
                if row < height - 2 and other < height - 2:
                    ratios.append((energy[:, row] - energy[:, other])[counts[:, row] & counts[:, other]])
    return torch.cat(ratios)
