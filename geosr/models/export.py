"""Models as graphs for other runtimes: ONNX, PyTorch's exported programs, TorchScript."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from geosr.errors import ModelError, OutputError, extra
from geosr.files import replacing
from geosr.models.model import Model
from geosr.models.onnx import OnnxNetwork

TOLERANCE = 1e-4
"""Reflectance: how much an exported file may differ from the model."""

SIZES = ((1, 64, 64), (2, 33, 17), (1, 5, 40), (1, 1, 1))
"""Batch, height and width of the images that a file is tried with; none is that of the recording."""

_RECORDED = (2, 40, 52)
_AXES = {0: "batch", 2: "height", 3: "width"}

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Export:
    """A file that was written and tried."""

    path: Path
    kind: str
    bytes: int
    difference: float
    """Largest difference from the model's output on images of all `SIZES`, reflectance."""


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    suffix: str
    write: Callable[[Model, Path], None]
    load: Callable[[Path], Run]


def export_model(model: Model, path: str | Path | None = None, *, kind: str, overwrite: bool = False) -> Export:
    """Write the whole model, from LR to SR reflectance in float32, as a graph that takes images of any size.

    The specification is in the file's metadata under the key ``geosr``, in JSON. The file is there only after its
    output was compared with the model's.

    Args:
        model: The model.
        path: The file; None names it after the model.
        kind: A key of `KINDS`.
        overwrite: Replace an existing file.

    Raises:
        ModelError: The model cannot be recorded as a graph, or the graph does not compute the same.
        OutputError: The file exists, or cannot be written.
        GeosrError: A library for this kind is not installed.
    """
    if isinstance(model.network, OnnxNetwork):
        raise ModelError(f"{model.network.path} is a graph already; export the .safetensors file that it came from")
    if model.spec.guide:
        raise ModelError(
            f"model {model.spec.name!r} is not exported: it works on whole pixels of the bands that are guided, and a "
            "graph takes images of any size; geosr predict runs it from its .safetensors file"
        )
    way = KINDS[kind]
    target = Path(path) if path is not None else Path(model.spec.name + way.suffix)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; give --overwrite to replace it")
    model = deepcopy(model).cpu().float().eval()
    try:
        with replacing(target, overwrite=overwrite) as written, _quiet():
            with torch.no_grad():
                _recorded(way, model, written)
            difference = largest_difference(way.load(written), model)
            if not difference <= TOLERANCE:
                raise ModelError(
                    f"{target} is not written: its output differs from the model's by {difference:.1e} reflectance, "
                    f"more than {TOLERANCE:g}; architecture {model.spec.architecture!r} may depend on the image's size"
                )
    except FileExistsError as error:
        raise OutputError(f"{target} exists; give --overwrite to replace it") from error
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    return Export(target, kind, target.stat().st_size, difference)


@torch.inference_mode()
def largest_difference(run: Run, model: Model) -> float:
    """Largest difference of two models' outputs, reflectance, on random images of all `SIZES`; NaN where one is NaN.

    Raises:
        ModelError: ``run`` fails on one of them.
    """
    generator = torch.Generator().manual_seed(0)
    worst = torch.zeros(())
    for batch, height, width in SIZES:
        lr = torch.rand(batch, len(model.spec.bands), height, width, generator=generator)
        try:
            sr = run(lr)
        except Exception as error:
            reason = str(error).strip().split("\n")[-1]  # TorchScript tells all its calls before
            raise ModelError(
                f"the exported graph of {model.spec.name!r} fails on {batch} x {height} x {width} pixels ({reason}); "
                f"architecture {model.spec.architecture!r} may depend on the image's size, which a graph has fixed"
            ) from error
        worst = torch.maximum(worst, (sr - model(lr)).abs().max())  # keeps NaN, as max() does not
    return float(worst)


def _recorded(way: Kind, model: Model, path: Path) -> None:
    try:
        way.write(model, path)
    except (OSError, ModelError, ModuleNotFoundError):
        raise
    except Exception as error:  # exporters fail in as many ways as there are networks
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"model {model.spec.name!r} cannot be recorded as a graph: {reason}") from error


def _example(model: Model) -> Tensor:
    batch, height, width = _RECORDED
    return torch.rand(batch, len(model.spec.bands), height, width)


def _program(model: Model) -> ExportedProgram:
    sizes = ({axis: Dim.DYNAMIC for axis in _AXES},)
    return torch.export.export(model, (_example(model),), dynamic_shapes=sizes, strict=False)


def _write_onnx(model: Model, path: Path) -> None:
    with extra("onnx", "exporting to ONNX"):
        import onnxruntime  # noqa: F401  (without it the file could not be tried)
        import onnxscript  # noqa: F401
    program = torch.onnx.export(
        _program(model), (_example(model),), input_names=["lr"], output_names=["sr"],
        dynamic_shapes={"lr": _AXES}, dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None  # dynamo=True returns one
    program.model.metadata_props.update(model.spec.to_metadata())
    program.save(path, external_data=False)


def _write_pt2(model: Model, path: Path) -> None:
    torch.export.save(_program(model), path, extra_files=model.spec.to_metadata())


def _load_pt2(path: Path) -> Run:
    return torch.export.load(path).module()


def _write_torchscript(model: Model, path: Path) -> None:
    # An exported program would have the recorded image's size in it.
    traced = torch.jit.trace(model, (_example(model),), check_trace=False)
    torch.jit.save(traced, path, _extra_files=model.spec.to_metadata())


KINDS: Mapping[str, Kind] = {
    "onnx": Kind(".onnx", _write_onnx, OnnxNetwork),
    "torchscript": Kind(".ts", _write_torchscript, torch.jit.load),
    "pt2": Kind(".pt2", _write_pt2, _load_pt2),
}
"""What can be written, by name."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings: that TorchScript is deprecated, and that sizes went into conditions.

    The first is in the help; whether the second does harm is what `largest_difference` finds out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning, torch.jit.TracerWarning))
        yield
