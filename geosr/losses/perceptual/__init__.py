"""Perceptual losses: how different two images look to a network that was trained for something else."""

from geosr.losses.perceptual.build import perceptual_loss
from geosr.losses.perceptual.dists import DISTSLoss
from geosr.losses.perceptual.frozen import Perceptual
from geosr.losses.perceptual.lpips import LPIPSLoss
from geosr.losses.perceptual.satellite import SatelliteLoss
from geosr.losses.perceptual.vgg import VGGLoss

__all__ = ["DISTSLoss", "LPIPSLoss", "Perceptual", "SatelliteLoss", "VGGLoss", "perceptual_loss"]
