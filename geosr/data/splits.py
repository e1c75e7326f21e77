"""Which patches are trained on and which are kept for validation and test: one place on Earth is in one part only."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geosr.data.patches import PatchTable
from geosr.errors import ConfigError
from geosr.hashing import mixed

EQUAL_AREA = "EPSG:6933"
"""The world-wide grid that blocks are cells of: cylindrical, equal-area, true to scale at 30 degrees, in metres."""
EQUATOR = 34_735_060.89
"""Length of the equator in `EQUAL_AREA`, metres."""
RADIUS = 6_371_228.0
"""Radius of the sphere that stands for the Earth where a buffer is measured, metres."""
POLAR = 80.0
"""Latitude beyond which blocks are cells of a grid around the pole: in `EQUAL_AREA` a patch there is many times wider
than high, and so would be the blocks of all."""
_CAPS = {1: ("EPSG:6931", 4e7), -1: ("EPSG:6932", 6e7)}
"""Equal-area grids around the poles, metres, and how far east of `EQUAL_AREA` they are laid, out of its way."""
_EDGE = 1_115_409.05
"""Distance of `POLAR` from the pole in those grids, metres."""
_TOP = 7_229_704.85
"""Distance of `POLAR` from the equator in `EQUAL_AREA`, metres."""


@dataclass(frozen=True)
class BlockSplit:
    """A split into train, validation and test by blocks of the Earth's surface, whatever scene or date shows them.

    A patch that reaches into blocks of different parts belongs to none. A block has at least twice the side of a patch
    with its buffers, whatever `block` says: in smaller ones hardly a patch would be left for validation.

    Raises:
        ConfigError: A value is not allowed.
    """

    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Train, validation and test; of the patches by their centres, before those across borders are dropped."""
    block: float = 2560.0
    """Side of a block in `EQUAL_AREA`, metres."""
    buffer: float = 0.0
    """Metres that a patch keeps away from blocks of another part."""
    seed: int = 0
    """Another seed gives other blocks to each part."""

    def __post_init__(self) -> None:
        shares = tuple(self.shares)
        if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or abs(sum(shares) - 1) > 1e-6:
            raise ConfigError(
                f"shares {shares} of train, validation and test must be 0 or more, sum to 1, and leave some to train on"
            )
        if self.block <= 0 or self.buffer < 0:
            raise ConfigError(f"block {self.block:g} m must be above 0 and buffer {self.buffer:g} m not below")
        object.__setattr__(self, "shares", shares)

    def assign(self, footprints: NDArray[np.float64]) -> NDArray[np.int8]:
        """The part of each patch: 0 train, 1 validation, 2 test, -1 none.

        Args:
            footprints: Bounds (left, bottom, right, top) of every patch of the dataset, as `footprints` gives them.

        Raises:
            ConfigError: There are too few blocks for all parts.
        """
        grown = self._grow(footprints)
        sides = grown[:, 2:] - grown[:, :2]
        # A patch across the antimeridian would reach around the Earth, and its buffer beyond the end of the blocks.
        placed = np.isfinite(grown).all(axis=1) & (sides[:, 0] < EQUATOR / 2) & _within(grown)
        parts = np.full(len(grown), -1, np.int8)
        if not placed.any():
            return parts
        grown, sides = grown[placed], sides[placed]
        block = max(self.block, 2 * float(sides.max()))
        first, last = np.floor(grown[:, :2] / block), np.ceil(grown[:, 2:] / block) - 1
        centre = np.floor((grown[:, :2] + grown[:, 2:]) / 2 / block)
        # Blocks are larger than patches, so the four corners name every block that a patch touches.
        corners = [np.stack([x[:, 0], y[:, 1]], axis=1) for x in (first, last) for y in (first, last)]
        blocks, place = np.unique(np.concatenate([centre, *corners]).astype(np.int64), axis=0, return_inverse=True)
        place = place.reshape(5, -1)
        given = self._give(blocks, np.bincount(place[0], minlength=len(blocks)))[place]
        parts[placed] = np.where((given == given[0]).all(axis=0), given[0], -1)
        for part, name in enumerate(("training", "validation", "test")):
            if self.shares[part] and not (parts == part).any():
                raise ConfigError(
                    f"no patch is left for {name}: {len(grown)} patches lie in {len(blocks)} blocks of {block:.0f} m; "
                    "use smaller blocks or patches, a smaller buffer or more scenes, or give that part no share"
                )
        return parts

    def _grow(self, footprints: NDArray[np.float64]) -> NDArray[np.float64]:
        """Footprints with the buffer around them; a metre on the ground is not one in `EQUAL_AREA`."""
        if not self.buffer:
            return footprints
        sine = np.abs(footprints[:, 1::2]).max(axis=1) * np.cos(np.pi / 6) / RADIUS
        cosine = np.sqrt(np.maximum(1 - np.minimum(sine, 1) ** 2, 1e-6))
        # Around the poles a metre is a metre to 1 in 100; places of scenes without a CRS lie beyond the Earth.
        stretch = np.where(np.abs(footprints[:, 0]) < EQUATOR, cosine / np.cos(np.pi / 6), 1.0)
        margin = 1.01 * self.buffer * np.stack([1 / stretch, np.maximum(stretch, 1)], axis=1)
        return footprints + np.concatenate([-margin, margin], axis=1)

    def _give(self, blocks: NDArray[np.int64], patches: NDArray[np.int64]) -> NDArray[np.int8]:
        """The part of each block: in an order that only the seed and its place decide, validation and test first."""
        order = np.argsort(hashed(self.seed, blocks[:, 0], blocks[:, 1]), kind="stable")
        order = order[patches[order] > 0]
        given = np.zeros(len(blocks), np.int8)
        counted = np.cumsum(patches[order])
        taken = 0
        for part in (1, 2):
            if self.shares[part]:
                before = counted[taken - 1] if taken else 0
                wanted = before + self.shares[part] * counted[-1]
                # At least one block, and the last one only if half of it is wanted.
                middle = counted[taken:] - patches[order][taken:] / 2
                several = max(int(np.searchsorted(middle, wanted)), 1)
                given[order[taken : taken + several]] = part
                taken += several
        return given


