"""Pairs of an LR and an HR image: which pixels of the two belong together, and pairs of any two TorchGeo datasets."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import Tensor
from torchgeo.datasets import GeoDataset

from geosr.errors import GridError
from geosr.grid import Window
from geosr.radiometry import Radiometry

TOLERANCE = 0.01
"""HR pixels that two grids may disagree by anywhere: what decimals in a file's header leave over."""


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


class TorchGeoPairs(GeoDataset):
    """LR and HR samples of any two TorchGeo datasets of images, cut at the same bounds and exactly in ratio.

    It works on TorchGeo's samplers as its members do; sizes are LR pixels. Neither member is changed, and
    neither is asked to resample: a query is moved to the nearest LR pixel. The sample has ``lr`` (band, y, x), ``hr``
    (band, y * scale, x * scale), and the masks ``lr_valid`` and ``valid``.

    Args:
        lr: Dataset of LR images.
        hr: Dataset of HR images in the same CRS.
        scale: HR pixels per LR pixel.
        radiometry: How the values encode reflectance, which also says what is invalid; None: they are reflectance
            already, and what is not finite is invalid.

    Raises:
        GridError: CRS or pixel sizes do not fit, or where the two show one place their pixels do not.
    """

    def __init__(self, lr: GeoDataset, hr: GeoDataset, *, scale: int, radiometry: Radiometry | None = None) -> None:
        self.lr, self.hr, self.scale, self.radiometry = lr, hr, scale, radiometry
        self._res = lr.res
        places = []
        for one in range(len(lr.index)):
            for other in range(len(hr.index)):
                times = lr.index.index[one], hr.index.index[other]
                common = lr.index.geometry.iloc[one] & hr.index.geometry.iloc[other]
                if times[0].overlaps(times[1]) and common.area > 0:
                    grids = (_grid(dataset, place) for dataset, place in ((hr, other), (lr, one)))
                    pair_grids(*grids, scale=scale)
                    places.append((max(t.left for t in times), min(t.right for t in times), common, _grid(lr, one)))
        if not places:
            raise GridError("the LR and the HR dataset show no place at the same time")
        starts, ends, geometry, self._grids = zip(*places, strict=True)
        index = pd.IntervalIndex.from_arrays(list(starts), list(ends), closed="both", name="datetime")
        self.index = type(lr.index)({"pair": range(len(places))}, index=index, geometry=list(geometry), crs=lr.crs)

    def __getitem__(self, query: Any) -> dict[str, Tensor]:
        """``lr``, ``hr``, ``lr_valid`` and ``valid`` at the LR pixels nearest to the query."""
        x, y, t = self._disambiguate_slice(query)
        at = self.index.cx[x.start : x.stop, y.start : y.stop]
        if at.empty:
            raise IndexError(f"query {query} lies outside the pairs, whose bounds are {self.bounds}")
        grid = self._grids[at["pair"].iloc[0]]
        x, y = _snapped(x, grid.affine.c, self.res[0]), _snapped(y, grid.affine.f, self.res[1])
        sample = {}
        for name, mask, dataset in (("lr", "lr_valid", self.lr), ("hr", "valid", self.hr)):
            # Both name the resolution: TorchGeo counts pixels by it.
            steps = (slice(axis.start, axis.stop, res) for axis, res in zip((x, y), dataset.res, strict=True))
            image = dataset[(*steps, t)]["image"].numpy()
            valid = np.isfinite(image).all(axis=0) if self.radiometry is None else self.radiometry.valid(image)
            if self.radiometry is not None:
                image = self.radiometry.to_reflectance(image, valid=valid)
            sample[name] = torch.from_numpy(np.where(valid, image, np.float32(0)).astype(np.float32, copy=False))
            sample[mask] = torch.from_numpy(valid)
        wanted = tuple(length * self.scale for length in sample["lr"].shape[1:])
        if tuple(sample["hr"].shape[1:]) != wanted:
            raise GridError(f"HR has {tuple(sample['hr'].shape[1:])} pixels where LR asks for {wanted}; query {query}")
        return sample


def _grid(dataset: GeoDataset, place: int) -> GeoBox:
    """The grid of one file of a TorchGeo dataset."""
    left, bottom, right, top = dataset.index.geometry.iloc[place].bounds
    across, down = dataset.res
    shape = (round((top - bottom) / down), round((right - left) / across))
    return GeoBox(shape, Affine(across, 0, left, 0, -down, top), str(dataset.crs) if dataset.crs else None)


def _snapped(axis: slice, origin: float, res: float) -> slice:
    """The bounds moved to whole pixels of a grid, their number of pixels kept."""
    start = origin + round((axis.start - origin) / res) * res
    return slice(start, start + max(math.floor((axis.stop - axis.start) / res + 0.5), 1) * res)
