"""Against a stand-in for the package spandrel; the package itself is in tests/test_interop_spandrel.py."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, load_model, save_model
from geosr.models.spandrel import Spandrel, describe

RGB = ("B04", "B03", "B02")


class Doubling(nn.Module):
    """Multiplies, and repeats every pixel; says what sizes it saw."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, image):
        self.seen.append(tuple(image.shape[2:]))
        return (self.gain * image).repeat_interleave(2, 2).repeat_interleave(2, 3)


class Filling:
    """Stands for a network that fills holes."""

    architecture = SimpleNamespace(name="LaMa")


class Described:
    def __init__(self, model):
        self.model = model
        self._call_fn = lambda network, image: network(image) + 1


class Unsupported(Exception):
    pass


@pytest.fixture
def spandrel(monkeypatch):
    """A module of that name which knows networks with a ``gain``."""

    class Loader:
        def __init__(self, *, device):
            pass

        def load_from_state_dict(self, state):
            if "gain" not in state:
                if "hole" in state:
                    return Filling()
                if "broken" in state:
                    raise RuntimeError("sizes do not match\nat all")
                raise Unsupported
            model = Doubling()
            model.load_state_dict(state)
            return Described(model)

    module = ModuleType("spandrel")
    module.ModelLoader, module.ImageModelDescriptor, module.UnsupportedModelError = Loader, Described, Unsupported
    monkeypatch.setitem(sys.modules, "spandrel", module)
    return module


def natural(**arguments):
    return Spandrel(bands=3, scale=2, mean=[0.0] * 3, std=[0.5] * 3, **arguments)


@pytest.mark.usefixtures("spandrel")
def test_the_weights_alone_make_the_network():
    network = natural()
    network.load_state_dict({"inner.gain": torch.tensor([3.0])})
    lr = torch.rand(1, 3, 4, 5)
    expected = (3 * lr / 0.5 + 1) * 0.5  # with the call that spandrel makes
    torch.testing.assert_close(network(lr), expected.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.usefixtures("spandrel")
def test_a_file_brings_it_back(tmp_path):
    spec = ModelSpec(
        "m", "spandrel", 2, RGB, {"std": [0.4] * 3, "multiple_of": 4}, consistency_mtf=None, tiling="approximate"
    )
    model = Model(spec)
    model.network.load_state_dict({"inner.gain": torch.tensor([2.0])})
    path = save_model(model, tmp_path / "m.safetensors").path
    lr = torch.rand(1, 3, 6, 5)
    assert torch.equal(load_model(path)(lr), model(lr))
    assert load_model(path).spec.tiling == "approximate"


@pytest.mark.usefixtures("spandrel")
def test_it_is_given_sizes_that_it_takes():
    network = natural(multiple_of=4, smallest=8, square=True)
    network.load_state_dict({"inner.gain": torch.ones(1)})
    assert network(torch.rand(1, 3, 5, 9)).shape == (1, 3, 10, 18)
    assert network.inner.seen == [(12, 12)]


@pytest.mark.usefixtures("spandrel")
def test_a_loaded_network_takes_other_weights_of_its_kind():
    network = natural()
    for gain in (2.0, 5.0):
        network.load_state_dict({"inner.gain": torch.tensor([gain])})
        assert network.inner.gain.item() == gain
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({})


@pytest.mark.usefixtures("spandrel")
@pytest.mark.parametrize("training", [True, False])
def test_what_is_made_is_in_the_mode_of_what_it_is_made_for(training):
    network = natural().train(training)
    network.load_state_dict({"inner.gain": torch.ones(1)})
    assert network.inner.training == training


def test_without_weights_there_is_no_network():
    with pytest.raises(ModelError, match="exists once its weights are loaded"):
        natural()(torch.rand(1, 3, 4, 4))


@pytest.mark.usefixtures("spandrel")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("other", "knows no network with tensors of these names"),
        ("broken", "cannot rebuild the network: sizes do not match$"),
        ("hole", "LaMa fills holes"),
    ],
)
def test_what_spandrel_does_not_know_is_refused(name, told):
    with pytest.raises(ModelError, match=told):
        describe({name: torch.ones(1)})


def test_without_spandrel_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModelError, match=r"need spandrel: pip install 'geosr\[natural\]'"):
        describe({})
