"""Networks of other packages in geosr's terms."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from geosr.errors import ModelError

State = Mapping[str, Tensor]
"""Tensors by name."""
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""How the names begin there, as a regular expression, and how they begin here."""


@dataclass(frozen=True)
class Recognised:
    """A network that was recognised from its tensors alone."""

    what: str
    """Whose network it is, for people."""
    architecture: str
    """Key of ``geosr.models.registry.ARCHITECTURES``."""
    scale: int
    bands: int
    arguments: dict[str, Any]
    """Those of the architecture that can be seen in the tensors, or are the same in all networks of the kind."""
    state: dict[str, Tensor] = field(repr=False)
    """The tensors by geosr's names."""


def renamed(state: State, rules: Sequence[Rule], *, what: str) -> dict[str, Tensor]:
    """The tensors by the names that ``rules`` give them.

    Raises:
        ModelError: A tensor is one that no rule knows.
    """
    strange = unknown(state, rules)
    if strange:
        few = " ".join(strange[:3]) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        raise ModelError(f"this looks like {what}, but such a network has no {few}; it is a variant that geosr has not")
    return {
        next(re.sub(there, here, name, count=1) for there, here in rules if re.match(there, name)): tensor
        for name, tensor in state.items()
    }


def unknown(state: Iterable[str], rules: Sequence[Rule]) -> list[str]:
    """The names that no rule knows."""
    return [name for name in state if not any(re.match(there, name) for there, _ in rules)]


def count(state: State, pattern: str) -> int:
    """One more than the largest number in names that begin with ``pattern``, whose first group is the number.

    Raises:
        ModelError: It is larger than so few tensors can be numbered.
    """
    number = max((int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1) + 1
    if number > 4 * len(state):
        raise ModelError(f"this network of {len(state)} tensors would have {number} layers; the file is damaged")
    return number


def shape(state: State, name: str, *, what: str) -> tuple[int, ...]:
    """Sides of a tensor that the network cannot be without.

    Raises:
        ModelError: It is missing.
    """
    if name not in state:
        raise ModelError(f"this looks like {what}, but lacks {name}: the file holds a part of it, or another network")
    return tuple(state[name].shape)


def same_bands(into: int, out_of: int, *, what: str) -> int:
    """The number of bands of a network that has as many in as out.

    Raises:
        ModelError: They differ.
    """
    if into != out_of:
        raise ModelError(f"this is {what} from {into} to {out_of} channels; geosr's models return the bands they take")
    return into
