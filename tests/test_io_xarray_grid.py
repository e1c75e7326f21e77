import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros

from geosr.errors import GridError
from geosr.grid import finer
from geosr.io.xarray_grid import attributes, coordinates, geobox_of, spatial_dims, unchunked

UTM = GeoBox((20, 30), Affine(10, 0, 441_490, 0, -10, 4_177_060), "EPSG:32618")
DEGREES = GeoBox((20, 30), Affine(0.0001, 0, -75.1, 0, -0.0001, 37.7), "EPSG:4326")


def image(geobox):
    return xr_zeros(geobox, dtype="uint16", always_yx=True)


def grid(array, dims=("y", "x")):
    return geobox_of(array, dims, name="cube")


@pytest.mark.parametrize("geobox", [UTM, DEGREES, UTM.flipy(), finer(DEGREES, 3)])
@given(top=st.integers(0, 10), left=st.integers(0, 20), height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_part_lies_exactly_where_the_whole_has_it(geobox, top, left, height, width):
    window = (slice(top, top + height), slice(left, left + width))
    found = grid(image(geobox)[window])
    a, _, c, _, e, f = geobox.affine[:6]
    assert found.affine == Affine(a, 0, c + a * left, 0, e, f + e * top)
    assert (found.shape, found.crs) == ((height, width), geobox.crs)


@pytest.mark.parametrize("geobox", [UTM, DEGREES])
def test_coordinates_alone_will_do(geobox):
    array = image(geobox).drop_vars("spatial_ref")
    found = grid(array)
    np.testing.assert_allclose(found.affine[:6], geobox.affine[:6], rtol=1e-9)
    assert found.crs == geobox.crs  # odc-geo says it beside the coordinates too


def test_a_transform_that_says_another_grid_is_not_believed():
    array = image(UTM).coarsen(y=2, x=2).mean()  # keeps the attributes of the finer grid
    assert grid(array).affine == Affine(20, 0, 441_490, 0, -20, 4_177_060)


@pytest.mark.parametrize("centre", [0.5, 0.0])
def test_stackstac_says_corners_or_centres(centre):
    transform = UTM.affine
    rows, columns = np.arange(3, 20), np.arange(4, 30)  # a part of the cube that the attributes are of
    y, x = transform.f + transform.e * (rows + centre), transform.c + transform.a * (columns + centre)
    coords, attrs = {"y": y, "x": x, "epsg": 32618}, {"transform": transform}
    array = xr.DataArray(np.zeros((17, 26)), coords, ("y", "x"), attrs=attrs)
    found = grid(array)
    assert found == UTM[3:, 4:]


def test_rotated_pixels_have_their_transform():
    turned = GeoBox((8, 9), Affine(10, 2, 441_490, 2, -10, 4_177_060), "EPSG:32618")
    assert grid(image(turned)).affine == turned.affine
    part = image(turned)[2:, 3:]
    np.testing.assert_allclose(grid(part).affine[:6], turned[2:, 3:].affine[:6])
    assert coordinates(part, ("y", "x"), finer(turned, 2))["x"].values[0] == 0.5


@pytest.mark.parametrize("name", ["proj:epsg", "epsg", "proj:code"])
def test_a_crs_may_be_a_coordinate(name):
    array = xr.DataArray(np.zeros((3, 3)), {"y": [3.0, 2.0, 1.0], "x": [0.0, 1.0, 2.0]}, ("y", "x"))
    assert grid(array).crs is None
    code = "EPSG:32618" if name == "proj:code" else 32618
    assert grid(array.assign_coords({name: code})).crs == UTM.crs


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            xr.DataArray(np.zeros((3, 3)), dims=("y", "x")),
            r"lies on no grid: it has no coordinates y and x.*\.rio\.write",
        ),
        (xr.DataArray(np.zeros((3, 3)), {"y": [3, 2, 0], "x": [0, 1, 2]}, ("y", "x")), "not evenly spaced"),
        (xr.DataArray(np.zeros((1, 3)), {"y": [3.0], "x": [0, 1, 2]}, ("y", "x")), "a single row or column"),
        (image(UTM).assign_coords(spatial_ref=((), 0, {"spatial_ref": "nonsense"})), "a CRS that cannot be understood"),
        (image(UTM).assign_coords(spatial_ref=((), 0, {"gcps": "{}", "crs_wkt": ""})), "ground control points"),
    ],
)
def test_what_lies_on_no_grid_says_why(array, message):
    with pytest.raises(GridError, match=message):
        grid(array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", ["y", "x"])
@pytest.mark.parametrize("placed", [True, False])
def test_coordinates_that_are_not_finite_are_no_grid(bad, axis, placed):
    array = image(UTM) if placed else image(UTM).drop_vars("spatial_ref")
    values = array[axis].values.copy()
    values[3] = bad
    with pytest.raises(GridError, match="not all finite"):
        grid(array.assign_coords({axis: values}))
    with pytest.raises(GridError, match="not all finite"):
        grid(array.assign_coords({axis: np.full_like(values, bad)}))


@pytest.mark.parametrize(
    "value",
    ["a b", "", "1 2 3", "1 2 3 4 5 x", "nan 1 0 0 0 1", "0 0 0 0 0 0", 5, [], ["a"] * 6, [1, 2], {"a": 1}, None, b"x"],
    ids=repr,
)
def test_a_transform_that_is_none_is_named(value):
    array = image(UTM).assign_coords(spatial_ref=((), 0, {"GeoTransform": value}))
    with pytest.raises(GridError, match=r"cube has GeoTransform .*no six numbers"):
        grid(array)
    if isinstance(value, list) and len(value) == 6:
        with pytest.raises(GridError, match=r"cube has transform .*no six numbers"):
            grid(array.drop_vars("spatial_ref").assign_attrs(transform=value))


def test_a_transform_may_be_a_list_of_numbers_or_of_their_decimals():
    for value in (UTM.affine.to_gdal(), [*map(str, UTM.affine.to_gdal())], np.array(UTM.affine.to_gdal())):
        array = image(UTM).drop_vars(["y", "x"]).assign_coords(spatial_ref=((), 0, {"GeoTransform": value}))
        assert grid(array).affine == UTM.affine


@pytest.mark.parametrize("value", [[1], {"a": 1}, 5, 1e400, b"x", np.array([1, 2])], ids=repr)
def test_a_crs_that_is_none_is_named(value):
    with pytest.raises(GridError, match="CRS that cannot be understood"):
        grid(image(UTM).assign_coords(spatial_ref=((), 0, {"crs_wkt": value})))


def test_a_pixel_between_those_of_its_transform_is_refused():
    row = image(UTM).isel(y=[3])
    assert grid(row).affine.f == UTM.affine.f - 30
    with pytest.raises(GridError, match=r"4177028\.5 lies between the pixels of its GeoTransform"):
        grid(row.assign_coords(y=row.y + 3.5))


def test_coordinates_are_those_of_odc_geo_and_others_of_pixels_go():
    array = image(DEGREES).assign_coords(row=("y", np.arange(20)), where=(("y", "x"), np.zeros((20, 30))), cloud=3)
    fine = finer(DEGREES, 4)
    placed = coordinates(array, ("y", "x"), fine)
    assert set(placed) == {"y", "x", "spatial_ref", "cloud"}
    expected = image(fine)
    for name in ("y", "x"):
        np.testing.assert_array_equal(placed[name].values, expected[name].values)
        assert placed[name].attrs == array[name].attrs
    result = xr.DataArray(np.zeros(fine.shape), placed, ("y", "x"))
    assert result.odc.geobox.affine == fine.affine
    assert grid(result) == fine


def test_attributes_follow_the_grid():
    attrs = {"transform": tuple(UTM.affine)[:6], "resolution": 10.0, "spec": 1, "geosr:complete": True, "title": "a"}
    assert attributes(attrs, finer(UTM, 2)) == {
        "transform": tuple(finer(UTM, 2).affine)[:6], "resolution": 5.0, "title": "a",
    }  # fmt: skip
    assert attributes({"resolution": "10 m", "transform": "log"}, UTM) == {"resolution": "10 m", "transform": "log"}
    assert attributes({"spatial:shape": [20, 30]}, finer(UTM, 2)) == {"spatial:shape": [40, 60]}


def test_chunks_of_old_do_not_fit():
    assert unchunked({"chunks": (1,), "shards": (2,), "source": "a", "dtype": "u2"}) == {"dtype": "u2"}


@pytest.mark.parametrize("dims", [("y",), ("time", "band"), ("y", "x", "y_20m", "x_20m"), ("year", "xylem")])
def test_other_dimensions_are_not_of_pixels(dims):
    assert spatial_dims(dims) is None
