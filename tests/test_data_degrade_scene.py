import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geosr.config.degradation import DegradationSection, SensorSection
from geosr.data.degrade_scene import degrade_scene
from geosr.degrade import PSF, degrade
from geosr.errors import GridError, OutputError
from geosr.io.scene import open_scene

BANDS = ("B02", "B03", "B04")
PLAIN = DegradationSection(sensor=SensorSection(mtf=0.3, mtf_jitter=0, misregistration=0, noise=False, quantise=False))


@pytest.fixture
def scene(make_raster):
    """A factory that opens a scene of random digital numbers, some of them nodata where `hole` says so."""

    def make(height=50, width=41, hole=None, **options):
        dn = np.random.default_rng(0).integers(1500, 4000, (3, height, width), dtype="uint16")
        if hole is not None:
            dn[:, *hole] = 0
        options = {"nodata": 0, "scale": 1e-4, "offset": -0.1, "descriptions": BANDS} | options
        return open_scene(make_raster(dn, **options))

    return make


def test_the_file_is_the_degraded_scene_on_the_coarser_grid(scene, tmp_path):
    with scene() as opened:
        done = degrade_scene(opened, tmp_path / "lr.tif", section=PLAIN, scale=4)
        hr = opened.read((slice(0, 48), slice(0, 40)))
    expected = degrade(torch.from_numpy(hr.array)[None], PSF(4))[0].numpy()
    np.testing.assert_allclose(done.lr.array, expected, atol=1e-6)
    np.testing.assert_array_equal(done.hr.array, hr.array)
    with rasterio.open(tmp_path / "lr.tif") as file:
        assert file.transform == Affine(40, 0, 400_000, 0, -40, 5_000_000)
        assert (file.height, file.width, file.nodata, file.descriptions) == (12, 10, 0, BANDS)
        assert set(file.scales) == {1e-4}
        assert set(file.offsets) == {-0.1}
        assert file.tags()["GEOSR_DEGRADED"] == "sensor"
        np.testing.assert_allclose(file.read() * 1e-4 - 0.1, expected, atol=0.51e-4)


def test_it_is_a_scene_that_opens_as_any_other(scene, tmp_path):
    with scene() as opened:
        done = degrade_scene(opened, tmp_path / "lr.tif", section=DegradationSection(), scale=2)
    with open_scene(tmp_path / "lr.tif") as lr:
        assert lr.bands == BANDS
        np.testing.assert_allclose(lr.read().array, done.lr.array, atol=0.51e-4)


def test_an_lr_pixel_is_invalid_where_a_pixel_under_it_is_and_nothing_blurs_out_of_it(scene, tmp_path):
    hole = (slice(9, 13), slice(20, 21))
    with scene(hole=hole) as opened:
        done = degrade_scene(opened, tmp_path / "lr.tif", section=PLAIN, scale=4)
    invalid = np.zeros((12, 10), bool)
    invalid[2:4, 5] = True
    np.testing.assert_array_equal(done.lr.valid, ~invalid)
    assert np.nanmin(done.lr.array) > 0.05  # the hole is not dark
    with rasterio.open(tmp_path / "lr.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 0, invalid)


def test_a_mask_beside_a_scene_without_nodata_becomes_nodata(make_raster, tmp_path):
    dn = np.full((3, 32, 24), 7, "uint16")
    path = make_raster(dn, scale=1e-4, descriptions=BANDS)
    valid = np.ones((32, 24), bool)
    valid[:, :8] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    with open_scene(path) as opened:
        degrade_scene(opened, tmp_path / "lr.tif", section=PLAIN, scale=2)
    with rasterio.open(tmp_path / "lr.tif") as file:
        assert file.nodata == 0
        np.testing.assert_array_equal(file.read(1), np.where(valid[::2, ::2], 7, 0))


def test_the_same_seed_writes_the_same_pixels(scene, tmp_path):
    section = DegradationSection(type="high_order")
    pixels = []
    for seed in (3, 3, 4):
        with scene() as opened:
            degrade_scene(opened, tmp_path / "lr.tif", section=section, scale=2, seed=seed, overwrite=True)
        with rasterio.open(tmp_path / "lr.tif") as file:
            pixels.append(file.read())
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert (pixels[0] != pixels[2]).any()


def test_bands_are_those_that_are_asked_for(scene, tmp_path):
    with scene() as opened:
        done = degrade_scene(opened, tmp_path / "lr.tif", section=PLAIN, scale=2, bands=["B04", "B02"])
    assert done.lr.bands == ("B04", "B02")
    assert done.parameters["mtf"].shape == (1, 2)


def test_a_scene_without_a_valid_pixel_has_none_after(scene, tmp_path):
    with scene(hole=(slice(None), slice(None))) as opened:
        done = degrade_scene(opened, tmp_path / "lr.tif", section=PLAIN, scale=4)
    assert not done.lr.valid.any()


def test_what_cannot_be_is_refused(scene, tmp_path):
    (tmp_path / "there.tif").touch()
    with scene() as opened:
        with pytest.raises(OutputError, match=r"there\.tif exists"):
            degrade_scene(opened, tmp_path / "there.tif", section=PLAIN, scale=2)
        with pytest.raises(GridError, match=r"has 50 x 41 pixels; an LR pixel at scale 42 needs 42 x 42"):
            degrade_scene(opened, tmp_path / "lr.tif", section=PLAIN, scale=42)
        with pytest.raises(OutputError, match=r"does not exist; make it first"):
            degrade_scene(opened, tmp_path / "nowhere" / "lr.tif", section=PLAIN, scale=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "there.tif"]
