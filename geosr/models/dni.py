"""Models between two models: the weights of one network, mixed with those of another that was trained from it."""

from copy import deepcopy
from dataclasses import replace

import torch

from geosr.errors import ModelError
from geosr.models.model import Model
from geosr.models.spec import ModelSpec

_SHARED = ("architecture", "arguments", "scale", "bands", "consistency_mtf")
"""Facts that two models must have in common for a mixture of their weights to be a network."""


def blend_models(first: Model, second: Model, weight: float) -> Model:
    """The model whose weights are ``(1 - weight)`` of the first's and ``weight`` of the second's.

    Between a network and one that was fine-tuned from it, the mixture does what lies between, such as less or more
    denoising. Networks that were trained apart have nothing in common, and their mixture makes noise.

    Args:
        first: What a weight of 0 gives.
        second: What a weight of 1 gives.
        weight: From 0 to 1.

    Raises:
        ModelError: The weight lies outside, or the two are not the same network.

    References:
        X. Wang et al., "Deep network interpolation for continuous imagery effect transition", CVPR 2019, eq. 2.
    """
    if not 0 <= weight <= 1:
        raise ModelError(f"blend weight {weight:g} is not between 0 (the model alone) and 1 (the other alone)")
    _assert_alike(first.spec, second.spec)
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    mixed = {
        name: torch.lerp(value, theirs[name], weight) if value.is_floating_point() else value
        for name, value in ours.items()
    }
    blended = Model(_blended(first.spec, second.spec, weight), deepcopy(first.network))
    blended.network.load_state_dict(mixed)
    return blended.eval()


def _blended(first: ModelSpec, second: ModelSpec, weight: float) -> ModelSpec:
    parts = [
        {"name": spec.name, "weight": share, "provenance": spec.provenance}
        for spec, share in ((first, 1 - weight), (second, weight))
    ]
    return replace(
        first,
        name=f"{1 - weight:g} {first.name} + {weight:g} {second.name}",
        licence=" and ".join(dict.fromkeys((first.licence, second.licence))),
        provenance={"blend": parts},
        quality={},
        calibration=None,
    )


def _assert_alike(first: ModelSpec, second: ModelSpec) -> None:
    """Fail where two models are different networks, and say in what."""
    for fact in _SHARED:
        one, other = getattr(first, fact), getattr(second, fact)
        if one == other:
            continue
        if fact == "arguments":
            keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            one, other = (", ".join(f"{key} {values.get(key)}" for key in keys) for values in (one, other))
        raise ModelError(
            f"{first.name!r} and {second.name!r} cannot be blended: their {fact.replace('_', ' ')} differ, "
            f"{one} and {other}"
        )
