"""``patchgan``: scores overlapping patches."""

from torch import Tensor, nn

from geosr.models.discriminators.discriminator import Discriminator, Look
from geosr.models.discriminators.layers import activations, convolution, limited, start


class PatchGAN(Discriminator):
    """One logit for each of the overlapping patches that the convolutions see; 70 x 70 pixels with three layers.

    Args:
        bands: Bands of the image.
        layers: Layers of stride 2.
        base_channels: Channels of the first; each has twice as many as the one before, up to 8 times as many.
        norm: none, batch (as in the paper) or instance (as CycleGAN has it).
        spectral: Divide each weight by its largest singular value.

    References:
        P. Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017, appendix 6.1.2.
        J.-Y. Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017,
        appendix 7.2.
    """

    name = "patchgan"

    def __init__(
        self,
        *,
        bands: int,
        layers: int = 3,
        base_channels: int = 64,
        norm: str = "instance",
        spectral: bool = False,
    ) -> None:
        super().__init__(bands=bands, least=3 * 2**layers)
        widths = [base_channels * min(2**layer, 8) for layer in range(layers + 1)]
        stack = convolution(bands, widths[0], 4, stride=2, norm="none", spectral=spectral)
        for layer in range(1, layers + 1):
            stride = 2 if layer < layers else 1
            stack += convolution(widths[layer - 1], widths[layer], 4, stride=stride, norm=norm, spectral=spectral)
        last = nn.Conv2d(widths[-1], 1, 4, padding=1)
        start(last)
        self.body = nn.Sequential(*stack, limited(last, spectral=spectral))

    def look(self, image: Tensor) -> Look:
        """Logits (batch, 1, y, x), and the features of each convolution but the last."""
        scores, features = activations(self.body, image)
        return Look((scores,), features)
