"""geosr: super-resolution of multispectral satellite imagery that stays a measurement.

Names are loaded when they are first used, so that ``import geosr`` is quick and imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geosr._xarray_hook import register_with_xarray

__version__ = "0.1.0"

if TYPE_CHECKING:
    from geosr.demo import demo_scene
    from geosr.errors import GeosrError
    from geosr.evaluation import evaluate
    from geosr.inference import Prediction, SuperResolver, assemble, load_model, predict
    from geosr.io.raster import Raster
    from geosr.io.scene import Scene, open_scene
    from geosr.models import Model, ModelSpec
    from geosr.radiometry import Radiometry
    from geosr.training import train
    from geosr.xr import open

_HOME = {
    "GeosrError": "geosr.errors",
    "Model": "geosr.models",
    "ModelSpec": "geosr.models",
    "Prediction": "geosr.inference",
    "Radiometry": "geosr.radiometry",
    "Raster": "geosr.io.raster",
    "Scene": "geosr.io.scene",
    "SuperResolver": "geosr.inference",
    "assemble": "geosr.inference",
    "demo_scene": "geosr.demo",
    "evaluate": "geosr.evaluation",
    "load_model": "geosr.inference",
    "open": "geosr.xr",
    "open_scene": "geosr.io.scene",
    "predict": "geosr.inference",
    "train": "geosr.training",
}

__all__ = [
    "GeosrError",
    "Model",
    "ModelSpec",
    "Prediction",
    "Radiometry",
    "Raster",
    "Scene",
    "SuperResolver",
    "assemble",
    "demo_scene",
    "evaluate",
    "load_model",
    "open",
    "open_scene",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geosr' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


register_with_xarray()
