import json
import os
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest
import rasterio
from rich.console import Console

from geosr import __version__, cli
from geosr.cli import options as shared
from geosr.demo import demo_scene
from geosr.errors import GeosrError, RadiometryError
from geosr.models import Model, ModelSpec, save_model, shipped_models

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def bicubic(tmp_path):
    """A weights file whose model costs nothing."""
    spec = ModelSpec("bicubic", "interpolation", 4, BANDS, consistency_mtf=None)
    return save_model(Model(spec), tmp_path / "bicubic.safetensors").path


@pytest.fixture
def scene(make_raster):
    with rasterio.open(demo_scene()) as file:
        array = file.read(window=((0, 30), (0, 300)))
    return make_raster(array, nodata=0, scale=1e-4, descriptions=BANDS)


@pytest.fixture
def options(bicubic):
    return ("--model", bicubic, "--device", "cpu")


@pytest.fixture
def parana(shared_data):
    """Digital numbers with +1000 in them, and no word about it."""
    return shared_data / "s2_offset" / "parana_bridge_a.tif"


def process(*arguments):
    """The command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "geosr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_a_prediction_tells_its_progress_and_its_result(geosr, scene, options, tmp_path):
    out = tmp_path / "sr.tif"
    code, said, progress = geosr("predict", scene, "-o", out, *options, "--tile", 1)
    assert code == 0
    assert said.startswith(f"{out}: 1200 x 120 pixels, ")
    assert "(bicubic, cpu, " in said
    percents = [int(line.removesuffix("%")) for line in progress.splitlines() if line.endswith("%")]
    assert percents[0] == 0
    assert percents[-1] == 100
    assert percents == sorted(set(percents))
    assert len(percents) > 2
    with rasterio.open(out) as file:
        assert file.shape == (120, 1200)


def test_progress_comes_in_steps_of_ten_percent(capsys):
    with shared.progress_bar("super-resolving", quiet=False) as progress:
        for done in range(1001):
            progress(1 if done else 0, done, 1000)
    lines = capsys.readouterr().err.split()
    assert lines[::2] == [str(n) for n in range(0, 101, 10)]


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(shared, "stderr_console", lambda: Console(file=screen, force_terminal=True, width=120))
    with shared.progress_bar("super-resolving", quiet=False) as progress:
        for now, done in ((250, 250), (250, 500), (500, 1000)):  # the first call tells what an earlier run did
            progress(now, done, 1000)
    assert "super-resolving" in screen.getvalue()
    assert "100%" in screen.getvalue()


def test_json_is_all_that_stands_on_standard_output(geosr, scene, options, tmp_path):
    out = tmp_path / "sr.tif"
    code, said, progress = geosr("predict", scene, "-o", out, *options, "--json", "--preview", tmp_path / "sr.png")
    facts = json.loads(said)
    assert code == 0
    assert progress == ""
    assert (facts["path"], facts["preview"]) == (str(out), str(tmp_path / "sr.png"))
    assert (facts["model"], facts["scale"], facts["bands"], facts["shape"]) == ("bicubic", 4, list(BANDS), [120, 1200])
    assert (facts["tiles"], facts["resumed"], facts["bytes"]) == (1, 0, out.stat().st_size)


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_says_nothing_but_errors(geosr, scene, options, tmp_path, flag):
    arguments = ("predict", scene, "-o", tmp_path / "sr.tif", *options, flag)
    assert geosr(*arguments) == (0, "", "")
    code, said, error = geosr(*arguments)
    assert (code, said) == (1, "")
    assert error == f"error: {tmp_path / 'sr.tif'} exists; give --overwrite to replace it\n"
    assert geosr(*arguments, "--overwrite") == (0, "", "")


def test_a_preview_is_written_and_named(geosr, scene, options, tmp_path):
    code, said, _ = geosr("predict", scene, "-o", tmp_path / "sr.tif", *options, "--preview", tmp_path / "sr.png")
    assert code == 0
    assert f"{tmp_path / 'sr.png'}: before and after" in said
    assert (tmp_path / "sr.png").read_bytes().startswith(b"\x89PNG")


def test_options_reach_the_prediction(geosr, make_raster, bicubic, tmp_path):
    silent = make_raster(np.full((4, 20, 20), 1500, "uint16"))
    arguments = {
        "--bands": "blue, green red,B8",
        "--scale": 1e-4,
        "--offset": -0.1,
        "--nodata": 0,
        "--aoi": "400020,4999900,400120,4999950",
        "--dtype": "float32",
        "--precision": "fp32",
        "--batch-size": 2,
        "--model": bicubic,
        "--device": "cpu",
    }
    flags = [part for pair in arguments.items() for part in pair]
    assert geosr("predict", silent, "-o", tmp_path / "sr.tif", *flags, "--restart", "-q")[0] == 0
    with rasterio.open(tmp_path / "sr.tif") as file:
        assert (file.dtypes[0], file.shape) == ("float32", (20, 40))
        assert file.descriptions == ("blue", "green", "red", "B8")
        np.testing.assert_allclose(file.read(), 0.05, atol=1e-6)


def test_a_silent_scene_is_refused_with_the_flags_that_would_explain_it(parana, tmp_path):
    done = process("predict", parana, "--out", tmp_path / "sr.tif")
    assert done.returncode == 1
    assert done.stdout == ""
    first, *flags = done.stderr.splitlines()
    assert first.startswith("error: parana_bridge_a.tif holds uint16 values from ")
    assert first.endswith(" and says nothing about their unit.")
    assert [line.split(":  ")[-1].strip() for line in flags] == [
        "--scale 1e-4 --offset -0.1 --nodata 0",
        "--scale 1e-4 --nodata 0",
        "--scale 1",
    ]
    assert not list(tmp_path.iterdir())


def test_sensor_and_baseline_explain_a_silent_scene(geosr, parana, options, tmp_path):
    with rasterio.open(parana) as file:
        dn, (left, bottom, *_), (across, down) = file.read((2, 3, 4, 8)), file.bounds, file.res
        assert [file.descriptions[i] for i in (1, 2, 3, 7)] == list(BANDS)
    explained = ("--sensor", "sentinel-2-l2a", "--baseline", "04.00")
    aoi = f"{left},{bottom},{left + 40 * across},{bottom + 30 * down}"
    code, _, error = geosr("predict", parana, "-o", tmp_path / "sr.tif", *options, *explained, "--aoi", aoi)
    assert code == 0, error
    with rasterio.open(tmp_path / "sr.tif") as file:
        assert file.offsets == (-0.1,) * 4
        np.testing.assert_allclose(file.scales, 1e-4)
        assert file.nodata == 0
        sr = file.read()
    assert sr.shape == (4, 120, 160)
    np.testing.assert_allclose(sr.mean(axis=(1, 2)), dn[:, -30:, :40].mean(axis=(1, 2)), rtol=0.01)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "s2-rgbn-x5"], 1, "error: model 's2-rgbn-x5' is unknown"),
        (["--model", "gone.safetensors"], 1, "error: weights file gone.safetensors does not exist"),
        (["--bands", "B02,B03"], 1, "error: --bands names 2 bands"),
        (["--scale", "1e-3"], 1, "flag --scale says 0.001"),
        (["--sensor", "sentinel2"], 1, "did you mean 'sentinel-2-l2a'?"),
        (["--baseline", "04.00"], 2, "error: --baseline 04.00 says nothing without --sensor"),
        (["--aoi", "0,0,1,1"], 1, "lies outside the scene"),
        (["--aoi", "1,2,3"], 2, "error: aoi '1,2,3' is not minx,miny,maxx,maxy"),
        (["--dtype", "uint8"], 2, "error: --dtype uint8 would need a new encoding"),
        (["--device", "cuda:77"], 2, "error: device 'cuda:77' cannot be used here"),
        (["--precision", "fp8"], 2, "error: precision 'fp8' is unknown"),
        (["--out", "deep/sr.tif"], 1, "error: folder deep does not exist; make it first"),
        (["--out", "sr.png"], 2, "error: sr.png ends in .png; give a name in .tif or .zarr"),
        (["--model", "s2-rgbn-x2", "--fast"], 2, "error: --fast and --detail choose among the shipped models"),
        (["--fast", "--detail"], 2, "error: --fast and --detail are two models; give one of them"),
        (["--shard", "5/4"], 2, "error: --shard 5/4 is none of 4"),
        (["--shard", "half"], 2, "error: --shard 'half' is no share; write 3/16"),
        (["--shard", "1/4", "--workers", "2"], 2, "leave out --restart, --workers and --dask"),
        (["--workers", "2", "--dask", "tcp://127.0.0.1:1"], 2, "error: --workers 2 makes no workers on"),
        (["--dask", "gone.json"], 1, "error: scheduler file gone.json does not exist"),
        (["--stac"], 2, "does not say when it was acquired; a STAC item needs --datetime"),
        (["--stac", "--datetime", "June"], 2, "error: --datetime June is no date or time"),
        (["--tile", "0"], 2, "--tile"),
        (["--batch-size", "many"], 2, "--batch-size"),
        (["--scale", "x"], 2, "--scale"),
        (["--colour", "red"], 2, "--colour"),
    ],
    ids=str,
)
def test_a_mistake_is_named_without_a_traceback(geosr, scene, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    got, said, error = geosr("predict", scene, "--out", "sr.tif", *arguments)
    assert (got, said) == (code, "")
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    "arguments", [["predict"], ["predict", "a.tif"], ["paint"], ["info"], ["models", "all"], ["--loud"]]
)
def test_wrong_usage_exits_with_2(geosr, arguments):
    code, said, error = geosr(*arguments)
    assert (code, said) == (2, "")
    assert "Usage" in error


@pytest.mark.parametrize("command", ["predict", "info"])
def test_a_missing_input_is_named(geosr, command, tmp_path):
    out = ["--out", tmp_path / "sr.tif"] if command == "predict" else []
    assert geosr(command, "missing.tif", *out) == (1, "", "error: missing.tif does not exist\n")


@pytest.mark.parametrize("module", ["scenes", "training", "app"])
def test_an_interrupt_while_the_command_is_loaded_ends_as_any_other(tmp_path, module):
    code = (
        "import sys, builtins; real = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    importer = sys._getframe(1).f_globals['__name__']\n"
        f"    if (name, importer) == ('typer', 'geosr.cli.{module}'): raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = interrupted\n"
        "from geosr.cli import main"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (130, "interrupted; the same command continues\n")


def test_names_reach_the_terminal_without_control_characters(geosr, scene, options, tmp_path):
    evil = scene.with_name("a\x1b]0;owned\x07.tif")
    scene.rename(evil)
    (tmp_path / "sr\x1b[31m").mkdir()
    for arguments in ((evil, "--out", tmp_path / "sr\x1b[31m" / "x.tif"), (evil, "--out", evil)):
        code, said, error = geosr("predict", *arguments, *options)
        assert (code, "\x1b" in said + error, "\x07" in said + error) == (
            int(arguments[0] == arguments[2]),
            False,
            False,
        )
        assert "\ufffd" in said + error


@pytest.mark.parametrize("where", ["out", "preview", "both"])
def test_a_degraded_scene_keeps_what_it_is_read_from(geosr, scene, tmp_path, where):
    before = scene.read_bytes()
    virtual = tmp_path / "link.tif"
    virtual.symlink_to(scene)
    out, picture = {
        "out": (scene, tmp_path / "p.png"), "preview": (tmp_path / "lr.tif", scene), "both": (tmp_path / "lr.tif",) * 2,
    }[where]  # fmt: skip
    code, _, error = geosr("degrade", virtual, "--out", out, "--preview", picture, "--overwrite")
    assert (code, scene.read_bytes()) == (1, before)
    assert "is another file of this run" in error


def test_debug_shows_where_an_error_came_from(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["geosr", "--debug", "info", str(tmp_path / "missing.tif")])
    with pytest.raises(GeosrError, match="does not exist"):
        cli.main()
    done = process("--debug", "info", tmp_path / "missing.tif")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().endswith("missing.tif does not exist")


def test_a_defect_keeps_its_traceback(monkeypatch):
    """Only mistakes of the user are told in one line."""
    monkeypatch.setattr("geosr.models.shipped_models", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["geosr", "models"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_version_and_help(geosr):
    assert geosr("--version") == (0, f"geosr {__version__}\n", "")
    code, said, _ = geosr("--help")
    assert code == 0
    assert all(command in said for command in ("predict", "demo", "train", "info", "models"))
    code, said, _ = geosr("predict", "--help")
    assert code == 0
    assert all(option in said for option in ("--overwrite", "--restart", "--aoi", "--sensor"))
    code, said, error = geosr()
    assert "Usage" in said + error


def test_info_in_words(geosr, scene):
    code, said, _ = geosr("info", scene)
    assert code == 0
    for text in ("scene.tif", "B02, B03, B04, B08", "300 x 30", "EPSG:32633", "10 m", "uint16", "0.0001", "s2-rgbn-x4"):
        assert text in said, text
    assert "GDAL band scale and offset" in said


def test_info_in_json(geosr, scene):
    code, said, error = geosr("info", scene, "--json")
    facts = json.loads(said)
    assert (code, error) == (0, "")
    assert (facts["bands"], facts["size"], facts["crs"], facts["pixel"]) == (
        list(BANDS),
        "300 x 30",
        "EPSG:32633",
        "10 m",
    )
    assert (facts["scale"], facts["offset"], facts["nodata"], facts["dtype"]) == (1e-4, 0, 0, "uint16")
    assert facts["bounds"] == [400_000, 4_999_700, 403_000, 5_000_000]
    assert facts["models"][0] == "s2-rgbn-x4"
    assert facts["from"]["scale"] == "GDAL band scale and offset"


def test_info_on_a_silent_scene_says_what_is_missing(geosr, parana):
    code, said, _ = geosr("info", parana, "--json")
    facts = json.loads(said)
    assert code == 0
    assert "says nothing about their unit" in facts["radiometry"]
    assert "--scale 1e-4 --offset -0.1" in facts["radiometry"]
    assert "radiometry" in geosr("info", parana)[1]
    explained = json.loads(geosr("info", parana, "--sensor", "sentinel-2-l2a", "--baseline", "04.00", "--json")[1])
    assert (explained["scale"], explained["offset"]) == (1e-4, -0.1)


@pytest.mark.parametrize("kwargs", [{"crs": None, "transform": None}, {"nodata": float("nan"), "dtype": "float32"}])
def test_info_is_json_for_every_scene(geosr, make_raster, kwargs):
    """JSON has no NaN; a reader that keeps to the standard must get through."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    path = make_raster(np.full((1, 4, 4), 0.3 if "dtype" in kwargs else 3), **({"dtype": "uint16"} | kwargs))
    code, said, _ = geosr("info", path, "--json")
    assert code == 0
    assert json.loads(said, parse_constant=refuse)["size"] == "4 x 4"


