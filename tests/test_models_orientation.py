import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.models.orientation import ORIENTATIONS, orient, orient_back, self_ensemble
from geosr.testing import block_model, impulse_model

SIDES = st.integers(1, 9)


def test_the_eight_orientations_are_those_of_the_square():
    square = torch.arange(9).view(3, 3)
    found = {tuple(orient(square, element).flatten().tolist()) for element in ORIENTATIONS}
    expected = {tuple(np.rot90(s, k).ravel().tolist()) for s in (square.numpy(), square.numpy().T) for k in range(4)}
    assert found == expected
    assert len(found) == 8


@given(height=SIDES, width=SIDES, element=st.sampled_from(ORIENTATIONS))
def test_what_is_turned_is_turned_back(height, width, element):
    image = torch.arange(2 * height * width).view(2, height, width)
    assert torch.equal(orient_back(orient(image, element), element), image)


@given(height=SIDES, width=SIDES, element=st.sampled_from(ORIENTATIONS))
def test_the_mean_of_all_orientations_is_that_of_numpy_and_has_none_itself(height, width, element):
    model = impulse_model(2, 1, bands=("B02",))  # its weights are those of no orientation
    lr = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    pixels = lr.numpy()
    got = self_ensemble(model, lr, scale=2)
    each = []
    for mirrored in (False, True):
        for turns in range(4):
            turned = np.rot90(np.flip(pixels, 3) if mirrored else pixels, turns, (2, 3))
            sr = np.rot90(model(torch.from_numpy(turned.copy())).numpy(), -turns, (2, 3))
            each.append(np.flip(sr, 3) if mirrored else sr)
    np.testing.assert_allclose(got, np.mean(each, axis=0), atol=1e-6)
    again = self_ensemble(model, orient(lr, element), scale=2)
    np.testing.assert_allclose(orient_back(again, element), got, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 14), (8, 13), (5, 22)])
def test_blocks_are_the_same_pixels_in_all_orientations(shape):
    model = block_model(3, 7, bands=("B02",))
    lr = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    # A mean over a block has no orientation, so that all eight answers are one.
    torch.testing.assert_close(self_ensemble(model, lr, scale=3, multiple_of=7), model(lr))
