import numpy as np
import pytest
import torch
from scipy import stats

from geosr.models.noise import normal_field


def field(seed=0, origin=(0, 0), *, channels=3, height=5, width=7):
    return normal_field(seed, torch.tensor([origin]), channels=channels, height=height, width=width)[0].numpy()


def splitmix(state):
    """One output of SplitMix64 from a state, with NumPy's unsigned integers."""
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


def expected(seed, row, column, channel):
    """One number of the field, pixel by pixel and in float64."""
    state = np.uint64(0)
    for number in (seed, row, column, channel // 2):
        state = splitmix(state ^ np.uint64(number))
    first, second = int(state) >> 40, int(state) & 0xFFFFFF
    radius = np.sqrt(-2 * np.log((first + 1) / 2**24))
    return radius * (np.cos, np.sin)[channel % 2](2 * np.pi * second / 2**24)


@pytest.mark.parametrize(("seed", "origin"), [(0, (0, 0)), (7, (3, 2**31)), (2**32 - 1, (10_980, 5))])
def test_each_number_is_a_hash_of_its_place(seed, origin):
    got = field(seed, origin)
    for channel, row, column in np.ndindex(got.shape):
        want = expected(seed, origin[0] + row, origin[1] + column, channel)
        assert got[channel, row, column] == pytest.approx(want, abs=2e-6)


def test_a_window_has_the_numbers_that_the_whole_scene_has_there():
    whole = field(4, height=40, width=50)
    windows = torch.tensor([[0, 0], [13, 20], [31, 3]])
    several = normal_field(4, windows, channels=3, height=9, width=30).numpy()
    for (row, column), window in zip(windows.tolist(), several, strict=True):
        np.testing.assert_array_equal(window, whole[:, row : row + 9, column : column + 30])


def test_more_channels_leave_the_first_ones_as_they_are():
    np.testing.assert_array_equal(field(channels=5)[:3], field(channels=3))


def test_the_numbers_are_standard_normal():
    numbers = field(11, channels=16, height=128, width=128)
    assert np.abs(numbers).max() < 5.78
    assert stats.kstest(numbers.ravel(), "norm").pvalue > 0.01
    for channel in numbers:
        assert stats.kstest(channel.ravel(), "norm").pvalue > 1e-3
    assert abs(stats.skew(numbers.ravel())) < 0.02
    assert abs(stats.kurtosis(numbers.ravel())) < 0.04


def test_neighbours_channels_seeds_and_their_squares_are_not_correlated():
    """Of 256 x 256 pairs a correlation is within five standard errors of 0; squares show what Box and Muller share."""
    one = field(5, channels=4, height=256, width=256).astype(float)
    next_seed = field(6, channels=4, height=256, width=256).astype(float)
    pairs = {
        "rows": (one[:, 1:], one[:, :-1]),
        "columns": (one[:, :, 1:], one[:, :, :-1]),
        "diagonal": (one[:, 1:, 1:], one[:, :-1, :-1]),
        "transposed": (one, one.transpose(0, 2, 1)),
        "one pair's channels": (one[0], one[1]),
        "two pairs' channels": (one[1], one[2]),
        "seeds": (one, next_seed),
    }
    for name, (first, second) in pairs.items():
        for power in (1, 2):
            correlation = np.corrcoef((first**power).ravel(), (second**power).ravel())[0, 1]
            assert abs(correlation) < 5 / np.sqrt(first.size), (name, power)


def test_no_frequency_stands_out():
    """The periodogram of white noise is exponential, and its largest value near the logarithm of their number."""
    power = np.abs(np.fft.rfft2(field(2, channels=1, height=256, width=256)[0])) ** 2 / 256**2
    inner = power[1:128, 1:-1].ravel()
    assert stats.kstest(inner, "expon").pvalue > 0.01
    assert inner.max() < np.log(inner.size) + 7
