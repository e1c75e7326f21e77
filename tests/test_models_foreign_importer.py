import sys
from types import ModuleType, SimpleNamespace

import foreign_layouts as layouts
import pytest
import torch
import yaml

from geosr.errors import ModelError
from geosr.models import load_model, save_model
from geosr.models.foreign import import_model

CONFIG = {
    "Model": {"in_bands": 4},
    "Data": {"normalization": "normalise_s2"},
    "Generator": {"model_type": "esrgan", "n_channels": 6, "n_blocks": 2, "growth_channels": 4, "scaling_factor": 2,
                  "res_scale": 0.35},
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(content, name="net.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def changed(**generator):
    return CONFIG | {"Generator": CONFIG["Generator"] | generator}


def test_real_esrgan_sees_reflectance_as_brightness(written, tmp_path):
    state = layouts.rrdbnet(unshuffle=2)
    imported = import_model(written({"params_ema": state}, "RealESRGAN_x2.pth"), white=0.5, licence="BSD-3-Clause")
    spec = imported.model.spec
    assert (spec.name, spec.architecture, spec.scale, spec.licence) == ("RealESRGAN_x2", "esrgan", 2, "BSD-3-Clause")
    assert spec.bands == ("B04", "B03", "B02")
    assert spec.consistency_mtf is None
    assert imported.notes == ()
    assert spec.provenance["imported_from"] == "RealESRGAN_x2.pth"
    assert spec.provenance["weights"] == "averaged (EMA)"
    assert len(spec.provenance["sha256"]) == 64
    lr = torch.rand(1, 3, 8, 6)
    loaded = load_model(save_model(imported.model, tmp_path / "m.safetensors").path)
    with torch.inference_mode():
        sr = loaded(lr)
    expected = 0.5 * layouts.run_rrdbnet(state, lr / 0.5, unshuffle=2)
    torch.testing.assert_close(sr, expected, atol=1e-5, rtol=1e-5)


def test_white_has_a_default_and_the_import_says_so(written):
    imported = import_model(written(layouts.compact()))
    assert imported.model.spec.arguments["std"] == [0.4] * 3
    assert imported.model.spec.licence == "unknown"
    assert "reflectance of 0.4 is taken for white" in imported.notes[0]


def test_opensr_srgan_sees_what_its_configuration_says(written, tmp_path):
    state = layouts.esrgan()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    path = written({"state_dict": {f"generator.{name}": value for name, value in state.items()}}, "last.ckpt")
    imported = import_model(path, config=tmp_path / "config.yaml")
    assert imported.model.spec.bands == ("B04", "B03", "B02", "B08")
    assert imported.model.spec.arguments["res_scale"] == 0.35
    assert imported.notes == ("reflectance is normalised as normalise_s2 does, without cutting off what lies beyond "
                              "its range",)  # fmt: skip
    lr = torch.rand(1, 4, 8, 6)
    with torch.inference_mode():
        sr = imported.model(lr)
    expected = (layouts.run_esrgan(state, lr / 0.3 * 2 - 1, res_scale=0.35) + 1) / 2 * 0.3
    torch.testing.assert_close(sr, expected, atol=1e-5, rtol=1e-5)


def test_a_configuration_in_the_file_is_used(written):
    imported = import_model(written({"state_dict": layouts.esrgan(), "hyper_parameters": CONFIG}, "a.ckpt"))
    assert imported.model.spec.arguments["res_scale"] == 0.35
    assert imported.model.spec.arguments["mean"] == [0.15] * 4


def test_hyperparameters_of_something_else_are_no_configuration(written):
    path = written({"state_dict": layouts.flexible("res"), "hyper_parameters": {"lr": 1e-3}}, "a.ckpt")
    with pytest.raises(ModelError, match="does not say how its input was normalised"):
        import_model(path)


def test_units_that_nobody_told_are_asked_for(written):
    with pytest.raises(ModelError, match=r"give --config with the YAML of the run, or --white: 1 where"):
        import_model(written(layouts.srresnet()))


def test_white_stands_for_the_configuration(written):
    imported = import_model(written(layouts.esrgan()), white=1.0)
    assert imported.model.spec.arguments["res_scale"] == 0.2
    assert "res_scale is not in the weights" in imported.notes[0]
    both = import_model(written(layouts.esrgan()), white=1e-4, config=changed())
    assert both.model.spec.arguments["std"] == [1e-4] * 4
    assert both.model.spec.arguments["mean"] == [0.0] * 4


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (CONFIG | {"Model": {"in_bands": 6}}, r"another network's: Model\.in_bands is 6, the weights' 4"),
        (changed(n_blocks=3), r"another network's: Generator\.n_blocks is 3, the weights' 2"),
        (changed(n_channels=64), r"another network's: Generator\.n_channels is 64, the weights' 6"),
        (changed(scaling_factor=4), r"another network's: Generator\.scaling_factor is 4, the weights' 2"),
        (changed(model_type="rcab"), r"another network's: Generator\.model_type is rcab, the weights' esrgan"),
        ({"Model": {"name": "mine"}}, r"no configuration of opensr-srgan: it says no Model\.in_bands"),
    ],
)
def test_the_configuration_of_another_network_is_refused(config, told, written):
    with pytest.raises(ModelError, match=told):
        import_model(written(layouts.esrgan()), config=config)


