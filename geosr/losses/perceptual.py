"""Perceptual loss: how different two images look to a network that was trained to recognise objects."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.config.names import VGG_LAYERS
from geosr.errors import ConfigError, GridError, did_you_mean
from geosr.sensors import RGB

log = logging.getLogger("geosr")

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and channels of each block of VGG19; between blocks the maximum of 2 x 2 pixels is taken."""
WIDTHS = (3, *(width for depth, width in BLOCKS for _ in range(depth)))
"""Channels before the first of them and after each."""
URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""Torchvision's VGG19, trained on ImageNet; 548 MB."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, from 0 to 1."""


class Perceptual(nn.Module):
    """Weighted sum over layers of the mean absolute difference between VGG19's features of SR and HR, before ReLU.

    Reflectance ``white`` is 1 to the network; brighter pixels are not clipped, so that they have a gradient. Where
    pixels are invalid both images are the average colour of ImageNet. The network is frozen, follows the module from
    device to device, and is neither among its parameters nor in its state: no optimiser, moving average, process group
    or checkpoint sees it.

    Args:
        bands: Names of the images' bands; red, green and blue (``RGB``) are looked up.
        layers: Weights by layer, such as ``{"conv5_4": 1.0}``; see ``VGG_LAYERS``. The network ends at the last.
        weights: ``imagenet`` (downloaded once), a .pth file of torchvision's VGG19, or ``random``, always the same.
        white: Reflectance that the network sees as white.

    Raises:
        ConfigError: A band is missing, a layer is unknown or the weights cannot be had.

    References:
        J. Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016.
        X. Wang et al., "ESRGAN", ECCVW 2018, section 3.3 (before the activation).
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, section 4.1 (the layers and weights of the configuration's default).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, bands: Sequence[str], *, layers: Mapping[str, float], weights: str = "imagenet", white: float = 0.4
    ) -> None:
        super().__init__()
        missing = [name for name in RGB if name not in bands]
        if missing:
            raise ConfigError(
                f"the perceptual loss looks at {' '.join(RGB)}, and Data.bands ({' '.join(bands)}) lacks "
                f"{' '.join(missing)}; add what is missing, or set Training.Losses.perceptual_weight=0"
            )
        for name in layers:
            if name not in VGG_LAYERS:
                raise ConfigError(
                    f"Training.Losses.perceptual_layers names {name!r}; allowed: {' '.join(VGG_LAYERS)}"
                    + did_you_mean(name, VGG_LAYERS)
                )
        self.layers = {name: weight for name, weight in layers.items() if weight}
        if not self.layers:
            raise ConfigError("no layer of Training.Losses.perceptual_layers has a weight; try {conv5_4: 1.0}")
        self.index = [list(bands).index(name) for name in RGB]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * white, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * white, persistent=False)
        network = _Features(max(map(VGG_LAYERS.index, self.layers)) + 1)
        network.take(weights)
        self._network = (network,)  # in a tuple, it is none of the modules whose parameters are listed and saved

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Perceptual":
        """Do to the network what ``to`` and its kin do to the module."""
        self._network[0]._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def forward(self, sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
        """Distance of two images, without a unit; HR gets no gradient.

        Args:
            sr: SR reflectance (batch, band, y, x).
            hr: HR reflectance.
            valid: Valid pixels (batch, y, x).

        Raises:
            GridError: The images are too small for the last layer.
        """
        (network,) = self._network
        if min(sr.shape[-2:]) < network.smallest:
            raise GridError(
                f"{sr.shape[-2]} x {sr.shape[-1]} pixels are too few for the perceptual loss, whose last layer needs "
                f"{network.smallest} x {network.smallest}; enlarge Data.patch_size, or name earlier layers in "
                "Training.Losses.perceptual_layers"
            )
        with torch.no_grad():
            targets = network(self._seen(hr, valid), self.layers)
        features = network(self._seen(sr, valid), self.layers)
        distances = [
            weight * F.l1_loss(features[name].float(), targets[name].float()) for name, weight in self.layers.items()
        ]
        return torch.stack(distances).sum()

    def _seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """What the network sees of an image: three channels, each as bright and as varied as ImageNet's."""
        return torch.where(valid.unsqueeze(1), (image[:, self.index] - self.mean) / self.std, 0.0)


class _Features(nn.Module):
    """The first convolutions of VGG19, frozen, without weights at first."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.names = VGG_LAYERS[:count]
        self.smallest: int = 2 ** (int(self.names[-1][len("conv")]) - 1)
        """Pixels along a side of the smallest image that the last of them has an output for."""
        self.convolutions = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, before, width, 3, padding=1)  # draws no random numbers
            for before, width in pairwise(WIDTHS[: count + 1])
        )
        self.requires_grad_(False)

    def forward(self, image: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """Output by name of the convolutions in ``wanted``."""
        found = {}
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and name != self.names[0]:
                image = F.max_pool2d(image, 2)
            image = convolution(image)
            if name in wanted:
                found[name] = image
            image = F.relu(image, inplace=name not in wanted)
        return found

    def take(self, weights: str) -> None:
        """Take over the weights that a name or a file stands for."""
        if weights == "random":
            state = _random(len(self.names))
        else:
            state = _download() if weights == "imagenet" else _read(weights)
        for layer, convolution in zip(_numbers(), self.convolutions, strict=False):
            try:
                convolution.load_state_dict({part: state[f"features.{layer}.{part}"] for part in ("weight", "bias")})
            except (KeyError, RuntimeError) as error:
                raise ConfigError(
                    f"Training.Losses.perceptual_weights ({weights}) are not those of torchvision's VGG19: its "
                    f"'features.{layer}' is missing or has another shape; get them from {URL}"
                ) from error


def _numbers() -> list[int]:
    """The numbers that torchvision gives to the convolutions, where activations and pooling count as well."""
    numbers: list[int] = []
    for depth, _ in BLOCKS:
        start = numbers[-1] + 3 if numbers else 0
        numbers += range(start, start + 2 * depth, 2)
    return numbers


def _random(count: int) -> Mapping[str, Tensor]:
    """Weights of the first convolutions by chance, the same every time; the variance of what passes stays (He)."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for layer, (before, width) in zip(_numbers(), pairwise(WIDTHS[: count + 1]), strict=False):
        weight = torch.randn(width, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
        state |= {f"features.{layer}.weight": weight, f"features.{layer}.bias": torch.zeros(width)}
    return state


def _download() -> Mapping[str, Tensor]:
    """Torchvision's weights; from torch's cache when they are there."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]
    if not file.exists():
        log.info("downloading %s (548 MB) to %s", URL, file)
    try:
        return torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"the perceptual loss needs the weights of VGG19, and {URL} cannot be had: {error}\n"
            f"  where there is a network:  curl -O {URL}\n"
            "  and then:                  Training.Losses.perceptual_weights=PATH/vgg19-dcbb9e9d.pth"
        ) from error


def _read(path: str) -> Mapping[str, Tensor]:
    """State of a network in a file of torch.save."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ConfigError(
            f"Training.Losses.perceptual_weights is {path!r}, which is neither imagenet nor random, and cannot be read "
            f"as a file of VGG19's weights: {error}"
        ) from error
    return state if isinstance(state, Mapping) else {}
