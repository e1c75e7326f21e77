"""Bits that look random and belong to whole numbers: the same for a place or a seed wherever it turns up."""

from typing import Any


def mixed(*numbers: Any) -> Any:
    """64 well-mixed bits (int64) of each row of whole numbers, the same on every machine and device.

    The arithmetic is that of int64 arrays, which wraps around, and is the same in NumPy and in torch.

    Args:
        numbers: Arrays or tensors of int64 that broadcast; what costs is the size of the last ones.

    References:
        G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
    """
    state: Any = 0
    for number in numbers:
        state = (number ^ state) + _GOLDEN
        state = (state ^ _shifted(state, 30)) * _FIRST
        state = (state ^ _shifted(state, 27)) * _SECOND
        state = state ^ _shifted(state, 31)
    return state


def _shifted(bits: Any, by: int) -> Any:
    """Bits moved to the right, zeros behind them; ``>>`` would repeat the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


_GOLDEN, _FIRST, _SECOND = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
