"""How far reflectance is off, pixel by pixel."""

import torch
from torch import Tensor

from geosr.metrics.masks import cleared, known, mean_over


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
def rmse(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Root of the mean squared error in reflectance (band,), over the valid pixels of all images.

    >>> rmse(torch.tensor([[[[0.2, 0.1]]]]), torch.tensor([[[[0.1, 0.2]]]]))
    tensor([0.1000])
    """
    error = sr.double() - hr.double()
    return _over_bands(error.square(), known(hr, valid)).sqrt().float()


@torch.no_grad()
def bias(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of SR less HR in reflectance (band,), over the valid pixels of all images; above 0, SR is too bright.

    >>> bias(torch.tensor([[[[0.2, 0.1]]]]), torch.tensor([[[[0.1, 0.1]]]]))
    tensor([0.0500])
    """
    return _over_bands(sr.double() - hr.double(), known(hr, valid)).float()


@torch.no_grad()
def ergas(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, scale: int) -> Tensor:
    """Relative global error in synthesis (ERGAS) in per cent, a mean over the images that have valid pixels.

    ``100 / scale * sqrt(mean((rmse / mean)**2))``, the mean over bands, with the mean reflectance of HR in each.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); None: all.
        scale: HR pixels per LR pixel, along each axis.

    References:
        L. Wald, "Quality of high resolution synthesised images: is there a simple criterion?", Fusion of Earth Data,
        2000.
    """
    valid = known(hr, valid)
    count = valid.sum((1, 2)).unsqueeze(1)
    square = cleared(sr.double() - hr.double(), valid).square().sum((2, 3)) / count
    mean = cleared(hr, valid).sum((2, 3)) / count
    figures = 100 / scale * (square / mean.square()).mean(dim=1).sqrt()
    return mean_over(figures.view(-1, 1, 1), (count > 0).view(-1, 1, 1))


def _over_bands(figure: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels (band,)."""
    return cleared(figure, valid).sum((0, 2, 3)) / valid.sum()
