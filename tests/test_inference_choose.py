import logging
from pathlib import Path

import numpy as np
import pytest

from geosr.demo import demo_scene
from geosr.errors import ModelError, UsageError
from geosr.inference import choose
from geosr.inference.choose import choose_model, fitting_models, refuse_variant, told
from geosr.io.scene import open_scene
from geosr.models import ModelSpec, WeightsFile, find_weights, shipped_models

RGBN = ("B02", "B03", "B04", "B08")
SWIR = ("B11", "B12")


@pytest.fixture
def shelf(monkeypatch):
    """Four models that nobody trained."""
    models = [
        WeightsFile(Path(f"{name}.safetensors"), ModelSpec(name, "compact", scale, bands, gsd=gsd))
        for name, scale, bands, gsd in (
            ("ten-x2", 2, RGBN, 10),
            ("ten-x4", 4, RGBN, 10),
            ("twenty-x2", 2, RGBN, 20),
            ("swir-x2", 2, SWIR, 20),
            ("any-x3", 3, ("B02",), None),
        )
    ]
    monkeypatch.setattr(choose, "shipped_models", lambda: models)


@pytest.fixture
def scene(make_raster):
    """A factory of scenes with these bands and pixels of this size in metres."""
    opened = []

    def make(bands=RGBN, pixel=10.0, **kwargs):
        from affine import Affine

        array = np.full((len(bands), 6, 8), 700, "uint16")
        transform = Affine(pixel, 0, 400_000, 0, -pixel, 5_000_000)
        descriptions = None if kwargs.pop("silent", False) else bands
        path = make_raster(array, scale=1e-4, descriptions=descriptions, transform=transform, **kwargs)
        opened.append(open_scene(path))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def names(models):
    return [weights.spec.name for weights in models]


@pytest.mark.parametrize(
    ("bands", "pixel", "expected"),
    [
        (RGBN, 10, ["ten-x4", "any-x3", "ten-x2", "twenty-x2"]),
        (RGBN, 10.2, ["ten-x4", "any-x3", "ten-x2", "twenty-x2"]),
        (RGBN, 20, ["any-x3", "twenty-x2", "ten-x4", "ten-x2"]),
        ((*SWIR, *RGBN), 20, ["any-x3", "swir-x2", "twenty-x2", "ten-x4", "ten-x2"]),
        (SWIR, 10, ["swir-x2"]),
        (("B12", "B11"), 20, ["swir-x2"]),
        (("B11",), 20, []),
    ],
)
@pytest.mark.usefixtures("shelf")
def test_the_models_whose_bands_are_there_come_nearest_resolution_first(scene, bands, pixel, expected):
    found = names(fitting_models(scene(bands, pixel)))
    assert sorted(found) == sorted(expected)
    if expected:
        one = scene(bands, pixel)
        assert choose_model(one).spec.name == found[0] == expected[0]


@pytest.mark.usefixtures("shelf")
def test_resolution_outweighs_scale_and_scale_decides_among_equals(scene):
    without_any = [name for name in names(fitting_models(scene(RGBN, 20))) if name != "any-x3"]
    assert without_any == ["twenty-x2", "ten-x4", "ten-x2"]


def test_the_demo_scene_gets_the_largest_scale():
    with open_scene(demo_scene()) as scene:
        assert set(names(fitting_models(scene))) == {w.spec.name for w in shipped_models() if not w.spec.guide}
        assert choose_model(scene).spec.scale == max(w.spec.scale for w in shipped_models())


@pytest.mark.usefixtures("shelf")
def test_a_scene_that_fits_nothing_is_told_what_would_fit(scene):
    with pytest.raises(ModelError) as caught:
        choose_model(scene(("B05", "B06")))
    assert "has 2 bands (B05 B06); no shipped model fits; there are, with the bands they need" in str(caught.value)
    assert "\n  swir-x2: B11 B12" in str(caught.value)
    assert "--bands" not in str(caught.value)


@pytest.mark.parametrize(("factor", "expected"), [(None, "ten-x4"), (2, "ten-x2"), (3, "any-x3"), (4, "ten-x4")])
@pytest.mark.usefixtures("shelf")
def test_a_factor_chooses_among_the_models_that_fit(scene, factor, expected):
    assert choose_model(scene(), factor=factor).spec.name == expected


@pytest.mark.usefixtures("shelf")
def test_a_factor_that_no_model_has_is_refused_with_those_that_there_are(scene):
    with pytest.raises(UsageError, match=r"no shipped model that fits scene\.tif has factor 8; .* of factor 2 3 4"):
        choose_model(scene(), factor=8)
    with pytest.raises(UsageError, match=r"no shipped model that fits scene\.tif has factor 4; .* of factor 2$"):
        choose_model(scene(SWIR, 20), factor=4)


@pytest.mark.parametrize(
    ("variant", "factor", "expected"),
    [
        (None, 2, "s2-rgbn-x2"), (None, 4, "s2-rgbn-x4"), ("fast", 2, "s2-rgbn-x2-fast"),
        ("fast", 4, "s2-rgbn-x4-fast"), ("detail", 4, "s2-rgbn-x4-gan"),
    ],
)  # fmt: skip
def test_factor_and_variant_choose_together_among_the_shipped_models(scene, variant, factor, expected):
    assert choose_model(scene(), variant=variant, factor=factor).spec.name == expected