def test_the_models_are_listed(geosr):
    code, said, error = geosr("models")
    assert (code, error) == (0, "")
    for weights in shipped_models():
        assert weights.spec.name in said
        assert f"x{weights.spec.scale * weights.spec.guide_scale}" in said
    specs = json.loads(geosr("models", "--json")[1])
    assert [spec["name"] for spec in specs] == [weights.spec.name for weights in shipped_models()]
    assert [spec["bytes"] for spec in specs] == [weights.path.stat().st_size for weights in shipped_models()]


def test_the_demo_writes_a_result_and_a_picture(geosr, scene, tmp_path, monkeypatch):
    """On a smaller scene: that of the demo takes seconds."""
    monkeypatch.setattr("geosr.demo.demo_scene", lambda: scene)
    folder = tmp_path / "new" / "folder"
    code, said, _ = geosr("demo", "--out", folder)
    assert code == 0
    assert "virginia_coast_sr.tif: 1200 x 120 pixels" in said
    assert sorted(path.name for path in folder.iterdir()) == ["virginia_coast_sr.png", "virginia_coast_sr.tif"]
    code, _, error = geosr("demo", "--out", folder)
    assert code == 1
    assert "exists; give --overwrite" in error
    assert geosr("demo", "--out", folder, "--overwrite", "-q") == (0, "", "")
    assert geosr("demo", "--path") == (0, f"{scene}\n", "")
    code, _, error = geosr("demo", "--out", scene)
    assert (code, error) == (1, f"error: folder {scene} cannot be made: File exists\n")


