import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.degrade import PSF, degrade
from geosr.io.scene import open_scene
from geosr.models.consistency import Consistency, autocorrelation, inverse_filter

SCALES = (2, 3, 4)


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def bicubic(lr, scale):
    return F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False)


def dense_degradation(psf, size):
    """``D`` of one line of ``size`` LR pixels, far from any edge: row i holds the kernel where LR pixel i sees it."""
    matrix = np.zeros((size, size * psf.scale + 2 * psf.radius))
    for row in range(size):
        matrix[row, row * psf.scale : row * psf.scale + psf.kernel.size] = psf.kernel
    return matrix


@pytest.fixture(scope="module")
def fields(shared_data):
    with open_scene(shared_data / "s2" / "germany_fields_10m.tif") as scene:
        return torch.from_numpy(scene.read((slice(0, 360), slice(0, 360))).array)[None]


@pytest.mark.parametrize("scale", SCALES)
def test_a_real_image_degrades_to_its_input(fields, scale, record_property):
    psf, lr = PSF(scale), degrade(fields, PSF(scale))
    before = (degrade(bicubic(lr, scale), psf) - lr).abs()
    after = (degrade(Consistency(psf)(bicubic(lr, scale), lr), psf) - lr).abs()
    record_property("mean difference", float(after.mean()))
    record_property("largest difference", float(after.max()))
    # Measured on these fields, mean reflectance 0.16: x2 2e-5, x3 4e-5, x4 5e-5 in the mean.
    assert after.mean() < 1e-4, f"x{scale}: {after.mean():.1e}"
    assert after.mean() < before.mean() / 30
    # The inverse filter is cut off and the scene has edges: single pixels at sharp contrasts are off by more.
    assert after[..., 8:-8, 8:-8].max() < 1e-3, f"x{scale}: {after[..., 8:-8, 8:-8].max():.1e}"
    assert after.max() < 4e-3, f"x{scale}: {after.max():.1e}"


def back_projected(sr, lr, psf, rounds):
    """Landweber's iteration on ``|D sr - lr|**2`` with autograd's adjoint of ``D``, nothing else."""
    sr = sr.clone()
    for _ in range(rounds):
        sr.requires_grad_(True)
        residual = lr - degrade(sr, psf)
        (adjoint,) = torch.autograd.grad(degrade(sr, psf), sr, residual.detach())
        sr = (sr + psf.scale**2 * adjoint).detach()  # D D' sums to 1 / scale**2
    return sr


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_limit_of_iterated_back_projection(scale):
    psf, lr = PSF(scale), 0.2 + 0.1 * random_image(1, 1, 36, 35).double()
    start = bicubic(lr, scale)
    limit = back_projected(start, lr, psf, 500)
    assert (degrade(limit, psf) - lr).abs().max() < 1e-6, "the iteration has not converged"
    inside = (..., slice(13 * scale, -13 * scale), slice(13 * scale, -13 * scale))  # edges are continued differently
    moved = (limit - start)[inside].abs().mean()
    # Noise is the hardest case for the inverse filter's cut; a longer filter comes as near as one likes.
    for reach, share in ((4, 0.02), (8, 0.001)):
        difference = (Consistency(psf, reach=reach)(start, lr) - limit)[inside].abs().mean()
        assert difference < share * moved, f"reach {reach}: {difference:.1e} of {moved:.1e}"


@pytest.mark.parametrize("scale", SCALES)
def test_applied_twice_it_is_nearly_what_it_is_applied_once(fields, scale):
    psf, lr = PSF(scale), degrade(fields, PSF(scale))
    layer = Consistency(psf)
    start = bicubic(lr, scale)
    once = layer(start, lr)
    assert (layer(once, lr) - once).abs().mean() < 0.02 * (once - start).abs().mean()


