"""What the detail that SR adds is worth: improvement, omission or hallucination, as opensr-test defines them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.degrade.masks import coarse_valid
from geosr.degrade.resample import crop
from geosr.metrics.masks import known

CLASSES = ("improvement", "omission", "hallucination")
"""What a pixel of SR can be, in the order of scores and of class numbers."""
BENDING = 0.05
"""How fast the three scores change with distance: ``im_score``, ``om_score`` and ``ha_score`` of opensr-test."""
TEMPERATURE = 0.25
"""Of the softmin over the three: ``correctness_temperature`` of opensr-test."""
RUGGED = 0.75
"""Share of the pixels, those where LR and HR differ least, whose distances are too small to be looked at."""


@dataclass(frozen=True)
class Correctness:
    """Scores from 0 to 1 that add up to 1."""

    improvement: Tensor
    """Of detail that is in HR, the mean over pixels, then over images."""
    omission: Tensor
    """Of detail of HR that is missing: SR looks like interpolated LR."""
    hallucination: Tensor
    """Of detail that is neither in HR nor in LR."""
    scores: Tensor
    """All three of each pixel (batch, 3, y, x), in the order of ``CLASSES``; NaN where it does not count."""

    @property
    def classes(self) -> Tensor:
        """Number of the class with the highest score (batch, y, x) int8; -1 where a pixel does not count."""
        counts = self.scores.isfinite().all(dim=1)
        return torch.where(counts, self.scores.nan_to_num().argmax(dim=1), -1).to(torch.int8)


@torch.no_grad()
def correctness(
    lr: Tensor,
    sr: Tensor,
    hr: Tensor,
    valid: Tensor | None = None,
    *,
    distance: Literal["nd", "l1"] = "nd",
    matched: bool = True,
    border: int = 16,
) -> Correctness:
    """Scores, 0 to 1, of improvement, omission and hallucination.

    With the distances of SR from HR and from bilinearly interpolated LR, each divided by that of HR from LR: close to
    HR is improvement, close to LR omission, far from both hallucination. Pixels count where one of the three distances
    is above the third quartile of that of HR from LR; each image has its own.

    These are the figures of ``Metrics.compute`` in opensr-test 1.3 with its defaults, but for one thing: it also moves
    SR by the shift that it finds between SR and HR, and this does not (``harm_apply_spatial=False``); see ``shift``.

    Args:
        lr: LR reflectance (batch, band, y, x).
        sr: SR reflectance (batch, band, y * scale, x * scale).
        hr: HR reflectance, of the same shape.
        valid: Valid pixels of SR and HR (batch, y * scale, x * scale); None: all. A pixel of LR with an invalid one
            under it is not used.
        distance: ``nd`` (normalised difference, ``|a - b| / |a + b|``) or ``l1`` (reflectance), means over bands.
        matched: The histogram of SR is made that of HR first, band by band: only detail is judged, not brightness.
        border: Pixels of SR that are left out along each edge, rounded down to whole pixels of LR.

    References:
        C. Aybar et al., "A comprehensive benchmark for optical remote sensing image super-resolution", IEEE Geosci.
        Remote Sens. Letters 21, 2024.
    """
    scale = hr.shape[-1] // lr.shape[-1]
    edge = border // scale
    height, width = (size - 2 * edge for size in lr.shape[-2:])
    scores = hr.new_full((len(hr), 3, *hr.shape[-2:]), torch.nan, dtype=torch.float64)
    if min(height, width) > 0:
        apart = {"nd": _normalised, "l1": _absolute}[distance]
        sr, hr, mask = (
            crop(image, edge * scale, height * scale, width * scale)
            for image in (sr.double(), hr.double(), known(hr, valid))
        )
        enlarged, mask = _enlarged(crop(lr.double(), edge, height, width), mask, scale)
        images = zip(enlarged, sr, hr, mask, strict=True)
        inside = torch.stack([_scores(*one, apart, matched) for one in images])
        scores = F.pad(inside, (edge * scale,) * 4, value=torch.nan)
    improvement, omission, hallucination = scores.nanmean((2, 3)).nanmean(dim=0).float()
    return Correctness(improvement, omission, hallucination, scores.float())


def _enlarged(lr: Tensor, valid: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """LR, bilinearly interpolated, and the valid pixels (batch, y, x) that nothing invalid of it gets into."""
    whole = coarse_valid(valid, scale).unsqueeze(1)
    enlarged, share = (
        F.interpolate(image, scale_factor=scale, mode="bilinear")
        for image in (torch.where(whole, lr, 0.0), whole.double())
    )
    return enlarged, valid & (share.squeeze(1) > 1 - 1e-9)


def _scores(
    lr: Tensor, sr: Tensor, hr: Tensor, valid: Tensor, apart: Callable[[Tensor, Tensor], Tensor], matched: bool
) -> Tensor:
    """The three scores of each pixel (3, y, x) of one image, from interpolated LR."""
    if not valid.any():
        return hr.new_full((3, *valid.shape), torch.nan)
    if matched:
        sr = _matched(sr, hr, valid)
    reference, to_hr, to_lr = apart(lr, hr), apart(sr, hr), apart(sr, lr)
    smooth = int(RUGGED * int(valid.sum()))
    threshold = reference[valid].kthvalue(max(smooth, 1)).values
    counts = valid & ((reference > threshold) | (to_hr > threshold) | (to_lr > threshold))
    to_hr, to_lr = to_hr / reference, to_lr / reference
    far = 1 - torch.exp(-BENDING * (to_hr + to_lr - 1))
    distances = [to_hr + to_lr * far, to_lr + to_hr * far, torch.exp(-BENDING * to_hr * to_lr)]
    scores = torch.softmax(-torch.stack(distances) / TEMPERATURE, dim=0)
    return torch.where(counts, scores, torch.nan)


def _normalised(one: Tensor, other: Tensor) -> Tensor:
    """Normalised difference (y, x), a mean over bands."""
    return ((one - other).abs() / (one + other + 1e-8).abs()).mean(dim=0)


def _absolute(one: Tensor, other: Tensor) -> Tensor:
    """Absolute difference (y, x) in reflectance, a mean over bands."""
    return (one - other).abs().mean(dim=0)


def _matched(image: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Image (band, y, x) whose valid pixels have the reference's distribution, band by band.

    References:
        R. C. Gonzalez, R. E. Woods, "Digital image processing", 4th edition, 2018, section 3.3 (histogram matching).
    """
    result = image.clone()
    for band, theirs in zip(result, reference, strict=True):
        _, which, counts = np.unique(band[valid].cpu().numpy(), return_inverse=True, return_counts=True)
        values, their_counts = np.unique(theirs[valid].cpu().numpy(), return_counts=True)
        level = np.interp(counts.cumsum() / counts.sum(), their_counts.cumsum() / their_counts.sum(), values)
        band[valid] = torch.from_numpy(level[which]).to(band)
    return result
