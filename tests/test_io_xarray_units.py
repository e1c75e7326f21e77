import warnings

import numpy as np
import pytest
import rioxarray
import xarray as xr

from geosr.errors import RadiometryError, UsageError
from geosr.inference import SuperResolver
from geosr.io.claims import Claims
from geosr.io.scene import open_scene
from geosr.io.xarray import describe
from geosr.testing import impulse_model

GRID = {"y": [30.0, 20.0, 10.0], "x": [0.0, 10.0, 20.0, 30.0]}


def units(dtype, attrs=None, encoding=None, coords=None, **claims):
    array = xr.DataArray(
        np.ones((2, 3, 4), dtype), GRID | {"band": ["B02", "B03"]} | (coords or {}), ("band", "y", "x")
    )
    array.attrs, array.encoding = attrs or {}, encoding or {}
    return describe(array, claims=Claims(form="argument", **claims)).units


def facts(found):
    return found.values.scale, found.values.offset, found.values.nodata, found.values.dtype


DN = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}


def test_attributes_speak_of_values_as_they_are_stored():
    found = units("uint16", DN)
    assert facts(found) == (1e-4, -0.1, 0, "uint16")
    assert (found.state, found.stored, found.assumed) == ("raw", None, False)
    assert facts(units("float32", {"scale_factor": 0.01, "_FillValue": -1.0})) == (0.01, 0, -1, "float32")


def test_an_encoding_speaks_of_values_that_were():
    found = units("float32", {}, DN | {"dtype": np.dtype("uint16")})
    assert found.values.scale == 1
    assert np.isnan(found.values.nodata)
    assert (found.state, found.assumed) == ("decoded", False)
    assert (found.stored.scale, found.stored.offset, found.stored.nodata) == (1e-4, -0.1, 0)
    assert found.stored.dtype == "uint16"


def test_values_may_be_masked_and_yet_unscaled():
    found = units("float32", {"scale_factor": 1e-4, "add_offset": 0.0}, {"_FillValue": 0.0, "dtype": "uint16"})
    assert found.state == "masked"
    assert found.values.scale == 1e-4
    assert np.isnan(found.values.nodata)
    assert (found.stored.scale, found.stored.nodata) == (1, 0)


@pytest.mark.parametrize("encoding", [{"_FillValue": 0.0, "dtype": "uint16"}, {"_FillValue": 0.0, "dtype": "int16"}])
def test_masked_integers_without_scale_are_silent_too(encoding):
    with pytest.raises(RadiometryError, match="the DataArray holds float32 values and says nothing about their unit"):
        units("float32", {}, encoding)
    assert units("float32", {}, encoding, scale=1e-4).values.scale == 1e-4


def test_integers_without_scale_ask_for_it():
    with pytest.raises(RadiometryError) as caught:
        units("uint16")
    assert "the DataArray holds uint16 values and says nothing about their unit" in str(caught.value)
    assert "scale=1e-4, offset=-0.1, nodata=0" in str(caught.value)
    found = units("uint16", scale=1e-4, offset=-0.1, nodata=0)
    assert facts(found) == (1e-4, -0.1, 0, "uint16")
    assert found.said["scale"] == "argument scale="
    sentinel = units("uint16", sensor="sentinel-2-l2a", baseline="05.09")
    assert (*facts(sentinel), sentinel.values.saturated) == (1e-4, -0.1, 0, "uint16", 65535)
    with pytest.raises(UsageError, match=r"baseline=05\.09 says nothing without sensor="):
        units("uint16", baseline="05.09")


def test_floats_without_a_word_are_only_assumed_to_be_reflectance():
    found = units("float32")
    assert found.assumed
    assert found.values.scale == 1
    assert not units("float32", scale=1).assumed


def test_a_contradiction_is_an_error():
    with pytest.raises(RadiometryError, match=r"scale 0.0001 \(encoding\) and argument scale= says 0.01"):
        units("float32", {}, DN | {"dtype": "uint16"}, scale=0.01)


def test_nodata_of_odc_stac_is_heard():
    assert units("uint16", {"nodata": 0}, scale=1e-4).values.nodata == 0


