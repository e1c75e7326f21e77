"""`geosr.evaluate` from files to figures and the report."""

import base64
import copy
import json
import math
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import rasterio
import torch
from evaluation_kit import BANDS, hr_file, lr_file, lr_of, small_resolver, textured
from PIL import Image

import geosr
from geosr import metrics
from geosr.degrade import PSF, degrade
from geosr.errors import GridError, InputError, ModelError, OutputError, UsageError
from geosr.evaluation import Case, evaluate_arrays, parts, perceptual
from geosr.evaluation.methods import BACK_PROJECTION, BICUBIC

METHODS = [BICUBIC, BACK_PROJECTION, "small"]


@pytest.fixture(scope="module")
def model():
    return small_resolver()


def figures(found, method="small", scene=0, klass=""):
    return found.results[scene].figures[method][klass]


def test_figures_are_those_of_the_whole_image_without_its_border(make_raster, model):
    dn = textured(50, 56)
    dn[:, 20:23, 30:32] = 0
    found = geosr.evaluate([hr_file(make_raster, dn)], models=[model], border=8)
    assert list(found.results[0].figures) == METHODS
    # Independent of the tiles, parts and masks of the evaluation: everything in one piece.
    hr = torch.from_numpy(dn * np.float32(1e-4))[None]
    valid = torch.from_numpy(dn[0] > 0)[None]
    seen = degrade((~valid).float()[:, None], PSF(2)) == 0
    counted = valid & seen.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, 0]
    raster = geosr.Raster(
        np.where(seen[0, 0], degrade(hr, PSF(2))[0], np.float32(np.nan)).astype(np.float32), seen[0, 0].numpy(),
        geosr.open_scene(hr_file(make_raster, dn)).geobox.zoom_out(2), BANDS, geosr.Radiometry(1e-4),
    )  # fmt: skip
    sr = torch.from_numpy(np.nan_to_num(model.superresolve(raster).array))[None]
    inside = np.s_[..., 8:-8, 8:-8]
    ours = figures(found)
    assert ours["psnr"] == pytest.approx(float(metrics.psnr(sr[inside], hr[inside], counted[inside])), abs=1e-3)
    assert ours["ssim"] == pytest.approx(float(metrics.ssim(sr[inside], hr[inside], counted[inside])), abs=1e-5)
    assert ours["pixels"] == counted[inside].sum()
    assert ours["psnr_gain"] == pytest.approx(ours["psnr"] - figures(found, BICUBIC)["psnr"])
    assert figures(found, BACK_PROJECTION)["psnr_gain"] > 0.5
    assert figures(found, BACK_PROJECTION)["consistency"] < 1e-3 < figures(found, BICUBIC)["consistency"]


def test_a_scene_in_parts_has_the_figures_of_the_whole(make_raster, model, monkeypatch):
    path = hr_file(make_raster, textured(96, 80))
    whole = geosr.evaluate([path], models=[model], border=8)
    monkeypatch.setattr(parts, "PIECE", 48)
    monkeypatch.setattr("geosr.evaluation.run.PIECE", 48)
    done = []
    pieces = geosr.evaluate([path], models=[model], border=8, progress=lambda *pixels: done.append(pixels))
    for name in ("psnr", "psnr_gain", "rmse", "rmse_B08", "sam", "pixels"):
        assert figures(pieces)[name] == pytest.approx(figures(whole)[name], rel=1e-4), name
    assert done[0][:2] == (0, 0)
    assert len(done) == 5
    assert done[-1][1] == done[-1][2] == 40 * 32


def test_the_border_may_be_as_wide_as_the_model_looks_beyond_the_edge(make_raster, model):
    halo = model.halo * 2
    side = 2 * halo + 40
    scene = hr_file(make_raster, textured(side, side))
    assert halo > 8
    for border, left in ((8, side - 16), ("halo", 40)):
        assert figures(geosr.evaluate([scene], models=[model], border=border))["pixels"] == left**2


