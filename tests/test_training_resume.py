import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from time import sleep

import pytest
import torch
import yaml

import geosr
from geosr.errors import ConfigError, ModelError, OutputError
from geosr.models import load_model
from geosr.models.checkpoint import FACTS
from geosr.training import settings_of, train
from geosr.training.loggers import read_metrics
from geosr.training.module import SuperResolution
from geosr.training.resume import reopen

SCENE = "virginia_coast.tif"
TINY = [
    "Generator.n_channels=8", "Generator.n_blocks=1", "Data.train_batch_size=2", "Data.patch_size=12",
    f"Data.val_windows={{{SCENE}: [0, 0, 64, 80]}}", f"Data.exclude={{{SCENE}: [0, 0, 384, 512]}}",
    "Training.accelerator=cpu", "Schedulers.metric=val_metrics/psnr_gain", "Schedulers.name=constant",
    "Schedulers.g_warmup_steps=2", "Logging.every=1", "Logging.num_val_images=0", "Logging.tensorboard=false",
    "Training.val_every=2",
]  # fmt: skip
TIMES = {"data_time", "step_time", "patches_per_second"}


def go(folder, steps, *settings, config="config_demo.yaml"):
    """Train in, or go on with, the run in ``folder``: its summary."""
    exists = (folder / "last.ckpt").exists()
    where = [f"Model.continue_training={folder}"] if exists else [f"Logging.name={folder.name}"]
    start = [] if exists else [f"Logging.dir={folder.parent.parent}", f"Logging.project={folder.parent.name}"]
    train(config, [*TINY, f"Training.max_steps={steps}", *start, *where, *settings], quiet=True)
    return json.loads((folder / "summary.json").read_text())


def learned(folder):
    """Weights and optimiser of a run's last step, each tensor by a name."""
    state = torch.load(folder / "last.ckpt", weights_only=True, map_location="cpu")
    moments = state["optimizer_states"][0]["state"]
    return state["state_dict"] | {f"{n}.{name}": value for n, kept in moments.items() for name, value in kept.items()}


def rows(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(folder)]


def trained(folder):
    return [row["step"] for row in rows(folder) if "lr_generator" in row]


