import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.errors import GridError, InputError, UsageError
from geosr.evaluation.classes import ClassMap, read_names

GRID = GeoBox((20, 24), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")


def test_classes_are_those_of_the_map_at_each_pixels_centre(make_raster):
    numbers = np.zeros((1, 8, 9), np.uint8)
    numbers[0] = 1 + (np.arange(9) > 3)
    numbers[0, 6:] = 7
    coarse = Affine(30, 0, 399_990, 0, -30, 5_000_030)  # begins outside the grid, and its pixels straddle it
    path = make_raster(numbers, name="classes.tif", nodata=0, transform=coarse)
    found = ClassMap(str(path), {1: "water", 2: "fields"}).masks(GRID)
    columns, rows = np.meshgrid(np.arange(24) + 0.5, np.arange(20) + 0.5)
    x, y = GRID.affine * (columns, rows)
    there = np.floor(np.array(~coarse * (x, y))).astype(int)
    inside = (there >= 0).all(0) & (there[0] < 9) & (there[1] < 8)
    expected = np.where(inside, numbers[0][there[1].clip(0, 7), there[0].clip(0, 8)], 0)
    assert set(found) == {"water", "fields", "7"}
    for name, number in (("water", 1), ("fields", 2), ("7", 7)):
        np.testing.assert_array_equal(found[name], expected == number)


def test_a_map_in_another_crs_lands_where_it_should(make_raster):
    import pyproj

    to_degrees = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    west, north = to_degrees.transform(399_000, 5_001_000)
    step = 5e-5  # about 4 m
    numbers = np.ones((1, 700, 700), np.uint8)
    numbers[:, :, 285:] = 2
    path = make_raster(numbers, name="wgs.tif", crs="EPSG:4326", transform=Affine(step, 0, west, 0, -step, north))
    found = ClassMap(str(path)).masks(GRID)
    columns, rows = np.meshgrid(np.arange(24) + 0.5, np.arange(20) + 0.5)
    longitude, latitude = to_degrees.transform(*(GRID.affine * (columns, rows)))
    column, row = (longitude - west) / step, (north - latitude) / step
    clear = (np.abs(column - 285) > 2) & (column > 1) & (column < 699) & (row > 1) & (row < 699)
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(found["2"][clear], (column > 285)[clear])


def test_what_is_no_class_map_is_told(make_raster, tmp_path):
    with pytest.raises(InputError, match="holds float32; a class map holds integers"):
        ClassMap(str(make_raster(np.ones((1, 4, 4), np.float32))))
    with pytest.raises(InputError, match="cannot be read"):
        ClassMap(str(tmp_path / "none.tif"))
    with pytest.raises(GridError, match="no coordinate reference system"):
        ClassMap(str(make_raster(np.ones((1, 4, 4), np.uint8), crs=None, name="nowhere.tif")))
    with pytest.raises(UsageError, match="'water' is no class; write 1=water"):
        read_names("water")
    (tmp_path / "names.txt").write_text("1: water\n\n20 = bare soil\n")
    assert read_names(str(tmp_path / "names.txt")) == {1: "water", 20: "bare soil"}