def test_a_variant_without_the_factor_and_a_model_of_another_are_refused(scene):
    with pytest.raises(UsageError, match=r"variant 'detail' that fits scene\.tif has factor 2; .* of factor 4"):
        choose_model(scene(), variant="detail", factor=2)
    with pytest.raises(UsageError, match=r"'s2-rgbn-x2' makes pixels 2 times finer, and factor=4 is asked for"):
        choose_model(scene(), "s2-rgbn-x2", factor=4)
    assert choose_model(scene(), "s2-rgbn-x2", factor=2).spec.scale == 2


def test_the_factor_of_a_guided_model_counts_from_the_pixels_that_were_measured(scene):
    spec = find_weights("s2-20m-x2").spec
    assert (spec.scale, spec.factor) == (1, 2)
    assert choose_model(scene(spec.bands), "s2-20m-x2", factor=2).spec == spec


def test_bands_are_found_by_any_name(scene, monkeypatch):
    own = WeightsFile(Path("own.safetensors"), ModelSpec("own", "compact", 2, ("red", "nir")))
    monkeypatch.setattr(choose, "shipped_models", lambda: [own])
    assert choose_model(scene(("B8", "B4"))) is own


def test_a_scene_without_names_is_told_how_to_name_its_bands(scene):
    for wanted in (None, "s2-rgbn-x4"):
        with pytest.raises(ModelError, match=r"has 4 bands without names; .*(?s:.*)--bands B02,B03,B04,B08"):
            choose_model(scene(silent=True), wanted)


def test_a_wanted_model_must_find_its_bands(scene):
    with pytest.raises(ModelError, match=r"3 bands \(B02 B03 B04\); model 's2-rgbn-x2' needs B02 B03 B04 B08"):
        choose_model(scene(("B02", "B03", "B04")), "s2-rgbn-x2")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("s2-rgbn", r"'s2-rgbn' is unknown \(.*s2-rgbn-x4.*did you mean"),
        (Path("gone.safetensors"), r"gone\.safetensors does not exist"),
    ],
)
def test_a_wanted_model_must_exist(scene, wanted, message):
    with pytest.raises(ModelError, match=message):
        choose_model(scene(), wanted)


@pytest.fixture
def variants(monkeypatch):
    """Models of all variants, the others made for the scene's resolution and the standard ones not."""
    models = [
        WeightsFile(Path(name), ModelSpec(name, "compact", scale, RGBN, gsd=gsd, variant=variant))
        for name, scale, gsd, variant in (
            ("x2", 2, 20, "standard"),
            ("x2-fast", 2, 10, "fast"),
            ("x4-fast", 4, 10, "fast"),
            ("x4-gan", 4, 10, "detail"),
        )
    ]
    monkeypatch.setattr(choose, "shipped_models", lambda: models)


@pytest.mark.usefixtures("variants")
def test_a_variant_is_chosen_where_it_is_asked_for(scene):
    one = scene()
    assert [told(weights) for weights in fitting_models(one)] == [
        "x2",
        "x4-fast (fast)",
        "x4-gan (detail)",
        "x2-fast (fast)",
    ]
    assert names(fitting_models(one, variant="fast")) == ["x4-fast", "x2-fast"]
    chosen = [choose_model(one, variant=variant).spec.name for variant in (None, "standard", "fast", "detail")]
    assert chosen == ["x2", "x2", "x4-fast", "x4-gan"]


@pytest.mark.usefixtures("shelf")
def test_a_variant_that_there_is_not_is_told_what_there_is(scene):
    with pytest.raises(ModelError, match=r"no shipped model of the variant 'detail' fits; there are.*\n  ten-x2: B02"):
        choose_model(scene(), variant="detail")


@pytest.mark.parametrize(
    ("model", "variant", "message"),
    [
        (None, "fats", r"variant 'fats' is unknown \(standard fast detail\).*did you mean 'fast'"),
        ("s2-rgbn-x2", "fast", "chosen among the shipped models; leave it out, or the model"),
    ],
)
def test_a_variant_is_one_of_three_and_of_no_named_model(model, variant, message):
    refuse_variant(None, "fast")
    refuse_variant("s2-rgbn-x2", None)
    with pytest.raises(UsageError, match=message):
        refuse_variant(model, variant)


@pytest.mark.parametrize("wanted", ["s2-rgbn-x2", find_weights("s2-rgbn-x2").path], ids=["name", "path"])
def test_a_wanted_model_is_used_though_another_fits_better(scene, wanted):
    found = choose_model(scene(), wanted)
    assert wanted in (found.spec.name, found.path)


def test_a_model_made_for_quite_another_resolution_is_used_aloud(scene, caplog):
    with caplog.at_level(logging.WARNING, "geosr"):
        choose_model(scene(pixel=10), "s2-rgbn-x4")
        assert not caplog.text
        choose_model(scene(pixel=60), "s2-rgbn-x4")
    assert "has pixels of 60 m; model s2-rgbn-x4 was made for 10 m" in caplog.text


def test_a_scene_without_crs_is_compared_by_bands_alone(scene, caplog):
    one = scene(crs=None)
    caplog.clear()
    assert choose_model(one).spec.scale == max(w.spec.scale for w in shipped_models())
    assert not caplog.text
