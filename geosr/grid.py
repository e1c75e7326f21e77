"""Grids: the finer grid of an SR image, windows of interest, and the plan that cuts a scene into tiles."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, hypot, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from geosr.errors import GridError
from geosr.footprint import geographic_footprint, part_bounds

BLOCK = 512
"""Side of the output's blocks, in SR pixels."""

Window = tuple[slice, slice]
"""Rows and columns, counted in pixels."""

TOLERANCE = 0.01
"""HR pixels that two grids may disagree by anywhere: what decimals in a file's header leave over."""


def finer(geobox: GeoBox, scale: int) -> GeoBox:
    """The grid with ``scale`` times the pixels along each axis and exactly the same outline.

    >>> coarse = GeoBox((3, 5), Affine(10, 0, 600_000, 0, -10, 5_000_000), "EPSG:32633")
    >>> finer(coarse, 4).shape, finer(coarse, 4).boundingbox == coarse.boundingbox
    (Shape2d(x=20, y=12), True)
    """
    height, width = geobox.shape
    return GeoBox((height * scale, width * scale), geobox.affine * Affine.scale(1 / scale), geobox.crs)


def window_of_bounds(geobox: GeoBox, area: BoundingBox | Geometry) -> Window:
    """The smallest window of whole pixels that covers ``area``, as far as the grid reaches.

    Args:
        geobox: The grid.
        area: Bounds in the grid's own CRS, or a geometry in any CRS.

    Raises:
        GridError: The area lies outside the grid, or its CRS cannot be brought to the grid's.
    """
    numbers = isinstance(area, BoundingBox)
    if isinstance(area, BoundingBox):
        area = box(*area, crs=None)
    if area.crs is not None and geobox.crs is None:
        raise GridError(
            "the scene has no coordinate reference system; give the area as numbers on the scene's own grid"
        )
    parts = part_bounds(geobox, area.geom, area.crs and area.crs.proj)
    if not len(parts) or not np.isfinite(parts).all():
        raise GridError(f"the area lies outside the scene: its coordinates have no place in {geobox.crs}")
    height, width = geobox.shape
    tolerance = 1e-6  # of a pixel: bounds that were written as decimals still fall on pixel edges
    first = np.maximum(np.floor(parts[:, :2] + tolerance).astype(int), 0)
    last = np.minimum(np.ceil(parts[:, 2:] - tolerance).astype(int), (width, height))
    inside = (first < last).all(axis=1)
    if not inside.any():
        raise GridError(_outside(geobox, area, numbers=numbers))
    _require_one_place(geobox, parts[inside])
    left, top = first[inside].min(axis=0)
    right, bottom = last[inside].max(axis=0)
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _outside(geobox: GeoBox, area: Geometry, *, numbers: bool) -> str:
    """The message for an area that shares no pixel with a grid; `numbers` are counted in the grid's CRS."""
    said = f"the area {tuple(area.boundingbox)} lies outside the scene, which covers {tuple(geobox.boundingbox)}"
    if geobox.crs is None:
        return said
    crs = str(geobox.crs) if len(str(geobox.crs)) < 20 else "the scene's CRS"
    west, south, east, north = area.boundingbox
    if numbers and not geobox.crs.geographic and max(abs(west), abs(east)) <= 360 and max(abs(south), abs(north)) <= 90:
        return f"{said}; numbers count in {crs}: give longitudes and latitudes in a GeoJSON file"
    around = geographic_footprint(geobox) if area.crs is not None and area.crs.geographic else None
    return (
        said if numbers or around is None else f"{said} in {crs} and {around[1]} in degrees (west, south, east, north)"
    )


def _require_one_place(geobox: GeoBox, parts: NDArray[np.float64]) -> None:
    """Fail where an area lies at both ends of a grid around the globe: its window would be all between them, too."""
    width = geobox.shape[1]
    if geobox.crs is None or not geobox.crs.geographic or width * abs(geobox.affine.a) < 359.99:
        return
    left, right = parts[:, 0] <= 1e-6, parts[:, 2] >= width - 1e-6
    beyond = (parts[:, 0] < -1e-6) | (parts[:, 2] > width + 1e-6)
    if beyond.any() or (left.any() and right.any() and not (left & right).any()):
        raise GridError(
            "the area crosses the longitude where the scene begins and ends; give what lies on either side of it "
            "as an area of its own"
        )


