import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.degrade.masks import coarse_valid, filled


def test_invalid_pixels_do_not_blur_into_the_rest_whatever_they_hold():
    image = torch.full((1, 2, 8, 8), 0.3)
    valid = torch.ones((1, 8, 8), dtype=torch.bool)
    valid[0, :3] = False
    for held in (0.0, 7.0, torch.nan):
        torch.testing.assert_close(filled(torch.where(valid[:, None], image, held), valid), image)
    assert filled(image, valid | True) is image
    assert not filled(image, valid & False).any()  # nothing is known


@given(scale=st.integers(1, 4), seed=st.integers(0, 9))
def test_an_lr_pixel_is_valid_where_all_pixels_under_it_are(scale, seed):
    valid = np.random.default_rng(seed).random((2, 3 * scale, 5 * scale)) > 0.1
    coarse = coarse_valid(torch.from_numpy(valid), scale)
    for item, row, column in np.ndindex(2, 3, 5):
        under = valid[item, row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
        assert coarse[item, row, column] == under.all()
