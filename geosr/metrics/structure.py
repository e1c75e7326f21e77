"""How like the local structure of two images is."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.degrade.resample import gather
from geosr.metrics.masks import cleared, known, mean_over, touched

WINDOW = 11
"""Pixels along a side of the Gaussian window of SSIM and UQI, of standard deviation 1.5: torchmetrics' default."""
SCC_WINDOW = 8
"""Pixels along a side of the window of the spatial correlation: torchmetrics' default."""
FLAT = 1e-14
"""Variance, reflectance squared, up to which a window is flat: rounding leaves some."""


@torch.no_grad()
def ssim(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, peak: float = 1.0) -> Tensor:
    """Mean structural similarity over the pixels whose window, a Gaussian of 11 pixels with sigma 1.5, is all valid.

    Torchmetrics computes it; beyond its edges it continues the image by reflection.

    References:
        Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 13(4), 2004.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    valid = known(hr, valid)
    sr, hr = (cleared(image, valid).float() for image in (sr, hr))
    with torch.autocast(sr.device.type, enabled=False):  # convolves squares, whose differences bfloat16 would lose
        _, similarity = structural_similarity_index_measure(sr, hr, data_range=peak, return_full_image=True)
    return similarity.mean(dim=1)[~touched(valid, WINDOW // 2, WINDOW // 2)].mean()


@torch.no_grad()
def uqi(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean universal image quality index, -1 to 1, over bands and the windows that are in the image and all valid.

    A window is a Gaussian of 11 pixels with sigma 1.5, as in SSIM and in torchmetrics; the paper's is a square of 8.
    Where both windows are flat, what is left is the likeness of their means.

    References:
        Z. Wang, A. C. Bovik, "A universal image quality index", IEEE Signal Processing Letters 9(3), 2002.
    """
    valid = known(hr, valid)
    if min(valid.shape[1:]) < WINDOW:
        return torch.tensor(torch.nan, device=hr.device)
    sr, hr = cleared(sr, valid), cleared(hr, valid)
    gaussian = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / 1.5) ** 2)
    weights = (gaussian / gaussian.sum()).tolist()
    mean, other_mean, square, other_square, product = (
        gather(image, weights, 1) for image in (sr, hr, sr * sr, hr * hr, sr * hr)
    )
    variances = (square - mean.square()).clamp(min=0) + (other_square - other_mean.square()).clamp(min=0)
    squares = mean.square() + other_mean.square()
    structure = torch.where(variances > FLAT, 2 * (product - mean * other_mean) / variances, 1.0)
    brightness = torch.where(squares > FLAT, 2 * mean * other_mean / squares, 1.0)
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    counted = ~touched(valid, WINDOW // 2, WINDOW // 2)[:, inside, inside]
    return mean_over((structure * brightness).mean(dim=1), counted)


@torch.no_grad()
def scc(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean local correlation of the high pass, -1 to 1, over bands and the windows that are all valid.

    The high pass is a pixel's difference from its eight neighbours, and the window a square of 8 pixels. Beyond its
    edge the image is continued by its edge pixels, and the high pass by 0, as in torchmetrics. Where one of the
    windows is flat the correlation is 0.

    References:
        J. Zhou et al., "A wavelet transform method to merge Landsat TM and SPOT panchromatic data", Int. J. Remote
        Sens. 19(4), 1998 (the high pass).
    """
    valid = known(hr, valid)
    before, after = SCC_WINDOW // 2, SCC_WINDOW - 1 - SCC_WINDOW // 2
    weights = [1 / SCC_WINDOW] * SCC_WINDOW
    sr, hr = (
        F.pad(9 * image - gather(F.pad(image, (1, 1, 1, 1), mode="replicate"), [1.0, 1.0, 1.0], 1), (before, after) * 2)
        for image in (cleared(sr, valid), cleared(hr, valid))
    )
    mean, other_mean, square, other_square, product = (
        gather(image, weights, 1) for image in (sr, hr, sr * sr, hr * hr, sr * hr)
    )
    variance, other_variance = square - mean.square(), other_square - other_mean.square()
    varies = (variance > FLAT) & (other_variance > FLAT)
    spread = (variance.clamp(min=FLAT) * other_variance.clamp(min=FLAT)).sqrt()
    correlation = torch.where(varies, (product - mean * other_mean) / spread, 0.0)
    return mean_over(correlation.mean(dim=1), ~touched(valid, before + 1, after + 1))
