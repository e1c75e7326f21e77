import pytest

from geosr import errors
from geosr.errors import GeosrError, UsageError, did_you_mean, printable


@pytest.mark.parametrize(
    "name",
    [
        "BandError",
        "RadiometryError",
        "InputError",
        "OutputError",
        "GridError",
        "ModelError",
        "ConfigError",
        "TrainingError",
    ],
)
def test_every_error_is_a_geosr_error_that_exits_with_1(name):
    error = getattr(errors, name)
    assert issubclass(error, GeosrError)
    assert error.exit_code == 1
    assert error.__doc__


def test_wrong_usage_exits_with_2():
    assert UsageError.exit_code == 2
    assert issubclass(UsageError, GeosrError)


def test_a_suggestion_keeps_the_spelling_of_the_choice():
    assert did_you_mean("SENTINEL2", ["sentinel-2-l2a", "Reflectance"]) == "; did you mean 'sentinel-2-l2a'?"
    assert did_you_mean("reflectanse", ["sentinel-2-l2a", "Reflectance"]) == "; did you mean 'Reflectance'?"


def test_nothing_similar_is_suggested_for_nothing():
    assert did_you_mean("thermal", ["B02", "B03"]) == ""
    assert did_you_mean("thermal", []) == ""


def test_a_terminal_shows_names_and_does_not_obey_them():
    evil = "\x1b]0;owned\x07a\x9b31mb\u202ec\udcff\r"
    assert printable(evil) == r"\x1b]0;owned\x07a\x9b31mb\u202ec\udcff\r"
    assert printable("two\nlines\tÖ 地") == "two\nlines\tÖ 地"
