"""Cores of a scene, super-resolved: read with their halo, filled, through the network, cut out or blended."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from geosr.grid import Tile, TilePlan, Window, grow, relative, scaled, size
from geosr.inference.blend import Blender, OverlapPlan
from geosr.inference.coarse import require_blocks
from geosr.inference.ensemble import PLAIN, Answer
from geosr.inference.fill import fill_distance, fill_invalid
from geosr.inference.superresolver import SuperResolver
from geosr.io.raster import Raster
from geosr.models import ModelSpec

AHEAD = 1
"""Batches that are read while the network works."""


class Pixels(Protocol):
    """Where tiles are read from: a scene on disk, or an array that covers the part that is asked for."""

    def read(self, window: Window, bands: Sequence[str]) -> Raster:
        """Reflectance and mask of some bands of a window; both count from the scene's first pixel."""
        ...


@dataclass(frozen=True)
class Core:
    """A part of a scene, super-resolved."""

    tile: Tile
    sr: NDArray[np.float32] | None
    """SR reflectance (band, y, x) of the tile's core, whatever its mask says; None where nothing is valid."""
    valid: NDArray[np.bool_]
    """The mask (y, x), at LR."""

    def part(self, window: Window, *, planes: Sequence[int], scale: int) -> NDArray[np.float32]:
        """SR reflectance (band, y, x) of a window of SR pixels, counted from the core's first, NaN where invalid.

        Args:
            window: Its rows and columns.
            planes: The bands wanted, by their place in what the model gives, spreads or errors included.
            scale: SR pixels per LR pixel.
        """
        if self.sr is None:
            return np.full((len(planes), *size(window)), np.nan, np.float32)
        values = self.sr[:, *window]
        if list(planes) != list(range(len(values))):
            values = values[list(planes)]
        rows, columns = (np.arange(along.start, along.stop) // scale for along in window)
        valid = self.valid[np.ix_(rows, columns)]
        return values if valid.all() else np.where(valid, values, np.float32(np.nan))


def superresolve_cores(
    pixels: Pixels,
    plan: TilePlan,
    resolver: SuperResolver,
    wanted: Sequence[int],
    *,
    answer: Answer = PLAIN,
    batch_size: int = 1,
    folder: Path | None = None,
    ahead: int = AHEAD,
) -> Iterator[Core]:
    """The wanted cores of a plan, in the order given; of an overlapping plan, each when its last part is there.

    The cores are those that super-resolving the whole plan has at these places, to the bit, except that the network
    may round differently in batches of another size.

    Args:
        pixels: The scene.
        plan: The scene, cut into tiles.
        resolver: The model.
        wanted: Indices of tiles.
        answer: What is asked of the model, as `SuperResolver.answer` gives it; the plan's halo is its context.
        batch_size: Tiles that the network takes at once.
        folder: Where tiles wait to be blended; None is the system's folder for temporary files.
        ahead: Batches that a thread of its own reads while the network works; 0 reads in this one.
    """
    blender = None
    if isinstance(plan, OverlapPlan):
        bands = len(answer.bands(resolver.spec.outputs))
        blender = Blender(
            plan, scale=resolver.spec.scale, bands=bands, folder=folder or Path(tempfile.gettempdir()), wanted=wanted
        )
        wanted = sorted(blender.needed)
    spec = resolver.spec

    def load(tiles: list[Tile]) -> list[_Loaded]:
        return [_load(pixels, tile, plan, spec) for tile in tiles]

    batches = _batches((plan.tile(index) for index in wanted), batch_size)
    with closing(blender) if blender else nullcontext():
        for loaded in _in_turn(load, batches, ahead):
            for one, sr in zip(loaded, _infer(resolver, loaded, plan, answer), strict=True):
                yield from _cores(blender, one, sr, scale=resolver.spec.scale)


@dataclass(frozen=True)
class _Loaded:
    """A tile's pixels, ready for the network."""

    tile: Tile
    lr: NDArray[np.float32]
    """Reflectance (band, y, x) as the network sees it: north up."""
    valid: NDArray[np.bool_]
    """The mask (y, x) as the scene has it."""


def _batches(tiles: Iterable[Tile], batch_size: int) -> Iterator[list[Tile]]:
    """Consecutive tiles of one shape, at most ``batch_size`` of them."""
    for _, same in groupby(tiles, key=lambda tile: tile.shape):
        while batch := list(islice(same, batch_size)):
            yield batch


def _in_turn(
    load: Callable[[list[Tile]], list[_Loaded]], batches: Iterator[list[Tile]], ahead: int
) -> Iterator[list[_Loaded]]:
    """Batch after batch; a thread of its own loads the next ones while the caller works on one."""
    if not ahead:
        yield from map(load, batches)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        loads = (reader.submit(load, batch) for batch in batches)
        reading = deque(islice(loads, ahead))
        while reading:
            loaded = reading.popleft().result()
            reading.extend(islice(loads, 1))
            yield loaded


def _load(pixels: Pixels, tile: Tile, plan: TilePlan, spec: ModelSpec) -> _Loaded:
    """A tile's pixels as the network sees them; invalid ones filled from farther around than the network looks."""
    raster = pixels.read(tile.read, spec.bands)
    lr, valid = plan.turned(raster.array), raster.valid
    require_blocks(lr, plan.turned(valid), spec)
    if not valid.all() and valid.any():
        distance = fill_distance(plan.halo)
        wide = grow(tile.read, distance, plan.shape)
        around = pixels.read(wide, spec.bands)
        rows, columns = relative(plan.mirrored(tile.read), plan.mirrored(wide))
        lr = fill_invalid(plan.turned(around.array), plan.turned(around.valid), distance=distance)[:, rows, columns]
    return _Loaded(tile, np.ascontiguousarray(lr), valid)


def _infer(
    resolver: SuperResolver, loaded: Sequence[_Loaded], plan: TilePlan, answer: Answer
) -> list[NDArray[np.float32] | None]:
    """SR reflectance of each tile, and the bands that follow it; None for a tile without a valid pixel."""
    used = [one for one in loaded if one.valid.any()]
    if not used:
        return [None] * len(loaded)
    lr = torch.from_numpy(np.stack([one.lr for one in used]))
    origins = torch.tensor([[along.start for along in plan.mirrored(one.tile.read)] for one in used])
    made = [plan.turned(sr) for sr in resolver.ensemble(lr, answer, origins=origins).numpy()]
    for one, sr in zip(used, made, strict=True):
        origin = [along.start for along in one.tile.read]
        resolver.require_finite(sr, plan.turned(one.lr), one.valid, origin=origin)
    images = iter(made)
    return [next(images) if one.valid.any() else None for one in loaded]


def _cores(blender: Blender | None, loaded: _Loaded, sr: NDArray[np.float32] | None, *, scale: int) -> Iterator[Core]:
    """The cores that are ready now that a tile is."""
    tile = loaded.tile
    if blender is None:
        rows, columns = scaled(tile.inner, scale)
        yield Core(tile, None if sr is None else sr[:, rows, columns], loaded.valid[tile.inner])
    else:
        for finished, core in blender.add(tile, sr, loaded.valid):
            valid = np.zeros(size(finished.core), bool) if core is None else ~np.isnan(core[0, ::scale, ::scale])
            yield Core(finished, core, valid)
