import logging
import multiprocessing
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geosr.errors import BandError, GridError, InputError, RadiometryError, UsageError
from geosr.grid import resolution_m
from geosr.io.scene import open_scene
from geosr.io.zarr import create_zarr
from geosr.radiometry import Radiometry

ROTATED = Affine(8, 6, 400_000, 6, -8, 5_000_000)


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(1, 9000, (4, 30, 40), dtype="uint16")


@pytest.fixture
def tagged(make_raster, dn):
    """A file that says everything about itself."""
    return make_raster(dn, nodata=0, scale=1e-4, offset=-0.1, descriptions=["B02", "B03", "B04", "B08"])


def test_a_window_is_reflectance_on_its_exact_grid(tagged, dn):
    with open_scene(tagged) as scene:
        raster = scene.read((slice(5, 17), slice(8, 40)), ["red", "B2"])
    np.testing.assert_allclose(raster.array, dn[[2, 0], 5:17, 8:40] * 1e-4 - 0.1, atol=1e-6)
    assert raster.array.dtype == np.float32
    assert raster.valid.all()
    assert raster.bands == ("B04", "B02")
    assert raster.geobox == GeoBox((12, 32), Affine(10, 0, 400_080, 0, -10, 4_999_950), "EPSG:32633")
    np.testing.assert_array_equal(raster.to_digital(), dn[[2, 0], 5:17, 8:40])


def test_a_rotated_grid_stays_rotated(make_raster, dn):
    with open_scene(make_raster(dn, scale=1e-4, transform=ROTATED)) as scene:
        assert scene.geobox.affine == ROTATED
        assert scene.read((slice(3, 9), slice(4, 30))).geobox.affine == Affine(8, 6, 400_050, 6, -8, 5_000_000)
        assert resolution_m(scene.geobox) == pytest.approx(10)


def test_invalid_pixels_are_nan_and_become_nodata_again(make_raster, dn):
    dn[1, 2, 3] = 0
    with open_scene(make_raster(dn, nodata=0, scale=1e-4)) as scene:
        raster = scene.read()
    assert np.argwhere(~raster.valid).tolist() == [[2, 3]]
    assert np.isnan(raster.array[:, 2, 3]).all()
    assert not raster.to_digital()[:, 2, 3].any()


def test_digital_numbers_come_as_they_are_stored(tagged, dn):
    with open_scene(tagged) as scene:
        np.testing.assert_array_equal(scene.read_digital(), dn)
        np.testing.assert_array_equal(scene.read_digital((slice(1, 3), slice(None)), ["B08"]), dn[3:, 1:3])


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((slice(0, 31), slice(None)), r"rows 0\.\.31 do not lie inside scene\.tif, which has rows 0\.\.30"),
        ((slice(None), slice(-1, 5)), r"columns -1\.\.5 do not lie inside .* columns 0\.\.40"),
        ((slice(5, 5), slice(None)), r"rows 5\.\.5"),
        ((slice(0, 30, 2), slice(None)), "rows"),
    ],
)
def test_a_window_beyond_the_scene_is_refused(tagged, window, message):
    with open_scene(tagged) as scene, pytest.raises(GridError, match=message):
        scene.read(window)


def test_closing_closes_the_handles_of_every_thread(tagged):
    scene = open_scene(tagged)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: scene.read_digital(), range(8)))
    handles = list(scene._handles.values())
    assert len(handles) >= 2
    scene.close()
    assert all(handle.closed for handle in handles)


@pytest.fixture(params=["file", "shards", "chunks"])
def scene(request, tagged, tmp_path):
    """An opened scene with the same pixels, from a GeoTIFF and from Zarr stores that are read in different ways."""
    with open_scene(tagged) as opened:
        if request.param == "file":
            yield opened
            return
        path = tmp_path / "scene.zarr"
        grid = {"geobox": opened.geobox, "bands": opened.bands, "radiometry": opened.radiometry}
        writer = create_zarr(path, chunk=16, shard=32 if request.param == "shards" else 16, **grid)
        writer.write((slice(0, 30), slice(0, 40)), opened.read_digital())
    with open_scene(path) as opened:
        yield opened


