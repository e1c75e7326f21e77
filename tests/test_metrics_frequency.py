import numpy as np
import pytest
import torch
from metric_kit import danube
from scipy.signal import periodogram

from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.metrics import Spectrum, spectrum, spectrum_gap


def oracle(image):
    """Power (band, frequency) of square images: SciPy's periodogram along rows, then along columns, ring by ring."""
    side = image.shape[-1]
    window = np.hanning(side)
    found = []
    for band in image.double().numpy():
        centred = (band - band.mean()) * window[:, None] * window
        power = abs(np.fft.fft2(centred)) ** 2 / (window**2).sum() ** 2
        at = np.rint(np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(side, 1 / side)], indexing="ij"))).astype(int)
        found.append([power[at == cycles].mean() for cycles in range(1, side // 2 + 1)])
    return np.array(found)


def test_the_spectrum_of_a_real_scene_is_that_of_numpy(shared_data):
    scene = danube(shared_data, 101)
    found = spectrum(scene)
    np.testing.assert_allclose(found.power, oracle(scene[0]), rtol=1e-4)
    np.testing.assert_allclose(found.frequency, np.arange(1, 51) / 101, rtol=1e-6)


def test_the_power_of_white_noise_is_its_variance_at_every_frequency():
    noise = 0.1 * torch.randn(16, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(spectrum(noise).power, 0.01, rtol=0.35)
    np.testing.assert_allclose(spectrum(noise).power.mean(1), 0.01, rtol=0.03)


def test_a_wave_along_one_axis_has_the_power_that_scipy_finds():
    side, cycles = 64, 10
    wave = torch.sin(2 * torch.pi * cycles * torch.arange(side) / side)
    found = spectrum(wave.expand(1, 1, side, side))
    assert found.frequency[found.power[0].argmax()] == cycles / side
    _, theirs = periodogram(
        wave.numpy(), window=np.hanning(side), detrend="constant", return_onesided=False, scaling="density"
    )
    rows = np.hanning(side)
    spread = abs(np.fft.fft(rows)) ** 2 / (rows**2).sum()  # a constant along the other axis, under its window
    expected = np.outer(spread, theirs)
    at = np.rint(np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(side, 1 / side)], indexing="ij")))
    assert float(found.power[0, cycles - 1]) == pytest.approx(expected[at == cycles].mean(), rel=1e-3)


def test_images_count_as_far_as_the_smallest_of_their_squares_goes():
    image = torch.rand(3, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(3, 40, 40, dtype=torch.bool)
    valid[1, 20:] = False
    valid[2, ::9] = False  # no square of 16
    expected = (oracle(image[0, :, :20, :20]) + oracle(image[1, :, :20, :20])) / 2
    np.testing.assert_allclose(spectrum(image, valid).power, expected, rtol=1e-4)


def test_the_gap_of_a_blurred_image_is_the_transfer_of_the_blur():
    noise = torch.randn(4, 2, 96, 96, generator=torch.Generator().manual_seed(0))
    rows = (noise.roll(1, 2) + 2 * noise + noise.roll(-1, 2)) / 4
    gap = spectrum_gap(spectrum((rows.roll(1, 3) + 2 * rows + rows.roll(-1, 3)) / 4), spectrum(noise))
    axes = np.meshgrid(*2 * [np.fft.fftfreq(96)], indexing="ij")
    transfer = np.prod([(1 + np.cos(2 * np.pi * axis)) / 2 for axis in axes], axis=0) ** 2
    at = np.rint(96 * np.hypot(*axes))
    expected = [10 * np.log10(transfer[at == cycles].mean()) for cycles in range(1, 39)]
    np.testing.assert_allclose(gap.decibels[:, :38], np.tile(expected, (2, 1)), atol=0.5)
    assert torch.equal(gap.largest, gap.decibels[:, :38].abs().amax(1))
    assert (spectrum_gap(spectrum(rows), spectrum(noise), up_to=0.2).largest < gap.largest).all()


def test_interpolated_lr_has_less_detail_than_a_real_scene(shared_data):
    scene = danube(shared_data)
    gap = spectrum_gap(spectrum(bicubic(degrade(scene, PSF(2)), 2)), spectrum(scene))
    assert gap.decibels[:, :8].abs().max() < 0.2
    assert gap.decibels[:, gap.frequency > 0.3].mean() < -6


def test_twice_the_contrast_is_six_decibels():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(spectrum_gap(spectrum(2 * image), spectrum(image)).decibels, 20 * np.log10(2), rtol=1e-4)


def test_spectra_at_other_frequencies_are_compared_in_between():
    here = Spectrum(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([[10.0, 10.0, 10.0]]))
    there = Spectrum(torch.tensor([0.15, 0.25]), torch.tensor([[1.0, 100.0]]))
    np.testing.assert_allclose(spectrum_gap(here, there).decibels, [[10, 0, -10]], atol=1e-5)
    np.testing.assert_allclose(spectrum_gap(here, there, up_to=0.4).largest, [10], rtol=1e-5)


def test_without_a_square_there_is_no_frequency_and_no_gap():
    none = spectrum(torch.rand(1, 3, 15, 40))
    assert none.frequency.numel() == 0
    assert spectrum_gap(none, none).largest.isnan().all()
