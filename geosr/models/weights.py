"""Weights files and their names. A file holds its model's specification, so that it explains itself."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from reprlib import repr as shortened

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from geosr.errors import ModelError, OutputError, did_you_mean, printable
from geosr.files import sha256_of, write
from geosr.models.checkpoint import CHECKPOINT, read_checkpoint, read_checkpoint_spec
from geosr.models.custom import require_trust
from geosr.models.fitting import filled_network, require_fitting
from geosr.models.hardware import start_threads
from geosr.models.hub import PREFIX, download
from geosr.models.model import Model
from geosr.models.onnx import load_onnx, read_onnx_spec
from geosr.models.spec import METADATA, ModelSpec

log = logging.getLogger(__name__)

SHIPPED = Path(str(files("geosr"))) / "weights"
"""Folder of the models that come with geosr."""
LARGEST_HEADER = 32 * 2**20
"""Bytes of the header of a .safetensors file, at most."""
_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
}
"""Types of numbers that weights have, by their names in .safetensors files."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and what its header says, read without its tensors."""

    path: Path
    spec: ModelSpec
    address: str | None = field(default=None, compare=False)
    """Where the file was downloaded from."""

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
        return replace(read_header(download(str(name))), address=str(name))
    path = Path(name)
    shipped = {weights.spec.name: weights for weights in shipped_models()}
    if str(name) in shipped:
        return shipped[str(name)]
    try:
        if path.is_dir():
            return read_header(_in_folder(path))
        if path.suffix in _SPECS or path.is_file():
            return read_header(path)
    except (OSError, ValueError) as error:  # a name that is too long, or that no file can have
        raise ModelError(f"model {shortened(str(name))} cannot be read: {error}") from error
    known = " ".join(shipped) or "none is shipped"
    raise ModelError(
        f"model {str(name)!r} is unknown ({known}, a .safetensors or .onnx file, the folder of a run, or "
        f"{PREFIX}owner/repo/file)" + did_you_mean(str(name), shipped)
    )


def load_model(name: str | Path | WeightsFile, *, trust: str | Sequence[str] = ()) -> Model:
    """The model that ``name`` means, in evaluation mode on the CPU.

    Args:
        name: As `find_weights` takes it, or what that returned.
        trust: Modules and packages whose code may run, where the weights are those of a class of the user's own:
            ``("package.module",)``. A weights file names its class, and nothing in the file has it imported.

    Raises:
        ModelError: It does not exist, is no weights file of geosr, does not fit its own specification, has weights that
            are not finite, or asks for code that is not trusted.
    """
    start_threads()  # before the first tensor that is large enough for them
    weights = name if isinstance(name, WeightsFile) else find_weights(name)
    spec = weights.spec
    if spec.calibration is not None:
        from geosr.models.calibration import Calibration

        Calibration.of(spec)
    if weights.path.suffix == ".onnx":
        return load_onnx(weights.path, spec)
    _require_trust(weights, trust)
    if weights.path.suffix == ".ckpt":
        return read_checkpoint(weights.path, trust=trust).model
    with _opened(weights.path) as file:
        names = file.keys()
        require_fitting(spec, {key: _outline(file, key, weights.path) for key in names}, source=weights.path)
        tensors = {key: _as_float32(file.get_tensor(key)) for key in names}
    return Model.from_file(spec, filled_network(spec, tensors, source=weights.path, trust=trust))


def _require_trust(weights: WeightsFile, trust: str | Sequence[str]) -> None:
    """Refuse weights of a class that the caller does not trust, and of any class where they come from the hub."""
    if "." not in weights.spec.architecture:
        return
    if weights.address is not None:
        raise ModelError(
            f"{weights.address} has the architecture {weights.spec.architecture!r}, a class that is not geosr's, and "
            "weights from the hub never bring code along; download the file, and name its path and the module to trust"
        )
    try:
        require_trust(weights.spec.architecture, trust)
    except ModelError as error:
        raise ModelError(f"{weights.path}: {error}") from error
    log.info("%s is a network of the class %s, which is imported for it", weights.path, weights.spec.architecture)


def _outline(file: safe_open, name: str, path: Path) -> Tensor:
    """Shape and type of a tensor in a file, which is not read for it."""
    part = file.get_slice(name)
    if part.get_dtype() not in _TYPES:
        raise ModelError(
            f"{path} has the tensor {printable(name)} of type {part.get_dtype()}; weights are {' '.join(_TYPES)}"
        )
    return torch.empty(part.get_shape(), dtype=_TYPES[part.get_dtype()], device="meta")


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def save_model(model: Model, path: str | Path, *, dtype: torch.dtype = torch.float32) -> WeightsFile:
    """Write the network's weights, with the specification in the header.

    The file appears complete or not at all; what has its name already is kept until then.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.network.state_dict().items()}
    return _write(tensors, model.spec, Path(path))


def save_facts(weights: WeightsFile, spec: ModelSpec, path: str | Path) -> WeightsFile:
    """Write the same weights, bit for bit, with another specification in the header; ``path`` may be the same file.

    The file appears complete or not at all; what has its name already is kept until then.

    Raises:
        ModelError: They are in no .safetensors file.
        OutputError: The file cannot be written.
    """
    require_safetensors(weights)
    with _opened(weights.path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    return _write(tensors, spec, Path(path))


def _write(tensors: Mapping[str, Tensor], spec: ModelSpec, path: Path) -> WeightsFile:
    try:
        write(path, save(dict(tensors), metadata=spec.to_metadata()))
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}") from error
    return WeightsFile(path, spec)


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


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """A .safetensors file, open.

    Raises:
        ModelError: It is none, or damaged.
    """
    try:
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if LARGEST_HEADER < header <= path.stat().st_size:
            raise ModelError(f"{path} has a header of {header:,} bytes, more than the weights of any model need")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file: {printable(str(error))}") from error


def _read_safetensors_spec(path: Path) -> ModelSpec:
    with _opened(path) as file:
        metadata = file.metadata() or {}
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
