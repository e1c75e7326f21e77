"""The degradation that a configuration asks for: a sensor, two random rounds, or a list of named steps."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from geosr.config.degradation import DegradationSection
from geosr.degrade import steps
from geosr.degrade.draws import Draws
from geosr.degrade.high_order import HighOrder, stacked
from geosr.degrade.sensor import sensor
from geosr.degrade.steps import Parameters
from geosr.errors import ConfigError, did_you_mean

Step = Callable[..., tuple[Tensor, Parameters]]
"""``(image, draws, **settings)`` to another image and what was drawn for it."""

STEPS: Mapping[str, Step] = {
    "sensor": sensor,
    "blur": steps.blur,
    "sinc": steps.sinc,
    "resize": steps.resize,
    "downsample": steps.downsample,
    "noise": steps.noise,
    "photon_noise": steps.photon_noise,
    "jpeg": steps.jpeg,
    "jpeg2000": steps.jpeg2000,
    "quantise": steps.quantise,
}
"""Steps by the name that a configuration gives them; their keyword arguments are their settings."""

CONTEXT = ("scale", "bands", "target")
"""Arguments of a step that are no settings: they come from the degradation. ``target`` is the LR height and width."""


class Degradation:
    """LR images and what was drawn for them, from HR images: ``lr, parameters = degradation(hr, generator=generator)``.

    ``hr`` is reflectance (batch, band, y, x) on any device, and ``lr`` (batch, band, y / scale, x / scale) is of its
    type. ``parameters`` are tensors on the CPU whose first dimension is the batch. An image's result depends on its
    place in the batch and on no other image; the generator is one of the CPU, and its numbers are the same everywhere.
    """

    def __init__(self, step: Step, *, scale: int, bands: Sequence[str]) -> None:
        self.step = step
        self.scale = scale
        self.bands = tuple(bands)

    def __call__(self, hr: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Parameters]:
        """LR images and the parameters of their degradation.

        Raises:
            ValueError: The image has other bands than the degradation, or its size is no multiple of the scale.
        """
        batch, bands, height, width = hr.shape
        if bands != len(self.bands):
            raise ValueError(
                f"hr has {bands} bands; this degradation is for {len(self.bands)} ({' '.join(self.bands)})"
            )
        if height % self.scale or width % self.scale:
            raise ValueError(f"an HR image of {height} x {width} pixels does not divide by the scale {self.scale}")
        target = (height // self.scale, width // self.scale)
        work = hr if hr.dtype in (torch.float32, torch.float64) else hr.float()
        with torch.autocast(hr.device.type, enabled=False):
            lr, parameters = self.step(work, Draws.of(generator, batch), target=target)
        return lr.to(hr.dtype), parameters


def build_degradation(section: DegradationSection, *, scale: int, bands: Sequence[str]) -> Degradation:
    """The degradation of a configuration's section.

    Args:
        section: The section.
        scale: HR pixels per LR pixel.
        bands: Names of the images' bands.

    Raises:
        ConfigError: A step or one of its settings is unknown or fails, or the steps do not end on the LR grid.
    """
    context = {"scale": scale, "bands": tuple(bands)}
    match section.type:
        case "sensor":
            step = _bound(sensor, asdict(section.sensor), context)
        case "high_order":
            step = HighOrder.of(section.high_order)
        case "steps":
            step = InTurn(tuple((str(entry.get("step")), _named(entry, context)) for entry in section.steps))
            _try_out(Degradation(step, scale=scale, bands=bands))
        case kind:
            raise ConfigError(f"Degradation.type is {kind!r}; allowed is sensor, high_order, steps")
    return Degradation(step, scale=scale, bands=bands)


@dataclass(frozen=True)
class InTurn:
    """Named steps one after the other, image by image, because a step may give each image a size of its own."""

    steps: tuple[tuple[str, Step], ...]

    def __call__(self, hr: Tensor, draws: Draws, *, target: tuple[int, int]) -> tuple[Tensor, Parameters]:
        """LR images and what was drawn, as ``position.step.name``.

        Raises:
            ConfigError: The last step leaves images of another size than ``target``.
        """
        images, told = [], []
        for i in range(len(hr)):
            image, own = hr[i : i + 1], {}
            for position, (name, step) in enumerate(self.steps):
                image, parameters = step(image, draws[i], target=target)
                own.update({f"{position}.{name}.{key}": value for key, value in parameters.items()})
            if image.shape[-2:] != target:
                raise ConfigError(
                    f"Degradation.steps turn {hr.shape[-2]} x {hr.shape[-1]} pixels into {image.shape[-2]} x "
                    f"{image.shape[-1]}, not into {target[0]} x {target[1]}; end with {{step: downsample}}"
                )
            images.append(image)
            told.append(own)
        return torch.cat(images), stacked(told)


def _try_out(degradation: Degradation) -> None:
    """Raise a ConfigError now for what the first batch of a training would fail at."""
    image = torch.full((1, len(degradation.bands), 16 * degradation.scale, 16 * degradation.scale), 0.2)
    try:
        degradation(image, generator=torch.Generator().manual_seed(0))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Degradation.steps: {error}") from error


def _named(entry: Mapping[str, Any], context: Mapping[str, Any]) -> Step:
    """The step of one entry of ``Degradation.steps``."""
    settings = dict(entry)
    name = str(settings.pop("step", None))
    if name not in STEPS:
        raise ConfigError(
            f"Degradation.steps: step {name!r} is unknown ({' '.join(STEPS)})" + did_you_mean(name, STEPS)
        )
    known = [key for key in _arguments(STEPS[name]) if key not in CONTEXT]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"Degradation.steps: {key!r} is no setting of {name} ({' '.join(known) or 'it has none'})"
                + did_you_mean(key, known)
            )
    needed = [key for key in known if _arguments(STEPS[name])[key].default is inspect.Parameter.empty]
    missing = [key for key in needed if key not in settings]
    if missing:
        raise ConfigError(f"Degradation.steps: {name} needs {' and '.join(missing)}")
    return _bound(STEPS[name], settings, context)


def _bound(step: Step, settings: Mapping[str, Any], context: Mapping[str, Any]) -> Step:
    """The step with its settings; of the context it gets what it has arguments for."""
    wanted = _arguments(step)

    def bound(image: Tensor, draws: Draws, *, target: tuple[int, int]) -> tuple[Tensor, Parameters]:
        given = {**context, "target": target}
        return step(image, draws, **{key: value for key, value in given.items() if key in wanted}, **settings)

    return bound


def _arguments(step: Step) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a step."""
    found = inspect.signature(step).parameters
    return {name: argument for name, argument in found.items() if argument.kind is inspect.Parameter.KEYWORD_ONLY}
