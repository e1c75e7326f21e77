"""Plausibility: whether values can be reflectance under the encoding that is known of them.

Units are never taken from values; values that contradict their units, and fill values that nothing marks, are asked
about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosr.errors import RadiometryError
from geosr.io.claims import BRIGHT, Claims, Encoded, claim, shared_encoding, who_says
from geosr.radiometry import Radiometry

LOWEST, HIGHEST = -1.0, 20.0
"""Reflectance that no pixel leaves, in shadow and in sun glint."""
_MARKER, _MARKED = -9999.0, -0.5
"""The commonest fill value, and the reflectance below which it is one: as int16 with scale 1e-4 it is -0.9999."""
_SAMPLE = 2**15  # values of each band that percentiles are taken of
_FEW = 16  # values that say too little of a distribution
_FILLS = 2  # distinct values beyond any reflectance: so few mark invalid pixels, more are another unit
_VANISHED = 5e-3  # reflectance: 98 of 100 pixels of the darkest real tile, clear deep water, reach 6e-2
_TINY = 2e-4  # reflectance, of values that have no scale: two DN of Sentinel-2, a third of its noise
_DARK = 1e-3  # reflectance that some pixel of every image exceeds
_COUNTED = 100  # digital numbers that no measurement of zero light reaches
_TOO_DARK = -0.05  # reflectance that more than 5 of 100 pixels of a band are below only after one offset too many
_OUTLIVE = ("attributes", "encoding")  # what outlives the values that it describes: xarray keeps it in calculations
_FACTORS = range(2, 17)  # how many times finer models make images


@dataclass(frozen=True)
class Plausibility:
    """What is asked of the values of some bands; it may be pickled, and each task of a lazy result carries it."""

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
    bands: tuple[str, ...] = ()
    """Their names, for messages."""
    claims: Claims = field(default_factory=lambda: Claims(form="argument"))
    """What the user states, in whose words the units are asked for."""

    def require(self, values: NDArray[Any], valid: NDArray[np.bool_], *, step: int | None = 1) -> None:
        """Fail where values ``(band, y, x)`` cannot be reflectance: a whole image, a part of it or a sample.

        Args:
            values: Digital numbers.
            valid: Pixels that count, ``(y, x)``, or values that do, ``(band, y, x)``.
            step: Rows and columns from one value to the next; None where their places are unknown.

        Raises:
            RadiometryError: They cannot; the message says what was found and what to state.
        """
        wide = np.broadcast_to(valid, values.shape)
        sample = [band[here] for band, here in zip(values, wide, strict=True)]
        sample = [band[:: max(1, band.size // _SAMPLE)] for band in sample]
        lit = np.concatenate([np.empty(0), *(band[band != 0] for band in sample)]).astype(np.float64)
        self._require_unit(lit)
        self.require_range(values, wide, step=step)
        if lit.size >= _FEW:
            self._require_brightness(lit)
            self._require_darkness(sample)

    def require_range(
        self,
        values: NDArray[Any],
        valid: NDArray[np.bool_],
        *,
        corner: tuple[int, int] = (0, 0),
        step: int | None = 1,
    ) -> None:
        """Fail where a value ``(band, y, x)`` is none that any surface reflects: a fill value, most likely.

        It costs two comparisons of each value, and none of types that hold no such value.

        Args:
            values: Digital numbers.
            valid: As for :meth:`require`.
            corner: Row and column of the first value, for the message.
            step: As for :meth:`require`.

        Raises:
            RadiometryError: It is; the message names its place and the setting.
        """
        if values.dtype.kind in "iu" and not self._beyond(np.array(_ends(values.dtype))).any():
            return
        beyond = self._beyond(values)
        beyond &= valid
        if not beyond.any():
            return
        band, row, column = np.unravel_index(int(beyond.argmax()), beyond.shape)
        value = values[band, row, column]
        at = [f"band {self.bands[band]}"] if len(self.bands) == len(values) else []
        if step is not None:
            about = "about " if step > 1 else ""
            at += [f"{about}row {corner[0] + step * row}", f"column {corner[1] + step * column}"]
        place = f" ({', '.join(at)})" if at else ""
        raise RadiometryError(
            f"{self.name} holds {_spelt(value)}{place}, a reflectance of {self._reflectance(float(value)):.6g}, which "
            f"no surface has; where it marks invalid pixels, {self._mark(value)}; else {self._remedy('scale')}"
        )

    @property
    def doubtful(self) -> bool:
        """Whether a sample of the values can say more than :meth:`require_range` of all of them does.

        Nothing is asked of integers whose type holds reflectance alone by tags of a usual size, of what the metadata of
        a product explain, and of reflectance that is tagged as such.
        """
        scale, dtype = self.radiometry.scale, np.dtype(self.radiometry.dtype)
        if self.assumed or self.stated & {"scale", "offset", "sensor"}:
            return True
        if self.said.get("offset", "").startswith("product"):
            return False
        if dtype.kind == "f":
            return (scale, self.radiometry.offset) != (1, 0)
        return bool(self._beyond(np.array(_ends(dtype))).any()) or scale * _COUNTED < _DARK

    @property
    def _limits(self) -> tuple[float, float]:
        """Digital numbers of the lowest and the highest reflectance."""
        low, high = ((edge - self.radiometry.offset) / self.radiometry.scale for edge in (LOWEST, HIGHEST))
        return low, high

    def _beyond(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where values are no reflectance."""
        low, high = self._limits
        beyond: NDArray[np.bool_] = (values < low) | (values > high)
        if low <= _MARKER < (_MARKED - self.radiometry.offset) / self.radiometry.scale:
            beyond |= values == _MARKER
        return beyond

    def _reflectance(self, dn: float) -> float:
        return dn * self.radiometry.scale + self.radiometry.offset

    def _require_unit(self, lit: NDArray[np.float64]) -> None:
        """Fail where most values are too large: they are in another unit, such as percent or digital numbers."""
        scale = self.radiometry.scale
        if "scale" in self.stated and scale in _FACTORS:
            raise RadiometryError(
                f"{self.name}: scale={scale:g} is reflectance per digital number, and no data have so much (1.0 = "
                "100 %); how many times finer the result is belongs to the model: choose it with factor=2 or factor=4"
            )
        beyond = self._beyond(lit)
        if len(np.unique(lit[beyond])) <= _FILLS:  # a fill value, of which the range is asked
            lit = lit[~beyond]
        if not lit.size:
            return
        median, bright = (float(np.percentile(lit, share)) for share in (50, 98))
        holds = f"values with a median of {median:.10g}"
        if self.assumed and bright > BRIGHT:
            # Zeros, of which a collar is made, and the median of a dark image say little; its bright end does.
            holds = holds if median > BRIGHT else f"values of which 2 of 100 that are not 0 lie above {bright:.6g}"
            nodata = claim(self.radiometry.nodata, "") if np.isfinite(self.radiometry.nodata or 0) else None
            raise RadiometryError(self.claims.silence(self.name, self.radiometry.dtype, holds, nodata=nodata))
        # Tags of a file are trusted as far as values can be reflectance at all; so are users who say that they are.
        trusted = scale == 1 if "scale" in self.stated else self.said.get("scale", "nothing") not in _OUTLIVE
        if self._reflectance(median) > (HIGHEST if trusted else BRIGHT):
            raise RadiometryError(
                f"{self.name} holds {self.radiometry.dtype} {holds}; scale {scale:g} ({self.said['scale']}) makes that "
                f"a reflectance of {self._reflectance(median):.6g}, where surfaces stay near 1; {self._remedy('scale')}"
            )

    def _require_brightness(self, lit: NDArray[np.float64]) -> None:
        """Fail where the brightest pixels are darker than any image: by a wrong scale, or values scaled already."""
        scale, floats = self.radiometry.scale, np.dtype(self.radiometry.dtype).kind == "f"
        holds = f"{self.name} holds {self.radiometry.dtype} values up to"
        highest, bright = float(np.abs(lit).max()), float(np.percentile(np.abs(lit), 98))
        dark = bright * scale < _VANISHED if "scale" in self.stated else highest * scale < _DARK
        if highest >= _COUNTED and dark:
            raise RadiometryError(
                f"{holds} {highest:.6g}, of which scale {scale:g} ({self.said['scale']}) makes a reflectance of "
                f"{highest * scale:.3g} at most, darker than any image; {self._remedy('scale')}"
            )
        digits = lit if scale != 1 else lit * 1e4
        whole = np.abs(digits - np.rint(digits)) < 1e-2  # digital numbers are, and reflectance that was made of them
        if not floats or whole.mean() > 0.5:
            return
        if scale == 1 and bright < _TINY and "scale" not in self.stated:
            raise RadiometryError(
                f"{holds} {bright:.3g}, too little for reflectance (1 = 100 %), as if they had been scaled twice; give "
                "the scale that makes them reflectance, such as scale=1e4, or scale=1 if they are right"
            )
        if scale < 1 and bright < BRIGHT and bright * scale < _VANISHED:
            offset = self.radiometry.offset
            further = f", offset={offset:g} where that is to be added yet" if offset else ""
            raise RadiometryError(
                f"{holds} {bright:.3g}, which look like reflectance already; scale {scale:g} ({self.said['scale']}) "
                f"would make that {bright * scale:.1g}. Values that are reflectance already: scale=1{further}; or "
                f"{self._remedy('scale')}"
            )

    def _require_darkness(self, sample: Sequence[NDArray[Any]]) -> None:
        """Fail where much of a band is darker than black, because an offset was subtracted once too often."""
        scale, offset = self.radiometry.scale, self.radiometry.offset
        if "offset" in self.stated or self.said.get("offset") not in _OUTLIVE:
            return
        for band in sample:
            lit = band[band != 0]
            if lit.size >= _FEW and (dark := float(np.percentile(lit, 5)) * scale + offset) < _TOO_DARK:
                said = f"scale {scale:g} and offset {offset:g} ({self.said['offset']}) make"
                raise RadiometryError(
                    f"{self.name} holds {self.radiometry.dtype} values that {said} a reflectance below {dark:.3g} in "
                    "5 of 100 pixels of a band, darker than black, as if an offset had been subtracted already; give "
                    f"offset={offset:g} if it is right, or {self._remedy('offset')}"
                )

    def _mark(self, value: Any) -> str:
        """How to say that a value marks invalid pixels."""
        nodata = self.radiometry.nodata
        tag = f"gdal_edit.py -a_nodata {_spelt(value)} FILE" if self.claims.form == "flag" else "_FillValue"
        if nodata is None or math.isnan(nodata):
            return f"give nodata={_spelt(value)}, or tag the data: {tag}"
        return f"give those pixels the nodata of the data, {_spelt(nodata)}, or correct that: {tag}"

    def _remedy(self, fact: str) -> str:
        """What to do about a wrong scale or offset, by who says it."""
        said = self.said.get(fact, "nothing")
        if fact in self.stated or said.startswith("nothing"):
            return "give another scale and offset; Sentinel-2 has scale=1e-4"
        if said in _OUTLIVE:
            return f"drop or correct scale_factor and add_offset in the {said} and state what the values are"
        if said.startswith("GDAL"):
            return "correct a wrongly tagged file: gdal_edit.py -scale S -offset O FILE"
        return f"correct scale and offset, which come from: {said}"


