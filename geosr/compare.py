"""Before and after of an xarray object: a slider in a notebook, a picture elsewhere."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geosr.errors import GridError, UsageError
from geosr.grid import Window, pair_grids, scaled, size
from geosr.preview import compose, most_detail, png_bytes, save, stretch_of, to_image
from geosr.sensors import shown_bands

if TYPE_CHECKING:
    from geosr.io.xarray import Cube

SIDE = 768
"""Pixels along the longer side of each picture, at most; smaller ones are enlarged by whole numbers."""
SHOWN = 192
"""LR pixels along the longer side of what is shown; of a larger image it is the part with the most detail."""
_SAMPLE = 512

_SLIDER = """<div style="position:relative;width:{width}px;max-width:100%">
<img alt="super-resolved" src="data:image/png;base64,{after}" style="display:block;width:100%;margin:0">
<img alt="input, bicubic" src="data:image/png;base64,{before}" \
style="position:absolute;left:0;top:0;width:100%;margin:0;clip-path:inset(0 50% 0 0)">
<input type="range" min="0" max="100" value="50" aria-label="input on the left, super-resolved on the right" \
oninput="this.previousElementSibling.style.clipPath='inset(0 '+(100-this.value)+'% 0 0)'" \
style="width:100%;margin:4px 0">
<div style="display:flex;justify-content:space-between;font-size:smaller">\
<span>input, bicubic</span><span>super-resolved x{scale}</span></div>
</div>"""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The same ground before and after: a notebook shows it with a slider, `save` writes both side by side."""

    before: Image.Image
    """The input, interpolated bicubically."""
    after: Image.Image
    """The SR image, as large and with the same stretch."""
    scale: int
    """SR pixels per LR pixel."""

    def __repr__(self) -> str:
        return f"<Comparison x{self.scale}, {self.after.width} x {self.after.height} pixels>"

    def _repr_html_(self) -> str:
        before, after = (base64.b64encode(png_bytes(one)).decode() for one in (self.before, self.after))
        return _SLIDER.format(width=self.after.width, before=before, after=after, scale=self.scale)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.figure())

    def figure(self) -> Image.Image:
        """Both pictures side by side, with captions."""
        return compose([[self.before, self.after]], [("input, bicubic", f"super-resolved x{self.scale}")])

    def save(self, out: str | PathLike[str]) -> Path:
        """Write both side by side as PNG, and return its path.

        Raises:
            OutputError: It cannot be written.
        """
        return save(self.figure(), out)


def compare_cubes(lr: Cube, sr: Cube, *, window: Window | None = None) -> Comparison:
    """Both images of the same ground with the same stretch, of a part small enough to see what has changed.

    Args:
        lr: The input.
        sr: The SR image, on a finer grid with the same outline.
        window: Rows and columns of the input to show; by default, of a large one, the part with the most detail.

    Raises:
        GridError: The grids do not belong together, or the window lies outside.
        UsageError: They hold several images each.
    """
    from geosr.io.xarray_views import reflectance_values

    shown = shown_bands([band for band in lr.bands if band in sr.bands] or lr.bands)
    coarse, fine = lr.select(shown), sr.select(shown)
    for cube in (coarse, fine):
        if any(cube.first.sizes[dim] > 1 for dim in cube.leading):
            told = ", ".join(map(str, cube.leading))
            raise UsageError(f"{cube.name} holds several images along {told}; choose one, such as .isel({told}=0)")
    scale = pair_grids(fine.geobox, coarse.geobox, hr_name="the SR image", lr_name="the input").scale
    if tuple(fine.geobox.shape) != tuple(side * scale for side in coarse.geobox.shape):
        raise GridError(f"the SR image is {fine.geobox.shape} and the input {coarse.geobox.shape}: not the same ground")
    pixels, finer = coarse.pixels(), fine.pixels()

    def reflectance(cube: Cube, values: Any) -> NDArray[np.float32]:
        return np.asarray(reflectance_values(cube, values)).reshape(-1, *values.shape[-3:])[0]

    height, width = pixels.shape[-2:]
    if window is None:
        step = max(1, -(-max(height, width) // _SAMPLE))
        sample = reflectance(coarse, pixels[..., ::step, ::step])
        side = min(SHOWN, height, width)
        row, column = most_detail(sample, (height, width), side)
        window = (slice(row, row + side), slice(column, column + side))
        if max(height, width) <= SHOWN:
            window = (slice(0, height), slice(0, width))
    if not all(0 <= part.start < part.stop <= n for part, n in zip(window, (height, width), strict=True)):
        raise GridError(f"the window {window} does not lie inside the input, which has {height} x {width} pixels")
    before = reflectance(coarse, pixels[..., window[0], window[1]])
    after = reflectance(fine, finer[(..., *scaled(window, scale))])
    low, high = stretch_of(after)
    factor = max(SIDE // (max(size(window)) * scale), 1)
    shape = (size(window)[1] * scale * factor, size(window)[0] * scale * factor)
    return Comparison(
        to_image(before, low, high).resize(shape, Image.Resampling.BICUBIC),
        to_image(after, low, high).resize(shape, Image.Resampling.NEAREST),
        scale,
    )
