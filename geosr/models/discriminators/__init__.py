"""Networks that tell SR from HR; only training needs them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from geosr.config.names import NORMS
from geosr.errors import ConfigError, did_you_mean
from geosr.models.discriminators.discriminator import Discriminator, Look
from geosr.models.discriminators.esrgan import ESRGAN
from geosr.models.discriminators.multiscale import Multiscale
from geosr.models.discriminators.patchgan import PatchGAN
from geosr.models.discriminators.srgan import SRGAN
from geosr.models.discriminators.unet_sn import UNetSN

if TYPE_CHECKING:
    from geosr.config.schema import DiscriminatorSection

__all__ = ["Discriminator", "Look", "build_discriminator"]

NETWORKS: Mapping[str, type[Discriminator]] = {
    network.name: network for network in (SRGAN, PatchGAN, ESRGAN, UNetSN, Multiscale)
}

_SHARED = {"base_channels": "base_channels", "norm": "norm", "spectral": "use_spectral_norm"}

ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "srgan": {**_SHARED, "blocks": "n_blocks", "linear_size": "linear_size"},
    "patchgan": {**_SHARED, "layers": "n_blocks"},
    "esrgan": {**_SHARED, "linear_size": "linear_size"},
    "unet_sn": _SHARED,
    "multiscale": {**_SHARED, "layers": "n_blocks", "scales": "n_scales"},
}
"""Of each network, its arguments and the key of a config's Discriminator section each is; null is the network's own."""


def build_discriminator(section: "DiscriminatorSection", *, bands: int) -> Discriminator:
    """The network that a config's Discriminator section describes, with fresh weights.

    Args:
        section: The section.
        bands: Bands of SR; a conditional network looks at twice as many, LR's after them.

    Raises:
        ConfigError: The section names an unknown network, or asks of one what it does not have.
    """
    kind, blocks = section.model_type, section.n_blocks
    if kind not in NETWORKS:
        raise ConfigError(
            f"Discriminator.model_type {kind!r} is unknown ({' '.join(NETWORKS)})" + did_you_mean(kind, NETWORKS)
        )
    if blocks is not None and "n_blocks" not in ARGUMENTS[kind].values():
        raise ConfigError(
            f"Discriminator.n_blocks is {blocks}, and {kind} has a fixed number of layers; leave it null, or take "
            "srgan, patchgan or multiscale"
        )
    if blocks is not None and blocks < 1:
        raise ConfigError(f"Discriminator.n_blocks is {blocks}; it must be at least 1, or null")
    if section.norm is not None and section.norm not in NORMS:
        raise ConfigError(f"Discriminator.norm is {section.norm!r}; allowed are {' '.join(NORMS)}, or null")
    values = vars(section)
    arguments = {argument: values[key] for argument, key in ARGUMENTS[kind].items() if values[key] is not None}
    return NETWORKS[kind](bands=2 * bands if section.conditional else bands, **arguments)
