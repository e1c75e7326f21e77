import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.hashing import mixed

WHOLE = st.integers(-(2**63), 2**63 - 1)
MASK = 2**64 - 1


def splitmix(*numbers):
    """SplitMix64 chained over the numbers, in Python's integers."""
    state = 0
    for number in numbers:
        state = ((state ^ (number & MASK)) + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


@given(st.lists(WHOLE, min_size=1, max_size=4))
def test_it_is_splitmix_in_numpy_and_in_torch(numbers):
    expected = splitmix(*numbers)
    with np.errstate(over="ignore"):
        assert int(mixed(*(np.array([number]) for number in numbers))[0]) & MASK == expected
    assert int(mixed(*(torch.tensor([number]) for number in numbers))[0]) & MASK == expected


def test_the_first_numbers_are_those_of_the_published_generator():
    """SplitMix64 seeded with 0 begins so, in its reference implementation."""
    assert splitmix(0) == 0xE220A8397B1DCDAF
    assert int(mixed(torch.tensor(0))) & MASK == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("bit", [0, 31, 63])
def test_each_bit_is_set_half_of_the_time(bit):
    bits = mixed(torch.arange(10_000)) >> bit & 1
    assert float(bits.double().mean()) == pytest.approx(0.5, abs=0.02)


def test_numbers_that_broadcast_are_hashed_row_by_row():
    table = mixed(torch.arange(3).view(3, 1), torch.arange(4))
    assert table.shape == (3, 4)
    assert len(table.unique()) == 12
    assert int(table[2, 3]) & MASK == splitmix(2, 3)
