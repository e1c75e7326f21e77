"""``swinir``: a transformer whose attention sees windows of pixels, every second time shifted by half a window."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ModelError, did_you_mean
from geosr.models.blocks import Trunk, icnr, prime_factors
from geosr.models.generator import FIRST_DETAIL, Generator
from geosr.models.padding import padded

_MLP_RATIO = 2
"""Hidden channels of an MLP over those around it, as in all published sizes."""
_UPSAMPLE_CHANNELS = 64
"""Most channels at SR resolution, as published."""


class SwinIR(Generator):
    """A convolution, groups of window-attention layers with a skip around all of them, and pixel shuffles.

    Windows lie side by side from the first row and column of the image on, which is continued by its reflection to
    whole windows. The size published as light has 60 channels, 4 groups of 6 layers, 6 heads, windows of 8 and
    ``pixelshuffledirect``; the classic one has 180 channels, 6 groups of 6 layers, 6 heads, windows of 8 and
    ``pixelshuffle``. Both reach farther than a tile, so tiles are blended; a group of two layers is tiled exactly.

    The published weights have the same tensors, one for one, under other names. They go with ``global_skip`` off, the
    mean of their training images and a ``std`` of 1. Their training skipped layers at random (stochastic depth), which
    this one does not.

    Args:
        bands: Number of bands, in and out.
        scale: Upsampling factor, any whole number of at least 1.
        channels: Feature channels, a multiple of ``heads``.
        blocks: Number of groups.
        depth: Layers in a group, each with attention and an MLP; every second one has shifted windows.
        heads: Heads of the attention.
        window_size: Side of a window, LR pixels; at least 2.
        upsampler: ``pixelshuffle``, one for each prime factor of the scale with convolutions around it, or
            ``pixelshuffledirect``, a single one behind a single convolution.
        use_icnr: Start the convolutions before a pixel shuffle as a nearest-neighbour enlargement.
        global_skip: Add the output to the bicubic-upsampled input.
        mean: Per-band reflectance subtracted from the input of the network.
        std: Per-band reflectance that the input of the network is divided by, and its output multiplied by.

    References:
        J. Liang et al., "SwinIR: image restoration using Swin transformer", ICCVW 2021, Sec. 3 and 4.1.
    """

    multiple_of: int
    """LR pixels along one side of a window."""

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        channels: int = 64,
        blocks: int = 10,
        depth: int = 6,
        heads: int = 4,
        window_size: int = 8,
        upsampler: str = "pixelshuffle",
        use_icnr: bool = True,
        global_skip: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=global_skip)
        if upsampler not in UPSAMPLERS:
            raise ModelError(
                f"upsampler {upsampler!r} is unknown ({' '.join(UPSAMPLERS)})" + did_you_mean(upsampler, UPSAMPLERS)
            )
        self.multiple_of = window_size
        self.head = nn.Conv2d(bands, channels, 3, padding=1)
        self.embed = PixelNorm(channels)
        self.body = Trunk(
            *(SwinGroup(channels, depth=depth, heads=heads, window_size=window_size) for _ in range(blocks))
        )
        self.norm = PixelNorm(channels)
        self.fuse = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsample = UPSAMPLERS[upsampler](channels, bands, scale)
        self.reach = _reach(self.upsample, scale=scale, blocks=blocks, depth=depth, window_size=window_size)

        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        last = [layer for layer in self.upsample if isinstance(layer, nn.Conv2d)][-1]
        nn.init.kaiming_normal_(last.weight, nonlinearity="linear")
        if global_skip:
            last.weight.data.mul_(FIRST_DETAIL)
        if use_icnr:
            for layer, behind in pairwise(self.upsample):
                if isinstance(layer, nn.Conv2d) and isinstance(behind, nn.PixelShuffle):
                    icnr(layer, behind.upscale_factor)

    def resolve(self, features: Tensor) -> Tensor:
        """The network's output for normalised input."""
        height, width = (n * self.scale for n in features.shape[2:])
        first = self.head(padded(features, multiple_of=self.multiple_of))
        deep = self.fuse(self.norm(self.body(self.embed(first))))
        return self.upsample(first + deep)[..., :height, :width]


class PixelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of each pixel."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (batch, channel, y, x) of the same shape."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SwinGroup(nn.Module):
    """Window-attention layers and a convolution, added to the input (RSTB in the paper).

    References:
        J. Liang et al., "SwinIR", ICCVW 2021, eq. 4 and 5.
    """

    def __init__(self, channels: int, *, depth: int, heads: int, window_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                SwinLayer(channels, heads=heads, window_size=window_size, shift=layer_shift(layer, window_size))
                for layer in range(depth)
            )
        )
        self.fuse = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (batch, channel, y, x) of the same shape, whose sides are multiples of the window's."""
        pixels = self.layers(features.permute(0, 2, 3, 1))
        return features + self.fuse(pixels.permute(0, 3, 1, 2))


