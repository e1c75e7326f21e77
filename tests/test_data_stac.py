import json
import socket
import time

import numpy as np
import pystac
import pytest
import rasterio
import zarr
from affine import Affine

from geosr.data.prepare import prepare
from geosr.data.splits import BlockSplit
from geosr.data.stac import item_source, search_stac
from geosr.data.store import check_store, open_store
from geosr.errors import BandError, InputError, RadiometryError, UsageError
from geosr.io.claims import Claims
from geosr.io.scene import open_files, open_scene
from geosr.io.stac import read_item

BANDS = ("B02", "B03")
SIDE = 2048
WEST, SOUTH, EAST, NORTH = 13.727967, 44.962, 13.988, 45.146393  # the tiles of `folder`, degrees


# What an item says


def asset(href, band=None, *, scale=1e-4, offset=-0.1, **more):
    """An asset as STAC 1.0 tells it."""
    fields = {"href": href, "raster:bands": [{"scale": scale, "offset": offset, "nodata": 0}], **more}
    return fields | ({"eo:bands": [{"name": band}]} if band else {})


def item(assets, *, name="S2A_33TVL_20230601", cloud=5.0, **properties):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2",
        "geometry": {"type": "Point", "coordinates": [WEST, NORTH]},
        "bbox": [WEST, SOUTH, EAST, NORTH],
        "properties": {"datetime": "2023-06-01T10:00:00Z", "eo:cloud_cover": cloud, **properties},
        "links": [],
        "assets": assets,
    }


def source(assets, *, bands=BANDS, encoding=Claims(), **properties):  # noqa: B008
    return item_source(pystac.Item.from_dict(item(assets, **properties)), bands, encoding)


def test_assets_are_chosen_by_band_and_by_common_name_at_the_finest_resolution():
    assets = {
        "visual": asset("tci.tif", "B02", roles=["visual"]),
        "green-coarse": asset("green20.tif", "green", gsd=20),
        "green": {**asset("green.tif", gsd=10), "eo:bands": [{"name": "x", "common_name": "green"}]},
        "blue-jp2": asset("blue.jp2", "blue", gsd=10),
        "blue": asset("blue.tif", "blue", gsd=10),
        "SCL": {"href": "scl.tif"},
    }
    found = source(assets)
    assert found.files.hr == ("blue.tif", "green.tif")
    assert (found.names, found.classes) == (BANDS, "scl.tif")
    assert (found.files.start.year, found.origin) == (2023, "sentinel-2 S2A_33TVL_20230601")


def test_one_file_with_all_bands_is_one_file():
    together = {"href": "all.tif", "eo:bands": [{"name": "B03"}, {"name": "mask"}, {"name": "B02"}]}
    found = source({"B02": asset("B02.tif", "B02"), "all": together, "B03": asset("B03.tif", "B03")})
    assert (found.files.hr, found.names) == (("all.tif",), ("B03", "mask", "B02"))


def test_bands_of_stac_1_1_are_read():
    assets = {
        band: {
            "href": f"{band}.tif",
            "bands": [{"name": band, "raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}],
        }
        for band in BANDS
    }
    found = source(assets)
    assert found.files.hr == ("B02.tif", "B03.tif")
    assert found.encoding == Claims(scale=1e-4, offset=-0.1, nodata=0)


def test_names_of_assets_are_bands_where_nothing_else_names_them():
    assert source({f"{band}_10m": asset(f"{band}.tif") for band in BANDS}).files.hr == ("B02.tif", "B03.tif")


def test_a_missing_band_is_told_with_those_that_are_there():
    with pytest.raises(BandError, match=r"no asset with band 'B03' \(B02\)"):
        source({"blue": asset("blue.tif", "B02")})


def test_the_user_fills_what_the_item_leaves_open_and_contradicts_nothing():
    assets = {band: {"href": f"{band}.tif", "raster:bands": [{"scale": 1e-4}]} for band in BANDS}
    assert source(assets, encoding=Claims(offset=-0.1)).encoding == Claims(scale=1e-4, offset=-0.1)
    with pytest.raises(RadiometryError, match=r"has scale 0\.0001 and --scale says 1; drop the flag"):
        source(assets, encoding=Claims(scale=1.0))


def test_bands_of_different_encodings_are_refused():
    with pytest.raises(RadiometryError, match="different offset"):
        source({"B02": asset("a.tif"), "B03": asset("b.tif", offset=0.0)})


def test_an_item_that_contradicts_itself_about_its_offset_asks_the_user():
    assets = {band: asset(f"{band}.tif") for band in BANDS}
    applied = {"earthsearch:boa_offset_applied": True}
    with pytest.raises(RadiometryError, match="give --offset 0 or that number"):
        source(assets, **applied)
    assert source(assets, encoding=Claims(offset=0.0), **applied).encoding.offset == 0


def test_relative_addresses_count_from_the_item(tmp_path, make_raster):
    for band in BANDS:
        make_raster(np.full((1, 8, 8), 2000), name=f"{band}.tif", dtype="uint16")
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item({band: asset(f"./{band}.tif", band) for band in BANDS})))
    found = item_source(read_item(str(path)), BANDS)
    with open_files(found.files.hr, found.encoding, bands=found.names) as scene:
        assert scene.bands == BANDS
        np.testing.assert_allclose(scene.read().array, 0.1, atol=1e-6)


