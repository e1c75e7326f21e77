import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_kit import assert_blind_to_invalid_pixels, case, everywhere

from geosr.losses import focal_frequency, mse


def loss_and_gradient(sr, hr, valid, **options):
    sr = sr.clone().requires_grad_()
    loss = focal_frequency(sr, hr, valid, **options)
    loss.backward()
    return loss.item(), sr.grad


def of_the_paper(sr, hr, alpha):
    """Mean over images and bands of the mean weighted distance of two spectra, sum by sum."""
    values = []
    for ours, theirs in zip(sr.numpy().reshape(-1, *sr.shape[2:]), hr.numpy().reshape(-1, *hr.shape[2:]), strict=True):
        height, width = ours.shape
        rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
        columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width)
        spectra = [rows @ image.astype(float) @ columns / math.sqrt(height * width) for image in (ours, theirs)]
        distance = abs(spectra[0] - spectra[1])
        weight = distance**alpha / (distance**alpha).max()
        values.append((weight * distance**2).mean())
    return np.mean(values)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@given(seed=st.integers(0, 1000), height=st.integers(1, 7), width=st.integers(1, 7))
def test_it_is_that_of_the_paper(alpha, seed, height, width):
    sr, hr, _ = case(seed, shape=(2, 2, height, width))
    ours = float(focal_frequency(sr, hr, everywhere(sr), alpha=alpha))
    assert ours == pytest.approx(of_the_paper(sr, hr, alpha), rel=1e-4)


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_with_equal_weights_it_is_the_mean_squared_error(seed, share):
    sr, hr, valid = case(seed, share)
    ours = float(focal_frequency(sr, hr, valid, alpha=0))
    assert ours == pytest.approx(float(mse(sr, hr, valid)), rel=1e-4)


def test_the_worst_coefficient_counts_in_full_and_a_smaller_one_less():
    wave = torch.cos(2 * math.pi * torch.arange(8) / 8).expand(1, 1, 8, 8)
    hr = torch.zeros(1, 1, 8, 8)
    assert float(focal_frequency(wave, hr, everywhere(hr))) == pytest.approx(0.5)  # the wave's mean square
    both = wave + 0.1 * wave.mT
    assert float(focal_frequency(both, hr, everywhere(hr))) == pytest.approx(0.5 + 0.1 * 0.5 * 0.01)


def test_the_weights_have_no_gradient():
    sr, hr, valid = case()
    _, gradient = loss_and_gradient(sr, hr, valid)
    off = torch.fft.fft2(torch.where(valid.unsqueeze(1), sr - hr, 0.0), norm="ortho")
    weighted = off * off.abs() / off.abs().amax((-2, -1), keepdim=True)
    expected = torch.fft.ifft2(2 * weighted / (3 * valid.sum()), norm="ortho").real
    assert torch.allclose(gradient, torch.where(valid.unsqueeze(1), expected, 0.0), atol=1e-7)


def test_the_gradient_without_weights_is_that_of_finite_differences():
    sr, hr, valid = case()
    sr, hr = sr.double().requires_grad_(), hr.double()
    assert torch.autograd.gradcheck(lambda image: focal_frequency(image, hr, valid, alpha=0), (sr,))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_equal_and_constant_images_have_a_finite_gradient(alpha, level):
    hr = torch.full((1, 2, 4, 4), level)
    value, gradient = loss_and_gradient(hr, hr, everywhere(hr), alpha=alpha)
    assert value == 0
    assert not gradient.any()
    value, gradient = loss_and_gradient(hr + 0.1, hr, everywhere(hr), alpha=alpha)
    assert value == pytest.approx(0.01, rel=1e-4)
    assert gradient.isfinite().all()


def test_without_valid_pixels_the_loss_and_its_gradient_are_zero():
    value, gradient = loss_and_gradient(*case(share=0))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored):
    assert_blind_to_invalid_pixels(loss_and_gradient, *case(), stored=stored)
