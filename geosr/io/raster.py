"""Raster: reflectance with its grid, its mask and its units, the value that travels between the parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.errors import GridError
from geosr.radiometry import Radiometry


@dataclass(frozen=True)
class Raster:
    """Reflectance of a scene or of a window of it, with everything that it needs to stay a measurement.

    Raises:
        GridError: The shapes do not belong together.
    """

    array: NDArray[np.float32]
    """Reflectance (1.0 = 100 %), float32 ``(band, y, x)``; invalid pixels are NaN."""
    valid: NDArray[np.bool_]
    """Where every band is a measurement, ``(y, x)``."""
    geobox: GeoBox
    """The grid: CRS, affine transform and shape ``(y, x)``."""
    bands: tuple[str, ...]
    """Band names in the order of `array`."""
    radiometry: Radiometry
    """How digital numbers encode this reflectance."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        if self.array.ndim != 3 or self.array.dtype != np.float32:
            raise GridError(f"array is {self.array.dtype} {self.array.shape}; it must be float32 (band, y, x)")
        if self.array.shape[0] != len(self.bands):
            raise GridError(
                f"array has {self.array.shape[0]} bands and {len(self.bands)} are named ({' '.join(self.bands)})"
            )
        for name, shape in (("valid", self.valid.shape), ("geobox", tuple(self.geobox.shape))):
            if shape != self.array.shape[1:]:
                raise GridError(
                    f"{name} has shape {shape} and array (y, x) = {self.array.shape[1:]}; they must be equal"
                )

    def to_digital(self) -> NDArray[Any]:
        """The digital numbers (DN) of this raster, ``(band, y, x)``; whatever is not `valid` is nodata."""
        return self.radiometry.to_digital(np.where(self.valid, self.array, np.float32(np.nan)))
