import numpy as np
import pytest
import torch

from geosr.degrade.draws import Draws
from geosr.degrade.noise import detector_noise, gaussian_noise, poisson_noise, quantised

SIDE = 400  # 160 000 pixels: a standard deviation is known to 0.2 %


def draws(batch):
    return Draws.of(torch.Generator().manual_seed(1), batch)


def flat(batch, bands, value=0.2):
    return torch.full((batch, bands, SIDE, SIDE), value)


def no(batch):
    return torch.zeros(batch, dtype=torch.bool)


def test_photon_noise_grows_with_the_signal_and_read_noise_does_not():
    levels = torch.tensor([0.0, 0.1, 0.4])
    image = levels[None, :, None, None].expand(1, 3, SIDE, SIDE)
    noisy = detector_noise(image, draws(1), snr=[50] * 3, reference=[0.2] * 3, shot_share=0.75, gain=torch.ones(1))
    expected = (0.2 / 50) ** 2 * (0.75 * levels / 0.2 + 0.25)
    torch.testing.assert_close(noisy.var((0, 2, 3)), expected, rtol=0.01, atol=0)
    torch.testing.assert_close(noisy.mean((0, 2, 3)), levels, rtol=0, atol=1e-4)


def test_photon_noise_is_that_of_a_poisson_distribution():
    # Against numpy's Poisson generator: 0.3 reflectance of 2000 photons at 0.2 is 3000 photons.
    photons = np.random.default_rng(0).poisson(3000, 10**6) / 2000 * 0.2
    noisy = detector_noise(
        flat(1, 1, 0.3), draws(1), snr=[2000**0.5], reference=[0.2], shot_share=1.0, gain=torch.ones(1)
    )
    assert noisy.std().item() == pytest.approx(photons.std(), rel=0.01)
    for share in (0.05, 0.5, 0.95):
        assert noisy.double().quantile(share).item() == pytest.approx(np.quantile(photons, share), abs=2e-4)


def test_each_image_has_its_own_deviation():
    deviation = torch.tensor([0.01, 0.05])
    noisy = gaussian_noise(flat(2, 2), draws(2), deviation=deviation, gray=no(2))
    torch.testing.assert_close(noisy.std((1, 2, 3)), deviation, rtol=0.01, atol=0)


def test_gray_noise_is_the_same_in_all_bands():
    gray = torch.tensor([True, False])
    for noisy in (
        gaussian_noise(flat(2, 3), draws(2), deviation=torch.tensor([0.1, 0.1]), gray=gray),
        poisson_noise(flat(2, 3), draws(2), factor=torch.tensor([1.0, 1.0]), gray=gray, white=1.0),
    ):
        assert torch.equal(noisy[0, 0], noisy[0, 2])
        between = torch.corrcoef(noisy[1].flatten(1))
        assert (between - torch.eye(3)).abs().max() < 0.02


def test_poisson_noise_is_that_of_counting_255_photons_at_white():
    photons = np.random.default_rng(0).poisson(0.5 * 255, 10**6) / 255 * 0.4
    noisy = poisson_noise(flat(1, 2, 0.2), draws(1), factor=torch.tensor([1.0]), gray=no(1), white=0.4)
    assert noisy.std().item() == pytest.approx(photons.std(), rel=0.01)
    assert noisy.mean().item() == pytest.approx(0.2, abs=1e-3)
    dark = poisson_noise(flat(1, 2, -0.01), draws(1), factor=torch.tensor([1.0]), gray=no(1), white=0.4)
    assert torch.equal(dark, flat(1, 2, -0.01))


def test_the_image_that_is_given_stays_as_it_is():
    image = flat(1, 1)
    gaussian_noise(image, draws(1), deviation=torch.ones(1), gray=no(1))
    poisson_noise(image, draws(1), factor=torch.ones(1), gray=no(1), white=1.0)
    detector_noise(image, draws(1), snr=[1], reference=[1], shot_share=1, gain=torch.ones(1))
    quantised(image)
    assert torch.equal(image, flat(1, 1))


def test_rounding_is_to_the_nearest_number():
    image = torch.linspace(-0.01, 1.2037, 5000, dtype=torch.float64)
    assert (quantised(image) - image).abs().max() <= 0.5e-4 + 1e-12
    np.testing.assert_allclose(quantised(image, scale=0.01), np.round(image.numpy(), 2), atol=1e-12)
