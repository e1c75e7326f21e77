"""Pictures of a scene: LR, every method's SR, HR, errors and invented detail, where there is most to see."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from geosr.degrade import PSF
from geosr.evaluation.figures import invented
from geosr.evaluation.methods import BICUBIC, Method
from geosr.evaluation.pairs import Pair, finite
from geosr.evaluation.parts import Patches, ground_of, images_of, tensor
from geosr.grid import Window, coarsened
from geosr.preview import stretch_of, to_image
from geosr.sensors import shown_bands

SIDE = 192
"""HR pixels along a side of what is shown of a scene."""
SHOWN = 320
"""Screen pixels along a side, about."""
EXTREMES = 3
"""Worst patches that are shown of a model, and as many of the best."""
INVALID = (217, 89, 191)
"""Colour of invalid pixels, which no land has."""


@dataclass(frozen=True)
class Panel:
    """Images of one place by what they show; PNG."""

    row: int
    """First HR row of the scene."""
    column: int
    lr: bytes
    hr: bytes | None
    sr: Mapping[str, bytes]
    """By method, bicubic first."""
    error: Mapping[str, bytes]
    """Absolute error, a mean over bands: black is none, and white `error_end` or more."""
    invented: Mapping[str, bytes]
    """Score of hallucination: black is 0, or too little detail to tell, and white 1."""
    error_end: float = 0.0
    """Reflectance that is white."""


@dataclass(frozen=True)
class Extreme:
    """A patch where a model gains little over bicubic interpolation, or much."""

    scene: str
    method: str
    gain: float
    """PSNR over bicubic, dB."""
    panel: Panel


@dataclass(frozen=True)
class Pictures:
    """What is shown of a scene."""

    most_detail: Panel
    worst: tuple[Extreme, ...] = ()
    best: tuple[Extreme, ...] = ()


def draw(pair: Pair, methods: Sequence[Method], patches: Patches, window: Window, *, psf: PSF) -> Pictures:
    """Pictures of the place with the most detail, and of the worst and best patches of each model.

    Args:
        pair: The scene.
        methods: What makes SR, the baselines first.
        patches: The patches that were measured.
        window: LR pixels that were.
        psf: The sensor.
    """
    detail = np.where(patches.pixels == patches.pixels.max(), np.nan_to_num(patches.detail), -1)
    place = int(detail.argmax())
    middle = patches.row[place] + patches.side // 2, patches.column[place] + patches.side // 2
    shown = tuple(
        _around(int(centre), part, SIDE // pair.scale, pair.scale) for centre, part in zip(middle, window, strict=True)
    )
    worst: list[Extreme] = []
    best: list[Extreme] = []
    for method in methods[2:]:
        ranked = rank(patches, method.name)
        half = min(EXTREMES, len(ranked) // 2)
        for found, chosen in ((worst, ranked[:half]), (best, ranked[::-1][:half])):
            for index, gain in chosen:
                start = int(patches.row[index]), int(patches.column[index])
                square = tuple(slice(first, first + patches.side) for first in start)
                panel = draw_panel(pair, [methods[0], method], coarsened(square, pair.scale), psf=psf)  # type: ignore[arg-type]
                found.append(Extreme(pair.name, method.name, gain, panel))
    return Pictures(draw_panel(pair, methods, shown, psf=psf), tuple(worst), tuple(best))  # type: ignore[arg-type]


def rank(patches: Patches, method: str) -> list[tuple[int, float]]:
    """Patches, all of whose pixels are valid, with the gain in PSNR over bicubic (dB), the smallest first."""
    if method not in patches.square:
        return []
    ours, theirs = patches.square[method], patches.square[BICUBIC]
    whole = np.flatnonzero((patches.pixels == patches.side**2) & (ours > 0) & (theirs > 0))
    gains = 10 * np.log10(theirs[whole] / ours[whole])
    return [(int(whole[i]), float(gains[i])) for i in np.argsort(gains)]


def draw_panel(pair: Pair, methods: Sequence[Method], window: Window, *, psf: PSF) -> Panel:
    """Images of one window of LR pixels: all with the stretch of HR, or without HR that of LR."""
    images = images_of(pair, window, methods)
    ground = ground_of(images, pair.bands, psf)
    names = shown_bands(pair.bands)
    shown = [pair.bands.index(name) for name in names]
    sharpest = images.lr if images.hr is None else images.hr
    low, high = stretch_of(sharpest[shown])

    def colour(image: NDArray[np.float32]) -> bytes:
        return png(marked(to_image(image[shown], low, high), ~finite(image)))

    error, excess = {}, {}
    if images.hr is not None:
        for name, one in images.sr.items():
            error[name] = np.abs(one.sr - images.hr).mean(axis=0)
            excess[name] = invented(tensor(one.sr, ground.valid), ground)
    error_end = _end(error)
    return Panel(
        row=window[0].start * pair.scale,
        column=window[1].start * pair.scale,
        lr=colour(images.lr),
        hr=None if images.hr is None else colour(images.hr),
        sr={name: colour(one.sr) for name, one in images.sr.items()},
        error={name: heat(one, images.valid, error_end) for name, one in error.items()},
        invented={name: heat(one, images.valid, 1.0) for name, one in excess.items()},
        error_end=error_end,
    )


def heat(values: NDArray[np.floating], valid: NDArray[np.bool_], end: float) -> bytes:
    """PNG of values (y, x) from 0, black, to ``end``, white, through purple and orange."""
    from matplotlib import colormaps

    share = np.clip(np.nan_to_num(values) / end, 0, 1)
    return png(marked(Picture.fromarray((colormaps["inferno"](share)[..., :3] * 255).round().astype(np.uint8)), ~valid))


def marked(picture: Picture.Image, invalid: NDArray[np.bool_]) -> Picture.Image:
    """The picture with its invalid pixels (y, x) in a colour of their own."""
    pixels = np.array(picture)
    pixels[invalid] = INVALID
    return Picture.fromarray(pixels)


def png(picture: Picture.Image) -> bytes:
    """The picture, each pixel as a square of whole screen pixels, as PNG."""
    factor = max(round(SHOWN / max(picture.size)), 1)
    held = io.BytesIO()
    larger = picture.resize((picture.width * factor, picture.height * factor), Picture.Resampling.NEAREST)
    larger.save(held, format="PNG", optimize=True)
    return held.getvalue()


def _around(centre: int, part: slice, side: int, scale: int) -> slice:
    """LR pixels around an HR position, inside of what was measured."""
    side = min(side, part.stop - part.start)
    start = min(max(centre // scale - side // 2, part.start), part.stop - side)
    return slice(start, start + side)


def _end(maps: Mapping[str, NDArray[np.floating]]) -> float:
    """Where the colours of maps end: the 99th percentile of bicubic's, so that methods compare."""
    if BICUBIC not in maps:
        return 1.0
    known = maps[BICUBIC][np.isfinite(maps[BICUBIC])]
    return max(float(np.percentile(known, 99)) if known.size else 0.0, 1e-6)
