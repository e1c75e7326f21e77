"""Models in ONNX files that geosr exported, run by ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from geosr.errors import ModelError, UsageError, extra, printable
from geosr.models.model import Model
from geosr.models.spec import METADATA, ModelSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_FATAL = 4
"""Level of ONNX Runtime's log; less grave is raised as an exception as well."""


class OnnxNetwork(nn.Module):
    """SR reflectance from LR reflectance by the whole model of an ONNX file, its consistency layer included.

    It computes in float32, on the device that its input lies on, with as many threads as PyTorch.

    Args:
        path: The ONNX file.
        spec: What it says of its model, which its output is compared with; None compares nothing.
    """

    def __init__(self, path: Path, spec: ModelSpec | None = None) -> None:
        super().__init__()
        self.path, self.spec = path, spec
        self._sessions: dict[torch.device, InferenceSession] = {}

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x), both float32."""
        if lr.device not in self._sessions:
            self._sessions[lr.device] = _session(self.path, lr.device)
        session = self._sessions[lr.device]
        try:
            found = session.run(None, {session.get_inputs()[0].name: lr.contiguous().cpu().numpy()})
        except Exception as error:
            if "alloc" in str(error):  # the only sign that it ran out of memory
                raise torch.OutOfMemoryError(str(error)) from error
            raise ModelError(f"{self.path} fails on an image of shape {tuple(lr.shape)}: {_reason(error)}") from error
        sr = torch.from_numpy(np.asarray(found[0]))
        self._require_shape(sr, lr)
        return sr.to(lr.device)

    def _require_shape(self, sr: Tensor, lr: Tensor) -> None:
        """Fail where the graph's output is not what its specification says."""
        if self.spec is None:
            return
        sides = (side * self.spec.scale for side in lr.shape[-2:])
        wanted = (len(lr), len(self.spec.outputs), *sides)
        if sr.shape != wanted or sr.dtype != torch.float32:
            raise ModelError(
                f"{self.path} makes {tuple(sr.shape)} of type {sr.dtype} of an image of shape {tuple(lr.shape)}; its "
                f"specification says {wanted} of type torch.float32"
            )


def load_onnx(path: Path, spec: ModelSpec) -> Model:
    """The model of an ONNX file.

    Raises:
        ModelError: Its graph is not one from LR to SR reflectance, as its specification says.
    """
    if spec.halo is None:
        raise ModelError(f"{path} has a damaged geosr specification: its halo is null, and a graph cannot be measured")
    session = _session(path, torch.device("cpu"), optimised=False)
    inputs, outputs = (
        [(tuple(end.shape), end.type) for end in ends] for ends in (session.get_inputs(), session.get_outputs())
    )
    if not (_is_image(inputs, len(spec.bands)) and _is_image(outputs, len(spec.outputs))):
        raise ModelError(
            f"{path} holds a graph from {_ends(inputs)} to {_ends(outputs)}; its specification says one from float32 "
            f"(batch, {len(spec.bands)} bands, y, x) of any size to {len(spec.outputs)} bands"
        )
    model = Model(replace(spec, consistency_mtf=None), OnnxNetwork(path, spec))  # the graph holds the consistency layer
    model.spec = spec
    return model.eval()


def _is_image(ends: Sequence[tuple[tuple[Any, ...], str]], bands: int) -> bool:
    """Whether a graph takes or makes one float32 image of these bands, and of any size: its sides have no numbers."""
    if len(ends) != 1:
        return False
    shape, kind = ends[0]
    if kind != "tensor(float)" or len(shape) != 4 or shape[1] not in (bands, None):
        return False
    return not any(isinstance(shape[axis], int) for axis in (0, 2, 3))


def _ends(ends: Sequence[tuple[tuple[Any, ...], str]]) -> str:
    return printable(" and ".join(f"{kind} {shape}" for shape, kind in ends) or "nothing")


def _reason(error: Exception) -> str:
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))


def read_onnx_spec(path: Path) -> ModelSpec:
    """What an ONNX file says about its model.

    Raises:
        GeosrError: ONNX Runtime is not installed.
        ModelError: The file is no ONNX file, or none that geosr exported.
    """
    session = _session(path, torch.device("cpu"), optimised=False)
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except (UnicodeError, RuntimeError) as error:
        raise ModelError(f"{path} has damaged metadata: {_reason(error)}") from error
    if METADATA not in metadata:
        raise ModelError(
            f"{path} was not exported by geosr: nothing in it tells its bands, scale and units. Import the weights "
            "that it was made from (geosr models import) and export them, or run it with ONNX Runtime itself"
        )
    return ModelSpec.from_metadata(metadata, path)


def settle(device: str, precision: str) -> tuple[str, str]:
    """The device and the precision with which an ONNX file runs here; ``auto`` is CUDA where ONNX Runtime has it.

    Raises:
        UsageError: ONNX Runtime does not offer them.
    """
    import onnxruntime

    if precision not in ("auto", "fp32"):
        raise UsageError(
            f"an ONNX file computes in fp32, not in {precision}; leave the precision out, or run the .safetensors file "
            "that it was exported from"
        )
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if has_cuda and torch.cuda.is_available() else "cpu"
    kind = device.partition(":")[0]
    if kind == "cuda" and not has_cuda:
        raise UsageError(
            f"device {device!r} cannot be used: the ONNX Runtime that is installed has no CUDA; "
            "install onnxruntime-gpu in the place of onnxruntime, or take cpu"
        )
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r} cannot be used: an ONNX file runs on cpu or cuda")
    return device, "fp32"


def _session(path: Path, device: torch.device, *, optimised: bool = True) -> "InferenceSession":
    with extra("onnx", str(path)):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = torch.get_num_threads()
    # Tiles are read and compressed meanwhile: a thread that waits leaves its core to them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # each kind of damage has an exception of its own
        raise ModelError(f"{path} is not an ONNX file that can be read: {_reason(error)}") from error
    if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise ModelError(f"ONNX Runtime found no usable CUDA for {path}; see its requirements, or take --device cpu")
    return session
