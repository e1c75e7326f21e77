"""`geosr evaluate` from the command line."""

import json
import shutil

import numpy as np
import pytest
from evaluation_kit import hr_file, lr_file, textured

from geosr.data.prepare import prepare
from geosr.data.splits import BlockSplit

QUICK = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def evaluate(geosr, small_weights):
    """Runs ``geosr evaluate`` with a small x2 model; its code, and what it printed."""

    def run(*arguments, model=True):
        return geosr("evaluate", *arguments, *(("-m", small_weights) if model else ()), *QUICK)

    return run


def test_the_table_shows_every_method_and_json_every_row(evaluate, make_raster, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where no weights are
    path = hr_file(make_raster)
    code, out, said = evaluate(path, "-o", tmp_path / "out")
    assert code == 0, said
    for word in ("hr: x2, B02 B03 B04 B08, reflectance", "bicubic", "back-projection", "small", "report.html", "LPIPS"):
        assert word in out, word
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["metrics.csv", "metrics.json", "report.html"]
    code, out, said = evaluate(path, "-o", tmp_path / "out", "--json")
    assert (code, out) == (1, "")
    assert "give --overwrite to replace them" in said
    code, out, said = evaluate(path, "--json")
    assert [row["method"] for row in json.loads(out)["rows"]] == ["bicubic", "back-projection", "small"]
    assert said == ""
    assert evaluate(path, "--quiet")[1:] == ("", "")


def test_pairs_are_files_or_folders_that_are_matched_by_name(evaluate, make_raster, tmp_path):
    for i in range(2):
        hr = textured(seed=i)
        for role, path in (("hr", hr_file(make_raster, hr)), ("lr", lr_file(make_raster, hr))):
            (tmp_path / role).mkdir(exist_ok=True)
            shutil.move(path, tmp_path / role / f"place{i}_{role}.tif")
    code, out, said = evaluate("--pairs", tmp_path / "lr", tmp_path / "hr", "--json")
    assert code == 0, said
    told = json.loads(out)
    assert told["tables"][0]["scenes"] == ["place0", "place1"]
    rows = {row["scene"]: row for row in told["rows"] if row["method"] == "back-projection"}
    one = tmp_path / "lr" / "place1_lr.tif", tmp_path / "hr" / "place1_hr.tif"
    alone = json.loads(evaluate("--pairs", *one, "--json")[1])["rows"][1]
    assert alone["psnr_gain"] == pytest.approx(rows["place1"]["psnr_gain"])
    assert alone["lr"] == "given"
    both = evaluate("--lr", one[0], "--hr", one[1], "--json")
    assert json.loads(both[1])["rows"][1]["psnr"] == alone["psnr"]


def test_of_a_store_the_test_part_counts(evaluate, make_raster, tmp_path):
    path = hr_file(make_raster, textured(128, 128))
    split = BlockSplit((0.4, 0.3, 0.3), 320.0, 0.0)
    prepare([str(path)], tmp_path / "store.zarr", bands=["B02", "B03", "B04", "B08"], patch=32, split=split)
    pixels = {}
    for part in ("test", "train", "all"):
        code, out, said = evaluate(tmp_path / "store.zarr", "--part", part, "--json")
        assert code == 0, said
        pixels[part] = json.loads(out)["rows"][0]["pixels"]
    assert 0 < pixels["test"] < pixels["all"] == 112 * 112
    assert pixels["test"] + pixels["train"] < pixels["all"]
    assert "--part 'tset' is unknown" in evaluate(tmp_path / "store.zarr", "--part", "tset")[2]


def test_a_folder_is_its_scenes_and_flags_say_what_files_do_not(evaluate, make_raster, tmp_path):
    (tmp_path / "scenes").mkdir()
    for i in range(2):
        path = hr_file(make_raster, textured(seed=i) + 1000, scale=None, offset=None)
        shutil.move(path, tmp_path / "scenes" / f"{i}.tif")
    code, _, said = evaluate(tmp_path / "scenes", "--json")
    assert code == 1
    assert "says nothing about their unit" in said
    code, out, said = evaluate(tmp_path / "scenes", "--sensor", "sentinel-2-l2a", "--baseline", "04.00", "--json")
    assert code == 0, said
    shifted = json.loads(out)["rows"][2]
    plain = json.loads(evaluate(hr_file(make_raster), "--json")[1])["rows"][2]
    assert shifted["psnr"] == pytest.approx(plain["psnr"], abs=0.01)
    assert shifted["sam"] == pytest.approx(plain["sam"], rel=0.01)


def test_a_finished_image_needs_no_model(evaluate, geosr, small_weights, make_raster, tmp_path):
    hr = textured()
    lr, fine = lr_file(make_raster, hr), hr_file(make_raster, hr)
    made = tmp_path / "sr.tif"
    assert geosr("predict", lr, "-o", made, "-m", small_weights, "--device", "cpu", "-q")[0] == 0
    code, out, said = evaluate("--sr", made, "--lr", lr, "--json", model=False)
    assert code == 0, said
    alone = json.loads(out)["rows"][2]
    assert alone["method"] == "SR"
    assert alone["consistency"] < 1e-3
    assert "psnr" not in alone
    with_hr = json.loads(evaluate("--sr", made, "--lr", lr, "--hr", fine, "--json", model=False)[1])["rows"][2]
    again = json.loads(evaluate("--lr", lr, "--hr", fine, "--json")[1])["rows"][2]
    assert with_hr["psnr"] == pytest.approx(again["psnr"], abs=0.01)  # the product is rounded to whole DN


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing given; name HR scenes"),
        (("none.tif",), 1, "none.tif"),
        (("a.tif", "--border", "wide"), 2, "--border 'wide' is no number"),
        (("sen2naip",), 2, "is a data set of the catalogue; say with --root"),
        (("--sr", "sr.tif"), 2, "has an SR image alone"),
        (("a.tif", "--sr", "sr.tif", "--lr", "lr.tif"), 2, "SCENES and --sr, --lr, --hr given"),
        (("--pairs", "none", "neither"), 1, "none"),
    ],
)
def test_what_cannot_work_says_what_would(evaluate, arguments, code, message):
    found, out, said = evaluate(*arguments)
    assert (found, out) == (code, "")
    assert message in said


def test_real_scenes_come_out_as_they_should(evaluate, shared_data, tmp_path, make_raster):
    import rasterio

    with rasterio.open(shared_data / "s2" / "danube_a_10m.tif") as file:
        crop = file.read(window=((100, 196), (200, 312)))
    code, out, said = evaluate(hr_file(make_raster, np.ascontiguousarray(crop)), "--json")
    assert code == 0, said
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    # shared/data/README.md: 2.3 to 2.8 dB, nothing learned, on scenes of this kind.
    assert 1.5 < rows["back-projection"]["psnr_gain"] < 3.5
    assert rows["bicubic"]["shift"] < 0.2
    assert rows["back-projection"]["hallucination"] < rows["bicubic"]["omission"]
