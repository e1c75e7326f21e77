"""Weights files and their names. A file holds its model's specification, so that it explains itself."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from geosr.errors import ModelError, did_you_mean
from geosr.models.checkpoint import CHECKPOINT, read_checkpoint, read_checkpoint_spec
from geosr.models.hardware import start_threads
from geosr.models.hub import PREFIX, download, sha256_of
from geosr.models.model import Model
from geosr.models.onnx import load_onnx, read_onnx_spec
from geosr.models.spec import METADATA, ModelSpec

log = logging.getLogger(__name__)

SHIPPED = Path(str(files("geosr"))) / "weights"
"""Folder of the models that come with geosr."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and what its header says, read without its tensors."""

    path: Path
    spec: ModelSpec

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes, in hexadecimal."""
        return sha256_of(self.path)

    @property
    def trainable(self) -> bool:
        """Whether the weights are more than constants of a graph."""
        return self.path.suffix != ".onnx"


def shipped_models() -> list[WeightsFile]:
    """The models that come with geosr, by name."""
    return [read_header(path) for path in sorted(SHIPPED.glob("*.safetensors"))]


def find_weights(name: str | Path) -> WeightsFile:
    """The weights file that ``name`` means.

    Args:
        name: The name of a shipped model; a file that geosr wrote (.safetensors, .onnx, or the .ckpt of a run); the
            folder of a run, which means its .safetensors file or, while it has none, its last checkpoint; or a file
            on the Hugging Face hub, ``hf://owner/repo/file@revision#sha256=...``.

    Raises:
        ModelError: There is nothing of that name, or it is a file that geosr does not load.
    """
    if str(name).startswith(PREFIX):
        return read_header(download(str(name)))
    path = Path(name)
    shipped = {weights.spec.name: weights for weights in shipped_models()}
    if str(name) in shipped:
        return shipped[str(name)]
    if path.is_dir():
        return read_header(_in_folder(path))
    if path.suffix in _SPECS or path.is_file():
        return read_header(path)
    known = " ".join(shipped) or "none is shipped"
    raise ModelError(
        f"model {str(name)!r} is unknown ({known}, a .safetensors or .onnx file, the folder of a run, or "
        f"{PREFIX}owner/repo/file)" + did_you_mean(str(name), shipped)
    )


def load_model(name: str | Path) -> Model:
    """The model that ``name`` means, in evaluation mode on the CPU.

    Args:
        name: As `find_weights` takes it.

    Raises:
        ModelError: It does not exist, is no weights file of geosr, or does not fit its own specification.
    """
    start_threads()  # before the first tensor that is large enough for them
    weights = find_weights(name)
    if "." in weights.spec.architecture:
        log.info("%s is a network of the class %s, which is imported for it", weights.path, weights.spec.architecture)
    if weights.path.suffix == ".onnx":
        return load_onnx(weights.path, weights.spec)
    if weights.path.suffix == ".ckpt":
        return read_checkpoint(weights.path).model
    with safe_open(weights.path, framework="pt") as file:
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  (not a dict)
    model = Model(weights.spec)
    try:
        model.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{weights.path} does not fit the architecture it names: {error}") from error
    return model.eval()


def save_model(model: Model, path: str | Path, *, dtype: torch.dtype = torch.float32) -> WeightsFile:
    """Write the network's weights, with the specification in the header."""
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.network.state_dict().items()}
    data = save(tensors, metadata=model.spec.to_metadata())
    Path(path).write_bytes(data)  # save_file() would let only the owner read it
    return WeightsFile(Path(path), model.spec)


def save_facts(weights: WeightsFile, spec: ModelSpec, path: str | Path) -> WeightsFile:
    """Write the same weights, bit for bit, with another specification in the header; ``path`` may be theirs.

    Raises:
        ModelError: They are in no .safetensors file.
    """
    require_safetensors(weights)
    with safe_open(weights.path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    Path(path).write_bytes(save(tensors, metadata=spec.to_metadata()))
    return WeightsFile(Path(path), spec)


def require_safetensors(weights: WeightsFile) -> None:
    """Fail where the specification of the weights cannot be replaced.

    Raises:
        ModelError: They are in no .safetensors file.
    """
    if weights.path.suffix != ".safetensors":
        raise ModelError(
            f"{weights.path} keeps the facts that it was made with; give the .safetensors file that it was made from"
        )


def read_header(path: Path) -> WeightsFile:
    """What a weights file says about itself.

    Raises:
        ModelError: There is no such file, or geosr did not write it.
    """
    if not path.is_file():
        raise ModelError(f"weights file {path} does not exist")
    if path.suffix in (".pt2", ".ts"):
        raise ModelError(
            f"{path} is a program for other runtimes, and geosr runs no programs from files; give the .safetensors "
            "file that it was exported from, or export that with --onnx"
        )
    if path.suffix not in _SPECS:
        raise ModelError(
            f"{path} is no weights file of geosr ({' '.join(_SPECS)}), and to read another may run code that is hidden "
            f"in it. Weights that another program made: geosr models import {path} --out model.safetensors"
        )
    return WeightsFile(path, _SPECS[path.suffix](path))


def _read_safetensors_spec(path: Path) -> ModelSpec:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}") from error
    if METADATA not in metadata:
        raise ModelError(
            f"{path} has no geosr specification in its header; `geosr train` writes one, and where another program "
            f"made it, geosr models import {path} --out model.safetensors"
        )
    return ModelSpec.from_metadata(metadata, path)


_SPECS: Mapping[str, Callable[[Path], ModelSpec]] = {
    ".safetensors": _read_safetensors_spec,
    ".onnx": read_onnx_spec,
    ".ckpt": read_checkpoint_spec,
}
"""Of each kind of file that is loaded, what reads its specification."""


def _in_folder(folder: Path) -> Path:
    """The weights of a run: what it exported at its end, else its last checkpoint."""
    exported = sorted(folder.glob("*.safetensors"))
    if len(exported) > 1:
        raise ModelError(f"{folder} holds several models ({' '.join(path.name for path in exported)}); name one")
    if exported:
        return exported[0]
    if (folder / CHECKPOINT).is_file():
        log.info("%s has not ended: the weights are those of its %s", folder, CHECKPOINT)
        return folder / CHECKPOINT
    raise ModelError(
        f"{folder} holds no .safetensors file and no {CHECKPOINT}; a run's folder has them after its first validation"
    )
