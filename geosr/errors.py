"""Errors that geosr raises on purpose: a user's mistake or a job that could not be done.

The command line shows the message of a `GeosrError` without a traceback and exits with its ``exit_code``. Any other
exception is a defect of geosr and keeps its traceback.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class GeosrError(Exception):
    """A user's mistake or a failed job; the message says what was given, what is allowed and what to do."""

    exit_code = 1


class UsageError(GeosrError):
    """A command or function was called in a way that can never work."""

    exit_code = 2


class BandError(GeosrError):
    """A band is missing, unknown or named twice."""


class RadiometryError(GeosrError):
    """What the digital numbers mean is unknown, or two sources disagree about it."""


class InputError(GeosrError):
    """An input does not exist or cannot be read."""


class OutputError(GeosrError):
    """An output cannot be written."""


class GridError(GeosrError):
    """Grids, windows or array shapes do not fit together."""


class ModelError(GeosrError):
    """A model does not exist, cannot be loaded or does not fit the scene."""


class ConfigError(GeosrError):
    """A configuration holds an unknown key or a value that is not allowed."""


class TrainingError(GeosrError):
    """A training run cannot go on: a loss is not finite any more."""


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Imports that need an optional part of geosr; without it, an error that says how ``what`` gets it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise GeosrError(f"{what} needs {package}: pip install 'geosr[{name}]'") from error


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of an error message that names the choice closest to `word`, or an empty string.

    Args:
        word: What the user wrote; its case does not matter.
        choices: What is allowed.

    >>> did_you_mean("b99", ["B08", "B09"])
    "; did you mean 'B09'?"
    >>> did_you_mean("thermal", ["B08", "B09"])
    ''
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def printable(text: str) -> str:
    """Text for a terminal: control characters of a file's words become ``\N{REPLACEMENT CHARACTER}``, lines stay lines.

    A name in a file might otherwise move the cursor, change colours or hide what follows it.

    >>> printable("model\x1b[31m of\\nCrete")
    'model\N{REPLACEMENT CHARACTER}[31m of\\nCrete'
    """
    if text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(letter) else letter for letter in text)


def _is_control(letter: str) -> bool:
    """Whether a character is a control, a format (such as the direction of writing) or half of a pair."""
    return letter not in "\n\t" and unicodedata.category(letter)[0] == "C"
