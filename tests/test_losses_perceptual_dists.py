"""DISTS against torchmetrics', which has another program for it; small random weights in the network of both."""

from types import SimpleNamespace

import pytest
import torch
from torchmetrics.functional.image import dists
from torchvision.models.vgg import cfgs, make_layers

from geosr.losses.perceptual import DISTSLoss
from geosr.losses.perceptual.dists import halved

BANDS = ["B04", "B03", "B02"]


@pytest.fixture(scope="module")
def ours():
    return DISTSLoss(BANDS, weights="random", white=0.5)


@pytest.fixture(scope="module")
def theirs(ours):
    with torch.device("meta"):
        layers = make_layers(cfgs["D"])
    state = {name.removeprefix("features."): value for name, value in ours.network.state_dict().items()}
    layers.load_state_dict(state, assign=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dists, "vgg16", lambda weights: SimpleNamespace(features=layers))
        return dists.DISTSNetwork()


def images(noise=0.1, shape=(2, 3, 40, 36)):
    generator = torch.Generator().manual_seed(0)
    hr = 0.5 * torch.rand(shape, generator=generator)
    return hr + noise * torch.randn(shape, generator=generator), hr


@pytest.mark.parametrize("noise", [0.003, 0.1, 1.0])
@pytest.mark.parametrize("size", [(40, 36), (17, 33)])
def test_it_is_that_of_torchmetrics(ours, theirs, noise, size):
    sr, hr = images(noise, (2, 3, *size))
    with torch.no_grad():
        expected = float(theirs(sr / 0.5, hr / 0.5, require_grad=True).mean())
    valid = torch.ones(2, *size, dtype=torch.bool)
    assert float(ours(sr, hr, valid)) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_shifted_texture_is_nearer_than_another_one(ours):
    generator = torch.Generator().manual_seed(1)
    hr = (0.3 + 0.1 * torch.randn(1, 3, 48, 48, generator=generator)).clamp(0, 0.5)
    moved = hr.roll((5, 9), (-2, -1))
    valid = torch.ones(1, 48, 48, dtype=torch.bool)
    flat = torch.full_like(hr, float(hr.mean()))
    assert (moved - hr).abs().mean() > (flat - hr).abs().mean()
    assert ours(moved, hr, valid) < ours(flat, hr, valid)


def test_squares_beyond_the_range_of_float16_do_no_harm():
    features = torch.full((1, 4, 8, 8), 500.0, dtype=torch.float16)
    assert float(halved(features)[0, 0, 2, 2]) == pytest.approx(500, rel=1e-3)
