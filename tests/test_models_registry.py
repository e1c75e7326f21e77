import pytest
import torch

from geosr.config.names import GENERATORS
from geosr.config.schema import GeneratorSection
from geosr.errors import ModelError
from geosr.models import ModelSpec
from geosr.models.registry import ARCHITECTURES, ARGUMENTS, build_network, generator_arguments


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "spandrel"])  # made by its weights
def test_every_architecture_is_built_from_bands_and_scale_alone(architecture):
    network = build_network(ModelSpec("m", architecture, 3, ("B02", "B03")))
    assert network(torch.rand(1, 2, 5, 4)).shape == (1, 2, 15, 12)


def test_arguments_reach_the_network():
    network = build_network(ModelSpec("m", "compact", 2, ("B02",), {"channels": 3, "blocks": 2}))
    assert [layer.out_channels for layer in network.body if isinstance(layer, torch.nn.Conv2d)] == [3, 3, 3, 4]


def test_an_unknown_architecture_is_refused_with_the_nearest_one():
    with pytest.raises(ModelError, match=r"'compcat' is unknown \(compact .* esrgan .*\); did you mean 'compact'\?"):
        build_network(ModelSpec("m", "compcat", 2, ("B02",)))


def test_an_argument_that_the_architecture_does_not_take_is_refused():
    with pytest.raises(ModelError, match=r"'compact' does not take \{'width': 3\}.*'width'"):
        build_network(ModelSpec("m", "compact", 2, ("B02",), {"width": 3}))


def test_every_model_type_that_a_config_may_name_can_be_trained_and_the_other_way_round():
    assert set(GENERATORS) == set(ARGUMENTS) <= set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARGUMENTS)
def test_the_arguments_of_a_config_build_the_network(architecture):
    section = GeneratorSection(model_type=architecture, n_channels=8, n_blocks=2, scaling_factor=3)
    network = build_network(ModelSpec("m", architecture, 3, ("B02",), generator_arguments(section)))
    assert network(torch.rand(1, 1, 4, 4)).shape == (1, 1, 12, 12)
    assert len(network.body) == (2 if architecture not in ("compact", "guided") else 2 * 3 + 1)
    assert next(network.parameters()).shape[0] == 8


@pytest.mark.parametrize(
    ("key", "value", "of"),
    [
        ("n_channels", 8, set(GENERATORS)),
        ("n_blocks", 2, set(GENERATORS)),
        ("large_kernel_size", 5, {"srresnet", "res", "rcab", "rrdb", "lka", "plksr", "stochastic"}),
        ("small_kernel_size", 5, {"srresnet", "res", "rcab", "rrdb", "lka", "stochastic"}),
        ("growth_channels", 3, {"rrdb", "esrgan"}),
        ("res_scale", 0.5, {"res", "rcab", "rrdb", "lka", "esrgan", "stochastic"}),
        ("reduction", 2, {"rcab"}),
        ("noise_dim", 5, {"stochastic"}),
        ("noise_field", False, {"stochastic"}),
        ("depth", 2, {"swinir"}),
        ("n_heads", 2, {"swinir"}),
        ("window_size", 3, {"swinir"}),
        ("upsampler", "pixelshuffledirect", {"swinir"}),
        ("use_icnr", False, {"srresnet", "res", "rcab", "rrdb", "lka", "stochastic", "swinir"}),
        ("global_skip", False, set(GENERATORS) - {"compact", "guided"}),
    ],
)
def test_a_key_changes_the_networks_that_it_is_said_to_change(key, value, of):
    lr = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = set()
    for architecture in ARGUMENTS:
        outputs = []
        for changes in ({}, {key: value}):
            settings = {"model_type": architecture, "n_channels": 4, "n_blocks": 1, "reduction": 1} | changes
            torch.manual_seed(1)
            network = build_network(ModelSpec("m", architecture, 2, ("B02",), arguments(settings)))
            outputs.append(network(lr))
        if not torch.equal(*outputs):
            changed.add(architecture)
    assert changed == of


def arguments(settings):
    return generator_arguments(GeneratorSection(**settings))


def test_what_has_nothing_to_train_is_refused_in_a_config():
    with pytest.raises(ModelError, match="'interpolation' is unknown"):
        arguments({"model_type": "interpolation"})
