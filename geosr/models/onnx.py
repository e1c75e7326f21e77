"""Models in ONNX files that geosr exported, run by ONNX Runtime."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from geosr.errors import ModelError, UsageError, extra
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
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._sessions: dict[torch.device, InferenceSession] = {}

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) of LR reflectance (batch, band, y, x), both float32."""
        if lr.device not in self._sessions:
            self._sessions[lr.device] = _session(self.path, lr.device)
        session = self._sessions[lr.device]
        try:
            (sr,) = session.run(None, {session.get_inputs()[0].name: lr.contiguous().cpu().numpy()})
        except Exception as error:
            if "alloc" in str(error):  # the only sign that it ran out of memory
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        return torch.from_numpy(sr).to(lr.device)


def load_onnx(path: Path, spec: ModelSpec) -> Model:
    """The model of an ONNX file."""
    model = Model(replace(spec, consistency_mtf=None), OnnxNetwork(path))  # the graph holds the consistency layer
    model.spec = spec
    return model.eval()


def read_onnx_spec(path: Path) -> ModelSpec:
    """What an ONNX file says about its model.

    Raises:
        GeosrError: ONNX Runtime is not installed.
        ModelError: The file is no ONNX file, or none that geosr exported.
    """
    metadata = _session(path, torch.device("cpu"), optimised=False).get_modelmeta().custom_metadata_map
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
        raise ModelError(f"{path} is not an ONNX file that can be read: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise ModelError(f"ONNX Runtime found no usable CUDA for {path}; see its requirements, or take --device cpu")
    return session
