"""The networks of a training checkpoint; nothing of it is unpickled but tensors and plain values."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geosr.errors import ModelError, printable
from geosr.models.fitting import fitted_network
from geosr.models.model import Model
from geosr.models.spec import ModelSpec

FACTS = "geosr"
"""Key of what a checkpoint holds besides Lightning's own."""
CHECKPOINT = "last.ckpt"
"""Name, in the folder of a run, of the run as it was after its last validation."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run had learned: its averaged weights, if it averaged any."""

    model: Model
    discriminator: Mapping[str, Tensor] | None = None


def read_checkpoint(path: Path, *, trust: str | Sequence[str] = ()) -> Checkpoint:
    """The networks of a training checkpoint, on the CPU wherever it was made.

    Args:
        path: The checkpoint.
        trust: Modules and packages that may be imported, where its network is a class of the user's own.

    Raises:
        ModelError: It is no checkpoint of geosr, damaged, or asks for code that is not trusted.
    """
    checkpoint, spec = _read(path)
    state = _state(checkpoint.get("state_dict"), path)
    averages = state.get("ema.average.n_averaged")
    averaged = averages is not None and averages.numel() == 1 and bool(averages > 0)
    weights = _part(state, "ema.average.module.network." if averaged else "model.network.")
    network = fitted_network(spec, weights, source=path, trust=trust)
    return Checkpoint(Model.from_file(spec, network), _part(state, "adversary.network.") or None)


def read_checkpoint_spec(path: Path) -> ModelSpec:
    """What a training checkpoint says of its generator.

    Raises:
        ModelError: It is no checkpoint of geosr.
    """
    return _read(path)[1]


def require_intact(path: Path) -> None:
    """Checksums of a checkpoint: fail where a byte of it is not what was written.

    PyTorch stores a CRC-32 of every part of a checkpoint, and does not compare it when the checkpoint is read.

    Raises:
        ModelError: It is no checkpoint, or empty, cut off or changed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            # As PyTorch writes them. Parts that are compressed or share their bytes might be endless.
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            if packed or sum(part.file_size for part in parts) > path.stat().st_size:
                raise ModelError(f"{path} is no checkpoint of geosr: its parts are packed")
            damaged = archive.testzip()
    except ModelError:
        raise
    except Exception as error:  # zipfile raises whatever the bytes provoke
        raise ModelError(
            f"{path} is no checkpoint of geosr, or is cut off ({str(error).strip() or type(error).__name__}); take an "
            "earlier one of the run or a copy, and of another program's the weights by geosr models import"
        ) from error
    if damaged is not None:
        raise ModelError(
            f"{path} is damaged: its part {damaged!r} differs from its checksum; take an earlier checkpoint of the "
            "run, or a copy"
        )


def _read(path: Path) -> tuple[Mapping[str, Any], ModelSpec]:
    require_intact(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        facts = checkpoint[FACTS]["spec"]
    except Exception as error:  # torch.load raises whatever the bytes provoke
        reason = printable(str(error).strip().split("\n")[0])
        raise ModelError(
            f"{path} is no checkpoint of geosr ({reason}); for one that another program made: "
            f"geosr models import {path} --out model.safetensors"
        ) from error
    try:
        return checkpoint, ModelSpec.from_dict(facts)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _state(state: object, path: Path) -> Mapping[str, Tensor]:
    """The state dictionary of a checkpoint.

    Raises:
        ModelError: It is none, or has tensors that are larger than what is stored of them.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise ModelError(f"{path} holds no weights: its state_dict is {_kind(state)}, and no tensors by name")
    require_tensors(state, path)
    return state


def require_tensors(state: Mapping[str, Any], path: Path) -> None:
    """Fail where one of the values by name is no plain tensor, or is larger than what the file stores of it.

    Raises:
        ModelError: It is.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ModelError(f"{path} holds no state dictionary: {printable(name)} is {_kind(value)}, no plain tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ModelError(f"{path} is damaged: {printable(name)} has more values than are stored of it")


def _kind(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
