"""How far a model is off, on average, where it adds so much detail: measured on scenes that it did not learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from geosr.degrade.psf import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.errors import ModelError
from geosr.models.spec import ModelSpec, is_number, is_whole

WINDOW = 5
"""SR pixels along one side of the window, the least that smooths: wider ones tell errors apart less well."""
LARGEST_WINDOW = 255
"""SR pixels along one side of a window, at most."""
_POINTS = 10_000
KNOTS = 32
"""Points of a curve."""
TAIL = (0.985, 0.995, 0.999)
"""Quantiles of the detail at which the last points begin: few pixels, and the largest errors."""
NOTHING = "no pixel of the scenes is valid and far enough from their edges; give larger ones"
"""What is said of scenes that nothing can be measured on."""
_BICUBIC = 2
"""LR pixels to each side that bicubic interpolation looks at."""
_EDGES = np.concatenate([[0], np.geomspace(1e-6, 10, 4096), [np.inf]])
"""Reflectance: bins that pixels are counted in, so that memory does not grow with the scenes."""


class Curve(NamedTuple):
    """Mean absolute error of a band by its detail: straight between the points, in proportion to it beyond the last."""

    detail: tuple[float, ...]
    """What `local_rms` gives of what the network added, reflectance, rising."""
    error: tuple[float, ...]
    """Mean of |SR - HR| where there is so much detail, reflectance, never falling."""

    def at(self, detail: NDArray[np.float64]) -> NDArray[np.float32]:
        """Expected absolute error, reflectance, where there is this detail."""
        error = np.interp(detail, self.detail, self.error)
        last = self.detail[-1]
        # Twice the contrast gives twice the detail and twice the error; no scene has all contrasts there are.
        beyond = np.maximum(detail / last, 1) if last > 0 else 1.0  # a network that adds nothing has one point, at 0
        return np.asarray(error * beyond, np.float32)


@dataclass(frozen=True)
class Calibration:
    """Expected absolute error (reflectance) of SR, by how much detail the network added around a pixel.

    Detail is the root mean square of SR - bicubic(LR) in a window around the pixel: cheap, local, and known without HR.
    Of the error, which has a random size at each pixel, it can only tell the mean. That is no bound: single errors are
    often larger, some of them several times. It is that of a single answer; the mean of the eight orientations is a
    little nearer.

    It was measured where there is an HR image: LR was made from it by the model's degradation, so that a model
    for 10 m was calibrated from 20 to 10 m, or from 40 to 10 m. What is said of 5 m or 2.5 m takes errors to depend on
    detail alike there. And it is the mean over the scenes that `scenes` names: on another landscape, or on images of
    another processing, errors of the same detail were found to be half as large, or twice.

    References:
        R. E. Barlow, H. D. Brunk, "The isotonic regression problem and its dual", JASA 67, 1972.
    """

    window: int
    """SR pixels along one side of the window."""
    bands: Mapping[str, Curve]
    """The curve of each band."""
    scenes: tuple[str, ...]
    """Names of the scenes that it was measured on."""
    pixels: int
    """Valid pixels of these scenes."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Calibration:
        """What the specification of a model holds.

        Raises:
            ModelError: It holds none, or a damaged one.
        """
        if spec.calibration is None:
            raise ModelError(
                f"model {spec.name!r} does not say how large its errors are; measure them on scenes that it did not "
                "learn from: geosr models calibrate MODEL SCENE... --out calibrated.safetensors"
            )
        kept = spec.calibration
        curves = kept.get("bands")
        window, pixels, scenes = kept.get("window"), kept.get("pixels"), kept.get("scenes")
        sound = is_whole(window, 1, LARGEST_WINDOW) and is_whole(pixels, 0, 2**63)
        sound = sound and isinstance(scenes, list | tuple) and all(isinstance(scene, str) for scene in scenes)
        if not (sound and isinstance(curves, Mapping) and all(_is_curve(curves.get(band)) for band in spec.outputs)):
            raise ModelError(
                f"model {spec.name!r} has a damaged calibration: it needs a window, pixels and scenes, and for each of "
                f"{' '.join(spec.outputs)} a curve of finite numbers whose detail rises and whose error never falls"
            )
        bands = {band: Curve(*(tuple(curves[band][axis]) for axis in Curve._fields)) for band in spec.outputs}
        return cls(kept["window"], bands, tuple(kept["scenes"]), kept["pixels"])

    def to_dict(self) -> dict[str, Any]:
        """What `of` reads, ready for JSON."""
        bands = {
            band: {axis: list(points) for axis, points in curve._asdict().items()} for band, curve in self.bands.items()
        }
        return asdict(self) | {"bands": bands, "scenes": list(self.scenes)}

    def context(self, halo: int, scale: int) -> int:
        """LR pixels to each side that the expected error depends on, of a model with this halo."""
        return max(halo, _BICUBIC) + -(-(self.window // 2) // scale)

    def expected_error(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Expected absolute error, reflectance, of SR reflectance (batch, band, y * scale, x * scale) made of LR."""
        curves = self.bands.values()
        errors = [
            [curve.at(local_rms(plane, self.window)) for plane, curve in zip(image, curves, strict=True)]
            for image in added(sr, lr)
        ]
        return torch.from_numpy(np.array(errors))


def added(sr: Tensor, lr: Tensor) -> NDArray[np.float32]:
    """What the network added (batch, band, y, x), reflectance: SR - bicubic(LR)."""
    return (sr - bicubic(lr, sr.shape[-1] // lr.shape[-1])).numpy()


def local_rms(plane: NDArray[np.float32], window: int = WINDOW) -> NDArray[np.float64]:
    """Root mean square of the pixels around each pixel of a plane (y, x), in its unit; it is mirrored at its edges."""
    # The filter is a running sum: only in float64 does it not depend on where it began.
    return np.sqrt(np.maximum(uniform_filter(plane.astype(np.float64) ** 2, window), 0))


def simulated(hr: Tensor, spec: ModelSpec) -> Tensor:
    """LR reflectance (batch, band, y / scale, x / scale), as the sensor that a model is meant for would see HR."""
    return degrade(hr, PSF(spec.scale) if spec.consistency_mtf is None else PSF(spec.scale, spec.consistency_mtf))


class Tally:
    """Errors of one band, counted by detail, image after image."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, len(_EDGES) - 1))

    @property
    def pixels(self) -> int:
        """How many were counted."""
        return int(self._sums[0].sum())

    def add(self, detail: NDArray[np.float64], error: NDArray[np.float32]) -> None:
        """Count pixels: of each the detail and the absolute error, reflectance, one-dimensional."""
        places = np.digitize(detail, _EDGES) - 1
        new = [np.bincount(places, weights, minlength=len(_EDGES) - 1) for weights in (None, detail, error)]
        self._sums = self._sums + new

    def curve(self) -> Curve:
        """The rising curve that is nearest to the errors, weighted by pixels.

        Raises:
            ModelError: Nothing was counted.
        """
        from scipy.optimize import isotonic_regression

        counts, detail, errors = self._sums[:, self._sums[0] > 0]
        if not counts.size:
            raise ModelError(NOTHING)
        below = (np.cumsum(counts) - counts / 2) / counts.sum()
        quantiles = [*np.linspace(0, TAIL[0], KNOTS - len(TAIL) + 1), *TAIL[1:]]
        group = np.searchsorted(quantiles, below, "right")
        counts, detail, errors = (
            [part[group == one].sum() for one in np.unique(group)] for part in (counts, detail, errors)
        )
        weights = np.array(counts)
        rising = isotonic_regression(np.array(errors) / weights, weights=weights).x
        return Curve(tuple(map(float, np.array(detail) / weights)), tuple(map(float, rising)))


class Reliability(NamedTuple):
    """Of pixels in order of the error that was expected of them, in groups of equal size: what it was on average."""

    expected: tuple[float, ...]
    """Mean expected error of each group, reflectance."""
    actual: tuple[float, ...]
    """Mean absolute error of each group, reflectance."""
    rank_correlation: float
    """Spearman's, between expected and absolute errors of single pixels."""


def reliability(expected: NDArray[Any], error: NDArray[Any], *, groups: int = 10) -> Reliability:
    """How far expected errors are those that occur; both one-dimensional, reflectance.

    Args:
        expected: What was expected of each pixel.
        error: The absolute error of each.
        groups: Number of groups.
    """
    from scipy.stats import spearmanr

    order = np.argsort(expected, kind="stable")
    means = (
        tuple(float(part.mean()) for part in np.array_split(values[order], groups)) for values in (expected, error)
    )
    return Reliability(next(means), next(means), float(spearmanr(expected, error).statistic))


def _is_curve(curve: object) -> bool:
    """Whether both axes of a stored curve are numbers of the same count, finite, of at least 0, and rise."""
    if not isinstance(curve, Mapping):
        return False
    axes = [curve.get(axis) for axis in Curve._fields]
    if not all(
        isinstance(axis, list | tuple) and 0 < len(axis) <= _POINTS and all(map(is_number, axis)) for axis in axes
    ):
        return False
    detail, error = (np.array(axis, np.float64) for axis in axes)
    if len(detail) != len(error) or min(detail[0], error[0]) < 0:
        return False
    return bool((np.diff(detail) > 0).all() and (np.diff(error) >= 0).all())
