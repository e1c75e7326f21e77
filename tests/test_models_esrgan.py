import pytest
import torch
import torch.nn.functional as F

from geosr.errors import ModelError
from geosr.models import ModelSpec, measure_halo
from geosr.models.esrgan import ESRGAN
from geosr.testing import assert_model_contract


@pytest.mark.parametrize(
    ("bands", "scale", "arguments", "mtf"),
    [
        (("B02", "B03", "B04", "B08"), 4, {}, 0.3),
        (("B04",), 3, {"global_skip": False}, None),
        (("B04", "B03"), 1, {"blocks": 0}, None),
        (("B04",), 4, {"upsampling": "shuffle", "dense_skip": False}, None),
        (("B04", "B03"), 2, {"blocks": 0, "unshuffle": 2}, 0.3),
        (("B04",), 1, {"blocks": 0, "unshuffle": 4}, None),
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


@pytest.mark.parametrize("scale", [1, 2, 4, 6])
def test_reach_with_pixel_shuffles_is_what_is_measured(scale):
    network = ESRGAN(bands=1, scale=scale, channels=2, blocks=1, growth_channels=2, upsampling="shuffle")
    assert measure_halo(network, ModelSpec("m", "esrgan", scale, ("B02",))) == network.reach


@pytest.mark.parametrize(("scale", "unshuffle"), [(2, 2), (1, 4), (3, 2)])
def test_reach_holds_wherever_in_its_square_a_pixel_lies(scale, unshuffle):
    network = ESRGAN(bands=1, scale=scale, channels=2, blocks=0, growth_channels=2, unshuffle=unshuffle).double()
    middle = 20 * unshuffle
    seen = []
    for place in range(middle, middle + unshuffle):
        lr = torch.rand(1, 1, 2 * middle, 2 * middle, dtype=torch.float64, requires_grad=True)
        part = slice(place * scale, (place + 1) * scale)
        (gradient,) = torch.autograd.grad(network(lr)[..., part, part].sum(), lr)
        seen.append(int((gradient[0, 0].abs().amax(0).nonzero() - place).abs().max()))
    assert max(seen) == network.reach


@pytest.mark.parametrize(
    ("scale", "unshuffle", "size"), [(2, 2, (7, 5)), (1, 4, (1, 1)), (1, 4, (6, 9)), (2, 2, (4, 8))]
)
def test_any_size_becomes_whole_squares(scale, unshuffle, size):
    torch.manual_seed(0)
    network = ESRGAN(bands=2, scale=scale, channels=4, blocks=1, growth_channels=2, unshuffle=unshuffle)
    assert network.multiple_of == unshuffle
    lr = torch.rand(1, 2, *size)
    assert network(lr).shape == (1, 2, size[0] * scale, size[1] * scale)


def test_unshuffled_it_is_the_network_for_a_larger_scale_on_more_bands():
    torch.manual_seed(0)
    sizes = {"channels": 4, "blocks": 1, "growth_channels": 2, "global_skip": False}
    network = ESRGAN(bands=2, scale=2, unshuffle=2, **sizes)
    inner = ESRGAN(bands=8, scale=4, **sizes)
    inner.tail = torch.nn.Conv2d(4, 2, 3, padding=1)
    inner.load_state_dict(network.state_dict())
    lr = torch.rand(1, 2, 6, 8)
    squares = torch.stack([lr[:, :, row::2, column::2] for row in range(2) for column in range(2)], 2).flatten(1, 2)
    assert torch.equal(network(lr), inner.resolve(squares))


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(ModelError, match=r"'shufle' is unknown \(nearest shuffle\); did you mean 'shuffle'"):
        ESRGAN(bands=1, scale=2, upsampling="shufle")


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
