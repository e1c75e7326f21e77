"""A product's metadata decode the product's images and nothing else that lies in its folder."""

import logging
import shutil

import numpy as np
import pytest
import rasterio
from product_kit import L2A, write_jp2, write_l2a

from geosr.errors import RadiometryError
from geosr.io.inputs import open_input
from geosr.io.scene import open_scene
from geosr.radiometry import Radiometry

PRODUCT = Radiometry(1e-4, -0.1, nodata=0, saturated=65535)
GRANULE = "GRANULE/L2A_T01WCP_A041820_20230625T234624"
IMAGE = "T01WCP_20230625T234621_B04_10m"


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(1100, 5000, (4, 12, 14), dtype="uint16")


@pytest.fixture
def safe(shared_data, tmp_path, dn):
    """A Level-2A product of baseline 05.09, whose DN 1000 is reflectance 0."""
    xml = shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml"
    return write_l2a(tmp_path, xml, dn, np.zeros((6, 7), "uint8"))


@pytest.fixture
def put(make_raster, safe):
    """Writes a GeoTIFF of one band to a place in the product."""

    def write(place, array, **tags):
        path = make_raster(array[:1], descriptions=["B04"], **tags)
        target = safe / place
        target.parent.mkdir(parents=True, exist_ok=True)
        return shutil.move(path, target)

    return write


PLACES = [
    "derived.tif",
    "derived/sr.tif",
    f"{GRANULE}/derived.tif",
    f"{GRANULE}/IMG_DATA/B04.tif",
    f"{GRANULE}/IMG_DATA/R10m/{IMAGE}.tif",
    f"{GRANULE}/IMG_DATA/harmonised/{IMAGE}.jp2",
    f"{IMAGE}.jp2",
    f"{IMAGE}.tif",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_derived_file_in_the_folder_is_read_as_it_says_itself(put, dn, place, caplog):
    float_path = put(place, dn * np.float32(1e-4))
    with open_scene(float_path) as scene:
        np.testing.assert_allclose(scene.read().array, dn[:1] * 1e-4, rtol=1e-6)
    tagged = put(place, dn, scale=1e-4, nodata=0)
    with open_scene(tagged) as scene:
        assert scene.radiometry == Radiometry(1e-4, 0, nodata=0)
        assert scene.facts["scale"] == "GDAL band scale and offset"
    silent = put(place, dn)
    with open_scene(silent) as scene, pytest.raises(RadiometryError, match="says nothing about their unit"):
        scene.read()
    with open_scene(silent, scale=1e-4) as scene:
        assert scene.read().array.mean() == pytest.approx(dn[0].mean() * 1e-4)
    assert not caplog.records


@pytest.mark.parametrize("image", [f"{GRANULE}/IMG_DATA/R10m/{IMAGE}.jp2", f"{IMAGE}.jp2", f"images/{IMAGE}.jp2"])
def test_the_images_of_the_product_are_decoded_by_it(safe, dn, image):
    path = write_jp2(safe / image, dn[2], 10)
    with open_scene(path) as scene:
        assert scene.radiometry == PRODUCT
        assert scene.facts["offset"] == "product metadata MTD_MSIL2A.xml, baseline 05.09"


@pytest.mark.parametrize("name", ["T33UUB_20230625T234621_B04_10m", "T01WCP_20170625T234621_B04_10m", "B04", "new_B04"])
def test_an_image_of_another_product_is_not(safe, dn, name):
    path = write_jp2(safe / f"{name}.jp2", dn[2], 10)
    with open_scene(path) as scene, pytest.raises(RadiometryError, match="says nothing about their unit"):
        scene.read()


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_no_other_type_holds_the_product_s_numbers(safe, dn, dtype):
    path = write_jp2(safe / GRANULE / "IMG_DATA" / "R10m" / f"{IMAGE}.jp2", (dn[2] // 40).astype(dtype), 10)
    with open_scene(path) as scene, pytest.raises(RadiometryError, match=f"holds {dtype} values .* says nothing"):
        scene.read()


def test_an_image_whose_own_tags_differ_is_read_by_them_with_one_warning(safe, dn, caplog):
    path = next(safe.glob(f"**/{IMAGE}.jp2"))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [1e-4], [0.0]
    with caplog.at_level(logging.WARNING), open_scene(path) as scene:
        assert (scene.radiometry.scale, scene.radiometry.offset, scene.radiometry.saturated) == (1e-4, 0, None)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{IMAGE}.jp2: its own tags (scale 0.0001, offset 0) count, not product metadata MTD_MSIL2A.xml, baseline 05.09"
    )


def test_an_image_whose_own_tags_agree_is_the_product_s(safe, caplog):
    path = next(safe.glob(f"**/{IMAGE}.jp2"))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [1e-4], [-0.1]
    with open_scene(path) as scene:
        assert scene.radiometry == PRODUCT
    assert not caplog.records


def test_a_product_is_its_images_and_not_their_copies(put, safe, dn):
    """A harmonised copy beside each image leaves the product what it was."""
    for name in ("B02", "B03", "B04", "B08"):
        put(f"{GRANULE}/IMG_DATA/R10m/T01WCP_20230625T234621_{name}_10m.tif", dn - 1000, scale=1e-4)
        put(f"{GRANULE}/IMG_DATA/old/T01WCP_20230625T234621_{name}_10m.jp2", dn - 1000)
    with open_input(safe) as scene:
        assert scene.radiometry == PRODUCT
        np.testing.assert_array_equal(scene.read_digital(), dn)
