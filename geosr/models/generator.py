"""What all generators share: normalised input, and a residual on top of bicubic interpolation."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geosr.degrade.resample import bicubic


class Generator(nn.Module):
    """SR reflectance from LR reflectance, by a network between two normalisations.

    With ``global_skip`` the network predicts only what bicubic interpolation misses. That residual is small, so an
    error of 1 % in it, as bfloat16 makes, is harmless: under ``torch.autocast`` the convolutions run in low precision,
    while the input, the interpolation and the sum stay in the input's.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.
        global_skip: Add the output to the bicubic-upsampled input; otherwise, to ``mean``.
    """

    reach: int | None
    """LR pixels to each side that the output of one LR pixel depends on; None is the whole image."""
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        global_skip: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.global_skip = scale, global_skip
        self.register_buffer("mean", _per_band(mean, 0.0, bands), persistent=False)
        self.register_buffer("std", _per_band(std, 1.0, bands), persistent=False)

    @abstractmethod
    def resolve(self, features: Tensor) -> Tensor:
        """The network's output (batch, band, y * scale, x * scale) for normalised input (batch, band, y, x)."""

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x)."""
        return self.restored(lr, self.resolve(self.normalised(lr)))

    def normalised(self, lr: Tensor) -> Tensor:
        """LR reflectance as the network sees it."""
        return (lr - self.mean) / self.std

    def restored(self, lr: Tensor, detail: Tensor) -> Tensor:
        """SR reflectance of LR reflectance and the network's output for it."""
        detail = detail.to(lr.dtype)
        if self.global_skip:
            return bicubic(lr, self.scale).addcmul_(detail, self.std)
        return torch.addcmul(self.mean, detail, self.std)


FIRST_DETAIL = 0.05
"""What the last convolution's weights are multiplied by at the start, so that training starts near bicubic."""

BICUBIC_REACH = 2
"""LR pixels to each side."""


def _per_band(values: Sequence[float] | None, default: float, bands: int) -> Tensor:
    """Values of shape (1, band, 1, 1), one per band."""
    return torch.tensor(values or [default] * bands, dtype=torch.float32).view(1, bands, 1, 1)
