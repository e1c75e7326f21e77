import json
from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import shape

from geosr.errors import OutputError, RadiometryError
from geosr.io.cog import Profile
from geosr.io.inputs import open_input
from geosr.io.item import write_item
from geosr.radiometry import Radiometry

BANDS = ("B02", "B08")
TIME = datetime(2023, 6, 25, 23, 46, 21, tzinfo=UTC)


def profile(crs="EPSG:32601", **encodings):
    geobox = GeoBox((300, 200), Affine(2.5, 0, 400_000, 0, -2.5, 5_000_000), crs)
    return Profile(geobox, BANDS, Radiometry(1e-4, -0.1, nodata=0), encodings=encodings)


def write(tmp_path, files, **kwargs):
    path = write_item(
        tmp_path / "sr.json", files, profile(), time=TIME, properties={"geosr:model": "m"}, sources=["a.zip"], **kwargs
    )
    return pystac.Item.from_file(str(path))


def test_an_item_says_where_when_and_what(tmp_path):
    item = write(tmp_path, {tmp_path / "sr.tif": BANDS})
    assert (item.id, item.datetime, item.properties["geosr:model"]) == ("sr", TIME, "m")
    west, south, east, north = item.bbox
    # 500 m by 750 m in the middle of nowhere; pyproj says where the corner is.
    corner = profile().geobox.extent.to_crs("EPSG:4326").boundingbox
    assert (west, south, east, north) == pytest.approx(tuple(corner), abs=1e-6)
    assert item.properties["proj:shape"] == [300, 200]
    assert item.properties["proj:transform"][:6] == [2.5, 0.0, 400_000.0, 0.0, -2.5, 5_000_000.0]
    assert item.properties["proj:code"] == "EPSG:32601"
    assert [link.href for link in item.get_links("derived_from")] == ["a.zip"]