def test_threads_read_the_same_pixels_at_once(scene, dn):
    windows = [(slice(y, y + 5), slice(x, x + 8)) for y in range(0, 30, 5) for x in range(0, 40, 8)]
    with ThreadPoolExecutor(4) as pool:
        for (rows, columns), got in zip(windows * 8, pool.map(scene.read_digital, windows * 8), strict=True):
            np.testing.assert_array_equal(got, dn[:, rows, columns])


def read_elsewhere(scene, queue):
    """What another process reads, and whose handles it holds afterwards."""
    window = (slice(3, 20), slice(5, 30))
    array = scene.read(window).array
    queue.put((array, [pid == os.getpid() for pid, _, _ in scene._handles]))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_another_process_reads_with_handles_of_its_own(scene, start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    scene.read()  # the parent has handles
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    process = context.Process(target=read_elsewhere, args=(scene, queue))
    process.start()
    array, own = queue.get(timeout=60)
    process.join(timeout=60)
    np.testing.assert_array_equal(array, scene.read((slice(3, 20), slice(5, 30))).array)
    assert own == ([False, True] if start == "fork" else [True])
    assert process.exitcode == 0


def test_a_pickled_scene_knows_everything_and_opens_nothing(scene, tmp_path):
    there = pickle.loads(pickle.dumps(scene))
    assert not there._handles
    assert (there.name, there.geobox, there.bands, there.facts) == (scene.name, scene.geobox, scene.bands, scene.facts)
    assert there.radiometry == scene.radiometry
    np.testing.assert_array_equal(there.read_digital(), scene.read_digital())
    there.close()


def test_closing_leaves_the_handles_of_the_parent_process_alone(tagged):
    scene = open_scene(tagged)
    ((_, thread, path),) = scene._handles
    parents = scene._handles[0, thread, path] = scene._handles.pop((os.getpid(), thread, path))
    scene.read_digital()
    scene.close()
    assert list(scene._handles) == [(0, thread, path)]
    assert not parents.closed
    parents.close()


def test_a_whole_scene_is_resampled_bicubically(scene, tagged):
    with rasterio.open(tagged) as file:
        expected = file.read([3, 1], out_shape=(2, 60, 80), resampling=Resampling.cubic)
    np.testing.assert_array_equal(scene.read_digital(bands=["B04", "B02"], shape=(60, 80)), expected)


def test_a_smaller_copy_looks_like_the_scene(scene):
    assert scene.read_digital(shape=(15, 20)).shape == (4, 15, 20)
    assert scene.read_digital(shape=(7, 9)).mean() == pytest.approx(scene.read_digital().mean(), rel=0.15)


def test_single_band_files_of_one_grid_make_one_scene(make_raster, dn):
    names = ["T33UUB_20170527_B04_10m.tif", "B2.tif", "red edge_swir16.tif"]
    paths = [make_raster(dn[i : i + 1], name=name, scale=1e-4) for i, name in enumerate(names)]
    with open_scene(paths) as scene:
        assert scene.bands == ("B04", "B02", "B11")
        assert scene.facts["bands"] == "file names"
        assert scene.name == "T33UUB_20170527_B04_10m.tif and 2 more"
        np.testing.assert_array_equal(scene.read_digital(), dn[:3])
        np.testing.assert_array_equal(scene.read_digital(bands=["swir16", "red"]), dn[[2, 0]])


def test_files_of_several_bands_are_stacked_in_order(make_raster, dn):
    paths = [
        make_raster(dn[:2], name="visible.tif", scale=1e-4, descriptions=["B02", "B03"]),
        make_raster(dn[2:], name="infrared.tif", scale=1e-4, descriptions=["B08", "B11"]),
    ]
    with open_scene(paths) as scene:
        np.testing.assert_array_equal(scene.read_digital(), dn)
        np.testing.assert_array_equal(scene.read_digital(bands=["B11", "B02", "B08"]), dn[[3, 0, 2]])


def test_landsat_numbers_are_not_sentinel_2_numbers(make_raster, dn):
    with open_scene(make_raster(dn[:1], name="LC08_L2SP_044034_20210508_SR_B5.TIF", scale=1e-4)) as scene:
        assert scene.bands == ("band1",)
        assert not scene.named


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"crs": "EPSG:32634"}, r"B02\.tif has CRS EPSG:32633 and B03\.tif has EPSG:32634"),
        ({"transform": Affine(10, 0, 400_005, 0, -10, 5_000_000)}, r"transform .*400000\.0.* and B03\.tif .*400005\.0"),
        ({"shape": (20, 40)}, r"shape \(30, 40\) and B03\.tif has \(20, 40\)"),
    ],
)
def test_files_on_different_grids_are_refused(make_raster, dn, other, message):
    height, width = other.pop("shape", (30, 40))
    paths = [make_raster(dn[:1], name="B02.tif"), make_raster(dn[:1, :height, :width], name="B03.tif", **other)]
    with pytest.raises(GridError, match=message):
        open_scene(paths)


