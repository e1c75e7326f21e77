import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.losses import l1


def case(seed=0, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    sr, hr = torch.rand(2, 2, 3, 5, 4, generator=generator)
    return sr, hr, torch.rand(2, 5, 4, generator=generator) < share


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_l1_is_the_mean_over_valid_pixels_and_bands(seed, share):
    sr, hr, valid = case(seed, share)
    errors = [
        abs(float(sr[image, band, row, column]) - float(hr[image, band, row, column]))
        for image, row, column in np.argwhere(valid.numpy())
        for band in range(3)
    ]
    assert float(l1(sr, hr, valid)) == pytest.approx(np.mean(errors) if errors else 0, abs=1e-6)


def test_without_valid_pixels_the_loss_and_its_gradient_are_zero():
    sr, hr, valid = case(share=0)
    sr.requires_grad_(True)
    loss = l1(sr, hr, valid)
    loss.backward()
    assert loss == 0
    assert not sr.grad.any()


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e6, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored):
    def loss_and_gradient(sr, hr):
        sr = sr.clone().requires_grad_(True)
        loss = l1(sr, hr, valid)
        loss.backward()
        return loss.item(), sr.grad

    sr, hr, valid = case()
    loss, gradient = loss_and_gradient(sr, hr)
    hr.movedim(1, -1)[~valid] = stored
    changed_loss, changed_gradient = loss_and_gradient(sr, hr)
    assert changed_loss == loss
    assert torch.equal(changed_gradient, gradient)


def test_only_valid_pixels_get_a_gradient():
    sr, hr, valid = case()
    sr.requires_grad_(True)
    l1(sr, hr, valid).backward()
    assert torch.equal(sr.grad.ne(0).all(1), valid)
