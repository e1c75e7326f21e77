import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.models.padding import padded

IMAGE = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))


@given(height=st.integers(1, 9), width=st.integers(1, 9), multiple=st.integers(1, 6), smallest=st.integers(1, 12))
def test_sides_are_what_the_network_takes_and_the_image_stays_where_it_is(height, width, multiple, smallest):
    image = torch.arange(float(height * width)).view(1, 1, height, width)
    grown = padded(image, multiple_of=multiple, smallest=smallest)
    for side, before in zip(grown.shape[2:], (height, width), strict=True):
        assert side % multiple == 0
        assert max(before, smallest) <= side < max(before, smallest) + multiple
    assert torch.equal(grown[..., :height, :width], image)


def test_it_is_mirrored_as_numpy_mirrors():
    expected = np.pad(IMAGE.numpy(), ((0, 0), (0, 0), (0, 3), (0, 1)), mode="reflect")
    np.testing.assert_array_equal(padded(IMAGE, multiple_of=8).numpy(), expected)


def test_past_its_own_size_it_goes_on_as_its_edge_is():
    image = torch.tensor([[[[1.0, 2.0]]]])
    assert padded(image, smallest=4).tolist() == [[[[1, 2, 1, 1]] * 4]]


def test_a_square_has_the_longer_side():
    assert padded(IMAGE, multiple_of=2, square=True).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("facts", [{}, {"multiple_of": 1}, {"smallest": 5}])
def test_an_image_that_fits_is_not_copied(facts):
    assert padded(IMAGE, **facts) is IMAGE
