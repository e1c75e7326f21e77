"""opensr-utils' interpolation: ``super_resolve`` without a model, from one GeoTIFF to another.

It keeps the type of its input, and float reflectance comes back as zeros: it gets digital numbers, with the offset of
Sentinel-2's baseline 04.00 so that negative reflectance is among them. Reading and writing are in the time.
"""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import opensr_utils
import rasterio
from rasterio.transform import from_origin

from benchmarks.peer_images import Image, places, run

SCALE, OFFSET = 1e-4, -0.1


def super_resolve(image: Image) -> np.ndarray:
    """Reflectance (band, y, x)."""
    digital = np.rint((image["lr"] - OFFSET) / SCALE).clip(0, 65535).astype(np.uint16)
    count, height, width = digital.shape
    with TemporaryDirectory() as folder:
        scene, out = Path(folder) / "lr.tif", Path(folder) / "sr.tif"
        where = {"crs": "EPSG:32633", "transform": from_origin(300_000, 5_000_040, 10, 10)}
        with rasterio.open(
            scene, "w", driver="GTiff", count=count, height=height, width=width, dtype="uint16", **where
        ) as file:
            file.write(digital)
        written = opensr_utils.super_resolve(
            str(scene), model=None, output=str(out), factor=int(image["scale"]), device="cpu", overwrite=True
        )
        with rasterio.open(written) as file:
            return file.read() * np.float32(SCALE) + np.float32(OFFSET)


if __name__ == "__main__":
    run(f"bilinear of opensr-utils {version('opensr-utils')}", super_resolve, *places())
