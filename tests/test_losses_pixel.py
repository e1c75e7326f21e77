import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import mean_squared_error

from geosr.losses import charbonnier, l1, mse

LOSSES = {"l1": l1, "mse": mse, "charbonnier": charbonnier}
ERROR = {"l1": abs, "mse": lambda error: error**2, "charbonnier": lambda error: math.hypot(error, 1e-3)}

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def case(seed=0, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    sr, hr = torch.rand(2, 2, 3, 5, 4, generator=generator)
    return sr, hr, torch.rand(2, 5, 4, generator=generator) < share


def loss_and_gradient(loss, sr, hr, valid, **options):
    sr = sr.clone().requires_grad_(True)
    value = loss(sr, hr, valid, **options)
    value.backward()
    return value.item(), sr.grad


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_the_mean_over_valid_pixels_and_bands(name, seed, share):
    sr, hr, valid = case(seed, share)
    errors = [
        ERROR[name](float(sr[image, band, row, column]) - float(hr[image, band, row, column]))
        for image, row, column in np.argwhere(valid.numpy())
        for band in range(3)
    ]
    expected = np.mean(errors) if errors else 0
    assert float(LOSSES[name](sr, hr, valid)) == pytest.approx(expected, abs=1e-6)


def test_the_squared_error_is_that_of_torchmetrics():
    sr, hr, valid = case(share=2)
    assert float(mse(sr, hr, valid)) == pytest.approx(float(mean_squared_error(sr, hr)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_band_counts_as_much_as_its_weight(name):
    sr, hr, valid = case()
    of_bands = [float(LOSSES[name](sr[:, [band]], hr[:, [band]], valid)) for band in range(3)]
    for weights in ([1, 1, 1], [2.0, 0.5, 1.0], [0, 0, 3]):
        expected = np.average(of_bands, weights=weights)
        assert float(LOSSES[name](sr, hr, valid, band_weights=weights)) == pytest.approx(expected, rel=1e-5)


@every_loss
def test_the_gradient_is_that_of_finite_differences(loss):
    sr, hr, valid = case()
    sr, hr = sr.double().requires_grad_(), hr.double()
    assert torch.autograd.gradcheck(lambda image: loss(image, hr, valid, band_weights=[1.0, 2.0, 0.5]), (sr,))


def test_charbonnier_is_l1_where_the_error_is_large_and_half_mse_where_it_is_small():
    hr, valid = torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool)
    assert float(charbonnier(hr + 0.5, hr, valid, eps=1e-3)) == pytest.approx(0.5, rel=1e-5)
    _, gradient = loss_and_gradient(charbonnier, hr + 1e-5, hr, valid, eps=1e-2)
    _, square = loss_and_gradient(mse, hr + 1e-5, hr, valid)
    assert torch.allclose(gradient, square / 2 / 1e-2, rtol=1e-5)


@every_loss
def test_equal_images_have_no_gradient(loss):
    for level in (0.0, 0.3):
        hr = torch.full((1, 2, 4, 4), level)
        value, gradient = loss_and_gradient(loss, hr, hr, hr[:, 0] > -1)
        assert value == pytest.approx(1e-3 if loss is charbonnier else 0)
        assert not gradient.any()


@every_loss
def test_without_valid_pixels_the_loss_and_its_gradient_are_zero(loss):
    sr, hr, valid = case(share=0)
    value, gradient = loss_and_gradient(loss, sr, hr, valid)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e6, math.nan, math.inf])
@every_loss
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(loss, stored):
    sr, hr, valid = case()
    value, gradient = loss_and_gradient(loss, sr, hr, valid)
    for image in (hr, sr):
        image.movedim(1, -1)[~valid] = stored
        changed_value, changed_gradient = loss_and_gradient(loss, sr, hr, valid)
        assert changed_value == value
        assert torch.equal(changed_gradient, gradient)


@every_loss
def test_only_valid_pixels_get_a_gradient(loss):
    sr, hr, valid = case()
    _, gradient = loss_and_gradient(loss, sr, hr, valid)
    assert torch.equal(gradient.ne(0).all(1), valid)