def test_files_of_different_types_are_refused(make_raster, dn):
    paths = [make_raster(dn[:1], name="B02.tif"), make_raster(dn[:1], name="B03.tif", dtype="float32")]
    with pytest.raises(InputError, match=r"uint16 in B02\.tif, float32 in B03\.tif"):
        open_scene(paths)


def test_bands_with_different_encodings_are_read_apart(make_raster, dn):
    path = make_raster(dn, scale=[1e-4, 1e-4, 1e-4, 2e-4], descriptions=["B02", "B03", "B04", "AOT"])
    with open_scene(path) as scene:
        with pytest.raises(RadiometryError, match=r"different scale \(0\.0001, 0\.0002\)"):
            scene.read()
        assert scene.read(bands=["B02", "B03"]).radiometry.scale == 1e-4
        assert scene.read(bands=["AOT"]).radiometry.scale == 2e-4


def test_the_names_of_gdal_and_of_people_become_canonical(make_raster, dn):
    path = make_raster(dn, descriptions=["B2, central wavelength 490 nm", "green", "Band 4", "NDVI"])
    with open_scene(path) as scene:
        assert scene.bands == ("B02", "B03", "B04", "NDVI")
        assert scene.descriptions[0] == "B2, central wavelength 490 nm"
        assert scene.named


@pytest.mark.parametrize("descriptions", [None, ["Band 1", "Band 2", "Band 3", "Band 4"], ["b1", "b2", "b3", "b4"]])
def test_numbers_that_only_count_name_nothing(make_raster, dn, descriptions):
    path = make_raster(dn, descriptions=descriptions)
    with open_scene(path) as scene:
        assert scene.bands == ("band1", "band2", "band3", "band4")
        assert not scene.named
        with pytest.raises(BandError, match=r"'B04' is not in scene\.tif \(band1 band2 band3 band4\).*give --bands"):
            scene.select(["B04"])
    with open_scene(path, bands=["blue", "green", "red", "nir"]) as scene:
        assert scene.bands == ("B02", "B03", "B04", "B08")
        assert scene.facts["bands"] == "flag --bands"


def test_a_name_that_contradicts_the_file_is_said_aloud(tagged, caplog):
    with open_scene(tagged, bands=["B08", "B03", "B04", "B02"]) as scene:
        assert scene.bands == ("B08", "B03", "B04", "B02")
    assert "calls B08 what the file calls B02" in caplog.text


def test_the_number_of_names_must_fit(tagged):
    with pytest.raises(BandError, match=r"--bands names 2 bands \(B02 B03\) and scene\.tif has 4"):
        open_scene(tagged, bands=["B02", "B03"])


