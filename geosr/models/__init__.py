"""Networks, what they say about themselves, and their weights."""

from geosr.models.dni import blend_models
from geosr.models.model import Model, measure_halo
from geosr.models.spec import ModelSpec
from geosr.models.weights import WeightsFile, find_weights, load_model, save_model, shipped_models

__all__ = [
    "Model",
    "ModelSpec",
    "WeightsFile",
    "blend_models",
    "find_weights",
    "load_model",
    "measure_halo",
    "save_model",
    "shipped_models",
]
