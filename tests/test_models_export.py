import json
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.errors import GeosrError, ModelError, OutputError
from geosr.models import Model, ModelSpec, load_model
from geosr.models.export import KINDS, SIZES, export_model, largest_difference
from geosr.models.registry import ARGUMENTS

ODD = [(1, 1, 1), (1, 7, 5), (3, 2, 33), (2, 70, 41)]
"""Batch, height and width; other sizes than those that the exporter tries itself."""


def build(architecture="compact", **facts):
    torch.manual_seed(0)
    arguments = {} if architecture == "interpolation" else {"channels": 4, "blocks": 1}
    return Model(ModelSpec("tiny", architecture, 2, ("B02", "B03"), arguments, **facts)).eval()


def around(network, **facts):
    return Model(ModelSpec("own", "own", 2, ("B02", "B03"), halo=1, consistency_mtf=None, **facts), network).eval()


def assert_same(run, model, sizes=ODD):
    for batch, height, width in sizes:
        lr = torch.rand(batch, len(model.spec.bands), height, width)
        with torch.inference_mode():
            torch.testing.assert_close(torch.as_tensor(run(lr)), model(lr), rtol=0, atol=1e-4)


def onnx_runtime(path):
    """ONNX Runtime as any program would use it."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, lambda lr: session.run(["sr"], {"lr": lr.numpy()})[0]


def test_onnx_runtime_computes_what_the_model_does_at_any_size(small_weights, small_onnx):
    assert_same(onnx_runtime(small_onnx)[1], load_model(small_weights))


def test_an_onnx_file_says_what_it_is_and_what_it_takes(small_weights, small_onnx):
    session, _ = onnx_runtime(small_onnx)
    spec = load_model(small_weights).spec
    assert ModelSpec.from_dict(json.loads(session.get_modelmeta().custom_metadata_map["geosr"])) == spec
    assert session.get_inputs()[0].shape == ["batch", 4, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 4, "2*height", "2*width"]
    assert [path.name for path in small_onnx.parent.iterdir() if "onnx" in path.name] == ["small.onnx"]


def test_a_shipped_model_is_exported(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = load_model("s2-rgbn-x4")
    done = export_model(model, tmp_path / "x4.onnx", kind="onnx")
    assert done.difference < 1e-4
    assert done.bytes == done.path.stat().st_size
    assert_same(onnx_runtime(done.path)[1], model)


@pytest.mark.parametrize("architecture", [*(name for name in ARGUMENTS if name != "swinir"), "interpolation"])
def test_a_network_of_convolutions_is_exported_to_torchscript(tmp_path, architecture):
    model = build(architecture)
    path = export_model(model, tmp_path / "tiny.ts", kind="torchscript").path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        loaded = torch.jit.load(path)
    assert_same(loaded, model)
    with zipfile.ZipFile(path) as file:
        (name,) = (name for name in file.namelist() if name.endswith("extra/geosr"))
        assert ModelSpec.from_dict(json.loads(file.read(name))) == model.spec


def test_windows_are_cut_for_the_recorded_size_alone_which_is_found_out(tmp_path):
    with pytest.raises(
        ModelError, match=r"fails on .* pixels \(.*\); architecture 'swinir' may depend on the image's size"
    ):
        export_model(build("swinir"), tmp_path / "tiny.ts", kind="torchscript")
    assert not list(tmp_path.iterdir())


def test_an_exported_program_computes_what_the_model_does_at_any_size(tmp_path):
    model = build()
    path = export_model(model, tmp_path / "tiny.pt2", kind="pt2").path
    told = {"geosr": ""}
    assert_same(torch.export.load(path, extra_files=told).module(), model)
    assert ModelSpec.from_dict(json.loads(told["geosr"])) == model.spec


def test_a_file_is_named_after_the_model_and_not_replaced_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build("interpolation")
    assert export_model(model, kind="torchscript").path.name == "tiny.ts"
    with pytest.raises(OutputError, match=r"tiny\.ts exists; give --overwrite"):
        export_model(model, kind="torchscript")
    assert export_model(model, kind="torchscript", overwrite=True).difference < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.ts"]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        export_model(build("interpolation"), tmp_path / "nowhere" / "x.ts", kind="torchscript")


class _SizeMatters(nn.Module):
    """Computes something else for large images, which a trace does not see."""

    def forward(self, lr):
        sr = F.interpolate(lr, scale_factor=2.0)
        return sr + 1 if lr.shape[-1] > 60 else sr


class _OneSize(nn.Module):
    """Takes the size of its first image for that of all."""

    def forward(self, lr):
        return F.interpolate(lr, size=[2 * int(side) for side in lr.shape[-2:]]) + torch.zeros(lr.shape[-1] * 2)


class _ValueMatters(nn.Module):
    def forward(self, lr):
        return F.interpolate(lr, scale_factor=2.0 if lr.sum() > 0 else 3.0)


class _Blank(nn.Module):
    def forward(self, lr):
        return F.interpolate(lr, scale_factor=2.0) * float("nan")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (_SizeMatters(), r"is not written: its output differs from the model's by 1\.0e\+00 reflectance"),
        (_OneSize(), "the exported graph of 'own' fails on 1 x 64 x 64 pixels"),
        (_Blank(), "differs from the model's by nan"),
    ],
)
def test_a_graph_that_computes_something_else_leaves_no_file(tmp_path, network, message):
    with pytest.raises(ModelError, match=message):
        export_model(around(network), tmp_path / "own.ts", kind="torchscript")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_recorded_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="model 'own' cannot be recorded as a graph"):
        export_model(around(_ValueMatters()), tmp_path / "own.pt2", kind="pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_largest_difference_is_over_all_sizes():
    model = around(nn.Upsample(scale_factor=2.0))
    assert largest_difference(model, model) == 0
    worst = max(height for _, height, _ in SIZES)
    off = largest_difference(lambda lr: model(lr) + 0.25 * (lr.shape[2] == worst), model)
    assert np.isclose(off, 0.25)


def test_the_model_stays_as_it_was(tmp_path):
    model = build("interpolation").double().train()
    export_model(model, tmp_path / "x.ts", kind="torchscript")
    assert model.training
    assert KINDS.keys() == {"onnx", "torchscript", "pt2"}


def test_a_graph_is_not_exported_again(small_onnx, tmp_path):
    with pytest.raises(ModelError, match=r"small\.onnx is a graph already; export the \.safetensors file"):
        export_model(load_model(small_onnx), tmp_path / "again.onnx", kind="onnx")


def test_without_the_libraries_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GeosrError, match=r"exporting to ONNX needs onnxruntime: pip install 'geosr\[onnx\]'"):
        export_model(build("interpolation"), tmp_path / "x.onnx", kind="onnx")
    assert list(tmp_path.iterdir()) == []
