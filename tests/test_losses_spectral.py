import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import spectral_angle_mapper

from geosr import metrics
from geosr.losses import sam
from geosr.losses.spectral import DARK, _SpectralAngle


def case(seed=0, *, bands=4, share=0.6, noise=0.05):
    generator = torch.Generator().manual_seed(seed)
    hr = 0.02 + 0.4 * torch.rand(2, bands, 6, 5, generator=generator)
    sr = hr + noise * torch.randn(2, bands, 6, 5, generator=generator)
    return sr, hr, torch.rand(2, 6, 5, generator=generator) < share


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


def oracle(sr, hr, valid):
    """Mean angle by the arc cosine of the normalised dot product, in float64."""
    sr, hr = (np.moveaxis(image.detach().numpy().astype(float), 1, -1)[valid.numpy()] for image in (sr, hr))
    cosine = (sr * hr).sum(-1) / (np.linalg.norm(sr, axis=-1) * np.linalg.norm(hr, axis=-1))
    return np.arccos(np.clip(cosine, -1, 1)).mean() if len(sr) else 0.0


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), bands=st.integers(2, 13), share=st.floats(0, 1), noise=st.floats(1e-3, 0.3))
def test_the_mean_angle_over_valid_pixels(seed, bands, share, noise):
    sr, hr, valid = case(seed, bands=bands, share=share, noise=noise)
    assert float(sam(sr, hr, valid)) == pytest.approx(oracle(sr, hr, valid), abs=2e-6)


def test_it_is_that_of_torchmetrics_and_of_the_metric():
    sr, hr, _ = case()
    ours = sam(sr, hr, everywhere(sr))
    assert float(ours) == pytest.approx(float(spectral_angle_mapper(sr, hr)), abs=1e-5)
    assert math.degrees(ours) == pytest.approx(float(metrics.sam(sr, hr)), rel=1e-5)


@pytest.mark.parametrize("angle", [1e-5, 1e-3, 0.1, 1.5, 3.1])
def test_small_angles_and_large_ones_are_exact_in_float32(angle):
    hr = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    sr = torch.tensor([math.cos(angle), math.sin(angle)]).view(1, 2, 1, 1).requires_grad_()
    loss = sam(sr, 0.3 * hr, everywhere(hr))
    loss.backward()
    assert loss.item() == pytest.approx(angle, rel=1e-4)
    assert float(sr.grad.norm()) == pytest.approx(1, rel=1e-3)  # the angle's change along the circle


def test_equal_spectra_have_no_angle_and_no_gradient():
    _, hr, _ = case()
    sr = hr.clone().requires_grad_()
    loss = sam(sr, hr, everywhere(hr))
    loss.backward()
    assert loss == 0
    assert not sr.grad.any()


def test_the_gradient_is_that_of_finite_differences():
    sr, hr, valid = case()
    sr, hr = sr.double().requires_grad_(), hr.double()
    assert torch.autograd.gradcheck(lambda image: _SpectralAngle.apply(image, hr, valid), (sr,))


@pytest.mark.parametrize(
    "change",
    [
        lambda sr, hr: sr.copy_(2 * hr),
        lambda sr, hr: sr.zero_(),
        lambda sr, hr: hr.zero_(),
        lambda sr, hr: (sr.zero_(), hr.zero_()),
        lambda sr, hr: sr.fill_(1e-30),
        lambda sr, hr: sr.mul_(DARK / 10),
    ],
)
def test_parallel_and_zero_spectra_have_no_angle_and_a_finite_gradient(change):
    sr, hr, valid = case()
    change(sr, hr)
    sr.requires_grad_()
    loss = sam(sr, hr, valid)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert sr.grad.isfinite().all()


@given(seed=st.integers(0, 300), exponent=st.floats(-12, 3))
@settings(max_examples=40)
def test_no_gradient_exceeds_that_of_the_darkest_spectrum(seed, exponent):
    sr, hr, valid = case(seed)
    sr = (sr * 10**exponent).requires_grad_()
    sam(sr, hr, valid).backward()
    longest = sr.grad.norm(dim=1).max() * valid.sum()
    assert longest.isfinite()
    assert longest <= 1.001 / DARK


def test_opposite_spectra_are_half_a_turn_apart():
    _, hr, valid = case()
    sr = (-hr).requires_grad_()
    loss = sam(sr, hr, valid)
    loss.backward()
    assert loss.item() == pytest.approx(math.pi, abs=1e-6)
    assert sr.grad.isfinite().all()


def test_a_spectrum_that_is_not_a_number_is_not_hidden():
    sr, hr, _ = case()
    sr[0, 1, 2, 3] = math.nan
    assert sam(sr, hr, everywhere(sr)).isnan()


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, 1e30, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored):
    sr, hr, valid = case()
    results = []
    for image, value in ((None, 0), (hr, stored), (sr, stored)):
        if image is not None:
            image.movedim(1, -1)[~valid] = value
        leaf = sr.clone().requires_grad_()
        loss = sam(leaf, hr, valid)
        loss.backward()
        results.append((loss.item(), leaf.grad))
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(gradient, results[0][1])


def test_without_valid_pixels_it_is_zero():
    sr, hr, valid = case(share=0)
    sr.requires_grad_()
    loss = sam(sr, hr, valid)
    loss.backward()
    assert loss == 0
    assert not sr.grad.any()
