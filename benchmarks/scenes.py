"""Scenes of any size to measure on: the demo scene's texture, mirrored outwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

DEMO_SCENE = Path(__file__).resolve().parent.parent / "geosr" / "demo" / "virginia_coast.tif"
BAND_NAMES = ("B02", "B03", "B04", "B08")
BLOCK = 512


def synthetic_scene(path: str | Path, size: int, *, bands: int = 4, seed: int = 0) -> Path:
    """Path of a new ``size`` x ``size`` GeoTIFF in digital numbers, encoded like a Sentinel-2 product (scale 1e-4).

    Copies of the demo scene, every other one mirrored so that texture runs on across their seams, each with a gain of
    its own so that no two are equal. Written block by block: memory does not grow with ``size``.

    Args:
        path: The file to write; an existing one is replaced.
        size: Width and height in pixels of 10 m.
        bands: How many of B02, B03, B04, B08, in this order.
        seed: Seeds the gains; the same seed gives the same pixels.

    Raises:
        ValueError: If ``bands`` is not from 1 to 4, or ``size`` is not positive.
    """
    if not 1 <= bands <= len(BAND_NAMES):
        raise ValueError(f"bands is {bands}; the demo scene has {len(BAND_NAMES)} ({' '.join(BAND_NAMES)})")
    if size < 1:
        raise ValueError(f"size is {size}; give a positive number of pixels")
    with rasterio.open(DEMO_SCENE) as demo:
        texture = demo.read(list(range(1, bands + 1)))

    rng = np.random.default_rng(seed)
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": bands,
        "dtype": "uint16",
        "nodata": 0,
        "crs": "EPSG:32633",
        "transform": from_origin(300_000, 5_000_040, 10, 10),
        "compress": "deflate",
        "predictor": 2,
        "photometric": "minisblack",
        "bigtiff": "if_safer",
    }
    if size >= BLOCK:  # GDAL wants blocks no larger than the image when it is smaller than one
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}

    path = Path(path)
    with rasterio.open(path, "w", **profile) as scene:
        scene.scales = (1e-4,) * bands
        scene.offsets = (0.0,) * bands
        scene.descriptions = BAND_NAMES[:bands]
        for i, row in enumerate(range(0, size, BLOCK)):
            for j, col in enumerate(range(0, size, BLOCK)):
                height, width = min(BLOCK, size - row), min(BLOCK, size - col)
                tile = texture[:, :: -1 if i % 2 else 1, :: -1 if j % 2 else 1][:, :height, :width]
                digital = np.rint(tile * rng.uniform(0.9, 1.1)).clip(1, 65535).astype(np.uint16)
                scene.write(digital, window=Window(col, row, width, height))
    return path