@pytest.fixture(scope="module", autouse=True)
def _quick_reports():
    """Reports without curves, which take longer to draw than these runs to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geosr.training.report._curves", lambda series, **how: "")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "runs" / "geosr" / "run"
    go(folder, 4)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A run of four steps that has finished."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# More steps


def test_a_finished_run_that_gets_more_steps_ends_as_if_it_had_them_at_once(run, tmp_path):
    summary = go(run, 5)  # no validation falls on the last step
    assert (summary["status"], summary["step"], summary["steps"]) == ("finished", 5, 5)
    summary = go(run, 8)
    assert (summary["status"], summary["step"], summary["steps"]) == ("finished", 8, 8)
    assert trained(run) == list(range(8))
    whole = tmp_path / "runs" / "geosr" / "whole"
    go(whole, 8)
    ours, theirs = learned(run), learned(whole)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert rows(run) == rows(whole)
    exported, expected = (load_model(folder / "demo-x2.safetensors").state_dict() for folder in (run, whole))
    for name in expected:
        assert torch.equal(exported[name], expected[name]), name


def test_a_run_that_died_in_its_last_validation_makes_that_again(tmp_path, monkeypatch):
    folder, whole = tmp_path / "runs" / "geosr" / "died", tmp_path / "runs" / "geosr" / "whole"
    start = SuperResolution.on_validation_start

    def dies(module):
        if module.step == 4:
            raise RuntimeError("killed")
        start(module)

    monkeypatch.setattr(SuperResolution, "on_validation_start", dies)
    with pytest.raises(RuntimeError, match="killed"):
        go(folder, 4)
    monkeypatch.setattr(SuperResolution, "on_validation_start", start)
    go(folder, 6, "Schedulers.name=plateau")
    go(whole, 6, "Schedulers.name=plateau")
    assert [row["step"] for row in rows(folder) if "val_metrics/l1" in row] == [1, 3, 5]
    assert rows(folder) == rows(whole)


def test_a_finished_run_without_more_steps_is_left_as_it_is(run, caplog):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "train.log"}
    with caplog.at_level(logging.INFO, "geosr"):
        assert go(run, 4)["step"] == 4
    assert "has done its 4 steps: nothing is left to train" in caplog.text
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name in before} == before


def test_a_finished_run_without_its_weights_file_gets_it(run):
    weights = run / "demo-x2.safetensors"
    expected = load_model(weights).state_dict()
    weights.unlink()
    assert go(run, 4)["status"] == "finished"
    assert trained(run) == list(range(4))
    for name, value in load_model(weights).state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_cosine_that_gets_longer_is_said(run, caplog):
    with caplog.at_level(logging.INFO, "geosr"):
        go(run, 6, "Schedulers.name=cosine")
    assert "the learning rates follow a cosine of 6 steps from here on, no longer that of 4" in caplog.text


def test_a_run_that_its_time_stopped_says_so_and_goes_on_with_time_of_its_own(tmp_path, monkeypatch):
    folder, step = tmp_path / "runs" / "geosr" / "timed", SuperResolution.training_step

    def slow(module, batch, index):
        sleep(0.6)
        return step(module, batch, index)

    monkeypatch.setattr(SuperResolution, "training_step", slow)
    summary = go(folder, 4, "Training.max_time=00:00:00:01")
    assert (summary["status"], summary["step"]) == ("stopped", 2)
    assert summary["reason"] == "the time of Training.max_time was over"
    monkeypatch.undo()
    summary = go(folder, 4, "Training.max_time=00:01:00:00")
    assert (summary["status"], summary["step"], summary["reason"]) == ("finished", 4, None)
    assert trained(folder) == list(range(4))


def test_a_run_that_lost_its_patience_says_so_and_goes_on_with_more(tmp_path):
    folder = tmp_path / "runs" / "geosr" / "impatient"
    settings = ["Training.val_every=1", "Optimizers.optim_g_lr=1e-12"]  # nothing gets better
    summary = go(folder, 8, *settings, "Training.early_stopping_patience=1")
    assert summary["status"] == "stopped"
    assert summary["step"] < 8
    assert "Training.early_stopping_patience" in summary["reason"]
    last = torch.load(folder / "last.ckpt", weights_only=True, map_location="cpu")[FACTS]
    assert last["step"] == summary["step"], "the last checkpoint is that of the last step, not of the best"
    assert go(folder, 8, *settings, "Training.early_stopping_patience=0")["status"] == "finished"


@pytest.mark.parametrize("validated", [True, False])
def test_a_finished_epoch_is_open_again_for_more_steps(validated):
    count = {"ready": 4, "started": 4, "processed": 4, "completed": 4 if validated else 3}
    loops = {
        "fit_loop": {"epoch_loop.batch_progress": {"total": dict(count), "current": dict(count), "is_last_batch": True}}
    }
    reopen(loops, step=4, total=9)
    state = loops["fit_loop"]
    assert state["epoch_loop.batch_progress"]["is_last_batch"] is False
    assert state["epoch_progress"]["current"]["processed"] == 0
    assert state["epoch_loop.val_loop.batch_progress"]["total"]["started"] == (0 if validated else 1)


# Elsewhere


def test_a_run_that_was_moved_takes_its_best_weights_from_its_own_folder(finished, run):
    assert finished.is_dir(), "the old place has checkpoints of the same names"
    state = torch.load(run / "best-4.ckpt", weights_only=True, map_location="cpu")
    for value in state["state_dict"].values():
        if value.is_floating_point():
            value.mul_(1.01)  # as if another one had trained on in the copy
    torch.save(state, run / "best-4.ckpt")
    (run / "demo-x2.safetensors").unlink()
    go(run, 4)
    exported = load_model(run / "demo-x2.safetensors").state_dict()
    for name, value in exported.items():
        assert torch.equal(value, state["state_dict"][f"ema.average.module.{name}"]), name
    assert yaml.safe_load((run / "config.yaml").read_text())["Model"]["continue_training"] is None


def test_a_run_whose_best_checkpoint_is_gone_ends_with_what_it_has(run, caplog):
    for path in run.glob("best-*.ckpt"):
        path.unlink()
    assert go(run, 6)["step"] == 6
    assert "is not there any more" in caplog.text


def test_the_settings_of_a_run_are_in_its_folder_or_in_its_checkpoint(run):
    assert settings_of(str(run)) == settings_of(str(run / "best-4.ckpt")) == run / "config.yaml"
    (run / "config.yaml").unlink()
    settings = settings_of(str(run))
    assert settings["Generator"]["n_channels"] == 8
    assert go(run, 6, config=settings)["step"] == 6
    assert settings_of("auto") is None


def test_settings_of_a_checkpoint_that_name_code_are_refused(run):
    (run / "config.yaml").unlink()
    state = torch.load(run / "last.ckpt", weights_only=True)
    state[FACTS]["config"]["Generator"]["class_path"] = "evil.Network"
    torch.save(state, run / "last.ckpt")
    with pytest.raises(ConfigError, match=r"names a network of the user's own; give the run's configuration"):
        settings_of(str(run))


# Checkpoints that do not fit


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("Generator.n_channels=16", r"Generator\.n_channels 8 there and 16 here"),
        ("Training.EMA.enabled=false", r"Training\.EMA\.enabled True there and False here"),
        ("Training.g_pretrain_steps=2", r"Training\.g_pretrain_steps 300 there and 2 here"),
    ],
)
def test_a_checkpoint_of_other_networks_is_refused_with_the_settings_that_differ(run, setting, named):
    last = (run / "last.ckpt").read_bytes()
    with pytest.raises(ConfigError, match=rf"holds other networks or optimisers .*{named}.*run/config\.yaml") as error:
        go(run, 6, setting)
    assert "size mismatch" not in str(error.value)
    assert (run / "last.ckpt").read_bytes() == last


def damage(path, how):
    content = path.read_bytes()
    if how == "flipped":
        with zipfile.ZipFile(path) as archive:
            largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
        place = content.index(largest) + len(largest) // 2
        content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    path.write_bytes({"cut": content[:-500], "empty": b"", "junk": b"PK" + bytes(5000)}.get(how, content))


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "junk"])
def test_a_damaged_checkpoint_is_refused_with_one_that_is_whole(run, how):
    damage(run / "last.ckpt", how)
    damage(run / "best-2.ckpt", "cut")
    with pytest.raises(
        ModelError, match=r"last\.ckpt is .*Go on from step 4 with --resume \S+/run/best-4\.ckpt"
    ) as error:
        go(run, 6)
    assert "best-2" not in str(error.value)
    if how == "junk":
        assert go_from(run / "best-4.ckpt", 5)["step"] == 5


def go_from(checkpoint, steps):
    train(
        "config_demo.yaml", [*TINY, f"Training.max_steps={steps}", f"Model.continue_training={checkpoint}"], quiet=True
    )
    return json.loads((checkpoint.parent / "summary.json").read_text())


@pytest.mark.parametrize("part", ["state_dict", "optimizer_states", "loops", "callbacks", "GeoSRDataModule", FACTS])
def test_a_checkpoint_without_a_part_is_refused(run, part):
    state = torch.load(run / "last.ckpt", weights_only=True)
    state[part] = 7
    torch.save(state, run / "last.ckpt")
    with pytest.raises(ModelError, match=rf"is no checkpoint of a geosr run: it holds no {part}"):
        go(run, 6)


# One process at a time

HOLDS = """
import sys, time
from pathlib import Path
from geosr.training.folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_belongs_to_one_process_until_that_dies(run):
    environment = {**os.environ, "PYTHONPATH": str(Path(geosr.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDS, str(run)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        before = (run / "metrics.csv").read_bytes()
        with pytest.raises(OutputError, match=r"another geosr process is writing the run in "):
            go(run, 6)
        assert (run / "metrics.csv").read_bytes() == before
        other.send_signal(signal.SIGKILL)
    assert go(run, 6)["step"] == 6
