"""Pairs of any two TorchGeo datasets."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import Tensor
from torchgeo.datasets import GeoDataset

from geosr.errors import GridError
from geosr.grid import pair_grids
from geosr.radiometry import Radiometry


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
