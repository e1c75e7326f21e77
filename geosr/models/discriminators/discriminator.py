"""What all discriminators share: scores and features of images, and how small an image may be."""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from geosr.errors import ModelError


class Look(NamedTuple):
    """What a discriminator makes of images."""

    scores: tuple[Tensor, ...]
    """Logits (batch, 1, ...), higher for what looks real; a tensor for each scale that it looks at."""
    features: tuple[Tensor, ...] = ()
    """Activations (batch, channel, y, x) of its convolutions, from the image on, where they are asked for."""


class Discriminator(nn.Module):
    """Scores of normalised images (batch, band, y, x).

    Args:
        bands: Bands of the image, those of what it is shown beside it included.
        least: Pixels along a side of the smallest image.
    """

    name: str
    """What configurations call it."""

    def __init__(self, *, bands: int, least: int) -> None:
        super().__init__()
        self.bands, self.least = bands, least

    @abstractmethod
    def look(self, image: Tensor) -> Look:
        """Scores and features of normalised images (batch, band, y, x)."""

    def forward(self, image: Tensor, *, with_features: bool = False) -> Look:
        """Scores of normalised images (batch, band, y, x).

        Args:
            image: Normalised images.
            with_features: Give the features as well; a compiled network computes them to no purpose otherwise.

        Raises:
            ModelError: The strides leave nothing of images this small.
        """
        height, width = image.shape[-2:]
        if min(height, width) < self.least:
            raise ModelError(
                f"discriminator {self.name!r} was given {height} x {width} pixels and needs {self.least} x "
                f"{self.least}; enlarge Data.patch_size, or lower Discriminator.n_blocks or n_scales where it has them"
            )
        look = self.look(image)
        return look if with_features else Look(look.scores)
