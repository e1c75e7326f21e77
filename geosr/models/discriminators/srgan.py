"""``srgan``: SRGAN's discriminator, one score an image."""

from torch import Tensor, nn

from geosr.models.discriminators.discriminator import Discriminator, Look
from geosr.models.discriminators.layers import SLOPE, activations, convolution, dense

_POOLED = 6
"""Pixels along one side of what the dense layers see: what 96 x 96 pixels become in the paper."""


class SRGAN(Discriminator):
    """One logit for each image: 3 x 3 convolutions, every other one of stride 2, and two dense layers.

    Args:
        bands: Bands of the image.
        blocks: Convolutions.
        base_channels: Channels of the first two; each two have twice as many as the two before.
        linear_size: Units between the dense layers.
        norm: none, batch (as in the paper) or instance.
        spectral: Divide each weight by its largest singular value.

    References:
        C. Ledig et al., "Photo-realistic single image super-resolution using a GAN", CVPR 2017, Fig. 4; pooled to
        the size that its images have there, so that any size will do.
    """

    name = "srgan"

    def __init__(
        self,
        *,
        bands: int,
        blocks: int = 8,
        base_channels: int = 64,
        linear_size: int = 1024,
        norm: str = "batch",
        spectral: bool = False,
    ) -> None:
        super().__init__(bands=bands, least=2 ** (blocks // 2 + 1))
        widths = [bands, *(base_channels * 2 ** (block // 2) for block in range(blocks))]
        stack: list[nn.Module] = []
        for block in range(blocks):
            stack += convolution(
                widths[block],
                widths[block + 1],
                3,
                stride=1 + block % 2,
                norm=norm if block else "none",
                spectral=spectral,
            )
        self.body = nn.Sequential(*stack)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(_POOLED),
            nn.Flatten(),
            dense(widths[-1] * _POOLED**2, linear_size, spectral=spectral),
            nn.LeakyReLU(SLOPE, inplace=True),
            dense(linear_size, 1, spectral=spectral),
        )

    def look(self, image: Tensor) -> Look:
        """One logit (batch, 1), and the features of each convolution."""
        seen, features = activations(self.body, image)
        return Look((self.head(seen),), features)
