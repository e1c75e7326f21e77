"""Plausibility: whether values can be reflectance under the encoding that is known of them.

Attributes outlive what they describe: since version 2025.11, xarray keeps ``scale_factor`` when it calculates. Units
are never taken from values; values that contradict them are asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosr.errors import RadiometryError
from geosr.io.claims import BRIGHT, require_reflectance
from geosr.radiometry import Radiometry

LOWEST, HIGHEST = -0.5, 20.0
"""Reflectance that no pixel leaves, in shadow and in sun glint; -9999 times 1e-4 does."""
_SAMPLE = 2**15  # values of each band that percentiles are taken of
_FEW = 16  # values that say too little of a distribution
_VANISHED = 5e-3  # reflectance: 98 of 100 pixels of the darkest real tile, clear deep water, reach 6e-2
_TINY = 2e-4  # reflectance, of values that have no scale: two DN of Sentinel-2, a third of its noise
_TOO_DARK = -0.05  # reflectance that more than 5 of 100 pixels of a band are below only after one offset too many


@dataclass(frozen=True)
class Plausibility:
    """What is asked of the values of some bands; each task of a lazy result carries it."""

    name: str
    """What messages call the data."""
    radiometry: Radiometry
    """How the values encode reflectance."""
    said: Mapping[str, str]
    """Who says scale and offset, in words."""
    assumed: bool
    """Whether nothing says that they are reflectance."""
    stated: frozenset[str]
    """The facts that the user has stated, who then has seen the values."""

    def require(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Fail where values ``(band, y, x)``, of which some pixels ``(y, x)`` are valid, cannot be reflectance.

        Raises:
            RadiometryError: They cannot; the message says what was found and what to state.
        """
        bands = [band[valid] for band in values]
        if not bands or not bands[0].size:
            return
        sample = [band[:: max(1, band.size // _SAMPLE)] for band in bands]
        lit = np.concatenate([band[band != 0] for band in sample]).astype(np.float64)
        self._require_unit(lit)
        self._require_range(bands)
        if lit.size >= _FEW:
            self._require_brightness(lit)
            self._require_darkness(sample)

    def _require_unit(self, lit: NDArray[np.float64]) -> None:
        """Fail where most values are too large: they are in another unit, such as percent or digital numbers."""
        if not lit.size:
            return
        scale, offset = self.radiometry.scale, self.radiometry.offset
        if self.assumed:
            require_reflectance(lit.astype(self.radiometry.dtype), self.name)
        elif (median := float(np.median(lit))) * scale + offset > BRIGHT:
            raise RadiometryError(
                f"{self.name} holds {self.radiometry.dtype} values with a median of {median:.6g}; scale {scale:g} "
                f"({self.said['scale']}) makes that a reflectance of {median * scale + offset:.6g}, where surfaces "
                f"stay near 1; {self._remedy('scale')}"
            )

    def _require_range(self, bands: list[NDArray[Any]]) -> None:
        """Fail where a value is none that any surface reflects."""
        for extreme in (min(float(band.min()) for band in bands), max(float(band.max()) for band in bands)):
            reflectance = extreme * self.radiometry.scale + self.radiometry.offset
            if not LOWEST <= reflectance <= HIGHEST:
                raise RadiometryError(
                    f"{self.name} holds {extreme:.10g}, a reflectance of {reflectance:.6g}, which no surface has; "
                    f"where it marks invalid pixels, state nodata={extreme:.10g}; else {self._remedy('scale')}"
                )

    def _require_brightness(self, lit: NDArray[np.float64]) -> None:
        """Fail where the brightest pixels are darker than any image, because values were scaled already."""
        scale, floats = self.radiometry.scale, np.dtype(self.radiometry.dtype).kind == "f"
        bright = float(np.percentile(np.abs(lit), 98))
        digits = lit if scale != 1 else lit * 1e4
        whole = np.abs(digits - np.rint(digits)) < 1e-2  # digital numbers are, and reflectance that was made of them
        if not floats or whole.mean() > 0.5:
            return
        holds = f"{self.name} holds {self.radiometry.dtype} values up to {bright:.3g}"
        if scale == 1 and bright < _TINY and "scale" not in self.stated:
            raise RadiometryError(
                f"{holds}, too little for reflectance (1 = 100 %), as if they had been scaled twice; state the scale "
                "that makes them reflectance, such as scale=1e4, or scale=1 if they are right"
            )
        if scale < 1 and bright < BRIGHT and bright * scale < _VANISHED:
            offset = self.radiometry.offset
            further = f", offset={offset:g} where that is to be added yet" if offset else ""
            raise RadiometryError(
                f"{holds}, which look like reflectance already; scale {scale:g} ({self.said['scale']}) would make that "
                f"{bright * scale:.1g}. Attributes may have been kept by arithmetic, as xarray does. Values that are "
                f"reflectance already: scale=1{further}; or {self._remedy('scale')}"
            )

    def _require_darkness(self, sample: list[NDArray[Any]]) -> None:
        """Fail where much of a band is darker than black, because an offset was subtracted once too often."""
        scale, offset = self.radiometry.scale, self.radiometry.offset
        if "offset" in self.stated:
            return
        for band in sample:
            lit = band[band != 0]
            if lit.size >= _FEW and (dark := float(np.percentile(lit, 5)) * scale + offset) < _TOO_DARK:
                said = f"scale {scale:g} and offset {offset:g} ({self.said['offset']}) make"
                raise RadiometryError(
                    f"{self.name} holds {self.radiometry.dtype} values that {said} a reflectance below {dark:.3g} in "
                    "5 of 100 pixels of a band, darker than black, as if an offset had been subtracted already; state "
                    f"offset={offset:g} if it is right, or {self._remedy('offset')}"
                )

    def _remedy(self, fact: str) -> str:
        """What to do about a wrong scale or offset, by who says it."""
        if fact in self.stated or self.said[fact] == "nothing":
            return "state another scale and offset"
        return f"drop or correct scale_factor and add_offset in the {self.said[fact]} and state what the values are"
