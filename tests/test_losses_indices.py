import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_kit import assert_blind_to_invalid_pixels, everywhere

from geosr.errors import ConfigError
from geosr.losses import index_pairs, indices
from geosr.losses.indices import FAINT
from geosr.sensors import INDICES, get_sensor

BANDS = ["B02", "B03", "B04", "B08"]
PAIRS = index_pairs(BANDS)


def case(seed=0, share=0.6, *, noise=0.05):
    generator = torch.Generator().manual_seed(seed)
    hr = 0.02 + 0.4 * torch.rand(2, 4, 6, 5, generator=generator)
    sr = hr + noise * torch.randn(2, 4, 6, 5, generator=generator)
    return sr, hr, torch.rand(2, 6, 5, generator=generator) < share


def loss_and_gradient(sr, hr, valid):
    sr = sr.clone().requires_grad_()
    loss = indices(sr, hr, valid, pairs=PAIRS)
    loss.backward()
    return loss.item(), sr.grad


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_the_mean_error_of_ndvi_and_ndwi(seed, share):
    sr, hr, valid = case(seed, share, noise=0.005)  # no reflectance is negative
    errors = []
    for image, row, column in np.argwhere(valid.numpy()):
        ours, theirs = (one[image, :, row, column].double().tolist() for one in (sr, hr))
        ndvi = [(nir - red) / (nir + red) for _, _, red, nir in (ours, theirs)]
        ndwi = [(green - nir) / (green + nir) for _, green, _, nir in (ours, theirs)]
        errors += [abs(ndvi[0] - ndvi[1]), abs(ndwi[0] - ndwi[1])]
    expected = np.mean(errors) if errors else 0
    assert float(indices(sr, hr, valid, pairs=PAIRS)) == pytest.approx(expected, abs=1e-5)


def test_brightness_alone_changes_no_index():
    _, hr, _ = case()
    assert float(indices(0.7 * hr, hr, everywhere(hr), pairs=PAIRS)) == pytest.approx(0, abs=1e-6)


def test_the_indices_are_those_that_the_bands_allow():
    assert index_pairs(["B08", "B04"]) == [(0, 1)]
    assert index_pairs(["B05", "B06", "B07", "B8A", "B11", "B12"]) == [(3, 4), (3, 5), (3, 0)]
    assert len(index_pairs(get_sensor("sentinel-2-l2a").band_names)) == len(INDICES)


def test_bands_without_an_index_are_refused():
    with pytest.raises(ConfigError, match=r"ndvi \(B08 B04\).*Data\.bands has B02 B04.*indices_weight=0"):
        index_pairs(["B02", "B04"])


def test_the_gradient_is_that_of_finite_differences():
    sr, hr, valid = case()
    sr, hr = sr.double().requires_grad_(), hr.double()
    assert torch.autograd.gradcheck(lambda image: indices(image, hr, valid, pairs=PAIRS), (sr,))


@given(seed=st.integers(0, 300), exponent=st.floats(-30, 3))
@settings(max_examples=40)
def test_an_index_is_at_most_1_and_its_gradient_bounded_however_dark_or_negative_a_pixel_is(seed, exponent):
    sr, hr, valid = case(seed, share=2)
    for sign in (1, -1):
        value, gradient = loss_and_gradient(sign * sr * 10**exponent, hr, valid)
        assert 0 <= value <= 2
        assert gradient.abs().max() * valid.sum() <= 1.001 * 2 / FAINT


@pytest.mark.parametrize("level", [0.0, -1.0, 1e-30, 0.3])
def test_constant_images_have_a_finite_loss_and_gradient(level):
    _, hr, valid = case()
    flat = torch.full_like(hr, level)
    for target in (hr, flat):
        value, gradient = loss_and_gradient(flat, target, valid)
        assert math.isfinite(value)
        assert gradient.isfinite().all()
    assert value == 0
    assert not gradient.any()


def test_without_valid_pixels_the_loss_and_its_gradient_are_zero():
    value, gradient = loss_and_gradient(*case(share=0))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored):
    assert_blind_to_invalid_pixels(loss_and_gradient, *case(), stored=stored)
