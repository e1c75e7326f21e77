"""A before/after picture: bicubic left, super-resolved right, the same stretch; below, a zoom where there is most detail."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterWindow

from geosr.grid import Window, size
from geosr.io.raster import Scene, open_scene

SIDE = 640
"""Pixels along the longer side of one of the four panels."""
ZOOM = 8
"""Screen pixels per LR pixel in the zoom."""
RGB = ("B04", "B03", "B02")


def write_preview(scene: Scene, sr_path: Path, out: str | PathLike[str], *, bands: Sequence[str], window: Window) -> Path:
    """Write the picture as PNG and return its path.

    Args:
        scene: The LR scene.
        sr_path: The SR raster of ``window``.
        out: PNG to write.
        bands: Bands of the SR raster; red, green and blue are shown, else the first one in grey.
        window: Part of the scene that was super-resolved.
    """
    shown = RGB if set(RGB) <= set(bands) else (bands[0],) * 3
    height, width = size(window)
    step = max(height, width) / SIDE
    zoom = min(SIDE // ZOOM, height, width)
    with open_scene(sr_path) as sr:
        overview = _read(sr, shown, (slice(0, sr.geobox.shape[0]), slice(0, sr.geobox.shape[1])), _fit(height, width, step))
        low, high = _stretch(overview)
        corner = _most_detail(overview, (height, width), zoom)
        place = tuple(slice(start, start + zoom) for start in corner)
        scale = sr.geobox.shape[0] // height
        fine = tuple(slice(part.start * scale, part.stop * scale) for part in place)
        in_scene = tuple(slice(part.start + w.start, part.stop + w.start) for part, w in zip(place, window, strict=True))
        square = (zoom * ZOOM, zoom * ZOOM)
        panels = [
            [_read(scene, shown, window, _fit(height, width, step)), overview],
            [_read(scene, shown, in_scene, square), _read(sr, shown, fine, square)],  # type: ignore[arg-type]
        ]
    rows = [[_image(panel, low, high) for panel in row] for row in panels]
    picture = _compose(rows, (("input, bicubic", f"super-resolved x{scale}"), ("zoom, bicubic", "zoom, super-resolved")))
    picture.save(out)
    return Path(out)


def _fit(height: int, width: int, step: float) -> tuple[int, int]:
    return max(round(height / step), 1), max(round(width / step), 1)


def _read(scene: Scene, bands: Sequence[str], window: Window, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Reflectance (band, y, x) of a window, resampled bicubically to ``shape``; invalid pixels are NaN."""
    layers = []
    for position in scene.select(bands):
        path, index = scene.locate(position)
        with rasterio.open(path) as file:
            rows, columns = window
            part = RasterWindow(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            layers.append(file.read(index, window=part, out_shape=shape, resampling=Resampling.cubic))
    return scene.band_radiometry(bands).to_reflectance(np.stack(layers))


def _stretch(image: NDArray[np.float32]) -> tuple[float, float]:
    """Reflectance that is shown black and white: the 1st and 99th percentile."""
    valid = image[np.isfinite(image)]
    low, high = np.percentile(valid, (1, 99)) if valid.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def _most_detail(image: NDArray[np.float32], shape: tuple[int, int], zoom: int) -> tuple[int, int]:
    """First row and column, in LR pixels, of the square with the largest differences between neighbours."""
    grey = np.nan_to_num(image.mean(axis=0))
    detail = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    integral = np.pad(detail.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = [max(round(zoom * n / m), 1) for n, m in zip(grey.shape, shape, strict=True)]
    sums = integral[side[0] :, side[1] :] - integral[: -side[0], side[1] :] - integral[side[0] :, : -side[1]] + integral[: -side[0], : -side[1]]
    best = np.unravel_index(sums.argmax(), sums.shape)
    row, column = (min(round(b * m / n), m - zoom) for b, n, m in zip(best, grey.shape, shape, strict=True))
    return row, column


def _image(reflectance: NDArray[np.float32], low: float, high: float) -> Image.Image:
    grey = np.nan_to_num((reflectance - low) / (high - low)).clip(0, 1) ** (1 / 1.4)
    return Image.fromarray((grey * 255).round().astype(np.uint8).transpose(1, 2, 0))


def _compose(rows: Sequence[Sequence[Image.Image]], labels: Sequence[Sequence[str]]) -> Image.Image:
    """Panels in rows, a caption above each."""
    gap, caption = 6, 26
    columns = [max(row[i].width for row in rows) for i in range(2)]
    heights = [max(panel.height for panel in row) + caption for row in rows]
    canvas = Image.new("RGB", (sum(columns) + 3 * gap, sum(heights) + (len(rows) + 1) * gap), "white")
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
