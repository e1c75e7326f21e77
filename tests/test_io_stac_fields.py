import copy
import json
import random
from datetime import datetime

import numpy as np
import pystac
import pytest

from geosr.errors import GeosrError, InputError
from geosr.io.inputs import open_input
from geosr.io.stac import item_scene, read_item
from geosr.io.stac_fields import asset_path, processing_baseline

BANDS = ("B02", "B03", "B04", "B08")
PRODUCT = "S2B_MSIL2A_20250601T101559_N0511_R065_T33UUB_20250601T123456"


def document(assets=None, **more):
    """An item with four bands in one file, as STAC 1.0 describes them."""
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
        "properties": {"datetime": "2025-06-01T10:15:59Z"},
        "assets": assets or {
            "image": {
                "href": "scene.tif", "roles": ["data"], "gsd": 10, "type": "image/tiff; application=geotiff",
                "eo:bands": [{"name": band} for band in BANDS],
                "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0} for _ in BANDS],
            }
        },
    } | more  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """What reading an item gives."""

    def read(content):
        path = tmp_path / "item.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return item_scene(read_item(str(path)))

    return read


def altered(content, path, value):
    new = copy.deepcopy(content)
    *parents, last = path
    place = new
    for key in parents:
        place = place[key]
    place[last] = value
    return new


# Numbers


@pytest.mark.parametrize(
    ("spelt", "value"),
    [
        ("nan", np.nan),
        (float("nan"), np.nan),
        (None, None),
        ("inf", np.inf),
        ("-inf", -np.inf),
        ("-9999", -9999),
        (7, 7),
    ],
)
def test_nodata_is_read_however_it_is_spelt(read, spelt, value):
    bands = [{"scale": 1e-4, "nodata": spelt} for _ in BANDS]
    found = read(altered(document(), ("assets", "image", "raster:bands"), bands))
    np.testing.assert_equal(dict(found.told), {"scale": 1e-4} | ({} if value is None else {"nodata": value}))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("assets", "image", "raster:bands", 1, "scale"), "x", 'assets.image.raster:bands[1].scale is "x"'),
        (("assets", "image", "raster:bands", 0, "scale"), 0, "raster:bands[0].scale is 0, and a number above 0"),
        (("assets", "image", "raster:bands", 0, "scale"), True, "raster:bands[0].scale is true"),
        (("assets", "image", "raster:bands", 0, "offset"), [1], "raster:bands[0].offset is [1], and a number"),
        (("assets", "image", "raster:bands", 0, "offset"), "nan", 'raster:bands[0].offset is "nan"'),
        (("assets", "image", "raster:bands", 0, "nodata"), {}, 'raster:bands[0].nodata is {}, and a number, "nan"'),
        (("assets", "image", "raster:bands"), 5, "assets.image.raster:bands is 5, and a list of objects is needed"),
        (("assets", "image", "eo:bands", 2), 5, "assets.image.eo:bands[2] is 5, and an object is needed"),
        (("assets", "image", "eo:bands", 2, "name"), 5, "assets.image.eo:bands[2].name is 5, and a text is needed"),
        (("assets", "image", "eo:bands", 2, "common_name"), 5, "common_name is 5, and a text is needed"),
        (("assets", "image", "roles"), 5, "assets.image.roles is 5, and a list of texts is needed"),
        (("assets", "image", "roles"), [[]], "assets.image.roles is [[]], and a list of texts is needed"),
        (("assets", "image", "href"), 5, "assets.image.href is 5, and a path or an address is needed"),
        (("assets", "image"), 5, "assets.image is 5, and an object is needed"),
        (("assets",), [], "assets is [], and an object is needed"),
        (("id",), 5, "STAC item 5: id is 5, and a text is needed"),
        (("properties",), None, "properties is null, and an object is needed"),
        (("properties", "s2:processing_baseline"), [5], "properties.s2:processing_baseline is [5]"),
        (("properties", "earthsearch:boa_offset_applied"), "no", 'boa_offset_applied is "no", and true or false'),
        (("properties", "bands"), 5, "properties.bands is 5, and a list of objects is needed"),
        (("links",), 5, "links is 5, and a list of objects is needed"),
        (("links",), [5], "links[0] is 5, and an object is needed"),
        (("collection",), 5, "collection is 5, and a text is needed"),
    ],
)  # fmt: skip
def test_a_field_of_a_wrong_type_is_named(read, path, value, said):
    with pytest.raises(InputError) as error:
        read(altered(document(), path, value))
    assert said in str(error.value)
    assert str(error.value).startswith("STAC item ")


def test_a_resolution_that_is_no_number_is_named(tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(altered(document(), ("assets", "image", "gsd"), "x")))
    with pytest.raises(InputError, match=r'STAC item x: assets.image.gsd is "x", and a number above 0 is needed'):
        item_scene(read_item(str(tmp_path / "item.json")), resolution=10)


