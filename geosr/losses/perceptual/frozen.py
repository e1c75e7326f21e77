"""What all perceptual losses share: a frozen network that is no part of the module, and how it sees images."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geosr.errors import ConfigError, GridError
from geosr.sensors import RGB

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, from 0 to 1."""


class Perceptual(nn.Module):
    """Distance of SR and HR to a network that was trained for something else.

    The network is frozen, follows the module from device to device, and is neither among its parameters nor in its
    state: no optimiser, moving average, process group or checkpoint sees it.

    Args:
        network: What looks at the images, with its weights.
        smallest: Pixels along a side of the smallest image that it can look at.
    """

    def __init__(self, network: nn.Module, *, smallest: int = 1) -> None:
        super().__init__()
        network.requires_grad_(False).eval()
        self._network = (network,)  # in a tuple, it is none of the modules whose parameters are listed and saved
        self.smallest = smallest

    @property
    def network(self) -> nn.Module:
        """What looks at the images."""
        return self._network[0]

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Perceptual":
        """Do to the network what ``to`` and its kin do to the module."""
        self.network._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def forward(self, sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
        """Distance of two images, without a unit; HR gets no gradient.

        Args:
            sr: SR reflectance (batch, band, y, x).
            hr: HR reflectance.
            valid: Valid pixels (batch, y, x).

        Raises:
            GridError: The images are too small for the network.
        """
        if min(sr.shape[-2:]) < self.smallest:
            raise GridError(
                f"{sr.shape[-2]} x {sr.shape[-1]} pixels are too few for the perceptual loss, whose last layer needs "
                f"{self.smallest} x {self.smallest}; enlarge Data.patch_size, or choose a "
                "Training.Losses.perceptual_metric or perceptual_layers that need fewer"
            )
        with torch.no_grad():
            targets = [single(one) for one in self.features(self.seen(hr, valid))]
        found = [single(one) for one in self.features(self.seen(sr, valid))]
        return self.distance(found, targets)

    @abstractmethod
    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """What the network sees of an image; the same wherever pixels are invalid."""

    @abstractmethod
    def features(self, seen: Tensor) -> list[Tensor]:
        """What the network makes of it, (batch, channel, y, x) by layer."""

    @abstractmethod
    def distance(self, sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
        """How far the two images' features, in float32, are apart."""


def single(features: Tensor) -> Tensor:
    """Features in float32 where autocast made them half as precise."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


class PerceptualRGB(Perceptual):
    """Distance of the red, green and blue of two images to a network that was trained on photographs.

    Reflectance ``white`` is 1 to the network; brighter pixels are not clipped, so that they have a gradient. Where
    pixels are invalid both images are the average colour of ImageNet.

    Args:
        bands: Names of the images' bands; red, green and blue (``RGB``) are looked up.
        network: What looks at the images, with its weights.
        white: Reflectance that it sees as white.
        smallest: Pixels along a side of the smallest image that it can look at.

    Raises:
        ConfigError: A band is missing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bands: Sequence[str], network: nn.Module, *, white: float, smallest: int) -> None:
        super().__init__(network, smallest=smallest)
        missing = [name for name in RGB if name not in bands]
        if missing:
            raise ConfigError(
                f"the perceptual loss looks at {' '.join(RGB)}, and Data.bands ({' '.join(bands)}) lacks "
                f"{' '.join(missing)}; add what is missing, take Training.Losses.perceptual_metric=ssl4eo, which looks "
                "at all bands, or set Training.Losses.perceptual_weight=0"
            )
        self.index = [list(bands).index(name) for name in RGB]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * white, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * white, persistent=False)

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """Three channels (batch, 3, y, x), each as bright and as varied as ImageNet's."""
        return torch.where(valid.unsqueeze(1), (image[:, self.index] - self.mean) / self.std, 0.0)
