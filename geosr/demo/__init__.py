"""A real scene to try geosr on: 5 x 5 km of the Virginia coast, Sentinel-2, 10 m."""

from importlib.resources import files
from pathlib import Path


def demo_scene() -> Path:
    """Path of the embedded scene: B02, B03, B04 and B08, 512 x 512 pixels, uint16.

    Contains modified Copernicus Sentinel data. It is in no training set of the shipped models.
    """
    return Path(str(files("geosr.demo"))) / "virginia_coast.tif"
