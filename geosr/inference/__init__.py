"""Using a model: on a raster in memory, or on a scene of any size, tile by tile, onto disk."""

from geosr.inference.predict import Prediction, predict
from geosr.inference.superresolver import SuperResolver, load_model

__all__ = ["Prediction", "SuperResolver", "load_model", "predict"]
