import inspect
from dataclasses import is_dataclass
from operator import attrgetter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geosr.config import Config, load_config
from geosr.config.load import shipped_configs
from geosr.config.schema import settings
from geosr.config.show import differences, in_yaml, meanings, to_yaml


@pytest.mark.parametrize("docs", [False, True])
@pytest.mark.parametrize("name", shipped_configs())
def test_what_is_shown_is_read_as_the_same_configuration(tmp_path, name, docs):
    config = load_config(name)
    (tmp_path / "shown.yaml").write_text(to_yaml(config, docs=docs))
    assert load_config(tmp_path / "shown.yaml") == config


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=200),
        st.lists(st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=40), max_size=20),
    )
)
def test_a_value_is_one_line_that_is_read_as_itself(value):
    text = in_yaml(value)
    assert "\n" not in text
    assert yaml.safe_load(f"key: {text}") == {"key": value}


def test_docs_are_those_of_the_schema():
    told = meanings()
    assert told.keys() <= settings().keys()
    assert told["Generator.reduction"] == "Channels over those in the bottleneck of rcab's attention."
    assert told["Degradation.sensor.noise"] == "Add the detector's noise."
    assert told["Training.EMA"].startswith("Exponential moving average")
    assert "Model.licence" not in told  # its name says all
    assert "Schedulers.patience_g" not in told  # that of patience is not its own


def test_every_section_has_docs():
    sections = {key for key, kind in settings().items() if kind.endswith("Section")}
    assert sections <= meanings().keys()
    for key in sections:
        section = type(attrgetter(key)(Config()))
        assert is_dataclass(section)
        assert " ".join(inspect.getdoc(section).split()).replace("``", "") == meanings()[key]


def test_docs_stand_before_their_setting_and_within_the_line():
    lines = to_yaml(Config(), docs=True).splitlines()
    assert max(map(len, lines)) <= 120
    at = lines.index("  reduction: 16")
    assert lines[at - 1] == "  # Channels over those in the bottleneck of rcab's attention."
    assert [line for line in lines if not line.lstrip().startswith("#")] == to_yaml(Config()).splitlines()


def test_differences_are_the_settings_that_differ():
    first, second = Config(), Config()
    assert differences(first, second) == {}
    second.Training.EMA.decay = 0.5
    second.Data.exclude = {"a.tif": [0, 0, 1, 1]}
    second.Training.max_steps = None
    assert differences(first, second) == {
        "Data.exclude": ({}, {"a.tif": [0, 0, 1, 1]}),
        "Training.max_steps": (10_000, None),
        "Training.EMA.decay": (0.999, 0.5),
    }
