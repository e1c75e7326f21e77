"""Values that cannot be reflectance are asked about, with the setting to give; what a surface reflects is not."""

import pickle

import numpy as np
import pytest

from geosr.errors import RadiometryError
from geosr.io.claims import Claims
from geosr.io.plausibility import Plausibility
from geosr.io.scene import open_scene
from geosr.radiometry import Radiometry

DN = np.random.default_rng(0).integers(300, 4001, (2, 40, 50)).astype("uint16")
REFLECTANCE = (DN * 1e-4).astype("float32")
BANDS = ("B02", "B03")


def filled(array, value, *, rows=4):
    """The image with some pixels of a value from row 5, column 7 on."""
    array = array.copy()
    array[:, 5 : 5 + rows, 7:11] = value
    return array


def refusal(path, **reading):
    with open_scene(path, **reading) as scene, pytest.raises(RadiometryError) as caught:
        scene.read()
    return str(caught.value)


# Fill values that nothing marks


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (-9999, "-9999"),
        (-999, "-999"),
        (-99, "-99"),
        (-32768, "-32768"),
        (9999, "9999"),
        (65535, "65535"),
        (1e20, "1e+20"),
        (9.96921e36, "9.96921e+36"),
        (-3.4028234663852886e38, "-3.4028235e+38"),
    ],
)
def test_a_fill_value_that_nothing_marks_is_refused_until_it_is_given(make_raster, value, spelt, rows):
    path = make_raster(filled(REFLECTANCE, value, rows=rows), descriptions=BANDS)
    told = refusal(path)
    assert told.startswith(f"scene.tif holds {spelt} (band B02, row 5, column 7), a reflectance of ")
    assert f"give nodata={spelt}, or tag the data: gdal_edit.py -a_nodata {spelt} FILE" in told
    with open_scene(path, nodata=float(spelt)) as scene:
        raster = scene.read()
        assert (~raster.valid).sum() == rows * 4
        np.testing.assert_array_equal(raster.array[:, raster.valid], REFLECTANCE[:, raster.valid])


@pytest.mark.parametrize(("value", "offset"), [(-9999, 0), (-9999, -0.1), (-32768, 0)])
def test_a_fill_value_of_integers_is_refused_until_it_is_given(make_raster, value, offset):
    path = make_raster(filled(DN.astype("int16"), value), scale=1e-4, offset=offset, descriptions=BANDS)
    assert f"give nodata={value}" in refusal(path)
    with open_scene(path, nodata=value) as scene:
        assert (~scene.read().valid).sum() == 16


def test_where_another_value_is_nodata_the_message_says_so(make_raster):
    path = make_raster(filled(DN.astype("int16"), -9999), scale=1e-4, nodata=0)
    assert "give those pixels the nodata of the data, 0, or correct that: gdal_edit.py -a_nodata -9999" in refusal(path)


@pytest.mark.parametrize("doors", ["read", "read_masked"])
def test_a_single_fill_value_that_a_sample_misses_is_refused_where_it_is_read(make_raster, doors):
    image = np.full((1, 1100, 1030), 0.2, "float32")
    image[0, 901, 1027] = -9999
    with open_scene(make_raster(image, descriptions=["B04"])) as scene:
        assert min(values.min() for values in scene.sample.values()) == np.float32(0.2)
        assert scene.radiometry.scale == 1
        assert getattr(scene, doors)((slice(0, 901), slice(0, 1030)))
        with pytest.raises(RadiometryError, match=r"holds -9999 \(band B04, row 901, column 1027\)"):
            getattr(scene, doors)((slice(890, 1000), slice(1000, 1030)))


def test_nothing_is_published_of_a_scene_with_a_fill_value(make_raster, geosr, tmp_path, small_weights):
    image = np.full((4, 600, 530), 0.2, "float32")
    image[2, 501, 503] = -9999
    path = make_raster(image, descriptions=["B02", "B03", "B04", "B08"])
    code, _, said = geosr("predict", path, "--out", tmp_path / "sr.tif", "--model", small_weights, "--tile", 256)
    assert (code, "give nodata=-9999" in said) == (1, True)
    assert not (tmp_path / "sr.tif").exists()


def test_what_a_mask_leaves_out_is_not_asked_about(make_raster):
    import rasterio

    path = make_raster(filled(REFLECTANCE, -9999), descriptions=BANDS)
    with rasterio.open(path, "r+") as file:
        file.write_mask(filled(np.full((1, 40, 50), 255, "uint8"), 0)[0])
    with open_scene(path) as scene:
        assert (~scene.read().valid).sum() == 16


# Values of surfaces


