import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.degrade import PSF, degrade
from geosr.losses import consistency

PSF2 = PSF(2, 0.3)


def case(seed=0, share=0.98, *, psf=PSF2, size=10):
    generator = torch.Generator().manual_seed(seed)
    side = size * psf.scale
    sr, hr = 0.4 * torch.rand(2, 2, 3, side, side, generator=generator)
    return sr, degrade(hr, psf), torch.rand(2, side, side, generator=generator) < share


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


def loss_and_gradient(sr, lr, valid, psf=PSF2):
    sr = sr.clone().requires_grad_()
    loss = consistency(sr, lr, valid, psf=psf)
    loss.backward()
    return loss.item(), sr.grad


def oracle(sr, lr, valid, psf):
    """The definition, LR pixel by LR pixel: one sum over the pixels under a kernel of two axes."""
    kernel, size, radius = np.outer(psf.kernel, psf.kernel), len(psf.kernel), psf.radius
    errors = []
    for image, other, known in zip(sr.double().numpy(), lr.double().numpy(), valid.numpy(), strict=True):
        image = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
        known = np.pad(known, radius, mode="reflect")
        for row, column in np.ndindex(other.shape[1:]):
            top, left = row * psf.scale, column * psf.scale
            window = slice(top, top + size), slice(left, left + size)
            if known[window].all():
                errors += abs((image[:, *window] * kernel).sum((1, 2)) - other[:, row, column]).tolist()
    return np.mean(errors) if errors else 0.0


@pytest.mark.parametrize(("scale", "mtf"), [(1, 0.3), (2, 0.3), (3, 0.2), (4, 0.4)])
def test_an_image_that_degrades_to_lr_is_consistent(scale, mtf):
    psf = PSF(scale, mtf)
    sr, _, valid = case(psf=psf)
    assert float(consistency(sr, degrade(sr, psf), valid, psf=psf)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("scale", "mtf"), [(1, 0.3), (2, 0.3), (3, 0.2), (4, 0.4)])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), share=st.floats(0.95, 1))
def test_the_mean_over_lr_pixels_with_nothing_invalid_under_their_kernel(scale, mtf, seed, share):
    psf = PSF(scale, mtf)
    sr, lr, valid = case(seed, share, psf=psf)
    assert float(consistency(sr, lr, valid, psf=psf)) == pytest.approx(oracle(sr, lr, valid, psf), abs=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    sr, lr, valid = case(size=5, share=0.96)
    assert float(consistency(sr, lr, valid, psf=PSF2)) > 0
    sr, lr = sr.double().requires_grad_(), lr.double()
    assert torch.autograd.gradcheck(lambda image: consistency(image, lr, valid, psf=PSF2), (sr,), fast_mode=True)


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_constant_images_are_compared_as_they_are(level):
    sr, lr = torch.full((1, 2, 16, 16), level), torch.full((1, 2, 8, 8), 0.1)
    value, gradient = loss_and_gradient(sr, lr, everywhere(sr))
    assert value == pytest.approx(abs(level - 0.1), rel=1e-5)
    assert gradient.isfinite().all()


def test_without_valid_pixels_the_loss_and_its_gradient_are_zero():
    value, gradient = loss_and_gradient(*case(share=0))
    assert value == 0
    assert not gradient.any()


def test_one_invalid_pixel_takes_the_lr_pixels_out_whose_kernel_reaches_it():
    sr, lr, _ = case()
    valid = everywhere(sr)
    valid[:, 10, 10] = False
    lr[:, :, 5, 5] = 9.0  # over the invalid pixel
    lr[:, :, 4, 5] = 9.0  # beside it
    assert float(consistency(sr, lr, valid, psf=PSF2)) < 0.2
    lr[:, :, 9, 9] = 9.0
    assert float(consistency(sr, lr, valid, psf=PSF2)) > 0.05


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored):
    sr, lr, valid = case()
    value, gradient = loss_and_gradient(sr, lr, valid)
    sr.movedim(1, -1)[~valid] = stored
    over = ~valid.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).all(-1).all(-2)
    lr.movedim(1, -1)[over] = stored
    changed_value, changed_gradient = loss_and_gradient(sr, lr, valid)
    assert changed_value == value > 0
    assert torch.equal(changed_gradient, gradient)
    assert not gradient.movedim(1, -1)[~valid].any()
