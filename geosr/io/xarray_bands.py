"""Bands of xarray objects: the dimension that they lie along, their names, and their entries in lists of attributes."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from geosr.io.xarray_grid import spatial_dims
from geosr.sensors import canonical_band

_BAND_DIMS = ("band", "bands")


def band_dim(array: xr.DataArray) -> Hashable | None:
    """The dimension of bands: by its name, or because its coordinate names some."""
    spatial = spatial_dims(array.dims) or ()
    others = [dim for dim in array.dims if dim not in spatial]
    for dim in others:
        if str(dim).lower() in _BAND_DIMS:
            return dim
    named = (dim for dim in others if dim in array.coords and array.coords[dim].dtype.kind in "OUT")
    return next((dim for dim in named if any(canonical_band(str(one)) for one in array.coords[dim].values)), None)


def band_name(array: xr.DataArray, dim: Hashable | None, index: int | None) -> str | None:
    """What the object calls a band; None where it only counts.

    Numbers stay with their bands when bands are left out or reordered; a list of names does not.
    """
    value, listed = _band_label(array, dim, index), _listed_names(array)
    if isinstance(value, str):
        return _name(value)
    place, count = place_in_lists(array, dim, index)
    if listed is not None and place is not None and place < len(listed) and count in (None, len(listed)):
        return _name(listed[place])
    if dim is not None:
        return None
    held = array.attrs.get("long_name")
    told = [held] if isinstance(held, str) and canonical_band(held) else []
    return next(filter(None, map(_name, [*told, *([] if array.name is None else [str(array.name)])])), None)


def _band_label(array: xr.DataArray, dim: Hashable | None, index: int | None) -> Any:
    """The coordinate of a band; None without."""
    if dim is not None:
        return array.coords[dim].values[index] if dim in array.coords else None
    coord = next((array.coords[key] for key in _BAND_DIMS if key in array.coords and not array.coords[key].ndim), None)
    return None if coord is None else coord.item()


def _listed_names(array: xr.DataArray) -> list[str] | None:
    """The names in a ``long_name`` that is a list of them."""
    held = array.attrs.get("long_name")
    return [str(one) for one in held] if isinstance(held, list | tuple | np.ndarray) and np.ndim(held) == 1 else None


def place_in_lists(array: xr.DataArray, dim: Hashable | None, index: int | None) -> tuple[int | None, int | None]:
    """Where the entry of a band is in lists that attributes hold for all bands, and how long those are.

    The place is None where it is unknown, the length None where any will do: numbers of bands point into lists of the
    bands that there were, of which some may have been left out since.
    """
    label, count = _band_label(array, dim, index), None if dim is None else array.sizes[dim]
    if isinstance(label, str):
        names = _listed_names(array) or []
        return (names.index(label), len(names)) if names.count(label) == 1 else (None, count)
    if label is None:
        return index, count
    first = 0 if dim is not None and (array.coords[dim].values == 0).any() else 1
    if not isinstance(label, int | float | np.number) or not float(label).is_integer() or label < first:
        return None, count
    return int(label) - first, None


def _name(text: str) -> str | None:
    """A band's name, unless it only counts: rioxarray's third variable is ``band_3``, whatever it holds."""
    return None if re.fullmatch(r"[Bb]and[ _]?\d+", text) else text
