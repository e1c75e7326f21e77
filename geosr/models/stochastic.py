"""``stochastic``: a residual generator whose blocks are modulated by noise, so that one LR image has many SR images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.models.blocks import Block
from geosr.models.noise import normal_field
from geosr.models.residual import Residual

_FIRST_MODULATION = 0.1
"""What the last weights of a block's modulation are multiplied by at the start, so that noise begins as a whisper."""


class NoiseBlock(Block):
    """Two convolutions; what noise says multiplies and shifts the features between them, before a PReLU.

    References:
        E. Perez et al., "FiLM: Visual reasoning with a general conditioning layer", AAAI 2018, eq. 2, with a gain that
        is counted from 1.
        T. Park et al., "Semantic image synthesis with spatially-adaptive normalization", CVPR 2019, for a gain and a
        shift that differ from pixel to pixel.
    """

    def __init__(self, channels: int, *, kernel: int, noise_channels: int, res_scale: float) -> None:
        super().__init__()
        self.reach = 2 * (kernel // 2)
        self.res_scale = res_scale
        self.style = nn.Conv2d(noise_channels, channels, 1)
        self.modulation = nn.Conv2d(channels, 2 * channels, 1)
        self.first = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.act = nn.PReLU()
        self.last = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """Features of the same shape; ``noise`` (batch, channel, y, x), or (batch, channel, 1, 1) for all pixels."""
        gain, shift = self.modulation(F.silu(self.style(noise))).chunk(2, dim=1)
        inner = self.act(torch.addcmul(shift, self.first(features), 1 + gain))
        return torch.add(features, self.last(inner), alpha=self.res_scale)


class Stochastic(Residual):
    """`Residual` with `NoiseBlock`, which answers "what else might be there" with another image for other noise.

    The noise lies on the LR grid, with numbers of its own for every pixel (``noise_field``), and belongs to places: see
    `normal_field`. So tiles agree, and what is drawn in one place is independent of what is drawn farther away than the
    network looks. Or it is one vector for the whole image, as in opensr-srgan's ``stochastic_gan``, where tiles agree
    because the vector is the scene's; all of the scene then varies together. The weights are the same for both: a dense
    layer on a vector is a 1 x 1 convolution on an image of one pixel, and a field that is the same everywhere gives
    what the vector gives. Which of both a network was trained with, it should be used with.

    Without noise, training draws it afresh from torch's own generator, and evaluation takes zeros: the noise-free image
    is the same every time and what validations judge. It is not the mean over the noise.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        channels: Feature channels.
        blocks: Number of blocks.
        noise_channels: Numbers that are drawn, for each pixel or for the image.
        noise_field: Draw for each LR pixel; otherwise, once for the image.
        large_kernel_size: Side of the first and the last kernel; odd.
        small_kernel_size: Side of the others; odd.
        res_scale: Factor on the residual branch of a block.
        use_icnr: Start the convolutions before a pixel shuffle as a nearest-neighbour enlargement.
        global_skip: Add the output to the bicubic-upsampled input.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.

    References:
        T. Karras et al., "A style-based generator architecture for generative adversarial networks", CVPR 2019,
        Sec. 3.2, for noise for each pixel.
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        noise_channels: int = 16,
        noise_field: bool = True,
        large_kernel_size: int = 9,
        small_kernel_size: int = 3,
        res_scale: float = 0.2,
        use_icnr: bool = True,
        global_skip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            bands=bands,
            scale=scale,
            block=lambda it: NoiseBlock(
                it.channels, kernel=it.kernel, noise_channels=noise_channels, res_scale=it.res_scale
            ),
            channels=channels,
            blocks=blocks,
            large_kernel_size=large_kernel_size,
            small_kernel_size=small_kernel_size,
            res_scale=res_scale,
            use_icnr=use_icnr,
            global_skip=global_skip,
            mean=mean,
            std=std,
        )
        self.noise_channels, self.noise_field = noise_channels, noise_field
        for block in self.body:
            assert isinstance(block, NoiseBlock)
            block.modulation.weight.data.mul_(_FIRST_MODULATION)

    def forward(self, lr: Tensor, noise: Tensor | None = None) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x).

        Args:
            lr: LR reflectance.
            noise: Standard normal numbers (batch, noise channel, y, x), or (batch, noise channel, 1, 1) for the image.
        """
        if noise is None:
            noise = self._drawn(lr) if self.training else lr.new_zeros(lr.shape[0], self.noise_channels, 1, 1)
        return self.restored(lr, self.resolve(self.normalised(lr), noise))

    def noise(self, seed: int, origins: Tensor, *, height: int, width: int) -> Tensor:
        """The noise of one member of an ensemble, for images whose first pixels are ``origins`` (batch, 2)."""
        if not self.noise_field:
            origins, height, width = torch.zeros_like(origins), 1, 1
        return normal_field(seed, origins, channels=self.noise_channels, height=height, width=width)

    def _drawn(self, lr: Tensor) -> Tensor:
        size = lr.shape[2:] if self.noise_field else (1, 1)
        return torch.randn(lr.shape[0], self.noise_channels, *size, dtype=lr.dtype, device=lr.device)
