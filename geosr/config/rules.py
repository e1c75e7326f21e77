"""What a setting may be: rules that say in words which values they allow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Which values of a setting are allowed."""

    allowed: str
    """The same in words."""
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    """Words that a misspelt one is compared with."""


def at_least(low: float) -> Rule:
    """Finite numbers from ``low`` on."""
    return Rule(f"at least {low:g}", lambda value: low <= value < math.inf)


def above(low: float) -> Rule:
    """Finite numbers greater than ``low``."""
    return Rule(f"above {low:g}", lambda value: low < value < math.inf)


def between(low: float, high: float) -> Rule:
    """Numbers from ``low`` to ``high``, both allowed."""
    return Rule(f"from {low:g} to {high:g}", lambda value: low <= value <= high)


def odd(high: int) -> Rule:
    """Odd whole numbers from 1 to ``high``."""
    return Rule(f"an odd number from 1 to {high}", lambda value: 1 <= value <= high and value % 2 == 1)


def count(high: int) -> Rule:
    """Whole numbers from 1 to ``high``, which memory or time set a limit to."""
    return Rule(f"at least 1 and at most {high:,}", lambda value: 1 <= value <= high)


def switch() -> Rule:
    """Finite numbers from 0 on, where 0 means not at all."""
    return Rule("at least 0; 0 switches it off", at_least(0).holds)


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule("one of " + ", ".join(choices), choices.__contains__, choices)


def matching(allowed: str, pattern: str) -> Rule:
    """Words that match a regular expression from end to end."""
    return Rule(allowed, lambda word: re.fullmatch(pattern, word) is not None)


def interval(rule: Rule) -> Rule:
    """Two numbers, the lower one first, each allowed by ``rule``."""
    return Rule(
        f"two numbers, the lower one first, each {rule.allowed}",
        lambda pair: len(pair) == 2 and pair[0] <= pair[1] and all(map(rule.holds, pair)),
    )


def probabilities(count: int | None = None) -> Rule:
    """Numbers that are not negative and add up to 1; any number of them, or ``count``."""

    def holds(values: Sequence[float]) -> bool:
        return count in (None, len(values)) and min(values, default=-1) >= 0 and math.isclose(sum(values), 1)

    return Rule(f"{'' if count is None else f'{count} '}numbers of at least 0 that add up to 1", holds)


def nullable(rule: Rule) -> Rule:
    """The rule, or null."""
    return Rule(f"{rule.allowed}, or null", lambda value: value is None or rule.holds(value), rule.choices)
