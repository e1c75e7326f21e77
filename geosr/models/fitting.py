"""Networks that fit the tensors of a file: nothing is believed of their size that the tensors do not show."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from geosr.errors import ModelError, printable
from geosr.models.registry import LARGEST, build_network
from geosr.models.spec import ModelSpec

_SHOWN = 3
_UNSEEN = 1024
"""The largest whole number that an argument may be which no tensor shows, such as what a size must be a multiple of."""


def fitted_network(
    spec: ModelSpec, tensors: Mapping[str, Tensor], *, source: str | Path, trust: str | Sequence[str] = ()
) -> nn.Module:
    """The network that ``spec`` describes, with the weights of a file.

    Args:
        spec: What the file says of its model.
        tensors: Weights by name, as the network's state dictionary names them.
        source: The file, for messages.
        trust: Modules and packages that may be imported, where the architecture is a class of the user's own.

    Raises:
        ModelError: The tensors are those of another network, or not finite; or see `build_network`.
    """
    require_fitting(spec, tensors, source=source)
    return filled_network(spec, tensors, source=source, trust=trust)


def filled_network(
    spec: ModelSpec, tensors: Mapping[str, Tensor], *, source: str | Path, trust: str | Sequence[str] = ()
) -> nn.Module:
    """The network with the weights of a file which `require_fitting` has compared; arguments are `fitted_network`'s.

    Raises:
        ModelError: A weight is not finite; or see `build_network`.
    """
    require_finite(tensors, source=source)
    network = build_network(spec, trust=trust, largest=_largest(tensors))
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ModelError(f"{source} does not fit the architecture it names: {printable(str(error))}") from error
    return network


def require_fitting(spec: ModelSpec, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Compare names, shapes and types of tensors with those of the network that ``spec`` describes.

    No tensor is read and none is made, so that a small file cannot ask for much memory. A class of the user's own is
    not built for this: to trust its module is to trust its sizes.

    Args:
        spec: What the file says of its model.
        tensors: Tensors of the file, which may be on the meta device.
        source: The file, for messages.

    Raises:
        ModelError: They differ, or there is no such network.
    """
    if "." in spec.architecture or spec.architecture == "spandrel":  # spandrel makes its network of the tensors alone
        return
    try:
        wanted = outline(spec, tensors=len(tensors), largest=_largest(tensors)).state_dict()
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    odd = [
        f"{name} is {_shape(tensors[name])} and not {_shape(like)}"
        for name, like in wanted.items()
        if name in tensors and not _alike(tensors[name], like)
    ]
    odd += [f"{name} is missing" for name in wanted if name not in tensors]
    odd += [f"{name} is unexpected" for name in tensors if name not in wanted]
    if odd:
        more = f", and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise ModelError(
            f"{source} does not fit the architecture it names, {spec.architecture}: "
            + printable("; ".join(odd[:_SHOWN]))
            + more
        )


def outline(spec: ModelSpec, *, tensors: int, largest: int = LARGEST) -> nn.Module:
    """The network that ``spec`` describes on the meta device: names and shapes of its tensors, and no memory.

    Args:
        spec: Facts about the model.
        tensors: How many tensors it may have, about.
        largest: The largest whole number among its arguments.

    Raises:
        ModelError: It would have more, or there is no such network.
    """
    with torch.device("meta"), _NothingDrawn(), _at_most(2 * tensors + 100, spec):
        return build_network(spec, largest=largest)


class _NothingDrawn(TorchFunctionMode):
    """Leaves random initialisation out, which on the meta device fills nothing and takes most of the time."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The tensor itself of what would be drawn; else what the function returns."""
        if getattr(func, "__name__", "") in _DRAWING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


_DRAWING = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_")


@contextmanager
def _at_most(count: int, spec: ModelSpec) -> Iterator[None]:
    """Stop the construction of a network in this thread that goes on beyond so many parameters."""
    thread, made = get_ident(), 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal made
        made += get_ident() == thread
        if made > count:
            raise ModelError(
                f"model {spec.name!r} describes a network of more tensors than there are in its file: architecture "
                f"{spec.architecture!r}, {spec.arguments}"
            )

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def require_finite(tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Fail where a weight is not a number or infinite: a scene would have no valid pixel.

    Raises:
        ModelError: One is; the message names its tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        count = tensor.numel() - int(tensor.isfinite().sum())
        if count:
            raise ModelError(
                f"{source} has {count} weights that are not finite, in {printable(name)} at first; training diverged, "
                "or the file is damaged: take an earlier checkpoint, or another copy"
            )


def _largest(tensors: Mapping[str, Tensor]) -> int:
    """The largest whole number that an argument of the network of these tensors may be."""
    return max(_UNSEEN, len(tensors), *(side for tensor in tensors.values() for side in tensor.shape))


def _alike(tensor: Tensor, like: Tensor) -> bool:
    """Whether a tensor has a shape, and numbers of a kind that become those of the other; their width may differ."""
    return tensor.shape == like.shape and (tensor.is_floating_point() or not like.is_floating_point())


def _shape(tensor: Tensor) -> str:
    """Shape and type of a tensor, for a message."""
    sides = " x ".join(map(str, tensor.shape)) if tensor.ndim else "one number"
    return f"{sides} {tensor.dtype}".replace("torch.", "")