def test_a_band_that_occurs_twice_is_refused(make_raster, dn):
    with pytest.raises(BandError, match="has band B04 more than once"):
        open_scene(make_raster(dn, descriptions=["B04", "red", "B02", "B03"]))


def test_a_missing_band_is_an_error_that_lists_what_there_is(tagged):
    with open_scene(tagged) as scene:
        assert scene.select(["nir", "B2"]) == (3, 0)
        with pytest.raises(BandError) as caught:
            scene.select(["B02", "B084"])
    assert str(caught.value) == "band 'B084' is not in scene.tif (B02 B03 B04 B08); did you mean 'B08'?"


def test_a_silent_scene_is_refused_with_the_flags_that_explain_it(shared_data):
    path = shared_data / "s2_offset" / "parana_bridge_a.tif"
    with rasterio.open(path) as file:
        values = file.read(masked=True)  # 218 x 219 pixels: not decimated
    with open_scene(path) as scene:
        assert scene.describe_values() == (values.min(), values.max())
        assert scene.facts["scale"] == "nothing says it"
        with pytest.raises(RadiometryError) as caught:
            scene.read()
    assert str(caught.value) == (
        f"parana_bridge_a.tif holds uint16 values from {values.min()} to {values.max()} "
        "and says nothing about their unit.\n"
        "  Sentinel-2 L2A, processing baseline 04.00 or later:  --scale 1e-4 --offset -0.1 --nodata 0\n"
        "  Sentinel-2 before baseline 04.00, or *_HARMONIZED:   --scale 1e-4 --nodata 0\n"
        "  values that are reflectance already:                 --scale 1"
    )


@pytest.mark.parametrize(
    "flags",
    [
        {"sensor": "sentinel-2-l2a", "baseline": "04.00"},
        {"scale": 1e-4, "offset": -0.1, "nodata": 0},
        {"scale": 1e-4, "offset": -0.1},
    ],
)
def test_flags_explain_a_silent_scene(shared_data, flags):
    with open_scene(shared_data / "s2_offset" / "parana_bridge_a.tif", **flags) as scene:
        assert (scene.radiometry.scale, scene.radiometry.offset, scene.radiometry.nodata) == (1e-4, -0.1, 0)
        raster = scene.read(bands=["B04"])
        assert all(fact.startswith("flag --") for fact in (scene.facts["scale"], scene.facts["offset"]))
        assert scene.facts["nodata"] == "nodata tag of the file"
        expected = scene.read_digital(bands=["B04"])[raster.valid[None]] / 10000 - 0.1
        np.testing.assert_allclose(raster.array[raster.valid[None]], expected, atol=1e-6)


def test_a_sentinel_2_sensor_needs_its_baseline_where_the_file_is_silent(make_raster, tagged, dn):
    with pytest.raises(RadiometryError, match="--baseline"):
        open_scene(make_raster(dn, name="silent.tif"), sensor="sentinel-2-l2a")
    with open_scene(tagged, sensor="sentinel-2-l2a") as scene:
        assert scene.radiometry.offset == -0.1


def test_tags_of_the_file_explain_it(tagged):
    with open_scene(tagged) as scene:
        assert scene.radiometry == Radiometry(1e-4, -0.1, nodata=0)
        assert scene.facts == {
            "bands": "band descriptions",
            "scale": "GDAL band scale and offset",
            "offset": "GDAL band scale and offset",
            "nodata": "nodata tag of the file",
            "crs": "the file (EPSG:32633)",
        }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"scale": 1e-3},
            r"scale 0\.0001 \(GDAL band scale and offset\) and flag --scale says 0\.001; .*gdal_edit\.py",
        ),
        ({"offset": -0.1}, r"offset 0 .* flag --offset says -0\.1"),
        ({"nodata": 65535}, r"nodata 0 \(nodata tag of the file\) and flag --nodata says 65535"),
        (
            {"sensor": "sentinel-2-l2a", "baseline": "04.00"},
            r"offset 0 .*--baseline 04\.00 says -0\.1",
        ),
        ({"sensor": "reflectance"}, r"scale 0\.0001 .* says 1"),
    ],
)
def test_a_flag_that_contradicts_the_file_is_refused(make_raster, dn, flags, message):
    with pytest.raises(RadiometryError, match=message):
        open_scene(make_raster(dn, scale=1e-4, nodata=0), **flags)


