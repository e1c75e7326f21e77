"""Statistics of a scene's values, and what the command shows of them."""

import json

import numpy as np
import pytest
import rasterio

from geosr.io.scene import open_scene


@pytest.fixture
def path(make_raster):
    """Two bands of 40 x 50 pixels: 5 % nodata, 10 % zeros beside it, 2 % saturated."""
    dn = np.arange(1000, 3000, dtype="int32").reshape(1, 40, 50).repeat(2, axis=0)
    dn[1] += 1000
    dn[:, :2], dn[:, 2:6], dn[:, 39, :40] = 7, 0, 65535
    return make_raster(dn, dtype="uint16", nodata=7, descriptions=["B02", "B03"])


READING = {"sensor": "sentinel-2-l2a", "baseline": "02.12"}


def test_statistics_are_those_of_the_pixels(path):
    with open_scene(path, **READING) as scene, rasterio.open(path) as file:
        found = scene.statistics()
        for number, band in enumerate(scene.bands, start=1):
            dn = file.read(number).ravel()
            kept = dn[(dn != 7) & (dn != 65535)]
            one = found[band]
            assert (one.minimum, one.median, one.maximum) == (kept.min(), np.median(kept), kept.max())
            assert (one.invalid, one.zero, one.saturated) == pytest.approx((0.05, 0.1, 0.02))


def test_a_scene_without_a_valid_pixel_has_shares_alone(make_raster):
    with open_scene(make_raster(np.zeros((1, 4, 4), "uint16"), nodata=0, scale=1e-4)) as scene:
        (one,) = scene.statistics().values()
    assert (one.minimum, one.median, one.maximum, one.invalid) == (None, None, None, 1)


def test_a_large_scene_is_decimated(make_raster):
    large = np.full((1, 1100, 1300), 500, "uint16")
    large[:, :550] = 700
    with open_scene(make_raster(large, scale=1e-4)) as scene:
        (one,) = scene.statistics().values()
        assert scene.sample["band1"].size < 512 * 512
    assert (one.minimum, one.maximum, one.invalid) == (500, 700, 0)


def test_info_shows_the_values(geosr, path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    reading = ("--sensor", "sentinel-2-l2a", "--baseline", "02.12")
    code, out, _ = geosr("info", path, *reading)
    assert code == 0
    assert (
        "minimum 0, median 2029.5, maximum 2999 (reflectance 0, 0.2029, 0.2999); 5 % invalid, 10 % zero, 2 % saturated"
        in out
    )
    code, out, _ = geosr("info", path, *reading, "--json")
    facts = json.loads(out)
    assert facts["values"]["B02"] == {
        "minimum": 0, "median": 2029.5, "maximum": 2999, "reflectance": [0, 0.20295, 0.2999], "invalid": 0.05,
        "zero": 0.1, "saturated": 0.02,
    }  # fmt: skip
    assert "radiometry" not in facts


def test_info_shows_values_and_the_reason_why_they_are_refused(geosr, make_raster):
    image = np.full((2, 20, 20), 0.25, "float32")
    image[:, 3, 4] = -9999
    code, out, _ = geosr("info", make_raster(image, descriptions=["B02", "B03"]), "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["values"]["B03"]["minimum"] == -9999
    assert facts["values"]["B03"]["reflectance"] == [-9999, 0.25, 0.25]
    assert "give nodata=-9999" in facts["radiometry"]


def test_info_shows_numbers_of_an_unknown_unit(geosr, make_raster):
    code, out, _ = geosr("info", make_raster(np.full((1, 9, 9), 1234, "uint16")), "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["values"]["band1"] == {
        "minimum": 1234, "median": 1234, "maximum": 1234, "reflectance": None, "invalid": 0, "zero": 0, "saturated": 0,
    }  # fmt: skip
    assert "says nothing about their unit" in facts["radiometry"]
