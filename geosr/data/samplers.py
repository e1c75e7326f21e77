"""Which patch comes when: draws that depend on nothing but the seed and their number."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from geosr.data.patches import Patch, PatchTable
from geosr.data.splits import hashed
from geosr.errors import ConfigError

_AT_ONCE = 1024  # draws made in one numpy call


class PatchSampler(Sampler[Patch]):
    """Patches of a table, drawn with replacement; the same seed gives the same ones with any number of workers.

    Draw ``i`` depends on the seed and on ``i`` only. Rank ``r`` of ``w`` makes draws ``start + r``, ``start + r + w``
    and so on: together the ranks make the draws that one would make alone.

    Args:
        table: The patches to draw from, already without those of another split or with too few valid pixels.
        length: Draws of all ranks together.
        size: Side of the patches to draw, at a random place within those of the table; by default they are the same.
        unit: HR pixels that such a place is a multiple of: those along an LR pixel for pairs.
        seed: Seed of the draws.
        detail: A patch is drawn in proportion to its detail ** detail; 0: all alike.
        balance: Patches of a scene share what it is drawn in proportion to, its (patches) ** (1 - balance); 0: patches
            count, whatever their scene, 1: scenes count.
        rank: Number of this process.
        world_size: How many processes draw.
        start: Draws of all ranks together that were made before, when a run is resumed.

    Raises:
        ConfigError: The table is empty, or rank and world size do not fit.
    """

    def __init__(
        self,
        table: PatchTable,
        *,
        length: int,
        size: int | None = None,
        unit: int = 1,
        seed: int = 0,
        detail: float = 0.0,
        balance: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        if not len(table):
            raise ConfigError("there is no patch to draw from; look at the split and at min_valid")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is not one of {world_size} processes; ranks count from 0")
        if size is not None and not 0 < size <= table.size:
            raise ConfigError(
                f"patches of {size} HR pixels do not fit into those of the table, which have {table.size}"
            )
        self.table, self.length, self.seed = table, length, seed
        self.places, self.unit = (table.size - (size or table.size)) // unit + 1, unit
        self.rank, self.world_size, self.start = rank, world_size, start
        weights = table.detail.astype(np.float64) ** detail
        weights = weights if weights.any() else np.ones_like(weights)  # no detail at all: all alike
        cumulative = np.cumsum(weights * np.bincount(table.scene)[table.scene] ** -float(balance))
        self._cumulative = cumulative / cumulative[-1]

    def __len__(self) -> int:
        return max(self.length - self.start, 0) // self.world_size

    def __iter__(self) -> Iterator[Patch]:
        for first in range(0, len(self), _AT_ONCE):
            numbers = np.arange(first, min(first + _AT_ONCE, len(self)))
            numbers = self.start + self.rank + self.world_size * numbers
            # Places within the patch have draws of their own.
            down, right = (self._uniform(numbers, axis) * self.places for axis in (1, 2))
            for index, row, column in zip(self.draw(numbers), down.astype(int), right.astype(int), strict=True):
                patch = self.table[index]
                yield Patch(patch.scene, patch.row + int(row) * self.unit, patch.column + int(column) * self.unit)

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """Positions in the table of the draws with these numbers."""
        return np.searchsorted(self._cumulative, self._uniform(numbers), side="right")

    def _uniform(self, numbers: np.ndarray, *which: int) -> np.ndarray:
        """Uniform numbers from 0 to 1 for the draws with these numbers; ``which`` tells several of one draw apart."""
        return (hashed(self.seed, numbers, *which) >> np.uint64(11)) * 2.0**-53


class UpdateSampler(Sampler[list[Patch]]):
    """The patches of one update after another: as many at once as that update needs.

    The length is that of the whole run even when a part of it is done, which is what Lightning counts the updates of a
    resumed run against.

    Args:
        draws: The patches, from those of the first update that is not done.
        counts: How many each update of the run needs.
        done: Updates that were made before.
    """

    def __init__(self, draws: PatchSampler, counts: Sequence[int], *, done: int = 0) -> None:
        self.draws, self.counts, self.done = draws, counts, done

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[list[Patch]]:
        draws = iter(self.draws)
        for count in self.counts[self.done :]:
            yield list(islice(draws, count))
