import numpy as np
import pytest
import xarray as xr
from PIL import Image

import geosr
from geosr.demo import demo_scene
from geosr.errors import GridError, UsageError
from geosr.inference import SuperResolver
from geosr.testing import impulse_model


@pytest.fixture(scope="module")
def resolver():
    return SuperResolver(impulse_model(2, 1), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def scene():
    return geosr.open(demo_scene(), chunks=100).isel(x=slice(0, 60), y=slice(0, 50))


def test_a_comparison_is_a_slider_and_a_picture(scene, resolver, tmp_path):
    found = scene.geosr.compare(scene.geosr.superresolve(resolver))
    page = found._repr_html_()
    assert page.count("data:image/png;base64,") == 2
    assert 'type="range"' in page
    assert not any(word in page for word in ("<script", "http:", "https:"))
    with Image.open(found.save(tmp_path / "compare.png")) as picture:
        assert picture.width > 2 * found.before.width
    assert found._repr_png_()[1:4] == b"PNG"
    assert found.before.size == found.after.size == (720, 600)
    before, after = (np.asarray(one, float).mean(axis=2) for one in (found.before, found.after))
    shifted = [np.corrcoef(before.ravel(), np.roll(after, by, (0, 1)).ravel())[0, 1] for by in (-12, 0, 12)]
    assert shifted[1] > max(shifted[0], shifted[2])  # the same ground


def test_only_what_is_shown_is_computed(resolver):
    seen = []

    def see(block):
        seen.append(block.shape)
        return block

    scene = geosr.open(demo_scene(), chunks=64)
    sr = scene.geosr.superresolve(resolver).map(
        lambda one: one.copy(data=one.data.map_blocks(see, meta=one.data._meta))
    )
    found = scene.geosr.compare(sr, window=(slice(70, 120), slice(130, 190)))
    assert found.scale == 2
    assert len(seen) == 3  # red, green and blue of one chunk
    found = scene.geosr.compare(sr)
    assert max(found.after.size) <= 768
    assert len(seen) < 64


def test_a_window_outside_is_refused(scene, resolver):
    with pytest.raises(GridError, match="does not lie inside the input, which has 50 x 60"):
        scene.geosr.compare(scene.geosr.superresolve(resolver), window=(slice(0, 51), slice(0, 10)))


def test_other_ground_is_refused(scene, resolver):
    sr = scene.geosr.superresolve(resolver)
    with pytest.raises(GridError, match="not the same ground"):
        scene.geosr.compare(sr.isel(x=slice(0, 40)))
    with pytest.raises(GridError, match="does not sit on the grid"):
        scene.geosr.compare(scene)


def test_a_series_asks_for_one_image(scene, resolver):
    series = xr.concat([scene, scene], "time")
    with pytest.raises(UsageError, match=r"several images along time; choose one, such as .isel\(time=0\)"):
        series.geosr.compare(series.geosr.superresolve(resolver))
