import json
import math
from datetime import datetime

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from stac_api import LIKE, PLANETARY

from geosr.errors import BandError, GeosrError, InputError, RadiometryError
from geosr.io.claims import Claims
from geosr.io.inputs import open_input
from geosr.io.stac import item_claims, item_scene, read_item

BANDS = ("B02", "B03", "B04", "B08")
SIDE = 400


@pytest.fixture(scope="module")
def truth(shared_data):
    """Real reflectance, times 10 000: vegetation, fields and villages."""
    with rasterio.open(shared_data / "s2" / "germany_fields_10m.tif") as file:
        pixels = file.read(window=((0, SIDE), (0, SIDE))).astype("uint16")
    assert pixels.shape == (4, SIDE, SIDE)
    return pixels


def write_files(folder, dn):
    """Each band as a tiled GeoTIFF without any tag, and a classification with clouds at its upper edge."""
    folder.mkdir()
    scl = np.full((SIDE // 2, SIDE // 2), 4, "uint8")
    scl[:20] = 8
    for name, pixels in (*zip(BANDS, dn, strict=True), ("SCL", scl)):
        step = 10 * SIDE // len(pixels)
        profile = {"count": 1, "height": len(pixels), "width": len(pixels), "dtype": pixels.dtype, "crs": "EPSG:32633"}
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        transform = Affine(step, 0, 400_000, 0, -step, 5_000_000)
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", transform=transform, **profile) as file:
            file.write(pixels[None])
    return folder


@pytest.fixture(scope="module")
def folders(truth, tmp_path_factory):
    """The files with the offset in them, as the agency makes them since baseline 04.00, and with it taken out."""
    folder = tmp_path_factory.mktemp("files")
    return {"with": write_files(folder / "with", truth + 1000), "without": write_files(folder / "without", truth)}


# Reading items


def test_an_item_is_read_from_a_file_an_address_and_an_api(folders, serve_stac, truth, tmp_path):
    url, _ = serve_stac(folders["with"])
    address = f"{url}/collections/sentinel-2/items/clear"
    saved = tmp_path / "clear.json"
    read_item(address).save_object(dest_href=str(saved))
    for arguments in ({"sources": address}, {"sources": url, "item": "sentinel-2/clear"}, {"sources": saved}):
        with open_input(**arguments) as scene:
            assert scene.bands == BANDS
            assert scene.facts["offset"] == "STAC item clear"
            raster = scene.read(np.s_[50:100, 60:90])
            np.testing.assert_allclose(raster.array, truth[:, 50:100, 60:90] / 10_000, atol=1e-6)
            assert list(scene.masks) == ["clouds", "defects", "snow"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"sources": "{url}", "item": "sentinel-2/missing"}, r"items/missing cannot be read \(HTTP Error 404"),
        ({"sources": "{url}", "item": "clear"}, "--item clear needs the address of a STAC API's landing page"),
        ({"sources": "{url}"}, "is a STAC catalog, not an item; .* of an API, give --item collection/id"),
        ({"sources": "scene.tif", "item": "sentinel-2/clear"}, r"scene\.tif was given"),
        ({"sources": "http://127.0.0.1:1/item"}, r"cannot be read \(.*\); is there a network\?"),
        ({"sources": "https://no.such.host.invalid/v1", "item": "a/b"}, r"cannot be read \(.*\); is there a network\?"),
    ],
)
def test_an_item_that_cannot_be_read_says_why(folders, serve_stac, arguments, told):
    url, _ = serve_stac(folders["with"])
    with pytest.raises(InputError, match=told):
        open_input(**{name: value.format(url=url) for name, value in arguments.items()})


def test_without_pystac_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pystac", None)
    with pytest.raises(GeosrError, match=r"a STAC item needs pystac: pip install 'geosr\[stac\]'"):
        read_item("item.json")


def test_a_file_that_is_larger_than_any_item_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr("geosr.io.documents.LIMIT", 10)
    (tmp_path / "item.json").write_text("[" * 100)
    with pytest.raises(InputError, match="is no STAC item"):
        read_item(str(tmp_path / "item.json"))


# Clouds


def test_the_classification_of_an_item_masks_its_clouds(folders, serve_stac):
    url, _ = serve_stac(folders["with"])
    with open_input(url, item="sentinel-2-c1-l2a/plain", mask=["clouds"], mask_dilate=30) as scene:
        assert scene.facts["masked"] == "SCL.tif"
        valid = scene.read(np.s_[0:60, 0:50]).valid
        assert not valid[:43].any()
        assert valid[43:].all()


