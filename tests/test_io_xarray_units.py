import numpy as np
import pytest
import xarray as xr

from geosr.errors import RadiometryError, UsageError
from geosr.io.claims import Claims
from geosr.io.xarray import describe

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
