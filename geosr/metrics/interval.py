"""How sure a mean over scenes is."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

RESAMPLES = 9999
"""Bootstrap samples: SciPy's default."""


class Interval(NamedTuple):
    """A mean and the interval that 95 % of such intervals hold the true one in."""

    mean: float
    low: float
    """NaN where one value, or none, says nothing about the spread."""
    high: float
    """Likewise."""


def bootstrap(values: Iterable[float], *, confidence: float = 0.95) -> Interval:
    """Mean of values, such as one figure of each scene, with its bootstrap interval; in their unit.

    Args:
        values: Figures of scenes or patches; NaN ones are left out.
        confidence: Share of such intervals that hold the true mean, between 0 and 1. Of few values it is less.

    >>> bootstrap([1.0, 2.0, 4.0, 7.0, 3.3])
    Interval(mean=3.46, low=2.0, high=5.66)
    >>> bootstrap([1.0])
    Interval(mean=1.0, low=nan, high=nan)

    References:
        B. Efron, "Better bootstrap confidence intervals", J. Am. Stat. Assoc. 82, 1987 (BCa).
    """
    from scipy import stats

    known = np.array([value for value in map(float, values) if not np.isnan(value)])
    if known.size < 2:
        return Interval(float(known.mean()) if known.size else np.nan, np.nan, np.nan)
    mean = float(known.mean())
    if np.ptp(known) == 0:  # of which SciPy cannot say anything
        return Interval(mean, mean, mean)
    generator = np.random.default_rng(0)
    found = stats.bootstrap(
        (known,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, method="BCa", random_state=generator
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))