def plausibility_of(
    layers: Sequence[Encoded],
    bands: tuple[str, ...],
    claims: Claims,
    *,
    name: str,
    dtype: str,
    extremes: Callable[[], tuple[float, float]],
) -> Plausibility:
    """What is to be asked of the values of some bands of a scene.

    Args:
        layers: What is known of each band.
        bands: Their names.
        claims: What the user states.
        name: What messages call the scene.
        dtype: The numpy name of the stored type.
        extremes: The lowest and the highest digital number, where the unit is unknown.

    Raises:
        RadiometryError: Nothing says what integers mean, or the bands differ.
    """
    values = shared_encoding(layers, name=name)
    silent, floats = values["scale"] is None, np.dtype(dtype).kind == "f"
    if silent and not floats:
        low, high = extremes()
        observed = f"values from {low:.10g} to {high:.10g}"
        raise RadiometryError(claims.silence(name, dtype, observed, nodata=layers[0].nodata))
    scale, offset = 1.0 if values["scale"] is None else values["scale"], values["offset"] or 0.0
    nodata = math.nan if values["nodata"] is None and floats else values["nodata"]
    radiometry = Radiometry(scale, offset, nodata, values["saturated"], dtype)
    said = {fact: who_says(getattr(layer, fact) for layer in layers) for fact in ("scale", "offset")}
    return Plausibility(name, radiometry, said, silent, claims.stated, bands, claims)


def _ends(dtype: np.dtype) -> tuple[float, float]:
    """The lowest and the highest value of an integer type."""
    held = np.iinfo(dtype)
    return float(held.min), float(held.max)


def _spelt(value: Any) -> str:
    """A number in as few digits as its type needs, whole ones without a point.

    >>> _spelt(np.float32(-9999)), _spelt(np.float32(1e20)), _spelt(np.int16(-32768))
    ('-9999', '1e+20', '-32768')
    """
    return str(value).removesuffix(".0")
