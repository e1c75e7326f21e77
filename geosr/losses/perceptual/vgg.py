"""VGG, a network that was trained to recognise objects, and the distance of its features."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.config.names import VGG_LAYERS
from geosr.errors import ConfigError, did_you_mean
from geosr.losses.perceptual.frozen import PerceptualRGB
from geosr.losses.perceptual.weights import Published, take

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the convolutions in each block; between blocks the image is halved."""
VGG16_DEPTHS, VGG19_DEPTHS = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)
"""Convolutions of each block."""
VGG16 = Published("torchvision's VGG16", "https://download.pytorch.org/models/vgg16-397923af.pth", 528)
VGG19 = Published("torchvision's VGG19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", 548)
"""Trained on ImageNet."""


class VGG(nn.Module):
    """The convolutions of VGG16 or VGG19, named as in torchvision's files, without weights.

    Args:
        depths: Convolutions of each block.
        wanted: Names of those whose output is wanted, such as ``conv5_4``, in the network's order; it ends at the last.

    References:
        K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
    """

    def __init__(self, depths: Sequence[int], *, wanted: Sequence[str]) -> None:
        super().__init__()
        names = [f"conv{block}_{layer}" for block, depth in enumerate(depths, 1) for layer in range(1, depth + 1)]
        self.names, self.wanted = names[: names.index(wanted[-1]) + 1], wanted
        self.features = nn.ModuleDict()
        before, number = 3, 0
        for name in self.names:
            width = WIDTHS[int(name[len("conv")]) - 1]
            number += name.endswith("_1") and name != "conv1_1"  # torchvision counts activations and pooling too
            self.features[str(number)] = nn.Conv2d(before, width, 3, padding=1, device="meta")
            before, number = width, number + 2

    @property
    def smallest(self) -> int:
        """Pixels along a side of the smallest image that the last of them has an output for."""
        return 2 ** (int(self.names[-1][len("conv")]) - 1)

    def forward(self, image: Tensor, halve: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """Output of the convolutions that are wanted, before their ReLU.

        Args:
            image: What the network looks at (batch, 3, y, x).
            halve: What halves the image between blocks; None takes the maximum of 2 x 2 pixels.
        """
        found = []
        for name, convolution in zip(self.names, self.features.values(), strict=True):
            if name.endswith("_1") and name != "conv1_1":
                image = F.max_pool2d(image, 2) if halve is None else halve(image)
            image = convolution(image)
            if name in self.wanted:
                found.append(image)
            image = F.relu(image, inplace=name not in self.wanted)
        return found


class VGGLoss(PerceptualRGB):
    """Weighted sum over layers of the mean absolute difference between VGG19's features of SR and HR, before ReLU.

    Args:
        bands: Names of the images' bands; red, green and blue (``RGB``) are looked up.
        layers: Weights by layer, such as ``{"conv5_4": 1.0}``; see ``VGG_LAYERS``. The network ends at the last.
        weights: ``imagenet``, a .pth file of torchvision's VGG19, or ``random``; see ``take``.
        white: Reflectance that the network sees as white.

    Raises:
        ConfigError: A band is missing, a layer is unknown or the weights cannot be had.

    References:
        J. Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016.
        X. Wang et al., "ESRGAN", ECCVW 2018, section 3.3 (before the activation).
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, section 4.1 (the layers and weights of the configuration's default).
    """

    def __init__(
        self, bands: Sequence[str], *, layers: Mapping[str, float], weights: str = "imagenet", white: float = 0.4
    ) -> None:
        for name in layers:
            if name not in VGG_LAYERS:
                raise ConfigError(
                    f"Training.Losses.perceptual_layers names {name!r}; allowed: {' '.join(VGG_LAYERS)}"
                    + did_you_mean(name, VGG_LAYERS)
                )
        chosen = {name: layers[name] for name in VGG_LAYERS if layers.get(name)}
        if not chosen:
            raise ConfigError("no layer of Training.Losses.perceptual_layers has a weight; try {conv5_4: 1.0}")
        network = VGG(VGG19_DEPTHS, wanted=[*chosen])
        super().__init__(bands, network, white=white, smallest=network.smallest)
        take(network, weights, VGG19)
        self.layers = chosen

    def features(self, seen: Tensor) -> list[Tensor]:
        """Output of the chosen convolutions."""
        found: list[Tensor] = self.network(seen)
        return found

    def distance(self, sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
        """The weighted sum."""
        pairs = zip(self.layers.values(), sr, hr, strict=True)
        return torch.stack([weight * F.l1_loss(ours, theirs) for weight, ours, theirs in pairs]).sum()
