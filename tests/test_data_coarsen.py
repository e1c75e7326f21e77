from fractions import Fraction

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geosr.data.coarsen import as_fraction, average, coarser, covered
from geosr.errors import UsageError

FACTORS = st.fractions(min_value=Fraction(1, 8), max_value=1, max_denominator=8)


def by_integral(image, factor):
    """Oracle: the mean over each coarse pixel's area as an integral of the image, which is constant on each pixel."""
    height, width = (int(length * factor) for length in image.shape)
    integral = np.pad(image.astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def at(rows, columns):
        return np.stack([np.interp(columns, np.arange(image.shape[1] + 1), line) for line in along(rows)])

    def along(rows):
        return np.stack([np.interp(rows, np.arange(image.shape[0] + 1), line) for line in integral.T], axis=1)

    rows, columns = (np.arange(n + 1) / float(factor) for n in (height, width))
    corner = at(rows, columns)
    return np.diff(np.diff(corner, axis=0), axis=1) * float(factor) ** 2


def whole(image, valid, factor):
    """The whole coarse image at once."""
    shape = tuple(int(length * factor) for length in image.shape[1:])
    part = tuple(slice(0, length) for length in shape)
    rows, columns = (covered(along, factor, length) for along, length in zip(part, image.shape[1:], strict=True))
    return average(image[:, rows, columns], valid[rows, columns], part, factor)


@given(FACTORS, st.integers(8, 23), st.integers(8, 23))
def test_averages_are_means_over_area(factor, height, width):
    image = np.random.default_rng(0).integers(0, 65535, (2, height, width), dtype=np.uint16)
    coarse = whole(image, np.ones((height, width), bool), factor)
    for band in range(2):
        np.testing.assert_allclose(coarse[band], by_integral(image[band], factor), rtol=1e-9)


@given(FACTORS, st.data())
def test_a_part_is_the_same_as_in_the_whole(factor, data):
    image = np.random.default_rng(1).integers(0, 65535, (1, 40, 37), dtype=np.uint16)
    valid = np.random.default_rng(2).random((40, 37)) > 0.05
    expected = whole(image, valid, factor)
    starts = [data.draw(st.integers(0, length - 1)) for length in expected.shape[1:]]
    part = tuple(
        slice(start, data.draw(st.integers(start + 1, length)))
        for start, length in zip(starts, expected.shape[1:], strict=True)
    )
    rows, columns = (covered(along, factor, length) for along, length in zip(part, (40, 37), strict=True))
    got = average(image[:, rows, columns], valid[rows, columns], part, factor)
    np.testing.assert_array_equal(got, expected[:, part[0], part[1]])


def test_a_pixel_with_an_invalid_one_under_it_is_invalid_and_others_do_not_see_it():
    image = np.full((1, 8, 8), 7.0)
    image[0, 2, 2] = np.nan
    valid = np.isfinite(image[0])
    coarse = whole(image, valid, Fraction(1, 2))
    assert np.isnan(coarse[0, 1, 1])
    coarse[0, 1, 1] = 7
    np.testing.assert_array_equal(coarse, 7)


@given(FACTORS, st.integers(1, 99), st.integers(1, 99))
def test_the_coarser_grid_starts_where_the_fine_one_does_and_stays_inside(factor, height, width):
    fine = GeoBox((height, width), Affine(10, 0, 600_000, 0, -10, 5_000_000), "EPSG:32633")
    coarse = coarser(fine, factor)
    assert (coarse.affine.c, coarse.affine.f) == (600_000, 5_000_000)
    assert coarse.affine.a == pytest.approx(10 / factor)
    assert all(0 <= have - n / factor < 1 / factor for have, n in zip(fine.shape, coarse.shape, strict=True))


@pytest.mark.parametrize("factor", [0, -0.5, 1.5, 0.001])
def test_scales_that_are_none_are_refused(factor):
    with pytest.raises(UsageError, match="--scales are from 1/64 to 1"):
        as_fraction(factor)


def test_decimals_mean_the_fraction_behind_them():
    assert [as_fraction(f) for f in (1, 0.75, 0.333, 0.5)] == [1, Fraction(3, 4), Fraction(1, 3), Fraction(1, 2)]
