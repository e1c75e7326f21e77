import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from geosr.models import Model, find_weights, load_model, save_model


@pytest.fixture
def geosr(geosr):
    """Runs ``geosr models`` in this process; returns its exit code, standard output and standard error."""
    return partial(geosr, "models")


def test_a_model_is_exported_and_says_how_near_it_is(geosr, small_weights, tmp_path):
    path = tmp_path / "small.ts"
    code, said, error = geosr("export", small_weights, "--torchscript", path)
    assert (code, error) == (0, "")
    assert path.is_file()
    assert said.startswith(f"{path}: ")
    assert "differs from the model's by at most " in said
    assert geosr("export", small_weights, path, "--torchscript")[:2] == (1, "")
    told = json.loads(geosr("export", small_weights, "--torchscript", path, "--overwrite", "--json")[1])
    assert (told["path"], told["kind"], told["bytes"]) == (str(path), "torchscript", path.stat().st_size)
    assert 0 <= told["difference"] < 1e-4


def test_an_export_to_onnx_says_nothing_of_its_own(geosr, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    code, said, error = geosr("export", "s2-rgbn-x2", "--onnx")
    assert (code, error) == (0, "")
    assert said.splitlines() == [said.strip()]
    assert find_weights("s2-rgbn-x2.onnx").spec == find_weights("s2-rgbn-x2").spec


@pytest.mark.parametrize("kinds", [(), ("--onnx", "--pt2")])
def test_an_export_is_of_one_kind(geosr, small_weights, kinds):
    code, _, error = geosr("export", small_weights, *kinds)
    assert code == 2
    assert f"{len(kinds)} kinds of file are asked for; give one of --onnx, --torchscript and --pt2" in error


def test_a_model_is_shown(geosr, small_weights):
    code, said, error = geosr("show", small_weights)
    assert (code, error) == (0, "")
    assert "B02 B03 B04 B08" in said
    assert "channels: 8" in said
    facts = json.loads(geosr("show", small_weights, "--json")[1])
    weights = find_weights(small_weights)
    assert facts == {
        "path": str(small_weights),
        "sha256": weights.sha256,
        "bytes": small_weights.stat().st_size,
        **weights.spec.to_dict(),
    }


def test_what_was_measured_of_a_shipped_model_is_shown(geosr):
    code, said, error = geosr("show", "s2-rgbn-x2")
    assert (code, error) == (0, "")
    told = json.loads(geosr("show", "s2-rgbn-x2", "--json")[1])
    lines = [line.split() for line in said.splitlines()]
    assert ["sha256", told["sha256"]] in lines
    quality, found = told["quality"], told["measured"]
    bicubic = quality["psnr"] - quality["psnr_over_bicubic"]
    assert ["PSNR,", "dB", f"{bicubic:.2f}", f"{quality['psnr']:.2f}"] in lines
    assert all(any(line[:1] == [one["path"]] for line in lines) for one in found["data"])
    for scene, one in found["figures"].items():
        gain = one["model"]["psnr"] - one["bicubic"]["psnr"]
        assert any(line[:3] == [Path(scene).stem, f"{one['bicubic']['psnr']:.2f}", f"{gain:+.2f}"] for line in lines)
    section = lines.index(["Configuration"])
    assert ["max_steps:", str(told["provenance"]["config"]["Training"]["max_steps"])] in lines[section:]


def test_a_configuration_is_shown_as_it_is_written(geosr, small_weights, tmp_path):
    weights = load_model(small_weights)
    config = {"Data": {"train_scenes": [f"s2_scenes/[a-k]{number}*.tif" for number in range(6)], "gsd": None}}
    spec = replace(weights.spec, provenance={"config": config, "scenes": {"train": ["[b]a[/b].tif"], "val": []}})
    path = tmp_path / "other.safetensors"
    save_model(Model(spec, weights.network), path)
    said = [line.rstrip() for line in geosr("show", path)[1].splitlines()]
    assert {"Data:", "  train_scenes:", "    - s2_scenes/[a-k]3*.tif", "  gsd: -", "train: [b]a[/b].tif"} <= set(said)


def test_models_are_timed(geosr, small_weights, small_onnx):
    how = ("--device", "cpu", "--size", 16, "--rounds", 1, "--precision", "fp32")
    code, said, error = geosr("bench", small_weights, small_onnx, *how)
    assert (code, error) == (0, "")
    assert said.count("fp32") == 3
    assert f"{small_onnx}: ONNX Runtime is " in said
    told = json.loads(geosr("bench", small_weights, *how, "--json")[1])
    assert told["comparisons"] == []
    (timing,) = told["timings"]
    assert (timing["name"], timing["runtime"], timing["device"]) == (str(small_weights), "torch", "cpu")


def test_what_cannot_be_timed_is_an_error(geosr, small_weights):
    code, _, error = geosr("bench", small_weights, "--precision", "fp31", "--size", 8)
    assert code == 2
    assert "precision 'fp31' is unknown" in error
