"""Footprints: where a grid or an area lies on the globe, whose longitudes meet at 180 degrees and at the poles."""

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.enums import TransformDirection
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.polygon import orient
from shapely.ops import unary_union

_SAMPLES = 24
"""Points along each side of a grid; between them a side counts as straight in degrees."""

_DECIMALS = 7
"""Of degrees; the last is a centimetre."""

Bounds = tuple[float, float, float, float]
"""West, south, east and north in degrees; west lies east of east where the box reaches over 180 degrees."""


def geographic_footprint(geobox: GeoBox) -> tuple[Polygon | MultiPolygon, Bounds] | None:
    """The outline of a grid in WGS 84 and its bounding box; None without a CRS, or where it has no outline there.

    What reaches over 180 degrees is cut there, and its bounding box begins in the east; what holds a pole reaches
    around the globe.

    References:
        RFC 7946, sections 3.1.6 (outer rings run counterclockwise), 3.1.9 and 5.2 (the antimeridian), 5.3 (the poles).

    >>> outline, bounds = geographic_footprint(GeoBox((2, 2), Affine(1, 0, 179, 0, -1, 10), "EPSG:4326"))
    >>> bounds, len(outline.geoms)
    ((179.0, 8.0, -179.0, 10.0), 2)
    """
    if geobox.crs is None:
        return None
    to_degrees = Transformer.from_crs(geobox.crs.proj, "EPSG:4326", always_xy=True)
    ring = np.column_stack(to_degrees.transform(*_outline(geobox)))
    if not np.isfinite(ring).all():
        return None
    ring, turns = unwrapped(ring)
    pole = _pole_in(geobox, to_degrees)
    if turns:
        if pole is None or abs(turns) > 1:
            return None
        ring = np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])
    ring = np.round(ring, _DECIMALS)
    (west, south), (east, north) = ring.min(axis=0), ring.max(axis=0)
    if pole is not None:  # also on a side, between two points
        south, north = min(south, pole), max(north, pole)
    if turns or east - west >= 360:
        west, east = -180.0, 180.0
    outline = _cut(Polygon(ring))
    if outline is None:
        return None
    return outline, (_turned(west, upper=False), float(south), _turned(east, upper=True), float(north))


def unwrapped(ring: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """A ring of longitudes and latitudes (point, 2) whose longitudes go on beyond 180 degrees, and its turns.

    A step of more than 180 degrees crosses the antimeridian the short way; only from -180 to 180 itself it does not,
    as in the outline of the whole globe. A ring around a pole makes a turn of 1 or -1, and ends 360 degrees from where
    it began; other rings make none.

    >>> unwrapped(np.array([[179.0, 0], [-179, 0], [-179, 1], [179, 0]]))[0][:, 0]
    array([179., 181., 181., 179.])
    """
    steps = np.diff(ring[:, 0])
    crossing = (np.abs(steps) > 180) & (np.abs(steps) < 360)
    turned = np.concatenate([[0.0], np.cumsum(np.where(crossing, -360 * np.sign(steps), 0))])
    longitudes = ring[:, 0] + turned
    return np.column_stack([longitudes, ring[:, 1]]), round((longitudes[-1] - longitudes[0]) / 360)


def _outline(geobox: GeoBox) -> NDArray[np.float64]:
    """The outline of a grid in its own CRS (2, point), closed, with points along its sides.

    That of a projected grid lies within it by a billionth of its sides, so that a pole on a side or in a corner, which
    has no longitude, is none of its points.
    """
    height, width = geobox.shape
    hair = 0.0 if geobox.crs.geographic else 1e-9
    go, back = np.linspace(hair, 1 - hair, _SAMPLES), np.linspace(1 - hair, hair, _SAMPLES)
    low, high = np.full(_SAMPLES, hair), np.full(_SAMPLES, 1 - hair)
    x, y = np.concatenate([go, high, back, low]) * width, np.concatenate([low, go, high, back]) * height
    return np.stack(geobox.affine * (x, y))


def _pole_in(geobox: GeoBox, to_degrees: Transformer) -> float | None:
    """The latitude of the pole that lies in a grid; None where none or both do."""
    height, width = geobox.shape
    inside = []
    for latitude in (90.0, -90.0):
        column, row = ~geobox.affine * to_degrees.transform(0.0, latitude, direction=TransformDirection.INVERSE)
        if 0 <= column <= width and 0 <= row <= height:
            inside.append(latitude)
    return inside[0] if len(inside) == 1 else None


def _cut(outline: Polygon) -> Polygon | MultiPolygon | None:
    """An outline whose longitudes go beyond 180 degrees, cut there, each part where GeoJSON has it."""
    west, _, east, _ = outline.bounds
    if not outline.is_valid:
        outline = shapely.make_valid(outline)
    first, last = int((west + 180) // 360), int(-((180 - east) // 360))
    parts = [
        translate(outline.intersection(box(360 * turn - 180, -90, 360 * turn + 180, 90)), xoff=-360 * turn)
        for turn in range(first, last + 1)
    ]
    whole = unary_union(parts) if len(parts) > 1 else parts[0]
    polygons = [orient(part) for part in shapely.get_parts(whole) if part.geom_type == "Polygon" and part.area > 0]
    return None if not polygons else polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def _turned(longitude: float, *, upper: bool) -> float:
    """The longitude between -180 and 180 degrees; that of the antimeridian is 180 where a box ends and -180 else."""
    turned = (longitude + 180) % 360 - 180
    return round(180.0 if upper and turned == -180 else float(turned), _DECIMALS)