def test_scenes_of_different_scales_are_not_averaged(make_raster, model):
    scenes = [hr_file(make_raster, textured(seed=i), name=f"{i}.tif") for i in range(3)]
    coarse = small_resolver(4, name="coarse")
    found = geosr.evaluate(scenes, models=[model, coarse], border=8)
    assert [table.setting.scale for table in found.tables] == [2, 4]
    first, second = (table.summary() for table in found.tables)
    assert list(first) == METHODS
    assert list(second) == [BICUBIC, BACK_PROJECTION, "coarse"]
    gains = [figures(found, scene=i)["psnr_gain"] for i in range(3)]
    assert first["small"]["psnr_gain"].mean == pytest.approx(np.mean(gains))
    assert first["small"]["psnr_gain"].over == "scenes"
    assert first[BICUBIC]["psnr"].mean > second[BICUBIC]["psnr"].mean
    records = found.records()
    assert len(records) == 18
    assert len({tuple(record) for record in records}) == 1


def test_a_report_needs_nothing_else_and_files_hold_every_row(make_raster, model, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PATCH", 32)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where no weights are
    path = hr_file(make_raster, textured(96, 96))
    with rasterio.open(path) as file:
        profile = file.profile | {"count": 1, "dtype": "uint8", "nodata": 0}
    numbers = np.ones((96, 96), np.uint8)
    numbers[:, 48:] = 2
    with rasterio.open(tmp_path / "classes.tif", "w", **profile) as file:
        file.write(numbers, 1)
    out = tmp_path / "out"
    found = geosr.evaluate(
        [path], models=[model], border=8, classes=tmp_path / "classes.tif", class_names={1: "water"}, out=out
    )
    assert found.tables[0].classes == ("2", "water")
    water, other = figures(found, klass="water"), figures(found, klass="2")
    assert water["pixels"] + other["pixels"] == figures(found)["pixels"] == 80 * 80
    both = (water["rmse"] ** 2 + other["rmse"] ** 2) / 2
    assert both == pytest.approx(figures(found)["rmse"] ** 2, rel=1e-4)

    told = json.loads((out / "metrics.json").read_text())
    assert told["tables"][0]["summary"]["small"]["psnr"]["mean"] == pytest.approx(figures(found)["psnr"])
    assert told["models"]["small"]["sha256"] == model.weights_hash
    lines = (out / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + len(told["rows"]) == 10

    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|<script", page)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    # LR, HR and three methods with error and invented detail; of four patches two worst and two best.
    assert len(pictures) == 2 + 3 * 3 + 4 * 6
    for picture in pictures:
        assert np.asarray(Image.open(BytesIO(base64.b64decode(picture)))).std() >= 0
    for word in (
        "water",
        "gain over bicubic",
        "Power spectra",
        "Worst patches of small",
        "invented",
        "is not measured",
    ):
        assert word in page, word

    with pytest.raises(OutputError, match=r"holds metrics\.json metrics\.csv report\.html already; give --overwrite"):
        geosr.evaluate([path], models=[model], out=out)


def test_a_finished_image_is_checked_with_hr_and_without(make_raster, tmp_path):
    hr = textured()
    lr = str(lr_file(make_raster, hr))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(lr_of(hr) * 1.0)[None], scale_factor=2, mode="bicubic")
    sr = str(hr_file(make_raster, smooth[0].round().clamp(min=1).numpy().astype(np.uint16), name="sr.tif"))
    alone = geosr.evaluate([Case("product", lr=(lr,), sr=(sr,))], out=tmp_path / "out")
    assert figures(alone, "SR")["consistency"] == pytest.approx(figures(alone, BICUBIC)["consistency"], abs=5e-5)
    assert figures(alone, "SR")["shift"] < 0.05
    assert "psnr" not in figures(alone, "SR")
    assert "Worst" not in (tmp_path / "out" / "report.html").read_text()
    found = geosr.evaluate([Case("product", hr=(str(hr_file(make_raster, hr)),), lr=(lr,), sr=(sr,))])
    assert figures(found, "SR")["psnr_gain"] == pytest.approx(0, abs=0.01)
    assert found.tables[0].setting.lr == "given"


def test_the_spread_of_a_noisy_model_is_put_beside_its_error(make_raster, tmp_path):
    arguments = {"channels": 4, "blocks": 1, "noise_channels": 2}
    noisy = small_resolver(name="noisy", architecture="stochastic", arguments=arguments)
    found = geosr.evaluate([hr_file(make_raster)], models=[noisy], border=8, samples=2, out=tmp_path / "out")
    expected, actual = found.results[0].samples["noisy"]
    assert expected.shape == actual.shape == (4 * 48 * 48,)
    assert "Calibration of noisy" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UsageError, match="--samples 2 is for models that take noise"):
        geosr.evaluate([hr_file(make_raster)], models=[small_resolver()], samples=2)


