"""Training data: patches of georeferenced scenes, and their low-resolution counterparts."""

from geosr.data.datamodule import ScenesDataModule
from geosr.data.scenes import PatchDataset, expand_scenes

__all__ = ["PatchDataset", "ScenesDataModule", "expand_scenes"]
