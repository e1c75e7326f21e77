import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.degrade.draws import Draws


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(batch=st.integers(1, 9), more=st.integers(0, 5))
def test_an_image_draws_the_same_among_others(batch, more):
    few, many = Draws.of(seeded(), batch), Draws.of(seeded(), batch + more)
    like = torch.empty(0)
    for draw in (
        lambda d: d.uniform(2, 3, 4),
        lambda d: d.choice([0.2, 0.8]),
        lambda d: d.normal(2, 5, like=like),
    ):
        torch.testing.assert_close(draw(few), draw(many)[:batch], atol=0, rtol=0)


def test_images_and_batches_draw_different_numbers():
    generator = seeded()
    numbers = torch.cat([Draws.of(generator, 50).uniform(0, 1) for _ in range(2)])
    assert len(numbers.unique()) == 100


def test_uniform_numbers_fill_their_range():
    numbers = Draws.of(seeded(), 2000).uniform(-1, 3)
    assert numbers.dtype == torch.float64
    assert -1 <= numbers.min() < -0.98
    assert 2.98 < numbers.max() < 3
    assert numbers.mean() == pytest.approx(1, abs=0.1)


def test_choices_come_as_often_as_their_weights_say():
    weights = [0.5, 0.0, 2.0, 1.5]
    counts = torch.bincount(Draws.of(seeded(), 8000).choice(weights), minlength=4) / 8000
    torch.testing.assert_close(counts, torch.tensor(weights) / 4, atol=0.02, rtol=0)
    assert counts[1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_normal_numbers_have_the_type_of_the_image(dtype):
    numbers = Draws.of(seeded(), 3).normal(4, 50, 50, like=torch.empty(0, dtype=dtype))
    assert numbers.dtype == dtype
    assert numbers.shape == (3, 4, 50, 50)
    assert numbers.double().std() == pytest.approx(1, abs=0.02)


def test_one_image_goes_on_where_it_is():
    draws = Draws.of(seeded(), 3)
    first = draws[1].uniform(0, 1)
    assert draws[1].uniform(0, 1) != first
