import re
import shutil
import zipfile
from datetime import UTC, datetime

import pytest

from geosr.errors import InputError, RadiometryError
from geosr.io.safe import product_metadata
from geosr.radiometry import Radiometry
from geosr.sensors import get_sensor

PRODUCT = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158.SAFE"


@pytest.fixture
def products(shared_data):
    return sorted((shared_data / "safe_metadata").glob("*.SAFE"))


@pytest.fixture
def product(shared_data):
    return shared_data / "safe_metadata" / PRODUCT


def test_every_real_product_is_read_as_its_xml_says(products):
    """The oracle reads the XML with regular expressions and knows the baseline from the text alone."""
    assert len(products) == 9
    baselines = set()
    for folder in products:
        (xml,) = folder.glob("MTD_MSI*.xml")
        text = xml.read_text()
        metadata = product_metadata(str(xml))
        baseline = re.search(r"PROCESSING_BASELINE>([\d.]+)<", text)[1]
        offsets = {float(value) for value in re.findall(r"ADD_OFFSET band_id=\"\d+\">(-?\d+)<", text)} or {0.0}
        assert metadata.processing_baseline == baseline
        assert metadata.level == "L" + re.search(r"PROCESSING_LEVEL>Level-(\w\w)", text)[1]
        assert metadata.product_uri == re.search(r"PRODUCT_URI>(.*?)<", text)[1]
        assert set(metadata.offsets.values()) == offsets == ({-1000.0} if baseline >= "04.00" else {0.0})
        assert (metadata.quantification, metadata.nodata, metadata.saturated) == (10000, 0, 65535)
        assert metadata.sensing_time.strftime("%Y%m%dT%H%M%S") == folder.name.split("_")[2]
        assert metadata.radiometry(["B02", "B8A"]) == metadata.sensor.radiometry(baseline)
        baselines.add(baseline)
    assert baselines == {"02.09", "02.12", "03.01", "04.00", "05.09"}


@pytest.mark.parametrize(
    "inside",
    [
        "MTD_MSIL2A.xml",
        "manifest.safe",
        "GRANULE/L2A_T01WCP_A041826_20230625T234624/IMG_DATA/R10m/T01WCP_20230625T234621_B02_10m.jp2",
        "GRANULE/L2A_T01WCP_A041826_20230625T234624/MTD_TL.xml",
    ],
)
def test_any_path_in_a_product_leads_to_its_xml(product, inside):
    assert product_metadata(str(product / inside)).path == str(product / "MTD_MSIL2A.xml")


def test_gdal_names_of_a_product_lead_to_its_xml(product):
    metadata = product_metadata(f"SENTINEL2_L2A:{product}/MTD_MSIL2A.xml:10m:EPSG_32601")
    assert metadata.processing_baseline == "05.09"


def test_a_renamed_product_folder_is_still_a_product(product, tmp_path):
    images = tmp_path / "renamed" / "GRANULE" / "L2A" / "IMG_DATA"
    images.mkdir(parents=True)
    shutil.copy(product / "MTD_MSIL2A.xml", tmp_path / "renamed")
    metadata = product_metadata(str(images / "T01WCP_20230625T234621_B02_10m.jp2"))
    assert metadata.radiometry(["B02"]).offset == -0.1


def test_products_in_zip_files_are_read_in_place(shared_data):
    zips = sorted((shared_data / "safe").glob("*.zip"))
    assert len(zips) == 2
    for path in zips:
        with zipfile.ZipFile(path) as file:
            image = next(name for name in file.namelist() if name.endswith("_B04.jp2"))
        metadata = product_metadata(f"/vsizip/{path}/{image}")
        assert metadata.product_uri == f"{path.stem}.SAFE"
        assert metadata.level == "L1C"
        assert metadata.radiometry(["B04"]) == Radiometry(1e-4, 0.0, nodata=0, saturated=65535)


def test_where_folders_cannot_be_listed_the_product_name_speaks():
    image = f"/vsis3/bucket/{PRODUCT}/GRANULE/L2A/IMG_DATA/R10m/T01WCP_20230625T234621_B02_10m.jp2"
    metadata = product_metadata(image)
    assert metadata.processing_baseline == "05.09"
    assert metadata.sensor is get_sensor("sentinel-2-l2a")
    assert metadata.radiometry(["B02"]) == get_sensor("sentinel-2-l2a").radiometry("05.09")
    assert metadata.sensing_time == datetime(2023, 6, 25, 23, 46, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    "path",
    [
        "scene.tif",
        "/data/B04.jp2",
        f"/vsis3/bucket/{PRODUCT}/derived.tif",  # may have dropped the offset
        f"/vsis3/bucket/{PRODUCT.replace('N0509', 'N9999')}/GRANULE/B02.jp2",  # processed by its user
        f"/data/{PRODUCT.removesuffix('.SAFE')}_stack.jp2",
    ],
)
def test_other_files_belong_to_no_product(path):
    assert product_metadata(path) is None


@pytest.fixture
def edited(product, tmp_path):
    """A copy of the product XML with one text replaced."""

    def edit(old, new):
        path = tmp_path / "MTD_MSIL2A.xml"
        text = (product / "MTD_MSIL2A.xml").read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return str(path)

    return edit


def test_band_ids_count_b8a_between_b08_and_b09(edited):
    metadata = product_metadata(edited('BOA_ADD_OFFSET band_id="8">-1000', 'BOA_ADD_OFFSET band_id="8">-500'))
    assert metadata.offsets["B8A"] == -500
    assert metadata.radiometry(["B8A"]).offset == -0.05
    with pytest.raises(RadiometryError, match=r"different offsets \(.*B8A -500.*\)"):
        metadata.radiometry(["B04", "B8A"])


def test_the_quantification_is_read_not_assumed(edited):
    path = edited('BOA_QUANTIFICATION_VALUE unit="none">10000', 'BOA_QUANTIFICATION_VALUE unit="none">20000')
    assert product_metadata(path).radiometry(["B04"]) == Radiometry(5e-5, -0.05, nodata=0, saturated=65535)


def test_a_band_without_reflectance_is_refused(product):
    with pytest.raises(RadiometryError, match="how SCL encodes reflectance"):
        product_metadata(str(product / "MTD_MSIL2A.xml")).radiometry(["B04", "SCL"])


def test_a_broken_xml_is_an_error_that_names_it(edited):
    path = edited("</n1:Level-2A_User_Product>", "")
    with pytest.raises(InputError, match=r"MTD_MSIL2A\.xml is not valid XML"):
        product_metadata(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('BOA_QUANTIFICATION_VALUE unit="none">10000', 'BOA_QUANTIFICATION_VALUE unit="none">0'),
        ('BOA_QUANTIFICATION_VALUE unit="none">10000', 'BOA_QUANTIFICATION_VALUE unit="none">many'),
        ('BOA_ADD_OFFSET band_id="12"', 'BOA_ADD_OFFSET band_id="99"'),
        ('BOA_ADD_OFFSET band_id="12"', "BOA_ADD_OFFSET"),
        ('band_id="3">-1000', 'band_id="3">-1e'),
    ],
)
def test_values_that_no_product_has_are_an_error_that_names_the_file(edited, old, new):
    with pytest.raises(InputError, match=r"MTD_MSIL2A\.xml holds what no product says \(.*\); download"):
        product_metadata(edited(old, new))


def test_an_xml_without_a_baseline_is_an_error(edited):
    with pytest.raises(InputError, match="no processing baseline"):
        product_metadata(edited("<PROCESSING_BASELINE>05.09</PROCESSING_BASELINE>", ""))
