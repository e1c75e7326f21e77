import json
import sys

import pytest
import torch
from torch import nn

from geosr import cli
from geosr.models.costs import SIDE, costs, count_flop
from geosr.models.model import LARGEST_HALO
from geosr.models.registry import ARGUMENTS


def test_operations_of_a_convolution_are_counted_by_hand():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert count_flop(layer, torch.rand(1, 3, 8, 6)) == 2 * 3 * 5 * 9 * 8 * 6


def test_every_architecture_has_its_costs():
    found = {cost.architecture: cost for cost in costs()}
    assert list(found) == list(ARGUMENTS)
    for cost in found.values():
        assert (cost.tiling == "exact") == (cost.reach is not None and cost.reach <= LARGEST_HALO)


def test_compact_costs_what_its_layers_do():
    (cost,) = [cost for cost in costs() if cost.architecture == "compact"]
    kernels = (4 * 64 + 10 * 64 * 64 + 64 * 16) * 9
    assert cost.parameters == kernels + 11 * 2 * 64 + 16  # biases and slopes
    assert cost.gflop == pytest.approx(2e-9 * kernels * SIDE**2)
    assert cost.reach == 12


def test_the_command_shows_them(monkeypatch, capsys):
    shown = {}
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["geosr", "models", "--architectures", *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        shown[bool(options)] = capsys.readouterr().out
    assert [entry["architecture"] for entry in json.loads(shown[True])] == list(ARGUMENTS)
    for entry in json.loads(shown[True]):
        assert entry["architecture"] in shown[False]
        assert f"{entry['parameters']:,}" in shown[False]
