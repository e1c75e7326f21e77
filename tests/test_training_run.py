import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors import safe_open

import geosr
from geosr.config import load_config
from geosr.config.load import shipped_configs
from geosr.data.catalog import catalog_file
from geosr.data.datamodule import GeoSRDataModule
from geosr.data.scenes import expand_scenes
from geosr.demo import demo_scene
from geosr.errors import ConfigError, ModelError
from geosr.io.scene import open_scene
from geosr.models import load_model
from geosr.models.checkpoint import FACTS, read_checkpoint
from geosr.training import measure_run, train
from geosr.training.build import build_networks
from geosr.training.loggers import read_metrics
from geosr.training.module import SuperResolution
from geosr.training.run import describe_quality, quality

SCENE = "virginia_coast.tif"
TINY = [
    "Generator.n_channels=8",
    "Generator.n_blocks=1",
    "Data.train_batch_size=2",
    "Data.patch_size=12",
    f"Data.val_windows={{{SCENE}: [0, 0, 64, 80]}}",
    f"Data.exclude={{{SCENE}: [0, 0, 384, 512]}}",
    "Discriminator.base_channels=4",
    "Discriminator.n_blocks=1",
    "Training.max_steps=6",
    "Training.val_every=3",
    "Training.accelerator=cpu",
    "Training.g_pretrain_steps=-1",
    "Schedulers.metric=val_metrics/psnr_gain",
    "Logging.every=1",
    "Logging.num_val_images=1",
    "Logging.tensorboard=false",
]
GAN = ["Training.g_pretrain_steps=2", "Training.adv_loss_ramp_steps=2"]
TIMES = {"data_time", "step_time", "patches_per_second"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What ``geosr train`` leaves and says: the path of the weights, standard output and standard error."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "geosr", "train", "-c", "config_demo.yaml", *TINY]
    package = Path(geosr.__file__).parents[1]
    environment = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1], done.stdout, done.stderr


def averaged(checkpoint):
    """The averaged weights of a checkpoint, read without running what a stranger may have put into it."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    prefix = "ema.average.module.network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_a_run_says_what_it_will_do_and_where_everything_is(run):
    weights, _, told = run
    assert "training data: 1 scene, 26.2 km², B02 B03 B04 B08, LR made by sensor" in told
    assert re.search(r"validation 1 whole scene \(0\.01 million valid pixels\), test 0", told)
    assert re.search(r"generator: compact, demo-x2 \(x2, B02 B03 B04 B08, [\d,]+ parameters\)", told)
    assert "6 steps of 2 patches (" in told
    assert "content losses 0 to 6" in told
    assert re.search(r"validation: PSNR \d\d\.\d\d dB \([+-]\d+\.\d\d dB over bicubic\), SAM ", told)
    for name in ("report.html", weights.name, weights.parent.name):
        assert name in told
    log = (weights.parent / "train.log").read_text()
    assert "6 steps of 2 patches (" in log
    assert "report.html" in log


def test_a_run_prints_its_progress_and_at_last_the_path_of_the_weights(run):
    weights, printed, _ = run
    assert weights.is_file()
    assert "6/6" in printed
    assert re.fullmatch(r"runs/geosr/demo-x2-\d{8}-\d{6}/demo-x2\.safetensors", printed.splitlines()[-1])


def test_a_run_writes_below_its_folder_only(run):
    weights, _, _ = run
    assert {path.name for path in weights.parents[3].iterdir() if not path.name.startswith(".")} == {"runs"}
    assert {path.name for path in weights.parent.iterdir()} == {
        "best-3.ckpt", "best-6.ckpt", "last.ckpt", "config.yaml", "metrics.csv", "demo-x2.safetensors", "panels",
        "report.html", "summary.json", "train.log",
    }  # fmt: skip


def test_the_weights_are_the_averaged_ones_of_the_best_validation(run):
    weights, _, _ = run
    gains = {
        row["step"] + 1: row["val_metrics/psnr_gain"]
        for row in read_metrics(weights.parent)
        if "val_metrics/psnr_gain" in row
    }
    best = averaged(weights.parent / f"best-{max((3, 6), key=gains.get)}.ckpt")
    model = load_model(weights)
    assert best.keys() == model.network.state_dict().keys()
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, best[name]), name


def test_a_checkpoint_says_what_it_is_and_runs_no_code(run):
    weights, _, _ = run
    facts = torch.load(weights.parent / "last.ckpt", weights_only=True, map_location="cpu")[FACTS]
    assert facts["config"] == load_config("config_demo.yaml", TINY).to_dict()
    assert facts["spec"]["architecture"] == "compact"
    assert facts["step"] == 6


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


NEEDS_MORE = {"finetune_pairs.yaml", "config_own.yaml"}
"""Configs for data of one's own."""


