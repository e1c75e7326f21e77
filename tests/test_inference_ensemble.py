"""Ensembles: the mean of several samples and their spread, in memory and on disk."""

import json
import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from calibration_kit import calibrated
from rio_cogeo import cog_validate

from geosr import cli
from geosr.errors import OutputError, UsageError
from geosr.inference import SuperResolver, assemble, predict
from geosr.inference.ensemble import mean_and_spread
from geosr.inference.fill import fill_invalid
from geosr.inference.job import spread_radiometry
from geosr.io.cog import Profile
from geosr.io.scene import open_scene
from geosr.models import Model, ModelSpec, load_model, save_model
from geosr.models.calibration import Calibration, Curve
from geosr.models.stochastic import Stochastic
from geosr.radiometry import Radiometry
from geosr.testing import block_model, impulse_model

BANDS = ("B02", "B03")
NAMES = (*BANDS, "B02_spread", "B03_spread")
ARGUMENTS = {"channels": 6, "blocks": 1, "noise_channels": 2, "large_kernel_size": 3, "std": [0.05, 0.05]}


class Limited(Stochastic):
    """On a device whose memory holds ``limit`` LR pixels."""

    limit = 10**9

    def forward(self, lr, noise=None):
        if lr.shape[0] * lr.shape[2] * lr.shape[3] > self.limit:
            raise torch.OutOfMemoryError
        return super().forward(lr, noise)


