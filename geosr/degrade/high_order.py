"""Two rounds of blur, resizing, noise and compression whose strengths are drawn for each image: Real-ESRGAN's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from geosr.config.degradation import PRESETS, HighOrderSection
from geosr.degrade import steps
from geosr.degrade.draws import Draws
from geosr.degrade.steps import Parameters
from geosr.errors import ConfigError


@dataclass(frozen=True)
class Round:
    """One round's settings, by the names and in the units of `HighOrderSection`."""

    blur_kernel_size: int
    kernel_list: Sequence[str]
    kernel_prob: Sequence[float]
    sinc_prob: float
    blur_sigma: Sequence[float]
    betag_range: Sequence[float]
    betap_range: Sequence[float]
    resize_prob: Sequence[float]
    resize_range: Sequence[float]
    gaussian_noise_prob: float
    noise_range: Sequence[float]
    poisson_scale_range: Sequence[float]
    gray_noise_prob: float
    compression: str
    jpeg_range: Sequence[float]
    jpeg2000_range: Sequence[float]

    def blur(self, image: Tensor, draws: Draws) -> tuple[Tensor, Parameters]:
        """The image, blurred."""
        return steps.blur(
            image,
            draws,
            sigma=self.blur_sigma,
            kernels=self.kernel_list,
            weights=self.kernel_prob,
            size=self.blur_kernel_size,
            generalized=self.betag_range,
            plateau=self.betap_range,
            sinc=self.sinc_prob,
        )

    def resize(
        self, image: Tensor, draws: Draws, *, target: tuple[int, int], relative_to: str
    ) -> tuple[Tensor, Parameters]:
        """The image in another size."""
        factors, weights = self.resize_range, self.resize_prob
        return steps.resize(image, draws, target=target, factors=factors, weights=weights, relative_to=relative_to)

    def noise(self, image: Tensor, draws: Draws, white: float) -> tuple[Tensor, Parameters]:
        """The image with normal noise or with noise that grows with the signal."""
        if float(draws.uniform(0, 1)) < self.gaussian_noise_prob:
            sigma = [level / 255 * white for level in self.noise_range]
            return steps.noise(image, draws, sigma=sigma, gray=self.gray_noise_prob)
        return steps.photon_noise(image, draws, factor=self.poisson_scale_range, white=white, gray=self.gray_noise_prob)

    def compress(self, image: Tensor, draws: Draws, white: float) -> tuple[Tensor, Parameters]:
        """The image, compressed and decompressed."""
        match self.compression:
            case "jpeg":
                return steps.jpeg(image, draws, quality=self.jpeg_range, white=white)
            case "jpeg2000":
                return steps.jpeg2000(image, draws, ratio=self.jpeg2000_range)
            case _:
                return image, {}


@dataclass(frozen=True)
class HighOrder:
    """The step that a `HighOrderSection` describes; images are degraded one by one, each with a size of its own."""

    first: Round
    second: Round
    second_blur_prob: float
    final_sinc_prob: float
    white: float
    quantise: bool

    @classmethod
    def of(cls, section: HighOrderSection) -> HighOrder:
        """The step of a section, its preset filled in.

        Raises:
            ConfigError: A list of kernels and that of their probabilities differ in length.
        """
        preset = PRESETS[section.preset]
        own = {name: getattr(section, name) for name in preset}
        value: dict[str, Any] = {name: preset[name] if mine is None else mine for name, mine in own.items()}
        rounds = [Round(**{entry.name: value[entry.name + which] for entry in fields(Round)}) for which in ("", "2")]
        for which, settings in zip(("", "2"), rounds, strict=True):
            kernels, weights = len(settings.kernel_list), len(settings.kernel_prob)
            if kernels != weights:
                raise ConfigError(
                    f"Degradation.high_order.kernel_prob{which} has {weights} numbers for the {kernels} kernels of "
                    f"kernel_list{which}; it needs one for each"
                )
        return cls(rounds[0], rounds[1], **{entry.name: value[entry.name] for entry in fields(cls)[2:]})

    def __call__(self, hr: Tensor, draws: Draws, *, target: tuple[int, int]) -> tuple[Tensor, Parameters]:
        """LR images of the size ``target``, and what was drawn; a step that an image skipped has NaN there."""
        done = [self._one(hr[i : i + 1], draws[i], target) for i in range(len(hr))]
        return torch.cat([lr for lr, _ in done]), stacked([told for _, told in done])

    def _one(self, image: Tensor, draws: Draws, target: tuple[int, int]) -> tuple[Tensor, Parameters]:
        told: Parameters = {}

        def note(name: str, done: tuple[Tensor, Parameters]) -> Tensor:
            told.update({f"{name}.{key}": value for key, value in done[1].items()})
            return done[0]

        image = note("blur", self.first.blur(image, draws))
        image = note("resize", self.first.resize(image, draws, target=target, relative_to="image"))
        image = note("noise", self.first.noise(image, draws, self.white))
        image = note("compression", self.first.compress(image, draws, self.white))
        if float(draws.uniform(0, 1)) < self.second_blur_prob:
            image = note("blur2", self.second.blur(image, draws))
        image = note("resize2", self.second.resize(image, draws, target=target, relative_to="lr"))
        image = note("noise2", self.second.noise(image, draws, self.white))
        compress_first = draws.uniform(0, 1) < 0.5
        told["compress_first"] = compress_first
        if compress_first:
            image = note("compression2", self.second.compress(image, draws, self.white))
        image = note("final", steps.downsample(image, draws, target=target, modes=steps.MODES))
        image = note("final_sinc", steps.sinc(image, draws, probability=self.final_sinc_prob))
        if not compress_first:
            image = note("compression2", self.second.compress(image, draws, self.white))
        return (steps.quantise(image, draws)[0] if self.quantise else image), told


def stacked(told: Sequence[Parameters]) -> Parameters:
    """What was drawn for each image, as one batch of float64; NaN where an image has no such number."""
    shapes = {name: value.shape for parameters in told for name, value in parameters.items()}
    nothing = {name: torch.full(shape, torch.nan, dtype=torch.float64) for name, shape in shapes.items()}
    return {name: torch.cat([(nothing | own)[name].double() for own in told]) for name in shapes}
