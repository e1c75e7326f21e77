"""The one place that knows every architecture by name."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, get_type_hints

from torch import nn

from geosr.errors import ModelError, did_you_mean
from geosr.models.compact import Compact
from geosr.models.custom import build_custom
from geosr.models.esrgan import ESRGAN
from geosr.models.guided import Guided
from geosr.models.interpolation import Interpolation
from geosr.models.plksr import PLKSR
from geosr.models.residual import BLOCKS, Residual
from geosr.models.spandrel import Spandrel
from geosr.models.spec import ModelSpec, is_number, is_whole
from geosr.models.stochastic import Stochastic
from geosr.models.swinir import SwinIR

if TYPE_CHECKING:
    from geosr.config.schema import GeneratorSection

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "compact": Compact,
    **{block: partial(Residual, block=block) for block in BLOCKS},
    "esrgan": ESRGAN,
    "guided": Guided,
    "plksr": PLKSR,
    "stochastic": Stochastic,
    "swinir": SwinIR,
    "interpolation": Interpolation,
    "spandrel": Spandrel,
}

_SIZE = {"channels": "n_channels", "blocks": "n_blocks"}
_SKIP = {"global_skip": "global_skip"}
_RESIDUAL = {
    **_SIZE,
    **_SKIP,
    "large_kernel_size": "large_kernel_size",
    "small_kernel_size": "small_kernel_size",
    "use_icnr": "use_icnr",
}
_SCALED = {"res_scale": "res_scale"}
_GROWTH = {"growth_channels": "growth_channels"}
_NOISE = {"noise_channels": "noise_dim", "noise_field": "noise_field"}

ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "compact": _SIZE,
    "srresnet": _RESIDUAL,
    "res": {**_RESIDUAL, **_SCALED},
    "rcab": {**_RESIDUAL, **_SCALED, "reduction": "reduction"},
    "rrdb": {**_RESIDUAL, **_SCALED, **_GROWTH},
    "lka": {**_RESIDUAL, **_SCALED},
    "esrgan": {**_SIZE, **_SKIP, **_SCALED, **_GROWTH},
    "guided": _SIZE,
    "plksr": {**_SIZE, **_SKIP, "kernel": "large_kernel_size"},
    "stochastic": {**_RESIDUAL, **_SCALED, **_NOISE},
    "swinir": {
        **_SIZE,
        **_SKIP,
        "depth": "depth",
        "heads": "n_heads",
        "window_size": "window_size",
        "upsampler": "upsampler",
        "use_icnr": "use_icnr",
    },
}
"""Of each architecture that can be trained, its arguments and the key of a config's Generator section each is."""


def generator_arguments(section: "GeneratorSection") -> dict[str, Any]:
    """The constructor arguments of what ``section`` names, without bands, scale and normalisation.

    Raises:
        ModelError: The architecture is unknown, or has nothing to train.
    """
    if section.class_path is not None:
        return {**section.init_args, "global_skip": section.global_skip}
    if section.model_type not in ARGUMENTS:
        raise _unknown(section.model_type, ARGUMENTS)
    values = vars(section)
    return {argument: values[key] for argument, key in ARGUMENTS[section.model_type].items()}


LARGEST = 8192
"""The largest whole number that an argument of an architecture may be, where no tensors say otherwise."""


def build_network(spec: ModelSpec, *, trust: str | Sequence[str] = (), largest: int = LARGEST) -> nn.Module:
    """The network that ``spec`` describes, with fresh weights.

    Args:
        spec: Facts about the model.
        trust: Modules and packages that may be imported, where the architecture is a class of the user's own.
        largest: The largest whole number among the arguments.

    Raises:
        ModelError: The architecture is unknown, does not take the arguments, or makes nothing of a guide; or it is a
            class whose module is not trusted.
    """
    if spec.guide and spec.architecture != "guided":
        raise ModelError(
            f"architecture {spec.architecture!r} makes nothing of bands that guide others "
            f"({' '.join(spec.guide)}); 'guided' does"
        )
    if "." in spec.architecture:
        size = {"bands": len(spec.bands), "scale": spec.scale}
        return build_custom(spec.architecture, **size, arguments=spec.arguments, trust=trust)
    if spec.architecture not in ARCHITECTURES:
        raise _unknown(spec.architecture, ARCHITECTURES)
    _require_arguments(spec, largest)
    guide = {"guide": len(spec.guide), "guide_scale": spec.guide_scale} if spec.guide else {}
    try:
        return ARCHITECTURES[spec.architecture](bands=len(spec.bands), scale=spec.scale, **guide, **spec.arguments)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"architecture {spec.architecture!r} does not take {shortened(spec.arguments)}: {reason}"
        ) from error


_NONE_OF_THEM = ("blocks", "depth")
"""Arguments that may be 0."""


def _require_arguments(spec: ModelSpec, largest: int) -> None:
    """Fail where an argument has another type than the architecture's constructor says, or a size that none has."""
    types = _types(spec.architecture)
    for name, value in spec.arguments.items():
        lowest = 0 if name in _NONE_OF_THEM else 1
        if types.get(name) is int and not is_whole(value, lowest, largest):
            allowed = f"a whole number from {lowest} to {largest}"
        elif types.get(name) is float and not is_number(value):
            allowed = "a finite number"
        elif types.get(name) in (bool, str) and type(value) is not types[name]:
            allowed = "true or false" if types[name] is bool else "a word"
        else:
            continue
        raise ModelError(f"architecture {spec.architecture!r} takes {name} as {allowed}, not {shortened(value)}")


@cache
def _types(architecture: str) -> Mapping[str, Any]:
    """Types of the arguments of an architecture's constructor."""
    kind = ARCHITECTURES[architecture]
    return get_type_hints((kind.func if isinstance(kind, partial) else kind).__init__)  # type: ignore[misc]


def _unknown(name: str, known: Mapping[str, Any]) -> ModelError:
    return ModelError(f"architecture {name!r} is unknown ({' '.join(known)})" + did_you_mean(name, known))
