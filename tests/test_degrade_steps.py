import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from geosr.config.degradation import KERNELS
from geosr.degrade import steps
from geosr.degrade.draws import Draws


def draws(batch, seed=0):
    return Draws.of(torch.Generator().manual_seed(seed), batch)


def random_image(*shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5), dtype=dtype) * 0.4


def test_an_isotropic_blur_is_scipys_gaussian():
    image = random_image(2, 3, 40, 50)
    blurred, told = steps.blur(image, draws(2), sigma=1.5)
    for own, result, side in zip(image.numpy(), blurred.numpy(), told["side"].tolist(), strict=True):
        for band, expected in zip(own, result, strict=True):
            found = ndimage.gaussian_filter(band, 1.5, mode="mirror", radius=side // 2)
            np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_blur_draws_shapes_sizes_and_strengths_as_told():
    _, told = steps.blur(
        random_image(3000, 1, 8, 8),
        draws(3000),
        sigma=[0.5, 2.0],
        kernels=KERNELS,
        weights=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1],
        size=21,
        sinc=0.2,
    )
    share = torch.bincount(told["kernel"], minlength=7) / 3000
    expected = torch.tensor([0.32, 0.16, 0.08, 0.08, 0.08, 0.08, 0.2])
    torch.testing.assert_close(share, expected, atol=0.03, rtol=0)
    assert set(told["side"].tolist()) == set(range(7, 22, 2))
    assert 0.5 <= told["sigma"].min() < 0.52
    assert 1.98 < told["sigma"].max() <= 2
    isotropic = told["kernel"] % 2 == 0
    smooth = told["kernel"] < 6
    assert torch.equal(told["sigma"][isotropic & smooth, 0], told["sigma"][isotropic & smooth, 1])
    generalised = told["beta"][(told["kernel"] // 2 == 1) & smooth]
    assert (generalised < 1).double().mean() == pytest.approx(0.5, abs=0.06)  # Real-ESRGAN's rule
    assert 0.5 <= float(generalised.min()) < 0.6
    assert 3.8 < generalised.max() <= 4
    assert (told["beta"][told["kernel"] < 2] == 1).all()
    assert (told["cutoff"] >= torch.where(told["side"] < 13, math.pi / 3, math.pi / 5)).all()
    assert told["cutoff"].max() <= math.pi


@pytest.mark.parametrize("step", [steps.blur, steps.sinc])
def test_filters_keep_the_mean(step):
    flat = torch.full((2, 3, 30, 30), 0.3)
    torch.testing.assert_close(step(flat, draws(2))[0], flat, atol=1e-6, rtol=0)
    image = random_image(2, 3, 96, 96)
    assert (step(image, draws(2))[0].mean((2, 3)) - image.mean((2, 3))).abs().max() < 1e-3


def test_an_image_without_sinc_stays_as_it_is():
    image = random_image(50, 1, 16, 16)
    ringing, told = steps.sinc(image, draws(50), probability=0.4)
    changed = (ringing != image).flatten(1).any(1)
    assert torch.equal(changed, told["applied"])
    assert 10 <= changed.sum() <= 30
    assert torch.equal(steps.sinc(image, draws(50), probability=0.0)[0], image)


@pytest.mark.parametrize(
    ("weights", "low", "high"), [([1, 0, 0], 1, 1.5), ([0, 1, 0], 0.3, 1), ([0, 0, 1], 1, 1), (None, 0.3, 1.5)]
)
def test_a_resize_draws_its_factor_from_the_part_that_it_is_told(weights, low, high):
    image = random_image(1, 2, 40, 60)
    factors = []
    for seed in range(60):
        resized, told = steps.resize(
            image, draws(1, seed), target=(10, 15), factors=[0.3, 1.5], weights=weights, relative_to="image"
        )
        factors.append(float(told["factor"]))
        assert resized.shape[-2:] == (int(40 * factors[-1]), int(60 * factors[-1]))
        mode = steps.MODES[int(told["mode"])]
        options = {} if mode == "area" else {"align_corners": False}
        torch.testing.assert_close(resized, F.interpolate(image, resized.shape[-2:], mode=mode, **options))
    assert low <= min(factors) <= low + 0.1
    assert high - 0.1 <= max(factors) <= high


def test_a_resize_may_be_relative_to_the_lr_image():
    resized, told = steps.resize(
        random_image(1, 1, 40, 40), draws(1), target=(20, 20), factors=[0.5, 0.9], relative_to="lr"
    )
    assert resized.shape[-1] == int(20 * float(told["factor"]))


def test_downsampling_by_area_is_the_mean_of_each_block():
    image = random_image(2, 3, 32, 48)
    small, _ = steps.downsample(image, draws(2), target=(8, 12))
    torch.testing.assert_close(small, image.reshape(2, 3, 8, 4, 12, 4).mean((3, 5)))
    same, _ = steps.downsample(image, draws(2), target=(32, 48), modes=steps.MODES)
    assert torch.equal(same, image)


def test_noise_has_the_deviation_that_is_told():
    image = torch.full((2, 2, 300, 300), 0.3)
    noisy, told = steps.noise(image, draws(2), sigma=[0.01, 0.05])
    torch.testing.assert_close(noisy.std((1, 2, 3)), told["sigma"].float(), rtol=0.01, atol=0)
    noisy, told = steps.photon_noise(image, draws(2), factor=[0.5, 1.0], white=0.6)
    expected = told["factor"] * math.sqrt(0.3 * 0.6 / 255)
    torch.testing.assert_close(noisy.std((1, 2, 3)), expected.float(), rtol=0.01, atol=0)


def test_compression_draws_its_strength_for_each_image():
    image = random_image(40, 1, 16, 16)
    _, told = steps.jpeg(image, draws(40), quality=[30, 95])
    assert 30 <= told["quality"].min() < 35 < 90 < told["quality"].max() <= 95
    _, told = steps.jpeg2000(image, draws(40), ratio=[2, 4])
    assert 2 <= told["ratio"].min() < told["ratio"].max() <= 4
    coded, _ = steps.quantise(image, draws(40), dn=0.01)
    np.testing.assert_allclose(coded * 100, (coded * 100).round(), atol=1e-9)
