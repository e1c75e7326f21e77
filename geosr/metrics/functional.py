"""Quality figures as pure functions of (batch, band, y, x) reflectance and a validity mask (batch, y, x).

They have no gradient, do not depend on autocast, and are NaN where there is nothing to measure.
"""

import torch
from torch import Tensor

SSIM_WINDOW = 11
"""Pixels along a side of the window that torchmetrics uses for sigma 1.5."""


@torch.no_grad()
def psnr(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB over all bands and valid pixels: ``10 log10(peak**2 / MSE)``.

    >>> psnr(torch.full((1, 1, 2, 2), 0.2), torch.full((1, 1, 2, 2), 0.1)).round()
    tensor(20.)
    """
    error = (sr - hr).double().square().mean(dim=1)
    mean = error.mean() if valid is None else error[valid].mean()
    return (10 * torch.log10(peak**2 / mean)).float()


@torch.no_grad()
def sam(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean spectral angle in degrees over valid pixels; a pixel with an all-zero spectrum has angle 0.

    Computed as ``2 atan2(|u - v|, |u + v|)`` of the unit spectra, which stays accurate for small angles.

    References:
        F. A. Kruse et al., "The spectral image processing system (SIPS)", Remote Sens. Environ. 44, 1993.
        W. Kahan, "How futile are mindless assessments of roundoff", 2006, section 12, for the formula.
    """
    sr, hr = sr.double(), hr.double()
    norms = sr.norm(dim=1, keepdim=True), hr.norm(dim=1, keepdim=True)
    defined = ((norms[0] > 0) & (norms[1] > 0)).squeeze(1)
    smallest = torch.finfo(torch.float64).tiny
    u, v = (image / norm.clamp(min=smallest) for image, norm in zip((sr, hr), norms, strict=True))
    angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    angle = torch.where(defined, angle, 0.0)
    mean = angle.mean() if valid is None else angle[valid].mean()
    return torch.rad2deg(mean).float()


@torch.no_grad()
def ssim(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, peak: float = 1.0) -> Tensor:
    """Mean structural similarity over the pixels whose window, a Gaussian of 11 pixels with sigma 1.5, is all valid.

    Torchmetrics computes it; beyond its edges it continues the image by reflection.

    References:
        Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 13(4), 2004.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if valid is None:
        valid = torch.ones_like(hr[:, 0], dtype=torch.bool)
    sr, hr = (torch.where(valid.unsqueeze(1), image, 0.0).float() for image in (sr, hr))
    touched = torch.nn.functional.max_pool2d((~valid).float(), SSIM_WINDOW, stride=1, padding=SSIM_WINDOW // 2) > 0
    with torch.autocast(sr.device.type, enabled=False):  # convolves squares, whose differences bfloat16 would lose
        _, similarity = structural_similarity_index_measure(sr, hr, data_range=peak, return_full_image=True)
    return similarity.mean(dim=1)[~touched].mean()