@dataclass(frozen=True)
class Tile:
    """One unit of work."""

    index: int
    """Position in the plan, row by row."""
    core: Window
    """LR pixels whose SR values this tile delivers."""
    read: Window
    """LR pixels that are read for it: the core and its halo, out to whole blocks, clipped to the scene."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is read."""
        return size(self.read)

    @property
    def inner(self) -> Window:
        """The core, counted from the first pixel that is read."""
        return relative(self.core, self.read)


@dataclass(frozen=True)
class TilePlan:
    """A scene, or a part of it, cut into cores that cover each pixel once; each is read with a halo for the network.

    All windows count from the scene's first row and column. A network that works on blocks of pixels, such as windows
    of attention, gets them from where the whole scene has them, whatever the part: what is read begins at a multiple
    of the block's side, and ends at one or with the scene.
    """

    shape: tuple[int, int]
    """Height and width of the scene, LR pixels."""
    core: int
    """Side of a core, LR pixels; the last row and column of cores may be smaller."""
    halo: int
    """LR pixels read around a core, as far as the scene reaches."""
    multiple_of: int = 1
    """Side of the network's blocks, LR pixels."""
    area: Window | None = None
    """The part of the scene that the cores cover; None is the whole."""
    flips: tuple[bool, bool] = (False, False)
    """Whether the network sees rows, and columns, in reversed order: its blocks begin at the other end then."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.core < 1 or self.halo < 0 or self.multiple_of < 1:
            raise GridError(
                f"scene {self.shape}, core {self.core}, halo {self.halo}, multiple of {self.multiple_of}: "
                "sizes must be positive, the halo not negative"
            )

    @property
    def window(self) -> Window:
        """What the cores cover."""
        return (slice(0, self.shape[0]), slice(0, self.shape[1])) if self.area is None else self.area

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cores."""
        height, width = size(self.window)
        return -(-height // self.core), -(-width // self.core)

    def __len__(self) -> int:
        rows, columns = self.grid
        return rows * columns

    def __iter__(self) -> Iterator[Tile]:
        return map(self.tile, range(len(self)))

    def tile(self, index: int) -> Tile:
        """The tile at a position in the plan."""
        core = self._core(index)
        return Tile(index, core, self._whole_blocks(grow(core, self.halo, self.shape)))

    def mirrored(self, window: Window) -> Window:
        """The window as the network counts its rows and columns, from the other end where they are reversed."""
        rows, columns = (
            slice(n - part.stop, n - part.start) if flip else part
            for part, n, flip in zip(window, self.shape, self.flips, strict=True)
        )
        return rows, columns

    def turned(self, image: NDArray[Any]) -> NDArray[Any]:
        """An image (..., y, x) as the network sees it; that of the network as the scene has it."""
        return flipped(image, self.flips)

    def _whole_blocks(self, window: Window) -> Window:
        """The smallest window of whole blocks of the network around this one, as far as the scene reaches."""
        return self.mirrored(widened(self.mirrored(window), self.multiple_of, self.shape))

    def _core(self, index: int) -> Window:
        rows, columns = (
            slice(part.start + step * self.core, min(part.start + (step + 1) * self.core, part.stop))
            for step, part in zip(divmod(index, self.grid[1]), self.window, strict=True)
        )
        return rows, columns


def reversed_axes(geobox: GeoBox) -> tuple[bool, bool]:
    """Whether rows run from south to north, and columns from east to west.

    A grid without CRS that begins at 0, 0 or has pixels of side 1 counts an image's pixels, from its top and its left.

    >>> reversed_axes(GeoBox((3, 5), Affine(10, 0, 600_000, 0, 10, 5_000_000), "EPSG:32633"))
    (True, False)
    """
    a, _, c, _, e, f = geobox.affine[:6]
    if geobox.crs is None and (c == f == 0 or abs(a) == abs(e) == 1):
        return False, False
    return e > 0, a < 0


def flipped(image: NDArray[Any], flips: tuple[bool, bool]) -> NDArray[Any]:
    """The image (..., y, x) with its rows, and its columns, in reversed order where that is asked for."""
    if not any(flips):
        return image
    down, right = (-1 if flip else 1 for flip in flips)
    return np.ascontiguousarray(image[..., ::down, ::right])


def aligned_core(scale: int, wanted: int) -> int:
    """The multiple of LR pixels nearest to ``wanted`` whose SR pixels fill whole blocks of the output.

    >>> aligned_core(4, 500), aligned_core(3, 500), aligned_core(2, 1)
    (512, 512, 256)
    """
    step = BLOCK // gcd(BLOCK, scale)
    return max(round(wanted / step), 1) * step


def grow(window: Window, margin: int, shape: tuple[int, int]) -> Window:
    """The window with ``margin`` more pixels on each side, clipped to the scene."""
    rows, columns = (
        slice(max(part.start - margin, 0), min(part.stop + margin, n)) for part, n in zip(window, shape, strict=True)
    )
    return rows, columns


def widened(window: Window, multiple_of: int, shape: tuple[int, int]) -> Window:
    """The smallest window around this one whose sides lie at multiples, or at the end of the scene.

    >>> widened((slice(3, 9), slice(4, 5)), 4, (10, 40))
    (slice(0, 10, None), slice(4, 8, None))
    """
    rows, columns = (
        slice(part.start // multiple_of * multiple_of, min(next_multiple(part.stop, multiple_of), n))
        for part, n in zip(window, shape, strict=True)
    )
    return rows, columns


def next_multiple(number: int, of: int) -> int:
    """The smallest multiple that is no smaller than ``number``."""
    return -(-number // of) * of


def relative(window: Window, origin: Window) -> Window:
    """The window counted from the first row and column of ``origin``."""
    rows, columns = (slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, origin, strict=True))
    return rows, columns


def scaled(window: Window, scale: int) -> Window:
    """The window on a grid with ``scale`` times the pixels."""
    rows, columns = (slice(part.start * scale, part.stop * scale) for part in window)
    return rows, columns


def coarsened(window: Window, scale: int) -> Window:
    """The window on a grid with one ``scale``-th of the pixels, of which it holds whole ones."""
    rows, columns = (slice(part.start // scale, part.stop // scale) for part in window)
    return rows, columns


def moved(window: Window, down: int, right: int) -> Window:
    """The window that many rows further down and columns further to the right."""
    rows, columns = (slice(part.start + by, part.stop + by) for part, by in zip(window, (down, right), strict=True))
    return rows, columns


def upsample_mask(valid: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """The mask (y, x) on the finer grid."""
    return valid.repeat(scale, axis=0).repeat(scale, axis=1)


def size(window: Window) -> tuple[int, int]:
    """Height and width of a window."""
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def resolution_m(geobox: GeoBox) -> float | None:
    """Side in metres of a square with the area of one pixel, at the centre of the grid; None without a CRS.

    >>> resolution_m(GeoBox((10, 10), Affine(10, 0, 4e5, 0, -10, 5e6), "EPSG:32633"))
    10.0
    """
    if geobox.crs is None:
        return None
    a, b, _, d, e, _ = geobox.affine[:6]
    if not geobox.crs.geographic:
        return sqrt(abs(a * e - b * d)) * geobox.crs.proj.axis_info[0].unit_conversion_factor
    sides = pixel_sides_m(geobox)
    return None if sides is None else sqrt(prod(sides))


def pixel_sides_m(geobox: GeoBox) -> tuple[float, float] | None:
    """Metres from the centre of a pixel to that below and to that beside it, at the centre; None without a CRS.

    >>> pixel_sides_m(GeoBox((10, 10), Affine(10, 0, 4e5, 0, -20, 5e6), "EPSG:32633"))
    (20.0, 10.0)
    """
    if geobox.crs is None:
        return None
    a, b, c, d, e, f = geobox.affine[:6]
    if not geobox.crs.geographic:
        metres = geobox.crs.proj.axis_info[0].unit_conversion_factor
        return hypot(b, e) * metres, hypot(a, d) * metres
    height, width = geobox.shape
    longitude, latitude = c + (a * width + b * height) / 2, f + (d * width + e * height) / 2
    down, across = (
        geobox.crs.proj.get_geod().inv(longitude, latitude, longitude + east, latitude + north)[2]
        for east, north in ((b, e), (a, d))
    )
    return down, across


class GridPair(NamedTuple):
    """What two grids have in common, in whole LR pixels."""

    scale: int
    """HR pixels per LR pixel along each axis."""
    hr: Window
    """The common part in HR pixels."""
    lr: Window
    """The common part in LR pixels."""


def pair_grids(
    hr: GeoBox, lr: GeoBox, *, hr_name: str = "the HR image", lr_name: str = "the LR image", scale: int | None = None
) -> GridPair:
    """The whole LR pixels that both grids cover, as windows of both.

    Args:
        hr: Grid of the HR image.
        lr: Grid of the LR image.
        hr_name: What the message calls the HR image.
        lr_name: What the message calls the LR image.
        scale: The scale wanted; by default whatever it is.

    Raises:
        GridError: The HR grid does not sit on the LR grid, or they have no pixel in common.

    >>> coarse = GeoBox((5, 5), Affine(20, 0, 100, 0, -20, 200), "EPSG:32633")
    >>> pair_grids(GeoBox((9, 9), Affine(10, 0, 110, 0, -10, 200), "EPSG:32633"), coarse)
    GridPair(scale=2, hr=(slice(0, 8, None), slice(1, 9, None)), lr=(slice(0, 4, None), slice(1, 5, None)))
    """
    to_hr = ~hr.affine * lr.affine
    found = max(round(to_hr.a), 2)
    column, row = round(to_hr.c), round(to_hr.f)
    height, width = lr.shape
    apart = max(
        abs(there - (start + found * here))
        for x, y in ((0, 0), (width, 0), (0, height), (width, height))
        for there, start, here in zip(to_hr * (x, y), (column, row), (x, y), strict=True)
    )
    if hr.crs != lr.crs or apart > TOLERANCE or scale not in (None, found):
        raise GridError(_misfit(hr, lr, hr_name, lr_name, scale or found))
    rows, columns = (
        slice(max(-(start // found), 0), min((fine - start) // found, coarse))
        for start, fine, coarse in ((row, hr.shape[0], height), (column, hr.shape[1], width))
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise GridError(f"{hr_name} {tuple(hr.boundingbox)} and {lr_name} {tuple(lr.boundingbox)} share no LR pixel")
    hr_window = tuple(
        slice(start + found * part.start, start + found * part.stop) for start, part in ((row, rows), (column, columns))
    )
    return GridPair(found, hr_window, (rows, columns))  # type: ignore[arg-type]


def _misfit(hr: GeoBox, lr: GeoBox, hr_name: str, lr_name: str, scale: int) -> str:
    """What is wrong with two grids, and the command that puts the finer on the coarser."""

    def tell(grid: GeoBox) -> str:
        a, b, c, d, e, f = grid.affine[:6]
        turned = "" if b == d == 0 else f", turned ({b:.10g}, {d:.10g})"
        return f"origin ({c:.10g}, {f:.10g}), pixel {a:.10g} x {e:.10g}{turned}, {grid.crs or 'no CRS'}"

    a, _, _, _, e, _ = lr.affine[:6]
    to = f"-t_srs {lr.crs} " if lr.crs is not None else ""
    bounds = " ".join(f"{edge:.12g}" for edge in lr.boundingbox)
    return (
        f"{hr_name} does not sit on the grid of {lr_name} (scale {scale}):\n  HR {tell(hr)}\n  LR {tell(lr)}\n"
        f"  an LR pixel must hold {scale} x {scale} whole HR pixels; put HR on the LR grid:\n"
        f"  gdalwarp {to}-tr {abs(a) / scale:.12g} {abs(e) / scale:.12g} -te {bounds} -r cubic {hr_name} aligned.tif"
    )
