import os
import shutil
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.vrt import WarpedVRT

from geosr.errors import GridError, InputError
from geosr.io.scene import open_scene


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(1, 9000, (4, 30, 40), dtype="uint16")


def test_a_mask_band_is_obeyed_and_an_alpha_band_is_not(make_raster, dn):
    path = make_raster(dn, scale=1e-4)
    with rasterio.open(path, "r+") as file:
        mask = np.full(file.shape, 255, "uint8")
        mask[4, 7] = 0
        file.write_mask(mask)
    with open_scene(path) as scene:
        assert np.argwhere(~scene.read().valid).tolist() == [[4, 7]]


def test_the_near_infrared_of_an_aerial_image_is_no_transparency(shared_data):
    """GDAL takes the fourth band of NAIP for alpha; it has zeros over water."""
    path = shared_data / "hr" / "naip_dakota_20140720.tif"
    with open_scene(path, scale=1 / 255) as scene:
        raster = scene.read()
    assert raster.bands == ("B04", "B03", "B02", "B08")
    assert (raster.array == 0).any()
    assert raster.valid.all()


ALPHA = [ColorInterp.gray] + [ColorInterp.undefined] * 3 + [ColorInterp.alpha]
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
NAMES = ("B02", "B03", "B04", "B08")


@pytest.fixture
def with_alpha(make_raster, dn):
    """Makes a file whose last band is 0 in the first five columns."""

    def make(count, descriptions, colours):
        planes = dn[np.arange(count) % 4].copy()
        planes[-1] = 65535
        planes[:, :, :5] = 0
        path = make_raster(planes, scale=1e-4, descriptions=descriptions)
        with rasterio.open(path, "r+") as file:
            file.colorinterp = colours
        return path

    return make


@pytest.mark.parametrize(
    ("count", "descriptions", "colours", "named", "bands"),
    [
        (5, (*NAMES, ""), ALPHA, None, NAMES),
        (5, (*NAMES, "alpha"), [*ALPHA[:4], ColorInterp.undefined], None, NAMES),
        (5, None, ALPHA, NAMES, NAMES),
        (5, None, ALPHA, (*NAMES, "mask"), NAMES),
        (5, (*NAMES, "Band 5"), ALPHA, None, NAMES),
        (7, (*NAMES, "B11", "B12", ""), [*ALPHA[:4], *[ColorInterp.undefined] * 2, ColorInterp.alpha], None, None),
        (4, ("red", "green", "blue", ""), RGBA, None, ("B04", "B03", "B02")),
        (4, None, RGBA, ("B04", "B03", "B02"), ("B04", "B03", "B02")),
        (4, None, RGBA, ("B04", "B03", "B02", "alpha"), ("B04", "B03", "B02")),
        (2, ("nir", ""), [ColorInterp.gray, ColorInterp.alpha], None, ("B08",)),
    ],
)
def test_an_alpha_band_is_a_mask(with_alpha, dn, count, descriptions, colours, named, bands):
    path = with_alpha(count, descriptions, colours)
    with open_scene(path, bands=named) as scene:
        assert scene.bands == (bands or (*NAMES, "B11", "B12"))
        assert scene.facts["alpha"] == f"band {count}"
        raster = scene.read()
        assert not raster.valid[:, :5].any()
        assert raster.valid[:, 5:].all()
        np.testing.assert_array_equal(scene.read_digital()[:, :, 5:], dn[np.arange(count - 1) % 4, :, 5:])
        np.testing.assert_array_equal(scene.read_mask((slice(2, 9), slice(3, 8))), raster.valid[2:9, 3:8])
        assert min(values.min() for values in scene.sample.values()) > 0


