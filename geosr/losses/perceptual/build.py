"""The perceptual loss that a configuration asks for."""

from collections.abc import Sequence

from geosr.config.schema import LossesSection
from geosr.losses.perceptual.dists import DISTSLoss
from geosr.losses.perceptual.frozen import Perceptual
from geosr.losses.perceptual.lpips import LPIPSLoss
from geosr.losses.perceptual.satellite import SatelliteLoss
from geosr.losses.perceptual.vgg import VGGLoss


def perceptual_loss(section: LossesSection, bands: Sequence[str]) -> Perceptual:
    """The loss that ``perceptual_metric`` names.

    Args:
        section: ``Training.Losses``.
        bands: Names of the images' bands.

    Raises:
        ConfigError: A band is missing, a layer is unknown or the weights cannot be had.
    """
    weights, white = section.perceptual_weights, section.perceptual_white
    match section.perceptual_metric:
        case "vgg":
            return VGGLoss(bands, layers=section.perceptual_layers, weights=weights, white=white)
        case "lpips":
            return LPIPSLoss(bands, network="alex", weights=weights, white=white)
        case "lpips_vgg":
            return LPIPSLoss(bands, network="vgg", weights=weights, white=white)
        case "dists":
            return DISTSLoss(bands, weights=weights, white=white)
    return SatelliteLoss(bands, network=section.perceptual_metric, weights=weights)