def layer_shift(layer: int, window_size: int) -> int:
    """LR pixels that the windows of a layer of a group are shifted by, down and to the right."""
    return layer % 2 * (window_size // 2)


class SwinLayer(nn.Module):
    """Attention in windows, then an MLP for each pixel, each normalised before and added to its input.

    References:
        Z. Liu et al., "Swin transformer", ICCV 2021, eq. 3.
    """

    def __init__(self, channels: int, *, heads: int, window_size: int, shift: int) -> None:
        super().__init__()
        hidden = channels * _MLP_RATIO
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads=heads, window_size=window_size, shift=shift)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (batch, y, x, channel) of the same shape."""
        pixels = pixels + self.attention(self.attention_norm(pixels))
        return pixels + self.mlp(self.mlp_norm(pixels))


class WindowAttention(nn.Module):
    """Attention of each pixel to those of its window, with a bias for each offset between two of them.

    Shifted windows begin ``shift`` pixels further down and to the right; what they leave over at the edges of the image
    makes smaller windows. The image is rolled, so that those above and below, left and right, share a window, in which
    pixels from two of them do not see each other. That is the case in the last row and column of windows only, so three
    masks of one window serve images of any size.

    Args:
        channels: Features of a pixel; a multiple of ``heads``.
        heads: Parts of the features, each with an attention of its own.
        window_size: Side of a window; at least 2.
        shift: Pixels that the windows are shifted by; less than a window.

    References:
        Z. Liu et al., "Swin transformer", ICCV 2021, eq. 4 and Fig. 4.
    """

    offsets: Tensor
    apart: Tensor

    def __init__(self, channels: int, *, heads: int, window_size: int, shift: int) -> None:
        super().__init__()
        if channels % heads:
            raise ModelError(f"{channels} channels cannot be split among {heads} heads; take a multiple of {heads}")
        if window_size < 2:
            raise ModelError(f"in a window of {window_size} pixels there is nothing to attend to; take 2 or more")
        self.heads, self.window_size, self.shift = heads, window_size, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.biases = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, heads))
        nn.init.normal_(self.biases, std=0.02)

        places = torch.cartesian_prod(torch.arange(window_size), torch.arange(window_size))
        down, right = (places[:, None] - places + window_size - 1).unbind(-1)
        self.register_buffer("offsets", down * (2 * window_size - 1) + right, persistent=False)
        rolled = places >= window_size - shift
        below, beside = (rolled[:, None] != rolled).unbind(-1)
        nowhere = torch.zeros_like(below)
        apart = torch.stack([nowhere, beside, below, below | beside]).unflatten(0, (2, 2))
        self.register_buffer("apart", apart, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (batch, y, x, channel) of the same shape, whose sides are multiples of the window's."""
        bias = self.biases[self.offsets].permute(2, 0, 1)
        if not self.shift:
            return self.project(self._attend(self.qkv(pixels), bias))
        qkv = self.qkv(pixels.roll((-self.shift, -self.shift), (1, 2)))
        rows = []
        for below, down in self._parts(pixels.shape[1]):
            row = [
                self._attend(qkv[:, down, right], bias.masked_fill(self.apart[below, beside], -torch.inf))
                for beside, right in self._parts(pixels.shape[2])
            ]
            rows.append(torch.cat(row, dim=2))
        return self.project(torch.cat(rows, dim=1).roll((self.shift, self.shift), (1, 2)))

    def _parts(self, size: int) -> list[tuple[int, slice]]:
        """Along one axis, the windows that are whole (0), if there are any, and the one of two rolled together (1)."""
        last = size - self.window_size
        return [(0, slice(0, last)), (1, slice(last, size))] if last else [(1, slice(0, size))]

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """Values (batch, y, x, channel), averaged over each window as queries, keys and ``bias`` say.

        Args:
            qkv: Queries, keys and values (batch, y, x, 3 * channel).
            bias: Added to the products of queries and keys (head, pixel of the query, pixel of the key).
        """
        side, heads = self.window_size, self.heads
        batch, height, width, channels = qkv.shape
        split = qkv.reshape(batch, height // side, side, width // side, side, 3, heads, channels // (3 * heads))
        windows = split.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(1, 3)
        queries, keys, values = windows.unbind()
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias[None])
        seen = seen.reshape(batch, height // side, width // side, heads, side, side, channels // (3 * heads))
        return seen.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels // 3)


def _shuffles(channels: int, bands: int, scale: int) -> nn.Sequential:
    """A pixel shuffle for each prime factor of the scale, each behind a convolution, and a convolution around them."""
    width = min(channels, _UPSAMPLE_CHANNELS)
    stages: list[nn.Module] = []
    for factor in prime_factors(scale):
        stages += [nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
    first = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU()]
    return nn.Sequential(*first, *stages, nn.Conv2d(width, bands, 3, padding=1))


def _direct(channels: int, bands: int, scale: int) -> nn.Sequential:
    """One convolution and one pixel shuffle."""
    return nn.Sequential(nn.Conv2d(channels, bands * scale**2, 3, padding=1), nn.PixelShuffle(scale))


UPSAMPLERS: Mapping[str, Callable[[int, int, int], nn.Sequential]] = {
    "pixelshuffle": _shuffles,
    "pixelshuffledirect": _direct,
}
"""From features to SR, for features, bands and a scale."""


def _reach(upsample: nn.Sequential, *, scale: int, blocks: int, depth: int, window_size: int) -> int:
    """LR pixels to each side: the most over the places that a pixel can have in its window.

    From an LR pixel's SR pixels back to the input, a convolution sees one pixel more to each side, a pixel shuffle has
    made its pixels from coarser ones, and attention sees all of the windows that it touches.
    """
    furthest = 0
    for place in range(window_size):
        low, high = place * scale, place * scale + scale - 1
        for stage in reversed(upsample):
            if isinstance(stage, nn.PixelShuffle):
                low, high = low // stage.upscale_factor, high // stage.upscale_factor
            elif isinstance(stage, nn.Conv2d):
                low, high = low - 1, high + 1
        low, high = low - 1, high + 1
        for _ in range(blocks):
            low, high = low - 1, high + 1
            for layer in reversed(range(depth)):
                shift = layer_shift(layer, window_size)
                low = (low - shift) // window_size * window_size + shift
                high = (high - shift) // window_size * window_size + shift + window_size - 1
        low, high = low - 1, high + 1
        furthest = max(furthest, place - low, high - place)
    return furthest
