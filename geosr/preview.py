"""A before/after picture: bicubic left, super-resolved right, same stretch; below, a zoom on the most detail."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geosr.errors import OutputError
from geosr.files import write
from geosr.grid import Window, moved, scaled, size
from geosr.io.raster import Raster
from geosr.io.scene import Scene
from geosr.radiometry import Radiometry
from geosr.sensors import shown_bands

SIDE = 640
"""Pixels along the longer side of one of the four panels."""
STRIP = 1024
"""Rows of a mask that are in memory at once."""
ZOOM = 8
"""Screen pixels per LR pixel in the zoom."""


def write_preview(
    scene: Scene,
    sr: Scene,
    out: str | PathLike[str],
    *,
    bands: Sequence[str],
    window: Window,
    radiometry: Radiometry,
) -> Path:
    """Write the picture as PNG and return its path.

    Args:
        scene: The LR scene.
        sr: The SR scene of ``window``.
        out: PNG to write.
        bands: Bands that both have; red, green and blue are shown, else the first one in grey.
        window: Part of the scene that was super-resolved.
        radiometry: How the SR scene is encoded.

    Raises:
        OutputError: The picture cannot be written.
    """
    shown = shown_bands(bands)
    height, width = size(window)
    step = max(height, width) / SIDE
    zoom = min(SIDE // ZOOM, height, width)
    lr, sharp = _Source(scene, shown, scene.band_radiometry(shown)), _Source(sr, shown, radiometry)
    scale = sr.geobox.shape[0] // height
    overview = sharp.read((slice(0, height * scale), slice(0, width * scale)), _fit(height, width, step))
    low, high = stretch_of(overview)
    row, column = most_detail(overview, (height, width), zoom)
    place = (slice(row, row + zoom), slice(column, column + zoom))
    in_scene = moved(place, window[0].start, window[1].start)
    square = (zoom * ZOOM, zoom * ZOOM)
    panels = [
        [lr.read(window, _fit(height, width, step)), overview],
        [lr.read(in_scene, square), sharp.read(scaled(place, scale), square)],
    ]
    rows = [[to_image(panel, low, high) for panel in row] for row in panels]
    picture = compose(
        rows,
        (
            ("input, bicubic", f"super-resolved x{scale}" if scale > 1 else "super-resolved"),
            ("zoom, bicubic", "zoom, super-resolved"),
        ),
    )
    return save(picture, out)


def _fit(height: int, width: int, step: float) -> tuple[int, int]:
    return max(round(height / step), 1), max(round(width / step), 1)


@dataclass(frozen=True)
class _Source:
    """Where the three bands to show come from, and how they are stored."""

    scene: Scene
    bands: Sequence[str]
    radiometry: Radiometry

    def read(self, window: Window, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Reflectance (band, y, x) of a window, resampled bicubically to ``shape``; invalid pixels are NaN."""
        digital = self.scene.read_digital(window, self.bands, shape=shape)
        valid = self.radiometry.valid(digital)
        mask = self._mask(window, shape)
        return self.radiometry.to_reflectance(digital, valid=valid if mask is None else valid & mask)

    def _mask(self, window: Window, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        """What the scene's masks leave in at the centres of the picture's pixels; None without masks."""
        rows, columns = (
            (np.arange(count) + 0.5) * length // count for count, length in zip(shape, size(window), strict=True)
        )
        found = []
        for top in range(0, size(window)[0], STRIP):
            height = min(STRIP, size(window)[0] - top)
            strip = slice(window[0].start + top, window[0].start + top + height)
            mask = self.scene.read_mask((strip, window[1]), self.bands)
            if mask is None:
                return None
            here = rows[(rows >= top) & (rows < top + height)] - top
            found.append(mask[np.ix_(here.astype(int), columns.astype(int))])
        return np.concatenate(found)


def stretch_of(image: NDArray[np.float32]) -> tuple[float, float]:
    """Reflectance that is shown black and white: the 1st and 99th percentile."""
    valid = image[np.isfinite(image)]
    low, high = np.percentile(valid, (1, 99)) if valid.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def most_detail(image: NDArray[np.float32], shape: tuple[int, int], zoom: int) -> tuple[int, int]:
    """First row and column, in LR pixels, of the square with the largest differences between neighbours."""
    grey = np.nan_to_num(image.mean(axis=0))
    detail = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    integral = np.pad(detail.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = [max(round(zoom * n / m), 1) for n, m in zip(grey.shape, shape, strict=True)]
    sums = (
        integral[side[0] :, side[1] :]
        - integral[: -side[0], side[1] :]
        - integral[side[0] :, : -side[1]]
        + integral[: -side[0], : -side[1]]
    )
    best = np.unravel_index(sums.argmax(), sums.shape)
    row, column = (min(round(b * m / n), m - zoom) for b, n, m in zip(best, grey.shape, shape, strict=True))
    return row, column


def to_image(reflectance: NDArray[np.float32], low: float, high: float) -> Image.Image:
    """Three bands of reflectance (band, y, x) as a picture; ``low`` is black, as are invalid pixels, ``high`` white."""
    grey = np.nan_to_num((reflectance - low) / (high - low)).clip(0, 1) ** (1 / 1.4)
    return Image.fromarray((grey * 255).round().astype(np.uint8).transpose(1, 2, 0))


def compose(rows: Sequence[Sequence[Image.Image]], labels: Sequence[Sequence[str]]) -> Image.Image:
    """Panels in rows of as many each, a caption above each."""
    gap, caption = 6, 26
    columns = [max(panel.width for panel in column) for column in zip(*rows, strict=True)]
    heights = [max(panel.height for panel in row) + caption for row in rows]
    canvas = Image.new("RGB", (sum(columns) + (len(columns) + 1) * gap, sum(heights) + (len(rows) + 1) * gap), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    top = gap
    for row, names, height in zip(rows, labels, heights, strict=True):
        left = gap
        for panel, name, width in zip(row, names, columns, strict=True):
            draw.text((left, top), name, fill="black", font=font)
            canvas.paste(panel, (left, top + caption))
            left += width + gap
        top += height + gap
    return canvas


def write_pair_preview(hr: Raster, lr: Raster, out: str | PathLike[str]) -> Path:
    """Write HR left and LR right as PNG, LR pixels as squares, and return its path; below, a zoom on the most detail.

    Args:
        hr: The HR image.
        lr: The LR image of the same ground.
        out: PNG to write.

    Raises:
        OutputError: The picture cannot be written.
    """
    shown = shown_bands(hr.bands)
    fine, coarse = (raster.array[[raster.bands.index(band) for band in shown]] for raster in (hr, lr))
    height, width = coarse.shape[1:]
    scale = fine.shape[1] // height
    low, high = stretch_of(coarse)
    zoom = min(SIDE // ZOOM, height, width)
    row, column = most_detail(coarse, (height, width), zoom)
    place = (slice(row, row + zoom), slice(column, column + zoom))
    step = max(height, width) / SIDE
    rows = []
    for window, shape in (
        ((slice(0, height), slice(0, width)), _fit(height, width, step)),
        (place, (zoom * ZOOM, zoom * ZOOM)),
    ):
        pair = (fine[:, *scaled(window, scale)], coarse[:, *window])
        filters = (Image.Resampling.BOX if step * scale > 1 else Image.Resampling.NEAREST, Image.Resampling.NEAREST)
        rows.append(
            [
                to_image(part, low, high).resize(shape[::-1], filter_)
                for part, filter_ in zip(pair, filters, strict=True)
            ]
        )
    picture = compose(rows, (("HR", f"LR, degraded x{scale}"), ("HR, zoom", "LR, zoom")))
    return save(picture, out)


def save(picture: Image.Image, out: str | PathLike[str]) -> Path:
    """Write the picture as PNG and return its path.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        return write(out, png_bytes(picture))
    except OSError as error:
        raise OutputError(f"preview {out} cannot be written: {error.strerror or error}") from error


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    held = io.BytesIO()
    picture.save(held, format="PNG")
    return held.getvalue()
