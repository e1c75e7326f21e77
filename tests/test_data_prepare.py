import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.data.coarsen import as_fraction
from geosr.data.patches import SceneFiles, patches_of
from geosr.data.prepare import prepare
from geosr.data.splits import BlockSplit
from geosr.data.store import check_store, digest, open_store
from geosr.errors import GeosrError, GridError, InputError, OutputError, RadiometryError, UsageError
from geosr.io.claims import Claims
from geosr.io.scene import open_scene

BANDS = ("B02", "B03")
ALL_TRAIN = BlockSplit((1.0, 0.0, 0.0))
GRID = Affine(10, 0, 400_000, 0, -10, 5_000_000)


@pytest.fixture
def make_scene(make_raster, tmp_path):
    """A factory of scenes of two bands with a texture of their own, by their path below the test's folder."""

    def make(name, *, shape=(64, 80), seed=0, dn=None, **arguments):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if dn is None:
            dn = np.random.default_rng(seed).integers(1, 5000, (2, *shape))
        arguments = {"dtype": "uint16", "nodata": 0, "scale": 1e-4, "descriptions": BANDS} | arguments
        return make_raster(dn, name=name, **arguments)

    return make


def run(sources, out, **arguments):
    return prepare(sources, out, **({"bands": BANDS, "patch": 16, "split": ALL_TRAIN} | arguments))


def stored(out, number=0, role="hr"):
    """Digital numbers of an image in a store."""
    with open_scene(getattr(open_store(out).scenes[number], role)) as scene:
        return scene.read_digital()


def pixels(path):
    with rasterio.open(path) as file:
        return file.read()


# What is in a store


def test_digital_numbers_and_their_meaning_are_copied(make_scene, tmp_path):
    path = make_scene("x.tif", offset=-0.1)
    done = run([path], tmp_path / "train.zarr", bands=["green", "B02"])
    store = open_store(done.path)
    with open_scene(path) as before, open_scene(store.scenes[0].hr) as after:
        np.testing.assert_array_equal(after.read_digital(), before.read_digital(bands=["B03", "B02"]))
        assert after.geobox == before.geobox
        assert after.bands == store.bands == ("B03", "B02")
        assert after.radiometry == before.radiometry
    assert (store.scale, done.scenes, done.patches["train"]) == (None, 1, 20)


def test_the_index_is_what_the_whole_scene_gives(make_scene, tmp_path):
    dn = np.random.default_rng(0).integers(1, 5000, (2, 70, 83))
    dn[:, 10:30, 40:60] = 0
    path = make_scene("x.tif", dn=dn)
    run([path], tmp_path / "train.zarr", stride=8, min_valid=0.5)
    with open_scene(path) as scene:
        raster = scene.read()
    expected = patches_of(raster.valid, np.nan_to_num(raster.array).mean(axis=0), scene=0, size=16, stride=8)
    expected = expected.select(expected.valid >= 0.5)
    table = open_store(tmp_path / "train.zarr").table
    for column in ("scene", "row", "column", "valid", "split"):
        np.testing.assert_array_equal(getattr(table, column), getattr(expected, column))
    np.testing.assert_allclose(table.detail, expected.detail, rtol=1e-6)
    assert (table.valid < 1).any()


def test_the_manifest_tells_source_licence_window_date_split_and_checksums(make_scene, tmp_path):
    path = make_scene("x_20200102.tif")
    run([path], tmp_path / "train.zarr", licence="CC0")
    manifest = json.loads((tmp_path / "train.zarr" / "manifest.json").read_text())
    (scene,) = manifest["scenes"]
    assert (scene["source"], scene["licence"], scene["start"]) == ("unknown", "CC0", "2020-01-02T00:00:00+00:00")
    assert scene["window"] == {"hr": [0, 0, 64, 80]}
    assert scene["files"] == [{"path": str(path), "sha256": digest(path)}]
    assert scene["checksums"] == {"hr": digest(tmp_path / "train.zarr" / "scenes" / "x_20200102" / "hr")}
    assert manifest["patches"] == scene["patches"] == {"train": 20, "val": 0, "test": 0, "none": 0}
    assert manifest["options"]["split"]["block"] == 2560


