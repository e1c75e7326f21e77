"""Pairs of any two TorchGeo datasets."""

import math
from copy import copy
from typing import Any, Self

import numpy as np
import pandas as pd
import shapely
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from torch import Tensor
from torchgeo.datasets import GeoDataset

from geosr.data.index import pixel_size, turns
from geosr.errors import GridError
from geosr.footprint import GLOBAL, in_pixels, located
from geosr.grid import pair_grids
from geosr.radiometry import Radiometry


class TorchGeoPairs(GeoDataset):
    """LR and HR samples of any two TorchGeo datasets of images, cut at the same bounds and exactly in ratio.

    It works on TorchGeo's samplers as its members do; sizes are LR pixels. Neither member is changed, and
    neither is asked to resample: a query is moved to the nearest LR pixel. The sample has ``lr`` (band, y, x), ``hr``
    (band, y * scale, x * scale), and the masks ``lr_valid`` and ``valid``.

    TorchGeo warps the files of a dataset to one CRS, so make a pair of datasets for each CRS and join the pairs with
    ``|``: their index is in degrees (EPSG:4326) then, and every query stands for as many LR pixels, around its centre,
    in the CRS of the pair that shows the place.

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
        self._home, self._pixel = lr.crs, lr.res

    @property
    def crs(self) -> CRS | None:
        """The CRS of the index; to set it moves the footprints there, and no query asks for resampling after it."""
        return self.index.crs

    @crs.setter
    def crs(self, wanted: Any) -> None:
        crs = CRS.from_user_input(wanted)
        if self.crs is None or crs == self.crs:
            return
        grids = [self._grids[pair] for pair in self.index["pair"]]
        outlines = [
            located(grid, in_pixels(grid, outline, self.crs), crs)
            for grid, outline in zip(grids, self.index.geometry, strict=True)
        ]
        if any(outline is None for outline in outlines):
            raise GridError(f"pairs in {self._home} have no place in {crs.to_string()}; EPSG:4326 has one for all")
        self._res = pixel_size(grids, [located(grid, shapely.box(0, 0, *grid.shape[::-1]), crs) for grid in grids], crs)
        self.index = type(self.index)(
            {"pair": self.index["pair"].to_numpy()}, index=self.index.index, geometry=outlines, crs=crs
        )

    def __or__(self, other: GeoDataset) -> GeoDataset:
        """The places of both, in degrees where their CRSs differ."""
        if not isinstance(other, TorchGeoPairs) or self.crs == other.crs or self.crs is None or other.crs is None:
            return super().__or__(other)
        return self._everywhere()._union(other._everywhere())

    def _union(self, other: Self) -> GeoDataset:
        return super().__or__(other)

    def _everywhere(self) -> Self:
        """The same pairs with their index in degrees."""
        moved = copy(self)
        moved.crs = GLOBAL
        return moved

    def __getitem__(self, query: Any) -> dict[str, Tensor]:
        """``lr``, ``hr``, ``lr_valid`` and ``valid`` at the LR pixels nearest to the query."""
        x, y, t = self._disambiguate_slice(query)
        x, y, grid = self._found(query, x, y)
        res = self._pixel
        x, y = _snapped(x, grid.affine.c, res[0]), _snapped(y, grid.affine.f, res[1])
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

    def _found(self, query: Any, x: slice, y: slice) -> tuple[slice, slice, GeoBox]:
        """Bounds of a query in the members' CRS, and the LR grid of the pair that it overlaps most."""
        names = [shapely.box(x.start + turn, y.start, x.stop + turn, y.stop) for turn in turns(self.crs)]
        outlines = self.index.geometry.to_numpy()
        covered = sum(shapely.area(shapely.intersection(outlines, name)) for name in names)
        if not (covered > 0).any():
            covered = sum(shapely.area(shapely.intersection(shapely.envelope(outlines), name)) for name in names)
        if not (covered > 0).any():
            raise IndexError(f"query {query} lies outside the pairs, whose bounds are {self.bounds}")
        grid = self._grids[self.index["pair"].iloc[int(np.argmax(covered))]]
        if self.crs == self._home:
            return x, y, grid
        centre = in_pixels(grid, names[0].centroid, self.crs)
        middle = grid.affine * (centre.x, centre.y)
        half = [
            round((axis.stop - axis.start) / res) * pixel / 2
            for axis, res, pixel in zip((x, y), self.res, self._pixel, strict=True)
        ]
        x, y = (slice(at - reach, at + reach) for at, reach in zip(middle, half, strict=True))
        return x, y, grid


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
