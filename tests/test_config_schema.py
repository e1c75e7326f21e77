from dataclasses import fields, is_dataclass

import pytest

from geosr.config import Config
from geosr.config.schema import settings


def leaves(section, prefix=""):
    """Dotted key and value of every setting."""
    for entry in fields(section):
        value = getattr(section, entry.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


def test_every_setting_is_known_by_its_dotted_key():
    keys = {key for key, kind in settings().items() if not kind.endswith("Section")}
    assert keys == {key for key, _ in leaves(Config())}


@pytest.mark.parametrize(("key", "value"), [*leaves(Config())], ids=str)
def test_a_default_has_the_type_that_its_setting_says(key, value):
    kind = settings()[key]
    if value is None:
        assert kind.endswith("| None")
    else:
        assert kind.removesuffix(" | None").split("[")[0] == type(value).__name__


def test_two_configurations_share_nothing():
    first, second = Config(), Config()
    first.Data.bands.append("B11")
    first.Data.exclude["a.tif"] = [0, 0, 1, 1]
    first.Training.EMA.decay = 0.5
    assert second == Config()


def test_the_plain_values_are_a_copy():
    config = Config()
    config.to_dict()["Data"]["bands"].clear()
    assert config == Config()
