"""Quality figures of SR as pure functions of (batch, band, y, x) reflectance and a validity mask (batch, y, x).

Of valid pixels only. They have no gradient, do not depend on autocast, and are NaN where there is nothing to measure.
"""

from geosr.metrics.detail import CLASSES, Correctness, correctness
from geosr.metrics.frequency import Spectrum, SpectrumGap, spectrum, spectrum_gap
from geosr.metrics.interval import Interval, bootstrap
from geosr.metrics.measurement import Consistency, consistency
from geosr.metrics.perceptual import dists, lpips
from geosr.metrics.pixel import bias, ergas, psnr, rmse
from geosr.metrics.registration import shift
from geosr.metrics.spectral import index_error, sam
from geosr.metrics.structure import scc, ssim, uqi
from geosr.metrics.tiling import seams

__all__ = [
    "CLASSES",
    "Consistency",
    "Correctness",
    "Interval",
    "Spectrum",
    "SpectrumGap",
    "bias",
    "bootstrap",
    "consistency",
    "correctness",
    "dists",
    "ergas",
    "index_error",
    "lpips",
    "psnr",
    "rmse",
    "sam",
    "scc",
    "seams",
    "shift",
    "spectrum",
    "spectrum_gap",
    "ssim",
    "uqi",
]
