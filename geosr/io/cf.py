"""CF and GeoZarr attributes: how a Zarr group says where its pixels lie and what their numbers mean.

Written are CF and GeoZarr; understood are the words of xarray, of GeoZarr and of the EOPF processors of Sentinel-2 too.

References:
    [1] CF conventions 1.11, sections 5.6 (grid mappings) and 8.1 (packed data).
    [2] GeoZarr conventions ``proj`` and ``spatial``, version 1: https://github.com/zarr-conventions.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geosr.errors import GridError
from geosr.io.source import Said, StoredBand
from geosr.radiometry import Radiometry, representable
from geosr.sensors import canonical_band

Attributes = Mapping[str, Any]

_CONVENTIONS = [
    {
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{repository}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{repository}/blob/v1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }
    for repository, uuid, name, description in (
        ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "spatial", "Spatial coordinate information"),
        (
            "geo-proj",
            "f17cb550-5864-4468-aeb7-f3180cfb622f",
            "proj",
            "Coordinate reference system information for geospatial data",
        ),
    )
]


def encoding_attributes(radiometry: Radiometry) -> dict[str, Any]:
    """The attributes of an array that say how its digital numbers encode reflectance [1]."""
    attributes: dict[str, Any] = {
        "scale_factor": radiometry.scale,
        "add_offset": radiometry.offset,
        "units": "1",
        "grid_mapping": "spatial_ref",
        "coordinates": "spatial_ref",  # makes xarray take the grid mapping for a coordinate, where rioxarray looks
    }
    if radiometry.nodata is not None:
        # As xarray writes it for Zarr v3: JSON has no NaN, so floats are the base64 of a little-endian double.
        integer = isinstance(radiometry.nodata, int)
        packed = base64.standard_b64encode(struct.pack("<d", radiometry.nodata)).decode()
        attributes["_FillValue"] = radiometry.nodata if integer else packed
    if radiometry.saturated is not None:
        attributes |= {"flag_values": [radiometry.saturated], "flag_meanings": "saturated"}
    return attributes


def grid_attributes(geobox: GeoBox) -> dict[str, Any]:
    """The attributes of a group that say its CRS, transform and bounds [2]."""
    attributes: dict[str, Any] = {
        "zarr_conventions": _CONVENTIONS[: 1 if geobox.crs is None else 2],
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(geobox.shape),
        "spatial:transform": list(geobox.affine[:6]),
        "spatial:bbox": list(geobox.boundingbox.bbox),
        "spatial:registration": "pixel",
    }
    if geobox.crs is not None:
        code = CRS.from_user_input(geobox.crs.to_wkt()).to_authority()
        attributes |= {"proj:code": ":".join(code)} if code else {"proj:wkt2": geobox.crs.to_wkt()}
    return attributes


def write_grid(group: zarr.Group, geobox: GeoBox) -> None:
    """Write the grid mapping, and pixel-centre coordinates where each row and column has one [1]."""
    a, b, c, d, e, f = (float(value) for value in geobox.affine[:6])
    mapping: dict[str, Any] = {"GeoTransform": " ".join(map(str, (c, a, b, f, d, e)))}
    axes: dict[str, Any] = {"X": {"axis": "X"}, "Y": {"axis": "Y"}}
    if geobox.crs is not None:
        cf = geobox.crs.proj.to_cf()
        mapping = {**cf, "spatial_ref": cf["crs_wkt"], **mapping}
        axes |= {axis["axis"]: axis for axis in geobox.crs.proj.cs_to_cf()}
    group.create_array("spatial_ref", shape=(), dtype="int64", attributes=mapping)[...] = 0
    if b or d:
        return
    for name, origin, step, length in (("y", f, e, geobox.shape[0]), ("x", c, a, geobox.shape[1])):
        coordinate = group.create_array(
            name, shape=(length,), dtype="float64", dimension_names=(name,), attributes=axes[name.upper()]
        )
        coordinate[:] = origin + step * (np.arange(length) + 0.5)


def dimensions(array: zarr.Array) -> tuple[str, ...]:
    """Names of an array's dimensions in lower case, wherever Zarr v3, v2 or EOPF keep them; empty without."""
    attributes: dict[str, Any] = dict(array.attrs)
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    names = names or attributes.get("_eopf_attrs", {}).get("dimensions") or ()
    return tuple(str(name).lower() for name in names)


def stored_bands(array: zarr.Array, beside: Mapping[str, zarr.Array]) -> list[StoredBand]:
    """What the attributes of an array say about each of its bands; `beside` it lie the arrays of its group."""
    attributes: dict[str, Any] = dict(array.attrs)
    attributes = {**attributes.get("_eopf_attrs", {}), **attributes}
    dtype, source = array.dtype.name, "CF attributes"
    scale = offset = nodata = saturated = None
    if attributes.keys() & {"scale_factor", "add_offset"}:
        scale = Said(float(attributes.get("scale_factor", 1)), source)
        offset = Said(float(attributes.get("add_offset", 0)), source)
    # EOPF writes `fill_value`; Zarr v2 has no `_FillValue` but the array's own, which xarray takes for it.
    fills = [attributes.get(key) for key in ("_FillValue", "missing_value", "fill_value")]
    fills += [array.fill_value] if array.metadata.zarr_format == 2 else []
    fill = next((_number(value) for value in fills if value is not None), None)
    if fill is not None and representable(fill, dtype):
        nodata = Said(fill, source)
    if attributes.get("flag_meanings") == "saturated":
        saturated = Said(float(np.ravel(attributes["flag_values"])[0]), source)
    return [
        StoredBand(description, dtype, scale, offset, nodata, saturated)
        for description in _descriptions(array, beside, attributes)
    ]


