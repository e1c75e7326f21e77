import json
from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.errors import OutputError
from geosr.io.cog import Profile
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
    code = item.properties.get("proj:code") or f"EPSG:{item.properties.get('proj:epsg')}"
    assert code == "EPSG:32601"
    assert [link.href for link in item.get_links("derived_from")] == ["a.zip"]


def test_an_asset_says_what_its_numbers_mean(tmp_path):
    asset = write(tmp_path, {tmp_path / "sr.tif": BANDS}).assets["image"]
    assert asset.href == "sr.tif"
    assert asset.media_type == pystac.MediaType.COG
    assert asset.extra_fields["eo:bands"] == [{"name": "B02"}, {"name": "B08"}]
    assert asset.extra_fields["raster:bands"] == 2 * [
        {"data_type": "uint16", "scale": 1e-4, "offset": -0.1, "nodata": 0}
    ]


def test_bands_in_files_of_their_own_are_assets(tmp_path):
    item = write(tmp_path, {tmp_path / "sr" / f"{band}.tif": [band] for band in BANDS})
    assert {name: asset.href for name, asset in item.assets.items()} == {"B02": "sr/B02.tif", "B08": "sr/B08.tif"}


def test_a_zarr_group_is_an_asset(tmp_path):
    asset = write(tmp_path, {tmp_path / "sr.zarr": BANDS}).assets["image"]
    assert asset.media_type.startswith("application/vnd+zarr")


def test_reflectance_in_float_is_json(tmp_path):
    encoding = Radiometry(1.0, nodata=float("nan"), dtype="float32")
    plain = Profile(profile().geobox, BANDS, encoding)
    path = write_item(tmp_path / "sr.json", {tmp_path / "sr.tif": BANDS}, plain, time=TIME, properties={})
    told = json.loads(path.read_text())["assets"]["image"]["raster:bands"]
    assert told[0] == {"data_type": "float32", "scale": 1.0, "offset": 0.0, "nodata": "nan"}


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
    item.stac_extensions = []  # the schemas of extensions are on the web, that of an item comes with pystac
    item.validate()
