import multiprocessing
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from product_kit import CRS, L2A, crafted_zip, write_jp2, write_l2a, zipped

from geosr.errors import InputError, UsageError
from geosr.grid import TilePlan
from geosr.io.inputs import open_input
from geosr.io.scene import open_scene

BANDS = ("B02", "B03", "B04", "B08")
SIDE = 64


@pytest.fixture(scope="module")
def dn(shared_data):
    """Real pixels with the offset of baselines since 04.00 put back."""
    with rasterio.open(shared_data / "s2" / "germany_fields_10m.tif") as file:
        return file.read(window=((300, 300 + SIDE), (200, 200 + SIDE))).astype("uint16") + 1000


@pytest.fixture(scope="module")
def scl():
    values = np.full((SIDE // 2, SIDE // 2), 4, "uint8")
    values[3:6, 4:9], values[20, 20], values[25:, :3] = 9, 1, 11
    return values


@pytest.fixture(scope="module")
def l2a(shared_data, tmp_path_factory, dn, scl):
    xml = shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml"
    return write_l2a(tmp_path_factory.mktemp("l2a"), xml, dn, scl)


# Products


@pytest.mark.parametrize("packed", [False, True])
def test_a_product_is_its_10_m_bands_in_the_units_of_its_xml(l2a, dn, tmp_path, packed):
    path = zipped(shutil.copytree(l2a, tmp_path / L2A)) if packed else l2a
    with open_input(path) as scene:
        assert (scene.bands, scene.geobox.crs, scene.geobox.affine.a) == (BANDS, CRS, 10)
        assert "MTD_MSIL2A.xml, baseline 05.09" in scene.facts["offset"]
        np.testing.assert_allclose(scene.read().array, (dn - 1000.0) / 10_000, atol=1e-6)
        assert list(scene.masks) == ["clouds", "defects", "snow"]
        assert scene.mask is None


def test_the_xml_of_every_baseline_says_what_the_numbers_mean(shared_data, tmp_path, dn, scl):
    """The oracle takes the offset from the XML with a regular expression."""
    baselines = set()
    for xml in sorted((shared_data / "safe_metadata").glob("*/MTD_MSI*.xml")):
        text = xml.read_text()
        offset = min([float(value) for value in re.findall(r"ADD_OFFSET band_id=\"\d+\">(-?\d+)<", text)] or [0.0])
        baselines.add(re.search(r"PROCESSING_BASELINE>([\d.]+)<", text)[1])
        with open_input(write_l2a(tmp_path, xml, dn[:, :8, :8], scl[:4, :4])) as scene:
            np.testing.assert_allclose(scene.read().array, (dn[:, :8, :8] + offset) / 10_000, atol=1e-6)
    assert {"02.09", "02.12", "03.01", "04.00", "05.09"} == baselines


def test_metadata_that_could_grow_without_bound_is_refused(l2a, tmp_path):
    product = shutil.copytree(l2a, tmp_path / L2A)
    text = (product / "MTD_MSIL2A.xml").read_text()
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    (product / "MTD_MSIL2A.xml").write_text(re.sub(r"(<\?xml.*?\?>)", rf"\1{laughs}", text, count=1))
    with pytest.raises(InputError, match=r"MTD_MSIL2A\.xml declares a document type"):
        open_input(product)


def test_what_a_model_wants_is_opened_unless_the_user_names_bands(l2a):
    for arguments, bands, step in (
        ({"wanted": ["B11", "B05"]}, ("B11", "B05"), 20),
        ({"wanted": ["B11", "B05"], "bands": ["red", "B2"]}, ("B04", "B02"), 10),
        ({"resolution": 20}, ("B02", "B05", "B11"), 20),
        ({"wanted": ["B02"], "resolution": 20}, ("B02",), 20),
    ):
        with open_input(l2a, **arguments) as scene:
            assert (scene.bands, scene.geobox.affine.a) == (bands, step)


def test_several_granules_are_asked_about(shared_data, tmp_path, dn, scl):
    xml = shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml"
    product = write_l2a(tmp_path, xml, dn[:, :16, :16], scl[:8, :8], granules=2)
    with pytest.raises(InputError, match=r"holds 2 granules; give one of\n  .*/GRANULE/L2A_T01WCP_A041820") as error:
        open_input(product)
    with open_input(str(error.value).splitlines()[-1].strip()) as scene:
        assert scene.bands == BANDS
        assert "A041821" in scene.paths[0]


def test_several_products_in_an_archive_are_asked_about(l2a, tmp_path):
    names = [f"{name}/{path.relative_to(l2a)}" for name in ("A.SAFE", "B.SAFE") for path in l2a.rglob("*.*p2")]
    path = crafted_zip(
        tmp_path / "two.zip", [(name, b"") for name in (*names, "A.SAFE/MTD_MSIL2A.xml", "B.SAFE/MTD_MSIL2A.xml")]
    )
    with pytest.raises(InputError, match=r"holds 2 products; give one of\n  /vsizip/.*/two.zip/A.SAFE\n"):
        open_input(path)


def test_a_zip_of_something_else_and_scenes_beside_each_other_are_refused(l2a, tmp_path):
    with pytest.raises(InputError, match="holds no Sentinel-2 product"):
        open_input(crafted_zip(tmp_path / "a.zip", [("a.txt", b"")]))
    with pytest.raises(UsageError, match="is a scene of its own; give it alone"):
        open_input([l2a, l2a])
    with pytest.raises(UsageError, match=r"--resolution 20 chooses among .*SCL_20m.jp2 is a file"):
        open_input(next(l2a.rglob("*SCL_20m.jp2")), resolution=20)


# Masks


def grown(mask, metres, step=10.0):
    """Pixels whose centre is within so many metres of a masked one, measured pair by pair."""
    y, x = np.indices(mask.shape) * step
    near = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        near |= np.hypot(y - step * row, x - step * column) <= metres
    return near


@pytest.mark.parametrize(
    ("kinds", "classes", "dilate"),
    [(["clouds"], [3, 8, 9, 10], 0), (["clouds", "defects"], [1, 3, 8, 9, 10], 60), (["snow"], [11], 25)],
)
def test_masked_pixels_of_a_product_are_invalid(l2a, scl, kinds, classes, dilate):
    with open_input(l2a, mask=kinds, mask_dilate=dilate) as scene:
        bad = np.isin(scl, classes).repeat(2, 0).repeat(2, 1)
        raster = scene.read()
        np.testing.assert_array_equal(raster.valid, ~grown(bad, dilate) if dilate else ~bad)
        assert np.isnan(raster.array[:, ~raster.valid]).all()
        _, valid = scene.read_masked(np.s_[5:30, 3:40], ["B04"])
        np.testing.assert_array_equal(valid, raster.valid[5:30, 3:40])
        assert scene.facts["masked"].endswith("_SCL_20m.jp2")


@pytest.mark.parametrize("packed", [False, True])
def test_a_masked_scene_travels_small_and_reads_the_same_elsewhere(l2a, tmp_path, packed):
    path = zipped(shutil.copytree(l2a, tmp_path / L2A)) if packed else l2a
    with open_input(path, mask=["clouds"], mask_dilate=30) as scene:
        expected = scene.read().valid
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(scene.read_mask(), expected)
        assert repr(scene).endswith(", without clouds and 30 m around>")
        travelled = pickle.dumps(scene)
        assert len(travelled) < 10_000
        rows = [(slice(row, row + 8), slice(0, SIDE)) for row in range(0, SIDE, 8)]
        with ThreadPoolExecutor(4) as threads:
            parts = list(threads.map(lambda window: scene.read(window).valid, rows))
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            np.testing.assert_array_equal(
                np.concatenate(pool.starmap(valid_of, [(scene, row) for row in rows])), expected
            )
    with pickle.loads(travelled) as again:
        np.testing.assert_array_equal(again.read().valid, expected)


def valid_of(scene, window):
    return scene.read(window).valid


def test_masks_of_level_1c_since_baseline_4(tmp_path, shared_data, dn):
    """Opaque clouds and cirrus at 60 m, defective and saturated pixels of the bands that are read."""
    product = tmp_path / "S2A_MSIL1C_20230625T234621_N0509_R073_T01WCP_20230626T022158.SAFE"
    granule = product / "GRANULE" / "L1C_T01WCP"
    size = 60
    for band, pixels in zip(BANDS, dn[:, :size, :size], strict=True):
        write_jp2(granule / "IMG_DATA" / f"T01WCP_20230625T234621_{band}.jp2", pixels, 10)
    classes = np.zeros((3, size // 6, size // 6), "uint8")
    classes[0, 1, 1], classes[1, 5, 2], classes[2, 8, 8] = 1, 1, 1
    write_jp2(granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", classes, 60)
    quality = np.zeros((4, 8, size, size), "uint8")
    quality[0, 4, 7, 9] = quality[3, 7, 30, 31] = quality[2, 6, 50, 50] = quality[1, 3, 40, 40] = 1
    for band, values in zip(BANDS, quality, strict=True):
        write_jp2(granule / "QI_DATA" / f"MSK_QUALIT_{band}.jp2", values, 10)
    for name, kinds, expected in (
        ("clouds", ["clouds"], (classes[0] | classes[1]).repeat(6, 0).repeat(6, 1)),
        ("snow", ["snow"], classes[2].repeat(6, 0).repeat(6, 1)),
        ("defects", ["defects"], (quality[:, 4] | quality[:, 7]).any(0)),
    ):
        with open_input(product, mask=kinds, scale=1e-4, nodata=0) as scene:
            np.testing.assert_array_equal(scene.read().valid, expected == 0, err_msg=name)
    with open_input(product, mask=["defects"], bands=["B02"], scale=1e-4) as scene:
        assert np.argwhere(~scene.read().valid).tolist() == [[7, 9]]


def test_real_clouds_of_level_1c_make_pixels_invalid(shared_data):
    (path,) = (shared_data / "safe").glob("*T53JQJ*.zip")
    with open_input(path) as bare, open_input(path, mask=["clouds"]) as masked:
        before, after = bare.read(), masked.read()
        assert 0 < (before.valid & ~after.valid).sum() < before.valid.sum() / 2
        np.testing.assert_array_equal(before.array[:, after.valid], after.array[:, after.valid])


def test_a_classification_beside_a_raster_is_its_mask(make_raster, scl):
    transform = rasterio.Affine(10, 0, 400_000, 0, -10, 5_000_000)
    path = make_raster(np.full((2, SIDE, SIDE), 3000), name="x_10m.tif", dtype="uint16", transform=transform)
    with pytest.raises(InputError, match=r"x_10m.tif comes with no mask of clouds \(it has none\)"):
        open_input(path, mask=["clouds"])
    make_raster(scl[None], name="x_SCL_20m.tif", dtype="uint8", transform=transform @ rasterio.Affine.scale(2))
    with open_input(path, scale=1e-4, mask=["clouds"]) as scene:
        np.testing.assert_array_equal(scene.read().valid, (scl != 9).repeat(2, 0).repeat(2, 1))


def test_images_of_a_product_that_are_named_one_by_one_have_its_masks(l2a, scl):
    paths = [next(l2a.rglob(f"*_{band}_10m.jp2")) for band in ("B04", "B02")]
    with open_input(paths, mask=["clouds"]) as scene:
        assert scene.bands == ("B04", "B02")
        np.testing.assert_array_equal(scene.read().valid, (scl != 9).repeat(2, 0).repeat(2, 1))


# Folders of single-band files


def test_a_folder_of_single_band_files_is_one_scene(l2a, dn, scl, tmp_path):
    (source,) = l2a.glob("GRANULE/*/IMG_DATA/R10m")
    shutil.copytree(source, tmp_path / "bands")
    shutil.copy(next(l2a.rglob("*_SCL_20m.jp2")), tmp_path / "bands")
    (tmp_path / "bands" / "notes.txt").write_text("")
    with open_input(tmp_path / "bands", scale=1e-4, offset=-0.1, nodata=0, mask=["clouds"]) as scene:
        assert scene.bands == BANDS
        np.testing.assert_array_equal(scene.read_digital(), dn)
        assert (~scene.read().valid).sum() == 4 * (scl == 9).sum()


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["B02.tif", "B03.tif", "B04.tif", "B08.tif"], BANDS),
        (["B2.tif", "B3.tif", "B4.tif", "B8.tif", "TCI.tif"], BANDS),
        ([f"scene_{band}.TIF" for band in ("blue", "green", "red", "nir")], BANDS),
        (["x_B02_10m.tif", "x_B03_10m.tif", "x_B04_10m.tif", "x_B08_10m.tif", "x_B05_20m.tif"], BANDS),
    ],
)
def test_names_of_bands_are_understood(make_raster, tmp_path, names, bands):
    (tmp_path / "one").mkdir()
    for value, name in enumerate(names):
        make_raster(np.full((1, 4, 4), value), name=f"one/{name}", dtype="uint16")
    with open_input(tmp_path / "one") as scene:
        assert scene.bands == bands
        assert scene.read_digital()[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "holds no single-band files"),
        (["a.tif", "b.tif"], r"holds no single-band files \(B02.jp2, .*\); give one of\n  a.tif\n  b.tif"),
        (["x_B02.tif", "x_B03.tif", "y_B02.tif"], r"holds 2 scenes; give one of\n  x_B02.tif\n  y_B02.tif"),
        (["x_B02.tif", "x_B2.tif"], r"holds band B02 twice \(x_B02.tif, x_B2.tif\)"),
        (
            [f"x_{band}_{r}m.tif" for band in BANDS for r in (10, 20)],
            "holds B02 B03 B04 B08 at 10 m, 20 m; choose one with --resolution",
        ),
        (["x_B02.tif", "x_B03.tif"], r"holds no images of B02 B03 B04 B08 at one resolution \(B02 B03\)"),
    ],
)
def test_a_folder_that_is_no_single_scene_tells_what_it_holds(make_raster, tmp_path, names, told):
    (tmp_path / "some").mkdir()
    for name in names:
        make_raster(np.zeros((1, 4, 4)), name=f"some/{name}", dtype="uint16")
    with pytest.raises(InputError, match=told):
        open_input(tmp_path / "some")