def stored_geobox(
    array: zarr.Array, beside: Mapping[str, zarr.Array], group: Attributes, top: Attributes, *, name: str
) -> GeoBox:
    """The grid of an array: the exact transform where one is stored and agrees with the coordinates, else theirs.

    Args:
        array: The array.
        beside: The arrays of its group, coordinates and grid mapping among them.
        group: Attributes of the group.
        top: Attributes at the top of the store, where EOPF products keep their CRS.
        name: What messages call it.

    Raises:
        GridError: The pixels lie on no regular grid, or the CRS cannot be understood.
    """
    mapping = _grid_mapping(array, beside)
    height, width = array.shape[-2:]
    own = dict(array.attrs)
    stored = _stored_transform(mapping, own, group)
    axes = [beside.get(axis) for axis in dimensions(array)[-2:]]
    centres = [np.asarray(axis[:], np.float64) for axis in axes if axis is not None and axis.ndim == 1]
    if [len(one) for one in centres] == [height, width] and min(height, width) > 1:
        (top_edge, down), (left, across) = (regular(one, name) for one in centres)
        from_centres = Affine(across, 0, left, 0, down, top_edge)
        # A part that was cut out with xarray keeps the transform of the whole; its coordinates are right.
        if stored is None or not _agree(stored, from_centres, (height, width)):
            stored = from_centres
    if stored is None:
        raise GridError(f"{name} lies on no grid: it has neither coordinates nor GeoTransform nor spatial:transform")
    return GeoBox((height, width), stored, _crs(mapping, own, group, top, name=name))


def _number(value: Any) -> float:
    """The number behind a fill value, however it was written."""
    if not isinstance(value, str):
        return float(value)
    try:
        return float(value)
    except ValueError:
        return float(struct.unpack("<d", base64.standard_b64decode(value))[0])


def _descriptions(array: zarr.Array, beside: Mapping[str, zarr.Array], attributes: Attributes) -> Sequence[str | None]:
    """A name for each band of an array."""
    count = array.shape[0] if array.ndim == 3 else 1
    long_name = attributes.get("long_name")
    if isinstance(long_name, list) and len(long_name) == count:
        return [str(one) for one in long_name]
    coordinate = beside.get(dimensions(array)[0]) if array.ndim == 3 else None
    if coordinate is not None and coordinate.shape == (count,) and coordinate.dtype.kind in "OUT":
        return [str(one) for one in np.asarray(coordinate[:])]
    name = array.name.split("/")[-1]
    return [None] * count if count > 1 else [str(long_name) if canonical_band(str(long_name)) else name]


def _grid_mapping(array: zarr.Array, beside: Mapping[str, zarr.Array]) -> Attributes:
    """The attributes of the CF grid mapping, or nothing."""
    named = str(array.attrs.get("grid_mapping", "")).split(":")[0].strip()
    return next((dict(beside[name].attrs) for name in (named, "spatial_ref", "crs") if name in beside), {})


def _stored_transform(mapping: Attributes, *attributes: Attributes) -> Affine | None:
    """The affine transform that attributes hold."""
    if "GeoTransform" in mapping:
        values = mapping["GeoTransform"]
        return Affine.from_gdal(*map(float, values.split() if isinstance(values, str) else values))
    for held in attributes:
        for key in ("spatial:transform", "proj:transform"):
            if isinstance(values := held.get(key), list):
                return Affine(*map(float, values[:6]))
    return None


def _agree(stored: Affine, expected: Affine, shape: tuple[int, int]) -> bool:
    """Whether two transforms put the corners within a tenth of a pixel of each other."""
    corners = [(0, 0), (shape[1], shape[0])]
    return all(math.dist(corner, ~expected * (stored * corner)) < 0.1 for corner in corners)


def regular(centres: NDArray[np.float64], name: str) -> tuple[float, float]:
    """Outer edge of the first pixel and signed pixel size of evenly spaced pixel centres."""
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    if not step or np.abs(centres - centres[0] - step * np.arange(len(centres))).max() > 0.1 * abs(step):
        raise GridError(f"{name} lies on no grid: its coordinates are not evenly spaced; resample it first")
    return float(centres[0] - step / 2), float(step)


def _crs(mapping: Attributes, array: Attributes, group: Attributes, top: Attributes, *, name: str) -> str | None:
    """The CRS in the words of rasterio, wherever CF, GeoZarr or EOPF keep it."""
    found = [mapping.get(key) for key in ("crs_wkt", "spatial_ref")]
    for held in (array, group, top.get("stac_discovery", {}).get("properties", {}), top):
        found += [held.get(key) for key in ("proj:wkt2", "proj:code", "proj:epsg")]
    other = top.get("other_metadata", {})
    found += [other.get(key) for key in ("horizontal_crs_code", "horizontal_CRS_code")]
    value = next((value for value in found if value), None)
    if value is None:
        return None
    try:
        return CRS.from_user_input(int(value) if str(value).isdigit() else value).to_string()
    except CRSError as error:
        raise GridError(f"{name} has a CRS that cannot be understood: {value!r}") from error
