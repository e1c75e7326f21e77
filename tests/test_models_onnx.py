import sys
import warnings

import numpy as np
import pytest
import torch

import geosr
from geosr.errors import GeosrError, ModelError, UsageError
from geosr.inference import SuperResolver
from geosr.models import ModelSpec, load_model
from geosr.models.onnx import OnnxNetwork, settle


@pytest.fixture
def onnxruntime():
    return pytest.importorskip("onnxruntime")


@pytest.fixture
def foreign(tmp_path):
    """An ONNX file that geosr knows nothing of: one that passes its input on."""
    onnx = pytest.importorskip("onnx")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "g", ends[:1], ends[1:])
    path = tmp_path / "foreign.onnx"
    opset = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    return path


def test_it_is_the_whole_model(small_onnx, small_weights):
    graph, model = load_model(small_onnx), load_model(small_weights)
    assert graph.spec == model.spec
    assert not graph.training
    lr = torch.rand(2, 4, 9, 14).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(graph(lr), model(lr), rtol=0, atol=1e-5)


def test_a_scene_is_predicted_as_by_pytorch(small_onnx, small_weights, make_raster, tmp_path):
    digital = np.random.default_rng(0).integers(500, 4000, (4, 300, 270))
    scene = make_raster(digital, dtype="uint16", nodata=0, scale=1e-4, descriptions=("B02", "B03", "B04", "B08"))
    rasters = []
    for model in (small_onnx, small_weights):
        done = geosr.predict(
            scene, tmp_path / f"{model.suffix}.tif", model=model, device="cpu", precision="fp32", tile=128
        )
        assert (done.device, done.precision, done.tiling) == ("cpu", "fp32", "exact")
        assert done.tiles > 1
        with geosr.open_scene(done.path) as sr:
            rasters.append(sr.read((slice(0, 600), slice(0, 540)), sr.bands).array)
    np.testing.assert_allclose(rasters[0], rasters[1], atol=1.01e-4)  # one digital number


def test_it_runs_in_fp32_on_a_device_that_onnx_runtime_has(small_onnx):
    resolver = geosr.load_model(small_onnx, device="cpu")
    assert (resolver.precision, resolver.device.type) == ("fp32", "cpu")
    assert resolver.weights_hash == geosr.models.find_weights(small_onnx).sha256
    with pytest.raises(UsageError, match="computes in fp32, not in bf16; leave the precision out"):
        SuperResolver(resolver.model, device="cpu", precision="bf16")


@pytest.mark.parametrize(
    ("offered", "there", "auto"), [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")]
)
def test_auto_is_cuda_where_both_libraries_have_it(onnxruntime, monkeypatch, offered, there, auto):
    providers = ["CUDAExecutionProvider"] * offered + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert settle("auto", "auto") == (auto, "fp32")
    assert settle("cpu", "fp32") == ("cpu", "fp32")
    if offered:
        assert settle("cuda:1", "auto") == ("cuda:1", "fp32")
    else:
        with pytest.raises(UsageError, match="has no CUDA; install onnxruntime-gpu"):
            settle("cuda:1", "auto")
    with pytest.raises(UsageError, match="'mps' cannot be used: an ONNX file runs on cpu or cuda"):
        settle("mps", "auto")


def test_memory_that_runs_out_is_told_as_pytorch_tells_it(small_onnx, monkeypatch):
    network = OnnxNetwork(small_onnx)
    lr = torch.rand(1, 4, 8, 8)
    network(lr)
    for said, kind in (("Failed to allocate memory for requested buffer", torch.OutOfMemoryError), ("bug", ModelError)):
        monkeypatch.setitem(network._sessions, lr.device, _Fails(ValueError(said)))
        with pytest.raises(kind, match=said):
            network(lr)


class _Fails:
    def __init__(self, error):
        self.error = error

    def get_inputs(self):
        return [self]

    name = "lr"

    def run(self, *_):
        raise self.error


def test_an_onnx_file_that_geosr_did_not_export_is_refused(foreign, onnxruntime):
    with pytest.raises(ModelError, match=r"foreign\.onnx was not exported by geosr: nothing in it tells its bands"):
        load_model(foreign)


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_of_another_kind_is_refused(tmp_path, onnxruntime, capfd, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ModelError, match="is not an ONNX file that can be read"):
        load_model(path)
    assert capfd.readouterr().err == ""


def test_without_onnx_runtime_the_extra_is_named(monkeypatch, tmp_path):
    (tmp_path / "x.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GeosrError, match=r"x\.onnx needs onnxruntime: pip install 'geosr\[onnx\]'"):
        load_model(tmp_path / "x.onnx")


def test_metadata_that_is_no_text_is_damage(small_onnx, tmp_path):
    content = small_onnx.read_bytes()
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content.replace(b'"architecture"', b'"architect\xffre"'))
    assert path.read_bytes() != content
    with pytest.raises(ModelError, match=r"damaged\.onnx (has damaged metadata|is not an ONNX file)"):
        load_model(path)


@pytest.fixture
def graph(tmp_path, onnxruntime):
    """A factory of ONNX files with geosr's metadata whose graph passes an image of some shape on."""
    onnx = pytest.importorskip("onnx")

    def make(shape, kind="FLOAT", out=None, **facts):
        ends = [
            onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), sides)
            for name, sides in (("lr", shape), ("sr", out or shape))
        ]
        nodes = [onnx.helper.make_node("Identity", ["lr"], ["sr"])]
        model = onnx.helper.make_model(
            onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:]),
            opset_imports=[onnx.helper.make_opsetid("", 17)],
            ir_version=8,
        )
        spec = ModelSpec("odd", "compact", bands=("B02", "B03"), **{"halo": 0, "scale": 1} | facts)
        onnx.helper.set_model_props(model, spec.to_metadata())
        path = tmp_path / "odd.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (["b", 4, "y", "x"], "FLOAT"),
        (["b", 2, 64, 64], "FLOAT"),
        ([1, 2, "y", "x"], "FLOAT"),
        (["b", "y", "x"], "FLOAT"),
        (["b", 2, "y", "x"], "FLOAT16"),
        (["b", 2, "y", "x"], "DOUBLE"),
    ],
)
def test_a_graph_of_other_images_than_its_specification_says_is_refused(graph, shape, kind):
    with pytest.raises(ModelError, match=r"holds a graph from .*one from float32 \(batch, 2 bands, y, x\) of any size"):
        load_model(graph(shape, kind))


def test_a_graph_of_another_scale_than_its_specification_says_is_an_error(graph):
    model = load_model(graph(["b", 2, "y", "x"], out=["b", 2, "v", "u"], scale=2))
    with pytest.raises(ModelError, match=r"makes \(1, 2, 8, 8\) .*; its specification says \(1, 2, 16, 16\)"):
        model(torch.rand(1, 2, 8, 8))


def test_a_graph_without_a_halo_is_damaged(graph):
    with pytest.raises(ModelError, match="its halo is null"):
        load_model(graph(["b", 2, "y", "x"], halo=None))
