"""Units of xarray objects: what attributes and encoding say of values, and what has been done to them already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from geosr.errors import RadiometryError
from geosr.io import cf
from geosr.io.claims import claim
from geosr.io.source import Said, StoredBand, said_encoding
from geosr.radiometry import Radiometry, representable

State = Literal["raw", "masked", "decoded"]
"""Of values in memory: as they are stored; likewise, but NaN where invalid; or scaled and NaN where invalid."""

SCALING = {*cf.PACKING, *cf.PACKING.values()}
_FILLS = ("_FillValue", "missing_value", "nodata")
ENCODING_WORDS = {*SCALING, *_FILLS, "flag_values", "flag_meanings", "units", "dtype", "rasterio_dtype", "fill_value"}
"""Words of attributes and encodings that say what numbers mean."""


@dataclass(frozen=True)
class Units:
    """What the values of some bands are."""

    values: Radiometry
    """How the values in memory encode reflectance."""
    stored: Radiometry | None
    """How those values are encoded as integers when they are written; None where they are not, or bands differ."""
    state: State
    assumed: bool
    """Whether nothing says that they are reflectance; only values near 1 may be taken for it."""
    said: Mapping[str, str]
    """Who says scale, offset and nodata, in words."""
    words: Mapping[str, Any] | None
    """The words of CF that say the same of other values of these bands; None where no words are the same for all."""


def stored_band(
    array: xr.DataArray, index: int | None, place: int | None, count: int | None
) -> tuple[StoredBand, State]:
    """What attributes and encoding say of one band, and what has been done to its values already.

    Args:
        array: The array that the band is in.
        index: Its position along the band dimension; None where there is no such dimension.
        place: Its position in lists that attributes hold for all bands; None where that is unknown.
        count: How long those have to be; None: any length.

    Raises:
        RadiometryError: The values are no numbers, or the attributes that say what they mean are none.
    """
    attrs, encoding, dtype = array.attrs, array.encoding, array.dtype
    name = "the array" if array.name is None else repr(str(array.name))
    floats = dtype.kind == "f"
    if dtype.kind not in "iuf":
        raise RadiometryError(f"{array.name!r} holds {dtype} values; reflectance needs an integer or a float type")

    def said(held: Mapping[Any, Any], source: str, place: int | None) -> tuple[Said | None, Said | None]:
        scale, offset = (cf.packing_fact(held, key, name, place, count) for key in cf.PACKING)
        return said_encoding(scale, offset, source)

    state: State = "raw"
    scale, offset = said(attrs, "attributes", place)
    packed = _encoded_type(encoding.get("dtype", dtype), name)
    if floats and all(cf.as_number(attrs.get(key)) is None for key in _FILLS):
        decoded = (
            (None, None) if SCALING & attrs.keys() else said(encoding, "encoding", index if place is None else place)
        )
        if decoded != (None, None):
            state, (scale, offset) = "decoded", decoded
        elif packed.kind in "iu" or any(key in encoding for key in _FILLS):
            state = "masked"
    stored = dtype if state == "raw" else packed
    stac_fill = None
    if scale is None and not floats and (stac := _stac_bands(array, index)):
        scale, offset = (
            claim(cf.as_number(stac.get(word, other)), "raster:bands") for word, other in (("scale", 1), ("offset", 0))
        )
        stac_fill = stac.get("nodata")
    both = {**encoding, **attrs}
    fills = [*(cf.packing_fact(both, key, name, place, count) for key in _FILLS), cf.as_number(stac_fill)]
    fill = next((value for value in fills if value is not None and representable(value, stored)), None)
    nodata = claim(fill, "attributes" if state == "raw" else "encoding")
    return StoredBand(None, stored.name, scale, offset, nodata, cf.saturated_value(attrs, "attributes")), state


def _encoded_type(value: Any, name: str) -> np.dtype[Any]:
    """The type that values are stored as, from an encoding."""
    try:
        return np.dtype(value)
    except TypeError as error:
        raise RadiometryError(f"{name} has dtype {value!r} in its encoding, which is no type of numbers") from error


def _stac_bands(array: xr.DataArray, index: int | None) -> Mapping[str, Any] | None:
    """What STAC's ``raster:bands`` says of a band, where a cube carries it as a coordinate.

    Earth Search says an offset of data that it has applied already: then it is as good as silent.
    """
    applied = array.coords.get("earthsearch:boa_offset_applied")
    coord = array.coords.get("raster:bands")
    if coord is None or (applied is not None and np.any(applied.values.astype(bool))):
        return None
    if not coord.size or (coord.size > 1 and (index or 0) >= coord.size):
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
    words: dict[str, Any] = {} if scale is None else {"scale_factor": float(scale), "add_offset": float(offset)}
    if state == "raw":
        if nodata is None and floats:
            nodata = np.nan
        values = Radiometry(scale or 1.0, offset, nodata, saturated, dtype)
        if words and values.nodata is not None and values.nodata == values.nodata:
            words["_FillValue"] = values.nodata
        return Units(values, None, state, scale is None, said, words)
    if state == "masked":
        values = Radiometry(scale or 1.0, offset, np.nan, saturated, dtype)
        on_disk = Radiometry(1.0, 0.0, nodata, saturated, stored) if integers else None
        return Units(values, on_disk, state, scale is None, said, words)
    assert scale is not None  # which is why they are decoded
    if saturated is not None:  # rounded as xarray rounds it
        saturated = float(np.array(saturated, dtype) * np.array(scale, dtype) + np.array(offset, dtype))
    on_disk = Radiometry(scale, offset, nodata, known["saturated"], stored) if integers else None
    return Units(Radiometry(1.0, 0.0, np.nan, saturated, dtype), on_disk, state, False, said, words)


def decoded_units(dtype: str, said: Mapping[str, str]) -> Units:
    """The units of values that are reflectance already, though each band was stored in an encoding of its own."""
    return Units(Radiometry(1.0, 0.0, np.nan, None, dtype), None, "decoded", False, said, None)
