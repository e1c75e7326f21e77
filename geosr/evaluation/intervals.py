"""How sure a mean is: intervals that resampling scenes, or the patches of one, gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosr.evaluation.parts import Patches
from geosr.metrics import bootstrap

CONFIDENCE = 0.95
RESAMPLES, BATCH = 2000, 50
SEED = 0
"""The same figures have the same intervals."""
FEWEST = 3
"""Scenes or patches below which there is nothing to resample."""


@dataclass(frozen=True)
class Interval:
    """A mean and, where there is enough to tell, the interval that holds it with 95 % confidence."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    over: str = ""
    """What was resampled: ``scenes`` or ``patches``; empty where nothing was."""


def over_scenes(values: Sequence[float]) -> Interval:
    """Mean over scenes, those without the figure left out, with its interval where there are three or more."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < FEWEST or not np.isfinite(known).all():
        return Interval(float(np.mean(known)) if known else math.nan)
    return Interval(*bootstrap(known, confidence=CONFIDENCE), "scenes")


def over_patches(name: str, value: float, patches: Patches, method: str, reference: str) -> Interval:
    """A figure of one scene with the interval that resampling its patches gives.

    Whole patches are drawn with their pixels, so that the interval belongs to the figure of the scene, which is not a
    mean of the patches' figures. Neighbouring patches are alike, which makes it too narrow rather than too wide.

    Args:
        name: ``psnr``, ``psnr_gain``, ``rmse`` or ``sam``; others get no interval.
        value: The figure of the scene.
        patches: Its patches.
        method: Whose figure it is.
        reference: The method that a gain is over.
    """
    used = patches.pixels > 0
    if used.sum() < FEWEST or method not in patches.square:
        return Interval(value)
    weight = patches.pixels[used].astype(float)
    squares, theirs, angles = (
        column[used] for column in (patches.square[method], patches.square[reference], patches.angle[method])
    )

    def mean(values: NDArray[np.float64], weights: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        total: NDArray[np.float64] = (values * weights).sum(axis=axis) / weights.sum(axis=axis)
        return total

    statistics: dict[str, tuple[tuple[NDArray[np.float64], ...], Callable[..., NDArray[np.float64]]]] = {
        "psnr": ((squares, weight), lambda s, w, axis: -10 * np.log10(mean(s, w, axis))),
        "rmse": ((squares, weight), lambda s, w, axis: np.sqrt(mean(s, w, axis))),
        "psnr_gain": (
            (squares, theirs, weight),
            lambda s, t, w, axis: 10 * np.log10(mean(t, w, axis) / mean(s, w, axis)),
        ),
        "sam": ((angles, weight), mean),
    }
    if name not in statistics or not squares.any():
        return Interval(value)
    columns, statistic = statistics[name]
    return Interval(value, *_percentiles(columns, statistic), "patches")


def _percentiles(
    columns: tuple[NDArray[np.float64], ...], statistic: Callable[..., NDArray[np.float64]]
) -> tuple[float, float]:
    """Ends of the percentile interval of a statistic of columns that are resampled together."""
    generator, count = np.random.default_rng(SEED), len(columns[0])
    found = []
    for _ in range(RESAMPLES // BATCH):
        drawn = generator.integers(count, size=(BATCH, count))
        found.append(statistic(*(column[drawn] for column in columns), axis=1))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(np.concatenate(found), (tail, 100 - tail))
    return float(low), float(high)
