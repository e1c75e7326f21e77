"""Using a model: on a raster in memory, or on a scene of any size, tile by tile, onto disk."""

from geosr.inference.superresolver import SuperResolver, load_model
from geosr.inference.tiled import Prediction, assemble, predict

__all__ = ["Prediction", "SuperResolver", "assemble", "load_model", "predict"]
