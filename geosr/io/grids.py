"""Files of one scene whose pixels differ in size, on one grid: coarser pixels are repeated, never interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geosr.errors import GridError
from geosr.grid import TOLERANCE, Window, coarsened, moved, pair_grids, relative, widened
from geosr.io.safe import ProductMetadata
from geosr.io.source import Source, StoredBand

_FAR, _SMALL = 1e12, 1e-12


@dataclass(frozen=True)
class Place:
    """Where a file lies on the grid of its scene."""

    geobox: GeoBox
    """The grid of the scene."""
    step: int
    """Pixels of the scene along the side of a pixel of the file."""
    row: int
    """Row of the file whose first part is row 0 of the scene."""
    column: int

    def put(self, source: Source) -> Source:
        """The file, as it looks on the grid of the scene."""
        return source if source.geobox == self.geobox else _Placed(source, self)


def common_grid(sources: Sequence[Source]) -> list[Place]:
    """The place of each file on the grid of the finest, cut to the whole coarse pixels that all of them cover.

    Grids that differ by less than :data:`geosr.grid.TOLERANCE` pixels are one, that of the first file: programs round
    the numbers of a grid differently.

    Raises:
        GridError: Files with pixels of one size differ in outline, or the grid of one does not fit another's; or the
            numbers of a grid place no pixel.
    """
    for source in sources:
        _require_place(source)
    areas = [abs(source.geobox.affine.determinant) for source in sources]
    steps = [round((area / min(areas)) ** 0.5) for area in areas]
    finest = sources[steps.index(1)]
    windows, firsts = [], []
    for source, step in zip(sources, steps, strict=True):
        if step == 1:
            _require_same(finest, source)
            windows.append((slice(0, finest.geobox.shape[0]), slice(0, finest.geobox.shape[1])))
            firsts.append((0, 0))
        else:
            pair = pair_grids(finest.geobox, source.geobox, hr_name=finest.name, lr_name=source.name, scale=step)
            windows.append(pair.hr)
            firsts.append((pair.hr[0].start - step * pair.lr[0].start, pair.hr[1].start - step * pair.lr[1].start))
    if max(steps) == 1:
        return [Place(finest.geobox, 1, 0, 0)] * len(sources)
    shared = []
    for axis in (0, 1):
        low, high = max(window[axis].start for window in windows), min(window[axis].stop for window in windows)
        edges = [
            edge
            for edge in range(low, high + 1)
            if all((edge - first[axis]) % step == 0 for first, step in zip(firsts, steps, strict=True))
        ]
        if len(edges) < 2:
            raise GridError(f"{finest.name} and the coarser files beside it share no whole pixel of the coarsest")
        shared.append(slice(edges[0], edges[-1]))
    rows, columns = shared
    geobox = finest.geobox[rows, columns]
    return [
        Place(geobox, step, (rows.start - first[0]) // step, (columns.start - first[1]) // step)
        for first, step in zip(firsts, steps, strict=True)
    ]


def _require_place(source: Source) -> None:
    """Fail where the numbers of a file's grid cannot place its pixels."""
    affine = source.geobox.affine
    # The sides of a pixel and the origin in metres or degrees: real ones stay far inside these bounds.
    if not all(abs(value) <= _FAR for value in affine[:6]) or not abs(affine.determinant) > _SMALL**2:
        told = ", ".join(f"{value:g}" for value in affine.to_gdal())
        raise GridError(
            f"{source.name} lies on no grid: its geotransform is ({told}), and pixels need finite places and sides "
            "that are not 0; correct it: gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM FILE"
        )


def _require_same(first: Source, other: Source) -> None:
    """Fail where two files with pixels of one size lie on different grids."""
    expected, actual = first.geobox, other.geobox
    for fact, ours, theirs, same in (
        ("CRS", expected.crs, actual.crs, expected.crs == actual.crs),
        ("shape", tuple(expected.shape), tuple(actual.shape), expected.shape == actual.shape),
        ("transform", expected.affine[:6], actual.affine[:6], _apart(expected, actual) <= TOLERANCE),
    ):
        if not same:
            raise GridError(
                f"{first.name} has {fact} {ours} and {other.name} has {theirs}; files of one scene share one grid, "
                "or have pixels a whole number of times as large"
            )


def _apart(first: GeoBox, other: GeoBox) -> float:
    """Pixels that the corners of two grids of one shape lie apart at most, along an axis."""
    height, width = first.shape
    there = ~first.affine * other.affine
    corners = ((0, 0), (width, 0), (0, height), (width, height))
    return max(abs(to - here) for corner in corners for to, here in zip(there * corner, corner, strict=True))


class _Placed:
    """A file on the grid of a scene; a :class:`geosr.io.source.Source`."""

    bands: tuple[StoredBand, ...]

    def __init__(self, source: Source, place: Place) -> None:
        self._source, self._place = source, place
        self.path, self.name, self.bands, self.geobox = source.path, source.name, source.bands, place.geobox
        self.alpha, self.row_bytes = source.alpha, source.row_bytes

    @property
    def product(self) -> ProductMetadata | None:
        """The Sentinel-2 product that the file is an image of."""
        return self._source.product

    def read(
        self,
        bands: Sequence[int],
        window: Window,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Digital numbers of some bands; see :class:`geosr.io.source.Source`.

        What is resampled to a shape begins and ends with the file's own pixels, up to one beyond the window.
        """
        own = self._own(window)
        if shape is not None:
            return self._source.read(bands, own, shape=shape, resampling=resampling)
        return self._repeated(self._source.read(bands, own), window)

    def mask(self, window: Window, *, shape: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """Where a mask leaves pixels in; see :class:`geosr.io.source.Source`."""
        if shape is not None:
            return self._source.mask(self._own(window), shape=shape)
        mask = self._source.mask(self._own(window))
        return None if mask is None else self._repeated(mask, window)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def _own(self, window: Window) -> Window:
        """The file's pixels under a window of the scene."""
        return moved(coarsened(self._whole(window), self._place.step), self._place.row, self._place.column)

    def _whole(self, window: Window) -> Window:
        """The window, out to where the file's pixels end."""
        return widened(window, self._place.step, self.geobox.shape)

    def _repeated(self, pixels: NDArray[Any], window: Window) -> NDArray[Any]:
        """The file's pixels under a window, each as many times as the scene has it, without what lies outside."""
        step = self._place.step
        fine = pixels if step == 1 else pixels.repeat(step, axis=-2).repeat(step, axis=-1)
        return fine[..., *relative(window, self._whole(window))]
