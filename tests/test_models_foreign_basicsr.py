import foreign_layouts as layouts
import pytest
import torch

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec
from geosr.models.foreign.basicsr import recognise

BANDS = ("B04", "B03", "B02", "B08")


def run(found, image):
    """What geosr makes of the tensors that were recognised."""
    spec = ModelSpec("m", found.architecture, found.scale, BANDS[: found.bands], found.arguments, consistency_mtf=None)
    model = Model(spec).eval()
    model.network.load_state_dict(found.state)
    with torch.inference_mode():
        return model(image)


@pytest.mark.parametrize(("unshuffle", "scale"), [(1, 4), (2, 2), (4, 1)])
def test_rrdbnet(unshuffle, scale):
    state = layouts.rrdbnet(unshuffle=unshuffle)
    found = recognise(state)
    assert (found.architecture, found.scale, found.bands) == ("esrgan", scale, 3)
    assert found.arguments == {
        "channels": 6, "blocks": 2, "growth_channels": 4, "res_scale": 0.2, "unshuffle": unshuffle,
        "global_skip": False,
    }  # fmt: skip
    image = torch.rand(1, 3, 8, 12)
    expected = layouts.run_rrdbnet(state, image, unshuffle=unshuffle)
    torch.testing.assert_close(run(found, image), expected, atol=1e-5, rtol=1e-5)


def test_rrdbnet_by_the_names_of_esrgan_s_first_release():
    state = layouts.rrdbnet(blocks=1)
    image = torch.rand(1, 3, 7, 6)
    sr = run(recognise(layouts.first_release(state, blocks=1)), image)
    torch.testing.assert_close(sr, layouts.run_rrdbnet(state, image, blocks=1), atol=1e-5, rtol=1e-5)


def test_rrdbnet_by_the_names_of_bsrgan():
    words = {
        "conv_body": "trunk_conv",
        "body.": "RRDB_trunk.",
        ".rdb": ".RDB",
        "conv_up": "upconv",
        "conv_hr": "HRconv",
    }
    state, named = layouts.rrdbnet(blocks=1), {}
    for name, tensor in state.items():
        for there, here in words.items():
            name = name.replace(there, here)
        named[name] = tensor
    image = torch.rand(1, 3, 7, 6)
    sr = run(recognise(named), image)
    torch.testing.assert_close(sr, layouts.run_rrdbnet(state, image, blocks=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_srvggnetcompact(scale):
    state = layouts.compact(scale=scale, bands=4)
    found = recognise(state)
    assert (found.architecture, found.scale, found.bands) == ("compact", scale, 4)
    assert found.arguments == {"channels": 6, "blocks": 2, "base": "nearest"}
    image = torch.rand(1, 4, 7, 6)
    expected = layouts.run_compact(state, image, scale=scale)
    torch.testing.assert_close(run(found, image), expected, atol=1e-5, rtol=1e-5)


def test_activations_without_weights_are_not_guessed():
    state = {name: tensor for name, tensor in layouts.compact().items() if tensor.ndim == 4 or "bias" in name}
    with pytest.raises(ModelError, match="ReLU or leaky ReLU, which of them the file does not tell"):
        recognise(state)


def test_a_network_of_other_bands_out_than_in_is_refused():
    state = layouts.rrdbnet(bands=3)
    state["conv_last.weight"], state["conv_last.bias"] = torch.zeros(1, 6, 3, 3), torch.zeros(1)
    with pytest.raises(ModelError, match=r"from 3 to 1 channels; geosr's models return the bands they take"):
        recognise(state)


@pytest.mark.parametrize("lost", ["conv_first.weight", "conv_last.weight"])
def test_half_a_network_is_told_from_another_one(lost):
    state = layouts.rrdbnet()
    del state[lost]
    with pytest.raises(ModelError, match=r"looks like RRDBNet .* but lacks (head|tail)\.weight"):
        recognise(state)


def test_what_is_more_than_rrdbnet_is_left_to_others():
    assert recognise(layouts.rrdbnet() | {"am_list.0.fc.0.weight": torch.zeros(1)}) is None
    assert recognise(layouts.srresnet()) is None
    assert recognise({"weight": torch.zeros(1)}) is None
