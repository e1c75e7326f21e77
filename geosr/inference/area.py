"""An area of interest, from numbers or from GeoJSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from odc.geo.geom import BoundingBox, Geometry

from geosr.errors import UsageError


def read_area(aoi: str | Path | Sequence[float]) -> BoundingBox | Geometry:
    """Bounds (in the scene's CRS) of ``minx,miny,maxx,maxy``, or the geometry (longitude, latitude) of a GeoJSON file.

    Raises:
        UsageError: It is neither, or empty.

    >>> read_area("0,0,10,20").span_y
    20.0

    References:
        RFC 7946, section 4: GeoJSON coordinates are WGS 84; the older ``crs`` member is honoured.
    """
    if isinstance(aoi, Path) or (isinstance(aoi, str) and aoi.lower().endswith((".geojson", ".json"))):
        return _read_geojson(Path(aoi))
    try:
        left, bottom, right, top = (float(v) for v in (aoi.split(",") if isinstance(aoi, str) else aoi))
    except ValueError as error:
        raise UsageError(f"aoi {aoi!r} is not minx,miny,maxx,maxy and not a .geojson file") from error
    if not (left < right and bottom < top):
        raise UsageError(f"aoi {aoi!r} is empty; give minx,miny,maxx,maxy with minx < maxx and miny < maxy")
    return BoundingBox(left, bottom, right, top)


def _read_geojson(path: Path) -> Geometry:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"aoi {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"aoi {path} is not JSON: {error}") from error
    try:
        crs = content["crs"]["properties"]["name"] if content.get("crs") else "EPSG:4326"
        area = Geometry(content, crs)
    except Exception as error:  # odc-geo passes on whatever shapely raises
        raise UsageError(f"aoi {path} holds no GeoJSON geometry: {error}") from error
    if area.is_empty:
        raise UsageError(f"aoi {path} holds no GeoJSON geometry: it has no coordinates")
    return area