def test_a_scene_wider_than_a_shard_is_copied_whole(make_scene, tmp_path):
    path = make_scene("x.tif", shape=(1100, 2100))
    run([path], tmp_path / "train.zarr", patch=256)
    np.testing.assert_array_equal(stored(tmp_path / "train.zarr"), pixels(path))


def test_windows_and_excluded_parts_of_a_scene_are_kept(make_scene, tmp_path):
    path = make_scene("x.tif")
    window, exclude = (slice(4, 52), slice(8, 72)), (slice(0, 20), slice(0, 24))
    files = SceneFiles("part", (str(path),), window=window, exclude=(exclude,))
    run([files], tmp_path / "train.zarr")
    expected = pixels(path)
    expected[:, exclude[0], exclude[1]] = 0
    np.testing.assert_array_equal(stored(tmp_path / "train.zarr"), expected[:, window[0], window[1]])


def test_pixels_that_only_a_mask_leaves_out_need_a_value_that_marks_them(make_scene, tmp_path):
    path = make_scene("x.tif", nodata=None)
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(64 * 80).reshape(64, 80) > 9)
    with pytest.raises(RadiometryError, match="choose one with --nodata"):
        run([path], tmp_path / "train.zarr")
    run([path], tmp_path / "train.zarr", encoding=Claims(nodata=65000))
    assert (stored(tmp_path / "train.zarr")[:, 0, :11] == 65000).tolist() == [[True] * 10 + [False]] * 2


# Several scales


@pytest.mark.parametrize("factor", [0.75, 0.5])
def test_coarser_copies_are_means_over_area_on_a_grid_with_the_same_origin(make_scene, tmp_path, factor):
    path = make_scene("x.tif", shape=(96, 96))
    run([path], tmp_path / "train.zarr", scales=[1, factor])
    store = open_store(tmp_path / "train.zarr")
    assert [scene.name for scene in store.scenes] == ["x.tif", f"x.tif@{factor:g}"]
    with open_scene(store.scenes[1].hr) as scene:
        assert scene.geobox.boundingbox == open_scene(path).geobox.boundingbox
        coarse = scene.read_digital()
    # GDAL's own average, which works in floats.
    length = int(96 * factor)
    with rasterio.open(path) as file:
        expected = file.read(out_shape=(2, length, length), resampling=rasterio.enums.Resampling.average)
    assert np.abs(coarse.astype(int) - expected).max() <= 1
    assert set(np.unique(store.table.scene)) == {0, 1}


@given(st.sampled_from([1, 0.75, 0.6, 0.5]), st.integers(64, 90), st.integers(64, 90), st.sampled_from([2, 4]))
@settings(max_examples=5)
def test_pairs_keep_their_exact_ratio_at_every_scale(tmp_path_factory, factor, height, width, scale):
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for name, (rows, columns), step in (
        ("lr", (height, width), 10),
        ("hr", (height * scale, width * scale), 10 / scale),
    ):
        (folder / name).mkdir()
        profile = {"count": 2, "height": rows, "width": columns, "dtype": "uint16", "crs": "EPSG:32633", "nodata": 0}
        transform = Affine(step, 0, 400_000, 0, -step, 5_000_000)
        with rasterio.open(
            folder / name / f"a_{name}.tif", "w", driver="GTiff", transform=transform, **profile
        ) as file:
            file.write(rng.integers(1, 5000, (2, rows, columns), dtype=np.uint16))
            file.scales, file.descriptions = (1e-4, 1e-4), BANDS
    out = folder / "train.zarr"
    run([], out, lr=folder / "lr", hr=folder / "hr", scales=[factor], patch=8 * scale, scale=scale)
    store = open_store(out)
    assert store.scale == scale
    with open_scene(store.scenes[0].hr) as hr, open_scene(store.scenes[0].lr) as lr:
        assert tuple(hr.geobox.shape) == tuple(length * scale for length in lr.geobox.shape)
        assert tuple(lr.geobox.shape) == tuple(int(length * as_fraction(factor)) for length in (height, width))
        np.testing.assert_allclose(hr.geobox.boundingbox, lr.geobox.boundingbox, rtol=0, atol=1e-6)
    assert check_store(out).violations == ()


