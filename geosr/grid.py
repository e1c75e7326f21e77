"""Grids: the finer grid of an SR image, windows of interest, and the plan that cuts a scene into tiles."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, isfinite

from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from geosr.errors import GridError

BLOCK = 512
"""Side of the output's blocks, in SR pixels."""

Window = tuple[slice, slice]
"""Rows and columns, counted in pixels."""


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
    if isinstance(area, BoundingBox):
        area = box(*area, crs=geobox.crs)
    if area.crs is not None and geobox.crs is None:
        raise GridError(
            "the scene has no coordinate reference system; give the area as numbers on the scene's own grid"
        )
    try:
        if area.crs is not None and area.crs != geobox.crs:
            area = area.to_crs(geobox.crs, resolution="auto")
        corners = area.transform(lambda x, y: ~geobox.affine * (x, y)).boundingbox
        if not all(map(isfinite, corners)):
            raise ValueError(f"{corners}")
    except Exception as error:  # odc-geo passes on whatever shapely makes of coordinates at infinity
        raise GridError(f"the area lies outside the scene: its coordinates have no place in {geobox.crs}") from error
    height, width = geobox.shape
    tolerance = 1e-6  # of a pixel: bounds that were written as decimals still fall on pixel edges
    left, top = max(int((corners.left + tolerance) // 1), 0), max(int((corners.bottom + tolerance) // 1), 0)
    right, bottom = (
        min(-int((tolerance - edge) // 1), n) for edge, n in ((corners.right, width), (corners.top, height))
    )
    if left >= right or top >= bottom:
        raise GridError(
            f"the area {tuple(area.boundingbox)} lies outside the scene, which covers {tuple(geobox.boundingbox)}"
        )
    return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Tile:
    """One unit of work."""

    index: int
    """Position in the plan, row by row."""
    core: Window
    """LR pixels whose SR values this tile delivers."""
    read: Window
    """LR pixels that are read for it: the core and its halo, clipped to the scene."""

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
    """A scene cut into cores that cover each pixel once; each is read with a halo that covers the model's reach."""

    shape: tuple[int, int]
    """Height and width of the scene, LR pixels."""
    core: int
    """Side of a core, LR pixels; the last row and column of cores may be smaller."""
    halo: int
    """LR pixels read around a core."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.core < 1 or self.halo < 0:
            raise GridError(
                f"scene {self.shape}, core {self.core}, halo {self.halo}: sizes must be positive, the halo not negative"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cores."""
        return -(-self.shape[0] // self.core), -(-self.shape[1] // self.core)

    def __len__(self) -> int:
        rows, columns = self.grid
        return rows * columns

    def __iter__(self) -> Iterator[Tile]:
        rows, columns = self.grid
        for index in range(rows * columns):
            row, column = divmod(index, columns)
            core = tuple(
                slice(start, min(start + self.core, n))
                for start, n in zip((row * self.core, column * self.core), self.shape, strict=True)
            )
            yield Tile(index, core, grow(core, self.halo, self.shape))  # type: ignore[arg-type]


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


def relative(window: Window, origin: Window) -> Window:
    """The window counted from the first row and column of ``origin``."""
    rows, columns = (slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, origin, strict=True))
    return rows, columns


def scaled(window: Window, scale: int) -> Window:
    """The window on a grid with ``scale`` times the pixels."""
    rows, columns = (slice(part.start * scale, part.stop * scale) for part in window)
    return rows, columns


def size(window: Window) -> tuple[int, int]:
    """Height and width of a window."""
    return window[0].stop - window[0].start, window[1].stop - window[1].start
