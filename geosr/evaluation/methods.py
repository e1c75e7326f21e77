"""Methods: what makes an SR image of a pair's LR image; models, the baselines that learn nothing, finished files."""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geosr.evaluation.figures import Tiles
from geosr.evaluation.pairs import ArrayPair, Pair, finite, lr_shape
from geosr.grid import TilePlan, Window, relative, scaled, size, upsample_mask
from geosr.inference.blend import OverlapPlan
from geosr.inference.cores import superresolve_cores
from geosr.inference.ensemble import ERROR, PLAIN, SPREAD, Answer
from geosr.inference.superresolver import SuperResolver
from geosr.models import Model, ModelSpec

TILE = 256
"""LR pixels along a side of the cores that models are run on: seams would show at their borders."""
ABSOLUTE = np.float32(np.sqrt(2 / np.pi))
"""Mean absolute error where errors are normal with a standard deviation of 1: what a spread makes one expect."""
BICUBIC, BACK_PROJECTION = "bicubic", "back-projection"
"""Names of the baselines."""


@dataclass(frozen=True)
class Image:
    """SR reflectance of a window."""

    sr: NDArray[np.float32]
    """Reflectance (band, y, x), NaN where invalid."""
    valid: NDArray[np.bool_]
    """Valid pixels (y, x)."""
    expected: NDArray[np.float32] | None = None
    """Absolute error that the method expects of each value of ``sr``, reflectance; None where it says nothing."""


class Method(Protocol):
    """Makes SR images."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def tiles(self, pair: Pair, window: Window) -> Tiles | None:
        """Where the SR image of a window of LR pixels may have seams; None where that is not known."""
        ...

    def superresolve(self, pair: Pair, window: Window) -> Image:
        """The SR image of a window of LR pixels."""
        ...


@dataclass(frozen=True)
class ModelMethod:
    """A model that is run tile by tile, as predictions are; memory does not grow with the scene.

    Args:
        name: What tables call it.
        resolver: The model on its device.
        answer: What is asked of it: one image, the mean of several, what error it expects.
    """

    name: str
    resolver: SuperResolver
    answer: Answer = PLAIN

    def tiles(self, pair: Pair, window: Window) -> Tiles:
        """The cores, which begin where the window does."""
        return Tiles(TILE * pair.scale)

    def superresolve(self, pair: Pair, window: Window) -> Image:
        """The SR image of a window; that of an exact model is the same whatever the window."""
        spec, scale, answer = self.resolver.spec, self.resolver.spec.scale, self.answer
        plan = (TilePlan if spec.tiling == "exact" else OverlapPlan)(
            lr_shape(pair),
            TILE,
            self.resolver.context(answer),
            spec.multiple_of,
            window,
            self.resolver.flips(pair.geobox),
        )
        height, width = (side * scale for side in size(window))
        planes = np.empty((len(answer.bands(spec.bands)), height, width), np.float32)
        valid = np.zeros((height, width), bool)
        for core in superresolve_cores(pair, plan, self.resolver, range(len(plan)), answer=answer):
            place = scaled(relative(core.tile.core, window), scale)
            valid[place] = upsample_mask(core.valid, scale)
            planes[:, *place] = np.nan if core.sr is None else core.sr
        planes[:, ~valid] = np.nan
        sr, more = planes[: len(spec.bands)], planes[len(spec.bands) :]
        if not len(more):
            return Image(sr, valid)
        return Image(sr, valid, more if answer.error else more * ABSOLUTE)


@dataclass(frozen=True)
class FileMethod:
    """A finished SR image, which is only read."""

    name: str
    tile: int
    """SR pixels along a side of the tiles that it was made of, or may have been."""

    def tiles(self, pair: Pair, window: Window) -> Tiles:
        """Tiles that begin where the file does."""
        start = (part.start * pair.scale + first for part, first in zip(window, pair.sr_start, strict=True))
        down, right = (along % self.tile for along in start)
        return Tiles(self.tile, (down, right))

    def superresolve(self, pair: Pair, window: Window) -> Image:
        """The SR image of a window."""
        fine = scaled(window, pair.scale)
        raster, error, spread = (pair.read_sr(fine, suffix=suffix) for suffix in ("", ERROR, SPREAD))
        assert raster is not None
        if error is not None:
            return Image(raster.array, raster.valid, error.array)
        return Image(raster.array, raster.valid, None if spread is None else spread.array * ABSOLUTE)


@dataclass(frozen=True)
class ArrayMethod:
    """An SR image in memory, that of its name in an `ArrayPair`."""

    name: str

    def tiles(self, pair: Pair, window: Window) -> None:
        """Nothing is known of how it was made."""

    def superresolve(self, pair: Pair, window: Window) -> Image:
        """The SR image of a window."""
        assert isinstance(pair, ArrayPair)
        sr = pair.sr[self.name][:, *scaled(window, pair.scale)].astype(np.float32)
        return Image(sr, finite(sr))


@cache
def baselines(bands: tuple[str, ...], scale: int, mtf: float) -> tuple[ModelMethod, ...]:
    """What needs no learning: bicubic interpolation, and the same with iterated back-projection in its closed form.

    Args:
        bands: Bands of the images.
        scale: SR pixels per LR pixel.
        mtf: Contrast at LR's Nyquist frequency of the sensor that back-projection assumes.

    References:
        M. Irani, S. Peleg, "Improving resolution by image registration", CVGIP 53(3), 1991.
    """
    found = []
    for name, layer in ((BICUBIC, None), (BACK_PROJECTION, mtf)):
        spec = ModelSpec(name, "interpolation", scale, bands, {"mode": "bicubic"}, consistency_mtf=layer)
        found.append(ModelMethod(name, SuperResolver(Model(spec), device="cpu", precision="fp32")))
    return tuple(found)
