"""Networks that tell SR from HR; only training needs them."""

from typing import TYPE_CHECKING

from torch import nn

from geosr.config.names import DISCRIMINATORS, NORMS
from geosr.errors import ConfigError, did_you_mean
from geosr.models.discriminators.esrgan import ESRGAN
from geosr.models.discriminators.patchgan import PatchGAN
from geosr.models.discriminators.srgan import SRGAN
from geosr.models.discriminators.unet_sn import UNetSN

if TYPE_CHECKING:
    from geosr.config.schema import DiscriminatorSection

__all__ = ["build_discriminator"]


def build_discriminator(section: "DiscriminatorSection", *, bands: int) -> nn.Module:
    """The network that a config's Discriminator section describes, with fresh weights.

    It makes logits (batch, 1, ...), higher for what looks real, of normalised images (batch, band, y, x).

    Raises:
        ConfigError: The section names an unknown network, or asks of one what it does not have.
    """
    kind, blocks, base = section.model_type, section.n_blocks, section.base_channels
    if kind not in DISCRIMINATORS:
        known = " ".join(DISCRIMINATORS)
        raise ConfigError(
            f"Discriminator.model_type {kind!r} is unknown ({known})" + did_you_mean(kind, DISCRIMINATORS)
        )
    if blocks is not None and kind in ("esrgan", "unet_sn"):
        raise ConfigError(
            f"Discriminator.n_blocks is {blocks}, and {kind} has a fixed number of layers; leave it null, or take "
            "srgan or patchgan"
        )
    if blocks is not None and blocks < 1:
        raise ConfigError(f"Discriminator.n_blocks is {blocks}; it must be at least 1, or null")
    if section.norm not in NORMS:
        raise ConfigError(f"Discriminator.norm is {section.norm!r}; allowed are {' '.join(NORMS)}")
    norm, spectral = section.norm, section.use_spectral_norm
    if kind == "patchgan":
        return PatchGAN(
            bands=bands, layers=3 if blocks is None else blocks, base_channels=base, norm=norm, spectral=spectral
        )
    if kind == "unet_sn":
        return UNetSN(bands=bands, base_channels=base)
    if kind == "esrgan":
        return ESRGAN(bands=bands, base_channels=base, linear_size=section.linear_size, norm=norm, spectral=spectral)
    return SRGAN(
        bands=bands,
        blocks=8 if blocks is None else blocks,
        base_channels=base,
        linear_size=section.linear_size,
        norm=norm,
        spectral=spectral,
    )
