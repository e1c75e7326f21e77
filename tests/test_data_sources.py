import json
import shutil
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest

from geosr.data.patches import SceneFiles
from geosr.data.sources import find_sources, pair_key
from geosr.errors import InputError, UsageError
from geosr.io.scene import open_scene

BANDS = ("B02", "B03")
L2A = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158.SAFE"


@pytest.fixture
def make_scene(make_raster, tmp_path):
    """A factory of small scenes of two bands, by their path below the test's folder."""

    def make(name, *, bands=BANDS, shape=(16, 16), dn=None, **arguments):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        dn = np.full((len(bands), *shape), 1000) if dn is None else dn
        arguments = {"dtype": "uint16", "nodata": 0, "scale": 1e-4, "descriptions": bands} | arguments
        return make_raster(dn, name=name, **arguments)

    return make


def names(found):
    return [source.files.name for source in found.scenes]


def find(*named, bands=BANDS, **arguments):
    return find_sources(named, bands=bands, **arguments)


# Files and folders


def test_a_file_is_a_scene_and_its_name_tells_its_date(make_scene):
    (source,) = find(make_scene("field_20170527T103021_10m.tif")).scenes
    assert source.files.name == "field_20170527T103021_10m.tif"
    assert source.files.start == datetime(2017, 5, 27, 10, 30, 21, tzinfo=UTC)
    assert source.asked


@pytest.mark.parametrize("name", ["field_99999999.tif", "field_20171301.tif", "field_120170527.tif"])
def test_digits_that_are_no_date_are_none(make_scene, name):
    assert find(make_scene(name)).scenes[0].files.start is None


def test_a_folder_is_everything_below_it_in_order_of_names(make_scene, tmp_path):
    make_scene("data/b/two.tif")
    make_scene("data/a/one.tif")
    make_scene("data/.hidden/three.tif")
    (tmp_path / "data" / "a" / "one.tif.aux.xml").write_text("<PAMDataset/>")
    found = find(tmp_path / "data")
    assert names(found) == ["a/one.tif", "b/two.tif"]
    assert not any(source.asked for source in found.scenes)
    assert found.skipped == ()


def test_what_is_no_source_in_a_folder_is_told_with_its_reason(make_scene, tmp_path):
    make_scene("data/one.tif")
    (tmp_path / "data" / "other.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "data" / "pictures.zip", "w") as file:
        file.writestr("picture.png", b"")
    (tmp_path / "data" / "empty.SAFE").mkdir()
    told = {one.name: one.reason for one in find(tmp_path / "data").skipped}
    assert "is no STAC item" in told["other.json"]
    assert "holds no Sentinel-2 product" in told["pictures.zip"]
    assert "holds no images" in told["empty.SAFE"]
    assert all("\n" not in reason for reason in told.values())


def test_single_band_files_of_one_scene_belong_together(make_scene, tmp_path):
    for band in (*BANDS, "B08"):
        make_scene(f"data/S2A_20170613_{band}.tif", bands=[band])
    make_scene("data/alone_B02.tif", bands=["B02"])
    found = find(tmp_path / "data")
    assert [len(source.files.hr) for source in found.scenes] == [2, 1, 1]
    with open_scene(found.scenes[0].files.hr) as scene:
        assert scene.bands == BANDS
    assert names(found) == ["S2A_20170613_B02.tif", "S2A_20170613_B08.tif", "alone_B02.tif"]


def test_names_that_occur_twice_get_a_number(make_scene):
    assert names(find(make_scene("a/x.tif"), make_scene("b/x.tif"))) == ["x.tif", "x.tif-2"]


def test_the_output_in_a_named_folder_is_no_source(make_scene, tmp_path):
    make_scene("data/one.tif")
    (tmp_path / "data" / "train.zarr").mkdir()
    assert names(find(tmp_path / "data", ignore=[tmp_path / "data" / "train.zarr"])) == ["one.tif"]
    assert names(find(tmp_path / "data")) == ["one.tif", "train.zarr"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: [folder / "missing.tif"], "missing.tif does not exist"),
        (lambda folder: [folder], "is empty"),
        (lambda folder: [], "no source was given"),
    ],
)
def test_nothing_is_an_error(tmp_path, make, told):
    with pytest.raises((InputError, UsageError), match=told):
        find(*make(tmp_path))


