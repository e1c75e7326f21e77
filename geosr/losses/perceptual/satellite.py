"""The distance of features of a network that was trained on Sentinel-2, and sees more than red, green and blue."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.errors import ConfigError
from geosr.losses.perceptual.frozen import Perceptual
from geosr.losses.perceptual.weights import Published, take
from geosr.sensors import get_sensor

CHANNELS = get_sensor("sentinel-2-l1c").band_names
"""What the networks look at, in their order."""
_HOST = "https://hf.co/torchgeo/"
NETWORKS = {
    "ssl4eo": Published(
        "TorchGeo's ResNet18 (SSL4EO-S12, MoCo, all bands)",
        _HOST + "resnet18_sentinel2_all_moco/resolve/5b8cddc9a14f3844350b7f40b85bcd32aed75918/"
        "resnet18_sentinel2_all_moco-59bfdff9.pth",
        45,
    ),
    "ssl4eo_resnet50": Published(
        "TorchGeo's ResNet50 (SSL4EO-S12, MoCo, all bands)",
        _HOST + "resnet50_sentinel2_all_moco/resolve/da4f3c9dbe09272eb902f3b37f46635fa4726879/"
        "resnet50_sentinel2_all_moco-df8b932e.pth",
        94,
    ),
}
"""Their weights, ``SENTINEL2_ALL_MOCO`` of TorchGeo, by ``SATELLITE_METRICS``."""


class SatelliteLoss(Perceptual):
    """Mean over the four stages of a ResNet of the mean absolute difference between its features of SR and HR.

    The network learned without labels from Sentinel-2 scenes of the whole world. It sees reflectance as it is: TorchGeo
    divides digital numbers by 10000, and of its training data, which are older than baseline 04.00, that is
    reflectance. Bands that the images do not have are 0, as invalid pixels are in both images.

    Args:
        bands: Names of the images' bands; those of Sentinel-2 are shown to the network.
        network: One of ``SATELLITE_METRICS``.
        weights: ``imagenet`` (the published ones), a .pth file of TorchGeo's, or ``random``; see ``take``.

    Raises:
        ConfigError: None of the bands is Sentinel-2's, or the weights cannot be had.

    References:
        Y. Wang et al., "SSL4EO-S12: a large-scale multi-modal, multi-temporal dataset for self-supervised learning in
        Earth observation", IEEE Geosci. Remote Sens. Mag. 11, 2023.
        J. Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016.
    """

    def __init__(self, bands: Sequence[str], *, network: str, weights: str = "imagenet") -> None:
        order = list(bands)
        if not set(order) & set(CHANNELS):
            raise ConfigError(
                f"Training.Losses.perceptual_metric={network} looks at {' '.join(CHANNELS)}, and Data.bands "
                f"({' '.join(order)}) has none of them; set Training.Losses.perceptual_weight=0"
            )
        super().__init__(_resnet(network))
        take(self.network, weights, NETWORKS[network])
        self.places = [order.index(name) if name in order else len(order) for name in CHANNELS]

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """Reflectance of all thirteen bands (batch, 13, y, x)."""
        image = torch.where(valid.unsqueeze(1), image, 0.0)
        return F.pad(image, (0, 0, 0, 0, 0, 1))[:, self.places]  # what is missing is the band of zeros at the end

    def features(self, seen: Tensor) -> list[Tensor]:
        """Output of the four stages."""
        network: Any = self.network
        image = network.maxpool(network.relu(network.bn1(network.conv1(seen))))
        found = []
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            image = stage(image)
            found.append(image)
        return found

    def distance(self, sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
        """The mean over stages."""
        return torch.stack([F.l1_loss(ours, theirs) for ours, theirs in zip(sr, hr, strict=True)]).mean()


def _resnet(name: str) -> nn.Module:
    """A network of this kind, without weights.

    Torchvision's, whose parameters have the names of TorchGeo's: to import TorchGeo takes seconds, and nothing else of
    it is needed.
    """
    from torchvision.models import resnet18, resnet50

    with torch.device("meta"):
        network: nn.Module = resnet50() if name == "ssl4eo_resnet50" else resnet18()
        network.conv1 = nn.Conv2d(len(CHANNELS), 64, 7, stride=2, padding=3, bias=False)
        network.fc = nn.Identity()  # the classes of ImageNet
    return network
