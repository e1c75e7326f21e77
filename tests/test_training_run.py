import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import geosr
from geosr.config import load_config
from geosr.data.datamodule import GeoSRDataModule
from geosr.data.scenes import expand_scenes
from geosr.demo import demo_scene
from geosr.errors import ConfigError, ModelError
from geosr.io.scene import open_scene
from geosr.models import load_model
from geosr.training import train
from geosr.training.run import _without_noise, build_model, summary

SCENE = "virginia_coast.tif"
TINY = [
    "Generator.n_channels=8",
    "Generator.n_blocks=1",
    "Data.train_batch_size=2",
    "Data.patch_size=12",
    f"Data.val_windows={{{SCENE}: [0, 0, 64, 80]}}",
    f"Data.exclude={{{SCENE}: [0, 0, 384, 512]}}",
    "Training.max_steps=6",
    "Training.val_every=3",
    "Training.accelerator=cpu",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What ``geosr train`` leaves and says: the path of the weights, standard output and standard error."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "geosr.cli", "train", "-c", "config_demo.yaml", *TINY]
    package = Path(geosr.__file__).parents[1]
    environment = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1], done.stdout, done.stderr


def averaged(checkpoint):
    """The averaged weights of a checkpoint, read without running what a stranger may have put into it."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    prefix = "ema.module.network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_a_run_shows_the_data_the_model_and_the_figures_and_nothing_else(run):
    _, _, told = run
    lines = told.splitlines()
    assert len(lines) == 5, told
    assert lines[0] == "training data: 1 scene, 26.2 km², B02 B03 B04 B08, LR made by sensor"
    assert re.fullmatch(r"  train [\d,]+, validation 1 whole scene \(0\.01 million valid pixels\), test 0", lines[2])
    assert re.fullmatch(r"training demo-x2 \(x2, B02 B03 B04 B08, [\d,]+ parameters\)", lines[3])
    assert re.match(r"validation: PSNR \d\d\.\d\d dB \([+-]\d+\.\d\d dB over bicubic\), SAM ", lines[4])


def test_a_run_prints_its_progress_and_at_last_the_path_of_the_weights(run):
    weights, printed, _ = run
    assert weights.is_file()
    assert "6/6" in printed
    assert re.fullmatch(r"runs/demo-x2-\d{8}-\d{6}/demo-x2\.safetensors", printed.splitlines()[-1])


def test_a_run_writes_below_its_folder_only(run):
    weights, _, _ = run
    assert {path.name for path in weights.parents[2].iterdir() if not path.name.startswith(".")} == {"runs"}
    assert {"best.ckpt", "last.ckpt", "config.yaml", "metrics.csv"} <= {path.name for path in weights.parent.iterdir()}


def test_the_weights_are_the_averaged_ones_of_the_best_validation(run):
    weights, _, _ = run
    best = averaged(weights.parent / "best.ckpt")
    model = load_model(weights)
    assert best.keys() == model.network.state_dict().keys()
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, best[name]), name


def test_the_weights_file_keeps_the_parameter_names(run):
    weights, _, _ = run
    with safe_open(weights, framework="pt") as file:
        assert set(file.keys()) == {f"body.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")} | {
            "body.1.weight",
            "body.3.weight",
        }


def test_the_header_says_where_the_weights_come_from(run):
    weights, _, _ = run
    spec = load_model(weights).spec
    config = load_config("config_demo.yaml", TINY)
    assert spec.provenance["config"] == config.to_dict()
    assert spec.provenance["scenes"] == {"train": [SCENE], "val": [SCENE]}
    assert spec.provenance["geosr"] == geosr.__version__
    assert spec.provenance["step"] in (3, 6)
    assert "Copernicus Sentinel data" in spec.provenance["attribution"]
    assert (spec.name, spec.scale, spec.bands, spec.gsd) == ("demo-x2", 2, ("B02", "B03", "B04", "B08"), 10.0)
    assert spec.halo == 3 + 8


def test_the_configuration_beside_the_weights_starts_the_same_run(run):
    weights, _, _ = run
    assert load_config(weights.parent / "config.yaml") == load_config("config_demo.yaml", TINY)


def degrade_oracle(hr):
    """The degradation of ../shared/data/README.md for x2 by scipy, in float64."""
    from scipy.ndimage import correlate1d

    sigma = np.sqrt(-2 * np.log(0.3 * np.pi / 2)) * 2 / np.pi
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    for axis in (1, 2):
        hr = correlate1d(hr, kernel / kernel.sum(), axis=axis, mode="mirror")
    return hr.reshape(hr.shape[0], hr.shape[1] // 2, 2, hr.shape[2] // 2, 2).mean((2, 4))


def test_the_header_s_quality_is_what_the_weights_reach(run):
    weights, _, told = run
    model = load_model(weights)
    with open_scene(demo_scene()) as scene:
        hr = scene.read((slice(0, 64), slice(0, 80))).array.astype(float)
    lr = torch.from_numpy(degrade_oracle(hr))[None].float()
    with torch.inference_mode():
        images = (model(lr), F.interpolate(lr, scale_factor=2, mode="bicubic", align_corners=False))
    ours, theirs = (-10 * np.log10(np.mean((image[0].double().numpy() - hr)[:, 8:-8, 8:-8] ** 2)) for image in images)
    assert model.spec.quality["psnr"] == pytest.approx(ours, abs=1e-3)
    assert model.spec.quality["psnr_over_bicubic"] == pytest.approx(ours - theirs, abs=2e-3)
    assert f"{ours - theirs:+.1f}"[:-1] in told
    assert model.spec.quality["consistency"] < model.spec.quality["consistency_bicubic"] / 20


def test_the_same_seed_gives_the_same_weights(here):
    first, second, other = (
        load_model(train("config_demo.yaml", [*TINY, f"Logging.dir={name}", f"Training.seed={seed}"], quiet=True))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    assert not torch.equal(first.network.body[0].weight, other.network.body[0].weight)


def test_quiet_prints_nothing(here, capfd):
    train("config_demo.yaml", [*TINY, "Training.max_steps=1"], quiet=True)
    assert capfd.readouterr() == ("", "")


SHRUNK = [setting for setting in TINY if setting.split("=")[0] not in ("Data.val_windows", "Data.exclude")]


@pytest.mark.parametrize(
    ("name", "precision"),
    [("config_10m.yaml", "32-true"), ("config_20m.yaml", "bf16-mixed"), ("config_demo.yaml", "auto")],
)
def test_every_shipped_config_starts(here, shared_data, name, precision):
    overrides = [*SHRUNK, "Training.max_steps=2", f"Training.precision={precision}"]
    if name != "config_demo.yaml":
        overrides += [f"Data.root={shared_data}", "Data.val_scenes=[s2_20m_grid/lidia.tif]"]
    spec = load_model(train(name, overrides, quiet=True)).spec
    assert spec.provenance["step"] == 2
    assert spec.scale == {"config_10m.yaml": 4}.get(name, 2)


def test_the_config_for_own_scenes_needs_a_folder_and_nothing_else(here):
    (here / "scenes").mkdir()
    (here / "scenes" / "a.tif").symlink_to(demo_scene())
    settings = [*SHRUNK, "Training.max_steps=2", "Data.split_block=1000", "Data.val_patches=4"]
    spec = load_model(train("config_own.yaml", ["Data.root=scenes", *settings], quiet=True)).spec
    assert spec.provenance["scenes"] == {"train": ["a.tif"], "val": []}


def test_the_demo_config_teaches_and_tests_on_different_pixels():
    data = GeoSRDataModule(load_config("config_demo.yaml"))
    assert data.patches.row.min() == 256
    assert data.patches.row.max() == 512 - data.size
    (val,) = data.selection.val
    assert val.window == (slice(0, 256), slice(0, 512))


@pytest.mark.parametrize("name", ["config_10m.yaml", "config_20m.yaml"])
def test_shipped_configs_keep_what_they_are_judged_on_out_of_training(name, shared_data):
    config = load_config(name)
    train_scenes = {path.name for path in expand_scenes(shared_data, config.Data.train_scenes)}
    val_scenes = {path.name for path in expand_scenes(shared_data, config.Data.val_scenes)}
    assert not train_scenes & val_scenes
    assert not {path for path in train_scenes if path.startswith("danube")}, "two dates of one place"
    with open_scene(shared_data / "s2" / "virginia_coast_10m.tif") as scene, open_scene(demo_scene()) as demo:
        row, column, height, width = config.Data.exclude["s2/virginia_coast_10m.tif"]
        assert scene.geobox[row : row + height, column : column + width] == demo.geobox


def test_training_continues_from_weights(run, here):
    weights, _, _ = run
    config = load_config("config_demo.yaml", [*TINY, f"Model.load_checkpoint={weights}"])
    model, start = build_model(config, GeoSRDataModule(config)), load_model(weights)
    assert model.spec.arguments == start.spec.arguments
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, start.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("Generator.scaling_factor=4", "scale 2, the configuration says 4"),
        ("Data.bands=[B04,B08]", r"the configuration says \('B04', 'B08'\)"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(run, here, override, told):
    weights, _, _ = run
    with pytest.raises(ConfigError, match=rf"Model\.load_checkpoint has .*{told}"):
        train("config_demo.yaml", [*TINY, f"Model.load_checkpoint={weights}", override], quiet=True)
    assert not list(here.iterdir()), "a run that cannot start leaves nothing"


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("Training.max_steps=0", ConfigError),
        ("Data.root=nowhere", ConfigError),
        ("Data.patch_size=300", ConfigError),
        ("Model.load_checkpoint=nothing.safetensors", ModelError),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing(here, override, error):
    with pytest.raises(error):
        train("config_demo.yaml", [*TINY, override], quiet=True)
    assert not list(here.iterdir())


def test_a_configuration_that_was_built_by_hand_is_checked(here):
    config = load_config("config_demo.yaml", TINY)
    config.Training.max_steps = -1
    with pytest.raises(ConfigError, match=r"Training\.max_steps is -1"):
        train(config, quiet=True)


def test_the_summary_names_each_figure_next_to_that_of_bicubic():
    figures = {"psnr": 35.204, "psnr_over_bicubic": 1.253, "sam": 1.3172, "sam_bicubic": 1.6489}
    figures |= {"ssim": 0.90586, "ssim_bicubic": 0.88128, "consistency": 4.03e-5, "consistency_bicubic": 3.1e-3}
    assert summary(figures) == (
        "validation: PSNR 35.20 dB (+1.25 dB over bicubic), SAM 1.317° (bicubic 1.649°), SSIM 0.9059 (bicubic 0.8813), "
        "degraded output differs from the input by 4.0e-05 (bicubic 3.1e-03)"
    )


def test_silence_ends_with_the_run():
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)

    def fail():
        with _without_noise():
            assert logger.level == logging.WARNING
            warnings.warn("Checkpoint directory x exists and is not empty.", stacklevel=1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert logger.level == level
    assert warnings.filters == filters


def test_a_warning_that_matters_is_still_heard():
    with _without_noise(), pytest.warns(UserWarning, match="the loss is NaN"):
        warnings.warn("the loss is NaN", stacklevel=1)
