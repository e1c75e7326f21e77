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
from contextlib import suppress
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geosr.errors import GridError, InputError, RadiometryError
from geosr.io.source import Said, StoredBand, said_encoding
from geosr.radiometry import Radiometry, representable
from geosr.sensors import canonical_band

Attributes = Mapping[str, Any]

COMPLETE = "geosr:complete"
"""An attribute of arrays that geosr wrote: all of their chunks are stored, so that one that is missing is damage."""
PACKING = {"scale_factor": "scales", "add_offset": "offsets"}
"""The words of packed data [1], and rioxarray's for lists of them with an entry for each band."""

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
        try:
            cf = geobox.crs.proj.to_cf()
        except (KeyError, ValueError):  # of pyproj, where a projection lacks a parameter; the WKT says as much
            cf = {"crs_wkt": geobox.crs.to_wkt()}
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
    dtype, source, name = array.dtype.name, "CF attributes", named(array)
    # EOPF writes `fill_value`; Zarr v2 has no `_FillValue` but the array's own, which xarray takes for it.
    fills = [packing_fact(attributes, key, name) for key in ("_FillValue", "missing_value", "fill_value")]
    fills += [as_number(array.fill_value)] if array.metadata.zarr_format == 2 else []
    fill = next((value for value in fills if value is not None), None)
    nodata = Said(fill, source) if fill is not None and representable(fill, dtype) else None
    descriptions = _descriptions(array, beside, attributes)
    # A scale of 1 with an offset of 0 means reflectance where geosr wrote it, and nothing where others did.
    own = attributes.get(COMPLETE) is True
    bands = []
    for place, description in enumerate(descriptions):
        scale, offset = (packing_fact(attributes, key, name, place, len(descriptions)) for key in PACKING)
        said = said_encoding(scale, offset, source)
        if own and said[0] is None and scale is not None:
            said = Said(1.0, source), Said(0.0, source)
        bands.append(StoredBand(description, dtype, *said, nodata, saturated_value(attributes, source)))
    return bands


