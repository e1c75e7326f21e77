"""``interpolation``: the baselines that learn nothing; with a consistency layer, back-projection."""

import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ModelError, did_you_mean

MODES = ("nearest", "bicubic")


class Interpolation(nn.Module):
    """Upsampling by ``mode``: ``nearest`` or ``bicubic``, as ``torch.nn.functional.interpolate`` computes it.

    Args:
        bands: Number of bands; any number gives the same network.
        scale: Upsampling factor.
        mode: ``nearest`` or ``bicubic``.
    """

    def __init__(self, *, bands: int, scale: int, mode: str = "bicubic") -> None:
        super().__init__()
        if mode not in MODES:
            raise ModelError(f"mode {mode!r} is unknown ({' '.join(MODES)})" + did_you_mean(mode, MODES))
        self.scale, self.mode = scale, mode

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x)."""
        return F.interpolate(lr, scale_factor=self.scale, mode=self.mode)