def test_a_flag_that_agrees_with_the_file_is_welcome(tagged):
    with open_scene(tagged, scale=0.0001, offset=-0.1, nodata=0, sensor="sentinel-2-l2a", baseline="N0400") as scene:
        assert scene.radiometry == Radiometry(1e-4, -0.1, nodata=0, saturated=65535)
        assert scene.facts["scale"] == "GDAL band scale and offset"


def test_flags_that_contradict_each_other_are_refused(make_raster, dn):
    with pytest.raises(RadiometryError, match=r"scale 0\.001 \(flag --scale\) and flag --sensor .* says 0\.0001"):
        open_scene(make_raster(dn), scale=1e-3, sensor="sentinel-2-l2a", baseline="02.12")


def test_the_product_explains_its_images(shared_data):
    path = shared_data / "safe" / "S2A_MSIL1C_20201031T004711_N0209_R102_T53JQJ_20201031T022859.zip"
    with zipfile.ZipFile(path) as file:
        images = sorted(f"/vsizip/{path}/{name}" for name in file.namelist() if name.endswith(("_B02.jp2", "_B8A.jp2")))
    with open_scene(images) as scene:
        assert scene.bands == ("B02", "B8A")
        assert scene.radiometry == Radiometry(1e-4, 0.0, nodata=0, saturated=65535)
        assert scene.facts["offset"] == "product metadata MTD_MSIL1C.xml, baseline 02.09"
        assert scene.read().valid.any()
    with pytest.raises(RadiometryError, match=r"baseline 02\.09\) and flag --offset says -0\.1"):
        open_scene(images, offset=-0.1)


def test_a_baseline_without_a_sensor_is_refused(tagged):
    with pytest.raises(UsageError, match=r"--baseline 04\.00 says nothing without --sensor"):
        open_scene(tagged, baseline="04.00")


def test_8_bit_imagery_gets_its_own_line(shared_data):
    scene = open_scene(shared_data / "hr" / "naip_3607717.tif")
    with scene, pytest.raises(RadiometryError, match=r"(?s)from 8 to 255 .*imagery.*--scale 0\.00392156862745098$"):
        _ = scene.radiometry


def test_silent_floats_are_reflectance(make_raster, dn):
    values = dn * np.float32(1e-4)
    values[0, 1, 1] = np.nan
    with open_scene(make_raster(values)) as scene:
        raster = scene.read()
        assert raster.radiometry.scale == 1
        np.testing.assert_array_equal(raster.array[:, raster.valid], values[:, raster.valid])
        assert np.argwhere(~raster.valid).tolist() == [[1, 1]]
    with open_scene(make_raster(values, nodata=-9999)) as scene:
        assert scene.radiometry.nodata == -9999


@pytest.mark.parametrize("factor", [1e-2, 1])
def test_silent_floats_that_are_percent_or_dn_are_refused(make_raster, dn, factor):
    path = make_raster(dn * np.float32(factor))
    with open_scene(path) as scene, pytest.raises(RadiometryError, match="float32 values with a median of 4"):
        scene.read()
    with open_scene(path, scale=1e-4 / factor) as scene:
        np.testing.assert_allclose(scene.read().array, dn * 1e-4, rtol=1e-5)