def test_the_demo_scene_says_everything_about_itself(geosr):
    facts = json.loads(geosr("info", demo_scene(), "--json")[1])
    assert (facts["bands"], facts["size"], facts["pixel"]) == (list(BANDS), "512 x 512", "10 m")
    assert (facts["scale"], facts["offset"], facts["nodata"]) == (1e-4, 0, 0)
    assert facts["models"]


def test_the_message_of_an_error_is_that_of_the_library(geosr, parana, tmp_path):
    from geosr import predict

    with pytest.raises(RadiometryError) as caught:
        predict(parana, tmp_path / "sr.tif")
    assert geosr("predict", parana, "-o", tmp_path / "sr.tif") == (1, "", f"error: {caught.value}\n")


# Training data


@pytest.fixture
def small_store(geosr, make_raster, tmp_path):
    """A training store of two scenes, the second at half the resolution of the first."""
    with rasterio.open(demo_scene()) as file:
        scene = make_raster(file.read(), name="a.tif", nodata=0, scale=1e-4, descriptions=BANDS)
    out = tmp_path / "train.zarr"
    options = ("--patch", 64, "--scales", "1", "0.5", "--split", "0.6", "0.2", "0.2", "--split-block", "1.28km")
    code, said, error = geosr("prepare", scene, "--out", out, *options)
    assert code == 0, error
    assert said.startswith(f"{out}: 2 scenes, ")
    assert error.splitlines()[-1].split() == ["100", "%"]
    return out