def resolver_of(*, limit=10**9, tiling="exact", halo=None, scale=2, **arguments):
    """Random weights, with noise loud enough to be seen."""
    torch.manual_seed(0)
    network = Limited(bands=2, scale=scale, **ARGUMENTS | arguments)
    network.limit = limit
    network.tail.weight.data.mul_(4)
    for block in network.body:
        block.modulation.weight.data.mul_(10)
    facts = {"tiling": tiling, "halo": halo, "consistency_mtf": None}
    spec = ModelSpec("noisy", "stochastic", scale, BANDS, ARGUMENTS | arguments, **facts)
    return SuperResolver(Model(spec, network), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def resolver():
    return resolver_of()


def digital(height, width, *, invalid=False):
    array = np.random.default_rng(0).integers(1500, 4000, (2, height, width)).astype("uint16")
    if invalid:
        array[:, 5:9, 20:40] = 0
    return array


@pytest.fixture
def scene(make_raster):
    def make(array, **encoding):
        return make_raster(array, **{"nodata": 0, "scale": 1e-4, "offset": -0.1, "descriptions": BANDS, **encoding})

    return make


def read(path):
    """What is stored, and what each band says that it means."""
    with rasterio.open(path) as file:
        stored = file.read()
        scales, offsets = (np.reshape(values, (-1, 1, 1)) for values in (file.scales, file.offsets))
        return stored, stored * scales + offsets


def members(resolver, lr, seeds):
    """Each member by itself, (member, band, y, x)."""
    return np.stack([resolver(lr, seed=seed)[0].numpy() for seed in seeds]).astype(np.float64)


@pytest.mark.parametrize("count", [2, 3, 40])
def test_mean_and_spread_are_those_of_numpy(count):
    several = 0.3 + 0.001 * torch.randn(count, 1, 2, 7, 5, generator=torch.Generator().manual_seed(0))
    got = mean_and_spread(iter(several)).numpy()
    numbers = several.double().numpy()
    np.testing.assert_allclose(got[:, :2], numbers.mean(axis=0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(got[:, 2:], numbers.std(axis=0, ddof=1), rtol=1e-3)


def test_one_sample_is_itself_and_equal_ones_have_no_spread():
    one = torch.rand(2, 3, 4, 5)
    assert torch.equal(mean_and_spread([one]), one)
    twice = mean_and_spread([one, one])
    assert torch.equal(twice[:, :3], one)
    assert (twice[:, 3:] == 0).all()


def test_an_ensemble_is_what_a_loop_over_seeds_gives(resolver, scene):
    with open_scene(scene(digital(20, 30))) as opened:
        raster = opened.read(bands=BANDS)
    sr = resolver.superresolve(raster, samples=5, seed=3)
    each = members(resolver, torch.from_numpy(raster.array)[None], range(3, 8))
    assert sr.bands == NAMES
    np.testing.assert_allclose(sr.array[:2], each.mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sr.array[2:], each.std(axis=0, ddof=1), rtol=0, atol=1e-6)
    assert sr.array[2:].mean() > 1e-3
    one = resolver.superresolve(raster, seed=4)
    assert one.bands == BANDS
    np.testing.assert_array_equal(one.array, each[1].astype(np.float32))
    np.testing.assert_array_equal(resolver.superresolve(raster, samples=1, seed=4).array, one.array)


def test_without_samples_and_seed_it_is_the_noise_free_image(resolver, scene):
    with open_scene(scene(digital(20, 30))) as opened:
        raster = opened.read(bands=BANDS)
    with torch.inference_mode():
        expected = resolver.model(torch.from_numpy(raster.array)[None])[0].numpy()
    np.testing.assert_allclose(resolver.superresolve(raster).array, expected, rtol=0, atol=1e-6)


def test_noise_belongs_to_places_of_the_scene(resolver, scene):
    with open_scene(scene(digital(40, 50))) as opened:
        whole, part = opened.read(bands=BANDS), opened.read((slice(10, 40), slice(15, 45)), BANDS)
    halo = resolver.halo
    inner = (slice(None), slice(2 * halo, 60 - 2 * halo), slice(2 * halo, 60 - 2 * halo))
    expected = resolver.superresolve(whole, samples=3).array[:, 20:80, 30:90]
    got = resolver.superresolve(part, samples=3, origin=(10, 15)).array
    np.testing.assert_allclose(got[inner], expected[inner], rtol=0, atol=1e-5)
    elsewhere = resolver.superresolve(part, samples=3).array
    assert np.abs(elsewhere[inner] - expected[inner]).max() > 1e-3


@pytest.mark.parametrize("noise_field", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_do_not_show_in_an_ensemble(scene, tmp_path, noise_field, batch_size):
    resolver = resolver_of(noise_field=noise_field)
    path = scene(digital(260, 300, invalid=True))
    done = predict(
        path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32", samples=3, seed=5, batch_size=batch_size
    )
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS), samples=3, seed=5)
    assert (done.tiles, done.bands, done.samples, done.seed) == (4, NAMES, 3, 5)
    np.testing.assert_allclose(read(done.path)[0], whole.array, rtol=0, atol=1e-5)


def test_an_area_has_the_noise_of_the_whole_scene(resolver, scene, tmp_path):
    path, options = scene(digital(60, 70)), {"model": resolver, "dtype": "float32", "samples": 2}
    whole = read(predict(path, tmp_path / "whole.tif", **options).path)[0]
    aoi = (400_200, 4_999_500, 400_600, 4_999_900)  # columns 20 to 60, rows 10 to 50
    part = read(predict(path, tmp_path / "part.tif", **options, aoi=aoi).path)[0]
    assert part.shape == (4, 80, 80)
    edge = 2 * resolver.halo
    inner = slice(edge, 80 - edge)
    np.testing.assert_allclose(part[:, inner, inner], whole[:, 20:100, 40:120][:, inner, inner], rtol=0, atol=1e-5)


def test_where_memory_runs_out_noise_stays_in_its_place(resolver, scene, tmp_path, caplog):
    path, options = scene(digital(20, 1024)), {"tile": 1, "dtype": "float32", "samples": 2, "batch_size": 2}
    expected = read(predict(path, tmp_path / "a.tif", model=resolver, **options).path)[0]
    with caplog.at_level(logging.WARNING, "geosr"):
        got = read(predict(path, tmp_path / "b.tif", model=resolver_of(limit=3000), **options).path)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert "the batch of 2 is halved" in caplog.text
    assert "pixels is halved" in caplog.text


def test_tiles_that_are_blended_have_one_noise(scene, tmp_path):
    """The network is exact and only said to be approximate, so that the blend must give the whole image's answer."""
    resolver = resolver_of(tiling="approximate", halo=24)
    path = scene(digital(260, 300))
    done = predict(path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32", samples=3)
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS), samples=3)
    assert done.tiling == "approximate"
    difference = np.abs(read(done.path)[0] - whole.array)
    assert difference.max() < 2e-3  # at the ends of tiles, which the network sees and the blend all but hides
    assert np.quantile(difference, 0.8) < 1e-6


def test_the_same_seed_gives_the_same_file_and_another_one_another(resolver, scene, tmp_path):
    path = scene(digital(30, 40))

    def bytes_of(**options):
        return predict(path, tmp_path / "sr.tif", model=resolver, overwrite=True, **options).path.read_bytes()

    assert bytes_of(samples=2, seed=1) == bytes_of(samples=2, seed=1)
    assert bytes_of(samples=2) == bytes_of(samples=2, seed=0)
    assert bytes_of(seed=1) == bytes_of(samples=1, seed=1)
    different = [bytes_of(samples=2), bytes_of(samples=2, seed=1), bytes_of(samples=3), bytes_of(seed=0), bytes_of()]
    assert len(set(different)) == 5


@pytest.mark.parametrize(
    "encoding",
    [
        {"nodata": 0, "scale": 1e-4, "offset": -0.1},
        {"nodata": 0, "scale": 1e-4, "offset": 0},
        {"nodata": None, "scale": 1e-4, "offset": 0.02},
        {"nodata": 65535, "scale": 2e-4, "offset": 0},
    ],
    ids=str,
)
def test_a_file_gives_back_mean_and_spread(resolver, scene, tmp_path, encoding):
    array = digital(30, 600)
    if encoding["nodata"] is not None:
        array[:, 5:9, 20:40] = encoding["nodata"]
    path = scene(array, **encoding)
    out = predict(path, tmp_path / "sr.tif", model=resolver, samples=4, seed=2).path
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS), samples=4, seed=2)
    stored, values = read(out)
    with rasterio.open(out) as file:
        assert file.descriptions == NAMES
        assert file.nodata == encoding["nodata"]
        assert (file.tags()["GEOSR_SAMPLES"], file.tags()["GEOSR_SEED"]) == ("4", "2")
        overview = file.read(3, out_shape=(30, 600))
    valid = whole.valid
    np.testing.assert_array_equal((stored != encoding["nodata"]).all(axis=0), valid)
    np.testing.assert_array_equal((stored != encoding["nodata"]).any(axis=0), valid)
    # Half a step of rounding, and what a float32 DN is off.
    np.testing.assert_allclose(values[:, valid], whole.array[:, valid], rtol=0, atol=0.51 * encoding["scale"])
    assert cog_validate(out, strict=True, quiet=True)[0]
    spreads = np.where(valid, stored[2], np.nan).reshape(30, 2, 600, 2)
    with_data = valid.reshape(30, 2, 600, 2).all(axis=(1, 3))
    np.testing.assert_allclose(overview[with_data], spreads.mean(axis=(1, 3))[with_data], rtol=0, atol=0.51)
    with open_scene(out) as opened:  # the means are a scene like any other
        again = opened.read(bands=BANDS)
    np.testing.assert_array_equal(again.valid, valid)
    np.testing.assert_allclose(again.array[:, valid], whole.array[:2, valid], rtol=0, atol=0.51 * encoding["scale"])


