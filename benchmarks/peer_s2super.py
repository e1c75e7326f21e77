"""s2super on the 20 m bands: its own weights, loaded by tf_keras.

Its network takes one band, interpolated bilinearly to the fine grid, and blue, green and red there, as reflectance, in
tiles of 64 x 64 pixels. Here as in its "fast" method, not fitted to the scene: tiles half over each other, averaged
with its confidence, and less at their edges. The package is not imported: its tiling needs GDAL's Python bindings.
"""

import os
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.peer_images import Image, places, run

GUIDE = ("B02", "B03", "B04")
TILE, EDGE = 64, 3
"""Pixels along a side of a tile, and from its edge within which it counts for less."""


def load() -> Any:
    """The network."""
    package = find_spec("s2super")
    if package is None or package.origin is None:
        raise SystemExit("s2super is not installed here")
    return tf_keras.models.load_model(Path(package.origin).parent / "s2super_v5", compile=False)


def super_resolve(model: Any, image: Image) -> np.ndarray:
    """Reflectance (band, y * 2, x * 2) of the coarse bands."""
    names = list(image["guide_bands"])
    guide = image["guide"][[names.index(band) for band in GUIDE]].transpose(1, 2, 0)
    height, width = guide.shape[:2]
    coarse = tf.image.resize(image["lr"].transpose(1, 2, 0), (height, width), method="bilinear").numpy()
    corners = list(product(starts(height), starts(width)))
    sharp = np.stack([tile(guide, *corner) for corner in corners])
    result = np.zeros((coarse.shape[2], height, width), np.float32)
    for band in range(coarse.shape[2]):
        low = np.stack([tile(coarse[:, :, band : band + 1], *corner) for corner in corners])
        result[band] = merge(model.predict([low, sharp], verbose=0), corners, (height, width))
    return result


def starts(length: int) -> list[int]:
    """Where tiles begin along an axis, the last one at its end."""
    return sorted({*range(0, max(length - TILE, 0), TILE // 2), max(length - TILE, 0)})


def tile(image: np.ndarray, row: int, column: int) -> np.ndarray:
    """A tile of an image (y, x, band), mirrored where the image is smaller."""
    part = image[row : row + TILE, column : column + TILE]
    return np.pad(part, ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)), mode="symmetric")


def merge(tiles: np.ndarray, corners: list[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Mean (y, x) of tiles of values and confidence (tile, y, x, 2)."""
    ramp = np.minimum(np.arange(1, TILE + 1), np.arange(TILE, 0, -1)).clip(max=EDGE) / EDGE
    weight = np.outer(ramp, ramp)
    total, weights = np.zeros(shape), np.zeros(shape)
    for (row, column), values in zip(corners, tiles, strict=True):
        height, width = min(TILE, shape[0] - row), min(TILE, shape[1] - column)
        here = (slice(row, row + height), slice(column, column + width))
        counted = (weight * values[..., 1].clip(min=1e-6))[:height, :width]
        total[here] += counted * values[:height, :width, 0]
        weights[here] += counted
    return total / weights


if __name__ == "__main__":
    network = load()
    what = f"s2super {version('s2super')}, tensorflow {version('tensorflow-cpu')}"
    run(what, lambda image: super_resolve(network, image), *places())
