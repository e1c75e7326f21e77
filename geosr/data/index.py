"""Footprints of scenes in one spatial index, whatever CRS the pixels of each scene are in."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from geosr.grid import Window

GLOBAL = CRS.from_epsg(4326)
"""The CRS of an index whose scenes have several: no projected one has a place for the whole Earth."""
_SEGMENTS = 64
"""Per side of a footprint in another CRS: a 110 km side bends by 0.04 m between two points."""
_METRES_PER_DEGREE = 112_000.0
"""A little more than a degree has anywhere, so that a footprint has at least as many pixels in degrees as in truth."""


def index_crs(geoboxes: Sequence[GeoBox]) -> CRS | None:
    """The CRS of an index: that of the grids where they share one, else `GLOBAL`; None: none has a CRS."""
    known = [geobox.crs for geobox in geoboxes if geobox.crs is not None]
    if not known:
        return None
    return CRS.from_user_input(known[0].to_wkt()) if all(crs == known[0] for crs in known) else GLOBAL


def window_polygon(window: Window) -> shapely.Polygon:
    """A window of pixels as a polygon (column, row)."""
    return shapely.box(window[1].start, window[0].start, window[1].stop, window[0].stop)


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
    if crs is not None and geobox.crs != crs:
        there = _moved(_dense(pixels), geobox.affine)
        there = shapely.transform(there, _transformer(geobox.crs.to_wkt(), crs.to_wkt()), interleaved=False)
        known = np.isfinite(shapely.get_coordinates(there)).all()
        if not known or not (crs.is_geographic or _returns(there, crs, geobox)):
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
    geometry = _moved(geometry, ~geobox.affine)
    return geometry if geometry.geom_type == "Point" or geometry.is_valid else shapely.make_valid(geometry)


def pixel_size(
    geoboxes: Sequence[GeoBox], footprints: Sequence[shapely.Geometry], crs: CRS | None
) -> tuple[float, float]:
    """Width and height of the pixel that an index is counted in, units of its CRS.

    In the CRS of the grids it is the first grid's. In degrees it is the smallest anywhere, so that no footprint counts
    fewer pixels than its scene has, which would hide small scenes from samplers.

    Args:
        geoboxes: The grids.
        footprints: The outline of each in the index.
        crs: CRS of the index.
    """
    sides = [_sides(geobox) for geobox in geoboxes]
    if crs is None or all(geobox.crs == crs for geobox in geoboxes):
        return sides[0]
    found = []
    for geobox, (width, height), outline in zip(geoboxes, sides, footprints, strict=True):
        left, bottom, right, top = outline.bounds
        measured = ((right - left) / geobox.shape[1], (top - bottom) / geobox.shape[0])
        if crs.is_geographic:
            unit = 1.0 if geobox.crs.geographic else _metres(geobox) / _METRES_PER_DEGREE
            measured = (min(width * unit, measured[0]), min(height * unit, measured[1]))
        found.append(measured)
    return min(width for width, _ in found), min(height for _, height in found)


def turns(crs: CRS | None) -> tuple[float, ...]:
    """What to add to an x coordinate to name the same place: whole turns around the Earth in degrees, else nothing."""
    return (0.0, -360.0, 360.0) if crs is not None and crs.is_geographic else (0.0,)


def _returns(there: shapely.Geometry, crs: CRS, geobox: GeoBox) -> bool:
    """Whether points lie on a grid again; far from its own area a projection gives numbers that mean nothing."""
    east, north = _transformer(crs.to_wkt(), geobox.crs.to_wkt())(*shapely.get_coordinates(there).T)
    with np.errstate(invalid="ignore"):
        columns, rows = ~geobox.affine * (east, north)
    height, width = geobox.shape
    return all(((axis >= -1) & (axis <= length + 1)).all() for axis, length in ((columns, width), (rows, height)))


def _metres(geobox: GeoBox) -> float:
    return float(geobox.crs.proj.axis_info[0].unit_conversion_factor)


def _sides(geobox: GeoBox) -> tuple[float, float]:
    """Width and height of a pixel in the units of its CRS, whichever way the grid is turned."""
    a, b, _, d, e, _ = geobox.affine[:6]
    return math.hypot(a, d), math.hypot(b, e)


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
    """Polygons in degrees whose longitudes do not jump from ring point to ring point; other geometries as they are.

    A ring that goes once around the Earth surrounds a pole and is closed along it; which one, the grid says.
    """
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


def _ring(ring: shapely.LinearRing) -> NDArray[np.float64]:
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
    points[:, 0] = np.unwrap(points[:, 0], period=360)
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
