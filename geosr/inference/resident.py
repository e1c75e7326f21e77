"""Models that stay in a process: tasks carry a key, and each process loads the weights behind it once."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geosr.errors import ModelError
from geosr.inference.superresolver import SuperResolver, load_model
from geosr.models import find_weights
from geosr.models.hub import PREFIX

MOST = 4
"""Models that stay, at most: those that were asked for last."""

_RESIDENT: OrderedDict["ModelKey", SuperResolver] = OrderedDict()
_LOADING = threading.Lock()  # tasks of one process ask for the model at the same time


@dataclass(frozen=True)
class ModelKey:
    """Which model, where it runs and how: what a task carries instead of the weights.

    `keep` and `locate` make one.
    """

    sha256: str
    """Of the weights, as `SuperResolver.weights_hash`."""
    name: str | None = field(compare=False)
    """What `load_model` takes; None, where the model is only in this process's memory."""
    blend: tuple[str, float] | None = field(compare=False)
    device: str
    precision: str
    trust: tuple[str, ...] = field(default=(), compare=False)
    """Modules that the caller allows to be imported for the model, in every process."""
    resolver: SuperResolver | None = field(default=None, compare=False, repr=False)
    """The model itself, where it is only in this process's memory."""

    def load(self) -> SuperResolver:
        """The model; the first call in a process reads it.

        Raises:
            ModelError: The weights are not those that the key was made of, or are not within reach of this process.
        """
        if self.resolver is not None:
            return self.resolver
        with _LOADING:
            return _stay(self, _RESIDENT.get(self) or self._read())

    def _read(self) -> SuperResolver:
        assert self.name is not None  # else there is the model
        resolver = load_model(
            self.name, blend=self.blend, device=self.device, precision=self.precision, trust=self.trust
        )
        if resolver.weights_hash != self.sha256:
            raise ModelError(
                f"model {self.name} has the hash {resolver.weights_hash[:12]} here and {self.sha256[:12]} where the "
                "work was planned; give every machine the same file"
            )
        return resolver

    def __reduce__(self) -> tuple[Any, ...]:
        if self.resolver is not None:
            raise ModelError(
                f"model {self.resolver.spec.name!r} is in this process only, and other processes need it too; save "
                "it with geosr.models.save_model and give the name of the file"
            )
        return ModelKey, (self.sha256, self.name, self.blend, self.device, self.precision, self.trust)


def keep(resolver: SuperResolver) -> ModelKey:
    """The key of a loaded model, for work in this process."""
    return ModelKey(resolver.weights_hash, None, None, str(resolver.device), resolver.precision, resolver=resolver)


def locate(
    name: str | os.PathLike[str],
    *,
    blend: tuple[str | Path, float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    trust: str | Sequence[str] = (),
) -> ModelKey:
    """The key of a model that `load_model` finds, which is loaded here once; arguments and errors are those.

    The precision is settled here. The device is where the work is done: ``auto`` is the best that each process has.
    """
    modules = (trust,) if isinstance(trust, str) else tuple(trust)
    resolver = load_model(
        Path(name) if isinstance(name, os.PathLike) else name,
        blend=blend,
        device=device,
        precision=precision,
        trust=modules,
    )
    other = None if blend is None else (_reachable(blend[0]), blend[1])
    key = ModelKey(resolver.weights_hash, _reachable(name), other, device, resolver.precision, modules)
    with _LOADING:
        _stay(key, _RESIDENT.get(key, resolver))
    return key


def _stay(key: ModelKey, resolver: SuperResolver) -> SuperResolver:
    """The model, which stays in this process; the one that was not asked for longest goes if there are too many."""
    _RESIDENT[key] = resolver
    _RESIDENT.move_to_end(key)
    while len(_RESIDENT) > MOST:
        _RESIDENT.popitem(last=False)
    return resolver


def _reachable(name: str | os.PathLike[str]) -> str:
    """A name that means the same in a process with another working folder."""
    weights = find_weights(os.fspath(name))
    if str(name).startswith(PREFIX) or str(name) == weights.spec.name:
        return str(name)
    return str(weights.path.resolve())
