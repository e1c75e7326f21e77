import pickle
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import geosr
import geosr.inference.resident
from geosr.config import Config
from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, find_weights, load_model, save_model
from geosr.models.compact import Compact
from geosr.models.padding import padded
from geosr.models.registry import generator_arguments
from geosr.models.weights import save_facts
from geosr.testing import assert_model_contract

BANDS = ("B02", "B03")


class Plain(nn.Module):
    """What a user might bring along: it knows nothing of geosr, and does not say how far it looks."""

    def __init__(self, bands, scale, width=8):
        super().__init__()
        self.first = nn.Conv2d(bands, width, 5, padding=2)
        self.last = nn.Conv2d(width, bands * scale**2, 3, padding=1)
        self.last.weight.data.mul_(0.05)
        self.scale = scale

    def forward(self, image):
        return F.pixel_shuffle(self.last(F.relu(self.first(image))), self.scale)


class Declared(Plain):
    reach = 3


class Pooling(Plain):
    reach = None

    def forward(self, image):
        return super().forward(image) * image.mean((2, 3), keepdim=True).sigmoid().mean()


class Windowed(Plain):
    """It looks at windows of three pixels, and makes of any image one that they fill."""

    multiple_of = 3

    def forward(self, image):
        height, width = (size * self.scale for size in image.shape[2:])
        image = padded(image, multiple_of=3)
        means = F.interpolate(F.avg_pool2d(image, 3), scale_factor=3, mode="nearest")
        return super().forward(image * means)[..., :height, :width]


class Careful(Compact):
    """A generator in geosr's own terms."""


def spec(name, scale=2, **arguments):
    arguments = {"mean": [0.2, 0.3], "std": [0.05, 0.1]} | arguments
    return ModelSpec("mine", f"{__name__}.{name}", scale, BANDS, arguments, consistency_mtf=None)


