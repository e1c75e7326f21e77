import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_kit import images, mask
from torchmetrics.image import SpectralAngleMapper

from geosr.metrics import index_error, sam


def angle_oracle(sr, hr, valid=None):
    """Mean angle in degrees by the arccosine of the normalised dot product, in float64."""
    sr, hr = (np.moveaxis(image.numpy().astype(float), 1, -1) for image in (sr, hr))
    norms = np.linalg.norm(sr, axis=-1) * np.linalg.norm(hr, axis=-1)
    cosine = np.divide((sr * hr).sum(-1), norms, out=np.ones_like(norms), where=norms > 0)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angle.mean() if valid is None else angle[valid.numpy()].mean()


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), noise=st.floats(5e-3, 0.3), bands=st.integers(2, 6))
def test_sam_is_that_of_torchmetrics_and_of_the_arccosine(seed, noise, bands):
    sr, hr = images((2, bands, 13, 11), seed=seed, noise=noise)
    ours = float(sam(sr, hr))
    assert ours == pytest.approx(angle_oracle(sr, hr), abs=1e-4)
    metric = SpectralAngleMapper()
    metric.update(sr, hr)
    assert ours == pytest.approx(math.degrees(float(metric.compute())), abs=0.01)


def test_sam_measures_an_angle_that_is_known():
    hr = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    for degrees in (0.001, 1.0, 45.0, 90.0, 135.0):
        turned = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]).view(1, 2, 1, 1)
        assert float(sam(3 * turned, 0.2 * hr)) == pytest.approx(degrees, rel=1e-4)


def test_brightness_does_not_change_the_spectral_angle():
    sr, hr = images()
    gain = 0.1 + torch.rand(2, 1, 24, 20, generator=torch.Generator().manual_seed(2))
    assert float(sam(gain * sr, hr)) == pytest.approx(float(sam(sr, hr)), abs=1e-4)
    assert float(sam(gain * hr, hr)) == pytest.approx(0, abs=1e-4)


def test_a_spectrum_of_zeros_has_no_angle():
    sr, hr = images()
    sr[0, :, 3, 4] = 0
    hr[1, :, 5, 6] = 0
    sr[1, :, 7, 8] = hr[1, :, 7, 8] = 0
    assert float(sam(sr, hr)) == pytest.approx(angle_oracle(sr, hr), abs=1e-4)
    assert sam(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3)) == 0


def test_sam_of_valid_pixels_is_that_of_the_arccosine_for_them():
    (sr, hr), valid = images(), mask()
    assert float(sam(sr, hr, valid)) == pytest.approx(angle_oracle(sr, hr, valid), abs=1e-4)


def test_index_errors_are_those_of_the_definitions():
    (sr, hr), valid = images(), mask()
    found = index_error(sr, hr, valid, bands=["B02", "B03", "B04", "B08"])
    assert set(found) == {"ndvi", "ndwi"}
    ours, theirs = (image.movedim(1, -1)[valid].double().numpy().clip(0).T for image in (sr, hr))
    for name, a, b in (("ndvi", 3, 2), ("ndwi", 1, 3)):
        index, other = ((image[a] - image[b]) / np.maximum(image[a] + image[b], 0.01) for image in (ours, theirs))
        assert float(found[name]) == pytest.approx(np.abs(index - other).mean(), rel=1e-6)


def test_bands_without_an_index_have_no_error_of_one():
    assert index_error(*images((1, 2, 5, 5)), bands=["B02", "B03"]) == {}
