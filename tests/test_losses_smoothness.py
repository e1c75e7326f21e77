import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import total_variation

from geosr.losses import tv


def case(seed=0, share=0.7, shape=(2, 3, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    sr = torch.rand(shape, generator=generator)
    return sr, torch.rand(shape[0], *shape[2:], generator=generator) < share


def oracle(sr, valid):
    """The two means, pair of pixels by pair."""
    sr, valid = sr.numpy(), valid.numpy()
    total = 0.0
    for down, right in ((1, 0), (0, 1)):
        steps = [
            abs(float(sr[image, band, row, column]) - float(sr[image, band, row + down, column + right]))
            for image, band, row, column in np.ndindex(sr.shape)
            if row + down < sr.shape[2] and column + right < sr.shape[3]
            if valid[image, row, column] and valid[image, row + down, column + right]
        ]
        total += np.mean(steps) if steps else 0.0
    return total


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), height=st.integers(1, 5), width=st.integers(1, 5))
def test_the_mean_difference_between_valid_neighbours(seed, share, height, width):
    sr, valid = case(seed, share, (2, 2, height, width))
    assert float(tv(sr, valid)) == pytest.approx(oracle(sr, valid), abs=1e-6)


def lengths(sr, valid):
    """The mean length of the gradient, pixel by pixel."""
    sr, valid = sr.numpy().astype(float), valid.numpy()
    found = [
        np.hypot(
            sr[image, band, row + 1, column] - sr[image, band, row, column],
            sr[image, band, row, column + 1] - sr[image, band, row, column],
        )
        for image, band, row, column in np.ndindex(*sr.shape[:2], sr.shape[2] - 1, sr.shape[3] - 1)
        if valid[image, row, column] and valid[image, row + 1, column] and valid[image, row, column + 1]
    ]
    return np.mean(found) if found else 0.0


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), height=st.integers(1, 5), width=st.integers(1, 5))
def test_isotropic_it_is_the_mean_length_of_the_gradient(seed, share, height, width):
    sr, valid = case(seed, share, (2, 2, height, width))
    assert float(tv(sr, valid, isotropic=True)) == pytest.approx(lengths(sr, valid), abs=1e-6)


def test_isotropic_it_does_not_prefer_a_direction():
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    for angle in (0.0, 0.5, 1.0):
        ramp = (0.3 * (math.cos(angle) * rows + math.sin(angle) * columns)).expand(1, 2, 8, 8)
        assert float(tv(ramp, valid, isotropic=True)) == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_gradient_is_that_of_finite_differences(isotropic):
    sr, valid = case()
    sr = sr.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda image: tv(image, valid, isotropic=isotropic), (sr,))


@pytest.mark.parametrize("isotropic", [False, True])
def test_without_valid_pixels_the_loss_and_its_gradient_are_zero(isotropic):
    sr, valid = case(share=0)
    sr.requires_grad_()
    loss = tv(sr, valid, isotropic=isotropic)
    loss.backward()
    assert loss == 0
    assert not sr.grad.any()


def test_the_sum_of_all_differences_is_that_of_torchmetrics():
    sr, _ = case(shape=(2, 3, 7, 7))
    pairs = 2 * 3 * 6 * 7  # as many down as to the right in a square
    ours = tv(sr, torch.ones(2, 7, 7, dtype=torch.bool)) * pairs
    assert float(ours) == pytest.approx(float(total_variation(sr)), rel=1e-5)


def test_a_ramp_varies_by_its_slope():
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    ramp = (0.3 * rows - 0.2 * columns).expand(1, 2, 8, 9)
    assert float(tv(ramp, torch.ones(1, 8, 9, dtype=torch.bool))) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored, isotropic):
    sr, valid = case()
    results = []
    for value in (0.5, stored):
        sr.movedim(1, -1)[~valid] = value
        leaf = sr.clone().requires_grad_()
        loss = tv(leaf, valid, isotropic=isotropic)
        loss.backward()
        results.append((loss.item(), leaf.grad))
    assert results[0][0] == results[1][0] > 0
    assert torch.equal(results[0][1], results[1][1])
    assert not results[1][1].movedim(1, -1)[~valid].any()


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.2])
def test_a_flat_image_has_neither_variation_nor_gradient(isotropic, level):
    sr = torch.full((1, 2, 4, 4), level, requires_grad=True)
    loss = tv(sr, torch.ones(1, 4, 4, dtype=torch.bool), isotropic=isotropic)
    loss.backward()
    assert loss == 0
    assert not sr.grad.any()
