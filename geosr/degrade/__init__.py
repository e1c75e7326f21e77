"""LR images from HR images: through a sensor's point-spread function, or by random rounds, or step by step."""

from geosr.degrade.pipeline import STEPS, Degradation, build_degradation
from geosr.degrade.pool import PairPool
from geosr.degrade.psf import PSF, degrade
from geosr.degrade.sensor import nominal_mtf
from geosr.degrade.sharpen import usm_sharpen

__all__ = [
    "PSF",
    "STEPS",
    "Degradation",
    "PairPool",
    "build_degradation",
    "degrade",
    "nominal_mtf",
    "usm_sharpen",
]
