"""The tensors of a file that another program wrote, read without running what a pickle may hold."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geosr.errors import ModelError, printable
from geosr.files import sha256_of
from geosr.models.checkpoint import require_intact, require_tensors

_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net")
"""Keys that programs keep the weights under, those of averaged weights first."""
_PREFIXES = ("module.", "_orig_mod.", "netG.")
"""What wrappers (DataParallel, torch.compile, some trainers) put before all names."""
_CALL = re.compile(r"\$\{[^{}]*:")
"""How an interpolation of OmegaConf begins that calls a resolver, such as ``oc.env``."""
_ALIASES = 20
_GENERATOR = "generator."
"""What opensr-srgan's Lightning module puts before the names of the network that predicts."""


@dataclass(frozen=True)
class ForeignFile:
    """What a file holds."""

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    """Tensors by the names that the other program gives them, float32 where they are numbers with fractions."""
    averaged: bool
    """Whether these are the averaged (EMA) weights."""
    config: Mapping[str, Any] | None
    """Hyperparameters that the file keeps."""
    notes: tuple[str, ...] = ()
    """What a user should know of the choice of tensors."""


def read_foreign(path: str | Path) -> ForeignFile:
    """The weights in a ``.ckpt``, ``.pth``, ``.pt`` or ``.safetensors`` file; averaged ones where it has them.

    Raises:
        ModelError: The file does not exist, holds more than tensors and plain values, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"weights file {path} does not exist")
    content = _safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}; weights are tensors by name")
    hyper = content.get("hyper_parameters")
    config = _plain(hyper) if isinstance(hyper, Mapping) and hyper else None
    tensors, averaged, notes = _weights(content)
    if not tensors:
        raise ModelError(f"{path} holds no weights; its keys are {printable(' '.join(map(str, list(content)[:8])))}")
    require_tensors(tensors, path)
    state = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return ForeignFile(path, sha256_of(path), state, averaged, config, notes)


def read_config(path: str | Path) -> dict[str, Any]:
    """What a YAML file says; a setting may refer to another, and to nothing else.

    Raises:
        ModelError: It cannot be read, has no sections, or refers to the environment or the like.
    """
    try:
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import AliasEvent, YAMLError, parse
    except ModuleNotFoundError as error:
        raise ModelError(f"a configuration needs {error.name}: pip install 'geosr[train]'") from error
    try:
        text = Path(path).read_text("utf-8")
        if sum(isinstance(event, AliasEvent) for event in parse(text)) > _ALIASES:
            raise ModelError(f"configuration {path} repeats itself more than {_ALIASES} times by aliases (*)")
        if call := _CALL.search(text):
            raise ModelError(f"configuration {path} asks for {call[0]}...}}, which is not looked up; write its value")
        loaded = OmegaConf.create(text)
        content = OmegaConf.to_container(loaded, resolve=True)
    except (YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
        raise ModelError(f"configuration {path} cannot be read: {printable(str(error))}") from error
    if not isinstance(loaded, DictConfig):
        raise ModelError(f"{path} is a list; a configuration has sections")
    return dict(content)


def _weights(content: Mapping[str, Any]) -> tuple[dict[str, Any], bool, tuple[str, ...]]:
    """The network's tensors without prefixes, whether they are averages, and what there is to say about them."""
    wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = {str(name): value for name, value in (content if wrapper is None else content[wrapper]).items()}
    generator = {name.removeprefix(_GENERATOR): value for name, value in state.items() if name.startswith(_GENERATOR)}
    state = _without_prefixes(generator or state)
    average = content.get("ema_state")
    if not isinstance(average, Mapping):
        return state, wrapper == "params_ema", ()
    if average.get("num_updates") == 0:
        return state, False, ("the averaged (EMA) weights were never updated: the weights themselves are taken",)
    shadow = dict[str, Any]()
    for part in ("shadow_buffers", "shadow_params"):
        if isinstance(kept := average.get(part, {}), Mapping):
            shadow |= {str(name): value for name, value in kept.items()}
    return state | _without_prefixes(shadow), True, ()


def _without_prefixes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors without what wrappers put before all their names."""
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefixes({name.removeprefix(prefix): value for name, value in state.items()})
    return dict(state)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "geosr" in (file.metadata() or {}):
                raise ModelError(f"{path} is a weights file of geosr already: geosr predict --model {path}")
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file: {printable(str(error))}") from error


def _unpickled(path: Path) -> Any:
    """What a pickle holds, as far as it is tensors, plain values and configurations of OmegaConf."""
    try:
        if zipfile.is_zipfile(path):  # what PyTorch wrote before it wrote zips has no checksums
            require_intact(path)
        with _configurations(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles that are refused next
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), error)
        raise ModelError(
            f"{path} holds more than weights, and reading that could run a stranger's code: refused ({reason}).\n"
            "Where you trust its author, keep the weights alone, and import the file that this writes:\n"
            "  import torch\n"
            f"  content = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
            "  kept = {key: content[key] for key in ('state_dict', 'ema_state', 'params_ema', 'params') "
            "if key in content}\n"
            f"  torch.save(kept or content, {str(path.with_suffix('.pt').name)!r})"
        ) from error
    except Exception as error:  # torch.load raises whatever the bytes provoke
        reason = printable(next(iter(str(error).splitlines()), type(error).__name__))
        raise ModelError(f"{path} is no file of PyTorch, or a damaged one: {reason}") from error


def _configurations() -> AbstractContextManager[Any]:
    """Lets OmegaConf's containers be read, which Lightning keeps as hyperparameters: they hold values and no code."""
    try:
        from omegaconf import DictConfig, ListConfig
        from omegaconf.base import ContainerMetadata, Metadata
        from omegaconf.nodes import AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode
    except ModuleNotFoundError:
        return nullcontext()
    from collections import defaultdict

    nodes = [DictConfig, ListConfig, ContainerMetadata, Metadata]
    nodes += [AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode]
    return torch.serialization.safe_globals([*nodes, Any, defaultdict, dict, list, int, float, str, bool])


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as plain values; interpolations are not resolved, since they may ask for the environment."""
    try:
        from omegaconf import OmegaConf
    except ModuleNotFoundError:
        return dict(values)
    given = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in values.items()
    }
    inner = given.get("config")
    return dict(inner) if isinstance(inner, Mapping) else given
