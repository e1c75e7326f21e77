import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_kit import assert_blind_to_invalid_pixels, case, everywhere
from scipy.signal.windows import hann

from geosr.losses import focal_frequency, log_spectral_distance, mse
from geosr.losses.frequency import FLOOR


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


def distance_and_gradient(sr, hr, valid):
    sr = sr.clone().requires_grad_()
    loss = log_spectral_distance(sr, hr, valid)
    loss.backward()
    return loss.item(), sr.grad


def decibels(window):
    """Power of each cell of 4 x 4 frequencies of a window (y, x), from the lowest on, sum by sum."""
    side = len(window)
    taper = np.outer(hann(side), hann(side))
    waves = np.exp(-2j * np.pi * np.outer(np.arange(side) - side // 2, np.arange(side)) / side)
    power = abs(waves @ ((window - window.mean()) * taper) @ waves.T) ** 2 / (taper**2).sum()
    cells = [power[y : y + 4, x : x + 4].mean() for y in range(0, side - 3, 4) for x in range(0, side - 3, 4)]
    return 10 * np.log10(np.array(cells) + FLOOR**2)


def windows_of(image, side):
    """Windows (y, x) of an image (y, x), each half a side from the next."""
    starts = [range(0, length - side + 1, side // 2) for length in image.shape]
    return [image[y : y + side, x : x + side] for y in starts[0] for x in starts[1]]


@pytest.mark.parametrize(("height", "width", "side"), [(4, 4, 4), (9, 20, 9), (32, 32, 32), (50, 64, 32)])
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_the_distance_of_the_spectra_is_that_of_their_cells(height, width, side, share):
    sr, hr, valid = case(3, share, shape=(2, 2, height, width))
    distances, weights = [], []
    for image in range(2):
        for band in range(2):
            seen = [(one[image, band] * valid[image]).double().numpy() for one in (sr, hr)]
            pairs = zip(*(windows_of(one, side) for one in seen), strict=True)
            distances += [abs(decibels(ours) - decibels(theirs)).mean() for ours, theirs in pairs]
            weights += [window.mean() for window in windows_of(valid[image].double().numpy(), side)]
    expected = np.average(distances, weights=weights)
    assert float(log_spectral_distance(sr, hr, valid)) == pytest.approx(expected, rel=1e-4)


def test_ten_times_the_detail_is_twenty_decibels_too_much_wherever_it_lies():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    distance = log_spectral_distance(10 * noise, noise, everywhere(noise))
    assert float(distance) == pytest.approx(20, abs=1e-3)
    elsewhere = log_spectral_distance(noise.flip(2, 3), noise, everywhere(noise))
    assert float(elsewhere) < 3 < 20 * float((noise.flip(2, 3) - noise).abs().mean())


def test_noise_that_every_image_has_is_not_asked_for():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    flat = torch.zeros_like(noise)
    missing = [float(log_spectral_distance(flat, level * noise, everywhere(flat))) for level in (0.0005, 0.02)]
    assert missing[0] < 0.5
    assert missing[1] > 15


def test_a_grid_is_heard_by_its_direction():
    """Stripes that stand instead of lie have the same power at the same frequency, but not in the same cell."""
    stripes = 0.1 * torch.cos(math.pi / 2 * torch.arange(64)).expand(1, 1, 64, 64)
    assert float(log_spectral_distance(stripes.mT, stripes, everywhere(stripes))) > 1


def test_equal_spectra_have_no_distance_and_a_finite_gradient():
    hr = torch.full((1, 2, 32, 32), 0.3)
    value, gradient = distance_and_gradient(hr, hr, everywhere(hr))
    assert value == 0
    assert not gradient.any()
    value, gradient = distance_and_gradient(hr + 0.1, hr, everywhere(hr))
    assert value == pytest.approx(0, abs=1e-3)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 3, 40), (2, 3, 40, 40)])
def test_nothing_to_compare_is_no_distance(shape):
    value, gradient = distance_and_gradient(*case(share=0 if shape[2] > 3 else 1, shape=shape))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("stored", [0.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_no_distance(stored):
    assert_blind_to_invalid_pixels(distance_and_gradient, *case(shape=(2, 3, 40, 36)), stored=stored)
