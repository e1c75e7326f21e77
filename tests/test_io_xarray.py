import numpy as np
import pytest
import xarray as xr

from geosr.errors import BandError, GridError
from geosr.io.xarray import describe

GRID = {"y": [30.0, 20.0, 10.0], "x": [0.0, 10.0, 20.0, 30.0]}


def cube(bands, dims=("band", "y", "x"), **kwargs):
    sizes = {"band": len(bands), "bands": len(bands), "variable": len(bands), "time": 2, "y": 3, "x": 4}
    values = np.arange(np.prod([sizes[dim] for dim in dims]), dtype="uint16").reshape([sizes[dim] for dim in dims])
    coords = {dim: bands for dim in dims if dim in ("band", "bands", "variable")}
    return xr.DataArray(values, GRID | coords, dims, **kwargs)


@pytest.mark.parametrize(
    ("array", "bands"),
    [
        (cube(["B02", "B8A"]), ("B02", "B8A")),
        (cube(["blue", "nir08", "scl"]), ("B02", "B8A", "scl")),
        (cube(["red", "nir"], ("x", "variable", "time", "y")), ("B04", "B08")),
        (cube([1, 2], ("bands", "y", "x"), attrs={"long_name": ("B03", "Red")}), ("B03", "B04")),
        (cube([2, 1], attrs={"long_name": ["B03", "B04"]}), ("B04", "B03")),
        (cube([2], attrs={"long_name": ["B03", "B04"]}), ("B04",)),
        (cube([1, 2]).drop_vars("band").assign_attrs(long_name=["B03", "B04"]), ("B03", "B04")),
        (cube([1, 2]).assign_attrs(long_name="reflectance"), ("band1", "band2")),
        (cube([4, 7]), ("band1", "band2")),
        (cube(["B02"])[0], ("B02",)),
        (cube([3], attrs={"long_name": ("a", "b", "Band 8A")})[0], ("B8A",)),
        (cube(["x"])[0].drop_vars("band").rename("NIR"), ("B08",)),
        (xr.Dataset({"red": cube(["x"])[0], "B8A": cube(["x"])[0], "SCL": cube(["x"])[0]}).drop_vars("band"), None),
    ],
)
def test_bands_have_the_names_that_are_told(array, bands):
    found = describe(array)
    assert found.bands == (bands or ("B04", "B8A", "SCL"))
    assert found.named == (bands not in (("band1", "band2"),))


def test_variables_of_rioxarray_only_count():
    names = {"band_1": "B02", "band_3": "B04"}
    variables = {key: cube(["x"])[0].drop_vars("band").assign_attrs(long_name=name) for key, name in names.items()}
    assert describe(xr.Dataset(variables)).bands == ("B02", "B04")
    for one in variables.values():
        del one.attrs["long_name"]
    assert not describe(xr.Dataset(variables)).named  # and band_3 is no B03


def test_a_band_that_occurs_twice_is_refused():
    with pytest.raises(BandError, match="B04 more than once"):
        describe(cube(["red", "B04"]))


def test_pixels_come_in_the_order_that_is_asked_for():
    array = cube(["B02", "B03", "B04"], ("x", "band", "time", "y"), name="r")
    expected = array.transpose("time", "band", "y", "x").values
    chosen = describe(array).select(["red", "B02"])
    np.testing.assert_array_equal(chosen.pixels(), expected[:, [2, 0]])
    apart = describe(array.to_dataset("band")).select(["B04", "B02"])
    np.testing.assert_array_equal(apart.pixels(), expected[:, [2, 0]])
    lazy = describe(array.chunk({"x": 2}).to_dataset("band")).select(["B04", "B02"])
    assert lazy.lazy
    np.testing.assert_array_equal(lazy.pixels().compute(), expected[:, [2, 0]])


def test_a_band_that_is_not_there_is_missed():
    with pytest.raises(BandError, match=r"band 'B8A' is not in the DataArray 'r' \(B02 B08\)"):
        describe(cube(["B02", "nir"], name="r")).select(["B8A"])
    with pytest.raises(BandError, match="name its bands: bands="):
        describe(cube([1, 2])).select(["B08"])


def test_dimensions_without_pixels_say_what_to_do():
    with pytest.raises(GridError, match=r"has dimensions a, b; its rows and columns must be called y and x"):
        describe(xr.DataArray(np.zeros((2, 2)), dims=("a", "b")))


def test_latitude_and_longitude_are_rows_and_columns():
    array = cube(["B02"], ("x", "band", "y")).rename(y="latitude", x="longitude")
    found = describe(array)
    assert found.dims == ("latitude", "longitude")
    assert found.geobox.shape == (3, 4)
    assert found.pixels().shape == (1, 3, 4)


def test_other_pixels_take_the_place_of_those_that_were():
    array = cube(["B02", "B03", "B04"], ("x", "band", "time", "y"), name="r", attrs={"a": 1})
    chosen = describe(array).select(["B03", "B02"])
    back = chosen.rebuilt(chosen.pixels(), chosen.geobox)
    xr.testing.assert_identical(back, array.isel(band=[1, 0]))


def test_several_variables_with_bands_are_one_too_many():
    parts = xr.Dataset({"vis": cube(["B02", "B03"]), "nir": cube(["B08", "B8A"]).rename(band="bands")})
    assert describe(parts).select(["B02", "B03"]).pixels().shape == (2, 3, 4)
    with pytest.raises(BandError, match=r"several variables with a dimension of bands \(nir vis\); choose one"):
        describe(parts).select(["B02", "B08"])
    with pytest.raises(BandError, match="several variables"):
        describe(xr.Dataset({"B08": cube(["B08"])[0].drop_vars("band"), "vis": parts.vis})).select(["B08", "B02"])


@pytest.mark.parametrize("dataset", [False, True])
def test_a_selection_without_pixels_says_how_y_runs(dataset):
    array = cube(["B02", "B03"]).assign_coords(y=[30.0, 20.0, 10.0])
    array = array.to_dataset("band") if dataset else array
    with pytest.raises(GridError, match=r"is empty \(.*y 0.*y mostly descends.*\.sel\(y=slice\(north, south\)\)"):
        describe(array.sel(y=slice(10, 20)))
    with pytest.raises(GridError, match=r"is empty .*along x: .*\.sel\(x=slice\(west, east\)\)"):
        array.isel(x=slice(0, 0)).geosr.reflectance()
    with pytest.raises(GridError, match="no pixel was selected along time"):
        array.expand_dims(time=0).geosr.info()
    if not dataset:
        with pytest.raises(GridError, match="no pixel was selected along band"):
            array.isel(band=[]).geosr.superresolve()


def test_numbers_of_bands_may_count_from_0():
    named = cube([0, 1]).assign_attrs(long_name=["B02", "B03"])
    assert describe(named).bands == ("B02", "B03")
    assert describe(named.isel(band=[1, 0])).bands == ("B03", "B02")
