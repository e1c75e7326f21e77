"""How far the ratios between bands are off."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geosr.losses.indices import normalised_differences
from geosr.metrics.masks import known, mean_over
from geosr.sensors import INDICES


@torch.no_grad()
def sam(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean spectral angle in degrees over valid pixels; a pixel with an all-zero spectrum has angle 0.

    References:
        F. A. Kruse et al., "The spectral image processing system (SIPS)", Remote Sens. Environ. 44, 1993.
    """
    return mean_over(angles(sr, hr), known(hr, valid))


@torch.no_grad()
def angles(sr: Tensor, hr: Tensor) -> Tensor:
    """Spectral angle in degrees (batch, y, x), float64; 0 where a spectrum is all zeros.

    Computed as ``2 atan2(|u - v|, |u + v|)`` of the unit spectra, which stays accurate for small angles.

    References:
        W. Kahan, "How futile are mindless assessments of roundoff", 2006, section 12, for the formula.
    """
    sr, hr = sr.double(), hr.double()
    norms = sr.norm(dim=1, keepdim=True), hr.norm(dim=1, keepdim=True)
    defined = ((norms[0] > 0) & (norms[1] > 0)).squeeze(1)
    smallest = torch.finfo(torch.float64).tiny
    u, v = (image / norm.clamp(min=smallest) for image, norm in zip((sr, hr), norms, strict=True))
    angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    return torch.rad2deg(torch.where(defined, angle, 0.0))


@torch.no_grad()
def index_error(sr: Tensor, hr: Tensor, valid: Tensor | None = None, *, bands: Sequence[str]) -> dict[str, Tensor]:
    """Mean absolute error over valid pixels, by name, of each spectral index that the bands allow; from -1 to 1.

    An index is that of the loss: reflectance below 0 counts as 0, and a sum below ``losses.indices.FAINT`` as that.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); None: all.
        bands: Names of the images' bands; without a pair that an index needs, the answer is empty.

    >>> sr, hr = torch.tensor([0.1, 0.3]).view(1, 2, 1, 1), torch.tensor([0.1, 0.2]).view(1, 2, 1, 1)
    >>> index_error(sr, hr, bands=["B04", "B08"])
    {'ndvi': tensor(0.1667)}
    """
    order, valid = list(bands), known(hr, valid)
    pairs = {name: (order.index(a), order.index(b)) for name, (a, b) in INDICES.items() if {a, b} <= {*order}}
    if not pairs:
        return {}
    ours, theirs = (normalised_differences(image.double(), [*pairs.values()]) for image in (sr, hr))
    return {name: mean_over((ours - theirs)[:, number].abs(), valid) for number, name in enumerate(pairs)}