@pytest.mark.parametrize("name", ["Plain", "Declared", "Pooling", "Windowed"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_any_network_keeps_the_contract(name, scale):
    assert_model_contract(spec(name, scale), trust=__name__)


def test_a_generator_of_geosr_s_own_kind_keeps_the_contract():
    assert_model_contract(spec("Careful", channels=4, blocks=1), trust=__name__)


@pytest.mark.parametrize(
    ("name", "tiling", "halo"), [("Plain", "exact", 3), ("Declared", "exact", 3), ("Windowed", "exact", 6)]
)
def test_the_halo_is_what_the_class_says_or_what_is_measured(name, tiling, halo):
    model = Model(spec(name), trust=__name__)
    assert (model.spec.tiling, model.spec.halo) == (tiling, halo)


def test_a_network_that_looks_at_the_whole_image_is_tiled_approximately():
    assert Model(spec("Pooling"), trust=__name__).spec.tiling == "approximate"


def test_the_network_sees_normalised_input_and_adds_to_bicubic():
    model = Model(spec("Plain"), trust=__name__)
    lr = torch.rand(1, 2, 6, 7)
    mean, std = torch.tensor([0.2, 0.3]).view(1, 2, 1, 1), torch.tensor([0.05, 0.1]).view(1, 2, 1, 1)
    bicubic = F.interpolate(lr, scale_factor=2, mode="bicubic")
    expected = bicubic + model.network.network((lr - mean) / std) * std
    torch.testing.assert_close(model(lr), expected, atol=1e-6, rtol=0)


def test_without_the_skip_the_network_makes_the_whole_image():
    model = Model(spec("Plain", global_skip=False), trust=__name__)
    lr = torch.rand(1, 2, 6, 7)
    assert (model(lr) - F.interpolate(lr, scale_factor=2, mode="bicubic")).abs().max() > 0.05


def test_weights_are_saved_and_loaded_by_the_class_s_name_which_is_said(tmp_path, caplog):
    model = Model(spec("Plain", width=5), trust=__name__).eval()
    path = save_model(model, tmp_path / "mine.safetensors").path
    lr = torch.rand(1, 2, 6, 7)
    with caplog.at_level("INFO", logger="geosr"):
        assert torch.equal(load_model(path, trust=[__name__])(lr), model(lr))
    assert f"mine.safetensors is a network of the class {__name__}.Plain, which is imported for it" in caplog.text


def test_a_configuration_s_class_takes_its_init_args():
    section = Config().Generator
    section.class_path, section.init_args, section.global_skip = f"{__name__}.Plain", {"width": 3}, False
    assert generator_arguments(section) == {"width": 3, "global_skip": False}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere.to.be.Found", "'nowhere.to.be.Found' cannot be imported: No module named 'nowhere'.*PYTHONPATH"),
        (f"{__name__}.Missing", f"module '{__name__}' has no 'Missing'"),
        ("os.system", "'os.system' is no torch.nn.Module"),
        ("collections.OrderedDict", "is no torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_refused_and_never_called(path, told):
    with pytest.raises(ModelError, match=told):
        Model(ModelSpec("mine", path, 2, BANDS, consistency_mtf=None), trust=path.rpartition(".")[0])


def test_an_argument_that_the_class_does_not_take_is_refused():
    with pytest.raises(ModelError, match=r"does not take bands=2, scale=2, depth=3: .*'depth'"):
        Model(spec("Plain", depth=3), trust=__name__)


MARK = "the module ran"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Weights of a class whose module leaves a mark when it is imported, and the mark."""
    mark = tmp_path / "mark"
    package = tmp_path / "code" / "stranger"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(
        f"from pathlib import Path\n\nfrom {__name__} import Plain\n\nPath({str(mark)!r}).write_text({MARK!r})\n\n\n"
        "class Net(Plain):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    for module in ("stranger", "stranger.nets"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    model = Model(spec("Plain"), trust=__name__)
    model.spec = replace(model.spec, architecture="stranger.nets.Net")
    return save_model(model, tmp_path / "stranger.safetensors").path, mark


@pytest.mark.parametrize("trust", [(), "other", ["stranger.other", "strange"], ["stranger.nets.Net"]])
def test_a_file_s_class_is_not_imported_unless_its_module_is_trusted(stranger, trust):
    path, mark = stranger
    with pytest.raises(ModelError, match=r"stranger\.safetensors: .*'stranger\.nets\.Net'.*trust=stranger\.nets"):
        load_model(path, trust=trust)
    assert not mark.exists()
    assert find_weights(path).spec.architecture == "stranger.nets.Net"
    assert not mark.exists()


@pytest.mark.parametrize("trust", ["stranger", ("other", "stranger.nets")])
def test_a_module_that_the_caller_names_is_imported_with_what_is_below_it(stranger, trust):
    path, mark = stranger
    assert load_model(path, trust=trust)(torch.rand(1, 2, 4, 4)).shape == (1, 2, 8, 8)
    assert mark.read_text() == MARK


@pytest.mark.parametrize("architecture", ["torch.nn.Conv2d", "geosr.models.compact.Compact", f"{__name__}.Plain"])
def test_what_is_imported_already_needs_trust_too(stranger, architecture, tmp_path):
    other = replace(find_weights(stranger[0]).spec, architecture=architecture)
    path = save_facts(find_weights(stranger[0]), other, tmp_path / "known.safetensors").path
    with pytest.raises(ModelError, match="nothing in a file does by itself"):
        load_model(path)


@pytest.mark.parametrize("architecture", [".x", "x.", "a..b", "a b.c", "os.path.join()", "a.b\\c"])
def test_an_architecture_that_is_no_class_is_refused_whatever_is_trusted(stranger, architecture, tmp_path):
    other = replace(find_weights(stranger[0]).spec, architecture=architecture)
    path = save_facts(find_weights(stranger[0]), other, tmp_path / "odd.safetensors").path
    with pytest.raises(ModelError, match=r"is no class; the name of one is package\.module\.Class"):
        load_model(path, trust=["os", "a", "x", ""])


def test_a_checkpoint_and_a_run_s_folder_need_trust_too(stranger, tmp_path):
    weights = find_weights(stranger[0])
    folder = tmp_path / "run"
    folder.mkdir()
    state = {f"model.network.{name}": value for name, value in load_file(weights.path).items()}
    torch.save({"geosr": {"spec": weights.spec.to_dict()}, "state_dict": state}, folder / "last.ckpt")
    for name in (folder, folder / "last.ckpt"):
        with pytest.raises(ModelError, match=r"last\.ckpt: .*trust=stranger\.nets"):
            load_model(name)
    assert not stranger[1].exists()
    assert load_model(folder, trust="stranger").network.network.scale == 2


def test_weights_from_the_hub_never_bring_code(stranger, monkeypatch):
    monkeypatch.setattr("geosr.models.weights.download", lambda address: stranger[0])
    for load in (load_model, geosr.load_model, geosr.inference.resident.locate):
        with pytest.raises(ModelError, match=r"hf://o/r/f@1 has the architecture 'stranger\.nets\.Net'.*never bring"):
            load("hf://o/r/f@1", trust="stranger")
    assert not stranger[1].exists()


def test_other_processes_trust_what_the_caller_trusts(stranger):
    key = geosr.inference.resident.locate(stranger[0], device="cpu", trust="stranger")
    again = pickle.loads(pickle.dumps(key))
    assert again.trust == ("stranger",)
    assert again.load().spec.architecture == "stranger.nets.Net"
