"""The networks of a training checkpoint; nothing of it is unpickled but tensors and plain values."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geosr.errors import ModelError
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


def read_checkpoint(path: Path) -> Checkpoint:
    """The networks of a training checkpoint, on the CPU wherever it was made.

    Raises:
        ModelError: It is no checkpoint of geosr.
    """
    checkpoint, spec = _read(path)
    state: dict[str, Tensor] = checkpoint["state_dict"]
    averaged = int(state.get("ema.average.n_averaged", 0)) > 0
    model = Model(spec)
    model.load_state_dict(_part(state, "ema.average.module." if averaged else "model."))
    return Checkpoint(model.eval(), _part(state, "adversary.network.") or None)


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
                raise ModelError(f"{path} is no checkpoint that PyTorch wrote: its parts are packed")
            damaged = archive.testzip()
    except ModelError:
        raise
    except Exception as error:  # zipfile raises whatever the bytes provoke
        raise ModelError(
            f"{path} is no checkpoint, or is cut off ({str(error).strip() or type(error).__name__}); take an earlier "
            "checkpoint of the run, or a copy"
        ) from error
    if damaged is not None:
        raise ModelError(
            f"{path} is damaged: its part {damaged!r} differs from its checksum; take an earlier checkpoint of the "
            "run, or a copy"
        )


def _read(path: Path) -> tuple[dict[str, Any], ModelSpec]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return checkpoint, ModelSpec.from_dict(checkpoint[FACTS]["spec"])
    except Exception as error:  # torch.load raises whatever the bytes provoke
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{path} is no checkpoint of geosr ({reason}); for one that another program made: "
            f"geosr models import {path} --out model.safetensors"
        ) from error


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
