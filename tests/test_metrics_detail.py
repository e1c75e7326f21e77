import numpy as np
import pytest
import torch
import torch.nn.functional as F
from metric_kit import danube
from skimage.exposure import match_histograms

from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.metrics import CLASSES, correctness


def enlarged(lr, scale):
    """Bilinear interpolation (band, y, x) between the centres of pixels, one axis after the other."""
    for axis in (1, 2):
        size = lr.shape[axis]
        at = (np.arange(size * scale) + 0.5) / scale - 0.5
        lr = np.apply_along_axis(lambda line, at=at, size=size: np.interp(at, np.arange(size), line), axis, lr)
    return lr


def oracle(lr, sr, hr, *, distance, matched, border):
    """Scores (3, y, x) of one image inside its border, from the definitions, and which pixels count."""
    scale = hr.shape[-1] // lr.shape[-1]
    low, here, there = (image.double().numpy() for image in (lr, sr, hr))
    here, there = (image[:, border:-border, border:-border] for image in (here, there))
    low = low[:, border // scale : -border // scale, border // scale : -border // scale]
    low = enlarged(low, scale)
    here = match_histograms(here, there, channel_axis=0) if matched else here

    def apart(one, other):
        size = np.abs(one + other + 1e-8) if distance == "nd" else 1
        return (np.abs(one - other) / size).mean(0)

    reference, im, om = apart(low, there), apart(here, there), apart(here, low)
    least = np.sort(reference.ravel())[int(0.75 * reference.size) - 1]
    counts = np.maximum(np.maximum(reference, im), om) > least
    im, om = im / reference, om / reference
    together = im + om - 1
    to = [im + om * (1 - np.exp(-0.05 * together)), om + im * (1 - np.exp(-0.05 * together)), np.exp(-0.05 * im * om)]
    weights = np.exp(-np.array(to) / 0.25)
    return np.where(counts, weights / weights.sum(0), np.nan), counts


def triplet(shared_data, scale, noise=0.005):
    """LR, SR that is HR half mixed with interpolated LR and noise, and HR of a real scene."""
    hr = danube(shared_data, 64)
    lr = degrade(hr, PSF(scale))
    sr = (hr + bicubic(lr, scale)) / 2 + noise * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    return lr, sr, hr


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("distance", ["nd", "l1"])
@pytest.mark.parametrize("matched", [True, False])
def test_the_scores_are_those_of_the_definitions(shared_data, scale, distance, matched):
    lr, sr, hr = triplet(shared_data, scale)
    found = correctness(lr, sr, hr, distance=distance, matched=matched, border=8)
    scores, counts = oracle(lr[0], sr[0], hr[0], distance=distance, matched=matched, border=8)
    np.testing.assert_allclose(found.scores[0, :, 8:-8, 8:-8], scores, atol=1e-5)
    np.testing.assert_array_equal(found.classes[0, 8:-8, 8:-8], np.where(counts, scores.argmax(0), -1))
    assert (found.classes[0, :8] == -1).all()
    means = [float(getattr(found, name)) for name in CLASSES]
    np.testing.assert_allclose(means, np.nanmean(scores, (1, 2)), atol=1e-6)
    assert sum(means) == pytest.approx(1, abs=1e-6)


def test_hr_itself_is_improvement_interpolated_lr_omission_and_noise_hallucination(shared_data):
    lr, _, hr = triplet(shared_data, 4)
    noise = 0.2 * torch.rand(hr.shape, generator=torch.Generator().manual_seed(0))
    candidates = [hr, F.interpolate(lr, scale_factor=4, mode="bilinear"), noise]
    for name, sr in zip(CLASSES, candidates, strict=True):
        assert float(getattr(correctness(lr, sr, hr, matched=False), name)) > 0.8, name


def test_brightness_is_not_judged_unless_it_is_asked_for(shared_data):
    lr, _, hr = triplet(shared_data, 2)
    assert float(correctness(lr, 1.2 * hr, hr).improvement) > 0.95
    assert float(correctness(lr, 1.2 * hr, hr, matched=False).improvement) < 0.5


def test_an_image_is_judged_by_its_own_valid_pixels(shared_data):
    lr, sr, hr = triplet(shared_data, 2)
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, 32:] = False
    found = correctness(lr, sr, hr, valid, border=0)
    assert (found.classes[0, 31:] == -1).all()  # the last row's neighbour in LR is not valid
    assert (found.classes[0, :31] >= 0).any()
    both = correctness(*(torch.cat([one, one]) for one in (lr, sr, hr)), torch.cat([valid, ~valid]), border=0)
    assert torch.equal(both.classes[0], found.classes[0])
    assert (both.classes[1, :33] == -1).all()


def test_nothing_is_left_inside_the_border_of_a_small_image():
    found = correctness(torch.rand(1, 2, 16, 16), torch.rand(1, 2, 32, 32), torch.rand(1, 2, 32, 32))
    assert found.improvement.isnan()
    assert (found.classes == -1).all()
