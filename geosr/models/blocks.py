"""What generators are made of: the stack that their blocks stand in, and the blocks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Trunk(nn.Sequential):
    """Layers one after the other, whose outputs may be computed again for the gradients instead of being kept.

    Args:
        layers: The layers, which are numbered from 0 in the state dictionary.
        segment: Layers that are computed again together: of these only the input is kept.

    References:
        T. Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174, 2016.
    """

    def __init__(self, *layers: nn.Module, segment: int = 1) -> None:
        super().__init__(*layers)
        self.segment = segment
        self.gradient_checkpointing = False

    def forward(self, features: Tensor, *given: Tensor) -> Tensor:
        """What the last layer makes of the others' outputs; the same with and without checkpointing.

        Args:
            features: What the first layer gets.
            given: What every layer gets besides.
        """
        layers = list(self)
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return _chain(features, layers, *given)
        for first in range(0, len(layers), self.segment):
            part = layers[first : first + self.segment]
            norms = [norm for layer in part for norm in layer.modules() if isinstance(norm, nn.BatchNorm2d)]
            if norms:
                again = partial(_contexts, norms)
                features = checkpoint(_chain, features, part, *given, use_reentrant=False, context_fn=again)
            else:  # torch.compile takes no contexts
                features = checkpoint(_chain, features, part, *given, use_reentrant=False)
        return features


def _chain(features: Tensor, layers: list[nn.Module], *given: Tensor) -> Tensor:
    for layer in layers:
        features = layer(features, *given)
    return features


def _contexts(norms: list[nn.BatchNorm2d]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first and the second computation: running means take each batch into account once."""
    return nullcontext(), _still(norms)


@contextmanager
def _still(norms: list[nn.BatchNorm2d]) -> Iterator[None]:
    """Batch normalisations whose running statistics do not move."""
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, momentum, tracked in before:
            norm.momentum, norm.num_batches_tracked = momentum, tracked


class Block(nn.Module):
    """From features (batch, channel, y, x) to as many, on the same grid."""

    reach: int | None
    """Pixels to each side that an output pixel depends on; None is the whole image."""


class BatchNormBlock(Block):
    """Two convolutions with batch normalisation and a PReLU between them, added to the input.

    References:
        C. Ledig et al., "Photo-realistic single image super-resolution using a GAN", CVPR 2017, Fig. 4.
    """

    def __init__(self, channels: int, *, kernel: int) -> None:
        super().__init__()
        self.reach = 2 * (kernel // 2)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return features + self.body(features)


class ResidualBlock(Block):
    """Two convolutions with a PReLU between them, scaled and added to the input.

    References:
        B. Lim et al., "Enhanced deep residual networks for single image super-resolution", CVPRW 2017, Fig. 2c.
    """

    def __init__(self, channels: int, *, kernel: int, res_scale: float) -> None:
        super().__init__()
        self.reach = 2 * (kernel // 2)
        self.res_scale = res_scale
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
            nn.PReLU(),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return torch.add(features, self.body(features), alpha=self.res_scale)


class ChannelAttentionBlock(Block):
    """Two convolutions whose channels are weighted by what the whole image holds, scaled and added to the input.

    References:
        Y. Zhang et al., "Image super-resolution using very deep residual channel attention networks", ECCV 2018,
        Sec. 3.3 (RCAB).
    """

    def __init__(self, channels: int, *, kernel: int, res_scale: float, reduction: int) -> None:
        super().__init__()
        self.reach = None
        self.res_scale = res_scale
        hidden = max(channels // reduction, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
            nn.PReLU(),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
        )
        self.attention = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        detail = self.body(features)
        weight = self.attention(detail.mean((2, 3), keepdim=True)) * self.res_scale
        return features + detail * weight


class LargeKernelBlock(Block):
    """Two convolutions with an attention over 23 x 23 pixels between them, scaled and added to the input.

    References:
        M.-H. Guo et al., "Visual attention network", CVMJ 9(4), 2023, Sec. 3.2 (large-kernel attention).
    """

    def __init__(self, channels: int, *, kernel: int, res_scale: float) -> None:
        super().__init__()
        self.reach = 2 * (kernel // 2) + 2 + 9
        self.res_scale = res_scale
        self.first = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.act = nn.PReLU()
        self.attention = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            nn.Conv2d(channels, channels, 7, padding=9, dilation=3, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.Sigmoid(),
        )
        self.last = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        inner = self.act(self.first(features))
        return torch.add(features, self.last(inner * self.attention(inner)), alpha=self.res_scale)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and all earlier outputs; scaled and added to the input.

    Args:
        channels: Channels in and out.
        kernel: Side of the kernels; odd.
        growth: Channels that each of the first four convolutions adds.
        res_scale: Factor on what is added to the input.
        skip: Add to the input at all; otherwise the last convolution's output is the block's.

    References:
        X. Wang et al., "ESRGAN", ECCVW 2018, Sec. 3.1.
    """

    def __init__(self, channels: int, *, kernel: int, growth: int, res_scale: float, skip: bool = True) -> None:
        super().__init__()
        self.res_scale, self.skip = res_scale, skip
        widths = [growth] * 4 + [channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + i * growth, width, kernel, padding=kernel // 2) for i, width in enumerate(widths)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape, and as precise: under autocast only the convolutions are less so."""
        seen = features
        for layer in self.layers[:-1]:
            new = F.leaky_relu_(layer(seen), 0.2)
            seen = torch.cat([seen.to(new.dtype), new], dim=1)
        detail = self.layers[-1](seen)
        return torch.add(features, detail, alpha=self.res_scale) if self.skip else detail


class RRDB(Block):
    """Residual in residual dense block: three dense blocks, scaled and added to the input.

    Args:
        channels: Channels in and out.
        kernel: Side of the kernels; odd.
        growth: Channels that each convolution adds in a dense block.
        res_scale: Factor on what is added to the input, of the block and of the dense blocks.
        dense_skip: Add the dense blocks' outputs to their inputs, as published.

    References:
        X. Wang et al., "ESRGAN", ECCVW 2018, Fig. 4.
    """

    def __init__(self, channels: int, *, kernel: int, growth: int, res_scale: float, dense_skip: bool = True) -> None:
        super().__init__()
        self.reach: int = 3 * 5 * (kernel // 2)
        self.res_scale = res_scale
        self.body = nn.Sequential(
            *(
                DenseBlock(channels, kernel=kernel, growth=growth, res_scale=res_scale, skip=dense_skip)
                for _ in range(3)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return torch.add(features, self.body(features), alpha=self.res_scale)


def initialise(network: nn.Module, *, slope: float, gain: float = 1.0) -> None:
    """Give every convolution in ``network`` He's weights for activations of that negative slope, and no bias.

    References:
        K. He et al., "Delving deep into rectifiers", ICCV 2015, eq. 15.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=slope)
            layer.weight.data.mul_(gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def icnr(convolution: nn.Conv2d, factor: int) -> None:
    """Make a convolution before a pixel shuffle start as the same convolution before a nearest-neighbour enlargement.

    References:
        A. Aitken et al., "Checkerboard artifact free sub-pixel convolution", arXiv:1707.02937, 2017.
    """
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight[:: factor**2].repeat_interleave(factor**2, dim=0))


def prime_factors(scale: int) -> list[int]:
    """The stages that an enlargement is done in.

    >>> prime_factors(12), prime_factors(1)
    ([2, 2, 3], [])
    """
    factors, factor = [], 2
    while scale > 1:
        while scale % factor == 0:
            factors.append(factor)
            scale //= factor
        factor += 1
    return factors