@pytest.mark.parametrize(
    ("nodata", "dtype", "zero"),
    [(0, "uint16", 1), (0, "int16", 1), (255, "uint8", 0), (-9999, "int16", 0), (None, "uint16", 0)],
)
def test_no_spread_is_a_number_and_not_nodata(nodata, dtype, zero):
    bands = Radiometry(2**-12, -0.125, nodata=nodata, dtype=dtype)
    profile = Profile(None, ("B02", "B02_spread"), bands, encodings={"B02_spread": spread_radiometry(bands)})
    values = np.array([[[0.0, 0.0]], [[0.0, 10 * 2**-12]]], np.float32)
    stored = profile.to_digital(values)
    assert stored.dtype == dtype
    assert stored[1].tolist() == [[zero, zero + 10]]
    encoding = profile.encoding("B02_spread")
    np.testing.assert_array_equal(stored[1] * encoding.scale + encoding.offset, values[1])
    if bands.dtype != "uint8":
        np.testing.assert_array_equal(stored[0], bands.to_digital(values[:1])[0])


class Stop(Exception):
    pass


def test_a_stopped_ensemble_continues_and_another_one_begins_anew(resolver, scene, tmp_path):
    path, out, options = scene(digital(30, 800)), tmp_path / "sr.tif", {"model": resolver, "tile": 1, "samples": 2}
    undisturbed = predict(path, tmp_path / "undisturbed.tif", **options).path.read_bytes()
    seen = []

    def stop(*done):
        seen.append(done)
        if len(seen) == 4:
            raise Stop

    for change, resumed in (({}, 3), ({"seed": 1}, 0), ({"samples": 3}, 0)):
        seen.clear()
        with pytest.raises(Stop):
            predict(path, out, **options, progress=stop, overwrite=True, restart=True)
        done = predict(path, out, **options | change, overwrite=True)
        assert done.resumed == resumed
        assert (out.read_bytes() == undisturbed) == (not change)


