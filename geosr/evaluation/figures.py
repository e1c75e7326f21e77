"""Figures: what is measured of an SR image, its names, and how figures of the parts of a scene become those of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosr import metrics
from geosr.degrade import PSF
from geosr.sensors import INDICES

Figures = Mapping[str, float]
"""Values by name; NaN where there is nothing to measure."""
Distance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A perceptual distance of SR and HR (batch, band, y, x), with the valid pixels (batch, y, x)."""

ALL = ""
"""The class that every pixel belongs to."""


@dataclass(frozen=True)
class Figure:
    """How a figure is told."""

    label: str
    unit: str
    better: str
    """``higher``, ``lower``, or what it should be near: ``0`` or ``1``."""
    digits: int
    pooled: str = "mean"
    """How the parts of a scene make one: by their ``mean``, that of the ``square`` or of a ``decibel``'s power."""


FIGURES: Mapping[str, Figure] = {
    "psnr": Figure("PSNR", "dB", "higher", 2, "decibel"),
    "psnr_gain": Figure("gain over bicubic", "dB", "higher", 2),
    "ssim": Figure("SSIM", "", "higher", 4),
    "sam": Figure("SAM", "degrees", "lower", 3),
    "ergas": Figure("ERGAS", "%", "lower", 3, "square"),
    "rmse": Figure("RMSE", "reflectance", "lower", 5, "square"),
    "bias": Figure("bias", "reflectance", "0", 6),
    "uqi": Figure("UQI", "", "higher", 4),
    "scc": Figure("SCC", "", "higher", 4),
    "lpips": Figure("LPIPS", "", "lower", 4),
    "dists": Figure("DISTS", "", "lower", 4),
    **{f"{name}_error": Figure(f"{name.upper()} error", "", "lower", 5) for name in INDICES},
    "spectrum_gap": Figure("spectrum gap", "dB", "lower", 2),
    "improvement": Figure("improvement", "", "higher", 3),
    "omission": Figure("omission", "", "lower", 3),
    "hallucination": Figure("hallucination", "", "lower", 3),
    "consistency": Figure("consistency", "reflectance", "lower", 6),
    "consistency_sam": Figure("consistency, angle", "degrees", "lower", 4),
    "shift_y": Figure("shift down", "SR pixels", "0", 2),
    "shift_x": Figure("shift right", "SR pixels", "0", 2),
    "shift": Figure("shift", "SR pixels", "lower", 2),
    "seams": Figure("seams", "", "1", 3),
    "pixels": Figure("valid pixels", "", "", 0),
}
"""All figures by name; those of one band have its name behind, as in ``rmse_B02``."""

PER_CLASS = ("psnr", "psnr_gain", "sam", "ergas", "rmse", "bias", "ndvi_error", "ssim", "pixels")
"""Figures that a land cover class, whose pixels lie scattered, has."""


def kind_of(name: str) -> Figure:
    """What is known of a figure, or of one band's.

    >>> kind_of("rmse_B02").label, kind_of("shift_y").label
    ('RMSE', 'shift down')
    """
    return FIGURES[name] if name in FIGURES else FIGURES[name.rpartition("_")[0]]


def label_of(name: str) -> str:
    """How a figure is called in tables.

    >>> label_of("rmse_B02"), label_of("sam")
    ('RMSE B02', 'SAM')
    """
    return FIGURES[name].label if name in FIGURES else f"{kind_of(name).label} {name.rpartition('_')[2]}"


def pooled(parts: Sequence[Figures]) -> Figures:
    """Figures of a scene from those of its parts, each weighted with its valid pixels.

    PSNR, RMSE and bias come out as if the scene had been measured in one piece; the others as means over the parts.
    """
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = np.array([part.get(name, math.nan) for part in parts])
        weights = np.array([part["pixels"] for part in parts], dtype=float)
        known = ~np.isnan(values) & (weights > 0)
        found[name] = _mean(values[known], weights[known], kind_of(name).pooled) if known.any() else math.nan
    found["pixels"] = float(sum(part["pixels"] for part in parts))
    return found


def with_gain(figures: Figures, bicubic: Figures) -> Figures:
    """The figures with the gain in PSNR over bicubic interpolation of the same pixels behind PSNR."""
    if "psnr" not in figures:
        return figures
    gain = {"psnr": figures["psnr"], "psnr_gain": figures["psnr"] - bicubic["psnr"]}
    return gain | {name: value for name, value in figures.items() if name != "psnr"}


def _mean(values: np.ndarray, weights: np.ndarray, how: str) -> float:
    match how:
        case "square":
            return float(np.sqrt(np.average(values**2, weights=weights)))
        case "decibel":
            with np.errstate(divide="ignore"):  # of a perfect image it is infinite
                return float(-10 * np.log10(np.average(10 ** (-values / 10), weights=weights)))
    return float(np.average(values, weights=weights))


@dataclass(frozen=True)
class Ground:
    """What an SR image is measured against: reflectance (1, band, y, x) of one part of a scene, 0 where invalid."""

    lr: Tensor
    bicubic: Tensor
    """LR, interpolated to the grid of HR."""
    hr: Tensor | None
    valid: Tensor
    """Pixels that are valid in all images (1, y, x), at HR."""
    bands: tuple[str, ...]
    psf: PSF


