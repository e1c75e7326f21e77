"""Training data: patches of georeferenced scenes, and their low-resolution counterparts.

Names are loaded when they are first used: ``geosr prepare`` and ``geosr data`` need neither torch nor Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geosr.errors import extra

if TYPE_CHECKING:
    from geosr.data.datamodule import GeoSRDataModule
    from geosr.data.datasets import GeoPairDataset, SceneDataset
    from geosr.data.pairs import TorchGeoPairs
    from geosr.data.patches import Patch, PatchTable, SceneFiles
    from geosr.data.samplers import PatchSampler
    from geosr.data.splits import BlockSplit
    from geosr.data.store import check_store, open_store

_HOME = {
    "BlockSplit": "splits",
    "GeoPairDataset": "datasets",
    "GeoSRDataModule": "datamodule",
    "Patch": "patches",
    "PatchSampler": "samplers",
    "PatchTable": "patches",
    "SceneDataset": "datasets",
    "SceneFiles": "patches",
    "TorchGeoPairs": "pairs",
    "check_store": "store",
    "open_store": "store",
}

__all__ = [
    "BlockSplit",
    "GeoPairDataset",
    "GeoSRDataModule",
    "Patch",
    "PatchSampler",
    "PatchTable",
    "SceneDataset",
    "SceneFiles",
    "TorchGeoPairs",
    "check_store",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geosr.data' has no attribute {name!r}")
    with extra("train", f"geosr.data.{name}"):
        return getattr(import_module(f"geosr.data.{_HOME[name]}"), name)