# Offsets: what catalogues say, and what their files hold


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("sentinel-2-c1-l2a/plain", "with"),
        ("sentinel-2-l2a/denied", "with"),
        ("sentinel-2-l2a/applied", "without"),
        ("sentinel-2-l2a/old", "without"),
        ("sentinel-2-l2a/new", "with"),
        ("sentinel-2-l2a/first", "without"),
    ],
)
def test_items_that_are_right_give_reflectance(folders, serve_stac, truth, name, files):
    url, _ = serve_stac(folders[files])
    with open_input(url, item=name) as scene:
        np.testing.assert_allclose(scene.read(np.s_[:9, :9]).array, truth[:, :9, :9] / 10_000, atol=1e-6)
        assert scene.radiometry.nodata == 0


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("sentinel-2-l2a/denied", "without", r"gives offset -0\.1, with which \d\d % of the pixels of B0\d have"),
        ("sentinel-2-c1-l2a/plain", "without", r"gives offset -0\.1, with which \d\d % of the pixels of B0\d have"),
        ("sentinel-2-l2a/new", "without", r"gives offset -0\.1, with which \d\d % of the pixels of B0\d have"),
        ("sentinel-2-l2a/applied", "with", "says that its offset was applied, and not one pixel lies below 1000"),
        (
            "sentinel-2-l2a/both",
            "with",
            r"was applied already and gives offset -0\.1 all the same",
        ),
        ("sentinel-2-l2a/both", "without", "says that its offset was applied already and gives offset"),
    ],
)
def test_items_whose_files_contradict_them_are_asked_about_and_the_flag_decides(
    folders, serve_stac, truth, name, files, told
):
    url, _ = serve_stac(folders[files])
    with pytest.raises(RadiometryError, match=told.replace(" %", "%")) as error:
        open_input(url, item=name)
    assert "median" in str(error.value)
    flags = {"with": "--offset -0.1 --scale 1e-4", "without": "--offset 0 --scale 1e-4"}
    assert all(flag in str(error.value) for flag in flags.values())
    offset, scale = map(float, flags[files].split()[1::2])
    with open_input(url, item=name, offset=offset, scale=scale) as scene:
        np.testing.assert_allclose(scene.read(np.s_[:9, :9]).array, truth[:, :9, :9] / 10_000, atol=1e-6)
        assert scene.facts["offset"] == "flag --offset"


def test_a_flag_against_an_item_that_nothing_contradicts_is_refused(folders, serve_stac):
    url, _ = serve_stac(folders["with"])
    with pytest.raises(RadiometryError, match="which its values do not contradict, and --offset says 0; drop the flag"):
        open_input(url, item="sentinel-2-c1-l2a/plain", offset=0)
    old, _ = serve_stac(folders["without"])
    with pytest.raises(RadiometryError, match=r"has offset 0, .* and --offset says -0\.1; drop the flag"):
        open_input(old, item="sentinel-2-l2a/old", offset=-0.1)
    with pytest.raises(RadiometryError, match=r"has scale 0\.0001 and --scale says 1; drop the flag"):
        open_input(old, item="sentinel-2-l2a/old", scale=1)


def test_an_item_of_another_catalogue_without_raster_bands_stays_silent(folders, serve_stac, tmp_path):
    """That the files hold the product's own numbers is known of the Planetary Computer alone."""
    url, _ = serve_stac(folders["with"])
    item = read_item(f"{url}/collections/sentinel-2-l2a/items/new")
    assert item_scene(item).told["offset"] == -0.1
    item.clear_links()
    assert dict(item_scene(item).told) == {}
    item.save_object(include_self_link=False, dest_href=str(tmp_path / "item.json"))
    with (
        open_input(tmp_path / "item.json") as scene,
        pytest.raises(RadiometryError, match="says nothing about their unit"),
    ):
        scene.read(np.s_[:2, :2])


def test_pixels_that_are_nodata_raise_no_doubt(truth, tmp_path, serve_stac):
    dn = truth + 1000
    dn[:, :, 100:] = 0
    url, _ = serve_stac(write_files(tmp_path / "partly", dn))
    with open_input(url, item="sentinel-2-c1-l2a/plain") as scene:
        assert scene.read(np.s_[:9, 200:209]).valid.sum() == 0
    with pytest.raises(RadiometryError, match="not one pixel lies below 1000"):
        open_input(url, item="sentinel-2-l2a/applied")


