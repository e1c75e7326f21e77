"""LPIPS: a distance of features that was fitted to what people say about pairs of images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.losses.perceptual.frozen import PerceptualRGB
from geosr.losses.perceptual.vgg import VGG, VGG16, VGG16_DEPTHS
from geosr.losses.perceptual.weights import Published, packaged, take

LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
"""The convolutions of VGG16 that LPIPS and DISTS look at, after their ReLU: the last of each block."""
ALEXNET = Published("torchvision's AlexNet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", 233)
HEADS = "functional/image/lpips_models/{}.pth"
"""The published weights of the features' channels (version 0.1), in torchmetrics."""
EPS = 1e-8
"""Squared length below which a feature has no direction."""


class LPIPSLoss(PerceptualRGB):
    """Learned perceptual image patch similarity, version 0.1: 0 for equal images.

    Features after their ReLU are divided by their length; the squares of their differences are weighted channel by
    channel, averaged over the image and summed over layers. torchmetrics has the channels' weights, but no way to give
    its LPIPS a file of the network's: hence the sum is here, and only they are taken from there.

    Args:
        bands: Names of the images' bands; red, green and blue (``RGB``) are looked up.
        network: ``alex`` (AlexNet) or ``vgg`` (VGG16).
        weights: ``imagenet``, a .pth file of torchvision's network, or ``random``; see ``take``.
        white: Reflectance that the network sees as white.

    Raises:
        ConfigError: A band is missing or the weights cannot be had.

    References:
        R. Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018,
        equation 1.
    """

    def __init__(self, bands: Sequence[str], *, network: str, weights: str = "imagenet", white: float = 0.4) -> None:
        backbone = VGG(VGG16_DEPTHS, wanted=LAYERS) if network == "vgg" else AlexNet()
        # LPIPS shifts and scales images from -1 to 1 by what ImageNet's mean and deviation are in that range.
        super().__init__(bands, backbone, white=white, smallest=backbone.smallest)
        take(backbone, weights, VGG16 if network == "vgg" else ALEXNET)
        self.heads = []
        for number, head in enumerate(packaged(HEADS.format(network)).values()):
            self.heads.append(f"head{number}")
            self.register_buffer(self.heads[-1], head.float(), persistent=False)

    def features(self, seen: Tensor) -> list[Tensor]:
        """Features after their ReLU."""
        return [F.relu(one) for one in self.network(seen)]

    def distance(self, sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
        """The sum over layers, a mean over images."""
        distances = []
        for name, ours, theirs in zip(self.heads, sr, hr, strict=True):
            square = (_direction(ours) - _direction(theirs)).square()
            distances.append((self.get_buffer(name) * square).sum(dim=1).mean())
        return torch.stack(distances).sum()


class AlexNet(nn.Module):
    """The convolutions of AlexNet, named as in torchvision's files, without weights.

    References:
        A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997, 2014.
    """

    smallest = 31
    """Pixels along a side of the smallest image that the last of them has an output for."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 64, 11, stride=4, padding=2, device="meta"),
                "3": nn.Conv2d(64, 192, 5, padding=2, device="meta"),
                "6": nn.Conv2d(192, 384, 3, padding=1, device="meta"),
                "8": nn.Conv2d(384, 256, 3, padding=1, device="meta"),
                "10": nn.Conv2d(256, 256, 3, padding=1, device="meta"),
            }
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Output of all convolutions, before their ReLU."""
        found: list[Tensor] = []
        for name, convolution in self.features.items():
            if found:
                image = F.relu(found[-1])
            if name in ("3", "6"):
                image = F.max_pool2d(image, 3, stride=2)
            found.append(convolution(image))
        return found


def _direction(features: Tensor) -> Tensor:
    """Features (batch, channel, y, x) of length 1 at each pixel."""
    return features / (features.square().sum(dim=1, keepdim=True) + EPS).sqrt()
