"""Losses of (batch, band, y, x) reflectance that look at valid pixels alone, and adversarial objectives."""

from geosr.losses.adversarial import Objective, adversarial_objective
from geosr.losses.content import ContentLoss, sharpened
from geosr.losses.edges import gradient
from geosr.losses.feature_matching import feature_matching
from geosr.losses.frequency import focal_frequency, log_spectral_distance
from geosr.losses.indices import index_pairs, indices
from geosr.losses.measurement import consistency
from geosr.losses.penalties import gradient_penalty, r1_penalty
from geosr.losses.perceptual import perceptual_loss
from geosr.losses.pixel import charbonnier, l1, mse
from geosr.losses.smoothness import tv
from geosr.losses.spectral import sam

__all__ = [
    "ContentLoss",
    "Objective",
    "adversarial_objective",
    "charbonnier",
    "consistency",
    "feature_matching",
    "focal_frequency",
    "gradient",
    "gradient_penalty",
    "index_pairs",
    "indices",
    "l1",
    "log_spectral_distance",
    "mse",
    "perceptual_loss",
    "r1_penalty",
    "sam",
    "sharpened",
    "tv",
]