def test_the_encoding_of_an_item_without_its_files_is_as_for_training():
    from geosr.io.stac import ItemScene

    found = ItemScene("x", ("a.tif",), ("B02",), told={"scale": 1e-4, "offset": -0.1})
    assert item_claims(found, Claims(nodata=0)) == Claims(1e-4, -0.1, 0)
    assert item_claims(found, Claims(offset=0.0), decides=True).offset == 0
    with pytest.raises(RadiometryError, match="--offset says 0; drop the flag"):
        item_claims(found, Claims(offset=0.0))
    assert math.isnan(item_claims(ItemScene("x", (), (), told={"nodata": math.nan}), Claims()).nodata)


# The Planetary Computer


def planetary(host, **more):
    item = pystac.Item("x", {"type": "Point", "coordinates": [0, 0]}, [0, 0, 0, 0], datetime(2024, 1, 1), {})
    item.collection_id = "sentinel-2-l2a"
    for band in (*BANDS, "SCL"):
        href = f"https://{host}/s2/S2B.SAFE/{band}_10m.tif"
        item.add_asset(band, pystac.Asset(href, extra_fields={"eo:bands": [{"name": band}], "gsd": 10, **more}))
    item.add_link(pystac.Link("root", f"{PLANETARY}/"))
    return item


def test_files_of_the_planetary_computer_are_signed_and_those_of_others_are_not():
    found = item_scene(planetary("sentinel2l2a01.blob.core.windows.net"))
    start = "/vsicurl?pc_url_signing=yes&pc_collection=sentinel-2-l2a&url=https://sentinel2l2a01.blob.core.windows.net/"
    assert found.files[0] == f"{start}s2/S2B.SAFE/B02_10m.tif"
    assert found.classes.startswith(start)
    assert item_scene(planetary("example.org")).files[0] == "https://example.org/s2/S2B.SAFE/B02_10m.tif"
    other = planetary("sentinel2l2a01.blob.core.windows.net")
    other.clear_links()
    other.add_link(pystac.Link("root", pystac.Catalog("pc", "as a search gives it", href=PLANETARY)))
    assert item_scene(other).files[0].startswith("/vsicurl?pc_url_signing=yes")
    other.clear_links()
    assert item_scene(other).files[0].startswith("https://")


def test_a_signed_file_is_read_with_a_signature_and_keeps_its_name(folders, serve_stac, truth):
    url, log = serve_stac(folders["without"])
    path = f"/vsicurl?pc_url_signing=yes&pc_collection=sentinel-2-l2a&url={url}/files/B03.tif"
    with rasterio.Env(VSICURL_PC_SAS_TOKEN_URL=f"{url}/token/"), open_input(path, scale=1e-4) as scene:
        assert (scene.name, scene.paths) == ("B03.tif", (path,))
        np.testing.assert_allclose(scene.read(np.s_[:9, :9]).array[0], truth[1, :9, :9] / 10_000, atol=1e-6)
    requests = [request for request in log() if "B03.tif" in request]
    assert requests
    assert all(request[-1] == "signed" for request in requests)
    assert ["TOKEN", "/token/sentinel-2-l2a"] in log()


# Bands


def test_the_resolution_chooses_among_assets():
    item = planetary("example.org")
    for band in ("B02", "B11"):
        item.add_asset(f"{band}_20m", pystac.Asset(f"{band}_20m.tif", extra_fields={"gsd": 20}))
    assert item_scene(item, resolution=20).names == ("B02", "B11")
    assert item_scene(item, ["B02"]).files == ("https://example.org/s2/S2B.SAFE/B02_10m.tif",)
    assert item_scene(item, ["B02"], resolution=20).files == ("B02_20m.tif",)
    with pytest.raises(BandError, match=r"no asset with band 'B03' \(B02 B11\)"):
        item_scene(item, ["B03"], resolution=20)


def test_every_item_of_the_api_is_a_valid_one(folders, serve_stac):
    url, _ = serve_stac(folders["with"])
    for name in LIKE:
        found = item_scene(read_item(url, name))
        assert found.names == BANDS
        assert json.dumps(dict(found.told))
