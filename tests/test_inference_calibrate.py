import json

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file

from geosr.demo import demo_scene
from geosr.errors import GridError, ModelError, OutputError
from geosr.inference import SuperResolver
from geosr.inference import calibrate as module
from geosr.inference.calibrate import calibrate
from geosr.io.scene import open_scene
from geosr.models import Model, ModelSpec, find_weights, save_model
from geosr.models.calibration import Calibration, Tally, added, local_rms, simulated

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def half(tmp_path, small_weights):
    """Weights of half precision, of which none may change."""
    from geosr.models import load_model

    return save_model(load_model(small_weights), tmp_path / "half.safetensors", dtype=torch.float16).path


@pytest.fixture
def scene(make_raster):
    """A real scene with a hole."""
    with rasterio.open(demo_scene()) as file:
        array = file.read()[:, 100:201, 200:330]
    array[:, 40:44, 60:70] = 0
    return make_raster(array, nodata=0, scale=1e-4, descriptions=BANDS)


def by_hand(path, weights):
    """Detail and error of each band, of the scene in one piece, where LR knows its surroundings."""
    resolver = SuperResolver(module.load_model(weights), device="cpu", precision="fp32")
    with open_scene(path) as opened:
        raster = opened.read(bands=BANDS)
    hr = torch.from_numpy(module.fill_invalid(raster.array, raster.valid, distance=16))[None, :, :100, :]
    lr = simulated(hr, resolver.spec)
    sr = resolver(lr)
    counted = np.zeros(hr.shape[2:], bool)
    counted[8:-8, 8:-8] = True
    counted[32:52, 52:78] = False  # eight pixels around the hole
    details, errors = [local_rms(plane) for plane in added(sr, lr)[0]], (sr - hr).abs()[0].numpy()
    return [(detail[counted], error[counted]) for detail, error in zip(details, errors, strict=True)]


def test_weights_say_what_errors_they_make_and_stay_as_they_were(half, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CORE", 16)
    monkeypatch.setattr(module, "THIN", 1)
    done = calibrate(half, [scene], tmp_path / "out.safetensors", device="cpu", check=[scene])
    before, after = load_file(half), load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())
    assert before.keys() == after.keys()
    spec = find_weights(tmp_path / "out.safetensors").spec
    calibration = Calibration.of(spec)
    assert calibration == done.calibration
    assert calibration.scenes == ("scene.tif",)
    assert spec.to_dict() | {"calibration": None} == find_weights(half).spec.to_dict()
    for (detail, error), curve in zip(by_hand(scene, half), calibration.bands.values(), strict=True):
        tally = Tally()
        tally.add(detail, error)
        assert tally.pixels == calibration.pixels
        np.testing.assert_allclose(curve, tally.curve(), rtol=1e-3)  # a few pixels fall into the next bin
    (checked,) = done.checks.values()
    assert tuple(checked) == BANDS
    for found in checked.values():
        assert np.mean(found.expected) == pytest.approx(np.mean(found.actual), rel=0.1)
        assert found.rank_correlation > 0.2


def test_what_a_calibration_says_holds_on_another_date(shared_data, tmp_path):
    """Of back-projection, which learned nothing and errs where there is detail."""
    danube = shared_data / "s2"
    model = save_model(Model(ModelSpec("model", "interpolation", 2, BANDS)), tmp_path / "model.safetensors").path
    done = calibrate(
        model, [danube / "danube_a_10m.tif"], tmp_path / "x.safetensors", check=[danube / "danube_b_10m.tif"]
    )
    (checked,) = done.checks.values()
    for found in checked.values():
        assert found.rank_correlation > 0.3
        np.testing.assert_allclose(found.actual, found.expected, rtol=0.5)
        assert found.actual[-1] > 2 * found.actual[0]


def test_what_cannot_be_calibrated_says_why(small_weights, scene, make_raster, tmp_path):
    out = tmp_path / "out.safetensors"
    noisy = save_model(Model(ModelSpec("noisy", "stochastic", 2, BANDS)), tmp_path / "noisy.safetensors").path
    with pytest.raises(ModelError, match="takes noise: geosr predict --confidence gives its spread"):
        calibrate(noisy, [scene], out)
    with pytest.raises(GridError, match="smaller than one pixel of the 2 times coarser grid"):
        calibrate(
            small_weights, [make_raster(np.ones((4, 1, 9), "uint16"), name="a.tif", scale=1, descriptions=BANDS)], out
        )
    tiny = make_raster(np.ones((4, 16, 16), "uint16"), name="b.tif", scale=1e-4, descriptions=BANDS)
    with pytest.raises(ModelError, match="no pixel of the scenes is valid and far enough from their edges"):
        calibrate(small_weights, [tiny], out)
    with pytest.raises(ModelError, match="no pixel of the scenes is valid and far enough from their edges"):
        calibrate(small_weights, [scene], out, check=[tiny])
    for target in (tmp_path / "out.pt", tmp_path / "gone" / "out.safetensors"):
        with pytest.raises(OutputError, match=r"give a name that ends in \.safetensors, in a folder that exists"):
            calibrate(small_weights, [scene], target)
    assert not out.exists()
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        calibrate(small_weights, [scene], noisy)


def test_the_command_measures_and_predict_uses_it(geosr, small_weights, scene, tmp_path):
    out = tmp_path / "calibrated.safetensors"
    code, said, error = geosr("models", "calibrate", small_weights, scene, "--check", scene, "--out", out)
    assert (code, error) == (0, "")
    assert f"{out}: expected errors measured on " in said
    assert "scene.tif" in said
    assert (said.count("expected "), said.count("actual ")) == (4 + 1, 4)
    told = json.loads(geosr("models", "calibrate", out, scene, "--out", out, "--overwrite", "--json")[1])
    assert told["calibration"] == find_weights(out).spec.calibration
    run = ("predict", scene, "--model", out, "--device", "cpu", "--tta", "--confidence", "--json")
    done = json.loads(geosr(*run, "--out", tmp_path / "sr.tif")[1])
    assert done["bands"] == [*BANDS, *(f"{band}_error" for band in BANDS)]
    assert done["tta"] is True
    with rasterio.open(tmp_path / "sr.tif") as file:
        errors, valid = file.read(range(5, 9)) * 1e-4 - 1e-4, file.read(1) > 0
    assert 1e-4 < errors[:, valid].mean() < 0.05
