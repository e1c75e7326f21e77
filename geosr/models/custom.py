"""Generators of users' own, named by their class."""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from geosr.errors import ModelError
from geosr.models.generator import BICUBIC_REACH, Generator


class Custom(Generator):
    """A network of one's own between the normalisations, on top of bicubic interpolation, as all generators are.

    Args:
        network: From (batch, band, y, x) to (batch, band, y * scale, x * scale). Its ``reach``, where it says how many
            LR pixels to each side it looks, is taken for the halo of tiles; otherwise the reach is measured. It takes
            images of any size; where it works on blocks of pixels, ``multiple_of`` is the side of one, and tiles begin
            at multiples of it.
        bands: Number of bands, in and out.
        scale: Upsampling factor.
        mean: Per-band reflectance subtracted from the network's input.
        std: Per-band reflectance that the network's input is divided by, and its output multiplied by.
        global_skip: Add the output to the bicubic-upsampled input.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        bands: int,
        scale: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        global_skip: bool = True,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=global_skip)
        self.network = network
        self.multiple_of: int = getattr(network, "multiple_of", 1)
        if hasattr(network, "reach"):
            reach: Any = network.reach
            self.reach = reach if reach is None else max(reach, BICUBIC_REACH)

    def resolve(self, features: Tensor) -> Tensor:
        """The network's output."""
        return self.network(features)


def require_trust(class_path: str, trust: str | Sequence[str]) -> None:
    """Refuse a class whose module the caller does not trust: to import a module runs its code.

    Args:
        class_path: ``package.module.Class``, as a specification names it.
        trust: Modules and packages that may be imported, with what is below them.

    Raises:
        ModelError: The module is not among them, or the name is that of no class.
    """
    names = (trust,) if isinstance(trust, str) else tuple(trust)
    if not _CLASS_PATH.fullmatch(class_path):
        raise ModelError(f"architecture {class_path!r} is no class; the name of one is package.module.Class")
    module = class_path.rpartition(".")[0]
    if not any(f"{module}.".startswith(f"{name}.") for name in names):
        given = f" (trusted are {' '.join(names)})" if names else ""
        raise ModelError(
            f"the architecture is the class {class_path!r}, and to import a class runs the code of its module, which "
            f"nothing in a file does by itself{given}; where you know that code and trust it, name its module or "
            f"package: trust={module}"
        )


_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def build_custom(
    class_path: str, *, bands: int, scale: int, arguments: dict[str, Any], trust: str | Sequence[str]
) -> nn.Module:
    """An instance of the class: a `Generator` itself, any other network inside one.

    Args:
        class_path: ``package.module.Class`` of a network that takes ``bands`` and ``scale``.
        bands: Number of bands, in and out.
        scale: Upsampling factor.
        arguments: Its other arguments, and those of `Custom`: ``mean``, ``std``, ``global_skip``.
        trust: Modules and packages that may be imported.

    Raises:
        ModelError: Its module is not trusted, there is no such class, it is no network, or it does not take the
            arguments.
    """
    require_trust(class_path, trust)
    shared = {name: arguments[name] for name in ("mean", "std", "global_skip") if name in arguments}
    own = {name: value for name, value in arguments.items() if name not in shared}
    kind = _find(class_path)
    try:
        if issubclass(kind, Generator):
            return kind(bands=bands, scale=scale, **own, **shared)
        return Custom(kind(bands=bands, scale=scale, **own), bands=bands, scale=scale, **shared)
    except TypeError as error:
        raise ModelError(
            f"Generator.class_path {class_path!r} does not take bands={bands}, scale={scale}"
            + "".join(f", {name}={value!r}" for name, value in own.items())
            + f": {error}"
        ) from error


def _find(class_path: str) -> type[nn.Module]:
    """The class of that name, whose module is trusted; nothing but a network is called."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ModelError(
            f"Generator.class_path {class_path!r} cannot be imported: {error}; install its package, or name its "
            "folder in PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ModelError(f"Generator.class_path {class_path!r}: module {module!r} has no {name!r}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"Generator.class_path {class_path!r} is no torch.nn.Module")
    return found
