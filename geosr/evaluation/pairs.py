"""Pairs: the LR and HR images of one place on grids that fit, read window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.degrade import PSF, degrade
from geosr.errors import GridError
from geosr.grid import Window, finer, grow, moved, relative, resolution_m, scaled, size
from geosr.io.raster import Raster
from geosr.io.scene import Scene
from geosr.radiometry import Radiometry

SMALLEST = 16
"""HR pixels along a side that must be left inside the border: structural similarity looks at 11."""


class Pair(Protocol):
    """The LR image of a case and, where there is one, its HR image: reflectance of windows, on grids that fit."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that are compared."""
        ...

    @property
    def scale(self) -> int:
        """HR pixels per LR pixel."""
        ...

    @property
    def geobox(self) -> GeoBox:
        """The HR grid, a whole number of LR pixels."""
        ...

    @property
    def units(self) -> str:
        """What the values are."""
        ...

    @property
    def sr_start(self) -> tuple[int, int]:
        """Row and column of the finished SR image that the HR grid begins at."""
        ...

    def read(self, window: Window, bands: Sequence[str]) -> Raster:
        """A window of the LR image, counted in LR pixels."""
        ...

    def read_hr(self, window: Window) -> Raster | None:
        """A window of the HR image, counted in HR pixels; None where there is no HR image."""
        ...

    def read_sr(self, window: Window, *, suffix: str = "") -> Raster | None:
        """A window of the finished SR image, or of what bands with a suffix say of it; None where there is none."""
        ...


def lr_shape(pair: Pair) -> tuple[int, int]:
    """Height and width of the LR image."""
    height, width = pair.geobox.shape
    return height // pair.scale, width // pair.scale


def pixel_m(pair: Pair) -> float | None:
    """Side of an HR pixel in metres, None without a CRS."""
    side = resolution_m(pair.geobox)
    return None if side is None else round(side, 3)


