"""`geosr predict --shard I/N` and `geosr assemble`: the jobs of an array, here or on other machines."""

import json
import os
import re
import subprocess
import sys

import pytest
import rasterio
from jobs_kit import save_interpolation, write_scene

from geosr.errors import OutputError
from geosr.inference import assemble, predict, superresolver
from geosr.io.work import locked_folder

OPTIONS = ["--model", "model.safetensors", "--tile", "1", "--precision", "fp32"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with a scene of six shards, a model, and what one run makes of them."""
    save_interpolation(tmp_path / "model.safetensors")
    write_scene(tmp_path / "scene.tif", 300, 200)
    predict(
        tmp_path / "scene.tif", tmp_path / "whole.tif", model=tmp_path / "model.safetensors", tile=1, precision="fp32"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_shares_are_assembled_from_any_folder_to_the_bytes_of_one_run(geosr, here, monkeypatch):
    for number, missing in ((2, 4), (3, 2), (1, 0)):
        code, said, error = geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", f"{number}/3", *OPTIONS)
        assert code == 0, error
        told = (
            rf"this share of .*sr\.tif is done .*; {missing} shards are missing\n"
            if missing
            else (r".*sr\.tif: all shares are done, now: geosr assemble .*sr\.tif\n")
        )
        assert re.fullmatch(told, said)
        assert not (here / "sr.tif").exists()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    code, said, error = geosr("assemble", "../sr.tif", "--json")
    assert code == 0, error
    assert {name: json.loads(said)[name] for name in ("tiles", "resumed", "missing")} == {
        "tiles": 6, "resumed": 6, "missing": 0,
    }  # fmt: skip
    assert (here / "sr.tif").read_bytes() == (here / "whole.tif").read_bytes()
    assert not list(here.glob(".sr*"))


@pytest.mark.parametrize("out", ["sr.zarr", "bands/"])
def test_shares_of_a_group_or_folder_are_assembled(geosr, here, out):
    for number in (1, 2):
        assert geosr("predict", "scene.tif", "--out", out, "--shard", f"{number}/2", *OPTIONS)[0] == 0
    assert geosr("assemble", out, "--quiet") == (0, "", "")
    whole = here / ("whole.zarr" if out == "sr.zarr" else "whole")
    predict("scene.tif", whole, model="model.safetensors", tile=1, precision="fp32")
    for path in whole.rglob("*"):
        assert path.is_dir() or (here / out / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_what_is_missing_is_named_and_nothing_is_lost(geosr, here):
    for number in (1, 3):
        assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", f"{number}/3", *OPTIONS)[0] == 0
    code, _, error = geosr("assemble", "sr.tif", "--quiet")
    assert code == 1
    assert "error: 2 of the 6 shards of" in error
    assert "are missing (2 3); run the jobs that ended early again" in " ".join(error.split())
    assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", "2/3", *OPTIONS)[0] == 0
    assert geosr("assemble", "sr.tif", "--quiet")[0] == 0
    assert (here / "sr.tif").read_bytes() == (here / "whole.tif").read_bytes()


def test_one_run_finishes_what_jobs_began(geosr, here):
    assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", "1/2", *OPTIONS)[0] == 0
    code, said, _ = geosr("predict", "scene.tif", "--out", "sr.tif", "--json", *OPTIONS)
    assert (code, json.loads(said)["resumed"]) == (0, 3)
    assert (here / "sr.tif").read_bytes() == (here / "whole.tif").read_bytes()


def test_jobs_work_at_the_same_time(here):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "geosr", "predict", "scene.tif", "--out", "sr.tif", *OPTIONS, "--shard"]
    jobs = [subprocess.Popen([*command, f"{number}/2"], env=environment) for number in (1, 2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert assemble("sr.tif").resumed == 6
    assert (here / "sr.tif").read_bytes() == (here / "whole.tif").read_bytes()


def test_another_kind_of_machine_assembles(geosr, here, monkeypatch):
    """Jobs ran where bf16 is native, on a device that the machine that assembles need not have."""
    (here / "area.geojson").write_text(json.dumps(
        {"type": "Polygon", "coordinates": [[[400_100, 4_999_900], [401_900, 4_999_900], [401_900, 4_997_500],
                                             [400_100, 4_997_500], [400_100, 4_999_900]]],
         "crs": {"type": "name", "properties": {"name": "EPSG:32633"}}}
    ))  # fmt: skip
    options = [
        *OPTIONS[:4], "--aoi", "area.geojson", "--blend", "model.safetensors", "0.5", "--device", "cpu",
        "--preview", "sr.png",
    ]  # fmt: skip
    monkeypatch.setattr(superresolver, "native_bf16", lambda device: True)
    for number in (1, 2):
        code, _, error = geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", f"{number}/2", *options)
        assert code == 0, error
    call = json.loads((here / ".sr.tif.geosr" / "job.json").read_text())["call"]
    assert (call["precision"], "device" in call) == ("bf16", False)
    monkeypatch.setattr(superresolver, "native_bf16", lambda device: False)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    code, said, error = geosr("assemble", here / "sr.tif", "--json")
    assert code == 0, error
    assert json.loads(said)["precision"] == "bf16"
    assert (here / "sr.png").is_file()
    with rasterio.open(here / "sr.tif") as file:
        assert file.shape == (960, 720)


@pytest.mark.parametrize("change", ["scene", "model"])
def test_work_of_a_scene_or_model_that_changed_is_not_assembled_and_kept(geosr, here, change):
    for number in (1, 2):
        assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", f"{number}/2", *OPTIONS)[0] == 0
    work = {path: path.read_bytes() for path in (here / ".sr.tif.geosr").rglob("*") if path.is_file()}
    if change == "scene":
        os.utime("scene.tif", (1, 1))
    else:
        save_interpolation(here / "model.safetensors", tiling="approximate")
    code, _, error = geosr("assemble", "sr.tif", "--quiet")
    assert code == 1
    assert "holds the work of another job" in error
    assert {path: path.read_bytes() for path in (here / ".sr.tif.geosr").rglob("*") if path.is_file()} == work


def test_nothing_to_assemble_or_still_under_way(geosr, here):
    code, _, error = geosr("assemble", "sr.tif")
    assert code == 1
    assert "error: there is no unfinished work beside" in error
    assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", "1/1", *OPTIONS)[0] == 0
    with locked_folder(here / "sr.tif", shared=True):
        code, _, error = geosr("assemble", "sr.tif")
    assert code == 1
    assert "error: another geosr process is writing" in error
    assert geosr("assemble", "sr.tif", "--quiet")[0] == 0


def test_shares_of_different_jobs_do_not_mix(geosr, here):
    assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", "1/2", *OPTIONS)[0] == 0
    with pytest.raises(OutputError, match="holds the work of another job; give every share the same options"):
        predict("scene.tif", "sr.tif", model="model.safetensors", tile=256, precision="fp32", shard=(2, 2))
    assert geosr("predict", "scene.tif", "--out", "sr.tif", "--shard", "2/2", *OPTIONS)[0] == 0
    assert geosr("assemble", "sr.tif", "--quiet")[0] == 0
    assert (here / "sr.tif").read_bytes() == (here / "whole.tif").read_bytes()