def test_tags_of_a_file_that_contradict_its_item_are_refused(tmp_path, make_raster):
    for band in BANDS:
        make_raster(np.full((1, 8, 8), 2000), name=f"{band}.tif", dtype="uint16", scale=1e-4, offset=0.0)
    (tmp_path / "item.json").write_text(json.dumps(item({band: asset(f"{band}.tif", band) for band in BANDS})))
    found = item_source(read_item(str(tmp_path / "item.json")), BANDS)
    with pytest.raises(RadiometryError, match="has offset 0"):
        open_files(found.files.hr, found.encoding, bands=found.names)


@pytest.mark.parametrize("content", ["{", "[]", '{"type": "FeatureCollection", "features": []}'])
def test_what_is_no_item_is_refused(tmp_path, content):
    path = tmp_path / "item.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"item\.json is no STAC item"):
        read_item(str(path))


def test_a_catalogue_is_no_item(tmp_path):
    pystac.Catalog("c", "a catalogue").normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    with pytest.raises(InputError, match="is a STAC catalog, not an item"):
        read_item(str(tmp_path / "catalog.json"))


# A STAC API on this machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tiled GeoTIFFs of one band each, 20 x 20 km, and their clouds; noise does not compress."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    images = {band: rng.integers(1000, 5000, (SIDE, SIDE), dtype=np.uint16) for band in BANDS}
    images["SCL"] = np.where(rng.random((SIDE // 2, SIDE // 2)) < 0.05, 9, 4).astype(np.uint8)
    for name, image in images.items():
        step = 10 * SIDE // len(image)
        profile = {"count": 1, "height": len(image), "width": len(image), "dtype": image.dtype, "crs": "EPSG:32633"}
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "nodata": 0}
        transform = Affine(step, 0, 400_000, 0, -step, 5_000_000)
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", transform=transform, **profile) as file:
            file.write(image[None])
    return folder


@pytest.fixture
def api(folder, serve_stac):
    """The address of a running API, and a function that tells the requests that it got."""
    return serve_stac(folder)


def test_a_search_asks_what_the_user_asked_and_tells_the_licence(api):
    url, log = api
    box = [WEST, SOUTH, EAST, NORTH]
    (found,) = search_stac(url, "sentinel-2", bbox=box, datetime="2023-06", max_cloud=10)
    assert found.id == "clear"
    assert found.properties["license"] == "CC-BY-4.0"
    (_, path, asked) = next(request for request in log() if request[0] == "POST")
    assert path == "/search"
    assert (asked["collections"], asked["bbox"]) == (["sentinel-2"], box)
    assert asked["datetime"].startswith("2023-06-01T00:00:00Z/2023-06-30")
    assert asked["query"] == {"eo:cloud_cover": {"lte": 10}}
    assert [one.id for one in search_stac(url, "sentinel-2")] == ["clear", "cloudy"]
    assert len(search_stac(url, "sentinel-2", limit=1)) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"collection": "sentinel-3"}, InputError, "no collection 'sentinel-3'.*did you mean 'sentinel-2'"),
        ({"collection": "sentinel-2", "max_cloud": 1}, InputError, "has no item for .*max_cloud 1; widen the search"),
        ({"collection": "sentinel-2", "bbox": [5, 5, 1, 1]}, UsageError, "west south east north"),
    ],
)
def test_a_search_that_cannot_work_says_why(api, arguments, error, told):
    with pytest.raises(error, match=told):
        search_stac(api[0], **arguments)