@dataclass(frozen=True)
class DegradedPair:
    """An HR scene, and the LR image that a sensor with a point-spread function would have seen of it.

    An LR pixel is valid where every HR pixel under its kernel is. Windows are read with what the kernel reaches, so
    the LR image is that of the whole scene, and memory does not grow with it.
    """

    name: str
    scene: Scene
    bands: tuple[str, ...]
    psf: PSF
    only: tuple[Window, ...] | None = None
    """HR windows whose pixels count; None: all."""

    @property
    def scale(self) -> int:
        """HR pixels per LR pixel."""
        return self.psf.scale

    @property
    def geobox(self) -> GeoBox:
        """The HR grid, cut to whole LR pixels."""
        height, width = (length // self.scale * self.scale for length in self.scene.geobox.shape)
        return self.scene.geobox[:height, :width]

    @property
    def units(self) -> str:
        """What the values are."""
        return self.scene.band_radiometry(self.bands).units

    @property
    def sr_start(self) -> tuple[int, int]:
        """There is no finished image."""
        return 0, 0

    def read(self, window: Window, bands: Sequence[str]) -> Raster:
        """A window of the LR image."""
        reach = -(-self.psf.radius // self.scale)
        wide = grow(window, reach, lr_shape(self))
        hr = self.scene.read(scaled(wide, self.scale), bands)
        filled = torch.from_numpy(np.where(hr.valid, hr.array, np.float32(0)))[None]
        inner = relative(window, wide)
        lr = degrade(filled, self.psf)[0].numpy()[:, *inner]
        unknown = degrade(torch.from_numpy(~hr.valid).float()[None, None], self.psf)[0, 0].numpy()[inner]
        valid = unknown == 0
        geobox = coarse_grid(self.geobox[scaled(window, self.scale)], self.scale)
        return Raster(np.where(valid, lr, np.float32(np.nan)), valid, geobox, tuple(bands), hr.radiometry)

    def read_hr(self, window: Window) -> Raster:
        """A window of the HR image."""
        return _counting(self.scene.read(window, self.bands), window, self.only)

    def read_sr(self, window: Window, *, suffix: str = "") -> None:
        """Nothing: models make it."""


@dataclass(frozen=True)
class FilePair:
    """Images of one place from files, cut to the LR pixels that all cover."""

    name: str
    bands: tuple[str, ...]
    scale: int
    lr: Scene
    lr_window: Window
    hr: Scene | None = None
    hr_window: Window = (slice(0, 0), slice(0, 0))
    sr: Scene | None = None
    sr_window: Window = (slice(0, 0), slice(0, 0))
    only: tuple[Window, ...] | None = None
    """HR windows, counted in the HR file, whose pixels count; None: all."""

    @property
    def geobox(self) -> GeoBox:
        """The HR grid."""
        return finer(self.lr.geobox[self.lr_window], self.scale)

    @property
    def units(self) -> str:
        """What the values are."""
        return self.lr.band_radiometry(self.bands).units

    @property
    def sr_start(self) -> tuple[int, int]:
        """Row and column of the SR file that the HR grid begins at."""
        return self.sr_window[0].start, self.sr_window[1].start

    def read(self, window: Window, bands: Sequence[str]) -> Raster:
        """A window of the LR image."""
        return self.lr.read(_within(window, self.lr_window), bands)

    def read_hr(self, window: Window) -> Raster | None:
        """A window of the HR image."""
        if self.hr is None:
            return None
        there = _within(window, self.hr_window)
        return _counting(self.hr.read(there, self.bands), there, self.only)

    def read_sr(self, window: Window, *, suffix: str = "") -> Raster | None:
        """A window of the SR image, or of its bands with a suffix, which have an encoding of their own."""
        names = [f"{band}{suffix}" for band in self.bands]
        if self.sr is None or not set(names) <= set(self.sr.bands):
            return None
        return self.sr.read(_within(window, self.sr_window), names)


def coarse_grid(geobox: GeoBox, scale: int) -> GeoBox:
    """The grid with pixels ``scale`` times as wide and the same outline."""
    height, width = geobox.shape
    return GeoBox((height // scale, width // scale), geobox.affine * Affine.scale(scale), geobox.crs)


@dataclass(frozen=True)
class ArrayPair:
    """Images in memory, of one place on Earth or none.

    Raises:
        GridError: Their shapes do not belong together.
    """

    name: str
    bands: tuple[str, ...]
    scale: int
    lr: NDArray[np.float32]
    hr: NDArray[np.float32] | None = None
    sr: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    valid: NDArray[np.bool_] | None = None
    """Pixels that count (y, x), at HR."""

    def __post_init__(self) -> None:
        shape = (len(self.bands), *(length * self.scale for length in self.lr.shape[1:]))
        if self.lr.ndim != 3 or len(self.lr) != len(self.bands):
            raise GridError(f"LR has shape {self.lr.shape}; it must be (band, y, x) with bands {' '.join(self.bands)}")
        for name, image in [*([] if self.hr is None else [("HR", self.hr)]), *self.sr.items()]:
            if image.shape != shape:
                raise GridError(f"{name} has shape {image.shape}; LR {self.lr.shape} at x{self.scale} needs {shape}")
        if self.valid is not None and self.valid.shape != shape[1:]:
            raise GridError(f"the mask has shape {self.valid.shape}; the images need {shape[1:]}")

    @property
    def geobox(self) -> GeoBox:
        """The HR grid, in pixels."""
        height, width = (length * self.scale for length in self.lr.shape[1:])
        return GeoBox((height, width), Affine.identity(), None)

    @property
    def units(self) -> str:
        """What the values are."""
        return "reflectance"

    @property
    def sr_start(self) -> tuple[int, int]:
        """Every image begins at its first pixel."""
        return 0, 0

    def read(self, window: Window, bands: Sequence[str]) -> Raster:
        """A window of the LR image."""
        return _raster(self.lr[:, *window], None, self.bands)

    def read_hr(self, window: Window) -> Raster | None:
        """A window of the HR image."""
        mask = None if self.valid is None else self.valid[window]
        return None if self.hr is None else _raster(self.hr[:, *window], mask, self.bands)

    def read_sr(self, window: Window, *, suffix: str = "") -> None:
        """Nothing: there are several, by name."""


def _counting(raster: Raster, window: Window, only: Sequence[Window] | None) -> Raster:
    """The raster of a window with what lies in none of some other windows made invalid."""
    if only is None:
        return raster
    counts = np.zeros_like(raster.valid)
    for other in only:
        rows, columns = (
            slice(max(there.start - here.start, 0), max(there.stop - here.start, 0))
            for there, here in zip(other, window, strict=True)
        )
        counts[rows, columns] = True
    valid = raster.valid & counts
    return replace(raster, array=np.where(valid, raster.array, np.float32(np.nan)), valid=valid)


def _raster(values: NDArray[np.float32], valid: NDArray[np.bool_] | None, bands: tuple[str, ...]) -> Raster:
    """Reflectance of an array with its mask: where all bands are finite, and what else counts."""
    array = values.astype(np.float32)
    mask = finite(array) if valid is None else finite(array) & valid
    grid = GeoBox(array.shape[1:], Affine.identity(), None)
    return Raster(np.where(mask, array, np.float32(np.nan)), mask, grid, bands, Radiometry(scale=1.0, dtype="float32"))


def finite(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where all bands (band, y, x) are numbers (y, x)."""
    return np.asarray(np.isfinite(image).all(axis=0))


def inner_window(pair: Pair, border: int) -> Window:
    """The LR pixels whose HR pixels are at least ``border`` HR pixels from the edge.

    Raises:
        GridError: None are left, or too few for the figures' windows.
    """
    cut = -(-border // pair.scale)
    height, width = lr_shape(pair)
    window = slice(cut, height - cut), slice(cut, width - cut)
    if min(size(window)) * pair.scale < SMALLEST:
        tall, wide = pair.geobox.shape
        raise GridError(
            f"{pair.name} has {tall} x {wide} HR pixels, and a border of {cut * pair.scale} on each side leaves less "
            f"than {SMALLEST} x {SMALLEST}; give a smaller --border"
        )
    return window


def pieces(window: Window, *, side: int) -> list[Window]:
    """Windows of about equal size, at most ``side`` along an axis, that partition a window.

    >>> pieces((slice(0, 10), slice(2, 5)), side=6)
    [(slice(0, 5, None), slice(2, 5, None)), (slice(5, 10, None), slice(2, 5, None))]
    """
    along = []
    for part in window:
        length = part.stop - part.start
        count = -(-length // side)
        edges = [part.start + length * i // count for i in range(count + 1)]
        along.append([slice(start, stop) for start, stop in pairwise(edges)])
    return [(rows, columns) for rows in along[0] for columns in along[1]]


def _within(window: Window, outer: Window) -> Window:
    """A window that is counted from the start of another, counted from where that one is."""
    return moved(window, outer[0].start, outer[1].start)
