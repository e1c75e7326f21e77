"""Footprints: where a grid or an area lies on the globe, whose longitudes meet at 180 degrees and at the poles."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from shapely.geometry.polygon import orient

GLOBAL = CRS.from_epsg(4326)
"""The CRS of an index whose scenes have several: no projected one has a place for the whole Earth."""
_SEGMENTS = 64
"""Per side of a footprint in another CRS: a 110 km side bends by 0.04 m between two points."""
_DECIMALS = 7
"""Of degrees in an outline; the last is a centimetre."""

Bounds = tuple[float, float, float, float]
"""West, south, east and north in degrees; west lies east of east where the box reaches over 180 degrees."""


def is_box(bounds: Sequence[float]) -> bool:
    """Whether numbers are west, south, east and north in degrees; over 180 degrees, west is the larger number.

    >>> is_box((13, 45, 14, 46)), is_box((179.5, 66, -179.5, 67)), is_box((14, 45, 13, 46))
    (True, True, False)
    """
    if len(bounds) != 4:
        return False
    west, south, east, north = bounds
    return south < north and (west < east or (180 >= west > east + 180 >= 0))


def geographic_footprint(geobox: GeoBox) -> tuple[shapely.Polygon | shapely.MultiPolygon, Bounds] | None:
    """The outline of a grid in WGS 84 and its bounding box; None without a CRS, or where it has no outline there.

    What reaches over 180 degrees is cut there, and its box begins in the east; what holds a pole reaches around the
    globe.

    References:
        RFC 7946, sections 3.1.6 (outer rings run counterclockwise), 3.1.9 and 5.2 (the antimeridian), 5.3 (the poles).

    >>> from affine import Affine
    >>> outline, bounds = geographic_footprint(GeoBox((2, 2), Affine(1, 0, 179, 0, -1, 10), "EPSG:4326"))
    >>> bounds, len(outline.geoms)
    ((179.0, 8.0, -179.0, 10.0), 2)
    """
    if geobox.crs is None:
        return None
    height, width = geobox.shape
    whole = located(geobox, shapely.box(0, 0, width, height), GLOBAL)
    if whole is None or whole.area == 0:
        return None
    whole = shapely.transform(whole, lambda points: np.round(points, _DECIMALS))
    west, south, east, north = whole.bounds
    parts = [
        _shifted(shapely.intersection(whole, shapely.box(-180 - turn, -90, 180 - turn, 90)), turn)
        for turn in (0, -360, 360)
    ]
    polygons = [part for part in shapely.get_parts(shapely.union_all(parts)) if part.geom_type == "Polygon"]
    if not polygons:
        return None
    polygons = [orient(polygon) for polygon in polygons]
    if east - west >= 360:
        west, east = -180.0, 180.0
    elif east > 180:
        east = round(east - 360, _DECIMALS)
    bounds = (float(west), float(south), float(east), float(north))
    return (polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)), bounds


def located(geobox: GeoBox, pixels: shapely.Geometry, crs: CRS | None) -> shapely.Geometry | None:
    """A polygon in a grid's pixels (column, row) as one in a CRS; None: it has no place there.

    In degrees it never jumps at the antimeridian: what crosses it begins between -180 and 180 and goes on beyond 180,
    and what surrounds a pole spans 360 degrees up to it.

    Args:
        geobox: The grid.
        pixels: The polygon, or several.
        crs: The CRS; None: the numbers of the grid itself.
    """
    there = _moved(pixels, geobox.affine)
    if crs is not None and crs.is_geographic and there.bounds[2] - there.bounds[0] >= 180:
        there = _moved(_dense(pixels), geobox.affine)  # a side of a global grid is no jump between two corners
    if crs is not None and geobox.crs != crs:
        there = _moved(_dense(pixels), geobox.affine)
        there = shapely.transform(there, _transformer(geobox.crs.to_wkt(), crs.to_wkt()), interleaved=False)
    known = np.isfinite(shapely.get_coordinates(there)).all()
    if not known or not (crs is None or geobox.crs == crs or crs.is_geographic or _returns(there, crs, geobox)):
        return None
    if crs is None or not crs.is_geographic:
        return there
    there = _unwrapped(there, geobox, pixels)
    return _shifted(there, -360 * math.floor((there.bounds[0] + 180) / 360))


def in_pixels(geobox: GeoBox, geometry: shapely.Geometry, crs: CRS | None) -> shapely.Geometry:
    """A geometry in a CRS as one in a grid's pixels (column, row); not finite where the grid's CRS has no place for it.

    Args:
        geobox: The grid.
        geometry: The geometry.
        crs: Its CRS; None: it is in the numbers of the grid itself.
    """
    if crs is not None and geobox.crs is not None:
        if geobox.crs != crs:
            move = _transformer(crs.to_wkt(), geobox.crs.to_wkt())
            geometry = shapely.transform(_dense(geometry), move, interleaved=False)
        if geobox.crs.geographic and np.isfinite(shapely.get_coordinates(geometry)).all():
            geometry = _unwrapped(geometry)
            middle = (geobox.affine * (geobox.shape[1] / 2, geobox.shape[0] / 2))[0]
            bounds = geometry.bounds
            geometry = _shifted(geometry, 360 * round((middle - (bounds[0] + bounds[2]) / 2) / 360))
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        return geometry
    geometry = _moved(geometry, ~geobox.affine)
    return geometry if geometry.geom_type == "Point" or geometry.is_valid else shapely.make_valid(geometry)


def part_bounds(geobox: GeoBox, area: shapely.Geometry, crs: CRS | None) -> NDArray[np.float64]:
    """The bounds (left, top, right, bottom) of each polygon of an area in a grid's pixels, ``(part, 4)``.

    They are not finite where the grid's CRS has no place for a part. A ring that steps over 180 degrees goes the short
    way round; on a grid in degrees each part is named as the grid names the place.

    Args:
        geobox: The grid.
        area: Polygons.
        crs: Their CRS; None: they are in the numbers of the grid itself.
    """
    found = []
    for part in shapely.get_parts(area):
        outer = shapely.LineString(part.exterior)  # whose bounds are the polygon's, whether it is valid or not
        if crs is not None and crs.is_geographic:
            ring = _ring(outer)
            if abs(ring[-1, 0] - ring[0, 0]) > 180:
                pole = math.copysign(90.0, ring[:, 1].mean())
                ring = np.concatenate([ring, [(ring[-1, 0], pole), (ring[0, 0], pole)]])
            outer = shapely.LineString(ring)
        found.append(in_pixels(geobox, outer, crs).bounds)
    return np.array(found, float).reshape(-1, 4)


def _returns(there: shapely.Geometry, crs: CRS, geobox: GeoBox) -> bool:
    """Whether points lie on a grid again; far from its own area a projection gives numbers that mean nothing."""
    east, north = _transformer(crs.to_wkt(), geobox.crs.to_wkt())(*shapely.get_coordinates(there).T)
    with np.errstate(invalid="ignore"):
        columns, rows = ~geobox.affine * (east, north)
    height, width = geobox.shape
    return all(((axis >= -1) & (axis <= length + 1)).all() for axis, length in ((columns, width), (rows, height)))


def _moved(geometry: shapely.Geometry, by: Any) -> shapely.Geometry:
    with np.errstate(invalid="ignore"):  # what has no place is infinite
        return shapely.transform(geometry, lambda x, y: by * (x, y), interleaved=False)


def _shifted(geometry: shapely.Geometry, by: float) -> shapely.Geometry:
    return shapely.transform(geometry, lambda x, y: (x + by, y), interleaved=False) if by else geometry


def _dense(geometry: shapely.Geometry) -> shapely.Geometry:
    """The same outline in many short pieces, because straight lines bend in another CRS."""
    left, bottom, right, top = geometry.bounds
    longest = max(right - left, top - bottom)
    return shapely.segmentize(geometry, longest / _SEGMENTS) if longest > 0 else geometry


def _unwrapped(
    geometry: shapely.Geometry, geobox: GeoBox | None = None, pixels: shapely.Geometry | None = None
) -> shapely.Geometry:
    """Polygons and lines in degrees whose longitudes do not jump from point to point; other geometries as they are.

    A ring that goes once around the Earth surrounds a pole and is closed along it; which one, the grid says.
    """
    if isinstance(geometry, shapely.LineString):
        return shapely.LineString(_ring(geometry))
    parts = shapely.get_parts(geometry)
    if not all(isinstance(part, shapely.Polygon) for part in parts):
        return geometry
    done = []
    for part in parts:
        shell = _ring(part.exterior)
        start = shell[0, 0]
        if abs(shell[-1, 0] - start) > 180:
            pole = _pole_inside(geobox, pixels) if geobox is not None else math.copysign(90.0, shell[:, 1].mean())
            shell = np.concatenate([shell, [(shell[-1, 0], pole), (start, pole), shell[0]]])
        middle = (shell[:, 0].min() + shell[:, 0].max()) / 2
        holes = [_ring(ring) for ring in part.interiors]
        near = [hole + np.array([360 * np.round((middle - hole[:, 0].mean()) / 360), 0]) for hole in holes]
        done.append(shapely.Polygon(shell, near))
    whole = done[0] if len(done) == 1 else shapely.union_all(done)
    return whole if whole.is_valid else shapely.union_all(shapely.get_parts(shapely.make_valid(whole)))


def _ring(ring: shapely.LineString) -> NDArray[np.float64]:
    """The points of a ring (longitude, latitude) with longitudes that do not jump; its ends differ around a pole."""
    points = np.array(ring.coords)[:, :2]
    pole = np.abs(points[:, 1]) > 90 - 1e-9  # a pole has every longitude: it takes those of its neighbours
    if pole.any() and not pole.all():
        points = np.concatenate(
            [
                [(points[(n - 1) % (len(points) - 1), 0], point[1]), (points[(n + 1) % (len(points) - 1), 0], point[1])]
                if there
                else [point]
                for n, (point, there) in enumerate(zip(points, pole, strict=True))
            ]
        )
    steps = np.diff(points[:, 0])
    jumps = (np.abs(steps) > 180) & (np.abs(steps) < 360)  # from -180 to 180 goes the side of the whole globe
    points[1:, 0] -= 360 * np.cumsum(np.sign(steps) * jumps)
    return points


def _pole_inside(geobox: GeoBox, pixels: shapely.Geometry | None) -> float:
    """Latitude of the pole that lies in a part of a grid, degrees."""
    for latitude in (90.0, -90.0):
        column, row = shapely.get_coordinates(in_pixels(geobox, shapely.Point(0, latitude), GLOBAL))[0]
        if math.isfinite(column) and (pixels is None or pixels.buffer(1).contains(shapely.Point(column, row))):
            return latitude
    return 90.0


@cache
def _transformer(source: str, target: str) -> Any:
    return Transformer.from_crs(source, target, always_xy=True).transform
