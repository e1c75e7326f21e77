"""Figures of opensr-test are those of geosr on the same images; run by ``make test-interop``."""

import numpy as np
import pytest
import torch
from metric_kit import danube

from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.metrics import correctness, sam, shift
from geosr.models import load_model

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("default"),  # the other packages have theirs
]


def theirs(**settings):
    from opensr_test import Metrics

    return Metrics(harm_apply_spatial=False, **settings)


def by_chance(scale):
    generator = torch.Generator().manual_seed(scale)
    hr = 0.05 + 0.3 * torch.rand(1, 4, 96, 96, generator=generator)
    lr = degrade(hr, PSF(scale))
    return lr, (hr + bicubic(lr, scale)) / 2 + 0.02 * torch.randn(hr.shape, generator=generator), hr


def of_a_model(shared_data, scale):
    hr = danube(shared_data, 192)
    lr = degrade(hr, PSF(scale))
    with torch.inference_mode():
        return lr, load_model(f"s2-rgbn-x{scale}")(lr), hr


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("distance", ["nd", "l1"])
@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize("real", [True, False])
def test_improvement_omission_and_hallucination(request, scale, distance, matched, real):
    lr, sr, hr = of_a_model(request.getfixturevalue("shared_data"), scale) if real else by_chance(scale)
    peer = theirs(correctness_distance=distance, harm_apply_spectral=matched)
    expected = peer.compute(lr=lr[0], sr=sr[0].clone(), hr=hr[0])
    found = correctness(lr, sr, hr, distance=distance, matched=matched)
    for name, key in (("improvement", "im_metric"), ("omission", "om_metric"), ("hallucination", "ha_metric")):
        assert float(getattr(found, name)) == pytest.approx(expected[key], abs=1e-4), name
    classes = peer.classification.nan_to_num(-1).numpy()
    assert (found.classes[0, 16:-16, 16:-16].numpy() == classes).mean() > 0.999  # float32 there decides some otherwise


@pytest.mark.parametrize("scale", [2, 4])
def test_the_spectral_angle(shared_data, scale):
    lr, sr, _ = of_a_model(shared_data, scale)
    peer = theirs()
    expected = peer.consistency(lr=lr[0], sr=sr[0].clone())
    found = sam(peer.sr_to_lr[None], peer.lr[None])
    assert float(found) == pytest.approx(expected["spectral"], abs=0.01)  # by an arccosine in float32 there


def test_the_shift(shared_data):
    lr = danube(shared_data, 200)[..., 10:138, 10:138]
    late = danube(shared_data, 200)[..., 8:136, 13:141]
    expected = theirs(border_mask=0).consistency(lr=late[0], sr=lr[0])["spatial"]
    assert float(shift(late, lr).norm()) == pytest.approx(expected, abs=0.05)
    np.testing.assert_allclose(shift(late, lr), [[2, -3]], atol=0.05)