@pytest.mark.parametrize("arguments", [{"samples": 2}, {"seed": 0}, {"samples": 1, "seed": 3}])
def test_a_model_without_noise_has_no_samples(make_raster, tmp_path, arguments):
    resolver = SuperResolver(impulse_model(2, 1, bands=BANDS), device="cpu", precision="fp32")
    path = make_raster(digital(9, 9), nodata=0, scale=1e-4, descriptions=BANDS)
    with pytest.raises(UsageError, match="model 'impulse' takes no noise, so it has one answer: leave out samples"):
        predict(path, tmp_path / "sr.tif", model=resolver, **arguments)
    with open_scene(path) as opened, pytest.raises(UsageError, match="takes no noise"):
        resolver.superresolve(opened.read(bands=BANDS), **arguments)
    with pytest.raises(UsageError, match="takes no noise"):
        resolver(torch.zeros(1, 2, 4, 4), seed=1)
    assert [one.name for one in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize("arguments", [{"samples": 0}, {"seed": -1}, {"seed": 2**32}])
def test_numbers_that_cannot_be_are_refused(resolver, arguments):
    with pytest.raises(UsageError, match=r"samples from seed -?\d+: give at least 1, and a seed from 0 to 4294967295"):
        resolver.seeds(**{"samples": None, "seed": None, **arguments})


@pytest.fixture(params=["sums", "blocks"])
def calibrated_resolver(request):
    """Sums over neighbours, or means over blocks, which turn any wrong neighbour into a wrong number."""
    model = impulse_model(2, 3, bands=BANDS) if request.param == "sums" else block_model(2, 7, bands=BANDS)
    return SuperResolver(calibrated(model), device="cpu", precision="fp32")


def test_tiles_show_neither_in_the_mean_of_orientations_nor_in_errors(calibrated_resolver, scene, tmp_path):
    path, both = scene(digital(261, 300, invalid=True)), {"tta": True, "confidence": True}
    done = predict(path, tmp_path / "sr.tif", model=calibrated_resolver, tile=1, dtype="float32", batch_size=3, **both)
    with open_scene(path) as opened:
        raster = opened.read(bands=BANDS)
    whole = calibrated_resolver.superresolve(raster, **both)
    assert (done.tiles, done.bands, done.tta) == (4, ("B02", "B03", "B02_error", "B03_error"), True)
    np.testing.assert_allclose(read(done.path)[0], whole.array, rtol=0, atol=1e-5)
    lr = torch.from_numpy(fill_invalid(raster.array, raster.valid, distance=9))[None]
    sr = torch.from_numpy(np.nan_to_num(whole.array[:2]))[None]
    calibration = Calibration.of(calibrated_resolver.spec)
    inside = np.s_[:, 60:-60, 100:-100]  # far from what is invalid
    expected = calibration.expected_error(sr, lr)[0].numpy()
    np.testing.assert_allclose(whole.array[2:][inside], expected[inside], atol=1e-6)
    assert whole.array[2:][inside].std() > 1e-3


def test_an_error_of_0_is_a_number_and_orientations_and_errors_are_told(scene, tmp_path):
    model = Model(ModelSpec("bicubic", "interpolation", 2, BANDS, consistency_mtf=None))
    curves = dict.fromkeys(BANDS, Curve((0.001, 0.1), (0.0, 0.1)))
    told = Calibration(window=5, bands=curves, scenes=("a.tif",), pixels=1).to_dict()
    resolver = SuperResolver(Model(replace(model.spec, calibration=told)), device="cpu", precision="fp32")
    path = scene(digital(9, 12, invalid=False))
    stored, values = read(predict(path, tmp_path / "sr.tif", model=resolver, tta=True, confidence=True).path)
    assert (stored[2:] == 1).all()  # bicubic adds nothing to itself, and DN 0 is nodata
    np.testing.assert_allclose(values[2:], 0, atol=1e-9)
    with rasterio.open(tmp_path / "sr.tif") as file:
        tags = file.tags()
    assert (tags["GEOSR_TTA"], tags["GEOSR_CONFIDENCE"]) == ("mean of 8 orientations", "expected absolute error")
    with rasterio.open(predict(path, tmp_path / "plain.tif", model=resolver).path) as file:
        assert not {"GEOSR_TTA", "GEOSR_CONFIDENCE"} & file.tags().keys()


def test_confidence_of_a_model_that_takes_noise_is_the_spread_of_8_samples(resolver, scene, tmp_path):
    path = scene(digital(20, 30))
    done = predict(path, tmp_path / "sr.tif", model=resolver, confidence=True)
    asked = predict(path, tmp_path / "asked.tif", model=resolver, samples=8)
    assert (done.samples, done.bands) == (8, NAMES)
    assert done.path.read_bytes() == asked.path.read_bytes()
    assert resolver.answer(samples=3, seed=5, confidence=True).seeds == range(5, 8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"samples": 2, "tta": True},
            "give tta without samples, seed and, since model 'noisy' takes noise, confidence",
        ),
        ({"seed": 2, "tta": True}, "noise belongs to places"),
        ({"tta": True, "confidence": True}, "noise belongs to places"),
        ({"samples": 1, "confidence": True}, "spread of at least 2 samples; 1 is asked for"),
    ],
)
def test_what_does_not_go_together_is_refused(resolver, asked, message):
    with pytest.raises(UsageError, match=message):
        resolver.answer(**asked)
    assert resolver.answer(tta=True).suffixes == ("",)  # the noise-free image has orientations


