import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geosr.degrade import PSF, degrade
from geosr.degrade.psf import reflect
from geosr.io.scene import open_scene

SCALES = (2, 3, 4)


def degrade_oracle(hr, scale, mtf=0.3):
    """../shared/data/README.md, word by word, in float64: Gaussian blur with mirrored edges, then block means."""
    sigma = math.sqrt(-2 * math.log(mtf * math.pi / 2)) * scale / math.pi
    radius = math.ceil(3 * sigma)
    kernel = np.array([math.exp(-(n**2) / (2 * sigma**2)) for n in range(-radius, radius + 1)])
    blurred = hr.astype(float)
    for axis in (2, 3):
        blurred = ndimage.correlate1d(blurred, kernel / kernel.sum(), axis=axis, mode="mirror")
    batch, band, height, width = hr.shape
    return blurred.reshape(batch, band, height // scale, scale, width // scale, scale).mean((3, 5))


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def fields(shared_data):
    with open_scene(shared_data / "s2" / "germany_fields_10m.tif") as scene:
        return torch.from_numpy(scene.read((slice(0, 240), slice(0, 240))).array)[None]


@given(scale=st.integers(1, 9), mtf=st.floats(0.05, 0.6))
def test_kernel_weights_are_symmetric_and_sum_to_one(scale, mtf):
    kernel = PSF(scale, mtf).kernel
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert (kernel >= 0).all()
    np.testing.assert_allclose(kernel, kernel[::-1], rtol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("mtf", [0.15, 0.3])
def test_mtf_at_the_lr_nyquist_frequency_is_what_is_asked_for(scale, mtf):
    kernel = PSF(scale, mtf).kernel
    position = np.arange(kernel.size) - (kernel.size - 1) / 2
    nyquist = 1 / (2 * scale)  # cycles per HR pixel
    of_kernel = abs(np.sum(kernel * np.exp(-2j * np.pi * nyquist * position)))
    of_hr_pixel = np.sinc(nyquist)  # an HR pixel is an average over its own area
    # The Gaussian is sampled once a pixel and cut at three sigma, which moves the contrast by less than 0.3 %.
    assert of_kernel * of_hr_pixel == pytest.approx(mtf, rel=3e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_sigma_is_that_of_the_judges(scale):
    psf = PSF(scale)
    assert psf.sigma == pytest.approx(math.sqrt(-2 * math.log(0.3 * math.pi / 2)) * scale / math.pi, rel=1e-12)
    assert psf.radius == math.ceil(3 * psf.sigma)


@pytest.mark.parametrize("scale", SCALES)
def test_degradation_is_a_gaussian_blur_and_a_block_mean(scale):
    hr = random_image(2, 3, 12 * scale, 17 * scale)
    np.testing.assert_allclose(degrade(hr, PSF(scale)).numpy(), degrade_oracle(hr.numpy(), scale), atol=5e-7)


@settings(max_examples=60)
@given(scale=st.integers(1, 5), rows=st.integers(1, 4), columns=st.integers(1, 4), mtf=st.sampled_from([0.1, 0.3, 0.6]))
def test_images_smaller_than_the_kernel_are_mirrored_again_and_again(scale, rows, columns, mtf):
    hr = random_image(1, 2, rows * scale, columns * scale, seed=rows)
    np.testing.assert_allclose(degrade(hr, PSF(scale, mtf)).numpy(), degrade_oracle(hr.numpy(), scale, mtf), atol=5e-7)


@given(height=st.integers(1, 7), width=st.integers(1, 7), pad=st.integers(0, 20))
def test_reflection_is_that_of_numpy(height, width, pad):
    image = random_image(1, 1, height, width)
    padded = np.pad(image[0, 0].numpy(), pad, mode="reflect")
    np.testing.assert_array_equal(reflect(image, pad)[0, 0].numpy(), padded)
    with patch("geosr.degrade.psf.exporting", lambda: True):  # as while a graph is recorded
        np.testing.assert_array_equal(reflect(image, pad)[0, 0].numpy(), padded)


@pytest.mark.parametrize("scale", SCALES)
def test_a_constant_image_stays_what_it_is(scale):
    lr = degrade(torch.full((1, 2, 8 * scale, 8 * scale), 0.37), PSF(scale))
    torch.testing.assert_close(lr, torch.full_like(lr, 0.37), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_the_mean_reflectance_of_a_real_image_is_kept(fields, scale):
    lr = degrade(fields, PSF(scale))
    difference = lr.double().mean((2, 3)) - fields.double().mean((2, 3))
    assert difference.abs().max() < 2e-4  # only the mirrored edges move it


@settings(max_examples=25)
@given(st.sampled_from(SCALES), st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 1000))
def test_degradation_is_linear(scale, a, b, seed):
    first, second = random_image(2, 1, 2, 6 * scale, 5 * scale, seed=seed).double()
    psf = PSF(scale)
    torch.testing.assert_close(degrade(a * first + b * second, psf), a * degrade(first, psf) + b * degrade(second, psf))


def test_each_band_and_each_image_is_degraded_by_itself():
    hr = random_image(2, 3, 8, 8)
    together = degrade(hr, PSF(2))
    for image in range(2):
        for band in range(3):
            torch.testing.assert_close(degrade(hr[image, band][None, None], PSF(2))[0, 0], together[image, band])


def test_low_precision_around_it_leaves_it_as_it_is():
    hr = random_image(1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        lr = degrade(hr, PSF(2))
    assert lr.dtype == torch.float32
    torch.testing.assert_close(lr, degrade(hr, PSF(2)), atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (1, 1)])
def test_a_size_that_does_not_divide_is_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} pixels does not divide by the scale 2"):
        degrade(random_image(1, 1, *shape), PSF(2))


@pytest.mark.parametrize(("scale", "mtf"), [(0, 0.3), (-2, 0.3), (2, 0.0), (2, -0.3), (2, 2 / math.pi), (2, math.nan)])
def test_a_point_spread_function_that_cannot_be_is_refused(scale, mtf):
    with pytest.raises(ValueError, match=r"mtf is|scale is"):
        PSF(scale, mtf)
