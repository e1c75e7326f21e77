"""Real scenes to try geosr on: one to predict on, 5 x 5 km of the Virginia coast, and a set to train on."""

from importlib.resources import files
from pathlib import Path


def demo_scene() -> Path:
    """Path of the embedded scene: B02, B03, B04 and B08, 512 x 512 pixels, uint16.

    Contains modified Copernicus Sentinel data. It is in no training set of the shipped models.
    """
    return Path(str(files("geosr.demo"))) / "virginia_coast.tif"


def example_folder() -> Path:
    """Folder of the example set: GeoTIFFs of B02, B03, B04 and B08 at 10 m to try training on, uint16.

    Contains modified Copernicus Sentinel data; its README says whose files they are. The demo scene is not part of it.
    """
    return Path(str(files("geosr"))) / "example"
