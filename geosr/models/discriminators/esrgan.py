"""``esrgan``: ESRGAN's discriminator in the manner of VGG, one score an image."""

from torch import Tensor, nn

from geosr.models.discriminators.discriminator import Discriminator, Look
from geosr.models.discriminators.layers import SLOPE, activations, convolution, dense


class ESRGAN(Discriminator):
    """One logit for each image: five times a 3 x 3 and a 4 x 4 convolution of stride 2, the mean, two dense layers.

    Args:
        bands: Bands of the image.
        base_channels: Channels of the first two; each two have twice as many as the two before.
        linear_size: Units between the dense layers.
        norm: none, batch (as in the paper) or instance.
        spectral: Divide each weight by its largest singular value.

    References:
        X. Wang et al., "ESRGAN", ECCVW 2018, Sec. 4.1, here with the mean over the image in place of a size that is
        fixed, and with channels that double to the end.
    """

    name = "esrgan"

    def __init__(
        self,
        *,
        bands: int,
        base_channels: int = 64,
        linear_size: int = 1024,
        norm: str = "batch",
        spectral: bool = False,
    ) -> None:
        super().__init__(bands=bands, least=32)
        widths = [bands, *(base_channels * 2**stage for stage in range(5))]
        stack: list[nn.Module] = []
        for stage, width in enumerate(widths[1:]):
            first = norm if stage else "none"
            stack += convolution(widths[stage], width, 3, norm=first, spectral=spectral)
            stack += convolution(width, width, 4, stride=2, padding=2, norm=norm, spectral=spectral)
        self.body = nn.Sequential(*stack)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            dense(widths[-1], linear_size, spectral=spectral),
            nn.LeakyReLU(SLOPE, inplace=True),
            dense(linear_size, 1, spectral=spectral),
        )

    def look(self, image: Tensor) -> Look:
        """One logit (batch, 1), and the features of each convolution."""
        seen, features = activations(self.body, image)
        return Look((self.head(seen),), features)
