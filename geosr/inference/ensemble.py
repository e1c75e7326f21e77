"""What is made of a model's outputs: one of them or the mean of several, and bands that say how sure it is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geosr.sensors import QUALITY_SUFFIXES

SPREAD, ERROR = QUALITY_SUFFIXES
"""What is appended to a band's name for the band that holds its spread, and for that of its expected absolute error."""


@dataclass(frozen=True)
class Answer:
    """What is asked of a model, for each pixel; `SuperResolver.answer` makes one that the model can give."""

    seeds: range = range(0)
    """Members of an ensemble of a model that takes noise; none: its noise-free image."""
    tta: bool = False
    """Whether it is the mean of the eight orientations."""
    error: bool = False
    """Whether the expected absolute error follows."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What is appended to the names of the bands, for each run of them."""
        return ("", *([SPREAD] if len(self.seeds) > 1 else []), *([ERROR] if self.error else []))

    def bands(self, bands: Sequence[str]) -> tuple[str, ...]:
        """Names of the bands that come out, those of the model first.

        >>> Answer(seeds=range(8)).bands(("B02", "B08")), Answer(error=True).bands(("B02",))
        (('B02', 'B08', 'B02_spread', 'B08_spread'), ('B02', 'B02_error'))
        """
        return tuple(f"{band}{suffix}" for suffix in self.suffixes for band in bands)

    def planes(self, places: Sequence[int]) -> tuple[int, ...]:
        """Planes of the answer, in the order of the input's bands: what a result holds.

        Args:
            places: Of each band that comes out of the model, its place in the input.

        >>> Answer(error=True).planes((7, 2, 4))
        (1, 2, 0, 4, 5, 3)
        """
        order = sorted(range(len(places)), key=places.__getitem__)
        return tuple(run * len(places) + place for run in range(len(self.suffixes)) for place in order)

    def tags(self) -> dict[str, str]:
        """What a result says of it: tags of a file, attributes of an array."""
        tags = {"GEOSR_SEED": str(self.seeds.start), "GEOSR_SAMPLES": str(len(self.seeds))} if self.seeds else {}
        tags |= {"GEOSR_TTA": "mean of 8 orientations"} if self.tta else {}
        return tags | ({"GEOSR_CONFIDENCE": "expected absolute error"} if self.error else {})


PLAIN = Answer()
"""The noise-free image, and nothing said of it."""


def mean_and_spread(members: Iterable[Tensor]) -> Tensor:
    """The mean (batch, band, y, x) of the members, reflectance, then as many bands with their standard deviation.

    A single member comes back as it is. The standard deviation is that of a sample (n - 1). It says how much the
    generator varies its answer where the input leaves it open. It is no error bar: a generator that is sure and wrong
    has no spread, what all members get wrong together does not show, and nothing ties its size to the errors of the
    training scenes. Two members or three say little more than that there is a spread: its own relative error is about
    ``1 / sqrt(2 (n - 1))``.

    Args:
        members: Images of one shape, of which two are in memory at a time, and the sums.

    References:
        B. Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4(3), 1962.
    """
    waiting = iter(members)
    mean, count = next(waiting).clone(), 1
    squares = torch.zeros_like(mean)
    for count, member in enumerate(waiting, 2):
        difference = member - mean
        mean += difference / count
        squares += difference.mul_(member - mean)
    return mean if count == 1 else torch.cat([mean, squares.div_(count - 1).sqrt_()], dim=1)