def test_an_asset_says_what_its_numbers_mean(tmp_path):
    asset = write(tmp_path, {tmp_path / "sr.tif": BANDS}).assets["image"]
    assert asset.href == "./sr.tif"
    assert asset.media_type == pystac.MediaType.COG
    said = {"data_type": "uint16", "raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}
    assert asset.extra_fields["bands"] == [
        {"name": "B02", "eo:common_name": "blue", **said},
        {"name": "B08", "eo:common_name": "nir", **said},
    ]


def test_bands_in_files_of_their_own_are_assets(tmp_path):
    item = write(tmp_path, {tmp_path / "sr" / f"{band}.tif": [band] for band in BANDS})
    assert {name: asset.href for name, asset in item.assets.items()} == {"B02": "./sr/B02.tif", "B08": "./sr/B08.tif"}


def test_a_zarr_group_is_an_asset(tmp_path):
    asset = write(tmp_path, {tmp_path / "sr.zarr": BANDS}).assets["image"]
    assert asset.media_type.startswith("application/vnd+zarr")


def test_reflectance_in_float_is_json(tmp_path):
    encoding = Radiometry(1.0, nodata=float("nan"), dtype="float32")
    plain = Profile(profile().geobox, BANDS, encoding)
    path = write_item(tmp_path / "sr.json", {tmp_path / "sr.tif": BANDS}, plain, time=TIME, properties={})
    told = json.loads(path.read_text())["assets"]["image"]["bands"]
    assert told[0] == {
        "name": "B02", "eo:common_name": "blue", "data_type": "float32", "raster:scale": 1.0, "raster:offset": 0.0,
        "nodata": "nan",
    }  # fmt: skip


DN = {
    "uint8": (0, 255), "int8": (-128, 0), "uint16": (0, 65535), "int16": (-9999, 0, -32768), "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), -9999), "float32": (float("nan"), -9999.0, float("inf"), float("-inf"), None),
    "float64": (float("nan"), 0.0, -32767.0),
}  # fmt: skip
"""Markers of invalid pixels by type."""


@pytest.mark.parametrize(("dtype", "nodata"), [(dtype, marker) for dtype, markers in DN.items() for marker in markers])
def test_an_item_reads_as_the_file_that_it_describes(make_raster, tmp_path, dtype, nodata):
    radiometry = Radiometry(0.01, -0.1 if dtype != "uint8" else 0.0, nodata=nodata, dtype=dtype)
    dn = np.full((4, 8, 8), 60, dtype)
    dn[:, :2] = 0 if nodata is None else nodata
    bands = ("B02", "B03", "B04", "B08")
    # The file is silent: everything comes from the item.
    file = make_raster(dn, descriptions=bands, name="sr.tif")
    geobox = GeoBox((8, 8), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
    path = write_item(tmp_path / "sr.json", {file: bands}, Profile(geobox, bands, radiometry), time=TIME, properties={})
    with open_input(path) as scene:
        raster = scene.read()
    np.testing.assert_allclose(raster.array[:, 2:], 60 * 0.01 + radiometry.offset, rtol=1e-6)
    assert raster.valid[2:].all()
    assert raster.valid[:2].any() == (nodata is None)
    assert raster.radiometry.scale == 0.01
    read = raster.radiometry.nodata
    assert read == nodata or (np.isnan(read) and (nodata is None or np.isnan(nodata)))


def test_a_file_whose_name_has_a_colon_is_no_address(tmp_path):
    assert write(tmp_path, {tmp_path / "S2:sr.tif": BANDS}).assets["image"].href == "./S2:sr.tif"


def test_bands_with_an_encoding_of_their_own_keep_it(make_raster, tmp_path):
    bands = ("B02", "B03", "B04", "B08", "B02_error")
    file = make_raster(np.full((5, 8, 8), 3000, "uint16"), name="sr.tif", descriptions=bands)
    error = {"B02_error": Radiometry(1e-5, -1e-5, nodata=0)}
    plain = Profile(profile().geobox, bands, Radiometry(1e-4, -0.1, nodata=0), encodings=error)
    path = write_item(tmp_path / "sr.json", {file: bands}, plain, time=TIME, properties={})
    with open_input(path) as scene:
        np.testing.assert_allclose(scene.read(bands=("B02", "B08")).array, 0.2, rtol=1e-6)
        with pytest.raises(RadiometryError, match="says nothing about their unit"):
            scene.read(bands=("B02_error",))  # the file is silent, and the item speaks of another encoding
    with open_input(path, bands=("B02_error",)) as scene:
        np.testing.assert_allclose(scene.read(bands=("B02_error",)).array, 0.02999, rtol=1e-5)


@pytest.mark.parametrize("bands", [("B05", "B11"), ("B04", "B03", "B02"), ("thermal", "radar")])
def test_a_result_without_the_bands_of_10_m_is_read_with_those_that_it_has(make_raster, tmp_path, bands):
    file = make_raster(np.full((len(bands), 8, 8), 3000, "uint16"), descriptions=bands, name="sr.tif")
    plain = Profile(profile().geobox, bands, Radiometry(1e-4, nodata=0))
    path = write_item(tmp_path / "sr.json", {file: bands}, plain, time=TIME, properties={})
    with open_input(path) as scene:
        assert scene.bands == bands
        np.testing.assert_allclose(scene.read().array, 0.3, rtol=1e-6)


# Where it lies


@pytest.mark.parametrize(
    ("crs", "affine", "kind", "bbox"),
    [
        # 640 m on 180 E, 67 N, from either side
        (
            "EPSG:32601",
            (10, 0, 368_910, 0, -10, 7_434_850),
            "MultiPolygon",
            (179.99222, 66.99697, -179.99241, 67.00298),
        ),
        (
            "EPSG:32660",
            (10, 0, 630_450, 0, -10, 7_434_850),
            "MultiPolygon",
            (179.99241, 66.99697, -179.99222, 67.00298),
        ),
        ("EPSG:4326", (1e-4, 0, 179.9968, 0, -1e-4, -17), "MultiPolygon", (179.9968, -17.0064, -179.9968, -17)),
        ("EPSG:4326", (1e-4, 0, -180.0032, 0, -1e-4, -17), "MultiPolygon", (179.9968, -17.0064, -179.9968, -17)),
        ("EPSG:4326", (1, 0, 116, 0, -1, 10), "Polygon", (116, -54, 180, 10)),
        ("EPSG:4326", (1, 0, 180, 0, -1, 10), "Polygon", (-180, -54, -116, 10)),
        ("EPSG:4326", (5.625, 0, 0, 0, -2.8125, 90), "Polygon", (-180, -90, 180, 90)),
        # the pole inside, in a corner, on a side
        ("EPSG:3413", (1000, 0, -32_000, 0, -1000, 32_000), "Polygon", (-180, 89.58224, 180, 90)),
        ("EPSG:3413", (1000, 0, 0, 0, -1000, 0), "Polygon", (-45, 89.16449, 45, 90)),
        ("EPSG:3031", (1000, 0, -20_000, 0, -1000, 64_000), "Polygon", (-90, -90, 90, -89.2852)),
    ],
)
def test_an_item_lies_where_its_scene_lies(tmp_path, crs, affine, kind, bbox):
    plain = Profile(GeoBox((64, 64), Affine(*affine), crs), BANDS, Radiometry(1e-4, nodata=0))
    path = write_item(tmp_path / "sr.json", {tmp_path / "sr.tif": BANDS}, plain, time=TIME, properties={})
    content = json.loads(path.read_text())
    assert content["geometry"]["type"] == kind
    assert content["bbox"] == pytest.approx(bbox, abs=1e-5)
    outline = shape(content["geometry"])
    assert outline.is_valid
    assert all(part.exterior.is_ccw for part in getattr(outline, "geoms", [outline]))
    validate(path)


def test_a_scene_without_crs_lies_nowhere(tmp_path):
    plain = Profile(GeoBox((4, 4), Affine(1, 0, 0, 0, 1, 0), None), BANDS, Radiometry(1e-4, nodata=0))
    path = write_item(tmp_path / "sr.json", {tmp_path / "sr.tif": BANDS}, plain, time=TIME, properties={"gsd": None})
    content = json.loads(path.read_text())
    assert content["geometry"] is None
    assert "bbox" not in content
    assert "gsd" not in content["properties"]
    assert content["properties"]["proj:code"] is None
    validate(path)


def test_a_crs_without_a_code_is_described(tmp_path):
    crs = "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m"
    plain = Profile(GeoBox((4, 4), Affine(10, 0, 0, 0, -10, 0), crs), BANDS, Radiometry(1e-4, nodata=0))
    path = write_item(tmp_path / "sr.json", {tmp_path / "sr.tif": BANDS}, plain, time=TIME, properties={})
    properties = json.loads(path.read_text())["properties"]
    assert properties["proj:code"] is None
    assert GeoBox((4, 4), Affine.identity(), properties["proj:wkt2"]).crs == plain.geobox.crs


def validate(path):
    item = pystac.Item.from_file(str(path))
    item.stac_extensions = []  # the schemas of extensions are on the web, that of an item comes with pystac
    item.validate()


def test_an_item_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OutputError, match=r"sr\.json cannot be written: No such file"):
        write_item(tmp_path / "no" / "sr.json", {tmp_path / "sr.tif": BANDS}, profile(), time=TIME, properties={})


@pytest.mark.parametrize("out", ["sr.tif", "sr.zarr", "bands"])
def test_a_prediction_writes_its_item(geosr, make_raster, small_weights, tmp_path, out):
    scene = make_raster(
        np.full((4, 9, 12), 3000, "uint16"), scale=1e-4, nodata=0, descriptions=("B02", "B03", "B04", "B08")
    )
    command = ("predict", scene, "--out", tmp_path / out, "--model", small_weights)
    code, said, error = geosr(*command, "--stac", "--datetime", "2023-06-25")
    assert code == 0, error
    path = (tmp_path / out).with_suffix(".json")
    assert f"{path}: STAC item" in said
    item = pystac.Item.from_file(str(path))
    item.make_asset_hrefs_absolute()
    assert item.datetime == datetime(2023, 6, 25, tzinfo=UTC)
    assert (
        item.properties["geosr:weights_sha256"]
        == json.loads(geosr("models", "show", small_weights, "--json")[1])["sha256"]
    )
    for asset in item.assets.values():
        assert (tmp_path / asset.href).exists()
    validate(path)
