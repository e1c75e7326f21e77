from itertools import combinations

import numpy as np
import pytest
from calibration_kit import calibrated

from geosr.errors import GridError, UsageError
from geosr.grid import TilePlan
from geosr.inference import SuperResolver
from geosr.inference.blend import OverlapPlan
from geosr.inference.ensemble import Answer
from geosr.inference.job import Job, output_radiometry
from geosr.inference.resident import keep
from geosr.io.inputs import open_input
from geosr.io.origins import files_of_scene, stamps_of
from geosr.io.scene import open_scene
from geosr.models import Model, ModelSpec
from geosr.radiometry import Radiometry


def model(tiling):
    spec = ModelSpec("nearest", "interpolation", 4, ("B02",), {"mode": "nearest"}, tiling=tiling, halo=6)
    return keep(SuperResolver(calibrated(Model(spec)), device="cpu", precision="fp32"))


@pytest.fixture
def scene(make_raster):
    with open_scene(make_raster(np.full((1, 130, 300), 7, "uint16"), scale=1e-4, descriptions=["B02"])) as opened:
        yield opened


@pytest.mark.parametrize(
    ("tiling", "tile", "plan", "says"),
    [
        ("exact", 1, TilePlan((130, 300), 128, 6), "exact"),
        ("exact", 512, TilePlan((130, 300), 512, 6), "exact"),
        ("approximate", 1, OverlapPlan((130, 300), 128, 6), "approximate"),
        ("approximate", 512, OverlapPlan((130, 300), 512, 6), "exact"),
    ],
)
def test_only_several_tiles_of_an_approximate_model_are_approximate(scene, tiling, tile, plan, says):
    job = Job.plan(scene, model(tiling), aoi=None, dtype=None, tile=tile)
    assert (type(job.tiles), job.tiles, job.tiling) == (type(plan), plan, says)
    tag = job.profile.tags.get("GEOSR_TILING")
    assert tag == (None if says == "exact" else "approximate: tiles of 128 x 128 input pixels, blended over 12")


def test_an_area_is_all_that_is_cut_and_its_tiles_look_around_it(scene):
    job = Job.plan(scene, model("exact"), aoi=(400_100, 4_999_000, 400_300, 4_999_900), dtype=None, tile=1)
    assert job.window == (slice(10, 100), slice(10, 30))
    assert (job.tiles.shape, job.profile.geobox.shape) == ((130, 300), (360, 80))
    (tile,) = job.tiles
    assert tile.core == job.window
    assert tile.read == (slice(4, 106), slice(4, 36))
    with pytest.raises(GridError, match="outside"):
        Job.plan(scene, model("exact"), aoi=(0, 0, 1, 1), dtype=None, tile=1)


@pytest.mark.parametrize(
    "change",
    [
        {"tile": 256},
        {"dtype": "float32"},
        {"aoi": (400_000, 4_999_000, 400_300, 5e6)},
        {"answer": Answer(tta=True)},
        {"answer": Answer(error=True)},
    ],
)
def test_the_fingerprint_tells_jobs_apart(scene, change):
    arguments = {"aoi": None, "dtype": None, "tile": 1}
    one, same, other = (
        Job.plan(scene, model("exact"), **values).fingerprint(scene, stamps_of(scene.paths))
        for values in (arguments, arguments, arguments | change)
    )
    assert one == same != other
    assert one != Job.plan(scene, model("approximate"), **arguments).fingerprint(scene, stamps_of(scene.paths))


def test_what_says_how_sure_the_model_is_looks_a_little_farther(scene):
    arguments = {"aoi": None, "dtype": None, "tile": 1, "answer": Answer(tta=True, error=True)}
    job = Job.plan(scene, model("exact"), **arguments)
    assert job.tiles.halo == 6 + 1  # half of a window of 5 pixels, which are 4 to each of the scene's
    assert Job.plan(scene, model("approximate"), **arguments).tiles.halo == 6
    assert job.profile.bands == ("B02", "B02_error")
    tags = job.profile.tags
    assert (tags["GEOSR_TTA"], tags["GEOSR_CONFIDENCE"]) == ("mean of 8 orientations", "expected absolute error")
    # DN 0 is no mark of invalid pixels here, so that it may be an error of 0.
    assert (job.profile.encoding("B02_error").offset, job.profile.encoding("B02_error").scale) == (0, 1e-4)


def test_a_type_that_needs_no_new_encoding_is_taken():
    digital = Radiometry(1e-4, -0.1, nodata=0, dtype="uint16")
    assert output_radiometry(digital, None) is digital
    assert output_radiometry(digital, "uint16") is digital
    assert (output_radiometry(digital, "float32").scale, output_radiometry(digital, "float32").offset) == (1, 0)
    with pytest.raises(UsageError, match="--dtype int16 would need a new encoding; allowed are uint16"):
        output_radiometry(digital, "int16")


def test_the_fingerprint_tells_masks_apart(make_raster):
    values = np.full((1, 130, 300), 7, "uint16")
    path = make_raster(values, name="x.tif", scale=1e-4, descriptions=["B02"])
    make_raster(values, name="x_SCL.tif", dtype="uint8")
    prints = []
    for masks in ({}, {"mask": ["clouds"]}, {"mask": ["clouds"], "mask_dilate": 20}, {"mask": ["snow"]}):
        with open_input(path, **masks) as opened:
            job = Job.plan(opened, model("exact"), aoi=None, dtype=None, tile=1)
            prints.append(job.fingerprint(opened, stamps_of(files_of_scene(opened))))
    assert all(one != other for one, other in combinations(prints, 2))