def test_an_item_that_is_nested_too_deeply_is_refused(read):
    for content in ("[" * 100_000, json.dumps(document())[:-1] + ', "x": ' + "[" * 100 + "]" * 100 + "}"):
        with pytest.raises(InputError, match=r"is no STAC item .*nested more than 64 levels deep"):
            read(content)


def test_an_item_with_assets_without_end_is_refused(read):
    with pytest.raises(InputError, match="has 10001 assets, and at most 10000 are read"):
        read(document({f"a{number}": {"href": "x.tif"} for number in range(10_001)}))


ODD = [None, True, 0, -1, 1e308, float("nan"), 10**30, "", "x", "..", "/absent/x", [], {}, [[]], [None], {"a": 1}]


def test_items_with_odd_values_end_in_a_message(read, make_raster):
    make_raster(np.full((4, 8, 8), 3000, "uint16"), descriptions=BANDS)
    content, dice = document(), random.Random(0)

    def paths(node, path=()):
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield (*path, key)
            yield from paths(node[key], (*path, key))

    places, ended = list(paths(content)), 0
    for _ in range(300):
        try:
            read(altered(content, dice.choice(places), dice.choice(ODD)))
        except GeosrError as error:
            ended += "item" in str(error)
    assert ended > 100


# STAC 1.1


