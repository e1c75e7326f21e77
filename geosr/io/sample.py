"""Samples: a decimated read of each band of a scene, and the statistics of its values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosr.io.layers import Layer
from geosr.io.source import Source

SIDE = 512
"""Pixels along the longer side of a sample."""


@dataclass(frozen=True)
class Statistics:
    """Lowest, middle and highest digital number (DN) of a band's sample, and how much of it is no measurement."""

    minimum: float | None
    """Of valid, unsaturated pixels, None where there are none; likewise the next two."""
    median: float | None
    maximum: float | None
    invalid: float
    """Share of pixels that are nodata, not finite or masked, 0 to 1."""
    zero: float
    """Share of pixels that are valid and hold 0."""
    saturated: float
    """Share of pixels that hold the value of saturation."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Every so many pixels of a band."""

    dn: NDArray[np.generic]
    """Digital numbers, ``(y, x)``."""
    known: NDArray[np.bool_]
    """Where they are finite, not nodata, and not masked by the file, ``(y, x)``."""
    saturated: NDArray[np.bool_]
    step: int
    """Rows and columns of the scene from one pixel to the next."""

    @classmethod
    def of(cls, source: Source, layer: Layer, shape: tuple[int, int]) -> Sample:
        """The sample of a band of a file, on the grid of a scene of this shape.

        Raises:
            InputError: It cannot be read.
        """
        step = max(1, math.ceil(max(shape) / SIDE))
        window = (slice(0, shape[0]), slice(0, shape[1]))
        rows, columns = (math.ceil(side / step) for side in shape)
        dn = source.read([layer.index], window, shape=(rows, columns))[0]
        known = np.isfinite(dn)
        if layer.nodata is not None:
            known &= dn != layer.nodata.value
        if (mask := source.mask(window, shape=(rows, columns))) is not None:
            known &= mask
        saturated = np.zeros_like(known) if layer.saturated is None else known & (dn == layer.saturated.value)
        return cls(dn, known, saturated, step)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where they are measurements, ``(y, x)``."""
        return self.known & ~self.saturated

    def statistics(self) -> Statistics:
        """The statistics of the sample."""
        kept = self.dn[self.valid]
        low, middle, high = np.percentile(kept.astype(np.float64), [0, 50, 100]).tolist() if kept.size else [None] * 3
        zero = float((self.valid & (self.dn == 0)).mean())
        return Statistics(low, middle, high, float(1 - self.known.mean()), zero, float(self.saturated.mean()))
