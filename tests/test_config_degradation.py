import math
from dataclasses import fields
from operator import attrgetter

import pytest

from geosr.config import Config, check, load_config
from geosr.config.degradation import PRESETS, RULES, DegradationSection, HighOrderSection, SensorSection
from geosr.config.schema import settings
from geosr.errors import ConfigError

PAIR = [[], [1.0], [2.0, 1.0], [1.0, 2.0, 3.0], [-1.0, 2.0], [1.0, math.nan]]
SHARE = [-0.1, 1.1, math.nan]
ROUND = {
    "blur_kernel_size": [5, 8, 0],
    "kernel_list": [[], ["isso"], ["iso", "sinc"]],
    "kernel_prob": [[], [0.5, 0.6], [1.5, -0.5]],
    "sinc_prob": SHARE,
    "blur_sigma": [*PAIR, [0.0, 1.0]],
    "betag_range": PAIR,
    "betap_range": PAIR,
    "resize_prob": [[0.5, 0.5], [0.2, 0.2, 0.2], [1.2, -0.1, -0.1]],
    "resize_range": [*PAIR, [0.0, 1.0]],
    "gaussian_noise_prob": SHARE,
    "noise_range": PAIR,
    "poisson_scale_range": PAIR,
    "gray_noise_prob": SHARE,
    "compression": ["jpg", ""],
    "jpeg_range": [*PAIR, [0.0, 50.0], [50.0, 101.0]],
    "jpeg2000_range": [*PAIR, [0.5, 2.0]],
}
WRONG = {
    "queue_size": [-1],
    "type": ["sensr", "", "Sensor"],
    "sensor.mtf": [0.0, -0.3, 2 / math.pi, 1.0, math.nan],
    "sensor.mtf_jitter": [-0.1, 0.6, math.nan],
    "sensor.shift": [-0.1, 9.0, math.inf],
    "sensor.misregistration": [-0.1, 9.0, math.nan],
    "sensor.snr": [0.0, -3.0, math.inf],
    "sensor.shot_share": SHARE,
    "sensor.noise_gain": PAIR,
    "high_order.preset": ["realesrgan", ""],
    "high_order.white": [0.0, -1.0, math.nan],
    "high_order.second_blur_prob": SHARE,
    "high_order.final_sinc_prob": SHARE,
    **{f"high_order.{key}{which}": values for which in ("", "2") for key, values in ROUND.items()},
    "steps": [[{"sigma": 3}], [{"step": 3}], [{"step": "blur"}, {}]],
}
"""Values that are not allowed, by key within the section."""

FILE = """
Degradation:
  type: high_order
  sensor: {mtf: 0.3, noise_gain: [1, 2]}
  high_order: {preset: real-esrgan, resize_range: [0.5, 1.5], kernel_list2: [iso], kernel_prob2: [1]}
  steps:
    - {step: blur, sigma: [0.5, 2]}
    - {step: downsample}
"""


def test_every_rule_is_tried():
    assert WRONG.keys() == RULES.keys()


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=str)
def test_what_is_not_allowed_is_refused_with_key_value_and_what_is(key, value):
    config = Config()
    section, _, word = f"Degradation.{key}".rpartition(".")
    setattr(attrgetter(section)(config), word, value)
    with pytest.raises(ConfigError) as error:
        check(config)
    assert str(error.value).startswith(f"Degradation.{key} is {value!r}; allowed is {RULES[key].allowed}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", [SensorSection, HighOrderSection])
def test_every_number_and_list_has_a_rule(section):
    name = {SensorSection: "sensor", HighOrderSection: "high_order"}[section]
    checked = {f"{name}.{entry.name}" for entry in fields(section) if entry.type not in (bool, bool | None)}
    assert checked <= RULES.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_preset_are_allowed(preset):
    section = HighOrderSection(preset=preset, **PRESETS[preset])
    assert check(Config(Degradation=DegradationSection(high_order=section)))


def test_a_file_sets_every_kind(tmp_path):
    (tmp_path / "mine.yaml").write_text(FILE)
    section = load_config(tmp_path / "mine.yaml").Degradation
    assert section.type == "high_order"
    assert section.sensor == SensorSection(mtf=0.3, noise_gain=[1.0, 2.0])
    assert section.high_order.resize_range == [0.5, 1.5]
    assert section.high_order.kernel_list2 == ["iso"]
    assert section.high_order.noise_range is None
    assert section.steps == [{"step": "blur", "sigma": [0.5, 2]}, {"step": "downsample"}]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("Degradation.sensor.mtff=0.3", r"did you mean 'Degradation\.sensor\.mtf'\?"),
        ("Degradation.high_order.resize_rang=[1,2]", r"did you mean 'Degradation\.high_order\.resize_range2?'\?"),
        ("Degradation.type=high", r"Degradation\.type is 'high'; allowed is one of sensor, high_order, steps"),
        ("Degradation.high_order.preset=realesrgan", r"did you mean 'real-esrgan'\?"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(override, told):
    with pytest.raises(ConfigError, match=told):
        load_config("config_20m.yaml", [override])


def test_every_key_of_a_round_exists_twice():
    keys = {key for key in settings() if key.startswith("Degradation.high_order.") and key.endswith("2")}
    assert {key[:-1] for key in keys} <= settings().keys()
    assert len(keys) == len(ROUND)


def test_two_sections_share_nothing():
    first, second = DegradationSection(), DegradationSection()
    first.sensor.noise_gain.append(3)
    first.steps.append({"step": "blur"})
    assert second == DegradationSection()


@pytest.mark.parametrize("key", ["mtf", "snr"])
def test_null_takes_the_bands_own(key):
    assert getattr(load_config("config_20m.yaml", [f"Degradation.sensor.{key}=null"]).Degradation.sensor, key) is None
