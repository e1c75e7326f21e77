import pytest

from geosr import errors
from geosr.errors import GeosrError, UsageError, did_you_mean, extra, printable


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Île-de-France\u00a0№ 5", "Île-de-France\u00a0№ 5"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b]0;title\x07\x1b[2J", "\ufffd]0;title\ufffd\ufffd[2J"),
        ("a\rb\x9bc", "a\ufffdb\ufffdc"),
        ("gpj\u202e.tif", "gpj\ufffd.tif"),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_control_characters_do_not_reach_a_terminal(text, shown):
    assert printable(text) == shown
    shown.encode()


@pytest.mark.parametrize("error", [{"name": "lightning.pytorch"}, {"name": "lightning"}])
def test_a_missing_extra_is_named_with_what_to_install(error):
    message = r"^training needs lightning: pip install 'geosr\[train\]'$"
    with pytest.raises(GeosrError, match=message), extra("train", "training"):
        raise ModuleNotFoundError("No module", **error)