@pytest.mark.parametrize(
    ("array", "tags"),
    [
        (filled(DN, 65535), {"scale": 1e-4, "offset": -0.1}),
        (filled(DN.astype("int16"), -300), {"scale": 1e-4}),
        (filled(DN.astype("int16"), -1000), {"scale": 1e-4}),
        (filled(REFLECTANCE, 3.5), {}),
        (filled(REFLECTANCE, -0.08), {}),
        (filled(REFLECTANCE, np.nan), {}),
        (filled(REFLECTANCE, np.inf), {}),
        (REFLECTANCE * np.float32(3), {}),
        (filled(REFLECTANCE, 0, rows=33), {}),
        (DN.astype("float32"), {"scale": 1e-4}),
        (DN // 20, {"scale": 1 / 255}),
        (np.zeros((1, 4, 4), "float32"), {}),
        (DN // 900, {"scale": 1e-4}),
    ],
)
def test_what_surfaces_reflect_is_read(make_raster, array, tags):
    with open_scene(make_raster(array, **tags)) as scene:
        raster = scene.read()
    expected = array.astype(float) * tags.get("scale", 1) + tags.get("offset", 0)
    np.testing.assert_allclose(raster.array[:, raster.valid], expected[:, raster.valid], atol=1e-6)
    np.testing.assert_array_equal(raster.valid, np.isfinite(array).all(axis=0))


# Units


@pytest.mark.parametrize("zeros", [0, 0.4, 0.8, 0.99])
@pytest.mark.parametrize("unit", [1, 1e-2])
def test_numbers_stored_as_float_are_refused_however_many_zeros_are_among_them(make_raster, zeros, unit):
    array = (DN * np.float32(unit)).reshape(2, -1)
    array[:, : int(zeros * array.shape[1])] = 0
    told = refusal(make_raster(array.reshape(DN.shape)))
    assert told.startswith("scene.tif holds float32 values with a median of ")
    assert "--scale 1e-4" in told


def test_the_bright_end_of_a_dark_image_tells_percent(make_raster):
    told = refusal(make_raster(DN * np.float32(1e-3)))  # 0.3 to 4 percent, with a median near 2
    assert "says nothing about their unit" in told
    told = refusal(make_raster(DN * np.float32(7e-4)))
    assert "values of which 2 of 100 that are not 0 lie above 2.7" in told


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("array", [DN, REFLECTANCE], ids=["uint16", "float32"])
def test_the_factor_of_the_model_is_no_scale(make_raster, array, scale):
    told = refusal(make_raster(array), scale=scale)
    assert told.startswith(f"scene.tif: scale={scale} is reflectance per digital number")
    assert told.endswith("choose it with factor=2 or factor=4")


@pytest.mark.parametrize(
    ("array", "scale", "why"),
    [
        (DN, 1, r"median of \d+; scale 1 \(flag --scale\) makes that a reflectance of \d+, where surfaces stay near 1"),
        (DN, 0.01, r"makes that a reflectance of 2\d\."),
        (DN.astype("float32"), 1, "where surfaces stay near 1"),
        (DN, 1e-6, r"makes a reflectance of 0\.004 at most, darker than any image; give another scale and offset"),
        (DN, 1e-9, "makes a reflectance of 4e-06 at most"),
        (REFLECTANCE, 1e-4, r"up to 0\.39\d?, which look like reflectance already"),
    ],
)
def test_a_scale_that_makes_values_implausible_is_refused(make_raster, array, scale, why):
    with open_scene(make_raster(array), scale=scale) as scene, pytest.raises(RadiometryError, match=why):
        scene.read()


@pytest.mark.parametrize(
    ("array", "tags", "why"),
    [
        (DN, {"scale": 1e-9}, r"at most, darker than any image; correct a wrongly tagged file: gdal_edit\.py"),
        (DN, {"scale": 0.01}, "where surfaces stay near 1; correct a wrongly tagged file"),
        (REFLECTANCE, {"scale": 1e-4, "offset": -0.1}, r"Values that are reflectance already: scale=1, offset=-0\.1"),
    ],
)
def test_tags_that_make_values_implausible_are_refused(make_raster, array, tags, why):
    with open_scene(make_raster(array, **tags)) as scene, pytest.raises(RadiometryError, match=why):
        scene.read()


def test_the_error_of_a_band_may_be_small(make_raster):
    small = np.full((1, 9, 9), 5e-5, "float32")
    with open_scene(make_raster(small, descriptions=["B02_error"])) as scene:
        assert scene.read().array.max() == np.float32(5e-5)
    assert "as if they had been scaled twice" in refusal(make_raster(small, descriptions=["B02"]))


def test_arrays_are_asked_in_their_own_words():
    radiometry = Radiometry(1e-4, -0.1, nodata=0, dtype="float32")
    said = {"scale": "attributes", "offset": "attributes"}
    asked = pickle.loads(pickle.dumps(Plausibility("cube", radiometry, said, False, frozenset())))
    valid = np.ones(DN.shape[1:], bool)
    asked.require(DN.astype("float32") + 1000, valid)
    with pytest.raises(RadiometryError, match="drop or correct scale_factor and add_offset in the attributes"):
        asked.require(REFLECTANCE, valid)
    with pytest.raises(RadiometryError, match="darker than black, as if an offset had been subtracted already"):
        asked.require(DN.astype("float32"), valid)
    with pytest.raises(RadiometryError, match="state what the values are"):
        asked.require(DN.astype("float32") * 100, valid)
    with pytest.raises(RadiometryError, match=r"holds -99999, a reflectance .* nodata of the data, 0, or .*_FillValue"):
        asked.require(filled(DN.astype("float32") + 1000, -99999), valid, step=None)
    asked.require(filled(DN.astype("float32") + 1000, -99999), filled(valid[None], False)[0])


def test_silence_is_told_in_the_words_of_the_caller():
    asked = Plausibility(
        "cube", Radiometry(1.0, dtype="float32"), {}, True, frozenset(), claims=Claims(form="argument")
    )
    with pytest.raises(RadiometryError, match=r"cube holds float32 values with a median of .*\n.* scale=1e-4, offset="):
        asked.require(DN.astype("float32"), np.ones(DN.shape[1:], bool))