@dataclass(frozen=True)
class Tiles:
    """Where an SR image may have seams."""

    period: int
    """SR pixels from one tile border to the next."""
    before: tuple[int, int] = (0, 0)
    """Rows and columns of the first tile that lie before the image's first."""


def measure(
    sr: Tensor, ground: Ground, *, tiles: Tiles | None = None, distances: Mapping[str, Distance] | None = None
) -> dict[str, float]:
    """Figures of an SR image by name.

    Args:
        sr: Reflectance (1, band, y, x), 0 where invalid.
        ground: What it is measured against.
        tiles: Where seams may be; None: it was not made of tiles.
        distances: Perceptual distances by name.
    """
    found = {"pixels": float(ground.valid.sum())}
    if ground.hr is not None:
        found |= pointwise(sr, ground.hr, ground.valid, bands=ground.bands, scale=ground.psf.scale)
        found |= _structure(sr, ground, distances or {})
    found |= _always(sr, ground, tiles)
    return found


def pointwise(sr: Tensor, hr: Tensor, valid: Tensor, *, bands: Sequence[str], scale: int) -> dict[str, float]:
    """Figures that each pixel has a part in by itself, and SSIM where a whole window is valid.

    Args:
        sr: SR reflectance (1, band, y, x).
        hr: HR reflectance.
        valid: The pixels that count (1, y, x), such as those of one class.
        bands: Names of the bands.
        scale: HR pixels per LR pixel.
    """
    rmse, bias = metrics.rmse(sr, hr, valid), metrics.bias(sr, hr, valid)
    found = {
        "psnr": metrics.psnr(sr, hr, valid),
        "ssim": metrics.ssim(sr, hr, valid),
        "sam": metrics.sam(sr, hr, valid),
        "ergas": metrics.ergas(sr, hr, valid, scale=scale),
        "rmse": rmse.square().mean().sqrt(),
        "bias": bias.mean(),
        **{f"rmse_{band}": one for band, one in zip(bands, rmse, strict=True)},
        **{f"bias_{band}": one for band, one in zip(bands, bias, strict=True)},
        **{f"{name}_error": one for name, one in metrics.index_error(sr, hr, valid, bands=bands).items()},
    }
    return {name: float(value) for name, value in found.items()}


def _structure(sr: Tensor, ground: Ground, distances: Mapping[str, Distance]) -> dict[str, float]:
    """Figures of detail, which look at the neighbours of a pixel."""
    hr, valid = ground.hr, ground.valid
    assert hr is not None
    gap = metrics.spectrum_gap(metrics.spectrum(sr, valid), metrics.spectrum(hr, valid))
    detail = metrics.correctness(ground.lr, sr, hr, valid, border=0)
    found = {
        "uqi": metrics.uqi(sr, hr, valid),
        "scc": metrics.scc(sr, hr, valid),
        **{name: distance(sr, hr, valid) for name, distance in distances.items()},
        "spectrum_gap": gap.largest.mean(),
        "improvement": detail.improvement,
        "omission": detail.omission,
        "hallucination": detail.hallucination,
    }
    return {name: float(value) for name, value in found.items()}


def _always(sr: Tensor, ground: Ground, tiles: Tiles | None) -> dict[str, float]:
    """Figures that need no HR: consistency with LR, shift and seams."""
    valid, psf = ground.valid, ground.psf
    # A frame that counts as invalid leaves out LR pixels whose kernel looks beyond the edge, where SR is made up.
    framed = torch.zeros_like(valid)
    framed[:, 1:-1, 1:-1] = valid[:, 1:-1, 1:-1]
    kept = metrics.consistency(sr, ground.lr, framed, psf=psf)
    if ground.hr is None:
        down, right = metrics.shift(sr, ground.bicubic, valid, up_to=1 / psf.scale)[0].tolist()
    else:
        down, right = metrics.shift(sr, ground.hr, valid)[0].tolist()
    return {
        "consistency": float(kept.reflectance),
        "consistency_sam": float(kept.angle),
        "shift_y": down,
        "shift_x": right,
        "shift": math.hypot(down, right),
        "seams": math.nan if tiles is None else _seams(sr, valid, tiles),
    }


def _seams(sr: Tensor, valid: Tensor, tiles: Tiles) -> float:
    """How much tile borders show; invalid pixels continue the image to where its first tile begins."""
    down, right = tiles.before
    whole = F.pad(sr, (right, 0, down, 0)), F.pad(valid, (right, 0, down, 0))
    return float(metrics.seams(*whole, period=tiles.period))


def invented(sr: Tensor, ground: Ground) -> NDArray[np.float32]:
    """Score of hallucination, 0 to 1, of each pixel (y, x); NaN where there is too little detail to tell."""
    assert ground.hr is not None
    scores = metrics.correctness(ground.lr, sr, ground.hr, ground.valid, border=0).scores
    return scores[0, metrics.CLASSES.index("hallucination")].numpy()
