import foreign_layouts as layouts
import pytest
import torch

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec
from geosr.models.foreign.opensr import NORMALISATIONS, normalisation, recognise

BANDS = ("B04", "B03", "B02", "B08")


def run(found, image, **changes):
    """What geosr makes of the tensors that were recognised."""
    arguments = found.arguments | changes
    spec = ModelSpec("m", found.architecture, found.scale, BANDS, arguments, consistency_mtf=None)
    model = Model(spec).eval()
    model.network.load_state_dict(found.state)
    with torch.inference_mode():
        return model(image)


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("kind", ["res", "rcab", "rrdb", "lka"])
def test_the_generators_of_blocks(kind, stages):
    state = layouts.flexible(kind, stages=stages)
    found = recognise(state)
    assert (found.architecture, found.scale, found.bands) == (kind, 2**stages, 4)
    assert found.arguments["blocks"] == 2
    assert found.arguments["large_kernel_size"] == 9
    image = torch.rand(1, 4, 9, 8)
    expected = layouts.run_flexible(state, image, kind, stages=stages)
    torch.testing.assert_close(run(found, image), expected, atol=1e-5, rtol=1e-5)


def test_srresnet_with_its_tanh_and_the_biases_before_its_norms():
    state = layouts.srresnet()
    found = recognise(state)
    assert (found.architecture, found.scale, found.arguments["tanh"]) == ("srresnet", 2, True)
    image = torch.rand(1, 4, 9, 8)
    torch.testing.assert_close(run(found, image), layouts.run_srresnet(state, image), atol=1e-5, rtol=1e-5)
    unwrapped = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    assert torch.equal(run(recognise(unwrapped), image), run(found, image))


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_esrgan_with_pixel_shuffles_and_dense_blocks_without_skips(stages):
    state = layouts.esrgan(stages=stages)
    found = recognise(state)
    assert (found.architecture, found.scale) == ("esrgan", 2**stages)
    image = torch.rand(1, 4, 6, 5)
    expected = layouts.run_esrgan(state, image, stages=stages, res_scale=0.3)
    torch.testing.assert_close(run(found, image, res_scale=0.3), expected, atol=1e-5, rtol=1e-5)


def test_kernels_of_several_sizes_become_one_size():
    state = layouts.flexible("res")
    state["body.0.body.0.weight"] = 0.1 * torch.randn(6, 6, 5, 5)  # beside others of 3
    found = recognise(state)
    assert found.arguments["small_kernel_size"] == 5
    image = torch.rand(1, 4, 9, 8)
    torch.testing.assert_close(run(found, image), layouts.run_flexible(state, image, "res"), atol=1e-5, rtol=1e-5)


def test_the_noise_of_a_stochastic_generator_becomes_1_by_1_convolutions():
    state = layouts.flexible("rcab")
    state = {name: tensor for name, tensor in state.items() if ".se." not in name}
    for block in range(2):
        state[f"body.{block}.noise_mlp.0.weight"], state[f"body.{block}.noise_mlp.0.bias"] = (
            torch.randn(6, 5), torch.randn(6),
        )  # fmt: skip
        state[f"body.{block}.noise_mlp.2.weight"], state[f"body.{block}.noise_mlp.2.bias"] = (
            torch.randn(12, 6), torch.randn(12),
        )  # fmt: skip
    found = recognise(state)
    assert found.architecture == "stochastic"
    assert found.arguments["noise_channels"] == 5
    assert found.arguments["noise_field"] is False
    assert found.state["body.1.style.weight"].shape == (6, 5, 1, 1)
    assert torch.equal(found.state["body.1.modulation.weight"].flatten(1), state["body.1.noise_mlp.2.weight"])


def test_a_variant_is_named_by_what_it_has_more():
    state = layouts.flexible("lka") | {"body.0.gate.weight": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"looks like .* lka blocks, but such a network has no body\.0\.gate\.weight"):
        recognise(state)


def test_a_part_of_a_network_is_told():
    state = layouts.flexible("res")
    del state["tail.weight"]
    with pytest.raises(ModelError, match=r"but lacks tail\.weight: the file holds a part of it"):
        recognise(state)


def test_a_network_of_other_bands_out_than_in_is_refused():
    state = layouts.esrgan(bands=4)
    state["conv_last.weight"], state["conv_last.bias"] = torch.zeros(3, 6, 3, 3), torch.zeros(3)
    with pytest.raises(ModelError, match="from 4 to 3 channels"):
        recognise(state)


def test_other_networks_are_left_to_others():
    assert recognise(layouts.rrdbnet()) is None
    assert recognise(layouts.compact()) is None
    assert recognise({"head.0.weight": torch.zeros(1), "body_tail.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("normalise_10k", "normalise_10k"),
        ("Normalize_10k", "normalise_10k"),
        ("s2", "normalise_10k"),
        ("signed_zero_one", "zero_one_signed"),
        ({"name": "normalise_s2"}, "normalise_s2"),
        (None, "sen2_stretch"),
    ],
)
def test_normalisations_have_the_words_that_they_have_there(word, known):
    assert normalisation({"Data": {"normalization": word}}) == (known, *NORMALISATIONS[known])


@pytest.mark.parametrize("word", ["identity", {"normalize": "mine:f"}, "minmax"])
def test_a_normalisation_that_leaves_the_unit_open_is_not_guessed(word):
    with pytest.raises(ModelError, match="does not say which reflectance the network sees as 1"):
        normalisation({"Data": {"normalization": word}})
