import numpy as np
import pytest
import torch

from geosr.degrade import PSF, degrade
from geosr.metrics import consistency, sam


def oracle(sr, lr, valid, psf):
    """Both figures, LR pixel by LR pixel: one sum over the pixels under a kernel of two axes."""
    kernel, size, radius = np.outer(psf.kernel, psf.kernel), len(psf.kernel), psf.radius
    errors, angles = [], []
    for image, other, known in zip(sr.double().numpy(), lr.double().numpy(), valid.numpy(), strict=True):
        image = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
        known = np.pad(known, radius, mode="reflect")
        for row, column in np.ndindex(other.shape[1:]):
            top, left = row * psf.scale, column * psf.scale
            window = slice(top, top + size), slice(left, left + size)
            if known[window].all():
                seen, there = (image[:, *window] * kernel).sum((1, 2)), other[:, row, column]
                errors += abs(seen - there).tolist()
                angles.append(np.degrees(np.arccos(seen @ there / np.linalg.norm(seen) / np.linalg.norm(there))))
    return np.mean(errors), np.mean(angles)


@pytest.mark.parametrize(("scale", "mtf"), [(1, 0.3), (2, 0.3), (4, 0.2)])
def test_it_is_the_mean_over_lr_pixels_with_nothing_invalid_under_their_kernel(scale, mtf):
    psf, generator = PSF(scale, mtf), torch.Generator().manual_seed(0)
    sr = 0.4 * torch.rand(2, 3, 10 * scale, 10 * scale, generator=generator)
    lr = 0.4 * torch.rand(2, 3, 10, 10, generator=generator)
    valid = torch.rand(2, 10 * scale, 10 * scale, generator=generator) < 0.99
    found = consistency(sr, lr, valid, psf=psf)
    reflectance, angle = oracle(sr, lr, valid, psf)
    assert float(found.reflectance) == pytest.approx(reflectance, abs=1e-7)
    assert float(found.angle) == pytest.approx(angle, abs=1e-4)


def test_an_image_that_degrades_to_lr_is_consistent():
    sr, psf = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)), PSF(2)
    found = consistency(sr, degrade(sr, psf), psf=psf)
    assert float(found.reflectance) == pytest.approx(0, abs=1e-7)
    assert float(found.angle) == pytest.approx(0, abs=1e-4)


def test_lr_of_another_brightness_is_off_by_reflectance_and_by_no_angle():
    sr, psf = 0.1 + torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)), PSF(2)
    lr = degrade(sr, psf)
    found = consistency(sr, 1.1 * lr, psf=psf)
    assert float(found.reflectance) == pytest.approx(float(0.1 * lr.mean()), rel=1e-4)
    assert float(found.angle) == pytest.approx(float(sam(lr, 1.1 * lr)), abs=1e-4)