def footprints(
    geobox: GeoBox, rows: ArrayLike, columns: ArrayLike, size: int, *, name: str = ""
) -> NDArray[np.float64]:
    """Bounds (left, bottom, right, top) of patches in metres of `EQUAL_AREA`, (patch, 4).

    Beyond the latitude `POLAR` they are in metres of a grid around the pole; a patch across that latitude has no
    bounds. Without a CRS a pixel counts as 10 m, and the scene lies at a place of its own beyond the Earth.

    Args:
        geobox: Grid that rows and columns are counted in.
        rows: First row of each patch.
        columns: First column of each patch.
        size: Side of a patch, pixels.
        name: Name of the scene, which decides its place where it has no CRS.
    """
    top, left = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    if geobox.crs is None:
        away = 1e8 * (1 + zlib.crc32(name.encode()) % 2**20)
        return np.stack([left, top, left + size, top + size], axis=1) * 10 + away
    # Straight edges of a patch bend in another projection: five points on each.
    along = np.linspace(0, size, 5)
    edge = np.array([(x, y) for x in along for y in along if x in (0, size) or y in (0, size)])
    column, row = left[:, None] + edge[:, 0], top[:, None] + edge[:, 1]
    a, b, c, d, e, f = geobox.affine[:6]
    east, north = a * column + b * row + c, d * column + e * row + f
    crs = geobox.crs.to_wkt()
    x, y = _to(EQUAL_AREA, crs).transform(east, north)
    latitude = _to("EPSG:4326", crs).transform(east, north)[1]
    across = np.abs(latitude).min(axis=1) < POLAR
    bounds = np.where((across & (np.abs(latitude).max(axis=1) >= POLAR))[:, None], np.nan, _bounds(x, y))
    for sign, (grid, away) in _CAPS.items():
        here = (sign * latitude).min(axis=1) >= POLAR
        if here.any():
            x, y = _to(grid, crs).transform(east[here], north[here])
            bounds[here] = _bounds(x + away, y)
    return bounds


def _bounds(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds of outlines whose points are given, a little wider for what bends between the points."""
    bounds = np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
    bend = 1e-4 * (bounds[:, 2:] - bounds[:, :2])  # up to patches of 80 km
    return bounds + np.concatenate([-bend, bend], axis=1)


def _within(grown: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which footprints with their buffer stay on their own side of the antimeridian and of the latitude `POLAR`."""
    left, bottom, right, top = grown.T
    centre = (left + right) / 2
    within = np.ones(len(grown), bool)
    inside = np.abs(centre) <= EQUATOR
    within[inside] = ((np.maximum(-left, right) <= EQUATOR / 2) & (np.maximum(-bottom, top) <= _TOP))[inside]
    for _, away in _CAPS.values():
        cap = np.abs(centre - away) < 1.5 * _EDGE
        far = np.hypot(np.maximum(away - left, right - away), np.maximum(-bottom, top))
        within[cap] = (far <= _EDGE)[cap]
    return within


def split_patches(
    table: PatchTable, geoboxes: Sequence[GeoBox], split: BlockSplit, *, names: Sequence[str]
) -> PatchTable:
    """The table with the part of every patch.

    Args:
        table: Patches of all scenes; places that one scene shows are decided together with those of the others.
        geoboxes: Grid of each scene.
        split: The rule.
        names: Name of each scene.
    """
    bounds = np.empty((len(table), 4))
    for scene in np.unique(table.scene):
        here = table.scene == scene
        bounds[here] = footprints(geoboxes[scene], table.row[here], table.column[here], table.size, name=names[scene])
    return replace(table, split=split.assign(bounds))


def hashed(*numbers: Any) -> NDArray[np.uint64]:
    """64 well-mixed bits of each row of whole numbers, the same on every machine; as `mixed` makes them."""
    with np.errstate(over="ignore"):
        return np.asarray(mixed(*(np.asarray(number, np.int64) for number in numbers))).view(np.uint64)


@cache
def _to(target: str, crs: str) -> Transformer:
    return Transformer.from_crs(crs, target, always_xy=True)
