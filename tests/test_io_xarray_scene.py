import pickle

import cloudpickle
import dask
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import rasterio

import geosr
from geosr.demo import demo_scene
from geosr.errors import RadiometryError, UsageError
from geosr.io.scene import open_scene
from geosr.io.xarray_scene import _count, _side, scene_to_xarray


@pytest.fixture(autouse=True, scope="module")
def one_task_at_a_time():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("chunks", ["auto", 100, None])
def test_a_scene_is_what_is_stored_where_it_is(chunks):
    with open_scene(demo_scene()) as scene:
        found = scene_to_xarray(scene, chunks=chunks)
        dn = scene.read_digital()
        assert list(found) == list(scene.bands)
        np.testing.assert_array_equal(found.to_array(), dn)
        assert found.odc.geobox == scene.geobox
        assert found.B02.attrs["scale_factor"] == scene.radiometry.scale
        np.testing.assert_array_equal(found.geosr.reflectance().to_array(), scene.read().array)
    assert (found.B02.chunks is None) == (chunks is None)


def test_pixels_that_a_mask_leaves_out_hold_nodata(tmp_path):
    dn = np.random.default_rng(0).integers(0, 255, (2, 30, 40)).astype("uint8")
    dn[0, 5, 5] = 0
    mask = np.full((30, 40), 255, "uint8")
    mask[10:20, :7] = 0
    path = tmp_path / "masked.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=2, height=30, width=40, dtype="uint8", crs="EPSG:32633",
            transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        ) as file,
    ):  # fmt: skip
        file.write(dn)
        file.write_mask(mask)
        file.descriptions = ("B03", "B04")
    scene = geosr.open(path, scale=0.004, chunks=16)
    got = scene.to_array().values
    assert scene.B03.attrs["_FillValue"] == 0
    np.testing.assert_array_equal(got == 0, np.broadcast_to(mask == 0, got.shape))
    kept = mask > 0
    np.testing.assert_array_equal(
        got[:, kept], np.maximum(dn[:, kept], 1)
    )  # 0 was a measurement, and is none of nodata
    with open_scene(path, scale=0.004) as opened:
        valid = opened.read().valid
    np.testing.assert_array_equal(np.isfinite(scene.geosr.reflectance().B03), valid)


def test_files_of_single_bands_are_read_one_by_one(make_raster):
    dn = np.arange(24, dtype="uint16").reshape(2, 3, 4)
    paths = [make_raster(dn[[i]], name=f"{band}.tif", scale=1e-4) for i, band in enumerate(("B03", "B04"))]
    scene = geosr.open(paths)
    np.testing.assert_array_equal(scene.to_array(), dn)
    paths[0].unlink()
    with open_scene(paths[1]):
        np.testing.assert_array_equal(geosr.open(paths[1]).B04, dn[1])


def test_tasks_are_small_and_open_the_files_again():
    scene = geosr.open(demo_scene(), chunks=200)
    tasks = dict(scene.B02.data.dask)
    assert max(len(cloudpickle.dumps(task)) for task in tasks.values()) < 100_000
    again = pickle.loads(pickle.dumps(scene.B02.isel(x=slice(0, 9), y=slice(0, 9))))
    np.testing.assert_array_equal(again, scene.B02[:9, :9])


def test_a_scene_of_floats_carries_no_pixels(make_raster):
    path = make_raster(np.random.default_rng(0).random((1, 400, 400)).astype("float32"), descriptions=["B02"])
    scene = geosr.open(path, chunks=100)
    tasks = dict(scene.B02.data.dask)
    assert max(len(cloudpickle.dumps(task)) for task in tasks.values()) < 100_000


def test_a_scene_that_says_nothing_is_refused_at_once(make_raster):
    path = make_raster(np.full((1, 5, 5), 900, "uint16"), descriptions=["B02"])
    with pytest.raises(RadiometryError, match="says nothing about their unit"):
        geosr.open(path)
    assert geosr.open(path, scale=1e-4).B02.attrs["scale_factor"] == 1e-4


@pytest.mark.parametrize("chunks", [0, -1, "large", 2.5])
def test_chunks_are_a_number_of_pixels(chunks):
    with pytest.raises(UsageError, match="give the side of a chunk"):
        geosr.open(demo_scene(), chunks=chunks)


def test_chunks_of_large_scenes_are_larger():
    assert _side((10_980, 10_980)) == 1024
    assert 2**14 < _count((2_000_000, 2_000_000), _side((2_000_000, 2_000_000))) <= 2**16
