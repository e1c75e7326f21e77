import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.footprint import GLOBAL, geographic_footprint, in_pixels, located


def test_the_outline_of_a_grid_over_180_degrees_has_the_area_of_the_grid():
    (outline, (west, _, east, _)) = geographic_footprint(
        GeoBox((64, 64), Affine(10, 0, 368_910, 0, -10, 7_434_850), "EPSG:32601")
    )
    east_part, west_part = sorted(outline.geoms, key=lambda part: part.bounds[0])
    assert (east_part.bounds[0], west_part.bounds[2]) == (-180, 180)
    assert (west_part.bounds[0], east_part.bounds[2]) == (west, east)
    there = GLOBAL.get_geod()
    area = sum(there.geometry_area_perimeter(part)[0] for part in outline.geoms)
    assert area == pytest.approx(640 * 640, rel=2e-3)  # the scale of UTM


def test_a_grid_without_place_on_the_globe_has_no_outline():
    assert geographic_footprint(GeoBox((4, 4), Affine.identity(), None)) is None
    mollweide = GeoBox((64, 64), Affine(500_000, 0, -16_000_000, 0, -500_000, 16_000_000), "ESRI:54009")
    assert geographic_footprint(mollweide) is None, "its corners lie beyond the Earth"


@pytest.mark.parametrize("west", [-180, 0])
def test_the_whole_globe_is_located(west):
    globe = GeoBox((180, 360), Affine(1, 0, west, 0, -1, 90), "EPSG:4326")
    assert located(globe, shapely.box(0, 0, 360, 180), GLOBAL).area == pytest.approx(360 * 180)


def test_an_area_is_found_in_the_pixels_of_a_grid_beyond_180_degrees():
    grid = GeoBox((10, 10), Affine(0.1, 0, 179.5, 0, -0.1, 10), "EPSG:4326")
    pixels = in_pixels(grid, shapely.box(-179.9, 9.5, -179.8, 9.6), GLOBAL)
    assert pixels.bounds == pytest.approx((6, 4, 7, 5))
