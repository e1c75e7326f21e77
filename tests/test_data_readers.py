"""Readers of published data sets, each on a miniature: the publisher's layout and types, a few synthetic pixels."""

import os

import numpy as np
import pytest
import rasterio
from affine import Affine

from geosr import open_scene
from geosr.data.datasets import GeoPairDataset, SceneDataset
from geosr.data.readers import CACHE, read_sen2naip, read_worldstrat
from geosr.errors import InputError, OutputError
from geosr.grid import finer

RANDOM = np.random.default_rng(0)


def write(path, array, *, transform=None, crs=None):
    """A GeoTIFF as published: no band names, no scale, no nodata; without a transform it has no place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning) if transform is None else _nothing(), rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, crs=crs,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(array)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


@pytest.fixture
def sen2naip(tmp_path):
    """A miniature of SEN2NAIP's cross-sensor part: two pairs of 12 and 48 pixels instead of 2,851 of 121 and 484."""
    for number in range(2):
        folder = tmp_path / "cross-sensor" / f"ROI_{number:04}"
        corner = Affine.translation(400_000 + 5000 * number, 4_100_000)
        lr = RANDOM.integers(1, 6000, (4, 12, 12)).astype("int32")
        hr = RANDOM.integers(0, 256, (4, 48, 48)).astype("uint8")
        write(folder / "lr.tif", lr, crs="EPSG:32613", transform=corner * Affine.scale(10, -10))
        write(folder / "hr.tif", hr, crs="EPSG:32613", transform=corner * Affine.scale(2.5, -2.5))
    return tmp_path


def test_sen2naip_pairs_carry_their_bands_units_and_grid(sen2naip):
    scenes = read_sen2naip(sen2naip)
    assert [scene.name for scene in scenes] == ["cross-sensor/ROI_0000", "cross-sensor/ROI_0001"]
    for scene in scenes:
        with open_scene(scene.lr[0]) as lr, open_scene(scene.hr[0]) as hr:
            assert lr.bands == hr.bands == ("B04", "B03", "B02", "B08")
            assert finer(lr.geobox, 4) == hr.geobox
            with rasterio.open(sen2naip / scene.name / "lr.tif") as file:
                np.testing.assert_allclose(lr.read().array, file.read() * 1e-4, rtol=1e-5)
            with rasterio.open(sen2naip / scene.name / "hr.tif") as file:
                np.testing.assert_allclose(hr.read().array, file.read() / 255, rtol=1e-5)
                window = (slice(8, 24), slice(4, 20))
                np.testing.assert_allclose(hr.read(window, ["B08"]).array[0], file.read(4)[window] / 255, rtol=1e-5)


def test_sen2naip_zero_is_nodata_at_low_resolution_only(sen2naip):
    for name in ("lr.tif", "hr.tif"):
        with rasterio.open(sen2naip / "cross-sensor" / "ROI_0000" / name, "r+") as file:
            file.write(np.zeros((4, 1, 1), file.dtypes[0]), window=((0, 1), (0, 1)))
    scene = read_sen2naip(sen2naip)[0]
    with open_scene(scene.lr[0]) as lr, open_scene(scene.hr[0]) as hr:
        assert not lr.read().valid[0, 0]
        assert hr.read().valid.all()


def test_sen2naip_root_may_be_the_folder_of_the_pairs(sen2naip):
    assert [scene.name for scene in read_sen2naip(sen2naip / "cross-sensor")] == ["ROI_0000", "ROI_0001"]


def test_half_a_pair_is_named(sen2naip):
    (sen2naip / "cross-sensor" / "ROI_0001" / "lr.tif").unlink()
    with pytest.raises(InputError, match=r"ROI_0001 has no lr\.tif"):
        read_sen2naip(sen2naip)


def test_the_data_set_stays_usable_when_its_folder_moves(sen2naip, tmp_path_factory):
    read_sen2naip(sen2naip)
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    sen2naip.rename(moved)
    with open_scene(read_sen2naip(moved)[0].hr[0]) as hr:
        assert hr.read().valid.all()


