"""``unet_sn``: Real-ESRGAN's discriminator, one score a pixel."""

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.models.discriminators.layers import SLOPE, limited, require_size, start


class UNetSN(nn.Module):
    """One logit for each pixel: a U-Net with spectral normalisation.

    Args:
        bands: Bands of the image.
        base_channels: Channels at full resolution; each of the three coarser levels has twice as many.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, Sec. 3.3 and Fig. 6.
    """

    least = 8

    def __init__(self, *, bands: int, base_channels: int = 64) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(4)]
        self.first = nn.Conv2d(bands, base_channels, 3, padding=1)
        start(self.first)
        self.down = nn.ModuleList(_inner(widths[i], widths[i + 1], 4, stride=2) for i in range(3))
        self.up = nn.ModuleList(_inner(widths[i + 1], widths[i], 3) for i in reversed(range(3)))
        self.refine = nn.ModuleList(_inner(base_channels, base_channels, 3) for _ in range(2))
        self.last = nn.Conv2d(base_channels, 1, 3, padding=1)
        start(self.last)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, 1, y, x) of normalised images (batch, band, y, x)."""
        require_size(image, self.least, "unet_sn")
        levels = [F.leaky_relu_(self.first(image), SLOPE)]
        for down in self.down:
            levels.append(F.leaky_relu_(down(levels[-1]), SLOPE))
        features = levels.pop()
        for up in self.up:
            finer = levels.pop()
            enlarged = F.interpolate(features, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            features = F.leaky_relu_(up(enlarged), SLOPE) + finer
        for refine in self.refine:
            features = F.leaky_relu_(refine(features), SLOPE)
        return self.last(features)


def _inner(width_in: int, width_out: int, kernel: int, *, stride: int = 1) -> nn.Module:
    """A convolution without bias, its weights divided by their largest singular value."""
    layer = nn.Conv2d(width_in, width_out, kernel, stride, padding=1, bias=False)
    start(layer)
    return limited(layer)