@pytest.mark.parametrize(
    ("descriptions", "named"),
    [
        (("red", "green", "blue", "nir"), None),
        (NAMES, None),
        (None, None),
        (("Band 1", "Band 2", "Band 3", "Band 4"), None),
        (None, NAMES),
    ],
)
def test_near_infrared_that_gdal_calls_alpha_stays_a_band(with_alpha, descriptions, named):
    with open_scene(with_alpha(4, descriptions, RGBA), bands=named) as scene:
        assert len(scene.bands) == 4
        assert scene.read().valid.all()
        assert scene.read_mask() is None


def test_the_alpha_of_a_warped_vrt_is_a_mask(make_raster, dn, tmp_path):
    path = make_raster(dn, scale=1e-4, descriptions=NAMES)
    with rasterio.open(path) as file, WarpedVRT(file, crs="EPSG:32634", add_alpha=True) as warped:
        rasterio.shutil.copy(warped, tmp_path / "warped.vrt", driver="VRT")
        rasterio.shutil.copy(warped, tmp_path / "warped.tif", driver="GTiff")
        expected = warped.read(5) > 0
    assert not expected.all()
    for name in ("warped.vrt", "warped.tif"):
        with open_scene(tmp_path / name, bands=NAMES, scale=None) as scene:
            np.testing.assert_array_equal(scene.read_mask(), expected)


def test_a_single_band_that_gdal_calls_alpha_is_a_band(make_raster, dn):
    path = make_raster(dn[:1], scale=1e-4)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.alpha]
    with open_scene(path) as scene:
        np.testing.assert_array_equal(scene.read_digital(), dn[:1])


@pytest.mark.parametrize("tag", ["-9999", "0.5", "nan"])
def test_a_nodata_tag_that_no_pixel_can_hold_marks_nothing(make_raster, dn, tmp_path, tag):
    path = make_raster(dn[:1], scale=1e-4)
    vrt = tmp_path / "tagged.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="40" rasterYSize="30"><VRTRasterBand dataType="UInt16" band="1">'
        f"<NoDataValue>{tag}</NoDataValue><Scale>0.0001</Scale><SimpleSource><SourceFilename>{path}</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with open_scene(vrt) as scene:
        assert scene.radiometry.nodata is None


def test_what_is_no_raster_is_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a raster")
    with pytest.raises(InputError, match=r"missing\.tif does not exist"):
        open_scene(tmp_path / "missing.tif")
    with pytest.raises(InputError, match=r"notes\.txt cannot be opened as a raster"):
        open_scene(text)
    with pytest.raises(InputError, match="is a folder"):
        open_scene(tmp_path)
    with pytest.raises(InputError, match="no file was given"):
        open_scene([])


def test_a_product_is_refused_with_the_names_of_its_rasters(shared_data):
    path = shared_data / "safe" / "S2A_MSIL1C_20201031T004711_N0209_R102_T53JQJ_20201031T022859.zip"
    with pytest.raises(InputError, match=r"holds no bands of its own; choose one of\n  SENTINEL2_L1C:.*:10m:"):
        open_scene(path)


def test_a_truncated_file_names_the_window_and_keeps_the_cause(shared_data, tmp_path):
    path = tmp_path / "cut.tif"
    shutil.copy(shared_data / "s2" / "virginia_coast_10m.tif", path)
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)
    message = r"cut\.tif: rows 1900\.\.1947, columns 0\.\.1933 cannot be read"
    with open_scene(path) as scene, pytest.raises(InputError, match=message) as caught:
        scene.read((slice(1900, 1947), slice(0, 1933)))
    assert isinstance(caught.value.__cause__, rasterio.errors.RasterioIOError)


def test_ground_control_points_are_no_grid(make_raster, dn):
    path = make_raster(dn, crs=None, transform=None)
    points = [GroundControlPoint(row=r, col=c, x=400_000 + 10 * c, y=5e6 - 10 * r) for r, c in ((0, 0), (0, 9), (9, 0))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "r+") as file:
            file.gcps = (points, "EPSG:32633")
    with pytest.raises(GridError, match=r"scene\.tif is located by ground control points .*gdalwarp"):
        open_scene(path)
