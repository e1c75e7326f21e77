"""Arrays, super-resolved: numpy arrays at once, dask arrays chunk by chunk when they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.errors import GridError
from geosr.grid import TilePlan, Window, aligned_core, grow, relative, scaled, size
from geosr.inference.blend import OverlapPlan
from geosr.inference.cores import superresolve_cores
from geosr.inference.ensemble import PLAIN, Answer
from geosr.inference.fill import fill_distance
from geosr.inference.resident import ModelKey
from geosr.inference.tiled import DEFAULT_TILE
from geosr.io.plausibility import Plausibility
from geosr.io.raster import Raster
from geosr.radiometry import Radiometry, storable

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class Encoding:
    """What the values of an array of bands are, in and out."""

    values: Radiometry
    """How the values that come in encode reflectance."""
    out: tuple[Radiometry, ...]
    """For the bands, and for their spreads or errors if any, how the values that go out encode reflectance."""
    stored: tuple[Radiometry | None, ...]
    """Likewise, how integers will encode those values when they are written; None where they will not."""
    check: Plausibility | None = None
    """What is asked of the values that come in; None asks nothing."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that go out."""
        return np.dtype(self.out[0].dtype)

    def encoded(self, sr: NDArray[np.float32]) -> NDArray[Any]:
        """The values that go out (band, y, x) of SR reflectance, NaN where invalid."""
        parts = []
        for plane, out, stored in zip(np.split(sr, len(self.out)), self.out, self.stored, strict=True):
            values = out.to_digital(plane)
            parts.append(values if stored is None else storable(values, stored))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class _Work:
    """All that the pixels of a part depend on but the pixels that come in; each task carries it."""

    model: ModelKey
    plan: TilePlan
    """Of the whole image; its area is not used."""
    encoding: Encoding
    answer: Answer
    planes: tuple[int, ...]
    """Bands that go out, by their place in what the model gives."""
    batch_size: int

    @property
    def exact(self) -> bool:
        return not isinstance(self.plan, OverlapPlan)

    def plan_for(self, part: Window) -> TilePlan:
        """The plan whose cores cover a part of the image.

        Cores of an exact model may begin anywhere. Those of an approximate one are those of the whole image.
        """
        if not self.exact:
            return self.plan
        return replace(self.plan, area=part)

    def indices(self, part: Window) -> list[int]:
        """Cores of `plan_for` the part that have pixels in it."""
        if self.exact:
            return list(range(len(self.plan_for(part))))
        rows, columns = (range(along.start // self.plan.core, -(-along.stop // self.plan.core)) for along in part)
        return [row * self.plan.grid[1] + column for row, column in product(rows, columns)]

    def reads(self, part: Window) -> Window:
        """The pixels that a part depends on, those that invalid ones are filled from included."""
        plan, needed = self.plan_for(part), set(self.indices(part))
        if isinstance(plan, OverlapPlan):
            needed = {other for index in needed for other in plan.parts(index).values()}
        margin = fill_distance(plan.halo)
        windows = [grow(plan.tile(index).read, margin, plan.shape) for index in needed]
        rows, columns = (
            slice(min(window[axis].start for window in windows), max(window[axis].stop for window in windows))
            for axis in (0, 1)
        )
        return rows, columns

    def __call__(self, chunks: list[list[NDArray[Any]]], corner: tuple[int, int], part: Window) -> NDArray[Any]:
        """The values (..., band, y, x) of a part of the image, super-resolved.

        Args:
            chunks: Pixels (..., band, y, x) of it and around it, in rows.
            corner: Row and column of the first of them in the image.
            part: The part, LR pixels.
        """
        resolver = self.model.load()
        scale = resolver.spec.scale
        leading = chunks[0][0].shape[:-3]
        height, width = size(part)
        out = np.empty((*leading, len(self.planes), height * scale, width * scale), self.encoding.dtype)
        for place in np.ndindex(*leading):
            mosaic = _Mosaic([[chunk[place] for chunk in row] for row in chunks], corner, self.encoding)
            cores = superresolve_cores(
                mosaic,
                self.plan_for(part),
                resolver,
                self.indices(part),
                answer=self.answer,
                batch_size=self.batch_size,
                ahead=0,
            )
            for core in cores:
                shared = _common(core.tile.core, part)
                rows, columns = scaled(relative(shared, part), scale)
                inner = scaled(relative(shared, core.tile.core), scale)
                sr = core.part(inner, planes=self.planes, scale=scale)
                out[(*place, slice(None), rows, columns)] = self.encoding.encoded(sr)
        return out


class _Mosaic:
    """Chunks of one image that cover the part that is read; see `geosr.inference.cores.Pixels`."""

    def __init__(self, chunks: list[list[NDArray[Any]]], corner: tuple[int, int], encoding: Encoding) -> None:
        self._encoding = encoding
        self._chunks: list[tuple[Window, NDArray[Any]]] = []
        top = corner[0]
        for row in chunks:
            left = corner[1]
            for chunk in row:
                height, width = chunk.shape[1:]
                self._chunks.append(((slice(top, top + height), slice(left, left + width)), chunk))
                left += width
            top += row[0].shape[1]

    def read(self, window: Window, bands: Sequence[str]) -> Raster:
        """Reflectance and mask of a window; it has the bands that the model wants, in their order."""
        values = np.empty((len(bands), *size(window)), self._encoding.values.dtype)
        for place, chunk in self._chunks:
            shared = _common(window, place)
            if min(size(shared)) > 0:
                values[:, *relative(shared, window)] = chunk[:, *relative(shared, place)]
        radiometry = self._encoding.values
        valid = radiometry.valid(values)
        if self._encoding.check is not None:
            self._encoding.check.require(values, valid, step=None)
        reflectance = radiometry.to_reflectance(values, valid=valid)
        geobox = GeoBox(size(window), Affine.identity(), None)  # of no use to the network
        return Raster(reflectance, valid, geobox, tuple(bands), radiometry)


def superresolve_array(
    array: Any,
    model: ModelKey,
    encoding: Encoding,
    *,
    answer: Answer = PLAIN,
    planes: Sequence[int] | None = None,
    flips: tuple[bool, bool] = (False, False),
    batch_size: int = 1,
) -> Any:
    """The values (..., band, y, x) on the finer grid: numpy of numpy, and of a dask array a dask array.

    It is what `predict` makes of each image of the array, whatever the chunks. Those of the result are the input's, the
    scale times larger. Inside, those with fewer pixels than the model's halo are worked on with a neighbour, and those
    of a model that is tiled approximately in groups that whole tiles make up.

    Args:
        array: Values (..., band, y, x) of the bands of the model, in its order.
        model: The model; a task carries this key, and no weights.
        encoding: What the values are.
        answer: What is asked of the model, as `SuperResolver.answer` gives it.
        planes: The bands that go out, by their place in what the model gives; None: all, in its order.
        flips: Whether rows, and columns, are reversed for the network, as `SuperResolver.flips` says of a grid.
        batch_size: Tiles that the network takes at once, inside a chunk.

    Raises:
        GridError: The array does not hold the bands of the model.
    """
    resolver = model.load()
    spec = resolver.spec
    if array.ndim < 3 or array.shape[-3] != len(spec.bands):
        raise GridError(f"the array is {array.shape}; model {spec.name!r} needs (..., {len(spec.bands)} bands, y, x)")
    shape = (array.shape[-2], array.shape[-1])
    kind = TilePlan if spec.tiling == "exact" else OverlapPlan
    core = aligned_core(spec.scale, DEFAULT_TILE)
    plan = kind(shape, core, resolver.context(answer), spec.multiple_of, flips=flips)
    if planes is None:
        planes = range(len(answer.bands(spec.outputs)))
    work = _Work(model, plan, encoding, answer, tuple(planes), batch_size)
    if isinstance(array, np.ndarray):
        return work([[array]], (0, 0), plan.window)
    return _lazy(array, work, scale=spec.scale)


def _lazy(array: da.Array, work: _Work, *, scale: int) -> da.Array:
    """The dask array whose every chunk is a task: it takes the chunks that it depends on."""
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    array = array.rechunk({array.ndim - 3: -1})
    leading = array.chunks[:-3]
    merged = [_merged(sides, max(work.plan.halo, 1)) for sides in array.chunks[-2:]]
    parts = merged
    if not work.exact:  # a part computes its neighbours' tiles too where it fades into them: small parts, mostly those
        parts = [_whole_cores(_merged(sides, 2 * work.plan.core), work.plan.core) for sides in merged]
    model = (work.model.sha256, work.model.device, work.model.precision)
    how = (work.plan, work.encoding, work.answer, work.planes, work.batch_size)
    name = f"superresolve-{tokenize(array.name, model, *how)}"
    edges = [np.cumsum((0, *sides)) for sides in array.chunks[-2:]]
    tasks: dict[Any, Any] = {}
    for (row, rows), (column, columns) in product(*(enumerate(_slices(sides)) for sides in parts)):
        needed = work.reads((rows, columns))
        down, right = (
            range(int(np.searchsorted(edge, along.start, "right")) - 1, int(np.searchsorted(edge, along.stop, "left")))
            for edge, along in zip(edges, needed, strict=True)
        )
        corner = (int(edges[0][down.start]), int(edges[1][right.start]))
        task = partial(work, corner=corner, part=(rows, columns))
        for place in product(*(range(len(sides)) for sides in leading)):
            chunks = [[(array.name, *place, 0, i, j) for j in right] for i in down]
            tasks[name, *place, 0, row, column] = (task, chunks)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[array])
    finer = tuple(tuple(side * scale for side in sides) for sides in parts)
    meta = np.empty((0,) * array.ndim, work.encoding.dtype)
    result = da.Array(graph, name, (*leading, (len(work.planes),), *finer), meta=meta)
    # Chunks that were put together are cut again: Zarr takes none that are larger at the end.
    return result.rechunk(
        (*result.chunks[:-2], *(tuple(side * scale for side in sides) for sides in array.chunks[-2:]))
    )


def _merged(sides: Sequence[int], least: int) -> tuple[int, ...]:
    """Sides of chunks along one axis, of which those below ``least`` are put together with a neighbour.

    >>> _merged((5, 40, 3, 3, 40, 7), 8)
    (45, 53)
    """
    found: list[int] = []
    waiting = 0
    for side in sides:
        waiting += side
        if waiting >= least:
            found.append(waiting)
            waiting = 0
    if waiting and found:
        found[-1] += waiting
    return tuple(found) if found else (waiting,)


def _whole_cores(sides: Sequence[int], core: int) -> tuple[int, ...]:
    """Sides of parts along one axis that are about as large, and end where cores do.

    >>> _whole_cores((300, 300, 300, 300), 512), _whole_cores((2000, 2000, 100), 512)
    ((512, 512, 176), (2048, 2048, 4))
    """
    total = sum(sides)
    ends = {min(math.ceil(stop / core) * core, total) for stop in np.cumsum(sides).tolist()}
    return tuple(int(side) for side in np.diff([0, *sorted(ends)]))


def _slices(sides: Sequence[int]) -> Iterator[slice]:
    """Consecutive slices of these lengths."""
    start = 0
    for side in sides:
        yield slice(start, start + side)
        start += side


def _common(window: Window, other: Window) -> Window:
    """The part that two windows share; empty where they share none."""
    rows, columns = (
        slice(max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start)))
        for a, b in zip(window, other, strict=True)
    )
    return rows, columns
