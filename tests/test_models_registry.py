import pytest
import torch

from geosr.config.checks import MODEL_TYPES
from geosr.errors import ModelError
from geosr.models import ModelSpec
from geosr.models.registry import ARCHITECTURES, build_network


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_built_from_bands_and_scale_alone(architecture):
    network = build_network(ModelSpec("m", architecture, 3, ("B02", "B03")))
    assert network(torch.rand(1, 2, 5, 4)).shape == (1, 2, 15, 12)


def test_arguments_reach_the_network():
    network = build_network(ModelSpec("m", "compact", 2, ("B02",), {"channels": 3, "blocks": 2}))
    assert [layer.out_channels for layer in network.body if isinstance(layer, torch.nn.Conv2d)] == [3, 3, 3, 4]


def test_an_unknown_architecture_is_refused_with_the_nearest_one():
    with pytest.raises(ModelError, match=r"'compcat' is unknown \(compact interpolation\); did you mean 'compact'\?"):
        build_network(ModelSpec("m", "compcat", 2, ("B02",)))


def test_an_argument_that_the_architecture_does_not_take_is_refused():
    with pytest.raises(ModelError, match=r"'compact' does not take \{'width': 3\}.*'width'"):
        build_network(ModelSpec("m", "compact", 2, ("B02",), {"width": 3}))


def test_every_model_type_that_a_config_may_name_exists():
    assert set(MODEL_TYPES) <= set(ARCHITECTURES)
