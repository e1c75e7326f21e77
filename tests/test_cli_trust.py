"""`--trust-module`: what a file names is imported where the user names it too, on every command that loads a model."""

import json
import sys

import pytest
from jobs_kit import BANDS, write_scene

from geosr.models import Model, ModelSpec, save_model

NETWORK = """
from pathlib import Path

import torch.nn.functional as F
from torch import nn

Path({mark!r}).touch()


class Net(nn.Module):
    reach = 0

    def __init__(self, bands, scale):
        super().__init__()
        self.layer = nn.Conv2d(bands, bands, 1)

    def forward(self, image):
        return F.interpolate(self.layer(image), scale_factor=2)
"""


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A folder with weights, the module that they name and a scene; the file that importing the module makes."""
    mark = tmp_path / "mark"
    (tmp_path / "foreign_net.py").write_text(NETWORK.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_net", raising=False)
    spec = ModelSpec("own", "foreign_net.Net", 2, BANDS, consistency_mtf=None, halo=2)
    save_model(Model(spec, trust="foreign_net"), tmp_path / "own.safetensors")
    write_scene(tmp_path / "scene.tif", 150, 140)
    mark.unlink()
    monkeypatch.delitem(sys.modules, "foreign_net")
    monkeypatch.chdir(tmp_path)
    return mark


COMMANDS = [
    ("predict", "scene.tif", "--out", "sr.tif", "--model", "own.safetensors"),
    ("predict", "scene.tif", "--out", "sr.tif", "--model", "own.safetensors", "--shard", "1/1"),
    ("evaluate", "scene.tif", "--model", "own.safetensors"),
    ("models", "export", "own.safetensors", "--torchscript"),
    ("models", "bench", "own.safetensors", "--size", "8", "--rounds", "1"),
    ("models", "calibrate", "own.safetensors", "scene.tif", "--out", "calibrated.safetensors"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_model_s_class_is_imported_where_its_module_is_named(geosr, mark, command):
    code, _, error = geosr(*command)
    assert (code, mark.exists()) == (1, False)
    assert "the architecture is the class 'foreign_net.Net'" in error
    assert "trust=foreign_net" in error
    code, _, error = geosr(*command, "--trust-module", "foreign_net")
    assert (code, mark.exists()) == (0, True), error


def test_a_model_is_shown_without_its_class(geosr, mark):
    for options in ((), ("--json",)):
        code, said, _ = geosr("models", "show", "own.safetensors", *options)
        assert code == 0
        assert "foreign_net.Net" in said
    assert not mark.exists()


def test_the_work_of_shares_does_not_say_what_is_trusted(geosr, mark):
    command = ("predict", "scene.tif", "--out", "sr.tif", "--model", "own.safetensors", "--shard", "1/1")
    assert geosr(*command, "--trust-module", "foreign_net")[0] == 0
    assert "foreign_net" not in json.dumps(json.loads((mark.parent / ".sr.tif.geosr" / "job.json").read_text())["call"])
    mark.unlink()
    sys.modules.pop("foreign_net")
    from geosr.inference import resident

    resident._RESIDENT.clear()
    code, _, error = geosr("assemble", "sr.tif")
    assert (code, mark.exists()) == (1, False)
    assert "trust=foreign_net" in error
    assert geosr("assemble", "sr.tif", "--trust-module", "foreign_net")[0] == 0