@settings(max_examples=20)
@given(
    scale=st.sampled_from(SCALES),
    seed=st.integers(0, 1000),
    smooth=st.booleans(),
    amount=st.floats(1e-3, 1.0),
)
def test_it_never_moves_away_from_the_truth(scale, seed, smooth, amount):
    truth = random_image(1, 1, 24 * scale, 24 * scale, seed=seed).double()
    noise = random_image(*truth.shape, seed=seed + 1).double() - 0.5
    if smooth:
        noise = F.avg_pool2d(noise, 2 * scale + 1, stride=1, padding=scale)
    edge = 9 * scale
    sr = truth.clone()
    sr[..., edge:-edge, edge:-edge] += amount * noise[..., edge:-edge, edge:-edge]
    out = Consistency(PSF(scale))(sr, degrade(truth, PSF(scale)))
    before, after = ((image - truth).square().sum().sqrt() for image in (sr, out))
    assert after <= before * (1 + 1e-4)


@given(scale=st.sampled_from(SCALES), seed=st.integers(0, 100))
def test_a_consistent_image_passes_unchanged(scale, seed):
    sr = random_image(1, 2, 6 * scale, 5 * scale, seed=seed)
    torch.testing.assert_close(Consistency(PSF(scale))(sr, degrade(sr, PSF(scale))), sr, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_bands_are_corrected_one_by_one(scale):
    layer, lr = Consistency(PSF(scale)), random_image(2, 3, 12, 11)
    sr = bicubic(lr, scale)
    together = layer(sr, lr)
    for band in range(3):
        torch.testing.assert_close(layer(sr[:, [band]], lr[:, [band]]), together[:, [band]], atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_a_single_pixel_is_enough(scale):
    lr = torch.full((1, 1, 1, 1), 0.3)
    sr = Consistency(PSF(scale))(torch.zeros(1, 1, scale, scale), lr)
    torch.testing.assert_close(sr.mean(), lr.mean(), atol=0.01, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_low_precision_around_it_leaves_it_as_it_is(scale):
    layer, lr = Consistency(PSF(scale)), random_image(1, 2, 9, 9)
    sr = bicubic(lr, scale)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(sr, lr)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, layer(sr, lr), atol=0, rtol=0)


def test_it_has_no_weights_to_store():
    assert Consistency(PSF(2)).state_dict() == {}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("mtf", [0.15, 0.3, 0.45])
def test_autocorrelation_is_a_row_of_the_dense_matrix(scale, mtf):
    psf = PSF(scale, mtf)
    taps, size = autocorrelation(psf), 31
    dense = dense_degradation(psf, size)
    reach = len(taps) // 2
    middle = (dense @ dense.T)[size // 2]
    np.testing.assert_allclose(middle[size // 2 - reach : size // 2 + reach + 1], taps, atol=1e-15)
    assert np.abs(middle).sum() == pytest.approx(np.abs(taps).sum()), "taps are missing at the ends"


@pytest.mark.parametrize("scale", SCALES)
def test_a_long_inverse_filter_is_a_row_of_the_dense_inverse(scale):
    psf, size, reach = PSF(scale), 121, 25
    dense = dense_degradation(psf, size)
    middle = np.linalg.inv(dense @ dense.T)[size // 2]
    filter_ = inverse_filter(autocorrelation(psf), reach)
    np.testing.assert_allclose(filter_, middle[size // 2 - reach : size // 2 + reach + 1], atol=1e-6 * middle.max())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("reach", [2, 4, 6])
def test_no_other_filter_of_that_length_comes_nearer_to_an_impulse(scale, reach):
    taps = autocorrelation(PSF(scale))
    found = inverse_filter(taps, reach)
    assert len(found) == 2 * reach + 1
    np.testing.assert_allclose(found, found[::-1], atol=1e-12)

    def misfit(candidate):
        left = np.convolve(candidate, taps)
        left[len(left) // 2] -= 1
        return np.sum(left**2)

    for tap in range(len(found)):
        for step in (1e-3, -1e-3):
            changed = found.copy()
            changed[tap] += step
            assert misfit(changed) > misfit(found)