def test_a_silent_scene_without_a_valid_pixel_is_refused_too(make_raster):
    scene = open_scene(make_raster(np.zeros((1, 4, 4), "uint16"), nodata=0))
    with scene, pytest.raises(RadiometryError, match="from nan to nan"):
        scene.read()


def test_a_decimated_read_describes_a_large_scene(make_raster):
    large = np.full((1, 1100, 1300), 500, "uint16")
    large[0, ::2], large[0, 0, 0] = 700, 0
    with open_scene(make_raster(large, nodata=0)) as scene:
        assert scene.describe_values() in {(500, 700), (700, 700), (500, 500)}
        assert scene.sample["band1"].size < 512 * 512


def test_a_scene_without_crs_opens_without_a_warning_of_rasterio(make_raster, dn, caplog):
    path = make_raster(dn, crs=None, transform=None, scale=1e-4)
    with caplog.at_level(logging.WARNING, "geosr"), open_scene(path) as scene:
        assert scene.geobox.crs is None
        assert resolution_m(scene.geobox) is None
        assert scene.read((slice(2, 5), slice(3, 9))).geobox.affine == Affine.translation(3, 2)
    assert not caplog.records  # whoever writes an output without CRS says so


def test_degrees_become_metres_at_the_latitude_of_the_scene(shared_data):
    with open_scene(shared_data / "s2_more" / "adriatic_lagoon.tif") as scene:
        latitude = np.deg2rad(45.75)
        east, north = 111_412.84 * np.cos(latitude), 111_132.92 - 559.82 * np.cos(2 * latitude)
        assert resolution_m(scene.geobox) == pytest.approx(
            np.sqrt(0.00017967224 * east * 0.00012545016 * north), rel=2e-3
        )


def test_feet_become_metres():
    assert resolution_m(GeoBox((4, 4), Affine(10, 0, 0, 0, -10, 0), "EPSG:2263")) == pytest.approx(3.048, rel=1e-4)


def test_numbers_and_mask_of_one_read_are_those_of_two(make_raster):
    dn = np.random.default_rng(0).integers(0, 4, (2, 9, 11))
    path = make_raster(dn, dtype="uint16", nodata=0, scale=1e-4, descriptions=["B02", "B03"])
    window = slice(2, 9), slice(1, 8)
    with open_scene(path) as scene:
        numbers, valid = scene.read_masked(window, ["B03", "B02"])
        np.testing.assert_array_equal(numbers, scene.read_digital(window, ["B03", "B02"]))
        np.testing.assert_array_equal(valid, scene.read(window, ["B03", "B02"]).valid)
    assert not valid.all()


@pytest.mark.parametrize(
    ("descriptions", "given", "bands", "labels"),
    [
        (["red", "B4 error", None], None, ("B04", "B4 error", "band3"), ("red", "B4 error", "band3")),
        (
            ["B4, central wavelength 665 nm", "nir_error", "x"],
            None,
            ("B04", "B08_error", "x"),
            ("B4", "nir_error", "x"),
        ),
        (["a", "b", "c"], ["blue", "B3", "own"], ("B02", "B03", "own"), ("blue", "B3", "own")),
        (None, None, ("band1", "band2", "band3"), ("band1", "band2", "band3")),
    ],
)
def test_labels_are_the_names_as_the_file_or_the_user_spells_them(make_raster, descriptions, given, bands, labels):
    path = make_raster(np.ones((3, 2, 2), "uint8"), descriptions=descriptions)
    with open_scene(path, bands=given) as scene:
        assert (scene.bands, scene.labels) == (bands, labels)
        assert scene.select(labels) == (0, 1, 2)


def test_files_without_descriptions_are_labelled_by_their_names(make_raster):
    names = ["T33UUB_red.tif", "T33UUB_B3_10m.tif", "blue.tif"]
    with open_scene([make_raster(np.ones((1, 2, 2), "uint8"), name=name) for name in names]) as scene:
        assert (scene.bands, scene.labels) == (("B04", "B03", "B02"), ("red", "B3", "blue"))
