"""Virtual rasters: what they say of a published raster, whatever its type, and that they mosaic it exactly."""

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from geosr import open_scene
from geosr.data.virtual import Source, describe, finished, geobox_of, opened, write_virtual
from geosr.errors import InputError, OutputError

BANDS = ("B02", "B8A")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
def test_a_description_adds_bands_and_units_and_keeps_pixels_and_place(make_raster, tmp_path, dtype):
    array = np.arange(2 * 5 * 7).reshape(2, 5, 7).astype(dtype)
    source = make_raster(array, dtype=dtype, name="bare.tif")
    path = describe(tmp_path / "cache" / "a.vrt", source, bands=BANDS, scale=0.01, nodata=3)
    with open_scene(path) as scene, opened(source) as file:
        assert scene.bands == BANDS
        assert scene.dtype == dtype
        assert scene.geobox == geobox_of(file)
        assert (scene.radiometry.scale, scene.radiometry.nodata) == (0.01, 3)
        np.testing.assert_array_equal(scene.read_digital(), array)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035", "EPSG:2193"])  # the last three: y, then x
def test_coordinates_keep_their_order(make_raster, tmp_path, crs):
    source = make_raster(np.ones((2, 4, 6), "uint8"), crs=crs, transform=rasterio.Affine(0.5, 0, 12, 0, -0.5, 48))
    with open_scene(describe(tmp_path / "a.vrt", source, bands=BANDS, scale=1)) as scene, opened(source) as file:
        assert scene.geobox == geobox_of(file)
        assert tuple(scene.geobox.boundingbox) == (12, 46, 15, 48)


def test_a_grid_of_the_users_takes_the_place_of_the_files(make_raster, tmp_path):
    source = make_raster(np.ones((2, 4, 6), "uint8"))
    grid = GeoBox((4, 6), rasterio.Affine(3, 0, 100, 0, -3, 200), "EPSG:32601")
    with open_scene(describe(tmp_path / "a.vrt", source, bands=BANDS, scale=1, geobox=grid)) as scene:
        assert scene.geobox == grid


def test_a_mosaic_holds_every_source_at_its_place_and_nodata_between(make_raster, tmp_path):
    tiles = [np.full((2, 3, 4), value, "int16") for value in (100, 200)]
    paths = [make_raster(tile, name=f"tile & {number}.tif") for number, tile in enumerate(tiles)]
    sources = [Source(str(paths[0]), 0, 0), Source(str(paths[1]), 4, 5)]
    grid = GeoBox((7, 9), rasterio.Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")
    with opened(paths[0]) as like:
        write_virtual(tmp_path / "mosaic.vrt", sources, like, grid, bands=BANDS, scale=1e-4, nodata=-1)
    expected = np.full((2, 7, 9), -1, "int16")
    expected[:, :3, :4], expected[:, 4:, 5:] = 100, 200
    with open_scene(tmp_path / "mosaic.vrt") as scene:
        np.testing.assert_array_equal(scene.read_digital(), expected)
        assert scene.read((slice(2, 5), slice(3, 6))).valid.tolist() == [
            [True, False, False], [False, False, False], [False, False, True]
        ]  # fmt: skip


def test_another_number_of_bands_is_refused(make_raster, tmp_path):
    source = make_raster(np.ones((3, 4, 6), "uint8"))
    with pytest.raises(InputError, match=r"has 3 bands; it should have 2 \(B02 B8A\)"):
        describe(tmp_path / "a.vrt", source, bands=BANDS, scale=1)


def test_nothing_takes_the_name_of_what_is_not_complete(tmp_path):
    def fail():
        with finished(tmp_path / "a.vrt") as path:
            path.write_text("half")
            raise OSError("no space")

    with pytest.raises(OutputError, match=r"a\.vrt cannot be written \(no space\)"):
        fail()
    assert not list(tmp_path.iterdir())