def test_virtual_rasters_are_written_once_and_again_when_the_source_changes(sen2naip):
    (virtual,) = read_sen2naip(sen2naip)[0].hr
    written = os.stat(virtual).st_mtime_ns
    assert os.stat(read_sen2naip(sen2naip)[0].hr[0]).st_mtime_ns == written
    source = sen2naip / "cross-sensor" / "ROI_0000" / "hr.tif"
    os.utime(source, ns=(written + 10**9, written + 10**9))
    read_sen2naip(sen2naip)
    assert os.stat(virtual).st_mtime_ns != written
    assert not list(sen2naip.rglob("*.part*"))


def test_a_file_with_other_bands_is_refused(sen2naip):
    write(sen2naip / "cross-sensor" / "ROI_0000" / "hr.tif", np.zeros((3, 48, 48), "uint8"), transform=Affine.scale(2))
    with pytest.raises(InputError, match=r"hr\.tif has 3 bands; it should have 4 \(B04 B03 B02 B08\)"):
        read_sen2naip(sen2naip)


def test_a_damaged_file_is_named(sen2naip):
    (sen2naip / "cross-sensor" / "ROI_0001" / "hr.tif").write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(InputError, match=r"ROI_0001.hr\.tif is no raster that can be read"):
        read_sen2naip(sen2naip)


def test_a_cache_that_cannot_be_written_says_what_to_do(sen2naip):
    (sen2naip / CACHE).write_text("in the way")
    with pytest.raises(OutputError, match="make that folder writable"):
        read_sen2naip(sen2naip)


@pytest.fixture
def worldstrat(tmp_path):
    """A miniature of WorldStrat: two areas of 26 SPOT pixels, one with two Sentinel-2 revisits of 16, one without."""
    for area in ("Landcover-1234", "UNHCR-XYZs000001"):
        image = RANDOM.integers(1, 4000, (4, 26, 26)).astype("uint16")
        write(tmp_path / "hr_dataset" / "12bit" / area / f"{area}_rgbn.tiff", image, crs="EPSG:4326")
    box = rasterio.transform.from_bounds(10.0, 45.0, 10.002, 45.0014, 16, 16)
    for revisit in (1, 2):
        path = tmp_path / "lr_dataset" / "Landcover-1234" / "L2A" / f"Landcover-1234-{revisit}-L2A_data.tiff"
        write(path, RANDOM.random((12, 16, 16), dtype="float32"), crs="EPSG:4326", transform=box)
    return tmp_path


def test_worldstrat_gives_hr_images_at_the_place_of_their_revisits(worldstrat):
    placed, unplaced = read_worldstrat(worldstrat)
    assert (placed.name, unplaced.name) == ("Landcover-1234", "UNHCR-XYZs000001")
    assert placed.lr == unplaced.lr == ()
    with open_scene(placed.hr[0]) as scene:
        assert scene.bands == ("B04", "B03", "B02", "B08")
        np.testing.assert_allclose(scene.geobox.boundingbox, (10.0, 45.0, 10.002, 45.0014))
        assert scene.geobox.crs.epsg == 4326
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(
            worldstrat / "hr_dataset" / "12bit" / placed.name / f"{placed.name}_rgbn.tiff"
        ) as file:  # fmt: skip
            np.testing.assert_allclose(scene.read().array, file.read() * 1e-4, rtol=1e-5)
    with open_scene(unplaced.hr[0]) as scene:
        assert scene.geobox.crs is None  # one degree a pixel, as the file's own CRS would have it, is no place


def test_pairs_become_patches_of_a_dataset(sen2naip):
    dataset = GeoPairDataset(read_sen2naip(sen2naip), ("B02", "B03", "B04", "B08"), size=16)
    assert len(dataset.table) == 2 * 5 * 5
    sample = dataset[dataset.table[0]]
    assert sample["hr"].shape == (4, 16, 16)
    assert sample["lr"].shape == (4, 4, 4)
    assert sample["valid"].all()
    assert sample["lr_valid"].all()


def test_hr_images_become_patches_of_a_dataset(worldstrat):
    dataset = SceneDataset(read_worldstrat(worldstrat)[:1], ("B02", "B08"), size=8)
    assert dataset[dataset.table[0]]["hr"].shape == (2, 8, 8)
    dataset = SceneDataset(read_worldstrat(worldstrat)[1:], ("B02", "B08"), size=8)
    assert dataset[dataset.table[0]]["hr"].shape == (2, 8, 8)
