import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.image import SpectralAngleMapper

from geosr.metrics import psnr, sam, ssim


def images(shape=(2, 4, 24, 20), *, seed=0, noise=0.02):
    """SR and HR reflectance that differ a little."""
    generator = torch.Generator().manual_seed(seed)
    hr = 0.05 + 0.4 * torch.rand(shape, generator=generator)
    return hr + noise * torch.randn(shape, generator=generator), hr


def mask(shape=(2, 24, 20), seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7


def patchy():
    """A mask with a column, a block and the last row missing, which leaves whole windows of SSIM."""
    valid = torch.ones(2, 24, 20, dtype=torch.bool)
    valid[0, :, 0] = valid[0, 0:2, 15:] = valid[1, -1] = False
    return valid


def angle_oracle(sr, hr, valid=None):
    """Mean angle in degrees by the arccosine of the normalised dot product, in float64."""
    sr, hr = (np.moveaxis(image.numpy().astype(float), 1, -1) for image in (sr, hr))
    norms = np.linalg.norm(sr, axis=-1) * np.linalg.norm(hr, axis=-1)
    cosine = np.divide((sr * hr).sum(-1), norms, out=np.ones_like(norms), where=norms > 0)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angle.mean() if valid is None else angle[valid.numpy()].mean()


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
@given(seed=st.integers(0, 1000), noise=st.floats(5e-3, 0.3), bands=st.integers(2, 6))
def test_sam_is_that_of_torchmetrics_and_of_the_arccosine(seed, noise, bands):
    sr, hr = images((2, bands, 13, 11), seed=seed, noise=noise)
    ours = float(sam(sr, hr))
    assert ours == pytest.approx(angle_oracle(sr, hr), abs=1e-4)
    metric = SpectralAngleMapper()
    metric.update(sr, hr)
    assert ours == pytest.approx(math.degrees(float(metric.compute())), abs=0.01)


def test_sam_measures_an_angle_that_is_known():
    hr = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    for degrees in (0.001, 1.0, 45.0, 90.0, 135.0):
        turned = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]).view(1, 2, 1, 1)
        assert float(sam(3 * turned, 0.2 * hr)) == pytest.approx(degrees, rel=1e-4)


def test_brightness_does_not_change_the_spectral_angle():
    sr, hr = images()
    gain = 0.1 + torch.rand(2, 1, 24, 20, generator=torch.Generator().manual_seed(2))
    assert float(sam(gain * sr, hr)) == pytest.approx(float(sam(sr, hr)), abs=1e-4)
    assert float(sam(gain * hr, hr)) == pytest.approx(0, abs=1e-4)


def test_a_spectrum_of_zeros_has_no_angle():
    sr, hr = images()
    sr[0, :, 3, 4] = 0
    hr[1, :, 5, 6] = 0
    sr[1, :, 7, 8] = hr[1, :, 7, 8] = 0
    assert float(sam(sr, hr)) == pytest.approx(angle_oracle(sr, hr), abs=1e-4)
    assert sam(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3)) == 0


def test_sam_of_valid_pixels_is_that_of_the_arccosine_for_them():
    (sr, hr), valid = images(), mask()
    assert float(sam(sr, hr, valid)) == pytest.approx(angle_oracle(sr, hr, valid), abs=1e-4)


@pytest.mark.parametrize("metric", [psnr, sam, ssim])
@pytest.mark.parametrize("stored", [0.0, -1e6, 1e30, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_nothing(metric, stored):
    (sr, hr), valid = images(), patchy()
    before = metric(sr, hr, valid)
    assert before.isfinite()
    for image in (sr, hr):
        image.movedim(1, -1)[~valid] = stored
    assert metric(sr, hr, valid) == before


@pytest.mark.parametrize("metric", [psnr, sam, ssim])
def test_what_a_valid_pixel_holds_does(metric):
    (sr, hr), valid = images(), patchy()
    before = metric(sr, hr, valid)
    sr[0, 0, 12, 8] += 0.1
    assert metric(sr, hr, valid) != before


def ssim_oracle(sr, hr, peak=1.0):
    """Structural similarity of each pixel (y, x) by scikit-image, mean over bands, edges continued by reflection."""
    pad = ((0, 0), (5, 5), (5, 5))
    sr, hr = (np.pad(image[0].double().numpy(), pad, mode="reflect") for image in (sr, hr))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, similarity = structural_similarity(hr, sr, channel_axis=0, data_range=peak, full=True, **window)
    return similarity.mean(0)[5:-5, 5:-5]


@pytest.mark.parametrize("peak", [1.0, 0.5])
def test_ssim_is_that_of_skimage(peak):
    sr, hr = images((1, 3, 40, 33), noise=0.1)
    assert float(ssim(sr, hr, peak=peak)) == pytest.approx(ssim_oracle(sr, hr, peak).mean(), abs=1e-5)
    assert float(ssim(hr, hr)) == pytest.approx(1, abs=1e-6)


def test_ssim_counts_windows_without_an_invalid_pixel():
    sr, hr = images((1, 3, 40, 33), noise=0.1)
    valid = torch.ones(1, 40, 33, dtype=torch.bool)
    valid[0, 20, 16] = valid[0, 3, 0] = False
    counted = np.ones((40, 33), bool)
    counted[15:26, 11:22] = counted[0:9, 0:6] = False
    assert float(ssim(sr, hr, valid)) == pytest.approx(ssim_oracle(sr, hr)[counted].mean(), abs=1e-5)


@pytest.mark.parametrize("metric", [psnr, sam, ssim])
def test_metrics_have_no_gradient_and_ignore_autocast(metric):
    sr, hr = images()
    plain = metric(sr, hr)
    with torch.autocast("cpu", torch.bfloat16):
        value = metric(sr.requires_grad_(), hr)
    assert value == plain
    assert not value.requires_grad


@pytest.mark.parametrize("metric", [psnr, sam, ssim])
def test_without_a_valid_pixel_there_is_nothing_to_measure(metric):
    assert metric(*images(), torch.zeros(2, 24, 20, dtype=torch.bool)).isnan()
