import json

import pytest
import yaml
from typer.testing import CliRunner

from geosr.cli import app
from geosr.config import Config, load_config
from geosr.errors import ConfigError


def geosr(*arguments, code=0):
    """What a command prints on standard output."""
    result = CliRunner().invoke(app, ["config", *arguments], catch_exceptions=False)
    assert result.exit_code == code
    return result.stdout


def test_show_prints_the_resolved_configuration():
    shown = yaml.safe_load(geosr("show", "config_demo.yaml", "Training.max_steps=7"))
    assert shown == load_config("config_demo.yaml", ["Training.max_steps=7"]).to_dict()
    assert json.loads(geosr("show", "config_demo.yaml", "Training.max_steps=7", "--json")) == shown


def test_show_without_a_configuration_is_that_of_train():
    assert yaml.safe_load(geosr("show")) == load_config("config_20m.yaml").to_dict()
    changed = yaml.safe_load(geosr("show", "Training.max_steps=7", "Data.patch_size=9"))
    assert changed == load_config("config_20m.yaml", ["Training.max_steps=7", "Data.patch_size=9"]).to_dict()


def test_show_tells_what_settings_mean_when_asked():
    told = geosr("show", "config_demo.yaml", "--docs")
    assert "# HR rasters to train on; globs are allowed.\n  train_scenes: [virginia_coast.tif]" in told
    assert "#" not in geosr("show", "config_demo.yaml")


def test_validate_says_whether_a_configuration_holds():
    assert geosr("validate", "config_demo.yaml") == "config_demo.yaml holds\n"
    assert json.loads(geosr("validate", "config_demo.yaml", "--json")) == {"valid": True, "errors": []}


def test_validate_says_everything_that_is_wrong():
    wrong = ["config_demo.yaml", "Training.max_steps=0", "Data.gain=0.5"]
    result = CliRunner().invoke(app, ["config", "validate", *wrong])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Training.max_steps is 0" in result.stderr
    assert "Data.gain is 0.5" in result.stderr
    told = json.loads(geosr("validate", *wrong, "--json", code=1))
    assert told["valid"] is False
    assert len(told["errors"]) == 2


def test_a_configuration_that_does_not_exist_is_an_error_for_every_command():
    for command in ("show", "diff"):
        with pytest.raises(ConfigError, match="is no file and not shipped"):
            geosr(command, "nowhere.yaml")
    assert json.loads(geosr("validate", "nowhere.yaml", "--json", code=1))["valid"] is False


def test_diff_lists_the_settings_in_which_two_configurations_differ(tmp_path):
    (tmp_path / "a.yaml").write_text("Training: {max_steps: 7}\nData: {val_scenes: [a.tif]}")
    (tmp_path / "b.yaml").write_text("Training: {max_steps: 8}")
    a, b = (str(tmp_path / name) for name in ("a.yaml", "b.yaml"))
    assert json.loads(geosr("diff", a, b, "--json")) == {
        "Data.val_scenes": [["a.tif"], []],
        "Training.max_steps": [7, 8],
    }
    default = Config().Training.max_steps
    assert json.loads(geosr("diff", b, "--json")) == {"Training.max_steps": [8, default]}
    table = geosr("diff", b)
    assert [line.split() for line in table.splitlines()][-1] == ["Training.max_steps", "8", str(default)]
