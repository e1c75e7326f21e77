"""``multiscale``: several PatchGANs, each on an image half as fine as the one before."""

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.models.discriminators.discriminator import Discriminator, Look
from geosr.models.discriminators.patchgan import PatchGAN


class Multiscale(Discriminator):
    """Logits of overlapping patches at several scales, by a PatchGAN of its own at each: 70, 140, 280 ... pixels wide.

    The coarse ones see how parts of the image go together, the first its fine structure.

    Args:
        bands: Bands of the image.
        scales: PatchGANs; the second sees the image halved, the third halved twice, and so on.
        layers: Layers of stride 2 of each.
        base_channels: Channels of the first layer of each.
        norm: none, batch or instance (as in the paper's published code).
        spectral: Divide each weight by its largest singular value.

    References:
        T.-C. Wang et al., "High-resolution image synthesis and semantic manipulation with conditional GANs", CVPR 2018,
        Sec. 3.2; the mean of 3 x 3 pixels halves the image, as in its published code.
    """

    name = "multiscale"

    def __init__(
        self,
        *,
        bands: int,
        scales: int = 3,
        layers: int = 3,
        base_channels: int = 64,
        norm: str = "instance",
        spectral: bool = False,
    ) -> None:
        parts = [
            PatchGAN(bands=bands, layers=layers, base_channels=base_channels, norm=norm, spectral=spectral)
            for _ in range(scales)
        ]
        super().__init__(bands=bands, least=(parts[-1].least - 1) * 2 ** (scales - 1) + 1)
        self.parts = nn.ModuleList(parts)

    def look(self, image: Tensor) -> Look:
        """Logits (batch, 1, y, x) of each scale, the finest first, and the features of them all."""
        looks = []
        for scale, part in enumerate(self.parts):
            image = halved(image) if scale else image
            looks.append(part(image, with_features=True))
        return Look(
            tuple(scores for look in looks for scores in look.scores),
            tuple(features for look in looks for features in look.features),
        )


def halved(image: Tensor) -> Tensor:
    """Image (batch, band, y / 2, x / 2), rounded up: means of 3 x 3 pixels, at the edge of those that there are."""
    return F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