def as_number(value: Any) -> float | None:
    """The number that an attribute states: itself, its decimals, or the only entry of a list or array; None for others.

    >>> as_number([1e-4]), as_number("1e-4"), as_number("x"), as_number([1, 2]), as_number(True)
    (0.0001, 0.0001, None, None, None)
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, bool) or not isinstance(value, int | float | str | bytes):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def packing_fact(
    attributes: Attributes, key: str, name: str, place: int | None = 0, count: int | None = 1
) -> float | None:
    """A number that attributes say of one band: its scale, its offset or its fill value; None where they hold none.

    Where bands differ, rioxarray writes ``scales`` and ``offsets`` instead, lists with an entry for each.

    Args:
        attributes: The attributes, or an encoding.
        key: ``scale_factor``, ``add_offset`` or a word for the fill value.
        name: What messages call the array.
        place: Position of the band in such lists; None where it is unknown.
        count: How long those have to be; None: any length.

    Raises:
        RadiometryError: What is there is no number, and no list of one for each band.
    """
    for word in filter(None, (key, PACKING.get(key))):
        value = attributes.get(word)
        if value is None:
            continue
        found = as_number(value) if key in PACKING else _fill_number(value)
        if found is None and isinstance(value, list | tuple | np.ndarray):
            numbers = [as_number(one) for one in value]
            if len({*numbers}) == 1:
                found = numbers[0]
            elif place is not None and place < len(numbers) and count in (None, len(numbers)):
                found = numbers[place]
        if found is None:
            raise RadiometryError(
                f"{name} has {word} {value!r} in its attributes or encoding: neither a number nor a list with one for "
                "each band; correct it, or drop it and state what the values are"
            )
        return found
    return None


def saturated_value(attributes: Attributes, source: str) -> Said | None:
    """The value of pixels that are brighter than the detector measures, where attributes flag it."""
    meanings, values = attributes.get("flag_meanings"), attributes.get("flag_values")
    first = (
        values[0] if isinstance(values, list | tuple | np.ndarray) and np.ndim(values) == 1 and len(values) else values
    )
    value = as_number(first) if isinstance(meanings, str) and meanings == "saturated" else None
    return None if value is None else Said(value, source)


def named(array: zarr.Array) -> str:
    """What messages call an array: its store and its place there."""
    return str(array.store_path).removeprefix("file://")


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
    stored = _stored_transform(name, mapping, own, group)
    axes = [axis for key in dimensions(array)[-2:] if (axis := beside.get(key)) is not None]
    if [axis.shape for axis in axes] == [(height,), (width,)] and min(height, width) > 1:
        (top_edge, down), (left, across) = (regular(_centres(axis), name) for axis in axes)
        from_centres = Affine(across, 0, left, 0, down, top_edge)
        # A part that was cut out with xarray keeps the transform of the whole; its coordinates are right.
        if stored is None or not _agree(stored, from_centres, (height, width)):
            stored = from_centres
    if stored is None:
        raise GridError(f"{name} lies on no grid: it has neither coordinates nor GeoTransform nor spatial:transform")
    return GeoBox((height, width), stored, _crs(mapping, own, group, top, name=name))


def _centres(axis: zarr.Array) -> NDArray[np.float64]:
    """The values of a coordinate."""
    try:
        return np.asarray(axis[:], np.float64)
    except Exception as error:  # whatever zarr and its codecs make of damaged bytes
        raise InputError(f"{named(axis)} cannot be read ({error}); the store is incomplete or damaged") from error


def _fill_number(value: Any) -> float | None:
    """The number behind a fill value; base64 of a little-endian double is how xarray writes floats into JSON."""
    found = as_number(value)
    if found is None and isinstance(value, str):
        with suppress(ValueError, struct.error):
            found = float(struct.unpack("<d", base64.standard_b64decode(value))[0])
    return found


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


def _stored_transform(name: str, mapping: Attributes, *attributes: Attributes) -> Affine | None:
    """The affine transform that attributes hold."""
    if "GeoTransform" in mapping:
        return as_transform(mapping["GeoTransform"], "GeoTransform", name)
    for held in attributes:
        for key in ("spatial:transform", "proj:transform"):
            if isinstance(values := held.get(key), list):
                return as_transform(values, key, name)
    return None


def as_transform(value: Any, key: str, name: str) -> Affine:
    """The affine transform in an attribute: six numbers in GDAL's order for ``GeoTransform``, else in that of affine.

    Raises:
        GridError: It holds anything else, or pixels without an area.
    """
    parts = value.split() if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, list | tuple | np.ndarray | Affine) else []
    numbers = [number for number in map(as_number, parts) if number is not None and math.isfinite(number)]
    if len(parts) == len(numbers) and len(numbers) in ((6,) if key == "GeoTransform" else (6, 9)):
        found = Affine.from_gdal(*numbers) if key == "GeoTransform" else Affine(*numbers[:6])
        if math.isfinite(found.determinant) and found.determinant:
            return found
    raise GridError(f"{name} has {key} {value!r}: no six numbers that give its pixels a place and a size; correct it")


def _agree(stored: Affine, expected: Affine, shape: tuple[int, int]) -> bool:
    """Whether two transforms put the corners within a tenth of a pixel of each other."""
    corners = [(0, 0), (shape[1], shape[0])]
    return all(math.dist(corner, ~expected * (stored * corner)) < 0.1 for corner in corners)


def regular(centres: NDArray[np.float64], name: str) -> tuple[float, float]:
    """Outer edge of the first pixel and signed pixel size of evenly spaced pixel centres."""
    require_finite(centres, name)
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    if (
        not step
        or not math.isfinite(step)
        or np.abs(centres - centres[0] - step * np.arange(len(centres))).max() > 0.1 * abs(step)
    ):
        raise GridError(f"{name} lies on no grid: its coordinates are not evenly spaced; resample it first")
    return float(centres[0] - step / 2), float(step)


def require_finite(centres: NDArray[np.float64], name: str) -> None:
    """Fail where coordinates hold NaN or infinity."""
    if not np.isfinite(centres).all():
        raise GridError(f"{name} lies on no grid: its coordinates are not all finite (NaN or infinity among them)")


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
    except (CRSError, ValueError, TypeError, OverflowError) as error:
        raise GridError(f"{name} has a CRS that cannot be understood: {value!r}") from error
