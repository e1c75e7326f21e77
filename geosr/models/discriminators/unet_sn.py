"""``unet_sn``: Real-ESRGAN's discriminator, one score a pixel."""

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.models.discriminators.discriminator import Discriminator, Look
from geosr.models.discriminators.layers import SLOPE, convolution, start


class UNetSN(Discriminator):
    """One logit for each pixel: a U-Net with spectral normalisation of all but its first and its last convolution.

    Args:
        bands: Bands of the image.
        base_channels: Channels at full resolution; each of the three coarser levels has twice as many.
        norm: none (as in the paper), batch or instance, after each of the same convolutions.
        spectral: Divide their weights by their largest singular value, as in the paper.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, Sec. 3.3 and Fig. 6.
    """

    name = "unet_sn"

    def __init__(self, *, bands: int, base_channels: int = 64, norm: str = "none", spectral: bool = True) -> None:
        super().__init__(bands=bands, least=8)

        def inner(width_in: int, width_out: int, kernel: int, *, stride: int = 1) -> nn.Module:
            layers = convolution(width_in, width_out, kernel, stride=stride, bias=False, norm=norm, spectral=spectral)
            return nn.Sequential(*layers)

        widths = [base_channels * 2**level for level in range(4)]
        self.first = nn.Conv2d(bands, base_channels, 3, padding=1)
        start(self.first)
        self.down = nn.ModuleList(inner(widths[i], widths[i + 1], 4, stride=2) for i in range(3))
        self.up = nn.ModuleList(inner(widths[i + 1], widths[i], 3) for i in reversed(range(3)))
        self.refine = nn.ModuleList(inner(base_channels, base_channels, 3) for _ in range(2))
        self.last = nn.Conv2d(base_channels, 1, 3, padding=1)
        start(self.last)

    def look(self, image: Tensor) -> Look:
        """Logits (batch, 1, y, x), and the features of each level on the way down, up and to the last convolution."""
        features = [F.leaky_relu_(self.first(image), SLOPE)]
        for down in self.down:
            features.append(down(features[-1]))
        *levels, seen = features
        for up in self.up:
            finer = levels.pop()
            enlarged = F.interpolate(seen, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            seen = up(enlarged) + finer
            features.append(seen)
        for refine in self.refine:
            seen = refine(seen)
            features.append(seen)
        return Look((self.last(seen),), tuple(features))
