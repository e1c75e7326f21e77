import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.data.clouds import CLOUDY_CLASSES, CloudMask
from geosr.errors import GridError

SCENE = GeoBox((8, 12), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
COARSE = Affine(20, 0, 400_000, 0, -20, 5_000_000)


@pytest.fixture
def make_mask(make_raster):
    def make(values, *, classes=None, **arguments):
        arguments = {"transform": COARSE} | arguments
        path = make_raster(np.asarray(values)[None], name="mask.tif", dtype="uint8", **arguments)
        return CloudMask(str(path), classes=classes)

    return make


def test_each_pixel_takes_the_nearest_of_a_coarser_mask(make_mask):
    values = np.random.default_rng(0).integers(0, 12, (4, 6))
    mask = make_mask(values, classes=CLOUDY_CLASSES)
    expected = np.isin(values, [3, 8, 9, 10]).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(mask.read(SCENE, slice(0, 8)), expected)
    np.testing.assert_array_equal(mask.read(SCENE, slice(3, 6)), expected[3:6])


def test_whatever_is_not_zero_is_cloud_in_a_plain_mask_that_reaches_farther(make_mask):
    values = np.zeros((10, 14), int)
    values[3, 4] = 200
    mask = make_mask(values, transform=Affine(10, 0, 399_990, 0, -10, 5_000_010))
    assert np.argwhere(mask.read(SCENE, slice(0, 8))).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"transform": Affine(20, 0, 400_040, 0, -20, 5_000_000)}, "covers .* and the scene reaches over"),
        ({"crs": "EPSG:32634"}, "is in EPSG:32634 and the scene in EPSG:32633.*gdalwarp"),
    ],
)
def test_a_mask_elsewhere_is_refused(make_mask, arguments, told):
    with pytest.raises(GridError, match=told):
        make_mask(np.zeros((4, 6)), **arguments).read(SCENE, slice(0, 8))
