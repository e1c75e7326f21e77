"""Coarser copies of a scene by averaging over area, on a grid whose pixels are exact multiples of the scene's."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.errors import UsageError


def as_fraction(factor: float) -> Fraction:
    """The fraction behind a factor that was written as a decimal; 0.75 is 3/4, 0.333 is 1/3.

    Raises:
        UsageError: It is not above 0 and at most 1.
    """
    exact = Fraction(str(factor)).limit_denominator(64)
    if not 0 < exact <= 1 or abs(float(exact) - factor) > 1e-3:
        raise UsageError(f"scale {factor:g} is not allowed; --scales are from 1/64 to 1, such as 1 0.75 0.5")
    return exact


def coarser(geobox: GeoBox, factor: Fraction) -> GeoBox:
    """The grid with `factor` times the resolution and the same origin; a rest of less than a pixel is left out.

    >>> coarse = coarser(GeoBox((10, 9), Affine(10, 0, 600_000, 0, -10, 5_000_000), "EPSG:32633"), Fraction(3, 4))
    >>> tuple(coarse.shape), round(coarse.affine.a, 3)
    ((7, 6), 13.333)
    """
    height, width = (int(length * factor) for length in geobox.shape)
    return GeoBox((height, width), geobox.affine * Affine.scale(float(1 / factor)), geobox.crs)


def covered(part: slice, factor: Fraction, length: int) -> slice:
    """The fine pixels under some coarse ones, along an axis of that many fine pixels.

    >>> covered(slice(1, 3), Fraction(3, 4), 100)
    slice(1, 4, None)
    """
    return slice(int(part.start / factor), min(-int(-part.stop // factor), length))


def average(
    values: NDArray[Any], valid: NDArray[np.bool_], part: tuple[slice, slice], factor: Fraction
) -> NDArray[np.float64]:
    """Mean of `values` (band, y, x) over the area of each coarse pixel; NaN where a pixel under it is not valid.

    Weights are whole numbers, so the result does not depend on how a scene is cut into parts.

    Args:
        values: Fine pixels that :func:`covered` names for both axes of `part`.
        valid: Valid ones among them, (y, x).
        part: Rows and columns of the coarse grid.
        factor: Coarse over fine resolution.
    """
    rows, columns = (_taps(along, factor) for along in part)
    known = _gather(_gather(valid, 0, rows), 1, columns) == factor.denominator**2
    mean = np.empty((len(values), *known.shape))
    for band, fine in enumerate(values):  # one at a time: float64 is large
        np.divide(_gather(_gather(fine, 0, rows), 1, columns), factor.denominator**2, out=mean[band])
    mean[:, ~known] = np.nan
    return mean


def _taps(part: slice, factor: Fraction) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each of the fine pixels under a coarse one: which it is, counted from the part's first, and its weight.

    In units of 1/p of a fine pixel, factor = p/q, coarse pixel i covers iq..(i+1)q and fine pixel j covers jp..(j+1)p.
    """
    p, q = factor.numerator, factor.denominator
    start = np.arange(part.start, part.stop) * q
    first = start // p
    taps = []
    for tap in range(-(-q // p) + 1):
        fine = first + tap
        weight = np.minimum(start + q, (fine + 1) * p) - np.maximum(start, fine * p)
        fine = np.where(weight > 0, fine, first)  # the last tap may lie beyond the image, where its weight is 0
        taps.append((fine - int(part.start * q // p), np.maximum(weight, 0).astype(np.float64)))
    return taps


def _gather(values: NDArray[Any], axis: int, taps: list[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> NDArray[Any]:
    """Weighted sums along an axis."""
    shape = (-1, 1) if axis == 0 else (1, -1)
    total: NDArray[Any] = np.zeros(1)
    for index, weight in taps:
        total = total + values.take(index, axis) * weight.reshape(shape)
    return total
