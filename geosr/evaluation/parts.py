"""One part of a scene: every method's SR image of it, its figures, spectra and patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geosr import metrics
from geosr.degrade import PSF
from geosr.degrade.resample import bicubic
from geosr.errors import InputError
from geosr.evaluation.classes import ClassMap
from geosr.evaluation.figures import ALL, Distance, Figures, Ground, measure, pointwise
from geosr.evaluation.methods import Image, Method
from geosr.evaluation.pairs import Pair
from geosr.grid import Window, scaled, upsample_mask
from geosr.inference.fill import fill_distance, fill_invalid
from geosr.metrics.spectral import angles

PIECE = 1536
"""HR pixels along a side of what is measured at once: 4 GB at four bands."""
PATCH = 64
"""HR pixels along a side of a patch, at most: the unit of intervals within a scene, and of the worst and the best."""
FREQUENCIES = np.linspace(1 / 64, 0.5, 32)
"""Cycles per pixel at which spectra are told."""
HR = "HR"
"""The name of HR among the spectra."""
SAMPLES = 20_000
"""Pixels of a part that the calibration plot sees."""

Samples = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of some pixels the absolute error that a method expects, and the actual one, reflectance."""


@dataclass(frozen=True)
class Images:
    """LR, HR and every method's SR of one window, reflectance (band, y, x), NaN where invalid."""

    lr: NDArray[np.float32]
    hr: NDArray[np.float32] | None
    valid: NDArray[np.bool_]
    """Pixels that are valid in all of them (y, x), at HR."""
    bicubic: NDArray[np.float32]
    sr: Mapping[str, Image]
    """By the method's name."""


@dataclass(frozen=True)
class Patches:
    """Squares of a scene that tile it, as arrays of one length."""

    row: NDArray[np.int64]
    """First HR row."""
    column: NDArray[np.int64]
    side: int
    """HR pixels along a side."""
    pixels: NDArray[np.int64]
    """Valid pixels."""
    detail: NDArray[np.float64]
    """Mean absolute difference of neighbours in reflectance: what there is to see."""
    square: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Mean squared error by method, reflectance squared; none without HR."""
    angle: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Mean spectral angle by method, degrees."""


@dataclass(frozen=True)
class Part:
    """What was measured of one part."""

    figures: Mapping[str, Mapping[str, Figures]]
    """By method and class."""
    spectra: Mapping[str, NDArray[np.float64]]
    """Power in dB at `FREQUENCIES`, the mean over bands, by method, and `HR`'s."""
    patches: Patches
    samples: Mapping[str, Samples]
    """Of the methods that say what error they expect."""


def images_of(pair: Pair, window: Window, methods: Sequence[Method]) -> Images:
    """All images of a window of LR pixels."""
    fine = scaled(window, pair.scale)
    lr, hr = pair.read(window, pair.bands), pair.read_hr(fine)
    made = {method.name: method.superresolve(pair, window) for method in methods}
    valid = upsample_mask(lr.valid, pair.scale)
    for one in ([] if hr is None else [hr.valid]) + [image.valid for image in made.values()]:
        valid = valid & one
    filled = fill_invalid(lr.array, lr.valid, distance=fill_distance(4))
    smooth = bicubic(torch.from_numpy(filled)[None], pair.scale)[0].numpy()
    return Images(lr.array, None if hr is None else hr.array, valid, smooth, made)


def measure_part(
    pair: Pair,
    window: Window,
    methods: Sequence[Method],
    *,
    psf: PSF,
    classes: ClassMap | None = None,
    distances: Mapping[str, Distance] | None = None,
) -> Part:
    """Figures, spectra and patches of one window of LR pixels.

    Args:
        pair: The scene.
        window: LR pixels that are measured.
        methods: What makes SR.
        psf: The sensor that SR is degraded by to be compared with LR.
        classes: Land cover; None: there are no classes.
        distances: Perceptual distances by name.
    """
    images = images_of(pair, window, methods)
    ground = ground_of(images, pair.bands, psf)
    masks: dict[str, Tensor] = {}
    if classes is not None:
        fine = scaled(window, pair.scale)
        masks = {name: torch.from_numpy(mask)[None] for name, mask in classes.masks(pair.geobox[fine]).items()}
    figures: dict[str, dict[str, Figures]] = {}
    spectra = {} if ground.hr is None else {HR: decibels(ground.hr, ground.valid)}
    samples = {}
    for method in methods:
        image = images.sr[method.name]
        sr = tensor(image.sr, ground.valid)
        figures[method.name] = {ALL: measure(sr, ground, tiles=method.tiles(pair, window), distances=distances)}
        if ground.hr is not None:
            for name, mask in masks.items():
                if (inside := mask & ground.valid).any():
                    found = pointwise(sr, ground.hr, inside, bands=pair.bands, scale=pair.scale)
                    figures[method.name][name] = {"pixels": float(inside.sum()), **found}
            if image.expected is not None:
                samples[method.name] = _sample(image.expected, sr, ground)
        spectra[method.name] = decibels(sr, ground.valid)
    start = window[0].start * pair.scale, window[1].start * pair.scale
    return Part(figures, spectra, patches_of(images, ground, start), samples)


