import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.errors import ModelError
from geosr.models import ModelSpec

words = st.text(min_size=1, max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
specs = st.builds(
    ModelSpec,
    name=words,
    architecture=words,
    scale=st.integers(1, 8),
    bands=st.lists(words, min_size=1, max_size=5).map(tuple),
    arguments=st.dictionaries(words, plain, max_size=3),
    gsd=st.none() | st.floats(0.1, 100),
    consistency_mtf=st.none() | st.floats(0.1, 0.6),
    halo=st.none() | st.integers(0, 99),
    tiling=st.sampled_from(["exact", "approximate"]),
    multiple_of=st.integers(1, 8),
    variant=st.sampled_from(["standard", "fast", "detail"]),
    licence=words,
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
        ({"bands": ()}, "and a band"),
        ({"variant": "quick"}, "'quick'; allowed are standard fast detail"),
        ({"tiling": "blended"}, "'blended'; allowed are 'exact' and 'approximate'"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(change, told):
    values = {"name": "m", "architecture": "compact", "scale": 2, "bands": ("B02",)} | change
    with pytest.raises(ModelError, match=told):
        ModelSpec(**values)