def test_saturated_pixels_stay_known_when_they_are_decoded():
    flags = {"flag_values": [65535], "flag_meanings": "saturated"}
    raw = xr.Dataset({"r": (("band", "y", "x"), np.uint16([[[1000, 65535, 0]], [[2000, 2000, 2000]]]), DN | flags)})
    raw = raw.assign_coords(y=[1.0], x=[0.0, 1.0, 2.0], band=["B02", "B03"])
    raw.coords["spatial_ref"] = ((), 0, {"GeoTransform": "-0.5 1 0 1.5 0 -1"})
    for one in (raw, xr.decode_cf(raw)):
        values = describe(one)
        assert values.units.values.valid(values.pixels()).tolist() == [[True, False, False]]


def raster_bands(**words):
    described = np.empty(2, object)
    described[:] = [{"nodata": 0, "scale": 1e-4, "offset": -0.1, **words}] * 2
    return {"raster:bands": ("band", described)}


def test_stac_speaks_of_integers():
    assert facts(units("uint16", coords=raster_bands())) == (1e-4, -0.1, 0, "uint16")
    assert units("float64", coords=raster_bands()).assumed  # stackstac may have scaled them, or not


def test_an_offset_that_earth_search_has_applied_already_is_not_believed():
    applied = {"earthsearch:boa_offset_applied": True}
    with pytest.raises(RadiometryError, match="says nothing about their unit"):
        units("uint16", coords=raster_bands() | applied)
    assert facts(units("uint16", coords=raster_bands() | applied, scale=1e-4, nodata=0))[1] == 0


def test_bands_that_are_stored_differently_are_refused():
    one = xr.DataArray(np.ones((3, 4), "uint16"), GRID, ("y", "x"), attrs=DN)
    mixed = xr.Dataset({"B02": one, "B03": one.astype("float32")})
    with pytest.raises(RadiometryError, match="stored differently"):
        _ = describe(mixed).units
    with pytest.raises(RadiometryError, match="different offset"):
        _ = describe(xr.Dataset({"B02": one, "B03": one.assign_attrs(add_offset=0.0)})).units


def test_words_are_no_reflectance():
    array = xr.DataArray(np.full((3, 4), "a"), GRID, ("y", "x"), name="B02")
    with pytest.raises(RadiometryError, match="needs an integer or a float type"):
        _ = describe(array).units


READERS = [{}, {"masked": True}, {"mask_and_scale": True}, {"band_as_variable": True}, {"chunks": True}]
STORED = np.arange(1010, 1010 + 4 * 8 * 8 * 10, 10).reshape(4, 8, 8).astype("uint16")
BANDS = ("B02", "B03", "B04", "B08")


def reflectance(obj, **claims):
    """Reflectance as the accessor has it, with bands along the first axis."""
    found = obj.geosr.reflectance(**claims)
    return (found.to_array("variable") if isinstance(found, xr.Dataset) else found).values


@pytest.fixture
def open_raster(make_raster):
    def open_raster(reader, **tags):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rioxarray says that scales differ
            path = make_raster(tags.pop("array", STORED), descriptions=BANDS, **tags)
            return rioxarray.open_rasterio(path, **reader)

    return open_raster


@pytest.mark.parametrize("nodata", [0, None])
@pytest.mark.parametrize("reader", [*READERS, {"band_as_variable": True, "mask_and_scale": True}], ids=str)
def test_the_scale_of_1_that_rioxarray_writes_of_every_file_says_nothing(open_raster, reader, nodata):
    found = open_raster(reader, nodata=nodata)
    with pytest.raises(RadiometryError, match="says nothing about their unit"):
        found.geosr.reflectance()
    assert "says nothing about their unit" in found.geosr.info().facts["units"]
    np.testing.assert_allclose(reflectance(found, scale=1e-4), STORED * 1e-4, atol=1e-7)
    sentinel = reflectance(found, sensor="sentinel-2-l2a", baseline="05.09")
    np.testing.assert_allclose(sentinel, STORED * 1e-4 - 0.1, atol=1e-7)


@pytest.fixture(scope="module")
def resolver():
    return SuperResolver(impulse_model(2, 3), device="cpu", precision="fp32")


def as_reflectance(values):
    """Reflectance that says nothing else of itself."""
    return xr.DataArray(np.float32(values), {"band": [*BANDS], "y": -10.0 * np.arange(8), "x": 10.0 * np.arange(8)})


