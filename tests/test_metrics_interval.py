import math

import numpy as np
import pytest
from scipy import stats

from geosr.metrics import bootstrap


def test_the_interval_of_many_values_is_that_of_student():
    values = np.random.default_rng(1).normal(3, 0.5, 200)
    found = bootstrap(values)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    wider = bootstrap(values, confidence=0.99)
    assert wider.low < found.low < found.high < wider.high


def test_the_same_values_have_the_same_interval():
    values = [3.1, 3.4, 2.9, 3.3, 4.0]
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values).low < bootstrap(values).mean < bootstrap(values).high


def test_values_that_are_not_numbers_are_left_out():
    assert bootstrap([1.0, math.nan, 2.0, 4.0]) == bootstrap([1.0, 2.0, 4.0])


@pytest.mark.parametrize(("values", "mean"), [([2.5], 2.5), ([], math.nan), ([math.nan], math.nan)])
def test_one_value_or_none_says_nothing_about_the_spread(values, mean):
    found = bootstrap(values)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_values_have_no_spread():
    assert bootstrap([0.3, 0.3, 0.3]) == (0.3, 0.3, 0.3)
