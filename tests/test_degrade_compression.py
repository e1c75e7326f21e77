import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft, ndimage

from geosr.degrade.compression import _cosines, jpeg2000_coded, jpeg_coded


def picture(height, width, seed=0):
    """A smooth 8-bit picture away from black and white."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = ndimage.gaussian_filter(noise, 2)
    return np.round(128 + 60 * smooth / np.abs(smooth).max() + 5 * noise).clip(20, 235).astype(np.uint8)


def by_pillow(grey, quality):
    with io.BytesIO() as file:
        Image.fromarray(grey).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)).astype(float)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95, 100])
@pytest.mark.parametrize("shape", [(64, 64), (50, 43)])
def test_jpeg_is_that_of_libjpeg(quality, shape):
    grey = picture(*shape)
    white = 0.4
    image = torch.from_numpy(grey / 255 * white)[None, None]
    mine = jpeg_coded(image, quality=torch.tensor([float(quality)]), white=white)[0, 0].numpy() / white * 255
    theirs = by_pillow(grey, quality)
    # libjpeg's transform is in whole numbers and its output is rounded; a coefficient at half a step may go either way
    inner = slice(0, shape[0] // 8 * 8), slice(0, shape[1] // 8 * 8)  # beyond, both pad as they like
    difference = np.abs(mine - theirs)[inner]
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.9) < 1.2
    assert np.quantile(difference, 0.99) < 4
    lost = np.abs(theirs - grey).mean()
    assert np.abs(mine - grey).mean() == pytest.approx(lost, rel=0.1, abs=0.3)


def test_the_transform_is_scipys():
    np.testing.assert_allclose(_cosines().numpy(), fft.dct(np.eye(8), axis=0, norm="ortho"), atol=1e-12)


def test_each_image_has_its_own_quality_and_each_band_stands_alone():
    image = torch.from_numpy(np.stack([[picture(32, 32, band) / 255 for band in range(3)]] * 2))
    coded = jpeg_coded(image, quality=torch.tensor([10.0, 95.0]), white=1.0)
    loss = (coded - image).abs().mean((1, 2, 3))
    assert loss[0] > 3 * loss[1]
    alone = jpeg_coded(image[1:, 2:], quality=torch.tensor([95.0]), white=1.0)
    torch.testing.assert_close(alone[0, 0], coded[1, 2])


def test_the_mean_is_kept_and_what_is_beyond_white_is_not_clipped():
    image = torch.full((1, 1, 16, 16), 0.9)
    torch.testing.assert_close(jpeg_coded(image, quality=torch.tensor([90.0]), white=0.4), image, atol=1e-3, rtol=0)


def test_the_gradient_goes_through_jpeg_as_through_nothing():
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    (jpeg_coded(image, quality=torch.tensor([50.0]), white=1.0) * weights).sum().backward()
    torch.testing.assert_close(image.grad, weights)


def reflectance(side=96):
    return torch.from_numpy(0.05 + 0.3 * picture(side, side) / 255.0).float()[None, None].expand(2, 2, -1, -1)


def test_jpeg2000_loses_more_at_a_higher_ratio():
    image = reflectance()
    coded = jpeg2000_coded(image, ratio=torch.tensor([2.0, 16.0]))
    assert coded.dtype == image.dtype
    loss = (coded - image).abs().mean((1, 2, 3))
    assert loss[0] < 2e-4
    assert 5 * loss[0] < loss[1] < 0.02
    torch.testing.assert_close(coded.mean((2, 3)), image.mean((2, 3)), atol=2e-4, rtol=0)


def test_jpeg2000_at_ratio_one_only_rounds_to_digital_numbers():
    image = reflectance(33) - 0.1  # partly negative
    coded = jpeg2000_coded(image, ratio=torch.tensor([1.0, 1.0]))
    assert (coded - image).abs().max() < 3e-4


def test_jpeg2000_passes_no_gradient():
    image = reflectance(16).clone().requires_grad_(True)
    assert not jpeg2000_coded(image, ratio=torch.tensor([2.0, 2.0])).requires_grad