def test_shares_that_are_assembled_are_one_run_and_those_of_another_are_not_mixed_in(scene, tmp_path):
    model = save_model(calibrated(Model(ModelSpec("m", "interpolation", 2, BANDS))), tmp_path / "m.safetensors").path
    path, options = scene(digital(40, 800)), {"model": model, "tile": 1, "device": "cpu", "precision": "fp32"}
    whole = predict(path, tmp_path / "whole.tif", tta=True, confidence=True, **options)
    for share in (1, 2):
        predict(path, tmp_path / "sr.tif", tta=True, confidence=True, shard=(share, 2), **options)
    with pytest.raises(OutputError, match="another job"):
        predict(path, tmp_path / "sr.tif", confidence=True, shard=(2, 2), **options)
    assert assemble(tmp_path / "sr.tif").path.read_bytes() == whole.path.read_bytes()


def test_shares_of_a_variant_are_assembled(make_raster, tmp_path):
    path = make_raster(np.full((4, 6, 7), 900, "uint16"), scale=1e-4, descriptions=("B02", "B03", "B04", "B08"))
    done = predict(path, tmp_path / "sr.tif", variant="standard", shard=(1, 1), device="cpu", precision="fp32")
    assert assemble(tmp_path / "sr.tif").model == done.model


def test_the_command_writes_an_ensemble_and_shows_its_mean(resolver, scene, tmp_path, monkeypatch, capsys):
    weights = save_model(resolver.model, tmp_path / "noisy.safetensors").path
    path, out, picture = scene(digital(40, 50)), tmp_path / "sr.tif", tmp_path / "sr.png"
    options = ["--model", weights, "--samples", "3", "--seed", "7", "--device", "cpu", "--precision", "fp32", "--json"]
    command = ["geosr", "predict", path, "--out", out, "--preview", picture, *options]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    said = json.loads(capsys.readouterr().out)
    assert (said["samples"], said["seed"], tuple(said["bands"])) == (3, 7, NAMES)
    assert picture.stat().st_size > 1000
    loaded = SuperResolver(load_model(weights), device="cpu", precision="fp32")
    with open_scene(path) as opened:
        expected = loaded.superresolve(opened.read(bands=BANDS), samples=3, seed=7).array
    np.testing.assert_allclose(read(out)[1], expected, rtol=0, atol=0.51e-4)