def test_a_configuration_for_a_network_that_has_none_is_refused(written):
    with pytest.raises(ModelError, match="other networks have no configuration"):
        import_model(written(layouts.rrdbnet()), config=CONFIG)


def test_bands_are_named_by_the_user_where_their_number_says_nothing(written):
    path = written(layouts.flexible("res", bands=5))
    with pytest.raises(
        ModelError, match=r"has 5 bands, and which they are the file does not say; name them .* --bands"
    ):
        import_model(path, white=1.0)
    names = ["B02", "B03", "B04", "B08", "B11"]
    assert import_model(path, white=1.0, bands=names).model.spec.bands == tuple(names)


@pytest.mark.parametrize("bands", [["B02", "B03"], ["B02", "B02", "B03"]])
def test_bands_that_do_not_fit_are_refused(bands, written):
    with pytest.raises(ModelError, match="has 3 bands; --bands names B02"):
        import_model(written(layouts.rrdbnet()), bands=bands)


@pytest.mark.parametrize("white", [0.0, -1.0, float("nan")])
def test_a_white_that_is_no_brightness_is_refused(white, written):
    with pytest.raises(ModelError, match=r"must be above 0, such as 0\.4"):
        import_model(written(layouts.rrdbnet()), white=white)


def test_missing_tensors_are_named(written):
    state = layouts.rrdbnet()
    del state["body.1.rdb2.conv3.bias"]
    with pytest.raises(
        ModelError, match=r"looks like RRDBNet .*does not fit.* body\.1\.body\.1\.layers\.2\.bias is missing"
    ):
        import_model(written(state))


def test_an_unknown_layout_says_what_it_begins_with(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(
        ModelError, match=r"\(its tensors begin with encoder\.weight\); .*pip install 'geosr\[natural\]'"
    ):
        import_model(written({"encoder.weight": torch.zeros(2)}))


@pytest.fixture
def spandrel(monkeypatch):
    """A module of that name, whose networks have the channels that it is told."""

    def install(channels, *, again=1.0):
        gains = iter((1.0, 1.0, again, again))  # described, made of the file, made of what is kept, made for use

        class Loader:
            def __init__(self, *, device):
                pass

            def load_from_state_dict(self, state):
                gain = next(gains)
                model = torch.nn.Conv2d(3, 3, 1)
                model.load_state_dict(state)
                return Described(model, gain)

        class Described:
            architecture = SimpleNamespace(name="NetX")
            size_requirements = SimpleNamespace(multiple_of=2, minimum=0, square=False)
            input_channels, output_channels = channels
            scale = 1

            def __init__(self, model, gain):
                self.model, self._call_fn = model, lambda network, image: gain * network(image)

        module = ModuleType("spandrel")
        module.ModelLoader, module.ImageModelDescriptor, module.UnsupportedModelError = Loader, Described, KeyError
        monkeypatch.setitem(sys.modules, "spandrel", module)
        return torch.nn.Conv2d(3, 3, 1).state_dict()

    return install


def test_what_spandrel_knows_is_kept_by_its_tensors(spandrel, written):
    imported = import_model(written(spandrel((3, 3))))
    spec = imported.model.spec
    assert (imported.what, spec.architecture, spec.scale, spec.tiling) == (
        "NetX (spandrel)",
        "spandrel",
        1,
        "approximate",
    )
    assert spec.arguments["multiple_of"] == 2
    assert set(imported.model.network.state_dict()) == {"inner.weight", "inner.bias"}


def test_a_network_of_other_than_three_channels_is_refused(spandrel, written):
    with pytest.raises(ModelError, match=r"is NetX .* from 1 to 3 channels; .* red, green and blue"):
        import_model(written(spandrel((1, 3))))


def test_a_network_that_does_not_come_back_is_refused(spandrel, written):
    path = written(spandrel((3, 3), again=2.0))
    with pytest.raises(ModelError, match="cannot be kept: spandrel makes another network"):
        import_model(path)


def test_weights_that_are_not_finite_are_refused_by_their_tensor(written):
    state = layouts.rrdbnet()
    state["conv_last.bias"][0] = float("inf")
    with pytest.raises(ModelError, match=r"1 weights that are not finite, in tail\.bias"):
        import_model(written({"params": state}))


def test_layers_are_counted_no_further_than_there_are_tensors(written):
    state = layouts.rrdbnet()
    state["body.999999999.rdb1.conv1.weight"] = state["body.0.rdb1.conv1.weight"]
    with pytest.raises(ModelError, match="would have 1000000000 layers; the file is damaged"):
        import_model(written({"params": state}))


def test_a_tensor_alone_does_not_make_a_network_as_wide_as_it_is(written):
    state = layouts.rrdbnet()
    state["conv_first.weight"] = torch.zeros(300_000, 3, 1, 1)
    with pytest.raises(ModelError, match=r"does not fit"):
        import_model(written({"params": state}))
