"""``geosr models import`` and ``geosr predict --blend``, from files to GeoTIFF."""

import json
import logging

import foreign_layouts as layouts
import numpy as np
import pytest
import rasterio
import torch
import yaml

from geosr.models import Model, ModelSpec, blend_models, load_model, save_model

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def scene(make_raster):
    array = np.random.default_rng(0).integers(500, 3000, (4, 20, 24))
    return make_raster(array, dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS)


@pytest.fixture
def weights(tmp_path):
    torch.save({"params_ema": layouts.rrdbnet(unshuffle=2)}, tmp_path / "x2.pth")
    return tmp_path / "x2.pth"


def test_imported_weights_super_resolve_a_scene(geosr, scene, weights, tmp_path, caplog):
    out, sr = tmp_path / "x2.safetensors", tmp_path / "sr.tif"
    code, said, _ = geosr("models", "import", weights, "--out", out)
    assert code == 0
    facts = ["RRDBNet", "averaged (EMA)", "esrgan, x2, 6 channels, 2 blocks", "bands:      B04 B03 B02"]
    facts += ["licence:    unknown", "reflectance of 0.4 is taken for white", f"geosr predict --model {out}"]
    for fact in facts:
        assert fact in said
    with caplog.at_level(logging.INFO):
        assert geosr("predict", scene, "--model", out, "--out", sr, "--device", "cpu", "--precision", "fp32")[0] == 0
    assert "model x2 has no B08: left out of the output" in caplog.text
    with rasterio.open(sr) as file, rasterio.open(scene) as source:
        assert file.descriptions == ("B02", "B03", "B04"), "in the order of the scene"
        assert (file.height, file.width) == (40, 48)
        lr = torch.from_numpy(source.read((3, 2, 1)).astype(np.float32))[None] * 1e-4
        written = file.read((3, 2, 1)) * 1e-4
    expected = 0.4 * layouts.run_rrdbnet(layouts.rrdbnet(unshuffle=2), lr / 0.4, unshuffle=2)[0].numpy()
    np.testing.assert_allclose(written, expected.clip(1e-4, 6.5535), atol=1.1e-4)


def test_json_holds_what_was_recognised(geosr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": layouts.esrgan(stages=2)}, "last.ckpt")
    config = {"Model": {"in_bands": 4}, "Data": {"normalization": "s2"}, "Generator": {"model_type": "esrgan",
              "n_channels": 6, "n_blocks": 2, "growth_channels": 4}}  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    code, said, _ = geosr(
        "models", "import", "last.ckpt", "--config", "config.yaml", "--name", "mine", "--licence", "MIT", "--json",
        "--bands", "B02,B03,B04,B08",
    )  # fmt: skip
    told = json.loads(said)
    assert code == 0
    assert told["path"] == "mine.safetensors"
    assert told["recognised"] == "opensr-srgan's ESRGAN generator"
    assert told["averaged"] is False
    assert (told["spec"]["name"], told["spec"]["scale"], told["spec"]["licence"]) == ("mine", 4, "MIT")
    assert told["spec"]["bands"] == list(BANDS)
    assert load_model("mine.safetensors").spec.to_dict() == told["spec"]


def test_nothing_is_overwritten_unasked(geosr, weights, tmp_path):
    out = tmp_path / "x2.safetensors"
    out.write_text("precious")
    code, _, error = geosr("models", "import", weights, "--out", out)
    assert code == 1
    assert "exists; give --overwrite" in error
    assert out.read_text() == "precious"
    assert geosr("models", "import", weights, "--out", out, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--out", "model.pth"), "give a name that ends in .safetensors"),
        (("--out", "nowhere/model.safetensors"), "folder nowhere does not exist"),
        (("--bands", "B02"), "has 3 bands; --bands names B02"),
        (("--config", "nowhere.yaml"), "other networks have no configuration"),
    ],
)
def test_what_cannot_work_is_said_without_a_traceback(arguments, told, geosr, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = geosr("models", "import", weights, *arguments)
    assert code == 1
    assert error.startswith("error: ")
    assert told in error


@pytest.fixture
def pair(tmp_path):
    """Two weights files of one network."""
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        spec = ModelSpec(f"m{seed}", "compact", 2, BANDS, {"channels": 4, "blocks": 1, "base": "nearest"})
        paths.append(save_model(Model(spec), tmp_path / f"m{seed}.safetensors").path)
    return paths


def predicted(geosr, scene, out, *arguments):
    code, said, error = geosr(
        "predict", scene, "--out", out, *arguments, "--dtype", "float32", "--device", "cpu", "--precision", "fp32",
        "--json",
    )  # fmt: skip
    assert code == 0, error
    with rasterio.open(out) as file:
        return json.loads(said), file.read(), file.tags()


def test_a_blend_lies_between_its_models_and_has_a_hash_of_its_own(geosr, scene, pair, tmp_path):
    results = {
        share: predicted(geosr, scene, tmp_path / f"{share}.tif", "--model", pair[0], "--blend", pair[1], share)
        for share in (0, 0.3, 1)
    }
    alone = [predicted(geosr, scene, tmp_path / f"m{n}.tif", "--model", path)[1] for n, path in enumerate(pair)]
    np.testing.assert_array_equal(results[0][1], alone[0])
    np.testing.assert_array_equal(results[1][1], alone[1])
    told, sr, tags = results[0.3]
    assert told["model"] == tags["GEOSR_MODEL"] == "0.7 m1 + 0.3 m2"
    assert told["weights_sha256"] == tags["GEOSR_WEIGHTS_SHA256"]
    assert len({result[0]["weights_sha256"] for result in results.values()}) == 3
    with rasterio.open(scene) as file:
        lr = torch.from_numpy(file.read().astype(np.float32))[None] * 1e-4
    with torch.inference_mode():
        expected = blend_models(load_model(pair[0]), load_model(pair[1]), 0.3)(lr)[0].numpy()
    np.testing.assert_allclose(sr, expected, atol=1e-6)


def test_models_that_cannot_be_blended_are_refused(geosr, scene, pair, tmp_path):
    code, _, error = geosr("predict", scene, "-o", tmp_path / "a.tif", "-m", pair[0], "--blend", "s2-rgbn-x4", 0.5)
    assert code == 1
    assert "cannot be blended" in error
    code, _, error = geosr("predict", scene, "-o", tmp_path / "a.tif", "-m", pair[0], "--blend", pair[1], 2)
    assert code == 1
    assert "blend weight 2 is not between 0" in error
