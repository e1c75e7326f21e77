"""Footprints of scenes in one spatial index, whatever CRS the pixels of each scene are in."""

import math
from collections.abc import Sequence

import shapely
from odc.geo.geobox import GeoBox
from pyproj import CRS

from geosr.footprint import GLOBAL
from geosr.grid import Window

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


def _metres(geobox: GeoBox) -> float:
    return float(geobox.crs.proj.axis_info[0].unit_conversion_factor)


def _sides(geobox: GeoBox) -> tuple[float, float]:
    """Width and height of a pixel in the units of its CRS, whichever way the grid is turned."""
    a, b, _, d, e, _ = geobox.affine[:6]
    return math.hypot(a, d), math.hypot(b, e)