# Pairs


@pytest.fixture
def make_pair(make_scene):
    """A factory of a pair at x2 in the folders ``low`` and ``high``; the HR grid is moved by some HR pixels."""

    def make(name="a", *, moved=(0, 0), shape=(32, 40), **arguments):
        right, down = moved
        make_scene(f"low/{name}_lr.tif", shape=shape, transform=GRID * Affine.scale(2), **arguments)
        fine = tuple(2 * length for length in shape)
        make_scene(f"high/{name}_hr.tif", shape=fine, transform=GRID * Affine.translation(right, down), seed=1)

    return make


def test_what_two_images_have_in_common_is_stored(make_pair, tmp_path):
    make_pair(moved=(2, -3))
    run([], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high")
    (entry,) = open_store(tmp_path / "train.zarr").manifest["scenes"]
    assert entry["window"] == {"hr": [3, 0, 60, 78], "lr": [0, 1, 30, 39]}
    np.testing.assert_array_equal(stored(tmp_path / "train.zarr"), pixels(tmp_path / "high/a_hr.tif")[:, 3:63, :78])
    low = stored(tmp_path / "train.zarr", role="lr")
    np.testing.assert_array_equal(low, pixels(tmp_path / "low/a_lr.tif")[:, :30, 1:])
    assert check_store(tmp_path / "train.zarr").violations == ()


def test_an_area_of_a_pair_holds_whole_lr_pixels(make_pair, tmp_path):
    make_pair()
    box = (13.7285, 45.1424, 13.7345, 45.1456)
    run([], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high", bbox=box)
    (entry,) = open_store(tmp_path / "train.zarr").manifest["scenes"]
    assert entry["window"]["hr"] == [2 * number for number in entry["window"]["lr"]]
    assert entry["window"]["lr"][2:] < [32, 40]
    assert check_store(tmp_path / "train.zarr").violations == ()


def test_a_patch_counts_as_valid_where_both_images_are(make_pair, tmp_path):
    dn = np.full((2, 32, 40), 1000)
    dn[:, :4, :4] = 0
    make_pair(dn=dn)
    run([], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high", min_valid=0)
    table = open_store(tmp_path / "train.zarr").table
    assert table.valid[(table.row == 0) & (table.column == 0)] == np.float32(0.75)


def test_a_pair_beside_its_grid_is_refused(make_pair, tmp_path):
    make_pair(moved=(0.5, 0))
    with pytest.raises(GridError, match="origin"):
        run([], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high")


def test_a_pair_of_another_scale_than_asked_is_refused(make_pair, tmp_path):
    make_pair()
    with pytest.raises(GridError, match="scale 4 was asked for and the pairs have 2"):
        run([], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high", scale=4)


def test_patches_hold_whole_lr_pixels(make_pair, tmp_path):
    make_pair()
    with pytest.raises(UsageError, match="patch 16 and stride 5 must be multiples of the scale 2"):
        run([], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high", stride=5)


def test_pairs_and_single_scenes_are_two_stores(make_pair, make_scene, tmp_path):
    make_pair()
    with pytest.raises(GridError, match="make a store of each"):
        run([make_scene("x.tif")], tmp_path / "train.zarr", lr=tmp_path / "low", hr=tmp_path / "high")


# Clouds


def test_cloudy_patches_are_left_out_and_their_share_is_in_the_index(make_scene, make_raster, tmp_path):
    path = make_scene("x.tif")
    classes = np.full((1, 32, 40), 4)
    classes[:, :8, :8] = 9  # the first patch
    classes[:, :8, 8:10] = 3  # a quarter of the second
    make_raster(classes, name="x_SCL.tif", dtype="uint8", transform=GRID * Affine.scale(2))
    run([path], tmp_path / "train.zarr", max_cloud=20)
    table = open_store(tmp_path / "train.zarr").table
    assert not ((table.row == 0) & (table.column < 32)).any()
    run([path], tmp_path / "more.zarr", max_cloud=25)
    clouds = np.asarray(zarr.open_group(tmp_path / "more.zarr" / "index", mode="r")["cloud"])
    assert sorted(clouds)[-2:] == [0, 0.25]
    assert check_store(tmp_path / "more.zarr").violations == ()


def test_a_given_mask_is_taken_before_that_of_the_scene(make_scene, make_raster, tmp_path):
    path = make_scene("x.tif")
    make_raster(np.full((1, 64, 80), 9), name="x_SCL.tif", dtype="uint8", transform=GRID)
    mask = make_raster(np.zeros((1, 64, 80)), name="mask.tif", dtype="uint8", transform=GRID)
    assert run([path], tmp_path / "train.zarr", max_cloud=0, cloud_mask=mask).patches["train"] == 20


def test_scenes_without_a_mask_are_named_with_what_to_do(make_scene, tmp_path):
    with pytest.raises(InputError, match=r"clouds of 1 scenes \(x.tif\); lay NAME_SCL.tif beside each"):
        run([make_scene("x.tif")], tmp_path / "train.zarr", max_cloud=20)


# The split


def test_no_place_is_in_two_parts_whatever_date_or_scale_shows_it(make_scene, tmp_path):
    paths = [make_scene(f"date{n}.tif", shape=(320, 320), seed=n) for n in range(2)]
    paths.append(make_scene("nowhere.tif", shape=(320, 320), crs=None))
    split = BlockSplit((0.6, 0.2, 0.2), block=640, buffer=20)
    done = run(paths, tmp_path / "train.zarr", scales=[1, 0.5], split=split)
    assert min(done.patches[part] for part in ("train", "val", "test")) > 0
    assert check_store(tmp_path / "train.zarr").violations == ()
    store = open_store(tmp_path / "train.zarr")
    first, second = (store.table.split[store.table.scene == number] for number in (0, 2))
    np.testing.assert_array_equal(first, second)


# Again, after a change, after a kill


def test_running_it_twice_changes_nothing(make_scene, tmp_path):
    paths = [make_scene(f"{n}.tif", seed=n) for n in range(2)]
    run(paths, tmp_path / "train.zarr", scales=[1, 0.5])

    def files():
        paths = [path for path in (tmp_path / "train.zarr").rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

    before = files()
    done = run(paths, tmp_path / "train.zarr", scales=[1, 0.5])
    assert done.resumed == 4
    assert files() == before
    assert not (tmp_path / ".train.zarr.geosr").exists()
    run(paths, tmp_path / "again.zarr", scales=[1, 0.5], workers=1)
    assert digest(tmp_path / "again.zarr") == digest(tmp_path / "train.zarr")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patch": 32}, "patch 16 and this call has 32"),
        ({"split": BlockSplit((1, 0, 0), seed=3)}, 'split .*"seed": 0.* and this call has .*"seed": 3'),
        ({"bands": ["B02"]}, r'bands \["B02", "B03"\] and this call has \["B02"\]'),
        ({"licence": "CC0"}, "x.tif with licence 'unknown' and this call has 'CC0'"),
    ],
)
def test_other_options_are_refused_with_both_values(make_scene, tmp_path, change, told):
    path = make_scene("x.tif")
    run([path], tmp_path / "train.zarr")
    with pytest.raises(OutputError, match=rf"was made with {told}.*give --overwrite"):
        run([path], tmp_path / "train.zarr", **change)
    run([path], tmp_path / "train.zarr", overwrite=True, **change)
    assert run([path], tmp_path / "train.zarr", **change).resumed == 1


def test_other_scenes_are_refused(make_scene, tmp_path):
    path = make_scene("x.tif")
    run([path], tmp_path / "train.zarr")
    with pytest.raises(OutputError, match=r"no scene y\.tif, which this call has"):
        run([path, make_scene("y.tif")], tmp_path / "train.zarr")
    make_scene("x.tif", seed=5)
    with pytest.raises(OutputError, match=r"x\.tif with files"):
        run([path], tmp_path / "train.zarr")


KILL = """
import os, signal, sys
from geosr.data.prepare import prepare
from geosr.data.splits import BlockSplit
folder, scales = sys.argv[1], [1.0, 0.5]
def kill(now, done, total):
    if done > total * 0.6:
        os.kill(os.getpid(), signal.SIGKILL)
prepare([folder + "/data"], folder + "/train.zarr", bands=["B02", "B03"], patch=16, scales=scales, workers=1,
        split=BlockSplit((1.0, 0.0, 0.0)), progress=kill)
"""


def test_a_killed_run_continues_and_gives_the_same_store(make_scene, tmp_path):
    for n in range(3):
        make_scene(f"data/{n}.tif", seed=n)
    killed = subprocess.run(
        [sys.executable, "-c", KILL, tmp_path], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "train.zarr").exists()
    first: list[tuple[int, int, int]] = []
    done = run([tmp_path / "data"], tmp_path / "train.zarr", scales=[1, 0.5], progress=lambda *told: first.append(told))
    assert 2 <= done.resumed < 6
    assert first[0][0] == first[0][1] > 0
    assert first[-1][1] == first[-1][2]
    run([tmp_path / "data"], tmp_path / "fresh.zarr", scales=[1, 0.5])
    assert digest(tmp_path / "train.zarr") == digest(tmp_path / "fresh.zarr")


def test_finished_scenes_outlive_a_change_of_the_split(make_scene, tmp_path):
    path = make_scene("x.tif")
    with pytest.raises(GeosrError, match="no patch is left for"):
        run([path], tmp_path / "train.zarr", split=BlockSplit())
    assert run([path], tmp_path / "train.zarr").resumed == 1


def test_a_finished_scene_that_was_damaged_since_is_made_again(make_scene, tmp_path):
    path = make_scene("x.tif")
    with pytest.raises(GeosrError, match="no patch is left for"):
        run([path], tmp_path / "train.zarr", split=BlockSplit())
    chunk = next((tmp_path / ".train.zarr.geosr").rglob("hr/reflectance/c/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-9])
    assert run([path], tmp_path / "train.zarr").resumed == 0
    np.testing.assert_array_equal(stored(tmp_path / "train.zarr"), pixels(path))


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"patch": 128}, "64 x 80 pixels, less than a patch of 128 x 128; lower --patch"),
        ({"patch": 1}, "patch 1 must be at least 2"),
        ({"min_valid": 2}, "min_valid 2 is not a share"),
        ({"max_cloud": 200}, "max_cloud 200 is not a percentage"),
        ({"scales": [2]}, "scale 2 is not allowed"),
        ({"bands": []}, "no band was given"),
        ({"bands": ["B11"]}, "band 'B11' is not in"),
        ({"workers": 0}, "workers 0 must be at least 1"),
        ({"bbox": (5, 5, 6, 6)}, "lies outside the scene"),
        ({"bbox": (6, 5, 5, 6)}, "west south east north"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(make_scene, tmp_path, arguments, told):
    with pytest.raises(GeosrError, match=told):
        run([make_scene("x.tif")], tmp_path / "train.zarr", **arguments)
    assert not [path for path in tmp_path.iterdir() if "train" in path.name]


def test_what_lies_in_a_folder_and_does_not_fit_is_skipped_with_its_reason(make_scene, tmp_path, caplog):
    make_scene("data/good.tif")
    make_scene("data/small.tif", shape=(8, 8))
    make_scene("data/other.tif", descriptions=["B11", "B12"])
    make_scene("data/silent.tif", scale=None)
    (tmp_path / "data" / "notes.txt").write_text("no raster")
    with caplog.at_level("INFO"):
        done = run([tmp_path / "data"], tmp_path / "train.zarr")
    told = {one.name: one.reason for one in done.skipped}
    assert list(told) == ["notes.txt", "other.tif", "silent.tif", "small.tif"]
    assert "cannot be opened as a raster" in told["notes.txt"]
    assert "says nothing about their unit" in told["silent.tif"]
    assert all(f"skipped {name}: " in caplog.text for name in told)
    assert run([tmp_path / "data"], tmp_path / "train.zarr").resumed == 1


def test_a_store_is_never_made_over_something_else(make_scene, tmp_path):
    (tmp_path / "photos.zarr").mkdir()
    with pytest.raises(OutputError, match="is no training store and is not replaced"):
        run([make_scene("x.tif")], tmp_path / "photos.zarr", overwrite=True)
    with pytest.raises(OutputError, match=r"must end in \.zarr"):
        run([make_scene("x.tif")], tmp_path / "train")
    with pytest.raises(OutputError, match="does not exist; make it first"):
        run([make_scene("x.tif")], tmp_path / "no" / "train.zarr")


def test_two_runs_do_not_share_a_target(make_scene, tmp_path):
    (tmp_path / ".train.zarr.geosr").mkdir()
    with (tmp_path / ".train.zarr.geosr" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another geosr process is writing"):
            run([make_scene("x.tif")], tmp_path / "train.zarr")


def test_a_scene_that_fails_stops_the_run_and_keeps_the_others(make_scene, tmp_path):
    good, bad = make_scene("a.tif"), make_scene("b.tif", nodata=None)
    with rasterio.open(bad, "r+") as file:
        file.write_mask(np.zeros((64, 80), bool))
    with pytest.raises(RadiometryError, match=r"b\.tif has invalid pixels"):
        run([good, bad], tmp_path / "train.zarr", workers=1)
    make_scene("b.tif")
    assert run([good, bad], tmp_path / "train.zarr").resumed == 1


# Real imagery


def test_shared_data(shared_data, tmp_path):
    done = prepare([shared_data / "s2"], tmp_path / "train.zarr", bands=["B02", "B03", "B04", "B08"], patch=64)
    store = open_store(done.path)
    assert len(store.scenes) == 28, "27 places and a second date of the Danube"
    assert all(entry["licence"] != "unknown" for entry in store.manifest["scenes"])
    assert check_store(done.path).violations == ()
    names = [scene.name for scene in store.scenes]
    danube = [store.table.split[store.table.scene == names.index(f"danube_{date}_10m.tif")] for date in "ab"]
    np.testing.assert_array_equal(*danube)
    shutil.rmtree(done.path)


def test_a_product_in_a_zip_file(shared_data, tmp_path):
    path = next((shared_data / "safe").glob("*T56JMM*.zip"))
    run([path], tmp_path / "train.zarr", bands=["B04", "B08"], patch=64)
    with open_scene(open_store(tmp_path / "train.zarr").scenes[0].hr) as scene:
        assert (scene.radiometry.scale, scene.radiometry.saturated) == (1e-4, 65535)
        (image,) = [
            name
            for name in zipfile.ZipFile(path).namelist()
            if name.endswith("IMG_DATA/T56JMM_20180629T000241_B08.jp2")
        ]
        np.testing.assert_array_equal(scene.read_digital(bands=["B08"]), pixels(f"/vsizip/{path}/{image}"))
    (entry,) = open_store(tmp_path / "train.zarr").manifest["scenes"]
    assert {file["sha256"] for file in entry["files"]} == {digest(path)}
    assert entry["start"].startswith("2018-06-29")


def test_preparing_imports_no_torch():
    code = "import geosr.data.prepare, geosr.data.store, sys; assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
