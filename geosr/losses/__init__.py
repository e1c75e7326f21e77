"""Losses of (batch, band, y, x) reflectance that look at valid pixels alone, and adversarial objectives."""

from geosr.losses.adversarial import Objective, adversarial_objective
from geosr.losses.content import ContentLoss, sharpened
from geosr.losses.penalties import gradient_penalty, r1_penalty
from geosr.losses.perceptual import Perceptual
from geosr.losses.pixel import l1
from geosr.losses.smoothness import tv
from geosr.losses.spectral import sam

__all__ = [
    "ContentLoss",
    "Objective",
    "Perceptual",
    "adversarial_objective",
    "gradient_penalty",
    "l1",
    "r1_penalty",
    "sam",
    "sharpened",
    "tv",
]
