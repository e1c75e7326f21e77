"""Views of xarray objects: reflectance, and colours to show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geosr.errors import UsageError
from geosr.io.plausibility import Plausibility
from geosr.io.xarray import Cube
from geosr.io.xarray_grid import coordinates
from geosr.sensors import shown_bands

_SAMPLE_SIDE = 512  # pixels along the longer side of what percentiles are taken of
_PERCENTILES = (1.0, 99.0)


def reflectance_of(cube: Cube) -> xr.DataArray | xr.Dataset:
    """The object as reflectance, float32, NaN where a pixel is invalid in any of its bands; lazy where it is lazy.

    Raises:
        RadiometryError: What its values mean is unknown.
    """
    cube = cube.select(cube.bands)
    return cube.rebuilt(reflectance_values(cube, cube.pixels()), cube.geobox, words=[None])


def rgb_of(cube: Cube, *, stretch: tuple[float, float] | None = None) -> xr.DataArray:
    """Red, green and blue, 0 to 1, along a last dimension ``rgb``; NaN where invalid. ``.plot.imshow()`` shows it.

    Args:
        cube: The object; without those three bands, its first is shown in grey.
        stretch: Reflectance that is shown black, and white. By default the 1st and 99th percentile, which a part of
            the pixels is read for.

    Raises:
        UsageError: The stretch is no range.
    """
    if stretch is not None and not (len(stretch) == 2 and stretch[0] < stretch[1]):
        raise UsageError(f"stretch={stretch} is no range of reflectance; give (low, high), such as (0, 0.3)")
    shown = cube.select(shown_bands(cube.bands))
    pixels = shown.pixels()
    low, high = _percentiles(shown, pixels) if stretch is None else stretch
    colours = ((reflectance_values(shown, pixels) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    dims = (*shown.leading, *shown.dims, "rgb")
    placed = {
        key: one for key, one in coordinates(shown.first, shown.dims, shown.geobox).items() if set(one.dims) <= {*dims}
    }
    placed["rgb"] = ("rgb", ["red", "green", "blue"])
    return xr.DataArray(_last(colours), placed, dims, name="rgb")


def _last(values: Any) -> Any:
    """The values with their bands along the last axis; dask and numpy share no function for it in all versions."""
    axes = list(range(values.ndim))
    return values.transpose([*axes[:-3], axes[-2], axes[-1], axes[-3]])


def _percentiles(cube: Cube, pixels: Any) -> tuple[float, float]:
    """Reflectance to show black and white."""
    step = max(1, math.ceil(max(pixels.shape[-2:]) / _SAMPLE_SIDE))
    sample = np.asarray(reflectance_values(cube, pixels[..., ::step, ::step]))
    valid = sample[np.isfinite(sample)]
    low, high = np.percentile(valid, _PERCENTILES) if valid.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def reflectance_values(cube: Cube, pixels: Any) -> Any:
    """Reflectance of values (..., band, y, x)."""
    check = cube.plausibility
    if isinstance(pixels, np.ndarray):
        return _decoded(pixels, check)
    whole = pixels.rechunk({pixels.ndim - 3: -1})
    return whole.map_blocks(_decoded, check, dtype=np.float32, meta=np.empty((0,) * pixels.ndim, np.float32))


def _decoded(values: NDArray[Any], check: Plausibility) -> NDArray[np.float32]:
    reflectance = np.empty(values.shape, np.float32)
    for place in np.ndindex(*values.shape[:-3]):
        valid = check.radiometry.valid(values[place])
        check.require(values[place], valid, step=None)
        reflectance[place] = check.radiometry.to_reflectance(values[place], valid=valid)
    return reflectance