def test_a_folder_of_products_lists_them(l2a):
    with pytest.raises(InputError, match=rf"holds no single-band files .*; give one of\n  {L2A}"):
        open_input(l2a.parent)


# What else a scene may be


def test_whatever_open_scene_takes_is_taken_as_it_is(shared_data, make_raster, tmp_path):
    path = shared_data / "s2" / "danube_a_10m.tif"
    with open_scene(path) as expected, open_input(path, wanted=["B02"]) as scene:
        assert (scene.bands, scene.geobox, scene.facts) == (expected.bands, expected.geobox, expected.facts)
    silent = make_raster(np.full((2, 4, 4), 2000), dtype="uint16")
    with open_input(silent, bands=["B02", "B8A"], scale=1e-4, offset=-0.1) as scene:
        assert scene.bands == ("B02", "B8A")
        np.testing.assert_allclose(scene.read().array, 0.1, atol=1e-6)
    with pytest.raises(InputError, match=r"missing\.tif does not exist"):
        open_input(tmp_path / "missing.tif")


def write_blocks(path, side, block):
    """Noise, which does not compress, as JPEG 2000 in blocks."""
    rng = np.random.default_rng(len(str(path)))
    profile = {"driver": "JP2OpenJPEG", "count": 1, "height": side, "width": side, "dtype": "uint16", "crs": CRS}
    transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    options = {"QUALITY": 100, "REVERSIBLE": "YES", "tiled": True, "blockxsize": block, "blockysize": block}
    with rasterio.open(path, "w", transform=transform, **profile, **options) as file:
        file.write(rng.integers(0, 9000, (1, side, side), dtype="uint16"))
    return path


