"""Weights files: safetensors whose header holds the model's specification, so that a file explains itself."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from geosr.errors import ModelError, did_you_mean
from geosr.models.model import Model
from geosr.models.spec import ModelSpec

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
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def shipped_models() -> list[WeightsFile]:
    """The models that come with geosr, by name."""
    return [read_header(path) for path in sorted(SHIPPED.glob("*.safetensors"))]


def find_weights(name: str | Path) -> WeightsFile:
    """The weights file that ``name`` means: a path to one, or the name of a shipped model.

    Raises:
        ModelError: There is neither.
    """
    path = Path(name)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelError(f"weights file {path} does not exist")
        return read_header(path)
    shipped = {weights.spec.name: weights for weights in shipped_models()}
    if str(name) not in shipped:
        known = " ".join(shipped) or "none is shipped"
        raise ModelError(
            f"model {str(name)!r} is unknown ({known}, or a .safetensors file)" + did_you_mean(str(name), shipped)
        )
    return shipped[str(name)]


def load_model(name: str | Path) -> Model:
    """The model of a weights file or of a shipped name, in evaluation mode on the CPU.

    Raises:
        ModelError: It does not exist, is no geosr weights file, or does not fit its own specification.
    """
    weights = find_weights(name)
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
    data = save(tensors, metadata={"geosr": json.dumps(model.spec.to_dict(), sort_keys=True)})
    Path(path).write_bytes(data)  # save_file() would let only the owner read it
    return WeightsFile(Path(path), model.spec)


def read_header(path: Path) -> WeightsFile:
    """What the header of a weights file says.

    Raises:
        ModelError: The file is no safetensors file, or none that geosr wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}") from error
    if "geosr" not in metadata:
        raise ModelError(f"{path} has no geosr specification in its header; export it with `geosr train`")
    try:
        return WeightsFile(path, ModelSpec.from_dict(json.loads(metadata["geosr"])))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} has a damaged geosr specification in its header: {error}") from error
