import json

import numpy as np
import pytest
import torch
from calibration_kit import calibrated
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from geosr.degrade.psf import PSF, degrade
from geosr.errors import ModelError
from geosr.models import ModelSpec
from geosr.models.calibration import (
    KNOTS,
    Calibration,
    Curve,
    Tally,
    added,
    local_rms,
    reliability,
    simulated,
)
from geosr.testing import impulse_model

SPEC = calibrated(impulse_model(2, 1, bands=("B02", "B08"))).spec


def test_the_local_root_mean_square_is_that_of_a_loop():
    plane = np.random.default_rng(0).normal(0, 0.01, (9, 12)).astype(np.float32)
    wide = np.pad(plane.astype(np.float64), 2, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (5, 5))
    np.testing.assert_allclose(local_rms(plane, 5), np.sqrt((windows**2).mean(axis=(2, 3))), atol=1e-12)


def test_it_does_not_depend_on_where_the_image_begins():
    plane = np.random.default_rng(0).normal(0, 0.01, (40, 40)).astype(np.float32)
    plane[:4] = 30.0  # whose squares a running sum of float32 would never get rid of
    plane[20:] = 0
    whole, part = local_rms(plane), local_rms(plane[15:])
    np.testing.assert_allclose(part[2:], whole[17:], rtol=0, atol=1e-6)
    assert whole[25:].max() < 1e-6


def test_the_expected_error_is_looked_up_for_each_band():
    calibration = Calibration.of(SPEC)
    lr = torch.full((2, 2, 6, 7), 0.2)
    sr = torch.full((2, 2, 12, 14), 0.2)
    sr[1, 1] += 0.055  # half-way between two points
    sr[0, 1] += 0.3  # three times the last point
    error = calibration.expected_error(sr, lr)
    assert (error.shape, error.dtype) == (sr.shape, torch.float32)
    np.testing.assert_allclose(added(sr, lr)[1, 1], 0.055, atol=1e-6)
    np.testing.assert_allclose(error[:, 0], 0.0005, rtol=1e-5)  # no detail: the first point
    np.testing.assert_allclose(error[1, 1], (0.004 + 0.04) / 2, rtol=1e-4)
    np.testing.assert_allclose(error[0, 1], 3 * 0.04, rtol=1e-4)


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0, 0.1)), min_size=2, max_size=12))
def test_a_curve_is_the_nearest_that_rises(parts):
    """The oracle is the formula of max over the left, min over the right, of the means between."""
    tally = Tally()
    for place, (count, error) in enumerate(parts):
        errors = np.full(40 * count, error, np.float32)
        tally.add(np.full(len(errors), 0.01 * (place + 1)), errors)
    counts, means = np.array(parts).T
    expected = [
        max(
            min(np.average(means[i : j + 1], weights=counts[i : j + 1]) for j in range(k, len(means)))
            for i in range(k + 1)
        )
        for k in range(len(means))
    ]
    curve = tally.curve()
    assert tally.pixels == 40 * counts.sum()
    if len(curve.detail) == len(parts):  # else some were so few that they are one group with others
        np.testing.assert_allclose(curve.detail, 0.01 * np.arange(1, len(parts) + 1), rtol=1e-9)
        np.testing.assert_allclose(curve.error, expected, atol=1e-7)
    assert (np.diff(curve.error) >= 0).all()
    assert (np.diff(curve.detail) > 0).all()


def test_a_law_is_found_again_and_errors_are_reliable():
    """Errors are half-normal, in proportion to the root of the detail; of others, their mean must be expected."""
    rng = np.random.default_rng(0)
    details = [rng.gamma(2, 0.01, 60_000) for _ in range(2)]
    errors = [np.abs(rng.normal(0, 0.05 * np.sqrt(detail))).astype(np.float32) for detail in details]
    tally = Tally()
    for half in range(2):
        tally.add(details[0][half::2], errors[0][half::2])
    curve = tally.curve()
    assert len(curve.detail) == KNOTS
    found = reliability(curve.at(details[1]), errors[1])
    np.testing.assert_allclose(found.actual, found.expected, rtol=0.04)
    law = 0.05 * np.sqrt(2 * np.sort(details[1]) / np.pi)
    np.testing.assert_allclose(found.expected, [part.mean() for part in np.array_split(law, 10)], rtol=0.04)
    assert found.rank_correlation == pytest.approx(spearmanr(details[1], errors[1]).statistic, abs=0.01)


def test_without_a_pixel_there_is_no_curve():
    with pytest.raises(ModelError, match="no pixel of the scenes is valid"):
        Tally().curve()


def test_a_calibration_survives_json():
    calibration = Calibration.of(SPEC)
    again = ModelSpec.from_dict(json.loads(json.dumps(SPEC.to_dict())))
    assert Calibration.of(again) == calibration
    assert calibration.scenes == ("a.tif", "b.tif")


@pytest.mark.parametrize(("halo", "scale", "context"), [(0, 2, 2 + 1), (9, 2, 10), (9, 4, 10), (1, 1, 2 + 2)], ids=str)
def test_what_it_depends_on_is_wider_than_the_halo(halo, scale, context):
    assert Calibration.of(SPEC).context(halo, scale) == context


def with_error(kept, error):
    return kept | {"bands": {band: {"detail": [0.1, 0.2], "error": error} for band in ("B02", "B08")}}


def test_a_network_that_adds_nothing_has_one_error_everywhere():
    assert Curve((0.0,), (0.01,)).at(np.array([0.0, 0.3])).tolist() == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda kept: None, r"does not say how large its errors are.*geosr models calibrate MODEL SCENE"),
        (
            lambda kept: kept | {"bands": {"B02": kept["bands"]["B02"]}},
            "damaged calibration: .*for each of B02 B08 a curve",
        ),
        (lambda kept: kept | {"bands": dict.fromkeys(("B02", "B08"), Curve((0.2, 0.1), (0, 1))._asdict())}, "rise"),
        (lambda kept: kept | {"bands": dict.fromkeys(("B02", "B08"), Curve((), ())._asdict())}, "damaged"),
        (lambda kept: kept | {"window": None}, "damaged calibration: it needs a window"),
        (lambda kept: kept | {"window": 10**9}, "damaged calibration"),
        (lambda kept: kept | {"pixels": float("inf")}, "damaged calibration"),
        (lambda kept: kept | {"scenes": [7]}, "damaged calibration"),
        (lambda kept: kept | {"bands": 7}, "damaged calibration"),
        (lambda kept: with_error(kept, [0.1, float("nan")]), "finite"),
        (lambda kept: with_error(kept, ["x", 1]), "damaged"),
        (lambda kept: with_error(kept, [-1, 1]), "damaged"),
    ],
)
def test_weights_without_a_calibration_or_with_a_damaged_one_say_so(change, told):
    spec = ModelSpec.from_dict(SPEC.to_dict() | {"calibration": change(SPEC.to_dict()["calibration"])})
    with pytest.raises(ModelError, match=rf"model 'impulse'.*{told}"):
        Calibration.of(spec)


@pytest.mark.parametrize("mtf", [None, 0.2])
def test_lr_is_what_the_models_sensor_would_see(mtf):
    hr = torch.rand(1, 2, 12, 16, generator=torch.Generator().manual_seed(0))
    spec = ModelSpec("m", "compact", 4, ("B02", "B08"), consistency_mtf=mtf)
    torch.testing.assert_close(simulated(hr, spec), degrade(hr, PSF(4, mtf or 0.3)))