@pytest.mark.parametrize("reader", READERS[:3], ids=str)
def test_a_result_says_the_unit_that_the_user_has_said(open_raster, resolver, reader):
    sr = open_raster(reader, nodata=0).geosr.superresolve(resolver, scale=1e-4, offset=-0.05)
    expected = as_reflectance(STORED * 1e-4 - 0.05).geosr.superresolve(resolver)
    np.testing.assert_allclose(reflectance(sr), np.maximum(expected, -0.0499), atol=6e-5)
    assert sr.geosr.info().facts["scale"] == "0.0001 (attributes)"


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_floats_that_rioxarray_gives_a_scale_of_1_are_looked_at(open_raster, reader):
    with pytest.raises(RadiometryError, match="says nothing about their unit"):
        reflectance(open_raster(reader, array=STORED.astype("float32")))
    np.testing.assert_allclose(reflectance(open_raster(reader, array=np.float32(STORED * 1e-4))), STORED * 1e-4)


@pytest.mark.parametrize("reader", [{}, {"mask_and_scale": True}], ids=str)
def test_zarr_stores_of_what_rioxarray_read_say_no_more(open_raster, tmp_path, reader):
    found = open_raster(reader, nodata=0).to_dataset(name="scene")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.to_zarr(tmp_path / "scene.zarr", zarr_format=2)
    for masked in (True, False):
        again = xr.open_zarr(tmp_path / "scene.zarr", mask_and_scale=masked, decode_coords="all")
        with pytest.raises(RadiometryError, match="says nothing about their unit"):
            again.geosr.reflectance()
        np.testing.assert_allclose(reflectance(again, scale=1e-4)[0], STORED * 1e-4, atol=1e-7)
    with open_scene(tmp_path / "scene.zarr") as scene, pytest.raises(RadiometryError, match="says nothing"):
        _ = scene.radiometry


DIFFERING = [
    {"scale": 1e-4, "offset": [-0.1, -0.1, -0.1, 0.0]},
    {"scale": [1e-4, 1e-4, 1e-4, 2e-4], "offset": 0.0},
    {"scale": [1e-4, 1e-4, 1e-4, 2e-4], "offset": [-0.1, -0.1, -0.1, 0.0]},
]


@pytest.mark.parametrize("tags", DIFFERING, ids=["offsets", "scales", "both"])
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_a_scale_or_offset_of_each_band_is_heard(open_raster, reader, tags):
    scale, offset = (np.broadcast_to(tags[key], 4).reshape(4, 1, 1) for key in ("scale", "offset"))
    expected = STORED * scale + offset
    found = open_raster(reader, nodata=0, **tags)
    if "mask_and_scale" in reader:
        np.testing.assert_allclose(reflectance(found), expected, atol=1e-6)
        return
    differs = "scale" if np.ndim(tags["scale"]) else "offset"
    with pytest.raises(RadiometryError, match=rf"different {differs} \((?s:.*)B08: (0|0.0002) \(attributes\)"):
        found.geosr.reflectance()
    alike = found[["band_3", "band_1"]] if isinstance(found, xr.Dataset) else found.isel(band=[2, 0])
    np.testing.assert_allclose(reflectance(alike), expected[[2, 0]], atol=1e-6)
    alone = found[["band_4"]] if isinstance(found, xr.Dataset) else found.isel(band=[3])
    np.testing.assert_allclose(reflectance(alone), expected[[3]], atol=1e-6)


def test_bands_of_differing_encodings_become_reflectance(open_raster, resolver):
    found = open_raster({"mask_and_scale": True}, nodata=0, **DIFFERING[2])
    sr = found.geosr.superresolve(resolver)
    assert not {"scales", "offsets", "scale_factor", "add_offset", "dtype"} & {*sr.encoding, *sr.attrs}
    np.testing.assert_allclose(sr, as_reflectance(found.values).geosr.superresolve(resolver), atol=1e-6)


def test_whose_entry_of_a_list_it_is_must_be_known(open_raster):
    found = open_raster({}, nodata=0, **DIFFERING[0])
    np.testing.assert_allclose(
        reflectance(found.assign_coords(band=[*BANDS]).sel(band=["B04", "B03"])), STORED[[2, 1]] * 1e-4 - 0.1, atol=1e-6
    )
    strange = found.assign_coords(band=["blue", "green", "red", "nir"]).isel(band=[3, 1])
    with pytest.raises(RadiometryError, match=r"offsets \(-0.1, -0.1, -0.1, 0.0\).*neither a number nor a list"):
        strange.geosr.reflectance()


