import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from geosr.config import Config
from geosr.errors import ConfigError
from geosr.training.folder import find_checkpoint, latest_run, new_run


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_NAME", raising=False)
    config = Config()
    config.Logging.dir, config.Logging.project, config.Model.name = str(tmp_path / "runs"), "p", "m"
    return config


def make_run(config, name, *, age=0, model="m", checkpoint=True):
    """A run that stopped `age` seconds after 1970."""
    config.Logging.name = name
    folder = new_run(config)
    (folder / "config.yaml").write_text(yaml.safe_dump({"Model": {"name": model}}))
    if checkpoint:
        (folder / "last.ckpt").write_bytes(b"")
        os.utime(folder / "last.ckpt", (age, age))
    return folder


def test_a_run_is_named_by_the_config_then_by_the_environment_then_by_model_and_time(config, tmp_path, monkeypatch):
    assert re.fullmatch(r"m-\d{8}-\d{6}", new_run(config).name)
    monkeypatch.setenv("WANDB_NAME", "of-the-environment")
    assert new_run(config).name == "of-the-environment"
    config.Logging.name = "of-the-config"
    folder = new_run(config)
    assert folder == tmp_path / "runs" / "p" / "of-the-config"
    assert folder.is_dir()


def test_an_empty_name_in_the_environment_is_none(config, monkeypatch):
    monkeypatch.setenv("WANDB_NAME", "")
    assert new_run(config).name.startswith("m-")


def test_a_name_that_is_taken_is_numbered(config):
    config.Logging.name = "a"
    assert [new_run(config).name for _ in range(3)] == ["a", "a-2", "a-3"]


def test_runs_that_start_at_once_get_a_folder_each(config):
    config.Logging.name = "a"
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run(config), range(24)))
    assert len(set(folders)) == 24


@pytest.mark.parametrize("name", ["a/b", "..", "/a"])
def test_a_name_that_is_a_path_is_refused(config, name, tmp_path):
    config.Logging.name = name
    with pytest.raises(ConfigError, match=r"Logging\.name is .*one folder"):
        new_run(config)
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_told(config, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be kept in .*Logging\.dir"):
        new_run(config)


def test_the_latest_run_is_the_one_whose_checkpoint_is_the_youngest(config):
    assert latest_run(config) is None
    make_run(config, "z", age=1)
    youngest = make_run(config, "y", age=3)
    make_run(config, "x", age=2)
    make_run(config, "other", age=4, model="n")
    make_run(config, "unfinished", checkpoint=False)
    (make_run(config, "damaged", age=5) / "config.yaml").write_text("Model: [")
    (make_run(config, "empty", age=6) / "config.yaml").write_text("")
    assert latest_run(config) == youngest


def test_a_checkpoint_is_found_by_auto_folder_and_file(config):
    folder = make_run(config, "a")
    for where in ("auto", str(folder), str(folder / "last.ckpt")):
        assert find_checkpoint(where, config) == folder / "last.ckpt"


def test_a_checkpoint_that_is_not_there_is_told(config, tmp_path):
    with pytest.raises(ConfigError, match=r"no run of 'm' in .*runs/p has a last\.ckpt"):
        find_checkpoint("auto", config)
    with pytest.raises(ConfigError, match=r"has no last\.ckpt"):
        find_checkpoint(str(make_run(config, "a", checkpoint=False)), config)
    (tmp_path / "w.safetensors").write_bytes(b"")
    for where in ("nowhere", "nowhere.ckpt", str(tmp_path / "w.safetensors")):
        with pytest.raises(ConfigError, match="is no run to continue; give auto"):
            find_checkpoint(where, config)
