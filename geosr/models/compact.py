"""``compact``: a plain stack of convolutions at LR resolution, the cheapest generator for its accuracy."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.degrade.resample import bicubic


class Compact(nn.Module):
    """Convolutions with PReLU on the LR grid, then a pixel shuffle, added to the bicubic-upsampled input.

    The network predicts only what bicubic interpolation misses. That residual is small, so an error of 1 % in it, as
    bfloat16 makes, is harmless: under ``torch.autocast`` the convolutions run in low precision, while the input, the
    interpolation and the sum stay in the input's.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        channels: Feature channels.
        blocks: Convolutions between the first and the last.
        mean: Per-band reflectance subtracted from the input of the convolutions.
        std: Per-band reflectance that the input of the convolutions is divided by, and their output multiplied by.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021 (SRVGGNetCompact), here on a bicubic instead of a nearest base.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale
        widths = [bands, *[channels] * (blocks + 1)]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 3, padding=1), nn.PReLU(width_out)]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, bands * scale**2, 3, padding=1))
        self.register_buffer("mean", _per_band(mean, 0.0, bands), persistent=False)
        self.register_buffer("std", _per_band(std, 1.0, bands), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation for PReLU; the last convolution is small, so that training starts near bicubic."""
        convolutions = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, a=0.25)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        convolutions[-1].weight.data.mul_(0.05)

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x)."""
        features = self.body((lr - self.mean) / self.std)
        residual = F.pixel_shuffle(features, self.scale).to(lr.dtype)
        return bicubic(lr, self.scale).addcmul_(residual, self.std)


def _per_band(values: Sequence[float] | None, default: float, bands: int) -> Tensor:
    """Values of shape (1, band, 1, 1), one per band."""
    return torch.tensor(values or [default] * bands, dtype=torch.float32).view(1, bands, 1, 1)