@pytest.mark.parametrize("name", sorted(set(shipped_configs()) - NEEDS_MORE))
def test_every_shipped_config_goes_through_all_its_phases(here, shared_data, name):
    overrides = ["Training.accelerator=cpu", "Data.val_patches=2", "Data.patch_size=12"]
    if load_config(name).Data.root == "../shared/data":
        val = "s2/germany_fields_10m.tif" if name == "s2-20m-x2.yaml" else "s2/danube_a_10m.tif"
        windows = f"Data.val_windows={{{val}: [0, 0, 160, 160]}}"
        overrides += [f"Data.root={shared_data}", f"Data.val_scenes=[{val}]", windows]
    path = train(name, overrides, debug=True, quiet=True)
    config = load_config(path.parent / "config.yaml")
    summary = json.loads((path.parent / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("finished", 16)
    gains = {
        row["step"] + 1: row.get(config.Schedulers.metric) for row in read_metrics(path.parent) if row["step"] < 16
    }
    gains = {step: gain for step, gain in gains.items() if gain is not None}
    best = max(gains, key=gains.__getitem__) if config.Schedulers.metric == "val_metrics/psnr_gain" else 16
    assert load_model(path).spec.provenance["step"] == summary["weights_step"] == best
    judged = [row["step"] for row in read_metrics(path.parent) if "discriminator/adversarial_loss" in row]
    alone = config.Training.g_pretrain_steps if config.Training.pretrain_g_only else 0
    assert judged == ([] if alone == -1 else list(range(alone, 16)))


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


ZOO = sorted(name for name in shipped_configs() if load_config(name).Data.root == "../shared/data")


@pytest.mark.parametrize("name", ZOO)
def test_the_models_recipes_keep_what_they_are_judged_on_out_of_training(name, shared_data):
    config = load_config(name)
    told = yaml.safe_load((catalog_file().parent / "training_scenes.yaml").read_text("utf-8"))["recipes"]
    for patterns in (config.Data.train_scenes, config.Data.val_scenes):
        found = {path.relative_to(shared_data).as_posix() for path in expand_scenes(shared_data, patterns)}
        assert found <= {scene["path"] for scene in told}, "run `make models-report`"
        assert not {path for path in found if path.startswith("s2_test")}
    train_scenes = {path.name for path in expand_scenes(shared_data, config.Data.train_scenes)}
    val_scenes = {path.name for path in expand_scenes(shared_data, config.Data.val_scenes)}
    assert not train_scenes & val_scenes
    assert not {path for path in train_scenes if path.startswith("danube")}, "two dates of one place"
    with open_scene(shared_data / "s2" / "virginia_coast_10m.tif") as scene, open_scene(demo_scene()) as demo:
        row, column, height, width = config.Data.exclude["s2/virginia_coast_10m.tif"]
        left_out = scene.geobox[row : row + height, column : column + width].boundingbox
        assert left_out.left <= demo.geobox.boundingbox.left
        assert left_out.right >= demo.geobox.boundingbox.right
        assert left_out.bottom <= demo.geobox.boundingbox.bottom
        assert left_out.top >= demo.geobox.boundingbox.top


@pytest.mark.parametrize("name", ["config_20m.yaml", "s2-rgbn-x4.yaml"])
def test_a_run_on_the_example_says_so_first(here, name, caplog):
    overrides = ["Data.root=example", "Training.accelerator=cpu", "Data.patch_size=12", "Logging.num_val_images=0"]
    path = train(name, overrides, debug=True, quiet=True)
    first, *_, said = (path.parent / "train.log").read_text("utf-8").partition("training data:")
    assert "example set: these scenes come with geosr" in first
    assert "are for trying out" in first
    assert "Data.root=FOLDER" in first
    assert ("is left aside" in first) == (name != "config_20m.yaml")
    assert "4 scenes" in said
    scenes = load_model(path).spec.provenance["scenes"]
    assert scenes["train"] == [f"virginia_coast_{letter}.tif" for letter in "abcd"]
    assert len(scenes["val"]) == 6


def test_training_continues_from_weights(run, here):
    weights, _, _ = run
    config = load_config("config_demo.yaml", [*TINY, f"Model.load_checkpoint={weights}"])
    model, start = build_networks(config, GeoSRDataModule(config)).model, load_model(weights)
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
        ("Training.accelerator=mps", ConfigError),
        ("Model.continue_training=auto", ConfigError),
        ("Discriminator.n_blocks=9 Training.g_pretrain_steps=1", ModelError),
        ("Model.load_checkpoint=nothing.safetensors", ModelError),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing(here, override, error):
    with pytest.raises(error):
        train("config_demo.yaml", [*TINY, *override.split()], quiet=True)
    assert not list(here.iterdir())


def test_a_configuration_that_was_built_by_hand_is_checked(here):
    config = load_config("config_demo.yaml", TINY)
    config.Training.max_steps = -1
    with pytest.raises(ConfigError, match=r"Training\.max_steps is -1"):
        train(config, quiet=True)


def test_the_summary_names_each_figure_next_to_that_of_bicubic():
    figures = {"psnr": 35.204, "psnr_over_bicubic": 1.253, "sam": 1.3172, "sam_bicubic": 1.6489}
    figures |= {"ssim": 0.90586, "ssim_bicubic": 0.88128, "consistency": 4.03e-5, "consistency_bicubic": 3.1e-3}
    assert describe_quality(figures) == (
        "validation: PSNR 35.20 dB (+1.25 dB over bicubic), SAM 1.317° (bicubic 1.649°), SSIM 0.9059 (bicubic 0.8813), "
        "degraded output differs from the input by 4.0e-05 (bicubic 3.1e-03)"
    )


def test_a_figure_that_could_not_be_measured_is_absent_and_named():
    measured = {"val_metrics/psnr": 35.0, "val_metrics/psnr_gain": 1.0, "val_metrics/sam": 0.1}
    measured |= {"val_metrics/sam_bicubic": 0.2, "val_metrics/ssim": float("nan"), "updates": 6.0}
    figures = quality(measured)
    assert figures == {"psnr": 35.0, "psnr_over_bicubic": 1.0, "sam": 5.729578, "sam_bicubic": 11.459156}
    assert describe_quality(figures) == (
        "validation: PSNR 35.00 dB (+1.00 dB over bicubic), SAM 5.730° (bicubic 11.459°); too few valid pixels lie "
        "together to measure SSIM and consistency"
    )
    assert quality({}) == {}


# Going on where a run stopped

RESUMED = [
    *TINY, "Training.max_steps=12", "Training.val_every=6", "Training.g_pretrain_steps=4",
    "Training.adv_loss_ramp_steps=4",
    "Training.EMA.update_after_step=2", "Training.d_accuracy_limit=0.9", "Schedulers.name=plateau",
    "Schedulers.patience=0", "Schedulers.threshold=0.5", "Schedulers.g_warmup_steps=3", "Degradation.type=high_order",
    "Degradation.queue_size=5", "Data.num_workers=1", "Data.noise=0.001", "Training.Losses.gp_weight=0.1",
    "Logging.num_val_images=0",
]  # fmt: skip


def state_of(folder):
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True, map_location="cpu")
    return {
        name: checkpoint[name] for name in ("state_dict", "optimizer_states", FACTS, "GeoSRDataModule", "global_step")
    }


def rows_of(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(folder)]


def assert_same(ours, theirs, where=""):
    """Nested values are equal bit for bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train("config_demo.yaml", [*RESUMED, f"Logging.dir={folder}", "Logging.name=run"], quiet=True).parent


def test_a_resumed_run_ends_as_if_it_had_never_stopped(whole_run, here):
    stopped = here / "runs" / "geosr" / "run"
    stopped.mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv"):
        shutil.copy(whole_run / name, stopped / name)
    shutil.copy(whole_run / "best-6.ckpt", stopped / "last.ckpt")
    settings = ["Logging.dir=runs", "Logging.name=run", "Model.continue_training=auto"]
    weights = train("config_demo.yaml", [*RESUMED, *settings], quiet=True)
    assert weights.parent.resolve() == stopped.resolve()
    ours, theirs = state_of(stopped), state_of(whole_run)
    for state in (ours, theirs):  # where they were written, and which run they went on with
        state[FACTS]["config"]["Logging"]["dir"] = state[FACTS]["config"]["Model"]["continue_training"] = None
    assert_same(ours, theirs)
    assert_same(rows_of(stopped), rows_of(whole_run))
    exported, expected = load_model(weights), load_model(whole_run / weights.name)
    assert_same(dict(exported.network.state_dict()), dict(expected.network.state_dict()))


def test_killing_a_run_costs_the_steps_since_the_last_checkpoint(whole_run, here):
    package = Path(geosr.__file__).parents[1]
    threads = str(torch.get_num_threads())
    environment = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": threads, "PATH": "/usr/bin:/bin", "HOME": str(here)}
    command = [sys.executable, "-c", KILLED, *RESUMED, "Logging.name=run"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    stopped = here / "runs" / "geosr" / "run"
    assert max(row["step"] for row in read_metrics(stopped)) >= 8
    train("config_demo.yaml", [*RESUMED, "Logging.name=run", f"Model.continue_training={stopped}"], quiet=True)
    ours, theirs = state_of(stopped), state_of(whole_run)
    assert_same(ours["state_dict"], theirs["state_dict"])
    assert_same(rows_of(stopped), rows_of(whole_run))


KILLED = """
import os, signal, sys
from geosr.training import train
from geosr.training.module import SuperResolution

step = SuperResolution.training_step

def fatal(module, batch, index):
    if module.step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(module, batch, index)

SuperResolution.training_step = fatal
train("config_demo.yaml", sys.argv[1:], quiet=True)
"""
"""A run that is killed in its tenth step."""


def test_an_interrupt_ends_the_run_after_its_step(here, monkeypatch):
    step = SuperResolution.training_step

    def interrupted(module, batch, index):
        if module.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, index)

    monkeypatch.setattr(SuperResolution, "training_step", interrupted)
    weights = train("config_demo.yaml", [*TINY, *GAN], quiet=True)
    summary = json.loads((weights.parent / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("interrupted", 4)
    assert "interrupted" in (weights.parent / "report.html").read_text()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    again = train("config_demo.yaml", [*TINY, *GAN, "Model.continue_training=auto"], quiet=True)
    assert again == weights
    assert json.loads((weights.parent / "summary.json").read_text())["step"] == 6
    assert [row["step"] for row in read_metrics(weights.parent) if "lr_generator" in row] == list(range(6))


# With a discriminator


def test_a_gan_run_on_the_demo_scene(here):
    settings = [
        "Training.max_steps=120", "Training.val_every=20", "Training.g_pretrain_steps=60", "Training.accelerator=cpu",
        "Training.adv_loss_ramp_steps=20", "Data.train_batch_size=4", "Data.patch_size=24", "Logging.every=1",
        "Schedulers.g_warmup_steps=10", "Generator.n_channels=16", "Generator.n_blocks=2", "Training.precision=32-true",
        "Training.EMA.decay=0.95", "Logging.tensorboard=false", "Logging.num_val_images=1",
        f"Data.val_windows={{{SCENE}: [0, 0, 128, 160]}}",
    ]  # fmt: skip
    weights = train("config_demo.yaml", settings, quiet=True)
    rows = read_metrics(weights.parent)
    trained = [row for row in rows if "lr_generator" in row]
    l1 = [row["train_metrics/l1"] for row in trained]
    assert np.mean(l1[50:60]) < 0.97 * np.mean(l1[:10])
    assert [row["step"] for row in trained if "discriminator/adversarial_loss" in row] == list(range(60, 120))
    beta = load_config("config_demo.yaml").Training.Losses.adv_loss_beta
    ramp = [row["training/adv_loss_weight"] for row in trained]
    assert ramp[:61] == [0.0] * 61
    assert all(a < b for a, b in pairwise(ramp[60:81]))
    assert ramp[80:] == pytest.approx([beta] * 40, rel=1e-6)
    gains = [row["val_metrics/psnr_gain"] for row in rows if "val_metrics/psnr_gain" in row]
    assert gains[2] > gains[0] > 0
    # The average is no worse than the live weights, and what is exported is the average.
    live = torch.load(weights.parent / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    model = load_model(weights)
    other = load_model(weights)
    other.load_state_dict({name.removeprefix("model."): v for name, v in live.items() if name.startswith("model.")})
    with open_scene(demo_scene()) as scene:
        hr = torch.from_numpy(scene.read((slice(0, 128), slice(0, 160))).array)[None]
    lr = torch.from_numpy(degrade_oracle(hr[0].numpy().astype(float)))[None].float()
    with torch.inference_mode():
        errors = [float((network(lr) - hr).abs().mean()) for network in (model, other)]
    assert errors[0] <= errors[1] * 1.001
    out = here / "sr.tif"
    geosr.predict(demo_scene(), out, model=weights)
    with open_scene(out) as sr:
        assert sr.geobox.shape == (1024, 1024)


def test_a_run_starts_from_both_networks_of_another(here):
    first = train("config_demo.yaml", [*TINY, *GAN], quiet=True)
    config = load_config("config_demo.yaml", [*TINY, *GAN, f"Model.load_checkpoint={first.parent}"])
    networks = build_networks(config, GeoSRDataModule(config))
    state = torch.load(first.parent / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    for name, value in networks.discriminator.state_dict().items():
        assert torch.equal(value, state[f"adversary.network.{name}"]), name
    for name, value in averaged(first.parent / "last.ckpt").items():
        assert torch.equal(value, networks.model.network.state_dict()[name]), name
    other = load_config(
        "config_demo.yaml", [*TINY, *GAN, f"Model.load_checkpoint={first.parent}", "Discriminator.n_blocks=2"]
    )
    with pytest.raises(ConfigError, match="is not the one of the configuration's Discriminator section"):
        build_networks(other, GeoSRDataModule(other))


def test_exported_and_reloaded_weights_and_those_in_training_predict_the_same(here):
    weights = train("config_demo.yaml", [*TINY, *GAN], quiet=True)
    checkpoint = read_checkpoint(weights.parent / "last.ckpt").model
    lr = torch.rand(1, 4, 20, 24, generator=torch.Generator().manual_seed(0)) * 0.3
    with torch.inference_mode():
        assert torch.equal(load_model(weights).eval()(lr), checkpoint(lr))


# Several processes


def test_two_processes_leave_one_run(here):
    package = Path(geosr.__file__).parents[1]
    environment = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(here)}
    command = [
        sys.executable,
        "-m",
        "geosr",
        "train",
        "-c",
        "config_demo.yaml",
        "--devices",
        "2",
        "-q",
        *TINY,
        *GAN,
    ]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "runs" / "geosr").iterdir()
    assert (folder / "summary.json").is_file()
    trained = [row["step"] for row in read_metrics(folder) if "lr_generator" in row]
    assert trained == list(range(6))
    assert load_model(folder / "demo-x2.safetensors").spec.provenance["step"] == 6


# What a run would need


def test_a_dry_run_measures_and_leaves_nothing(here):
    needs = measure_run("config_demo.yaml", [*TINY, *GAN])
    assert not list(here.iterdir())
    assert needs.step_seconds > 0
    assert needs.memory > 50e6
    assert (needs.steps, needs.device) == (6, "cpu")
    told = str(needs)
    assert "discriminator: PatchGAN" in told
    assert re.search(r"a step takes [\d.e-]+ s and \d+\.\d\d GB on the cpu; 6 of them", told)


def test_quality_of_a_weights_file_is_in_decibels_and_degrees():
    measured = {f"val_metrics/{name}": 0.5 for name in ("psnr", "psnr_gain", "ssim", "sam", "consistency")}
    measured |= {f"val_metrics/{name}_bicubic": 0.25 for name in ("ssim", "sam", "consistency")}
    assert quality(measured)["sam"] == pytest.approx(28.647890)
    assert quality(measured)["psnr_over_bicubic"] == 0.5
    assert quality({}) == {}
