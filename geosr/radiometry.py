"""Radiometry: how stored digital numbers (DN) encode reflectance, and which pixels are valid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from geosr.errors import RadiometryError

_SMALLEST, _LARGEST = 1e-18, 1e18  # of scales and offsets: both and their ratio fit float32


@dataclass(frozen=True)
class Radiometry:
    """How digital numbers (DN) encode reflectance: ``reflectance = DN * scale + offset``.

    A pixel is valid when it is finite and neither nodata nor saturated in every band. For every valid DN of an 8-bit
    or 16-bit type, ``to_digital(to_reflectance(dn)) == dn``.

    Raises:
        RadiometryError: A value that cannot encode reflectance.

    References:
        [1] Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), BOA_ADD_OFFSET.
    """

    scale: float
    """Reflectance per DN; 1e-4 for Sentinel-2."""
    offset: float = 0.0
    """Reflectance at DN 0; -0.1 for Sentinel-2 L2A since processing baseline 04.00 [1]."""
    nodata: int | float | None = None
    """The DN that marks an invalid pixel, or None."""
    saturated: int | float | None = None
    """The DN that marks a pixel brighter than the detector measures, or None; 65535 for Sentinel-2."""
    dtype: str = "uint16"
    """The numpy name of the stored type."""
    units: str = "reflectance"
    """What ``DN * scale + offset`` is; reflectance has 1.0 = 100 %."""

    def __post_init__(self) -> None:
        """Check every value and turn whole markers into ``int``, which numpy compares without widening the DN."""
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            raise RadiometryError(f"dtype {self.dtype!r} is unknown; give a numpy name such as 'uint16'") from None
        if dtype.kind not in "iuf":
            raise RadiometryError(f"dtype {dtype.name!r} holds no real numbers; give an integer or a float type")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise RadiometryError(f"scale {self.scale} is not allowed; reflectance per DN must be finite and above 0")
        if not _SMALLEST <= self.scale <= 1 / _SMALLEST:
            raise RadiometryError(
                f"scale {self.scale:g} is not allowed: float32 reflectance cannot hold it; Sentinel-2 has 1e-4"
            )
        if not math.isfinite(self.offset):
            raise RadiometryError(f"offset {self.offset} is not allowed; reflectance at DN 0 must be finite")
        if abs(self.offset) > (self.scale * 2**22 if dtype.kind in "iu" else _LARGEST):
            raise RadiometryError(
                f"offset {self.offset:g} drowns scale {self.scale:g}: float32 reflectance cannot hold both; check them"
            )
        object.__setattr__(self, "dtype", dtype.name)
        for name in ("nodata", "saturated"):
            marker = getattr(self, name)
            if marker is None:
                continue
            if not representable(marker, dtype):
                raise RadiometryError(f"{name} {marker} does not fit {_describe(dtype)}")
            marker = int(marker) if dtype.kind in "iu" else float(marker)
            object.__setattr__(self, name, marker)

    def valid(self, dn: ArrayLike) -> NDArray[np.bool_]:
        """Where every band of a pixel is finite, not nodata and not saturated; shape ``(y, x)``.

        Args:
            dn: Digital numbers, ``(band, y, x)``.

        >>> Radiometry(scale=1e-4, nodata=0).valid(np.uint16([[[7, 0]], [[7, 7]]]))
        array([[ True, False]])
        """
        dn = np.asarray(dn)
        invalid = np.zeros(dn.shape[1:], dtype=bool)
        if dn.dtype.kind == "f":
            invalid |= ~np.isfinite(dn).all(axis=0)
        for marker in (self.nodata, self.saturated):
            if marker is not None and not math.isnan(marker):
                invalid |= (dn == marker).any(axis=0)
        return ~invalid

    def to_reflectance(
        self, dn: ArrayLike, *, valid: NDArray[np.bool_] | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Reflectance (1.0 = 100 %) of digital numbers, ``(band, y, x)``; invalid pixels become NaN.

        Args:
            dn: Digital numbers, ``(band, y, x)``.
            valid: The valid pixels ``(y, x)`` where they are known already, else :meth:`valid`.
            out: Where to write it, by default a new array.

        >>> Radiometry(scale=1e-4, offset=-0.1, nodata=0).to_reflectance(np.uint16([[[1000, 3000, 0]]]))
        array([[[0. , 0.2, nan]]], dtype=float32)
        """
        dn = np.asarray(dn)
        valid = self.valid(dn) if valid is None else valid
        # (DN + offset / scale) / (1 / scale): no digits are lost where DN * scale and offset nearly cancel, and 10000,
        # unlike 1e-4, is exact in binary.
        if self.offset:
            dn = np.add(dn, np.float32(self.offset / self.scale), out=out, dtype=np.float32, casting="same_kind")
        reflectance = np.divide(dn, np.float32(1 / self.scale), out=out, dtype=np.float32, casting="same_kind")
        if not valid.all():
            reflectance[:, ~valid] = np.nan
        return reflectance

    def to_digital(self, reflectance: ArrayLike, *, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Digital numbers of reflectance, ``(band, y, x)``; NaN becomes nodata, and nothing else does.

        Integers are rounded to the nearest and clipped to the range of the type. A valid value that would fall on
        nodata or on the saturation marker moves to the neighbouring DN. Without nodata, NaN becomes 0 in integers.

        Args:
            reflectance: Reflectance, ``(band, y, x)``; whatever is not finite is invalid.
            dtype: The type to write, by default the stored one.

        Raises:
            RadiometryError: Nodata does not fit `dtype`.

        >>> Radiometry(scale=1e-4, offset=-0.1, nodata=0).to_digital(np.float32([[[0.2, -0.1, np.nan]]]))
        array([[[3000,    1,    0]]], dtype=uint16)
        """
        target = np.dtype(self.dtype if dtype is None else dtype)
        if self.nodata is not None and not representable(self.nodata, target):
            raise RadiometryError(f"nodata {self.nodata} does not fit {_describe(target)}; choose another type")
        integer = target.kind in "iu"
        # float32 holds every 8-bit and 16-bit integer; wider types need more digits.
        work = np.float32 if target.itemsize <= (2 if integer else 4) else np.float64
        reflectance = np.asarray(reflectance)
        finite = np.isfinite(reflectance)
        complete = bool(finite.all())
        values = np.multiply(reflectance, work(1 / self.scale), dtype=work)
        values -= work(self.offset / self.scale)
        if integer:
            np.rint(values, out=values)
            np.clip(values, *_range(target), out=values)
        fill = self.nodata if self.nodata is not None else 0 if integer else math.nan
        if not complete:
            values[~finite] = fill
        dn = values.astype(target, copy=False)
        for marker in (self.nodata, self.saturated):
            if marker is None or math.isnan(marker) or not representable(marker, target):
                continue
            taken = dn == marker
            if not complete:
                taken &= finite
            if taken.any():
                dn[taken] = self._neighbour(marker, target)
        return dn

    def with_nodata(self) -> Radiometry:
        """This encoding with a value for invalid pixels: its nodata, else 0 in integer types and NaN in float types.

        >>> Radiometry(scale=1e-4).with_nodata().nodata
        0
        """
        if self.nodata is not None:
            return self
        return replace(self, nodata=0 if np.dtype(self.dtype).kind in "iu" else math.nan)

    def _neighbour(self, marker: int | float, dtype: np.dtype) -> int | float:
        """The DN closest to `marker` that marks nothing."""
        if dtype.kind == "f":
            return float(np.nextafter(dtype.type(marker), dtype.type(math.copysign(math.inf, -marker))))
        low, high = _range(dtype)
        candidates = (int(marker) + step for step in (1, -1, 2, -2))
        return next(dn for dn in candidates if low <= dn <= high and dn not in (self.nodata, self.saturated))


def storable(values: NDArray[Any], encoding: Radiometry) -> NDArray[Any]:
    """The values, of which those that ``encoding`` would not bring back are replaced by the nearest that it does.

    xarray and GDAL encode values as integers when they write them: one that falls on nodata would become invalid, and
    one beyond the type's range anything. Values in between stay as they are, unrounded.

    Args:
        values: What ``DN * scale + offset`` of the encoding is, ``(band, y, x)``; NaN where invalid.
        encoding: How they will be written; nothing is done for float types.

    >>> storable(np.float32([[[0.2, 0.00003, -1, np.nan]]]), Radiometry(scale=1e-4, nodata=0))
    array([[[2.e-01, 1.e-04, 1.e-04,    nan]]], dtype=float32)
    """
    if np.dtype(encoding.dtype).kind not in "iu":
        return values
    exact = (values - np.float64(encoding.offset)) / encoding.scale
    low, high = _range(np.dtype(encoding.dtype))
    near = 0.51  # of a DN: whoever encodes rounds a little differently
    lost = (exact < low - near) | (exact > high + near)
    for marker in (encoding.nodata, encoding.saturated):
        if marker is not None:
            lost |= np.abs(exact - marker) < near
    if not lost.any():
        return values
    back = encoding.to_digital(values) * np.float64(encoding.scale) + encoding.offset
    return np.where(lost, back.astype(values.dtype), values)


def representable(value: int | float, dtype: DTypeLike) -> bool:
    """Whether a DN of `dtype` can hold `value`.

    >>> representable(65535, "uint16"), representable(-9999, "uint16"), representable(float("nan"), "float32")
    (True, False, True)
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return not math.isfinite(value) or bool(np.isfinite(np.float64(value).astype(dtype)))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return math.isfinite(value) and value == int(value) and low <= value <= high


def _range(dtype: np.dtype) -> tuple[int, int]:
    """Lowest and highest integer that survives a cast from the float type that `to_digital` works in."""
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    # float64 rounds 2**63 - 1 up to 2**63, which does not fit int64.
    return (low, high) if dtype.itemsize <= 4 else (low, high - 2047)


def _describe(dtype: np.dtype) -> str:
    if dtype.kind == "f":
        return dtype.name
    return f"{dtype.name} ({np.iinfo(dtype).min} to {np.iinfo(dtype).max})"
