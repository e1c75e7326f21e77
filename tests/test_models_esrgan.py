import pytest
import torch
import torch.nn.functional as F

from geosr.models import ModelSpec, measure_halo
from geosr.models.esrgan import ESRGAN
from geosr.testing import assert_model_contract


@pytest.mark.parametrize(
    ("bands", "scale", "arguments", "mtf"),
    [
        (("B02", "B03", "B04", "B08"), 4, {}, 0.3),
        (("B04",), 3, {"global_skip": False}, None),
        (("B04", "B03"), 1, {"blocks": 0}, None),
    ],
)
def test_it_keeps_the_contract_of_a_model(bands, scale, arguments, mtf):
    size = {"channels": 8, "blocks": 1, "growth_channels": 4}
    normal = {"mean": [0.2] * len(bands), "std": [0.06] * len(bands)}
    assert_model_contract(ModelSpec("test", "esrgan", scale, bands, size | normal | arguments, consistency_mtf=mtf))


@pytest.mark.parametrize("scale", [2, 5, 6, 8])
def test_reach_is_what_is_measured(scale):
    network = ESRGAN(bands=1, scale=scale, channels=2, blocks=1, growth_channels=2)
    assert measure_halo(network, ModelSpec("m", "esrgan", scale, ("B02",))) == network.reach


def test_it_has_the_published_number_of_parameters():
    network = ESRGAN(bands=3, scale=4, blocks=23)
    assert sum(parameter.numel() for parameter in network.parameters()) == 16_697_987  # of RRDBNet x4


def test_it_is_the_published_network():
    """RRDBNet with one block and an enlargement by 2, written out with functions."""
    torch.manual_seed(1)
    network = ESRGAN(bands=2, scale=2, channels=4, blocks=1, growth_channels=3, global_skip=False)
    weights = network.state_dict()

    def conv(features, name):
        return F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def leaky(features):
        return torch.where(features > 0, features, 0.2 * features)

    lr = torch.rand(2, 2, 6, 5)
    first = conv(lr, "head")
    inner = first
    for dense in range(3):
        name = f"body.0.body.{dense}.layers"
        x1 = leaky(conv(inner, f"{name}.0"))
        x2 = leaky(conv(torch.cat((inner, x1), 1), f"{name}.1"))
        x3 = leaky(conv(torch.cat((inner, x1, x2), 1), f"{name}.2"))
        x4 = leaky(conv(torch.cat((inner, x1, x2, x3), 1), f"{name}.3"))
        inner = inner + 0.2 * conv(torch.cat((inner, x1, x2, x3, x4), 1), f"{name}.4")
    features = first + conv(first + 0.2 * inner, "fuse")
    features = leaky(conv(features.repeat_interleave(2, 2).repeat_interleave(2, 3), "upsample.0"))
    torch.testing.assert_close(network(lr), conv(leaky(conv(features, "refine")), "tail"), atol=1e-5, rtol=1e-5)


def test_deep_stacks_start_with_small_residuals():
    torch.manual_seed(0)
    network = ESRGAN(bands=1, scale=2, channels=16, blocks=3, growth_channels=8)
    features = torch.randn(1, 16, 12, 12)
    # An RRDB adds 0.2 times its dense blocks' output, which is nearly its input.
    assert (network.body(features) - 1.2**3 * features).std() < 0.1 * features.std()
