"""What holds for every perceptual loss; small random weights, because the published ones cannot be fetched here."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from geosr.config.names import SATELLITE_METRICS
from geosr.config.schema import LossesSection
from geosr.errors import ConfigError, GridError
from geosr.losses import perceptual_loss

BANDS = ["B02", "B03", "B04", "B08"]
METRICS = ("vgg", "lpips", "dists", "ssl4eo")
"""One of each kind: the others differ in the depth of their network, which their own tests compare."""
SIDE = 32
"""Pixels that AlexNet has an output for."""


def loss_of(metric, bands=BANDS, **settings):
    layers = {"conv1_2": 0.5, "conv2_1": 2.0}
    section = LossesSection(perceptual_metric=metric, perceptual_layers=layers, perceptual_weights="random", **settings)
    return perceptual_loss(section, bands)


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    hr = 0.4 * torch.rand(2, 4, SIDE, SIDE, generator=generator)
    return hr + 0.05 * torch.randn(hr.shape, generator=generator), hr


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


def mask():
    return torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(9)) < 0.8


def value_and_gradient(loss, sr, hr, valid):
    leaf = sr.clone().requires_grad_()
    value = loss(leaf, hr, valid)
    value.backward()
    return value.item(), leaf.grad


@pytest.fixture(scope="module", params=METRICS)
def metric(request):
    return request.param


@pytest.fixture(scope="module")
def loss(metric):
    return loss_of(metric)


def test_building_it_draws_no_global_numbers_and_gives_the_same_every_time(metric, loss):
    state = torch.get_rng_state()
    again = loss_of(metric)
    assert torch.equal(torch.get_rng_state(), state)
    sr, hr = images()
    assert again(sr, hr, everywhere(sr)) == loss(sr, hr, everywhere(sr))


def test_equal_images_have_no_distance_and_others_some(loss):
    sr, hr = images()
    value, gradient = value_and_gradient(loss, hr, hr, everywhere(hr))
    assert value == pytest.approx(0, abs=1e-6)
    assert gradient.isfinite().all()
    assert float(loss(sr, hr, everywhere(hr))) > 1e-3


def test_the_gradient_is_that_of_finite_differences(loss):
    sr, hr = images()
    valid = mask()
    _, gradient = value_and_gradient(loss, sr, hr, valid)
    direction = gradient / gradient.norm()  # along which the difference is largest
    step = 0.02
    ahead, behind = (float(loss(sr + sign * step * direction, hr, valid)) for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.03)


def test_the_image_gets_a_gradient_and_hr_and_the_network_none(metric, loss):
    sr, hr = images()
    sr.requires_grad_()
    hr.requires_grad_()
    loss(sr, hr, everywhere(hr)).backward()
    assert sr.grad[:, :3].ne(0).float().mean() > 0.5
    assert bool(sr.grad[:, 3].any()) == (metric in SATELLITE_METRICS)  # near infrared
    assert hr.grad is None
    assert all(not one.requires_grad and one.grad is None for one in loss.network.parameters())


def test_bands_are_found_by_name(metric, loss):
    sr, hr = images()
    order = [3, 0, 2, 1]
    other = loss_of(metric, [BANDS[index] for index in order])
    ours = float(other(sr[:, order], hr[:, order], everywhere(sr)))
    assert ours == pytest.approx(float(loss(sr, hr, everywhere(sr))), rel=1e-5)


@pytest.mark.parametrize("stored", [1e9, math.nan])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(loss, stored):
    (sr, hr), valid = images(), mask()
    results = []
    for value in (0.1, stored):
        for image in (sr, hr):
            image.movedim(1, -1)[~valid] = value
        results.append(value_and_gradient(loss, sr, hr, valid))
    assert results[0][0] == results[1][0] > 0
    assert torch.equal(results[0][1], results[1][1])
    assert not results[1][1].movedim(1, -1)[~valid].any()


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_constant_images_have_a_finite_loss_and_gradient(loss, level):
    _, hr = images()
    for sr, target in ((torch.full_like(hr, level), hr), (hr, torch.full_like(hr, level))):
        value, gradient = value_and_gradient(loss, sr, target, everywhere(hr))
        assert math.isfinite(value)
        assert gradient.isfinite().all()


def test_without_valid_pixels_there_is_no_distance_and_no_gradient(loss):
    sr, hr = images()
    value, gradient = value_and_gradient(loss, sr, hr, ~everywhere(hr))
    assert value == pytest.approx(0, abs=1e-6)
    assert not gradient.any()


def test_it_is_in_no_state_and_among_no_parameters(loss):
    holder = nn.Sequential(loss, nn.Linear(2, 2))
    assert set(holder.state_dict()) == {"1.weight", "1.bias"}
    assert len(list(holder.parameters())) == 2
    holder.load_state_dict(nn.Sequential(nn.Identity(), nn.Linear(2, 2)).state_dict())
    holder.train()
    assert not any(part.training for part in loss.network.modules())  # a batch must not change its normalisation


def test_it_can_be_copied_and_pickled(loss):
    sr, hr = images()
    expected = loss(sr, hr, everywhere(sr))
    assert copy.deepcopy(loss)(sr, hr, everywhere(sr)) == expected
    assert pickle.loads(pickle.dumps(loss))(sr, hr, everywhere(sr)) == expected


def test_it_follows_its_module_to_another_device_or_type(loss):
    holder = nn.Sequential(copy.deepcopy(loss)).to("meta", torch.float64)
    image = torch.zeros(1, 4, SIDE, SIDE, device="meta", dtype=torch.float64)
    assert holder[0](image, image, everywhere(image)).device.type == "meta"
    assert next(holder[0].network.parameters()).dtype == torch.float64
    assert next(loss.network.parameters()).dtype == torch.float32


def test_under_autocast_it_is_nearly_the_same(loss):
    sr, hr = images()
    plain, _ = value_and_gradient(loss, sr, hr, everywhere(hr))
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(loss, sr, hr, everywhere(hr))
    assert value == pytest.approx(plain, rel=0.1)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("metric", "smallest"), [("lpips", 31), ("lpips_vgg", 16), ("dists", 16), ("ssl4eo", 1)])
def test_the_smallest_image_is_looked_at_and_a_smaller_one_refused(metric, smallest):
    loss = loss_of(metric)
    image = torch.rand(1, 4, smallest, smallest)
    assert loss(image, image, everywhere(image)).isfinite()
    if smallest > 1:
        less = image[..., 1:, :]
        with pytest.raises(GridError, match=rf"{smallest - 1} x {smallest} pixels.*needs {smallest} x {smallest}"):
            loss(less, less, everywhere(less))


@pytest.mark.parametrize("metric", ["vgg", "lpips", "lpips_vgg", "dists"])
def test_a_missing_band_is_named(metric):
    with pytest.raises(ConfigError, match=r"lacks B03 B02.*perceptual_metric=ssl4eo.*perceptual_weight=0"):
        loss_of(metric, ["B04", "B08"])