def test_a_prepared_store_is_checked_and_found_whole(geosr, small_store):
    code, said, _ = geosr("prepare", "--out", small_store, "--check")
    assert code == 0
    assert said.endswith("violations: 0\n")
    code, said, _ = geosr("prepare", "--out", small_store, "--check", "--json")
    assert (code, json.loads(said)["violations"]) == (0, [])


def test_a_damaged_store_fails_its_check(geosr, small_store):
    shard = max((path for path in small_store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    code, said, _ = geosr("prepare", "--out", small_store, "--check")
    assert code == 1
    assert "has checksum" in said


def test_info_knows_a_scene_of_a_store(geosr, small_store):
    code, said, _ = geosr("info", next((small_store / "scenes").iterdir()) / "hr", "--json")
    assert code == 0
    assert json.loads(said)["bands"] == list(BANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--split", "0.8", "0.2"), 2, "--split '0.8,0.2' is not 3 numbers"),
        (("--split-block", "wide"), 2, "--split-block 'wide' is no length"),
        (("--scales", "all"), 2, "--scales 'all' is not one or more numbers"),
        (("--stac", "http://localhost:9"), 2, "--stac needs --collection"),
    ],
)
def test_what_cannot_be_prepared_is_said(geosr, scene, tmp_path, arguments, code, says):
    done = geosr("prepare", scene, "--out", tmp_path / "t.zarr", *arguments)
    assert done[0] == code
    assert says in done[2]


def test_a_scene_is_degraded_as_training_does_with_a_picture(geosr, scene, tmp_path):
    out = tmp_path / "lr.tif"
    code, said, _ = geosr("degrade", scene, "--out", out, "-c", "config_10m.yaml", "--json")
    assert code == 0
    facts = json.loads(said)
    assert (facts["shape"], facts["parameters"]["mtf"]) == ([7, 75], pytest.approx([0.3] * 4))
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    with rasterio.open(out) as file, rasterio.open(scene) as hr:
        assert file.shape == (7, 75)
        assert file.transform.a == 4 * hr.transform.a
    assert geosr("degrade", scene, "--out", out)[0] == 1  # it exists
    code, said, _ = geosr("degrade", scene, "--out", out, "--overwrite", "--set", "Degradation.type=high_order")
    assert code == 0
    assert "high_order, x2" in said


def test_the_catalogue_is_listed_and_shown(geosr):
    code, said, _ = geosr("data", "list", "--json")
    assert code == 0
    assert {"geosr-demo", "sen2naip", "earth-search-sentinel-2-c1-l2a"} <= {row["id"] for row in json.loads(said)}
    assert "sen2venus" in geosr("data", "list")[1]
    code, said, _ = geosr("data", "show", "sen2naip")
    assert code == 0
    assert "10.1038/s41597-024-04214-y" in said
    code, _, error = geosr("data", "show", "sen2nap")
    assert code == 2
    assert "did you mean 'sen2naip'?" in error


def test_a_config_trains_from_a_prepared_store(geosr, small_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ("Generator.n_channels=8", "Generator.n_blocks=1", "Data.patch_size=16", "Data.train_batch_size=2")
    steps = ("Training.max_steps=2", "Training.val_every=2", "Training.accelerator=cpu", "Data.val_patches=3")
    code, said, error = geosr("train", "-c", "config_20m.yaml", f"Data.root={small_store}", *tiny, *steps, "-q")
    assert code == 0, error
    assert said.strip().endswith("s2-rgbn-x2-gan.safetensors")
    code, _, error = geosr("train", f"Data.root={small_store}", *tiny, "Data.patch_size=40", "-q")
    assert code == 1
    assert "has patches of 64 HR pixels" in error