def test_scenes_of_a_reader_pass_through(make_scene):
    files = SceneFiles("mine", (str(make_scene("x.tif")),))
    assert find(files).scenes[0].files == files


# Source and licence


def test_source_and_licence_come_from_the_index_beside_the_file_or_one_folder_up(make_scene, tmp_path):
    make_scene("data/s2/one.tif")
    make_scene("data/s2/two.tif")
    (tmp_path / "data" / "index.csv").write_text("path,source,licence\ns2/one.tif,survey,CC0\n")
    one, two = find(tmp_path / "data", licence="own").scenes
    assert (one.origin, one.licence) == ("survey", "CC0")
    assert (two.origin, two.licence) == ("unknown", "own")
    assert find(tmp_path / "data" / "s2" / "one.tif").scenes[0].licence == "CC0"
    assert find(tmp_path / "data" / "s2" / "two.tif").scenes[0].licence == "unknown"


def test_a_scene_classification_beside_a_file_is_found(make_scene):
    path = make_scene("x_10m.tif")
    classes = make_scene("x_SCL_20m.tif", bands=["SCL"])
    assert find(path).scenes[0].classes == str(classes)


# Sentinel-2 products


@pytest.fixture
def make_product(shared_data, make_scene, tmp_path):
    """A Level-2A product with real metadata and small GeoTIFF images, as a folder or a zip file."""

    def make(images, *, name=L2A, packed=False):
        folder = tmp_path / "products" / name
        granule = "GRANULE/L2A_T01WCP_A041826_20230625T234624/IMG_DATA"
        for image in images:
            path = make_scene(f"products/{name}/{granule}/{image}.tif", bands=["x"], scale=None, nodata=None)
            path.rename(path.with_suffix(".jp2"))
        shutil.copy(shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml", folder)
        if not packed:
            return folder
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as file:
            for path in sorted(folder.rglob("*.*")):
                if path.is_file():
                    file.write(path, f"{name}/{path.relative_to(folder)}")
        shutil.rmtree(folder)
        return folder.with_suffix(".zip")

    return make


IMAGES = [f"R{r}m/T01WCP_20230625T234621_{b}_{r}m" for r in (10, 20) for b in ("B02", "B03")]
IMAGES += [f"R20m/T01WCP_20230625T234621_{b}_20m" for b in ("B05", "SCL")]


@pytest.mark.parametrize("packed", [False, True])
def test_a_product_is_its_images_at_the_finest_resolution_that_all_bands_have(make_product, packed):
    path = make_product(IMAGES, packed=packed)
    (source,) = find(path).scenes
    assert [file.rsplit("_", 2)[1:] for file in source.files.hr] == [["B02", "10m.jp2"], ["B03", "10m.jp2"]]
    assert source.classes.endswith("_SCL_20m.jp2")
    assert source.files.start == datetime(2023, 6, 25, 23, 46, 21, 24000, tzinfo=UTC)
    assert source.origin == L2A
    with open_scene(source.files.hr) as scene:
        assert scene.bands == BANDS
        assert (scene.radiometry.scale, scene.radiometry.offset, scene.radiometry.nodata) == (1e-4, -0.1, 0)
    (coarse,) = find(path, bands=("B02", "B05")).scenes
    assert all(file.endswith("20m.jp2") for file in coarse.files.hr)


def test_a_product_in_a_folder_is_one_scene_under_any_name(make_product, tmp_path):
    make_product(IMAGES, name="renamed")
    assert names(find(tmp_path / "products")) == ["renamed"]


def test_a_product_without_a_band_is_refused(make_product):
    with pytest.raises(InputError, match=r"no images of B02 B11 at one resolution \(10 m: B02 B03; 20 m: B02"):
        find(make_product(IMAGES), bands=("B02", "B11"))


def test_real_level_1c_products_in_zip_files(shared_data):
    found = find(*sorted((shared_data / "safe").glob("*.zip")), bands=("B08", "B04"))
    assert len(found.scenes) == 2
    for source in found.scenes:
        with open_scene(source.files.hr) as scene:
            assert scene.bands == ("B08", "B04")
            assert scene.radiometry.saturated == 65535
            assert scene.read_digital().any()
        assert source.classes is None
        assert "Copernicus" in source.licence
        assert source.files.start.year in (2018, 2020)


def test_all_of_the_shared_data(shared_data):
    found = find(shared_data, bands=("B02", "B03", "B04", "B08"))
    assert {"s2/danube_a_10m.tif", "s2_more/adriatic_lagoon.tif", "hr/naip_3607717.tif"} < set(names(found))
    assert sum("safe_metadata" in one.name for one in found.skipped) == 9
    assert all(source.licence != "unknown" for source in found.scenes if source.files.name != "README.md")


# Pairs


@pytest.mark.parametrize(
    ("path", "key"),
    [("a_lr.tif", "a"), ("a-HR.tif", "a"), ("a_lr_40m.tif", "a"), ("10m.tif", "10m"), ("a_110m.tif", "a_110m")],
)
def test_ends_that_tell_the_images_of_a_pair_apart_do_not_count(path, key):
    assert pair_key(path) == key


def test_pairs_are_matched_by_name_and_never_by_position(make_scene, tmp_path):
    for name in ("a_lr.tif", "b_lr.tif", "sub/a_lr.tif"):
        make_scene(f"low/{name}")
    for name in ("sub/a_hr.tif", "b_hr.tif", "a_2.5m.tif"):
        make_scene(f"high/{name}")
    found = find(lr=tmp_path / "low", hr=tmp_path / "high")
    low, high = (str(tmp_path / folder) for folder in ("low", "high"))
    assert {source.files.name: (source.files.lr[0], source.files.hr[0]) for source in found.scenes} == {
        "a": (f"{low}/a_lr.tif", f"{high}/a_2.5m.tif"),
        "b": (f"{low}/b_lr.tif", f"{high}/b_hr.tif"),
        "sub/a": (f"{low}/sub/a_lr.tif", f"{high}/sub/a_hr.tif"),
    }


def test_names_without_a_partner_are_listed(make_scene, tmp_path):
    for name in ("low/a_lr.tif", "low/b_lr.tif", "high/a_hr.tif", "high/c_hr.tif"):
        make_scene(name)
    with pytest.raises(InputError, match=r"2 images have no partner(.|\n)*b_lr.tif(.|\n)*c_hr.tif"):
        find(lr=tmp_path / "low", hr=tmp_path / "high")


def test_two_images_of_one_name_are_refused(make_scene, tmp_path):
    for name in ("low/a_lr.tif", "low/a_10m.tif", "high/a_hr.tif"):
        make_scene(name)
    with pytest.raises(InputError, match="are both 'a'"):
        find(lr=tmp_path / "low", hr=tmp_path / "high")


def test_other_suffixes_can_be_named(make_scene, tmp_path):
    make_scene("low/a_s2.tif")
    make_scene("high/a_naip.tif")
    found = find(lr=tmp_path / "low", hr=tmp_path / "high", suffixes=["_s2", "_naip"])
    assert names(found) == ["a"]


def test_one_folder_is_no_pair(tmp_path):
    with pytest.raises(UsageError, match="--lr FOLDER --hr FOLDER"):
        find(lr=tmp_path)


def test_files_that_a_stac_item_speaks_for_are_no_scenes_of_their_own(make_scene, tmp_path):
    make_scene("data/B02.tif", bands=["B02"])
    make_scene("data/B03.tif", bands=["B03"])
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "an-item",
        "geometry": None,
        "properties": {"datetime": "2020-01-02T03:04:05Z"},
        "links": [],
        "assets": {band: {"href": f"./{band}.tif", "eo:bands": [{"name": band}]} for band in BANDS},
    }
    (tmp_path / "data" / "item.json").write_text(json.dumps(item))
    found = find(tmp_path / "data")
    assert names(found) == ["item.json"]
    assert found.scenes[0].files.start.year == 2020
