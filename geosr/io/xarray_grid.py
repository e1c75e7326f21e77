"""Grids of xarray objects: where their pixels lie, and the coordinates of the same ground on another grid."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS, CRSError
from odc.geo.geobox import GeoBox

from geosr.errors import GridError
from geosr.io import cf

_ROWS, _COLUMNS = "y|lat|latitude|northing", "x|lon|longitude|easting"
_CHUNKED = {"chunks", "preferred_chunks", "chunksizes", "shards", "source", "original_shape", "contiguous"}
_NEAR = 0.05  # pixels that coordinates may lie off a stored transform and still be taken for its own


def spatial_dims(dims: Iterable[Hashable]) -> tuple[str, str] | None:
    """The names of rows and columns among dimensions, in that order; None where there are none.

    >>> spatial_dims(("longitude", "time", "latitude")), spatial_dims(("y_20m", "x_20m")), spatial_dims(("year",))
    (('latitude', 'longitude'), ('y_20m', 'x_20m'), None)
    """
    found = []
    for words in (_ROWS, _COLUMNS):
        matching = [str(dim) for dim in dims if re.fullmatch(rf"({words})([_-]?\d+m?)?", str(dim).lower())]
        if len(matching) != 1:
            return None
        found += matching
    return found[0], found[1]


def crs_coordinate(array: xr.DataArray) -> xr.DataArray | None:
    """The scalar coordinate whose attributes say the CRS, or None."""
    named = array.encoding.get("grid_mapping", array.attrs.get("grid_mapping"))
    scalars = [coord for coord in array.coords.values() if not coord.ndim]
    scalars.sort(key=lambda coord: (coord.name != named, coord.name != "spatial_ref"))
    return next((coord for coord in scalars if coord.attrs.keys() & {"spatial_ref", "crs_wkt", "GeoTransform"}), None)


def geobox_of(array: xr.DataArray, dims: tuple[str, str], *, name: str) -> GeoBox:
    """The exact grid of an array: the transform that is stored, moved to where the coordinates say the array lies.

    Coordinates are decimals, which add up to no exact grid; a stored transform is exact, but that of the whole where a
    part was cut out. Without one, or where it says another grid, the coordinates are believed. They are pixel centres,
    except beside a ``transform`` attribute whose pixel corners they are, as stackstac writes them.

    Raises:
        GridError: There is neither, or the coordinates are not evenly spaced.
    """
    mapping = crs_coordinate(array)
    shape = (array.sizes[dims[0]], array.sizes[dims[1]])
    if mapping is not None and "gcps" in mapping.attrs:
        raise GridError(f"{name} is placed by ground control points; warp it to a grid first, with .odc.reproject()")
    stored, corners = _stored_transform(array, mapping, name)
    axes = [array.coords[dim] for dim in dims if dim in array.coords and array.coords[dim].dtype.kind in "iuf"]
    if len(axes) == 2:
        transform = _from_axes([np.asarray(axis, np.float64) for axis in axes], stored, corners=corners, name=name)
    elif stored is not None:
        transform = stored
    else:
        raise GridError(
            f"{name} lies on no grid: it has no coordinates {dims[0]} and {dims[1]} and no GeoTransform; give it some, "
            "with .rio.write_transform() or .odc.assign_crs() after assigning coordinates"
        )
    return GeoBox(shape, transform, _crs(array, mapping, dims, name=name))


def _stored_transform(array: xr.DataArray, mapping: xr.DataArray | None, name: str) -> tuple[Affine | None, bool]:
    """The transform in the attributes, and whether coordinates beside it may be pixel corners."""
    if mapping is not None and "GeoTransform" in mapping.attrs:
        values = mapping.attrs["GeoTransform"]
        return cf.as_transform(values, "GeoTransform", name), False
    held = array.attrs.get("transform")
    if not isinstance(held, list | tuple | np.ndarray | Affine) or len(held) not in (6, 9):
        return None, False
    return cf.as_transform(held, "transform", name), True


def _from_axes(axes: list[NDArray[np.float64]], stored: Affine | None, *, corners: bool, name: str) -> Affine:
    """The transform of rows and columns with these coordinates."""
    for centres in axes:
        cf.require_finite(centres, name)
    if stored is not None and (stored.b or stored.d):  # rotated: the coordinates count pixels
        return stored * Affine.translation(axes[1][0] - 0.5, axes[0][0] - 0.5)
    kept = (None, None) if stored is None else ((stored.f, stored.e), (stored.c, stored.a))
    (top, down), (left, across) = (
        _axis(values, one, corners=corners, name=name) for values, one in zip(axes, kept, strict=True)
    )
    return Affine(across, 0, left, 0, down, top)


def _axis(
    values: NDArray[np.float64], stored: tuple[float, float] | None, *, corners: bool, name: str
) -> tuple[float, float]:
    """Outer edge of the first pixel, and signed pixel size, along one axis."""
    if len(values) == 1 and stored is None:
        raise GridError(
            f"{name} has a single row or column and no GeoTransform that tells its size; write one with rio"
        )
    if stored is not None:
        origin, step = stored
        for centre in (0.5, 0.0) if corners else (0.5,):
            first = round((values[0] - origin) / step - centre)
            expected = origin + step * (first + centre + np.arange(len(values)))
            if np.abs(values - expected).max() < _NEAR * abs(step):
                return origin + step * first, step
    if len(values) == 1:
        raise GridError(
            f"{name} has a single row or column, whose coordinate {values[0]:.10g} lies between the pixels of its "
            "GeoTransform; write the one that it lies on with rio"
        )
    return cf.regular(values, name)


def _crs(array: xr.DataArray, mapping: xr.DataArray | None, dims: tuple[str, str], *, name: str) -> CRS | None:
    """The CRS, wherever CF, odc-stac or stackstac keep it."""
    held = [] if mapping is None else [mapping.attrs.get("spatial_ref"), mapping.attrs.get("crs_wkt")]
    held += [array.attrs.get("crs"), *(array.coords[dim].attrs.get("crs") for dim in dims if dim in array.coords)]
    held += [array.coords[key].item() for key in ("proj:code", "proj:epsg", "epsg") if _scalar(array, key)]
    value = next((value for value in held if value is not None and not _is_empty(value)), None)
    try:
        return None if value is None else CRS(value)
    except (CRSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise GridError(f"{name} has a CRS that cannot be understood: {value!r}") from error


def _is_empty(value: Any) -> bool:
    return isinstance(value, str | int) and not value


def _scalar(array: xr.DataArray, key: str) -> bool:
    return key in array.coords and not array.coords[key].ndim


def coordinates(array: xr.DataArray, dims: tuple[str, str], geobox: GeoBox) -> dict[Hashable, Any]:
    """The array's coordinates on another grid of the same ground: pixel centres, CRS and all that is not of pixels."""
    mapping = crs_coordinate(array)
    centres = dict(zip(dims, geobox.coordinates.values(), strict=True)) if geobox.axis_aligned else {}
    placed: dict[Hashable, Any] = {}
    for key, coord in array.coords.items():
        variable = coord.variable
        if key in dims:
            axis = dims.index(str(key))
            values = centres[str(key)].values if centres else np.arange(geobox.shape[axis]) + 0.5
            placed[key] = xr.Variable((key,), values, variable.attrs, unchunked(variable.encoding))
        elif mapping is not None and key == mapping.name:
            gdal = " ".join(str(float(value)) for value in geobox.affine.to_gdal())
            placed[key] = xr.Variable(
                (), variable.values, {**variable.attrs, "GeoTransform": gdal}, dict(variable.encoding)
            )
        elif not set(dims) & set(variable.dims):
            placed[key] = variable
    return placed


def attributes(attrs: Mapping[Any, Any], geobox: GeoBox) -> dict[Any, Any]:
    """Attributes of an array or a Dataset, of which those that say where pixels lie say it of another grid."""
    held = {key: value for key, value in attrs.items() if key not in ("spec", cf.COMPLETE, "resolution_xy")}
    if (size := np.size(held.get("transform", 0))) in (6, 9):
        held["transform"] = geobox.affine if isinstance(attrs["transform"], Affine) else tuple(geobox.affine)[:size]
    if isinstance(held.get("resolution"), int | float):
        held["resolution"] = abs(geobox.affine.a)
    if any(str(key).startswith("spatial:") for key in held):
        held |= {key: value for key, value in cf.grid_attributes(geobox).items() if key in held}
    return held


def unchunked(encoding: Mapping[Any, Any]) -> dict[Any, Any]:
    """An encoding without what holds for the old chunks alone."""
    return {key: value for key, value in encoding.items() if key not in _CHUNKED}
