import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_kit import danube
from skimage.registration import phase_cross_correlation

from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.metrics import shift


def moved(scene, down, right):
    """The middle of a scene, moved by Fourier's theorem."""
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in scene.shape[-2:])
    turn = torch.exp(-2j * torch.pi * (rows[:, None] * down + columns * right))
    return torch.fft.ifft2(torch.fft.fft2(scene.double()) * turn).real.float()[..., 40:168, 40:168]


@settings(max_examples=10)
@given(down=st.floats(-6, 6), right=st.floats(-6, 6))
def test_a_real_scene_that_was_moved_is_found_where_it_is(shared_data, down, right):
    scene = danube(shared_data, 208)
    found = shift(moved(scene, down, right), moved(scene, 0, 0))
    np.testing.assert_allclose(found, [[down, right]], atol=0.02)


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.3, -0.7), (-2.26, 5.4)])
def test_it_is_that_of_skimage(shared_data, down, right):
    scene = danube(shared_data, 208)[:, :1]
    image, reference = moved(scene, down, right), moved(scene, 0, 0)
    window = np.outer(np.hanning(128), np.hanning(128))
    there, here = (
        (one - one.mean()) * window for one in (reference[0, 0].double().numpy(), image[0, 0].double().numpy())
    )
    theirs, _, _ = phase_cross_correlation(there, here, upsample_factor=100)
    np.testing.assert_allclose(shift(image, reference)[0], -theirs, atol=0.0101)


@pytest.mark.parametrize("scale", [2, 4])
def test_interpolated_lr_is_where_hr_is(shared_data, scale):
    hr = danube(shared_data, 192)
    found = shift(hr, bicubic(degrade(hr, PSF(scale)), scale), up_to=1 / scale)
    np.testing.assert_allclose(found, 0, atol=0.025 * scale)  # LR is aliased
    late = shift(
        hr.roll((1, -2), (2, 3))[..., 4:-4, 4:-4],
        bicubic(degrade(hr, PSF(scale)), scale)[..., 4:-4, 4:-4],
        up_to=1 / scale,
    )
    np.testing.assert_allclose(late, [[1, -2]], atol=0.025 * scale)


def test_only_the_largest_valid_square_is_looked_at(shared_data):
    scene = danube(shared_data, 208)
    image, reference = moved(scene, 1.5, 0), moved(scene, 0, 0)
    image[..., 64:, :] = reference[..., 64:, :]
    valid = torch.ones(1, 128, 128, dtype=torch.bool)
    valid[:, 64:] = False
    np.testing.assert_allclose(shift(image, reference, valid), [[1.5, 0]], atol=0.02)


def test_each_image_has_its_own_and_one_without_a_square_none(shared_data):
    scene = danube(shared_data, 208)
    reference = moved(scene, 0, 0).expand(3, -1, -1, -1)
    image = torch.cat([moved(scene, 2, 0), moved(scene, 0, -1), moved(scene, 0, 0)])
    valid = torch.ones(3, 128, 128, dtype=torch.bool)
    valid[2, ::15] = False
    found = shift(image, reference, valid)
    np.testing.assert_allclose(found[:2], [[2, 0], [0, -1]], atol=0.01)
    assert found[2].isnan().all()
