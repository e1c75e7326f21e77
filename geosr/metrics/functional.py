"""Quality figures as pure functions of (batch, band, y, x) reflectance and a validity mask (batch, y, x)."""

import torch
from torch import Tensor


def psnr(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB over all bands and valid pixels: ``10 log10(peak**2 / MSE)``.

    >>> psnr(torch.full((1, 1, 2, 2), 0.2), torch.full((1, 1, 2, 2), 0.1)).round()
    tensor(20.)
    """
    error = (sr - hr).double().square().mean(dim=1)
    mean = error.mean() if valid is None else error[valid].mean()
    return (10 * torch.log10(peak**2 / mean)).float()


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
    u, v = (image / norm.clamp(min=torch.finfo(torch.float64).tiny) for image, norm in zip((sr, hr), norms, strict=True))
    angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    angle = torch.where(defined, angle, 0.0)
    mean = angle.mean() if valid is None else angle[valid].mean()
    return torch.rad2deg(mean).float()


def ssim(sr: Tensor, hr: Tensor, *, peak: float = 1.0) -> Tensor:
    """Mean structural similarity, Gaussian window of 11 pixels with sigma 1.5 (torchmetrics computes it).

    References:
        Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 13(4), 2004.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(sr, hr, data_range=peak)
