import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.config.degradation import SensorSection
from geosr.degrade import PSF, degrade, nominal_mtf
from geosr.degrade.draws import Draws
from geosr.degrade.sensor import observe, psf_kernels, sensor
from geosr.sensors import get_sensor

RGBN = ("B02", "B03", "B04", "B08")
PLAIN = {"mtf_jitter": 0, "shift": 0, "misregistration": 0, "noise": False, "quantise": False}


def draws(batch, seed=0):
    return Draws.of(torch.Generator().manual_seed(seed), batch)


def random_image(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("mtf", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_noise_and_shift_it_is_the_point_spread_function_alone(scale, mtf, dtype):
    hr = random_image(3, 4, 24 * scale, 70 * scale, dtype=dtype)
    lr, _ = sensor(hr, draws(3), scale=scale, bands=RGBN, mtf=mtf, **PLAIN)
    atol = 5e-7 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(lr, degrade(hr, PSF(scale, mtf)), atol=atol, rtol=0)


@settings(max_examples=40)
@given(scale=st.integers(1, 4), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_images_smaller_than_the_kernel_are_mirrored_as_degrade_does(scale, rows, columns):
    hr = random_image(2, 1, rows * scale, columns * scale, seed=rows)
    lr, _ = sensor(hr, draws(2), scale=scale, bands=["B04"], mtf=0.2, **PLAIN)
    torch.testing.assert_close(lr, degrade(hr, PSF(scale, 0.2)), atol=5e-7, rtol=0)


def test_each_band_has_its_own_point_spread_function():
    hr = random_image(2, 4, 48, 48)
    lr, told = sensor(hr, draws(2), scale=4, bands=RGBN, **PLAIN)
    for band, name in enumerate(RGBN):
        own = get_sensor("sentinel-2-l2a").band(name).mtf
        assert told["mtf"][:, band].tolist() == [own, own]
        # the widest band's kernel is cut at three sigma, the others' a little further out
        torch.testing.assert_close(lr[:, [band]], degrade(hr[:, [band]], PSF(4, own)), atol=2e-3, rtol=0)


def slanted_edge(size, angle, inside=16):
    """A straight edge from 0.1 to 0.5, each pixel the exact mean over its area (by columns of thin slices)."""
    rows = (np.arange(size * inside) + 0.5) / inside
    crossing = size / 2 + (rows - size / 2) * math.tan(angle)  # column where the edge crosses a thin row
    columns = np.arange(size)
    covered = np.clip(columns[None] + 1 - crossing[:, None], 0, 1)
    return 0.1 + 0.4 * covered.reshape(size, inside, size).mean(1)


def mtf_at_nyquist(lr, angle):
    """ISO 12233: distances from the known edge, binned edge profile, its derivative, its Fourier transform."""
    height, width = lr.shape
    y, x = np.mgrid[:height, :width] + 0.5
    distance = (x - width / 2 - (y - height / 2) * math.tan(angle)) * math.cos(angle)
    bins = 8  # per LR pixel
    reach = 8
    index = np.floor((distance + reach) * bins).astype(int)
    # edges of the image are mirrored; leave them out
    inner = (index >= 0) & (index < 2 * reach * bins) & (y > 10) & (y < height - 10)
    total = np.bincount(index[inner], lr[inner], 2 * reach * bins)
    count = np.bincount(index[inner], minlength=2 * reach * bins)
    profile = total / count
    line = np.diff(profile)
    position = np.arange(line.size) / bins
    frequency = 0.5 / math.cos(angle)  # along the edge's normal; its part along x is the LR Nyquist frequency
    transfer = abs(np.sum(line * np.exp(-2j * np.pi * frequency * position))) / line.sum()
    # what the measurement adds: averaging over a bin, and the difference of neighbouring bins
    return transfer / np.sinc(frequency / bins) ** 2


@pytest.mark.parametrize("scale", [2, 4])
def test_the_mtf_measured_from_a_slanted_edge_is_the_bands(scale):
    angle = math.radians(3)
    edge = torch.from_numpy(slanted_edge(100 * scale, angle))
    hr = edge.expand(1, 4, -1, -1).contiguous()
    lr, _ = sensor(hr, draws(1), scale=scale, bands=RGBN, **PLAIN)
    for band, name in enumerate(RGBN):
        own = get_sensor("sentinel-2-l2a").band(name).mtf
        assert mtf_at_nyquist(lr[0, band].numpy(), angle) == pytest.approx(own, rel=0.02)


def test_the_measurement_finds_the_mtf_of_an_ideal_detector():
    # An oracle of the oracle: LR pixels that are nothing but the mean over their area have 2/pi.
    angle = math.radians(3)
    assert mtf_at_nyquist(slanted_edge(100, angle), angle) == pytest.approx(np.sinc(0.5), rel=0.015)


@settings(max_examples=30)
@given(
    scale=st.sampled_from([2, 3, 4]),
    mtf=st.floats(0.1, 0.45),
    down=st.floats(-1, 1),
    right=st.floats(-1, 1),
)
def test_kernels_sum_to_one_and_are_centred_on_the_shift(scale, mtf, down, right):
    shift = torch.tensor([[[down, right]]], dtype=torch.float64)
    radius = PSF(scale, mtf).radius + scale
    kernels = psf_kernels(torch.tensor([[mtf]]), shift, scale=scale, radius=radius)[0, 0].numpy()
    np.testing.assert_allclose(kernels.sum(-1), 1, atol=1e-12)
    position = np.arange(kernels.shape[-1]) - (kernels.shape[-1] - 1) / 2
    np.testing.assert_allclose(kernels @ position / scale, [down, right], atol=0.01)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_displaced_image_is_the_displaced_scene(scale):
    # A smooth scene, known between its pixels: LR pixels look `shift` further down and right.
    y, x = torch.meshgrid(*[torch.arange(40 * scale, dtype=torch.float64) / scale] * 2, indexing="ij")

    def scene(y, x):
        return 0.3 + 0.1 * torch.sin(0.5 * y) + 0.1 * torch.cos(0.4 * x)

    shift = torch.tensor([[[0.4, -0.7]]], dtype=torch.float64)
    mtf = torch.tensor([[0.3]])
    seen = observe(scene(y, x)[None, None], mtf=mtf, shift=shift, scale=scale, radius=PSF(scale, 0.3).radius + scale)
    moved = observe(
        scene(y + 0.4, x - 0.7)[None, None],
        mtf=mtf,
        shift=0 * shift,
        scale=scale,
        radius=PSF(scale, 0.3).radius + scale,
    )
    torch.testing.assert_close(seen[..., 5:-5, 5:-5], moved[..., 5:-5, 5:-5], atol=2e-4, rtol=0)


def test_each_axis_is_correlated_with_its_own_kernel():
    hr = random_image(1, 1, 64, 64, dtype=torch.float64)
    shift, mtf = torch.tensor([[[0.3, -0.2]]], dtype=torch.float64), torch.tensor([[0.25]])
    lr = observe(hr, mtf=mtf, shift=shift, scale=4, radius=9)
    expected = hr[0, 0].numpy()
    for axis, kernel in enumerate(psf_kernels(mtf, shift, scale=4, radius=9)[0, 0].numpy()):

        def line(values, kernel=kernel):
            return np.correlate(np.pad(values, 9, mode="reflect"), kernel, "valid")[::4]

        expected = np.apply_along_axis(line, axis, expected)
    np.testing.assert_allclose(lr[0, 0].numpy(), expected, atol=1e-12)


def test_the_mean_reflectance_is_kept():
    hr = random_image(4, 4, 128, 128) * 0.4
    lr, _ = sensor(hr, draws(4), scale=4, bands=RGBN, mtf_jitter=0.1, shift=0.3, misregistration=0.1)
    assert (lr.mean((2, 3)) - hr.mean((2, 3))).abs().max() < 2e-3
    flat, _ = sensor(torch.full((1, 4, 32, 32), 0.37), draws(1), scale=4, bands=RGBN, shift=0.5, noise=False)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.37), atol=1e-6, rtol=0)


def test_the_noise_has_the_bands_signal_to_noise_ratio():
    options = {"mtf": 0.3, "mtf_jitter": 0, "misregistration": 0, "quantise": False, "noise_gain": [1, 1]}
    bands = [get_sensor("sentinel-2-l2a").band(name) for name in RGBN]
    level = torch.tensor([band.reference for band in bands])
    hr = level[None, :, None, None].expand(1, -1, 512, 512)
    lr, _ = sensor(hr, draws(1), scale=2, bands=RGBN, **options)
    snr = level / lr.std((0, 2, 3))
    torch.testing.assert_close(snr, torch.tensor([float(band.snr) for band in bands]), rtol=0.02, atol=0)
    # 256 * 256 samples: the standard deviation is known to 0.3 %


def test_half_the_light_leaves_the_read_noise():
    hr = torch.zeros(1, 1, 512, 512)
    lr, _ = sensor(hr, draws(1), scale=2, bands=["B04"], shot_share=0.8, noise_gain=[2, 2], quantise=False)
    band = get_sensor("sentinel-2-l2a").band("B04")
    assert lr.std().item() == pytest.approx(2 * band.reference / band.snr * math.sqrt(0.2), rel=0.02)


def test_digital_numbers_are_whole():
    lr, _ = sensor(random_image(1, 4, 32, 32, dtype=torch.float64), draws(1), scale=2, bands=RGBN)
    dn = lr.numpy() / 1e-4
    np.testing.assert_allclose(dn, dn.round(), atol=1e-8)


def test_what_was_drawn_lies_in_its_range_and_is_returned():
    options = SensorSection(mtf_jitter=0.2, shift=0.5, misregistration=0.1, noise_gain=[1.0, 3.0])
    _, told = sensor(random_image(200, 2, 8, 8), draws(200), scale=2, bands=["B02", "B03"], **vars(options))
    for band, mtf in enumerate((0.26, 0.28)):
        assert told["mtf"][:, band].min() == pytest.approx(mtf * 0.8, rel=0.02)
        assert told["mtf"][:, band].max() == pytest.approx(mtf * 1.2, rel=0.02)
    assert told["shift"].shape == (200, 2, 2)
    assert 0.5 < told["shift"].abs().max() <= 0.6
    between_bands = (told["shift"][:, 0] - told["shift"][:, 1]).abs().max()
    assert 0.15 < between_bands <= 0.2
    assert told["noise_gain"].min() >= 1
    assert told["noise_gain"].max() <= 3


def test_bands_without_a_sensor_have_what_the_docs_say():
    hr = random_image(1, 2, 64, 64)
    lr, told = sensor(hr, draws(1), scale=2, bands=["left", "right"], **PLAIN)
    torch.testing.assert_close(lr, degrade(hr, PSF(2, 0.3)), atol=5e-7, rtol=0)
    assert told["mtf"].unique().tolist() == [0.3]


def test_one_number_stands_for_all_bands():
    assert nominal_mtf(0.2, RGBN) == 0.2
    assert nominal_mtf(None, RGBN) == pytest.approx((0.26 + 0.28 + 0.24 + 0.26) / 4)
    assert nominal_mtf(None, ["red", "left"]) == pytest.approx((0.24 + 0.3) / 2)