KEPT = {
    "times": lambda da: da * 1e-4,
    "divided": lambda da: da / 10000,
    "less an offset": lambda da: (da.astype("float64") - 700) * 1e-4,
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("calculate", KEPT)
@pytest.mark.parametrize("reader", [{}, {"masked": True}, {"band_as_variable": True}], ids=str)
def test_attributes_that_arithmetic_kept_are_asked_about(open_raster, resolver, reader, calculate, lazy):
    stored = open_raster(reader, nodata=0, scale=1e-4)
    with xr.set_options(keep_attrs=True):  # the default since xarray 2025.11
        kept = KEPT[calculate](stored)
    kept = kept.chunk() if lazy else kept
    with pytest.raises(RadiometryError, match=r"look like reflectance already; scale 0.0001 \(attributes\)"):
        kept.geosr.reflectance().compute()
    with pytest.raises(RadiometryError, match="reflectance already: scale=1"):
        kept.geosr.superresolve(resolver).compute()
    values = (kept.to_array("variable") if isinstance(kept, xr.Dataset) else kept).values
    np.testing.assert_allclose(reflectance(kept, scale=1), values, rtol=1e-6)
    sr = kept.geosr.superresolve(resolver, scale=1)
    np.testing.assert_allclose(reflectance(sr), as_reflectance(values).geosr.superresolve(resolver), atol=1e-6)


def test_values_that_were_scaled_twice_are_asked_about(open_raster):
    twice = open_raster({"mask_and_scale": True}, scale=1e-4, nodata=0) * 1e-4
    with pytest.raises(RadiometryError, match="as if they had been scaled twice"):
        twice.geosr.reflectance()
    np.testing.assert_allclose(reflectance(twice, scale=1e4), STORED * 1e-4, rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
def test_an_offset_that_was_added_twice_is_asked_about(open_raster, lazy):
    stored = open_raster({}, scale=1e-4, offset=-0.1, nodata=0)
    with xr.set_options(keep_attrs=True):
        twice = stored.astype("int32") - 1000
    twice = twice.chunk() if lazy else twice
    with pytest.raises(RadiometryError, match="darker than black"):
        twice.geosr.reflectance().compute()
    np.testing.assert_allclose(reflectance(twice, offset=-0.1), STORED * 1e-4 - 0.2, atol=1e-6)


def test_a_fill_value_that_nothing_marks_is_asked_about():
    values = np.full((2, 3, 4), 0.2, "float32")
    values[:, 1, 1] = -9999
    array = xr.DataArray(values, GRID | {"band": ["B02", "B03"]}, ("band", "y", "x"))
    with pytest.raises(RadiometryError, match=r"holds -9999.*nodata=-9999"):
        array.geosr.reflectance()
    assert int(np.isnan(array.geosr.reflectance(nodata=-9999)).sum()) == 2


@pytest.mark.parametrize(
    "scale", [[1e-4], (1e-4,), np.float32([1e-4]), np.float64(1e-4), "0.0001", [1e-4, 1e-4]], ids=repr
)
def test_numbers_are_read_however_they_are_written(scale):
    assert units("uint16", {"scale_factor": scale}).values.scale == pytest.approx(1e-4)


@pytest.mark.parametrize("value", ["x", "", [], {"a": 1}, [1, "x"], [1, 2, 3], True, b"x", np.array(["x"])], ids=repr)
@pytest.mark.parametrize("key", ["scale_factor", "add_offset", "_FillValue", "scales"])
@pytest.mark.parametrize("place", ["attrs", "encoding"])
def test_attributes_that_are_no_numbers_are_named(place, key, value):
    dtype, packing = ("float32", {"scale_factor": 1e-4}) if place == "encoding" else ("uint16", {})
    with pytest.raises(RadiometryError, match=f"has {key} .*neither a number nor a list"):
        units(dtype, **{place: packing | {key: value} if key != "scales" else {key: value}})
    with pytest.raises(RadiometryError, match="dtype 'x'"):
        units("float32", encoding={"dtype": "x"})
