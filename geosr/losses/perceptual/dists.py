"""DISTS: a distance of features that takes one texture for another of its kind."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.losses.perceptual.frozen import MEAN, STD, PerceptualRGB, single
from geosr.losses.perceptual.lpips import LAYERS
from geosr.losses.perceptual.vgg import VGG, VGG16, VGG16_DEPTHS, WIDTHS
from geosr.losses.perceptual.weights import packaged, take

PARAMETERS = "functional/image/dists_models/weights.pt"
"""The published weights of texture (alpha) and structure (beta), in torchmetrics."""
C1 = C2 = 1e-6
"""What keeps the similarity of two flat features defined; of the authors' program."""


class DISTSLoss(PerceptualRGB):
    """Deep image structure and texture similarity, as a distance: 0 for equal images.

    Texture is the mean of each feature over the image, structure its covariance with the other image's; the image
    itself counts as a feature. VGG16 halves by the root of a weighted mean square instead of the maximum. torchmetrics
    has the features' weights, but no way to give its DISTS a file of the network's: hence the sum is here, and only
    they are taken from there.

    Args:
        bands: Names of the images' bands; red, green and blue (``RGB``) are looked up.
        weights: ``imagenet``, a .pth file of torchvision's VGG16, or ``random``; see ``take``.
        white: Reflectance that the network sees as white.

    Raises:
        ConfigError: A band is missing or the weights cannot be had.

    References:
        K. Ding et al., "Image quality assessment: unifying structure and texture similarity", IEEE TPAMI 44, 2022,
        equations 2 to 6.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, bands: Sequence[str], *, weights: str = "imagenet", white: float = 0.4) -> None:
        network = VGG(VGG16_DEPTHS, wanted=LAYERS)
        super().__init__(bands, network, white=white, smallest=network.smallest)
        take(network, weights, VGG16)
        parameters = packaged(PARAMETERS)
        total = parameters["alpha"].sum() + parameters["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, (parameters[name] / total).flatten(), persistent=False)

    def features(self, seen: Tensor) -> list[Tensor]:
        """The image from 0 to 1, and features after their ReLU."""
        image = seen * seen.new_tensor(STD).view(1, 3, 1, 1) + seen.new_tensor(MEAN).view(1, 3, 1, 1)
        return [image, *(F.relu(one) for one in self.network(seen, halved))]

    def distance(self, sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
        """One less the similarity, a mean over images."""
        similarity = torch.zeros_like(sr[0][:, 0, 0, 0])
        widths = [3, *WIDTHS]
        for alpha, beta, ours, theirs in zip(self.alpha.split(widths), self.beta.split(widths), sr, hr, strict=True):
            mean, other_mean = ours.mean((2, 3)), theirs.mean((2, 3))
            ours, theirs = ours - mean[..., None, None], theirs - other_mean[..., None, None]
            variances = ours.square().mean((2, 3)) + theirs.square().mean((2, 3))
            texture = (2 * mean * other_mean + C1) / (mean.square() + other_mean.square() + C1)
            structure = (2 * (ours * theirs).mean((2, 3)) + C2) / (variances + C2)
            similarity = similarity + (alpha * texture + beta * structure).sum(dim=1)
        return 1 - similarity.mean()


def halved(features: Tensor) -> Tensor:
    """The root of the mean square around every second pixel, weighted by a Hann window of 3 x 3, in float32."""
    square = single(features).square()  # which would leave the range of float16
    mean = F.avg_pool2d(F.avg_pool2d(F.pad(square, (1, 1, 1, 1)), 2, stride=1), 2)  # 1 1 over 1 1 is 1 2 1
    return (mean + 1e-12).sqrt()  # whose derivative at 0 is infinite without it