def test_arrays_of_others_are_measured_alike(make_raster, model):
    dn = textured()
    found = geosr.evaluate([hr_file(make_raster, dn)], models=[model], border=8)
    hr = (dn * np.float32(1e-4)).astype(np.float32)
    lr = degrade(torch.from_numpy(hr)[None], PSF(2))
    theirs = {"theirs": model(lr)[0].numpy()}
    alike = evaluate_arrays(lr[0].numpy(), hr, None, theirs, bands=BANDS, scale=2)
    assert list(alike) == [BICUBIC, BACK_PROJECTION, "theirs"]
    ours = figures(found)
    for name in ours.keys() - {"seams"}:
        assert alike["theirs"][name] == pytest.approx(ours[name], rel=1e-3, abs=1e-5), name
    assert "psnr" not in evaluate_arrays(lr[0].numpy(), None, None, theirs, bands=BANDS, scale=2)["theirs"]


def test_perceptual_distances_are_measured_where_their_weights_are(make_raster, model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = geosr.evaluate([hr_file(make_raster)], models=[model], border=8)
    assert "LPIPS is not measured" in found.notes[0]
    assert "--dists vgg16-397923af.pth" in found.notes[1]
    network = perceptual.LPIPSLoss(BANDS, network="alex", weights="random").network
    torch.save(network.state_dict(), tmp_path / "alexnet.pth")
    found = geosr.evaluate([hr_file(make_raster)], models=[model], border=8, lpips=tmp_path / "alexnet.pth")
    assert figures(found, BICUBIC)["lpips"] > 0
    assert len(found.notes) == 1
    with pytest.raises(InputError, match=r"--lpips none\.pth does not exist"):
        geosr.evaluate([hr_file(make_raster)], models=[model], lpips="none.pth")


def test_a_guided_model_is_refused(make_raster, model):
    guided = copy.copy(model)
    guided.spec = replace(model.spec, scale=1, guide=("B02",), guide_scale=2)
    with pytest.raises(ModelError, match="sharpens B03 B04 B08 with finer bands beside them"):
        geosr.evaluate([hr_file(make_raster)], models=[guided])


def test_what_cannot_be_measured_says_why(make_raster, model):
    path = hr_file(make_raster)
    empty = hr_file(make_raster, np.zeros((4, 64, 64), np.uint16), name="empty.tif")
    for cases, options, kind, message in (
        ([], {}, UsageError, "no scene is given"),
        ([path], {}, UsageError, "no model is given"),
        ([path], {"models": [model], "border": 30}, GridError, "a border of 30 on each side leaves less than 16 x 16"),
        ([empty], {"models": [model], "border": 8}, InputError, "no pixel that is valid in all its images"),
        ([Case("one", lr=(str(path),), sr=(str(path),))], {"models": [model]}, UsageError, "one is a finished image"),
        ([Case("one", lr=(str(path),), sr=(str(path),))], {}, GridError, "does not sit on the grid"),
    ):
        with pytest.raises(kind, match=message):
            geosr.evaluate(cases, **options)
    assert math.isnan(figures(geosr.evaluate([path], models=[model], border=8))["seams"])
