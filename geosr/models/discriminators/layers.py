"""What discriminators are made of: convolutions with a choice of normalisation, and what they make of an image."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2
"""Of every leaky ReLU."""


def convolution(
    width_in: int,
    width_out: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 1,
    bias: bool = True,
    norm: str,
    spectral: bool,
) -> list[nn.Module]:
    """A convolution, its normalisation and a leaky ReLU.

    A bias is left out where a normalisation would take it away again.
    """
    layer = nn.Conv2d(width_in, width_out, kernel, stride, padding, bias=bias and norm == "none")
    start(layer)
    return [limited(layer, spectral=spectral), *_norm(norm, width_out), nn.LeakyReLU(SLOPE, inplace=True)]


def dense(width_in: int, width_out: int, *, spectral: bool) -> nn.Module:
    """A fully connected layer."""
    layer = nn.Linear(width_in, width_out)
    start(layer)
    return limited(layer, spectral=spectral)


def start(layer: nn.Module) -> None:
    """He's weights for a leaky ReLU, and no bias."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def limited(layer: nn.Module, *, spectral: bool) -> nn.Module:
    """The layer, if ``spectral`` with weights divided by their largest singular value.

    References:
        T. Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.
    """
    return spectral_norm(layer) if spectral else layer


def activations(layers: nn.Sequential, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What the layers make of an image, and what each of their leaky ReLUs does on the way."""
    features = []
    for layer in layers:
        image = layer(image)
        if isinstance(layer, nn.LeakyReLU):
            features.append(image)
    return image, tuple(features)


def _norm(kind: str, channels: int) -> list[nn.Module]:
    if kind == "none":
        return []
    return [nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)]
