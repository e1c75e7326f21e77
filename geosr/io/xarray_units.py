"""Units of xarray objects: what attributes and encoding say of values, and what has been done to them already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from geosr.errors import RadiometryError
from geosr.io.claims import claim
from geosr.io.source import Said, StoredBand
from geosr.radiometry import Radiometry, representable

State = Literal["raw", "masked", "decoded"]
"""Of values in memory: as they are stored; likewise, but NaN where invalid; or scaled and NaN where invalid."""

SCALING = {"scale_factor", "add_offset"}
_FILLS = ("_FillValue", "missing_value", "nodata")
ENCODING_WORDS = {*SCALING, *_FILLS, "flag_values", "flag_meanings", "units", "dtype", "rasterio_dtype", "fill_value"}
"""Words of attributes and encodings that say what numbers mean."""


@dataclass(frozen=True)
class Units:
    """What the values of some bands are."""

    values: Radiometry
    """How the values in memory encode reflectance."""
    stored: Radiometry | None
    """How those values are encoded as integers when they are written; None where they are not."""
    state: State
    assumed: bool
    """Whether nothing says that they are reflectance; only values near 1 may be taken for it."""
    said: Mapping[str, str]
    """Who says scale, offset and nodata, in words."""


def stored_band(array: xr.DataArray, index: int | None) -> tuple[StoredBand, State]:
    """What attributes and encoding say of one band, and what has been done to its values already."""
    attrs, encoding, dtype = array.attrs, array.encoding, array.dtype
    floats = dtype.kind == "f"
    if dtype.kind not in "iuf":
        raise RadiometryError(f"{array.name!r} holds {dtype} values; reflectance needs an integer or a float type")
    state: State = "raw"
    held, source, stored = attrs, "attributes", dtype
    if floats and not any(_number(attrs.get(key)) is not None for key in _FILLS):
        if SCALING & encoding.keys() and not SCALING & attrs.keys():
            state = "decoded"
        elif any(key in encoding for key in _FILLS):
            state = "masked"
    if state != "raw":
        stored = np.dtype(encoding.get("dtype", dtype))
    if state == "decoded":
        held, source = encoding, "encoding"
    scale = offset = None
    stac_fill: list[float | None] = []
    if SCALING & held.keys():
        scale = claim(_number(held.get("scale_factor", 1)), source)
        offset = claim(_number(held.get("add_offset", 0)), source)
    elif not floats and (stac := _stac_bands(array, index)):
        scale, offset = (claim(stac.get(word, other), "raster:bands") for word, other in (("scale", 1), ("offset", 0)))
        stac_fill = [_number(stac.get("nodata"))]
    fills = [*(_number({**encoding, **attrs}.get(key)) for key in _FILLS), *stac_fill]
    fill = next((value for value in fills if value is not None and representable(value, stored)), None)
    saturated = None
    if attrs.get("flag_meanings") == "saturated":
        saturated = Said(float(np.ravel(attrs["flag_values"])[0]), "attributes")
    nodata = claim(fill, "attributes" if state == "raw" else "encoding")
    return StoredBand(None, stored.name, scale, offset, nodata, saturated), state


def _number(value: Any) -> float | None:
    """The number in an attribute, or None."""
    if value is None or np.size(value) != 1 or isinstance(value, str | bytes):
        return None
    return float(np.ravel(value)[0])


def _stac_bands(array: xr.DataArray, index: int | None) -> Mapping[str, Any] | None:
    """What STAC's ``raster:bands`` says of a band, where a cube carries it as a coordinate.

    Earth Search says an offset of data that it has applied already: then it is as good as silent.
    """
    applied = array.coords.get("earthsearch:boa_offset_applied")
    coord = array.coords.get("raster:bands")
    if coord is None or (applied is not None and np.any(applied.values.astype(bool))):
        return None
    held = coord.values.ravel()[index or 0 if coord.size > 1 else 0]
    held = held[0] if isinstance(held, list | tuple) and len(held) == 1 else held
    return held if isinstance(held, Mapping) and held.keys() & {"scale", "offset"} else None


def units_of(
    known: Mapping[str, float | None], state: State, *, dtype: str, stored: str, said: Mapping[str, str]
) -> Units:
    """The units of values that were treated so."""
    scale, offset = known["scale"], known["offset"] or 0.0
    floats = np.dtype(dtype).kind == "f"
    integers = np.dtype(stored).kind in "iu"
    nodata, saturated = known["nodata"], known["saturated"]
    if state == "raw":
        if nodata is None and floats:
            nodata = np.nan
        values = Radiometry(scale or 1.0, offset, nodata, saturated, dtype)
        return Units(values, None, state, scale is None, said)
    if state == "masked":
        values = Radiometry(scale or 1.0, offset, np.nan, saturated, dtype)
        on_disk = Radiometry(1.0, 0.0, nodata, saturated, stored) if integers else None
        return Units(values, on_disk, state, scale is None, said)
    assert scale is not None  # which is why they are decoded
    if saturated is not None:  # rounded as xarray rounds it
        saturated = float(np.array(saturated, dtype) * np.array(scale, dtype) + np.array(offset, dtype))
    on_disk = Radiometry(scale, offset, nodata, known["saturated"], stored) if integers else None
    return Units(Radiometry(1.0, 0.0, np.nan, saturated, dtype), on_disk, state, False, said)
