"""Where training patches are: the files of a scene, the places in it, and what is known of each place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geosr.errors import GridError, InputError
from geosr.grid import Window

STRIP = 2**22
"""Pixels of one band that `scan_patches` asks for at a time, unless a patch is higher: what bounds its memory."""


@dataclass(frozen=True)
class SceneFiles:
    """One scene of training data.

    Raises:
        InputError: It names no file, or its dates are not in order.
    """

    name: str
    """What messages and manifests call it; unique in a dataset."""
    hr: tuple[str, ...]
    """What `geosr.open_scene` takes: files of one grid, or one Zarr group."""
    lr: tuple[str, ...] = ()
    """The same scene at low resolution; empty where a degradation makes it."""
    start: datetime | None = None
    """When it was taken, UTC; None: unknown."""
    end: datetime | None = None
    """When it was completed, UTC; None: at `start`."""
    exclude: tuple[Window, ...] = ()
    """HR windows whose pixels count as invalid."""
    window: Window | None = None
    """The HR window that is used; None: the whole scene."""

    def __post_init__(self) -> None:
        for name in ("hr", "lr", "exclude"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.hr:
            raise InputError(f"scene {self.name} names no HR file; it needs at least one")
        if self.end is not None and (self.start is None or self.end < self.start):
            raise InputError(f"scene {self.name} ends at {self.end} and starts at {self.start}; give both, in order")


class Patch(NamedTuple):
    """Place of a patch."""

    scene: int
    """Position of its scene in the dataset."""
    row: int
    """First HR row, counted in the whole HR scene; for a pair in the HR pixels that both images cover."""
    column: int
    """First HR column, counted likewise."""


@dataclass(frozen=True)
class PatchTable:
    """All candidate patches of a dataset, as arrays of one length.

    Raises:
        GridError: The arrays have different lengths.
    """

    size: int
    """HR pixels along a side."""
    scene: NDArray[np.int32]
    """Position of the scene in the dataset."""
    row: NDArray[np.int32]
    """First HR row, as in `Patch`."""
    column: NDArray[np.int32]
    """First HR column, as in `Patch`."""
    valid: NDArray[np.float32]
    """Share of valid pixels, 0 to 1."""
    detail: NDArray[np.float32]
    """Mean absolute difference between neighbouring valid pixels of the mean over bands, reflectance."""
    split: NDArray[np.int8]
    """0 train, 1 validation, 2 test, -1 none (across a border or in a buffer)."""

    def __post_init__(self) -> None:
        for name, dtype in _COLUMNS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise GridError(f"the columns of a patch table have different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, index: int) -> Patch:
        return Patch(int(self.scene[index]), int(self.row[index]), int(self.column[index]))

    def select(self, keep: NDArray[Any]) -> "PatchTable":
        """The table of some patches only; ``keep`` is a mask or an array of positions."""
        return PatchTable(self.size, **{name: getattr(self, name)[keep] for name in _COLUMNS})

    @staticmethod
    def concatenate(tables: Sequence["PatchTable"]) -> "PatchTable":
        """One table after the other.

        Raises:
            GridError: There is none, or their patches differ in size.
        """
        sizes = {table.size for table in tables}
        if len(sizes) != 1:
            raise GridError(
                f"patches of {sorted(sizes)} pixels have no table together; a table has patches of one size"
            )
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}
        return PatchTable(sizes.pop(), **columns)


_COLUMNS = dict(scene=np.int32, row=np.int32, column=np.int32, valid=np.float32, detail=np.float32, split=np.int8)
if tuple(_COLUMNS) != tuple(field.name for field in fields(PatchTable))[1:]:
    raise AssertionError("_COLUMNS must name every column of PatchTable")


def patches_of(
    valid: NDArray[np.bool_], image: NDArray[np.float32], *, scene: int, size: int, stride: int
) -> PatchTable:
    """All patches of an image, in train, with the share of valid pixels and the detail (reflectance) of each.

    Args:
        valid: Valid pixels (y, x).
        image: Reflectance (y, x), the mean over bands; what it holds where it is not valid does not matter.
        scene: The scene's position in its dataset.
        size: Side of a patch, pixels.
        stride: Pixels between the places where a patch may start; the last row and column of patches end at the edge.
    """
    return scan_patches(lambda rows: (valid[rows], image[rows]), valid.shape, scene=scene, size=size, stride=stride)


def scan_patches(
    read: Callable[[slice], tuple[NDArray[np.bool_], NDArray[np.float32]]],
    shape: tuple[int, ...],
    *,
    scene: int,
    size: int,
    stride: int,
) -> PatchTable:
    """What `patches_of` returns, for an image of that shape of which only a strip is in memory.

    Args:
        read: Gives ``valid`` and ``image`` (y, x) of whole rows.
        shape: Height and width of the image, at least ``size``.
        scene: As for `patches_of`.
        size: As for `patches_of`.
        stride: As for `patches_of`.
    """
    tops, columns = (_starts(length, size, stride) for length in shape)
    several = max((STRIP // shape[1] - size) // stride + 1, 1)
    parts = []
    for first in range(0, len(tops), several):
        here = tops[first : first + several]
        valid, image = read(slice(int(here[0]), int(here[-1]) + size))
        rows, lefts = (grid.ravel() for grid in np.meshgrid(here - here[0], columns, indexing="ij"))
        share = _box_sum(valid, rows, lefts, size) / size**2
        detail = _detail(valid, image, rows, lefts, size)
        parts.append((rows + here[0], lefts, share.astype(np.float32), detail.astype(np.float32)))
    row, column, share, detail = (np.concatenate(values) for values in zip(*parts, strict=True))
    train = np.zeros(len(row), np.int8)
    return PatchTable(size, np.full(len(row), scene), row, column, share, detail, train)  # type: ignore[arg-type]


def _starts(length: int, size: int, stride: int) -> NDArray[np.int64]:
    """Where patches start along an axis."""
    starts = np.arange(0, length - size + 1, stride)
    return starts if starts[-1] == length - size else np.append(starts, length - size)


def _detail(
    valid: NDArray[np.bool_],
    image: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    size: int,
) -> NDArray[np.float64]:
    """Mean absolute difference of each patch's pixels to their neighbours below and to the right, in the patch."""
    corner = image[:-1, :-1]
    known = valid[:-1, :-1] & valid[1:, :-1] & valid[:-1, 1:]
    change = np.abs(image[1:, :-1] - corner)
    change += np.abs(image[:-1, 1:] - corner)
    change[~known] = 0
    return _box_sum(change, rows, columns, size - 1) / np.maximum(2 * _box_sum(known, rows, columns, size - 1), 1)


def _box_sum(values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64], size: int) -> NDArray[Any]:
    """Sum over the ``size`` x ``size`` window that starts at each row and column, from the integral image."""
    integral = np.zeros(tuple(length + 1 for length in values.shape), np.int64 if values.dtype == bool else np.float64)
    np.cumsum(values, axis=0, out=integral[1:, 1:])
    np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
    below, right = rows + size, columns + size
    return integral[below, right] - integral[rows, right] - integral[below, columns] + integral[rows, columns]
