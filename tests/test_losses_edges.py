import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_kit import assert_blind_to_invalid_pixels, case, everywhere
from torchmetrics.functional.image import image_gradients

from geosr.losses import gradient


def loss_and_gradient(sr, hr, valid):
    sr = sr.clone().requires_grad_()
    loss = gradient(sr, hr, valid)
    loss.backward()
    return loss.item(), sr.grad


def oracle(sr, hr, valid):
    """The two means, pair of pixels by pair."""
    sr, hr, valid = sr.numpy().astype(float), hr.numpy().astype(float), valid.numpy()
    total = 0.0
    for down, right in ((1, 0), (0, 1)):
        errors = []
        for image, band, row, column in np.ndindex(sr.shape):
            other = row + down, column + right
            if other[0] < sr.shape[2] and other[1] < sr.shape[3] and valid[image, row, column] and valid[image, *other]:
                steps = [one[image, band, *other] - one[image, band, row, column] for one in (sr, hr)]
                errors.append(abs(steps[0] - steps[1]))
        total += np.mean(errors) if errors else 0.0
    return total


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), height=st.integers(1, 5), width=st.integers(1, 5))
def test_the_mean_error_of_the_steps_between_valid_neighbours(seed, share, height, width):
    sr, hr, valid = case(seed, share, (2, 2, height, width))
    assert float(gradient(sr, hr, valid)) == pytest.approx(oracle(sr, hr, valid), abs=1e-6)


def test_the_steps_are_those_of_torchmetrics():
    sr, hr, _ = case()
    (down, right), (other_down, other_right) = image_gradients(sr), image_gradients(hr)
    expected = (down - other_down)[..., :-1, :].abs().mean() + (right - other_right)[..., :-1].abs().mean()
    assert float(gradient(sr, hr, everywhere(sr))) == pytest.approx(float(expected), rel=1e-5)


def test_an_edge_that_falls_where_it_should_rise_is_an_error_and_another_level_is_none():
    hr = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    assert float(gradient(1 - hr, hr, everywhere(hr))) == pytest.approx(2 / 3)
    assert float(gradient(hr + 0.5, hr, everywhere(hr))) == 0


def test_the_gradient_is_that_of_finite_differences():
    sr, hr, valid = case()
    sr, hr = sr.double().requires_grad_(), hr.double()
    assert torch.autograd.gradcheck(lambda image: gradient(image, hr, valid), (sr,))


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_constant_images_have_neither_loss_nor_gradient(level):
    hr = torch.full((1, 2, 4, 4), level)
    value, slope = loss_and_gradient(torch.zeros_like(hr), hr, everywhere(hr))
    assert value == 0
    assert not slope.any()


def test_without_valid_pixels_the_loss_and_its_gradient_are_zero():
    value, slope = loss_and_gradient(*case(share=0))
    assert value == 0
    assert not slope.any()


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored):
    assert_blind_to_invalid_pixels(loss_and_gradient, *case(), stored=stored)