def test_the_memory_of_two_rows_of_blocks_is_asked_for_jpeg_2000_alone(tmp_path, make_raster):
    with open_input(write_blocks(tmp_path / "a_B02.jp2", 300, 128)) as scene:
        assert scene.cache_bytes == 2 * (3 * 128) * 128 * 2
    with open_input(make_raster(np.ones((1, 4, 4), "uint16"))) as scene:
        assert scene.cache_bytes == 0


def bytes_read():
    """Bytes that this process has asked the system for."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="counts what /proc/self/io tells")
def test_blocks_of_jpeg_2000_are_decoded_once_while_tiles_are_read_row_by_row(tmp_path):
    """The bytes read of the files tell how often their blocks are decoded: GDAL keeps no compressed ones."""
    side, least = 512, 150_000  # below 100 000 GDAL takes the number for MB
    paths = [write_blocks(tmp_path / f"T_{band}.jp2", side, 128) for band in ("B02", "B03")]
    read = []
    for rows in (0, 1, 10):  # no memory for it, that which is asked for, and more than all blocks need
        with open_input(paths) as scene, rasterio.Env(GDAL_CACHEMAX=least + rows * scene.cache_bytes):
            before = bytes_read()
            for tile in TilePlan((side, side), 64, 20):
                scene.read_digital(tile.read)
            read.append(bytes_read() - before)
    assert read[0] > 4 * read[1]
    assert read[1] == pytest.approx(read[2], rel=0.02)


def test_a_zarr_product_of_the_eopf_has_its_classification_as_mask(tmp_path, dn, scl):
    path = tmp_path / "S2B_MSIL2A_20260721T100559.zarr"
    root = zarr.create_group(path, zarr_format=3)
    root.attrs["other_metadata"] = {"horizontal_crs_code": "EPSG:32633"}
    packing = {"scale_factor": 0.0001, "add_offset": -0.1, "fill_value": 0}
    for below, step, arrays, kept in (
        ("measurements/reflectance/r10m", 10, dict(zip(("b02", "b03", "b04", "b08"), dn, strict=True)), packing),
        ("measurements/reflectance/r20m", 20, {"b05": dn[0, ::2, ::2]}, packing),
        ("conditions/mask/l2a_classification/r20m", 20, {"scl": scl}, {}),
    ):
        group = root.create_group(below)
        for name, values in arrays.items():
            group.create_array(name, data=values, attributes=kept, dimension_names=("y", "x"))
        size = len(next(iter(arrays.values())))
        group.create_array("y", data=5_000_000 - step * (np.arange(size) + 0.5), dimension_names=("y",))
        group.create_array("x", data=400_000 + step * (np.arange(size) + 0.5), dimension_names=("x",))
    with open_input(path, mask=["clouds"]) as scene:
        assert scene.bands == BANDS
        np.testing.assert_array_equal(scene.read().valid, (scl != 9).repeat(2, 0).repeat(2, 1))
    with open_input(path, resolution=20, mask=["clouds"], mask_dilate=20) as scene:
        assert scene.bands == ("B05",)
        np.testing.assert_array_equal(scene.read().valid, ~grown(scl == 9, 20, step=20.0))
    with pytest.raises(UsageError, match="--resolution 20 chooses among"):
        open_input(f"{path}/measurements/reflectance/r10m", resolution=20)
    with open_input(f"{path}/measurements/reflectance/r20m/b05") as scene:
        assert list(scene.masks) == ["clouds", "defects", "snow"]


@pytest.mark.parametrize("folder", ["data.zarr", "data.zarrs", "outer.zarr/inner", "a.zarr/b.zarr"])
def test_a_raster_in_a_folder_named_like_a_store_is_a_raster(make_raster, tmp_path, dn, folder):
    (tmp_path / folder).mkdir(parents=True)
    for band, pixels in zip(BANDS, dn, strict=True):
        make_raster(pixels[None], name=f"{folder}/{band}.tif", scale=1e-4)
    with open_input(tmp_path / folder / "B04.tif") as scene:
        np.testing.assert_array_equal(scene.read_digital(), dn[2:3])
    with open_input(f"{tmp_path / folder}/") as scene:
        assert scene.bands == BANDS
        np.testing.assert_array_equal(scene.read_digital(), dn)
    with pytest.raises(InputError, match=r"missing\.tif does not exist"):
        open_input(tmp_path / folder / "missing.tif")


def test_a_raster_inside_a_store_is_a_raster_and_the_store_a_store(make_raster, tmp_path, dn):
    from geosr.io.zarr import create_zarr

    path = make_raster(dn, name="x.zarr.tif", scale=1e-4, descriptions=BANDS)
    (tmp_path / "plain.zarr").mkdir()
    with open_input(path) as scene:
        writer = create_zarr(
            tmp_path / "plain.zarr" / "store.zarr" / "one",
            geobox=scene.geobox,
            bands=scene.bands,
            radiometry=scene.radiometry,
        )
        writer.write(next(writer.windows()), dn)
    for inside in ("", "/one"):
        with open_input(f"{tmp_path}/plain.zarr/store.zarr{inside}") as scene:
            np.testing.assert_array_equal(scene.read_digital(), dn)
    shutil.copy(path, tmp_path / "plain.zarr" / "store.zarr" / "x.tif")
    with open_input(tmp_path / "plain.zarr" / "store.zarr" / "x.tif") as scene:
        np.testing.assert_array_equal(scene.read_digital(), dn)
