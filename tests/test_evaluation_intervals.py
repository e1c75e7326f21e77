import math

import numpy as np
import pytest
from scipy import stats

from geosr.evaluation.intervals import over_patches, over_scenes
from geosr.evaluation.parts import Patches

GENERATOR = np.random.default_rng(1)


def patches(count=40):
    pixels = GENERATOR.integers(2000, 4097, count)
    ours, theirs = GENERATOR.gamma(4, 1e-4, count), GENERATOR.gamma(4, 3e-4, count)
    place = np.arange(count)
    return Patches(
        place, place, 64, pixels, np.ones(count), {"ours": ours, "bicubic": theirs}, {"ours": np.sqrt(ours) * 90}
    )


@pytest.mark.parametrize("name", ["psnr", "psnr_gain", "rmse", "sam"])
def test_the_interval_over_patches_holds_the_scenes_own_figure_and_is_scipys(name):
    given = patches()
    weight, ours, theirs = given.pixels.astype(float), given.square["ours"], given.square["bicubic"]
    angles = given.angle["ours"]

    def mean(values, weights):
        return np.average(values, weights=weights)

    columns, statistic = {
        "psnr": ((ours, weight), lambda s, w: -10 * np.log10(mean(s, w))),
        "psnr_gain": ((ours, theirs, weight), lambda s, t, w: 10 * np.log10(mean(t, w) / mean(s, w))),
        "rmse": ((ours, weight), lambda s, w: np.sqrt(mean(s, w))),
        "sam": ((angles, weight), mean),
    }[name]
    value = float(statistic(*columns))
    found = over_patches(name, value, given, "ours", "bicubic")
    expected = stats.bootstrap(
        columns, statistic, paired=True, vectorized=False, method="percentile", n_resamples=1000, random_state=1
    ).confidence_interval
    assert found.low < value < found.high
    assert (found.mean, found.over) == (value, "patches")
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.15 * width)


def test_there_is_no_interval_where_there_is_nothing_to_resample():
    few = patches(2)
    for interval in (
        over_patches("psnr", 30.0, few, "ours", "bicubic"),
        over_patches("ssim", 0.9, patches(), "ours", "bicubic"),
        over_patches("psnr", 30.0, patches(), "other", "bicubic"),
        over_scenes([1.0, 3.0]),
    ):
        assert math.isnan(interval.low)
        assert not math.isnan(interval.mean)


def test_scenes_without_the_figure_are_left_out_of_its_mean():
    found = over_scenes([1.0, math.nan, 2.0, 6.0])
    assert found.mean == 3.0
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0
    assert found.over == "scenes"
    assert math.isnan(over_scenes([math.nan]).mean)