def test_a_box_over_180_degrees_is_asked_for(api):
    url, log = api
    search_stac(url, "sentinel-2", bbox=[179.5, 66, -179.5, 67])
    (_, _, asked) = next(request for request in log() if request[0] == "POST")
    assert asked["bbox"] == [179.5, 66, -179.5, 67]


def test_an_api_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr("geosr.io.documents.SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts and never answers
        start = time.monotonic()
        with pytest.raises(InputError, match=r"does not answer as a STAC API \(.*takes longer than 0\.3 s"):
            search_stac(f"http://127.0.0.1:{silent.getsockname()[1]}/", "sentinel-2")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("landing", [[], {}, {"type": "Feature", "stac_version": "0.8.0", "links": []}, "x"])
def test_an_answer_of_another_kind_is_no_api(monkeypatch, landing):
    monkeypatch.setattr("geosr.data.stac.StacApiIO.request", lambda *_, **__: json.dumps(landing))
    with pytest.raises(InputError, match="does not answer as a STAC API"):
        search_stac("http://127.0.0.1:1/", "sentinel-2")


def test_an_api_links_to_web_addresses_alone(monkeypatch, tmp_path):
    (tmp_path / "collections.json").write_text('{"collections": []}')
    landing = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "x", "description": "x",
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/collections"],
        "links": [{"rel": rel, "href": f"file://{tmp_path}/collections.json"} for rel in ("data", "search", "child")],
    }  # fmt: skip
    monkeypatch.setattr("geosr.data.stac.StacApiIO.request", lambda *_, **__: json.dumps(landing))
    with pytest.raises(InputError, match="which is no web address"):
        search_stac("http://127.0.0.1:1/", "sentinel-2")


def test_an_address_that_is_no_api_says_so():
    with pytest.raises(InputError, match="does not answer as a STAC API"):
        search_stac("http://127.0.0.1:1/", "sentinel-2")


def test_only_the_wanted_part_of_a_scene_is_fetched(api, folder, tmp_path):
    url, log = api
    box = (13.80, 45.06, 13.83, 45.08)
    items = search_stac(url, "sentinel-2", bbox=box, max_cloud=10)
    options = {"bands": BANDS, "patch": 64, "bbox": box, "split": BlockSplit((1, 0, 0)), "max_cloud": 10}
    done = prepare(items, tmp_path / "train.zarr", **options)
    store = open_store(done.path)
    (entry,) = store.manifest["scenes"]
    row, column, height, width = entry["window"]["hr"]
    with open_scene(store.scenes[0].hr) as stored:
        assert stored.radiometry.offset == -0.1
        for number, band in enumerate(BANDS):
            with rasterio.open(folder / f"{band}.tif") as file:
                whole = file.read(1)
            expected = whole[row : row + height, column : column + width]
            np.testing.assert_array_equal(stored.read_digital()[number], expected)
        left, bottom, right, top = stored.geobox.geographic_extent.boundingbox
        assert left <= box[0] < box[2] <= right
        assert bottom <= box[1] < box[3] <= top
    answers = [request for request in log() if request[0] in (200, 206)]
    assert {status for status, _, _ in answers} == {206}
    for path in folder.iterdir():
        fetched = sum(size for _, name, size in answers if name == path.name)
        assert 0 < fetched < path.stat().st_size
    clouds = np.asarray(zarr.open_group(done.path / "index", mode="r")["cloud"])
    assert 0.03 < clouds.mean() < 0.07
    assert (entry["licence"], entry["files"][0]["sha256"]) == ("CC-BY-4.0", None)
    assert check_store(done.path).violations == ()