def test_bands_of_stac_1_1_are_read_from_where_they_were_hoisted_to(read):
    def one(**fields):
        return {"href": "x.tif", "type": "image/tiff; application=geotiff", **fields}

    facts = {"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}
    names = [{"name": band} for band in BANDS]
    expected = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
    time = {"datetime": "2025-06-01T10:15:59Z"}
    colours = dict(zip(BANDS, ("blue", "green", "red", "nir"), strict=True))
    variants = [
        document({"image": one(bands=[band | facts for band in names])}),
        document({"image": one(bands=names, **facts)}),
        document({"image": one(bands=names)}, properties=time | facts),
        document({"image": one()}, properties=time | {"bands": [band | facts for band in names]}),
        document({band: one() for band in BANDS}, properties=time | {"bands": [band | facts for band in names]}),
        document({band: one(bands=[{"name": band}], **facts) for band in BANDS}),
        document({f"asset{n}": one(bands=[{"eo:common_name": c}], **facts) for n, c in enumerate(colours.values())}),
        document({f"asset{n}": one(**{"eo:common_name": c}, **facts) for n, c in enumerate(colours.values())}),
        document({"image": one(bands=[{"name": c, "eo:common_name": c} | facts for c in colours.values()])}),
    ]
    for content in variants:
        found = read(content | {"stac_version": "1.1.0"})
        assert found.names == BANDS
        assert dict(found.told) == expected, content


def test_what_stands_nearest_to_the_band_counts(read):
    bands = [{"name": band, "raster:scale": 1e-4} for band in BANDS]
    asset = {"href": "x.tif", "bands": bands, "raster:scale": 0.5, "raster:offset": -0.1}
    properties = {"datetime": "2025-06-01T10:15:59Z", "raster:offset": 0.7, "nodata": 0}
    assert dict(read(document({"image": asset}, properties=properties)).told) == {
        "scale": 1e-4, "offset": -0.1, "nodata": 0
    }  # fmt: skip


def test_colours_name_the_bands_of_another_satellite(read):
    """B5 of Landsat is the near infrared, not the red edge that Sentinel-2 counts as B05."""
    landsat = {"B2": "blue", "B3": "green", "B4": "red", "B5": "nir"}
    assets = {
        name: {"href": f"{name}.tif", "eo:bands": [{"name": name, "common_name": c}]} for name, c in landsat.items()
    }
    properties = {"datetime": "2025-06-01T10:15:59Z", "platform": "landsat-8"}
    found = read(document(assets, properties=properties))
    assert [path.rsplit("/")[-1] for path in found.files] == ["B2.tif", "B3.tif", "B4.tif", "B5.tif"]


# The baseline


@pytest.mark.parametrize(
    ("properties", "baseline"),
    [
        ({"s2:processing_baseline": "05.11"}, "05.11"),
        ({"s2:processing_baseline": 5.11}, "05.11"),
        ({"s2:processing_baseline": 5.1}, "05.10"),
        ({"s2:processing_baseline": 4}, "04.00"),
        ({"s2:processing_baseline": 511}, "05.11"),
        ({"s2:processing_baseline": "N0511"}, "05.11"),
        ({"s2:processing_baseline": "5.9"}, "05.09"),
        ({"s2:processing_baseline": "02.12"}, "02.12"),
        ({"sentinel:processing_baseline": "05.11"}, "05.11"),
        ({"processing:version": "05.11"}, "05.11"),
        ({"processing:version": 5.11}, "05.11"),
        ({"processing:version": "1.2.3"}, None),
        ({"eopf:baseline": "05.11"}, "05.11"),
        ({"processingBaseline": "05.11"}, "05.11"),
        ({"s2:product_uri": f"{PRODUCT}.SAFE"}, "05.11"),
        ({"sentinel:product_id": PRODUCT}, "05.11"),
        ({"title": PRODUCT.replace("N0511", "N0209")}, "02.09"),
        ({"s2:granule_id": "S2B_OPER_MSI_L2A_TL_2BPS_20230625T144233_A032913_T32TQM_N05.09"}, "05.09"),
        ({"s2:product_uri": PRODUCT.replace("N0511", "N9999")}, None),
        ({"s2:processing_baseline": None}, None),
        ({"s2:processing_baseline": "05.11", "platform": "sentinel-2b"}, "05.11"),
        ({"processing:version": "6.1", "platform": "landsat-9"}, None),
        ({"insar:perpendicular_baseline": [1, 2]}, None),
        ({"s2:product_uri": f"{PRODUCT}.SAFE", "geosr:model": "s2-rgbn-x2"}, None),
    ],
)
def test_the_baseline_is_seen_however_it_is_spelt(properties, baseline):
    item = pystac.Item("x", None, None, datetime(2025, 6, 1), properties)
    assert processing_baseline(item) == baseline


def test_the_baseline_is_seen_in_the_names_of_product_and_files():
    assert processing_baseline(pystac.Item(PRODUCT, None, None, datetime(2025, 6, 1), {})) == "05.11"
    item = pystac.Item("x", None, None, datetime(2025, 6, 1), {})
    item.add_asset("B02", pystac.Asset(f"s3://eodata/{PRODUCT}.SAFE/B02.jp2"))
    assert processing_baseline(item) == "05.11"


@pytest.mark.parametrize(
    ("name", "properties"),
    [(PRODUCT, {}), ("x", {"s2:processing_baseline": 5.11}), ("x", {"s2:product_uri": f"{PRODUCT}.SAFE"})],
)
def test_a_scale_without_an_offset_is_asked_about_where_the_baseline_has_an_offset(
    make_raster, tmp_path, name, properties
):
    dn = np.random.default_rng(0).integers(1300, 5000, (4, 16, 16))
    make_raster(dn, dtype="uint16", nodata=0, descriptions=BANDS)
    content = document(id=name, properties={"datetime": "2025-06-01T10:15:59Z"} | properties)
    content["assets"]["image"]["raster:bands"] = [{"scale": 1e-4, "nodata": 0} for _ in BANDS]
    (tmp_path / "item.json").write_text(json.dumps(content))
    with pytest.raises(GeosrError, match=r"baseline 05\.11, has no offset, and not one pixel lies below 1000"):
        open_input(tmp_path / "item.json")
    with open_input(tmp_path / "item.json", offset=-0.1) as scene:
        np.testing.assert_allclose(scene.read().array, dn * 1e-4 - 0.1, atol=1e-6)


# Where assets lie


def item(home, href):
    found = pystac.Item("x", None, None, datetime(2025, 6, 1), {}, href=home)
    found.add_asset("image", pystac.Asset(href))
    return found


@pytest.mark.parametrize(
    ("home", "href", "path"),
    [
        ("/data/item.json", "sr.tif", "/data/sr.tif"),
        ("/data/item.json", "./S2:sr.tif", "/data/S2:sr.tif"),
        ("/data/item.json", "../a/sr.tif", "/a/sr.tif"),
        ("/data/item.json", "/a/b%20c#d?.tif", "/a/b%20c#d?.tif"),
        ("/data/item.json", "file:///a/sr.tif", "/a/sr.tif"),
        ("/data/item.json", "https://x.org/sr.tif?sig=a/b", "https://x.org/sr.tif?sig=a/b"),
        ("/data/item.json", "s3://bucket/sr.tif", "s3://bucket/sr.tif"),
        ("https://x.org/a/item.json", "sr.tif", "https://x.org/a/sr.tif"),
        ("https://x.org/a/item.json", "/etc/sr.tif", "https://x.org/etc/sr.tif"),
        ("https://x.org/a/item.json", "../../../../sr.tif", "https://x.org/sr.tif"),
        ("https://x.org/a/item.json", "//y.org/sr.tif", "https://y.org/sr.tif"),
        ("https://x.org/a/item.json", "s3://bucket/sr.tif", "s3://bucket/sr.tif"),
        ("s3://bucket/a/item.json", "../sr.tif", "s3://bucket/sr.tif"),
        ("s3://bucket/a/item.json", "/sr.tif", "s3://bucket/sr.tif"),
    ],
)
def test_an_asset_lies_where_its_item_says(home, href, path):
    assert asset_path(item(home, href), "image") == path


@pytest.mark.parametrize("home", ["/data/item.json", "https://x.org/item.json", "s3://bucket/item.json"])
@pytest.mark.parametrize(
    "href",
    [
        "/vsicurl/http://127.0.0.1/a.tif", "/vsizip/a.zip/a.tif", "//vsimem/a.tif",
        "/vsicurl?url=http%3A%2F%2F127.0.0.1", "WMS:http://127.0.0.1/", "GTIFF_DIR:1:/a.tif", "VRT:a.tif", "ZARR:/a",
        "<VRTDataset/>", " <GDAL_WMS/>", '{"type": "FeatureCollection"}', "a.vrt", "a.VRT", "b/wms.xml", "javascript:x",
        "http://x.org/a.vrt", "zip+https://x.org/a.zip!a.tif", "ftp://x.org/a.tif",
    ],
)  # fmt: skip
def test_no_asset_is_a_driver_or_a_list_of_other_files(home, href):
    with pytest.raises(InputError, match=r"STAC item x: assets\.image\.href is .* which is not opened"):
        asset_path(item(home, href), "image")


def test_no_path_becomes_one_of_gdals_file_systems():
    for home, href in (("/data/item.json", "/./vsicurl/http://127.0.0.1/a.tif"), ("/item.json", "vsimem/a.tif")):
        with pytest.raises(InputError, match="which is not opened"):
            asset_path(item(home, href), "image")


@pytest.mark.parametrize("home", ["https://x.org/item.json", "s3://bucket/item.json"])
def test_an_item_on_the_web_means_no_file_of_this_machine(home):
    for href in ("file:///etc/a.tif", "FILE:///etc/a.tif", " file:///etc/a.tif", "file:/etc/a.tif"):
        with pytest.raises(InputError, match="an item on the web has files on the web"):
            asset_path(item(home, href), "image")


def test_a_list_of_files_under_the_name_of_an_image_is_not_followed(read, make_raster, tmp_path):
    secret = make_raster(np.full((1, 8, 8), 3000, "uint16"), name="secret.tif")
    vrt = (
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "scene.tif").write_text(vrt)
    with pytest.raises(InputError, match=r"a list of other files, such as a VRT, .* ends in \.vrt"):
        open_input(tmp_path / "scene.tif")
    (tmp_path / "scene.vrt").write_text(vrt)
    with open_input(tmp_path / "scene.vrt", scale=1e-4) as scene:
        np.testing.assert_allclose(scene.read().array, 0.3, rtol=1e-6)


def test_what_is_signed_is_no_option():
    """Behind /vsicurl? an & begins an option of GDAL's, such as a file whose lines are sent to the server."""
    found = item("https://planetarycomputer.microsoft.com/item", "https://a.blob.core.windows.net/x&header_file=/etc/x")
    found.collection_id = "c&d"
    assert asset_path(found, "image").endswith(
        "pc_collection=c%26d&url=https://a.blob.core.windows.net/x%26header_file%3D/etc/x"
    )


def test_no_link_of_an_old_item_is_followed(read, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a link was followed")

    monkeypatch.setattr(pystac.StacIO, "read_json", refuse)
    monkeypatch.setattr(pystac.stac_io.DefaultStacIO, "read_text", refuse)
    for version in ("0.6.0", "0.8.0", "0.8.1", "0.9.0", "1.0.0"):
        link = {"rel": "collection", "href": "http://127.0.0.1:9/collection.json"}
        extensions = {"stac_extensions": ["commons", "eo"], "links": [link], "collection": "c"}
        assert read(document(stac_version=version, **extensions)).names == BANDS


# An item against its file


def test_an_item_that_contradicts_its_file_is_corrected_and_not_a_flag(read, make_raster, tmp_path):
    make_raster(np.full((4, 8, 8), 3000, "uint16"), descriptions=BANDS, scale=1e-3)
    (tmp_path / "item.json").write_text(json.dumps(document()))
    with pytest.raises(GeosrError, match=r"has scale 0\.001 \(GDAL .*STAC item x says 0\.0001; correct the item, or"):
        open_input(tmp_path / "item.json")


@pytest.mark.parametrize("marker", ["nan", 0.5, -9999])
def test_a_marker_that_the_type_of_the_file_cannot_hold_marks_nothing(make_raster, tmp_path, marker):
    make_raster(np.full((4, 8, 8), 3000, "uint16"), descriptions=BANDS, nodata=0)
    bands = [{"scale": 1e-4, "nodata": marker} for _ in BANDS]
    content = altered(document(), ("assets", "image", "raster:bands"), bands)
    (tmp_path / "item.json").write_text(json.dumps(content))
    with open_input(tmp_path / "item.json") as scene:
        assert scene.radiometry.nodata == 0
