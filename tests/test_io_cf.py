import numpy as np
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.errors import GridError, RadiometryError
from geosr.io import cf
from geosr.radiometry import Radiometry

GRID = GeoBox((20, 30), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")


def raster(tmp_path, *, attributes=(), version=3, dtype="uint16", fill_value=0):
    """An array y x, and the arrays beside it."""
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    arrays = {"B04": (("y", "x"), np.zeros(GRID.shape, dtype))}
    arrays |= {"y": (("y",), 4_999_995 - 10.0 * np.arange(20)), "x": (("x",), 400_005 + 10.0 * np.arange(30))}
    for name, (dimensions, values) in arrays.items():
        kept = dict(attributes) if name == "B04" else {}
        named = {"dimension_names": dimensions} if version == 3 else {}
        kept |= {} if version == 3 else {"_ARRAY_DIMENSIONS": list(dimensions)}
        settings = {"shape": values.shape, "dtype": values.dtype, "fill_value": fill_value if name == "B04" else None}
        group.create_array(name, attributes=kept, **settings, **named)[...] = values
    return group["B04"], dict(group.arrays())


WKT = GRID.crs.to_wkt()
PLACES = {
    "proj:code of the array": ({"proj:code": "EPSG:32633"}, {}),
    "proj:epsg of the array": ({"proj:epsg": 32633}, {}),
    "proj:epsg as text": ({"proj:epsg": "32633"}, {}),
    "proj:wkt2 of the array": ({"proj:wkt2": WKT}, {}),
    "STAC item": ({}, {"stac_discovery": {"properties": {"proj:code": "EPSG:32633"}}}),
    "STAC item of old": ({}, {"stac_discovery": {"properties": {"proj:epsg": 32633}}}),
    "EOPF": ({}, {"other_metadata": {"horizontal_crs_code": "EPSG:32633"}}),
    "EOPF of old": ({}, {"other_metadata": {"horizontal_CRS_code": "EPSG:32633"}}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_crs_is_found_wherever_it_is_kept(tmp_path, place):
    attributes, top = PLACES[place]
    assert cf.stored_geobox(*raster(tmp_path, attributes=attributes), {}, top, name="a.zarr") == GRID


def test_a_crs_that_cannot_be_understood_is_refused(tmp_path):
    with pytest.raises(GridError, match=r"a\.zarr has a CRS that cannot be understood: 'EPSG:99'"):
        cf.stored_geobox(*raster(tmp_path, attributes={"proj:code": "EPSG:99"}), {}, {}, name="a.zarr")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, (None, None, None)),
        ({"scale_factor": 1e-4}, (1e-4, 0, None)),
        ({"add_offset": 5}, (1, 5, None)),
        ({"scale_factor": 1.0, "add_offset": 0.0}, (None, None, None)),  # what rioxarray writes of every file
        ({"scale_factor": 1.0, "add_offset": 0.0, cf.COMPLETE: True}, (1, 0, None)),  # what geosr wrote
        ({"scale_factor": [1e-4], "add_offset": "-0.1"}, (1e-4, -0.1, None)),
        ({"_FillValue": 7}, (None, None, 7)),
        ({"missing_value": 7}, (None, None, 7)),
        ({"_FillValue": 7, "fill_value": 8}, (None, None, 7)),
        ({"_FillValue": -9999}, (None, None, None)),  # no pixel of uint16 holds it
        ({"_eopf_attrs": {"scale_factor": 1e-4, "add_offset": -0.1, "fill_value": 0}}, (1e-4, -0.1, 0)),
        ({"_eopf_attrs": {"scale_factor": 2}, "scale_factor": 1e-4}, (1e-4, 0, None)),
    ],
)
def test_attributes_say_what_numbers_mean(tmp_path, attributes, expected):
    (band,) = cf.stored_bands(*raster(tmp_path, attributes=attributes))
    assert tuple(said and said.value for said in (band.scale, band.offset, band.nodata)) == expected
    assert (band.description, band.dtype) == ("B04", "uint16")


@pytest.mark.parametrize("value", ["x", [], {"a": 1}, [1, 2], True])
@pytest.mark.parametrize("key", ["scale_factor", "add_offset", "scales", "_FillValue"])
def test_attributes_that_are_no_numbers_are_named(tmp_path, key, value):
    with pytest.raises(RadiometryError, match=rf"a\.zarr/B04 has {key} .*neither a number nor a list"):
        cf.stored_bands(*raster(tmp_path, attributes={key: value}))


def test_a_list_says_the_scale_of_each_band(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    attributes = {"scales": [1e-4, 2e-4], "add_offset": 0.0, "long_name": ["B02", "B08"]}
    array = group.create_array("r", shape=(2, 3, 4), dtype="uint16", dimension_names="byx", attributes=attributes)
    bands = cf.stored_bands(array, {})
    assert [(band.description, band.scale.value, band.offset.value) for band in bands] == [
        ("B02", 1e-4, 0), ("B08", 2e-4, 0)
    ]  # fmt: skip


def test_the_fill_value_of_version_2_is_nodata_and_that_of_version_3_is_not(tmp_path):
    for version, expected in ((2, 3), (3, None)):
        (band,) = cf.stored_bands(*raster(tmp_path / str(version), version=version, fill_value=3))
        assert (band.nodata and band.nodata.value) == expected


@pytest.mark.parametrize("value", [float("nan"), -9999.0, 1e20])
def test_a_fill_value_of_floats_survives_json(tmp_path, value):
    attributes = cf.encoding_attributes(Radiometry(1.0, nodata=value, dtype="float32"))
    assert isinstance(attributes["_FillValue"], str)
    (band,) = cf.stored_bands(*raster(tmp_path, attributes=attributes, dtype="float32"))
    np.testing.assert_equal(band.nodata.value, value)


@pytest.mark.parametrize("long_name", ["BOA reflectance from MSI acquisition at spectral band 04 665 nm", "red", None])
def test_a_band_goes_by_its_long_name_where_that_says_which_it_is(tmp_path, long_name):
    attributes = {} if long_name is None else {"long_name": long_name}
    (band,) = cf.stored_bands(*raster(tmp_path, attributes=attributes))
    assert band.description == ("red" if long_name == "red" else "B04")
