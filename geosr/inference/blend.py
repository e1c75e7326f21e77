"""Tiles of a model that no halo makes exact: neighbours overlap, and one fades into the other.

A network that pools over the whole image, or that looks very far, answers a little differently in each tile. Over the
pixels that two tiles share, the output goes from one answer to the other along half a cosine wave: no seam shows.
"""

from collections.abc import Collection, Iterator
from itertools import product
from math import prod
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from geosr.grid import Tile, TilePlan, Window, relative, scaled, upsample_mask


class OverlapPlan(TilePlan):
    """A scene cut into cores, each read with the pixels that its tile shares with those above and to the left.

    All tiles are about equally large, as far as the scene allows, so that all pool over equally much: at the scene's
    edges a tile reaches further inwards, over pixels that it does not deliver. At the edges of a part of the scene it
    reaches beyond that part.
    """

    @property
    def overlap(self) -> int:
        """LR pixels, along one axis, over which two tiles blend: a halo for each of them, but no more than a core."""
        return min(2 * self.halo, self.core)

    def tile(self, index: int) -> Tile:
        """The tile at a position in the plan."""
        core, side = self._core(index), self.core + self.overlap
        rows, columns = (
            self._along(part, end=whole.stop, n=n, side=side)
            for part, whole, n in zip(core, self.window, self.shape, strict=True)
        )
        return Tile(index, core, self._whole_blocks((rows, columns)))

    def _along(self, core: slice, *, end: int, n: int, side: int) -> slice:
        """What is read for a core along one axis, where the cores end at ``end`` and the scene at ``n``."""
        stop = core.stop + self.halo if core.stop == end else core.stop  # no other tile takes over at the end
        stop = min(max(stop, side), n)
        return slice(max(min(stop - side, core.start - self.overlap), 0), stop)

    def parts(self, index: int) -> dict[tuple[int, int], int]:
        """Indices of the tiles that a core is blended from, by (down, right): its own and those after it, if any."""
        rows, columns = self.grid
        row, column = divmod(index, columns)
        steps = product((0, 1), repeat=2) if self.overlap else [(0, 0)]
        return {
            (down, right): index + down * columns + right
            for down, right in steps
            if row + down < rows and column + right < columns
        }


def ramp(length: int) -> NDArray[np.float32]:
    """Weights, from 0 to 1, of the second of two tiles over the pixels that they share; the first has the rest.

    >>> ramp(4).round(2)
    array([0.04, 0.31, 0.69, 0.96], dtype=float32)
    """
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


class Blender:
    """Blends cores from tiles, which are added in the order of their index.

    Tiles wait for the next row of tiles in a file without a name, so that memory does not grow with the scene and
    nothing is left when the process ends. The file holds one row of tiles.

    Args:
        plan: The tiles.
        scale: SR pixels per LR pixel.
        bands: Number of bands.
        folder: Where the file goes.
        wanted: Indices of the cores to blend.
    """

    def __init__(self, plan: OverlapPlan, *, scale: int, bands: int, folder: Path, wanted: Collection[int]) -> None:
        self.plan, self.scale = plan, scale
        self._tiles = list(plan)
        parts = {index: list(plan.parts(index).values()) for index in sorted(wanted)}
        self.needed = {tile for tiles in parts.values() for tile in tiles}
        """Indices of the tiles that the wanted cores are made of."""
        self._completes: dict[int, list[Tile]] = {}
        for index, tiles in parts.items():
            self._completes.setdefault(tiles[-1], []).append(self._tiles[index])
        self._places = 1 + max((tiles[-1] - index for index, tiles in parts.items()), default=0)
        self._bands = bands
        self._bytes = max(prod(self._stored(tile)) for tile in self._tiles) * np.dtype(np.float32).itemsize
        self._empty: set[int] = set()
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  (closed by close)

    def add(
        self, tile: Tile, sr: NDArray[np.float32] | None, valid: NDArray[np.bool_]
    ) -> Iterator[tuple[Tile, NDArray[np.float32] | None]]:
        """The cores that this tile completes, each with its SR reflectance (band, y, x), NaN where invalid.

        Instead of an array full of NaN there is None.

        Args:
            tile: The tile.
            sr: SR reflectance of everything that was read for it; None where nothing is valid.
            valid: Its mask (y, x), at LR.
        """
        if sr is None:
            self._empty.add(tile.index)
        else:
            if not valid.all():
                sr = np.where(upsample_mask(valid, self.scale), sr, np.float32(np.nan))
            self._file.seek(self._place(tile.index))
            self._file.write(np.ascontiguousarray(sr).data)
            self._file.flush()
        for core in self._completes.get(tile.index, ()):
            yield core, self._blended(core)

    def _blended(self, tile: Tile) -> NDArray[np.float32] | None:
        """SR reflectance of a core: that of its tile, whose last rows and columns fade into those of the next tiles."""
        if tile.index in self._empty:
            return None
        core, overlap = scaled(tile.core, self.scale), self.plan.overlap * self.scale
        second = ramp(overlap)
        weights = (1 - second, second)
        parts = self.plan.parts(tile.index)
        blended: NDArray[np.float32] | None = None
        for steps, index in parts.items():
            if index in self._empty:
                continue  # what it shares with this core is invalid
            rows, columns = (
                slice(along.stop - overlap if step else along.start, along.stop)
                for step, along in zip(steps, core, strict=True)
            )
            values = self._read(index, (rows, columns))
            if (1, 0) in parts:
                values[:, -overlap:] *= weights[steps[0]][:, None]
            if (0, 1) in parts:
                values[:, :, -overlap:] *= weights[steps[1]]
            if blended is None:
                blended = values
            else:
                blended[:, -values.shape[1] :, -values.shape[2] :] += values
        return blended

    def _read(self, index: int, window: Window) -> NDArray[np.float32]:
        """A copy of what a tile says about a window of SR pixels."""
        rows, columns = relative(window, scaled(self._tiles[index].read, self.scale))
        stored = np.memmap(self._file, np.float32, "r", self._place(index), self._stored(self._tiles[index]))
        return np.array(stored[:, rows, columns])

    def _place(self, index: int) -> int:
        """Byte at which a tile begins; it takes the place of one that no core waits for any more."""
        return index % self._places * self._bytes

    def _stored(self, tile: Tile) -> tuple[int, int, int]:
        """Shape (band, y, x) of what is stored of a tile."""
        height, width = tile.shape
        return self._bands, height * self.scale, width * self.scale

    def close(self) -> None:
        """Give the file's space back."""
        self._file.close()
