"""An area of interest, from numbers or from GeoJSON."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geom import CRS, BoundingBox, Geometry

from geosr.errors import UsageError
from geosr.io.documents import read_json

_LIMIT = 256 * 2**20  # bytes of a GeoJSON file; a country's outline has some megabytes
_CODE = '"crs": {"type": "name", "properties": {"name": "EPSG:32633"}}'


def read_area(aoi: str | Path | Sequence[float]) -> BoundingBox | Geometry:
    """Bounds (in the scene's CRS) of ``minx,miny,maxx,maxy``, or the polygons (longitude, latitude) of a GeoJSON file.

    Raises:
        UsageError: It is neither, or has no area.

    >>> read_area("0,0,10,20").span_y
    20.0

    References:
        RFC 7946, section 4: GeoJSON coordinates are WGS 84; the older ``crs`` member is honoured.
    """
    if isinstance(aoi, Path) or (isinstance(aoi, str) and aoi.lower().endswith((".geojson", ".json"))):
        return _read_geojson(str(aoi))
    try:
        left, bottom, right, top = (float(v) for v in (aoi.split(",") if isinstance(aoi, str) else aoi))
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"aoi {aoi!r} is not minx,miny,maxx,maxy and not a .geojson file") from error
    if not (left < right and bottom < top and all(map(isfinite, (left, bottom, right, top)))):
        raise UsageError(f"aoi {aoi!r} is empty; give minx,miny,maxx,maxy with minx < maxx and miny < maxy")
    return BoundingBox(left, bottom, right, top)


def _read_geojson(path: str) -> Geometry:
    try:
        content = read_json(path, limit=_LIMIT)
    except OSError as error:
        raise UsageError(f"aoi {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"aoi {path} is not JSON: {error}") from error
    nothing = f"aoi {path} holds no GeoJSON geometry"
    try:
        found = [polygon for geometry in _geometries(content) for polygon in _polygons(geometry)]
        if not found:
            raise _NoArea("it has no features" if _is_empty(content) else "its geometry is null")
        crs = _crs(content)
    except _NoArea as error:
        raise UsageError(f"{nothing}: {error}; give a polygon, or minx,miny,maxx,maxy in the scene's CRS") from error
    area = found[0] if len(found) == 1 else shapely.MultiPolygon(found)
    if crs.geographic:
        points = shapely.get_coordinates(area)
        odd = points[(np.abs(points[:, 0]) > 540) | (np.abs(points[:, 1]) > 90)]
        if len(odd):
            raise UsageError(
                f"aoi {path} holds the point {odd[0, 0]:.10g}, {odd[0, 1]:.10g}, which is no longitude and latitude in "
                f"degrees, and GeoJSON is in those; name the CRS of the numbers in the file ({_CODE}), or give "
                "minx,miny,maxx,maxy in the scene's CRS"
            )
    return Geometry(area, crs)


class _NoArea(ValueError):
    """Why JSON is no area."""


def _is_empty(content: Any) -> bool:
    return isinstance(content, dict) and content.get("type") == "FeatureCollection" and not content.get("features")


def _geometries(content: Any) -> Iterator[dict[str, Any]]:
    """The geometries of a GeoJSON object; features without a place have none."""
    kind = content.get("type") if isinstance(content, dict) else None
    if kind is None:
        raise _NoArea("it has no type, such as Polygon or FeatureCollection")
    inside = {"Feature": "geometry", "FeatureCollection": "features", "GeometryCollection": "geometries"}.get(str(kind))
    if inside is None:
        yield content
        return
    several = [content.get(inside)] if kind == "Feature" else content.get(inside)
    if not isinstance(several, list):
        raise _NoArea(f"{inside} of its {kind} is no list")
    for one in several:
        if one is not None:
            yield from _geometries(one)


def _polygons(geometry: dict[str, Any]) -> list[shapely.Polygon]:
    """The polygons of a GeoJSON geometry."""
    kind = geometry["type"]
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise _NoArea(f"a {kind} has no area")
    if kind not in ("Polygon", "MultiPolygon"):
        raise _NoArea(f"its type is {kind!r}")
    try:
        several = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
        polygons = [
            shapely.Polygon(points[0], points[1:]) for rings in several if (points := [_points(ring) for ring in rings])
        ]
    except Exception as error:  # numpy's and shapely's, of coordinates that are built otherwise
        raise _NoArea(f"the coordinates of its {kind} are none ({error})") from error
    if not polygons:
        raise _NoArea("it has no coordinates")
    for polygon in polygons:
        west, _, east, _ = polygon.bounds
        if polygon.convex_hull.area == 0 and east - west < 180:  # a parallel around a pole is flat in degrees alone
            raise _NoArea("its polygon has no area")
    return polygons


def _points(ring: Any) -> NDArray[np.float64]:
    """The points (longitude, latitude) of a ring; heights are left out."""
    points = np.array(ring)
    if points.dtype.kind not in "iuf" or points.ndim != 2 or points.shape[1] < 2:
        raise ValueError("a ring is a list of points, which are two numbers each")
    if not np.isfinite(points).all():
        raise ValueError("a point has numbers that are not finite")
    return points[:, :2].astype(float)


def _crs(content: dict[str, Any]) -> CRS:
    """The CRS that the ``crs`` member of older files names; degrees without it."""
    member = content.get("crs")
    try:
        return CRS("EPSG:4326" if not member else member["properties"]["name"])
    except Exception as error:  # pyproj's, and those of a member that is built otherwise
        raise _NoArea(f"its member crs names no CRS ({error}); write {_CODE}") from error
