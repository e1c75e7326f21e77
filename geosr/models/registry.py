"""The one place that knows every architecture by name."""

from collections.abc import Callable, Mapping

from torch import nn

from geosr.errors import ModelError, did_you_mean
from geosr.models.compact import Compact
from geosr.models.interpolation import Interpolation
from geosr.models.spec import ModelSpec

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "compact": Compact,
    "interpolation": Interpolation,
}


def build_network(spec: ModelSpec) -> nn.Module:
    """The network that ``spec`` describes, with fresh weights.

    Raises:
        ModelError: The architecture is unknown, or does not take the arguments.
    """
    if spec.architecture not in ARCHITECTURES:
        raise ModelError(
            f"architecture {spec.architecture!r} is unknown ({' '.join(ARCHITECTURES)})"
            + did_you_mean(spec.architecture, ARCHITECTURES)
        )
    try:
        return ARCHITECTURES[spec.architecture](bands=len(spec.bands), scale=spec.scale, **spec.arguments)
    except TypeError as error:
        raise ModelError(f"architecture {spec.architecture!r} does not take {spec.arguments}: {error}") from error
