import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from geosr.inference.fill import fill_invalid


@st.composite
def images(draw):
    """An image, its mask and the distance to fill over."""
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    valid = rng.random(shape) < draw(st.sampled_from([0.03, 0.3, 0.9]))
    valid[: draw(st.integers(0, shape[0]))] &= draw(st.booleans())
    return rng.uniform(0.1, 0.9, (2, *shape)).astype(np.float32), valid, draw(st.integers(1, 30))


def test_a_complete_image_stays_as_it_is():
    image = np.random.default_rng(0).random((2, 5, 6), np.float32)
    np.testing.assert_array_equal(fill_invalid(image, np.ones((5, 6), bool), distance=3), image)


@settings(deadline=None)
@given(images())
def test_valid_pixels_stay_and_the_others_lie_between_them(case):
    image, valid, distance = case
    filled = fill_invalid(image, valid, distance=distance)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[:, valid], image[:, valid])
    if not valid.any():
        assert not filled.any()
        return
    to_valid = distance_transform_edt(~valid)
    far = to_valid > distance * np.sqrt(2) + 1
    assert not filled[:, far].any(), "a value came from farther away than allowed"
    near = ~valid & (to_valid <= distance)
    for before, after in zip(image, filled, strict=True):
        assert (after[near] >= before[valid].min() - 1e-5).all()
        assert (after[near] <= before[valid].max() + 1e-5).all()


@settings(deadline=None)
@given(images(), st.sampled_from([np.nan, np.inf, -9999, 1e30]))
def test_what_invalid_pixels_hold_does_not_matter(case, junk):
    image, valid, distance = case
    expected = fill_invalid(np.where(valid, image, np.float32(0.4)), valid, distance=distance)
    dirty = np.where(valid, image, np.float32(junk))
    before = dirty.copy()
    np.testing.assert_array_equal(fill_invalid(dirty, valid, distance=distance), expected)
    np.testing.assert_array_equal(dirty, before)  # the argument is not touched


def test_a_hole_takes_the_value_that_surrounds_it():
    image = np.full((1, 40, 40), 0.3, np.float32)
    valid = np.ones((40, 40), bool)
    valid[8:30, 10:33] = False
    image[:, ~valid] = np.nan
    np.testing.assert_allclose(fill_invalid(image, valid, distance=20), 0.3, rtol=1e-6)


def test_a_swath_edge_goes_on_as_far_as_asked():
    image = np.zeros((1, 20, 60), np.float32)
    image[0] = np.linspace(0.1, 0.6, 20)[:, None]
    valid = np.zeros((20, 60), bool)
    valid[:, :10] = True
    filled = fill_invalid(image, valid, distance=15)[0]
    assert (filled[:, 10:24] > 0.09).all()
    assert not filled[:, 32:].any()
    assert (np.diff(filled[:, 12]) > -1e-6).all(), "rows stay in order"


@pytest.mark.parametrize("halo", [0, 1, 7, 20])
def test_a_window_read_from_wide_enough_is_filled_as_the_whole_scene_is(halo):
    """What makes tiles with gaps exact: every pixel within reach of a valid one gets the same value."""
    from geosr.inference.fill import fill_distance

    rng = np.random.default_rng(halo)
    image = rng.random((1, 90, 110), np.float32)
    valid = rng.random((90, 110)) < 0.05
    valid[:, 60:] = False
    distance = fill_distance(halo)
    assert distance >= np.hypot(halo, halo)
    whole = fill_invalid(image, valid, distance=distance)
    for rows, columns in (
        (slice(20, 50), slice(30, 70)),
        (slice(60, 90), slice(80, 110)),
        (slice(0, 25), slice(0, 20)),
    ):
        wide = (
            slice(max(rows.start - distance, 0), rows.stop + distance),
            slice(max(columns.start - distance, 0), columns.stop + distance),
        )
        part = fill_invalid(image[:, *wide], valid[wide], distance=distance)
        top, left = rows.start - wide[0].start, columns.start - wide[1].start
        np.testing.assert_array_equal(
            part[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start],
            whole[:, rows, columns],
        )