def ground_of(images: Images, bands: tuple[str, ...], psf: PSF) -> Ground:
    """What SR images of a window are measured against."""
    valid = torch.from_numpy(images.valid)[None]
    hr = None if images.hr is None else tensor(images.hr, valid)
    lr = torch.from_numpy(np.nan_to_num(images.lr))[None]
    return Ground(lr, tensor(images.bicubic, valid), hr, valid, bands, psf)


def tensor(image: NDArray[np.float32], valid: Tensor) -> Tensor:
    """Reflectance (1, band, y, x), 0 where invalid."""
    return torch.where(valid.unsqueeze(1), torch.from_numpy(image)[None], 0.0)


def decibels(image: Tensor, valid: Tensor) -> NDArray[np.float64]:
    """Power of the spectrum in dB at `FREQUENCIES`, a mean over bands; NaN where no square is all valid."""
    spectrum = metrics.spectrum(image, valid)
    if not spectrum.frequency.numel():
        return np.full(len(FREQUENCIES), np.nan)
    power = 10 * np.log10(np.maximum(spectrum.power.numpy().astype(np.float64), 1e-20)).mean(axis=0)
    return np.interp(FREQUENCIES, spectrum.frequency.numpy(), power)


def patches_of(images: Images, ground: Ground, start: tuple[int, int]) -> Patches:
    """The patches of a part; pixels that are left over at its end belong to none.

    Args:
        images: Its images.
        ground: The same as tensors.
        start: HR row and column of its first pixel in the scene.
    """
    scale = ground.psf.scale
    height, width = images.valid.shape
    side = min(PATCH, height, width) // scale * scale
    count = height // side, width // side

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the valid pixels of each patch."""
        total = _blocks(np.where(images.valid, values, 0), side, count)
        with np.errstate(invalid="ignore"):
            return total / pixels

    pixels = _blocks(images.valid.astype(np.int64), side, count)
    seen = (ground.bicubic if ground.hr is None else ground.hr)[0].double().mean(dim=0).numpy()
    slope = np.abs(np.diff(seen, axis=0, prepend=seen[:1])) + np.abs(np.diff(seen, axis=1, prepend=seen[:, :1]))
    square, angle = {}, {}
    if ground.hr is not None:
        for name, image in images.sr.items():
            sr = tensor(image.sr, ground.valid)
            square[name] = means((sr - ground.hr)[0].double().square().mean(dim=0).numpy())
            angle[name] = means(angles(sr, ground.hr)[0].numpy())
    rows, columns = (np.arange(n) * side + first for n, first in zip(count, start, strict=True))
    return Patches(rows.repeat(len(columns)), np.tile(columns, len(rows)), side, pixels, means(slope), square, angle)


def join_patches(parts: Sequence[Patches]) -> Patches:
    """The patches of all parts of a scene.

    Raises:
        InputError: There is none.
    """
    if not parts:
        raise InputError("a scene without parts has no patches")
    names = parts[0].square

    def joined(arrays: Sequence[NDArray]) -> NDArray:
        return np.concatenate(arrays)

    return Patches(
        joined([part.row for part in parts]),
        joined([part.column for part in parts]),
        parts[0].side,
        joined([part.pixels for part in parts]),
        joined([part.detail for part in parts]),
        {name: joined([part.square[name] for part in parts]) for name in names},
        {name: joined([part.angle[name] for part in parts]) for name in names},
    )


def _blocks(values: NDArray, side: int, count: tuple[int, int]) -> NDArray:
    """Sums over the patches (patch,) of values (y, x)."""
    rows, columns = count
    cut = values[: rows * side, : columns * side]
    return cut.reshape(rows, side, columns, side).sum(axis=(1, 3)).ravel()


def _sample(expected: NDArray[np.float32], sr: Tensor, ground: Ground) -> Samples:
    """What a method says of its error, and the error, of some valid pixels that lie evenly over the part."""
    assert ground.hr is not None
    valid = ground.valid[0].numpy()
    error = (sr - ground.hr).abs()[0].numpy()
    said, actual = expected[:, valid].ravel(), error[:, valid].ravel()
    step = max(len(said) // SAMPLES, 1)
    return said[::step], actual[::step]
