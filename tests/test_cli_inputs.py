"""`geosr predict` and `geosr info` on every kind of input, from the command line to the file."""

import json
import shutil
import warnings

import numpy as np
import pytest
import rasterio
from product_kit import L2A, write_l2a, zipped
from pystac_client import Client

from geosr.io.inputs import open_input
from geosr.io.zarr import create_zarr

SIDE = 48


@pytest.fixture(scope="module")
def dn(shared_data):
    with rasterio.open(shared_data / "s2" / "germany_fields_10m.tif") as file:
        return file.read(window=((60, 60 + SIDE), (80, 80 + SIDE))).astype("uint16") + 1000


@pytest.fixture(scope="module")
def scl():
    values = np.full((SIDE // 2, SIDE // 2), 4, "uint8")
    values[2:5, 3:9], values[15, 15] = 9, 1
    return values


@pytest.fixture
def product(shared_data, tmp_path, dn, scl):
    return write_l2a(tmp_path, shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml", dn, scl)


@pytest.fixture
def predict(geosr, small_weights, tmp_path):
    """Runs ``geosr predict`` with a small x2 model; its output's numbers, and how they encode reflectance."""

    def run(*arguments):
        out = tmp_path / "sr.tif"
        code, _, said = geosr("predict", *arguments, "-o", out, "-m", small_weights, "--device", "cpu", "--quiet")
        assert code == 0, said
        with rasterio.open(out) as file:
            return file.read(), (file.scales[0], file.offsets[0], file.nodata), file.descriptions

    return run


def folder_of_bands(product, tmp_path):
    target = tmp_path / "bands"
    shutil.copytree(next(product.glob("GRANULE/*/IMG_DATA/R10m")), target)
    return target, "--scale", "1e-4", "--offset", "-0.1", "--nodata", "0"


def one_zarr(product, tmp_path):
    path = tmp_path / "scene.zarr"
    with open_input(product) as scene:
        writer = create_zarr(path, geobox=scene.geobox, bands=scene.bands, radiometry=scene.radiometry)
        writer.write(np.s_[0:SIDE, 0:SIDE], scene.read_digital())
    return (path,)


KINDS = {
    "folder": lambda product, _: (product,),
    "metadata file": lambda product, _: (product / "MTD_MSIL2A.xml",),
    "zip file": lambda product, _: (zipped(product),),
    "files": lambda product, _: sorted(product.glob("GRANULE/*/IMG_DATA/R10m/*.jp2")),
    "folder of bands": folder_of_bands,
    "zarr": one_zarr,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_the_same_image(predict, product, make_raster, tmp_path, dn, kind):
    with rasterio.open(next(product.rglob("*_B02_10m.jp2"))) as file:
        place = {"crs": file.crs, "transform": file.transform}
    plain = make_raster(
        dn, name="plain.tif", nodata=0, scale=1e-4, offset=-0.1, descriptions=("B02", "B03", "B04", "B08"), **place
    )
    expected, encoding, bands = predict(plain)
    (tmp_path / "sr.tif").unlink()
    sr, its_encoding, its_bands = predict(*KINDS[kind](product, tmp_path))
    np.testing.assert_array_equal(sr, expected)
    assert (its_encoding, its_bands) == (encoding, bands) == ((1e-4, -0.1, 0), ("B02", "B03", "B04", "B08"))


def test_a_real_level_1c_product_in_its_zip_file(predict, shared_data):
    (path,) = (shared_data / "safe").glob("*T53JQJ*.zip")
    bare, encoding, _ = predict(path)
    assert encoding == (1e-4, 0, 0)
    masked, _, _ = predict(path, "--mask", "clouds", "--overwrite")
    with open_input(path) as scene, open_input(path, mask=["clouds"]) as without:
        for sr, one in ((bare, scene), (masked, without)):
            np.testing.assert_array_equal((sr != 0).all(axis=0), one.read().valid.repeat(2, 0).repeat(2, 1))
    assert (masked == 0).sum() > (bare == 0).sum()


def test_clouds_are_nodata_in_the_output(predict, product, scl):
    sr, _, _ = predict(product, "--mask", "clouds,defects", "--mask-dilate", "20")
    with open_input(product, mask=["clouds", "defects"], mask_dilate=20) as scene:
        valid = scene.read().valid
    assert 0 < valid.sum() < (~np.isin(scl, [1, 9])).sum() * 4
    np.testing.assert_array_equal((sr != 0).all(axis=0), valid.repeat(2, 0).repeat(2, 1))


@pytest.fixture
def files(tmp_path, dn, scl):
    """A folder of one GeoTIFF for each band, without tags, and a classification."""
    files = tmp_path / "files"
    files.mkdir()
    for band, pixels in (*zip(("B02", "B03", "B04", "B08"), dn, strict=True), ("SCL", scl)):
        step = 10 * SIDE // len(pixels)
        profile = {"count": 1, "height": len(pixels), "width": len(pixels), "dtype": pixels.dtype, "crs": "EPSG:32633"}
        transform = rasterio.Affine(step, 0, 400_000, 0, -step, 5_000_000)
        with rasterio.open(files / f"{band}.tif", "w", driver="GTiff", transform=transform, **profile) as file:
            file.write(pixels[None])
    return files


def test_an_item_of_an_api_is_predicted_and_its_doubts_are_shown(geosr, predict, serve_stac, product, files, scl):
    url, _ = serve_stac(files)
    expected, _, _ = predict(product)
    sr, encoding, _ = predict(url, "--item", "sentinel-2-c1-l2a/plain", "--overwrite")
    np.testing.assert_array_equal(sr, expected)
    assert encoding == (1e-4, -0.1, 0)
    code, _, said = geosr("info", url, "--item", "sentinel-2-l2a/applied")
    assert code == 1
    assert "--offset -0.1 --scale 1e-4" in said
    flags = ("--item", "sentinel-2-l2a/applied", "--offset", "-0.1", "--scale", "1e-4")
    sr, _, _ = predict(url, *flags, "--overwrite")
    np.testing.assert_array_equal(sr, expected)
    sr, _, _ = predict(url, *flags, "--overwrite", "--mask", "clouds")
    assert (sr == 0).all(axis=0).sum() == 16 * (scl == 9).sum()


def test_what_a_search_found_is_a_batch(geosr, predict, serve_stac, product, files, small_weights, tmp_path):
    url, _ = serve_stac(files)
    expected, _, _ = predict(product)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the API does not support, nothing is asked of it
        Client.open(url).search(collections=["sentinel-2"]).item_collection().save_object(str(tmp_path / "search.json"))
    code, said, error = geosr(
        "predict", "--batch", tmp_path / "search.json", "--out", tmp_path / "{name}.tif", "-m", small_weights, "--quiet"
    )
    assert (code, said) == (0, ""), error
    for name in ("clear", "cloudy"):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            np.testing.assert_array_equal(file.read(), expected)


def test_shares_of_a_masked_product_in_a_zip_file_make_the_same_image(geosr, predict, product, small_weights, tmp_path):
    archive = zipped(product)
    options = ("--mask", "clouds", "--mask-dilate", "20", "--bands", "B02,B03,B04,B08", "--resolution", "10")
    expected, encoding, _ = predict(archive, *options)
    out = tmp_path / "shares.tif"
    for share in ("1/2", "2/2"):
        code, _, said = geosr("predict", archive, *options, "-o", out, "-m", small_weights, "--shard", share, "--quiet")
        assert code == 0, said
    code, _, said = geosr("assemble", out)
    assert code == 0, said
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(), expected)
        assert (file.scales[0], file.offsets[0], file.nodata) == encoding


def test_a_scene_of_an_item_knows_when_it_was_acquired(geosr, serve_stac, files, small_weights, tmp_path):
    url, _ = serve_stac(files)
    out = tmp_path / "sr.tif"
    arguments = (url, "--item", "sentinel-2-c1-l2a/plain", "-o", out, "-m", small_weights, "--stac", "--quiet")
    code, _, said = geosr("predict", *arguments)
    assert code == 0, said
    written = next(path for path in tmp_path.glob("*.json"))
    assert json.loads(written.read_text())["properties"]["datetime"] == "2023-06-01T10:00:00Z"


def test_info_tells_masks_and_what_they_leave_out(geosr, product, scl):
    code, told, _ = geosr("info", product, "--json", "--mask", "clouds")
    facts = json.loads(told)
    assert code == 0
    assert facts["masks"] == ["clouds", "defects", "snow"]
    assert facts["masked"] == f"about {100 * (scl == 9).mean():.1f} %"
    assert facts["from"]["masked"].endswith("SCL_20m.jp2")
    _, told, _ = geosr("info", product, "--json", "--resolution", "20")
    assert (json.loads(told)["bands"], json.loads(told)["pixel"]) == (["B02", "B05", "B11"], "20 m")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--mask", "fog"], 2, "--mask 'fog' is not one of clouds defects snow"),
        (["--mask-dilate", "20"], 2, "needs --mask"),
        (["--resolution", "60"], 1, "holds no images at 60 m"),
        (["--item", "a/b"], 1, "--item a/b needs the address of a STAC API"),
    ],
)
def test_what_cannot_be_had_is_said(geosr, product, arguments, code, told):
    ended, _, said = geosr("info", product, *arguments)
    assert ended == code
    assert told in said


def test_info_describes_the_values_of_each_band(geosr, make_raster, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    image = np.full((1, 10, 10), 500, "uint16")
    image[0, 0], image[0, 1, 0], image[0, 1, 1] = 9, 0, 4000
    path = make_raster(image, scale=1e-4, nodata=9, descriptions=["B04"])
    code, said, _ = geosr("info", path, "--json")
    assert code == 0
    assert json.loads(said)["values"] == {
        "B04": {
            "minimum": 0,
            "median": 500,
            "maximum": 4000,
            "invalid": pytest.approx(0.1),
            "zero": 0.01,
            "saturated": 0,
            "reflectance": [0, 0.05, 0.4],
        }
    }
    assert "minimum 0, median 500, maximum 4000" in geosr("info", path)[1]
