import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.errors import ModelError
from geosr.models import ModelSpec

words = st.text(min_size=1, max_size=8)
names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
specs = st.builds(
    ModelSpec,
    name=names,
    architecture=names,
    scale=st.integers(1, 8),
    bands=st.lists(names, min_size=1, max_size=5, unique=True).map(tuple),
    arguments=st.dictionaries(words, plain, max_size=3),
    gsd=st.none() | st.floats(0.1, 100),
    consistency_mtf=st.none() | st.floats(0.1, 0.6),
    halo=st.none() | st.integers(0, 99),
    tiling=st.sampled_from(["exact", "approximate"]),
    multiple_of=st.integers(1, 8),
    variant=st.sampled_from(["standard", "fast", "detail"]),
    licence=names,
    provenance=st.dictionaries(words, plain, max_size=3),
    quality=st.dictionaries(words, st.floats(-9, 99), max_size=3),
    calibration=st.none() | st.dictionaries(words, plain, max_size=3),
)


@settings(max_examples=30)
@given(specs)
def test_a_specification_survives_json(spec):
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_bands_become_a_tuple():
    assert ModelSpec("m", "compact", 2, ["B02", "B03"]).bands == ("B02", "B03")


def test_a_key_that_this_version_does_not_know_is_refused():
    values = ModelSpec("m", "compact", 2, ("B02",)).to_dict() | {"temperature": 1, "colour": 2}
    with pytest.raises(ModelError, match=r"colour, temperature.*a newer geosr wrote them"):
        ModelSpec.from_dict(values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": 0}, "scale 0"),
        ({"scale": True}, "scale True; allowed is a whole number from 1 to 64"),
        ({"scale": 2.0}, r"scale 2\.0"),
        ({"scale": 100_000}, "scale 100000"),
        ({"bands": ()}, "allowed is 1 to 1000 names"),
        ({"bands": ("B02", "B02")}, "each of them once"),
        ({"bands": "B02"}, "bands 'B02'"),
        ({"bands": (("B02",),)}, "bands"),
        ({"bands": [f"b{number}" for number in range(100_000)]}, "1 to 1000 names"),
        ({"name": None}, "name None"),
        ({"name": ""}, "1 to 1000 letters"),
        ({"name": "a\x1b[31m"}, r"name 'a\\x1b\[31m'; allowed is text .* without control characters"),
        ({"name": "a\nb"}, "without control characters"),
        ({"name": "a" * 2000}, "1 to 1000 letters"),
        ({"bands": ("B\x07",)}, "bands"),
        ({"architecture": ["compact"]}, "architecture"),
        ({"licence": "a\u202eb"}, "licence"),
        ({"arguments": []}, "table of plain values"),
        ({"arguments": {"a": {1: 2}}}, "table of plain values"),
        ({"arguments": {"mean": [0.1, 0.2]}}, r"mean \[0\.1, 0\.2\]; .* each of its 1 bands"),
        ({"arguments": {"mean": [float("nan")]}}, "finite number for each"),
        ({"arguments": {"std": [0]}}, "std .*above 0"),
        ({"arguments": {"std": [float("inf")]}}, "finite number for each"),
        ({"gsd": -1}, "gsd -1"),
        ({"gsd": "x"}, "gsd 'x'; allowed is a number of metres above 0"),
        ({"gsd": float("nan")}, "gsd nan"),
        ({"guide": 3}, "guide 3"),
        ({"guide_scale": 0}, "guide_scale 0"),
        ({"bands": ("a", "b"), "guide": ("a",), "guide_scale": 33, "scale": 2}, "product is at most 64"),
        ({"bands": [f"b{number}" for number in range(1000)], "scale": 5}, "square times the bands at most 16,384"),
        ({"consistency_mtf": 0}, "consistency_mtf 0"),
        ({"consistency_mtf": 0.7}, r"consistency_mtf 0\.7; allowed is a contrast"),
        ({"halo": "x"}, "halo 'x'"),
        ({"halo": -1}, "halo -1"),
        ({"multiple_of": 0}, "multiple_of 0"),
        ({"variant": "quick"}, "'quick'; allowed is standard fast detail"),
        ({"variant": []}, "variant"),
        ({"tiling": "blended"}, "'blended'; allowed is 'exact' and 'approximate'"),
        ({"tiling": {}}, "tiling"),
        ({"provenance": "x"}, "provenance 'x'"),
        ({"quality": None}, "quality None"),
        ({"calibration": 7}, "calibration 7"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(change, told):
    values = {"name": "m", "architecture": "compact", "scale": 2, "bands": ("B02",)} | change
    with pytest.raises(ModelError, match=told):
        ModelSpec(**values)


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [40, 900])
def test_values_are_nested_only_as_deep_as_something_needs(depth):
    with pytest.raises(ModelError, match="nested at most 32 deep"):
        ModelSpec("m", "compact", 2, ("B02",), provenance=nested(depth))


def test_lists_that_hold_one_list_many_times_are_refused_at_once():
    value = ["x"] * 10
    for _ in range(20):
        value = [value] * 10
    with pytest.raises(ModelError, match="table of plain values"):
        ModelSpec("m", "compact", 2, ("B02",), provenance={"config": value})


def test_json_that_is_deeper_than_python_s_stack_is_a_damaged_specification(tmp_path):
    text = '{"a":' * 100_000 + "1" + "}" * 100_000
    with pytest.raises(ModelError, match=r"m\.safetensors has a damaged geosr specification"):
        ModelSpec.from_metadata({"geosr": text}, tmp_path / "m.safetensors")


def test_an_unknown_key_is_shown_without_its_control_characters():
    values = ModelSpec("m", "compact", 2, ("B02",)).to_dict() | {"colour\x1b[31m": 1}
    with pytest.raises(ModelError, match="the weights say colour\ufffd"):
        ModelSpec.from_dict(values)
