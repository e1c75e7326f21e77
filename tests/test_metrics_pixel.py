import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_kit import images, mask
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import error_relative_global_dimensionless_synthesis
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from geosr.metrics import bias, ergas, psnr, rmse


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), noise=st.floats(1e-4, 0.3), peak=st.sampled_from([0.5, 1.0, 2.0]))
def test_psnr_is_that_of_torchmetrics_and_skimage(seed, noise, peak):
    sr, hr = images(seed=seed, noise=noise)
    ours = float(psnr(sr, hr, peak=peak))
    assert ours == pytest.approx(float(torchmetrics_psnr(sr, hr, data_range=peak)), abs=1e-3)
    reference = peak_signal_noise_ratio(hr.double().numpy(), sr.double().numpy(), data_range=peak)
    assert ours == pytest.approx(reference, abs=1e-4)


def test_psnr_of_valid_pixels_is_that_of_skimage_for_them():
    (sr, hr), valid = images(), mask()
    ours = psnr(sr, hr, valid)
    there = [image.movedim(1, -1)[valid].double().numpy() for image in (hr, sr)]
    assert float(ours) == pytest.approx(peak_signal_noise_ratio(*there, data_range=1.0), abs=1e-4)


def test_psnr_of_equal_images_is_infinite():
    _, hr = images()
    assert psnr(hr, hr) == math.inf


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), noise=st.floats(1e-4, 0.3), share=st.floats(0.1, 1))
def test_rmse_and_bias_are_those_of_numpy_band_by_band(seed, noise, share):
    sr, hr = images(seed=seed, noise=noise)
    valid = torch.rand(2, 24, 20, generator=torch.Generator().manual_seed(seed)) < share
    error = (sr.double() - hr.double()).movedim(1, -1)[valid].numpy()
    np.testing.assert_allclose(rmse(sr, hr, valid), np.sqrt((error**2).mean(0)), rtol=1e-6)
    np.testing.assert_allclose(bias(sr, hr, valid), error.mean(0), atol=1e-8)


def test_a_brighter_band_has_a_bias_above_zero_and_the_others_none():
    _, hr = images()
    sr = hr.clone()
    sr[:, 2] += 0.01
    np.testing.assert_allclose(bias(sr, hr), [0, 0, 0.01, 0], atol=1e-7)


@pytest.mark.parametrize("scale", [2, 4])
def test_ergas_is_that_of_torchmetrics(scale):
    sr, hr = images()
    theirs = error_relative_global_dimensionless_synthesis(sr.double(), hr.double(), ratio=scale)
    assert float(ergas(sr, hr, scale=scale)) == pytest.approx(float(theirs), rel=1e-6)


def test_ergas_of_valid_pixels_is_that_of_numpy_for_the_images_that_have_some():
    sr, hr = images((3, 4, 24, 20))
    valid = mask((3, 24, 20))
    valid[1] = False
    expected = []
    for one, other, known in zip(sr, hr, valid, strict=True):
        ours, theirs = (image.movedim(0, -1)[known].double().numpy() for image in (one, other))
        if known.any():
            relative = ((ours - theirs) ** 2).mean(0) / theirs.mean(0) ** 2
            expected.append(100 / 2 * math.sqrt(relative.mean()))
    assert float(ergas(sr, hr, valid, scale=2)) == pytest.approx(np.mean(expected), rel=1e-6)
