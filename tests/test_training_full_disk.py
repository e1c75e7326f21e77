"""Runs whose disk is full: whatever cannot be written, the message names it, and what was there before is whole."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import geosr
from geosr import files
from geosr.config import load_config
from geosr.errors import OutputError, TrainingError
from geosr.models import load_model
from geosr.models.checkpoint import require_intact
from geosr.training import train
from geosr.training.checkpoints import save_state
from geosr.training.module import SuperResolution

SCENE = "virginia_coast.tif"
TINY = [
    "Generator.n_channels=8", "Generator.n_blocks=1", "Data.train_batch_size=2", "Data.patch_size=12",
    f"Data.val_windows={{{SCENE}: [0, 0, 64, 80]}}", f"Data.exclude={{{SCENE}: [0, 0, 384, 512]}}",
    "Training.accelerator=cpu", "Training.max_steps=4", "Training.val_every=2", "Logging.every=1",
    "Logging.num_val_images=1", "Logging.tensorboard=false", "Logging.name=run",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("geosr.training.report._curves", lambda series, **how: "")
    return tmp_path


@pytest.fixture
def folder(here):
    return here / "runs" / "geosr" / "run"


def fill_disk(monkeypatch, *, of, after=0):
    """Let the writing of files whose names hold ``of`` fail, the first ``after`` times not."""
    publish, times = files.publish, []

    def publish_or_fail(unfinished, target, **how):
        if of in Path(target).name:
            times.append(target)
            if len(times) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(unfinished))
        return publish(unfinished, target, **how)

    monkeypatch.setattr(files, "publish", publish_or_fail)


@pytest.mark.parametrize(
    ("of", "after"),
    [
        ("config.yaml", 0), ("metrics.csv", 0), ("step_", 0), ("best-", 0), ("last.ckpt", 1), ("report", 0),
        ("safetensors", 0), ("summary", 0),
    ],
)  # fmt: skip
def test_whatever_has_no_place_is_named_with_the_way_on(folder, monkeypatch, of, after):
    fill_disk(monkeypatch, of=of, after=after)
    with pytest.raises(OutputError, match=rf"{of}\S* could not be written: No space left on device; ") as error:
        train("config_demo.yaml", TINY, quiet=True)
    checkpoint = folder / "last.ckpt"
    assert ("go on with --resume " in str(error.value)) == checkpoint.is_file()
    for path in folder.rglob("*"):
        assert not path.name.startswith("."), "nothing half-written is left"
    if (folder / "config.yaml").exists():
        assert load_config(folder / "config.yaml").Training.max_steps == 4
    if checkpoint.is_file():
        require_intact(checkpoint)
        monkeypatch.undo()
        monkeypatch.setattr("geosr.training.report._curves", lambda series, **how: "")
        weights = train("config_demo.yaml", [*TINY, f"Model.continue_training={folder}"], quiet=True)
        whole = train("config_demo.yaml", [*TINY, "Logging.name=whole"], quiet=True)
        for name, value in load_model(whole).state_dict().items():
            assert torch.equal(load_model(weights).state_dict()[name], value), name


def test_a_full_disk_does_not_hide_why_a_run_failed(folder, monkeypatch, caplog):
    step = SuperResolution.training_step

    def broken(module, batch, index):
        if module.step == 3:
            fill_disk(monkeypatch, of="")
            batch["hr"].fill_(float("nan"))
        return step(module, batch, index)

    monkeypatch.setattr(SuperResolution, "training_step", broken)
    with caplog.at_level(logging.WARNING, "geosr"), pytest.raises(TrainingError, match="not finite at step 3") as error:
        train("config_demo.yaml", TINY, quiet=True)
    assert "The batch is lost: " in str(error.value)
    assert "the report of the run could not be written either" in caplog.text


def test_a_checkpoint_that_has_no_place_leaves_the_one_before(here, monkeypatch):
    path = here / "last.ckpt"
    save_state({"step": 1}, path)
    fill_disk(monkeypatch, of="last")
    with pytest.raises(OutputError, match=r"last\.ckpt could not be written: No space left on device"):
        save_state({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [each.name for each in here.iterdir()] == ["last.ckpt"]


LIMITED = """
import resource, signal, sys
from geosr.cli import main
import geosr.training
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[1:] = sys.argv[2:]
main()
"""


def test_the_command_ends_with_a_sentence_where_files_may_not_grow(here):
    package = Path(geosr.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, "400", "train", "-c", "config_demo.yaml", *TINY]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    assert "config.yaml could not be written: File too large" in done.stderr.splitlines()[-1]
    assert not list(here.rglob("config.yaml"))
