import shutil

import numpy as np
import pytest
from product_kit import L2A, write_jp2, write_l2a, zipped

from geosr.errors import InputError
from geosr.io.masks import MaskFile
from geosr.io.product import DEFAULT_BANDS, Granule, is_product, products_at

GRANULE = "L2A_T01WCP_A041820_20230625T234624"


@pytest.fixture(scope="module")
def l2a(shared_data, tmp_path_factory):
    rng = np.random.default_rng(0)
    dn = rng.integers(900, 6000, (4, 32, 40), dtype="uint16")
    xml = shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml"
    return write_l2a(tmp_path_factory.mktemp("l2a"), xml, dn, np.full((16, 20), 4, "uint8"))


@pytest.mark.parametrize(
    "inside",
    ["", "MTD_MSIL2A.xml", f"GRANULE/{GRANULE}", f"GRANULE/{GRANULE}/MTD_TL.xml", f"GRANULE/{GRANULE}/IMG_DATA"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_any_path_but_an_image_means_the_product(l2a, tmp_path, inside, packed):
    product = shutil.copytree(l2a, tmp_path / L2A)
    root = f"/vsizip/{zipped(product)}/{L2A}" if packed else str(product)
    (found,) = products_at(f"{root}/{inside}".rstrip("/"))
    assert (found.name, found.path) == (L2A, root)
    (granule,) = found.granules
    assert {band for band, resolution in granule.images if resolution == 10} == set(DEFAULT_BANDS)
    assert granule.classes.endswith("_SCL_20m.jp2")
    image = granule.images["B02", 10]
    assert image.startswith(root)
    assert products_at(image) == ()


def test_the_zip_file_alone_means_the_product(l2a, tmp_path):
    path = zipped(shutil.copytree(l2a, tmp_path / L2A))
    assert products_at(str(path))[0].path == f"/vsizip/{path}/{L2A}"


def test_bands_are_chosen_at_the_finest_resolution_that_they_share(l2a):
    (granule,) = products_at(str(l2a))[0].granules

    def chosen(*arguments, **options):
        return [path.rsplit("_", 2)[1:] for path in granule.select(*arguments, **options)]

    assert chosen(None, None) == chosen(None, 10) == [[band, "10m.jp2"] for band in DEFAULT_BANDS]
    assert chosen(["B11", "B02"], None) == [["B11", "20m.jp2"], ["B02", "20m.jp2"]]
    assert chosen(["B02"], None) == [["B02", "10m.jp2"]]
    assert chosen(["B02"], 20) == [["B02", "20m.jp2"]]
    assert chosen(None, 20) == [[band, "20m.jp2"] for band in ("B02", "B05", "B11")]
    with pytest.raises(InputError, match=r"no images of B08 B11 at one resolution \(10 m: B02 B03 B04 B08; 20 m: B02"):
        granule.select(["B08", "B11"], None)
    with pytest.raises(InputError, match="no images of B03 at 20 m"):
        granule.select(["B03"], 20)
    with pytest.raises(InputError, match="no images at 60 m"):
        granule.select(None, 60)
    with pytest.raises(InputError, match=r"holds B02 at 10 m, 20 m; choose one with --resolution"):
        granule.select(["B02"], None, ask=True)


def test_a_folder_of_one_resolution_in_a_product_means_that_resolution(l2a):
    (granule,) = products_at(str(l2a / "GRANULE" / GRANULE / "IMG_DATA" / "R20m"))[0].granules
    assert {resolution for _, resolution in granule.images} == {20}
    assert granule.classes


@pytest.mark.parametrize("name", ["S2A_MSIL1C_20180629T000241*", "S2A_MSIL1C_20201031T004711*"])
def test_real_level_1c_products(shared_data, name):
    """Images there name no resolution; the oracle is the product specification's table of bands."""
    (path,) = (shared_data / "safe").glob(f"{name}.zip")
    (product,) = products_at(str(path))
    (granule,) = product.granules
    by_resolution = {10: "B02 B03 B04 B08", 20: "B05 B06 B07 B11 B12 B8A", 60: "B01 B09 B10"}
    held = {r: " ".join(sorted(band for band, found in granule.images if found == r)) for r in (10, 20, 60)}
    assert held == by_resolution
    masks = granule.masks(["B02", "B11"])
    assert [file.path.rpartition("/")[2] for file in masks["clouds"]] == ["MSK_CLOUDS_B00.gml"]
    assert [file.path.rpartition("/")[2] for file in masks["defects"]] == [
        f"MSK_{kind}_{band}.gml" for band in ("B02", "B11") for kind in ("DEFECT", "SATURA")
    ]
    assert "snow" not in masks


def test_masks_since_baseline_4_are_bands_of_images(tmp_path):
    """Names as in the real MTD_TL.xml of such products; bands as in the specification, counted from 0."""
    folder = tmp_path / "S2A.SAFE" / "GRANULE" / "L1C_T01"
    for name in ("IMG_DATA/T01_20230625T234621_B02.jp2", "IMG_DATA/T01_20230625T234621_B04.jp2"):
        write_jp2(folder / name, np.ones((4, 4), "uint16"), 10)
    for name in ("MSK_CLASSI_B00", "MSK_QUALIT_B02", "MSK_QUALIT_B04", "MSK_DETFOO_B02"):
        write_jp2(folder / "QI_DATA" / f"{name}.jp2", np.ones((4, 4), "uint8"), 10)
    granule = products_at(str(tmp_path / "S2A.SAFE"))[0].granules[0]
    quality = folder.as_posix() + "/QI_DATA"
    assert granule.masks(["B04"]) == {
        "clouds": (MaskFile(f"{quality}/MSK_CLASSI_B00.jp2", bands=(0, 1)),),
        "snow": (MaskFile(f"{quality}/MSK_CLASSI_B00.jp2", bands=(2,)),),
        "defects": (MaskFile(f"{quality}/MSK_QUALIT_B04.jp2", bands=(4, 7)),),
    }
    assert "defects" not in granule.masks(["B04", "B08"])


def test_real_metadata_names_masks_as_they_are_looked_for(shared_data):
    """Every cloud, defect and quality mask that the MTD_TL.xml of a real product names would be found."""
    from geosr.io.product import _MASK_FILE

    found = set()
    for xml in (shared_data / "safe_metadata").glob("*/GRANULE/*/MTD_TL.xml"):
        for line in xml.read_text().splitlines():
            if "MASK_FILENAME" in line and any(
                f"MSK_{kind}" in line for kind in ("CLOUDS", "CLASSI", "QUALIT", "SATURA")
            ):
                name = line.split(">")[1].split("<")[0].rpartition("/")[2]
                match = _MASK_FILE.fullmatch(name)
                assert match, name
                found.add(match[1])
    assert found == {"CLOUDS", "CLASSI", "QUALIT", "SATURA"}


def test_names_of_2016_are_known(tmp_path):
    """The long names of products before December 2016, several granules in one."""
    product = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20160905T104813_R002_V20160905T005712_20160905T010424.SAFE"
    for tile in ("T53HMA", "T53HNA"):
        stem = f"SGS__20160905T073438_A006291_{tile}"
        folder = product / "GRANULE" / f"S2A_OPER_MSI_L1C_TL_{stem}_N02.04"
        for band in DEFAULT_BANDS:
            write_jp2(folder / "IMG_DATA" / f"S2A_OPER_MSI_L1C_TL_{stem}_{band}.jp2", np.ones((4, 4), "uint16"), 10)
        (folder / "QI_DATA").mkdir()
        (folder / "QI_DATA" / f"S2A_OPER_MSK_CLOUDS_{stem}_B00_MSIL1C.gml").write_text("<a/>")
    (product / "S2A_OPER_MTD_SAFL1C_PDMC_20160905T104813_R002_V20160905T005712_20160905T010424.xml").write_text("<a/>")
    (found,) = products_at(str(product))
    assert [granule.name.rpartition("_")[0][-6:] for granule in found.granules] == ["T53HMA", "T53HNA"]
    assert len(found.granules[1].select(None, None)) == 4
    assert found.granules[0].masks(DEFAULT_BANDS)["clouds"][0].path.endswith("_T53HMA_B00_MSIL1C.gml")
    (one,) = products_at(str(next((product / "GRANULE").glob("*T53HNA*"))))
    assert ["T53HNA" in granule.name for granule in one.granules] == [True]


def test_a_product_without_images_and_a_folder_that_is_none(shared_data, tmp_path):
    with pytest.raises(InputError, match=r"holds no images \(GRANULE/\*/IMG_DATA/\*.jp2\); download the whole product"):
        products_at(str(shared_data / "safe_metadata" / L2A))
    assert not is_product(tmp_path)
    assert products_at(str(tmp_path)) == products_at(str(tmp_path / "missing")) == ()


def test_a_granule_without_masks_has_none():
    assert Granule("a", {("B02", 0): "B02.tif"}).masks(["B02"]) == {}
