import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from jobs_kit import BANDS, save_interpolation, write_scene
from odc.geo.geobox import GeoBox
from rio_cogeo import cog_validate

from geosr.errors import OutputError, UsageError
from geosr.inference import outputs, predict
from geosr.inference.outputs import kind_of, plan_output
from geosr.io.cog import Profile
from geosr.io.scene import open_scene
from geosr.io.work import locked_folder
from geosr.models import Model, ModelSpec, save_model
from geosr.radiometry import Radiometry


class Stop(Exception):
    """Ends a run from outside."""


def stopping(after):
    """A progress callback that ends the run when so many shards are stored."""
    calls = iter(range(after + 1))

    def progress(*_):
        if next(calls) == after:
            raise Stop

    return progress


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_interpolation(tmp_path_factory.mktemp("outputs") / "bicubic.safetensors")


@pytest.fixture
def options(weights):
    return {"model": weights, "tile": 1, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def scene(tmp_path):
    """Six shards, with a hole."""
    return write_scene(tmp_path / "scene.tif", 300, 200)


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def tree(folder):
    """Bytes of every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("shape", [(300, 200), (129, 257), (128, 64), (7, 5), (1, 1)])
def test_a_zarr_group_has_the_pixels_of_the_geotiff_for_every_reader(tmp_path, options, shape, dtype):
    xarray = pytest.importorskip("xarray", reason="xarray is absent: pip install 'geosr[xarray]'")
    scene = write_scene(tmp_path / "scene.tif", *shape)
    expected = read(predict(scene, tmp_path / "sr.tif", dtype=dtype, **options).path)
    done = predict(scene, tmp_path / "sr.zarr", dtype=dtype, **options)
    assert done.bytes == sum(path.stat().st_size for path in done.path.rglob("*") if path.is_file())
    with open_scene(done.path) as opened, open_scene(tmp_path / "sr.tif") as tif:
        assert (opened.bands, opened.geobox) == (BANDS, tif.geobox)
        assert repr(opened.radiometry) == repr(tif.radiometry), "NaN is not equal to itself"
        np.testing.assert_array_equal(opened.read_digital((slice(0, shape[0] * 4), slice(0, shape[1] * 4))), expected)
        np.testing.assert_array_equal(opened.read().valid, tif.read().valid)
    np.testing.assert_array_equal(zarr.open_group(done.path, mode="r")["reflectance"][:], expected)
    with xarray.open_zarr(done.path, consolidated=False, mask_and_scale=False, chunks=None) as cube:
        np.testing.assert_array_equal(cube["reflectance"], expected)
        assert cube["reflectance"].shape == (2, shape[0] * 4, shape[1] * 4)


def test_each_file_of_a_folder_is_its_band_of_the_geotiff(scene, tmp_path, options):
    expected = read(predict(scene, tmp_path / "sr.tif", **options).path)
    done = predict(scene, tmp_path / "bands", **options)
    assert (done.path, sorted(path.name for path in done.path.iterdir())) == (
        tmp_path / "bands",
        ["B02.tif", "B08.tif"],
    )
    assert done.bytes == sum(path.stat().st_size for path in done.path.iterdir())
    for number, band in enumerate(BANDS):
        valid, errors, warnings = cog_validate(done.path / f"{band}.tif", quiet=True)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(done.path / f"{band}.tif") as file, rasterio.open(tmp_path / "sr.tif") as whole:
            np.testing.assert_array_equal(file.read(1), expected[number])
            assert (file.descriptions, file.scales, file.nodata) == ((band,), whole.scales[:1], whole.nodata)
            assert (file.transform, file.crs, file.tags()) == (whole.transform, whole.crs, whole.tags())
            for level, factor in enumerate(whole.overviews(1)):
                with (
                    rasterio.open(done.path / f"{band}.tif", overview_level=level) as one,
                    rasterio.open(tmp_path / "sr.tif", overview_level=level) as both,
                ):
                    np.testing.assert_array_equal(one.read(1), both.read(number + 1), err_msg=f"overview {factor}")


def test_mean_and_spread_are_files_with_encodings_of_their_own(tmp_path):
    arguments = {"channels": 6, "blocks": 1, "noise_channels": 2, "large_kernel_size": 3, "std": [0.05, 0.05]}
    model = Model(ModelSpec("noisy", "stochastic", 4, BANDS, arguments))
    scene, path = write_scene(tmp_path / "scene.tif", 40, 140), save_model(model, tmp_path / "noisy.safetensors").path
    options = {"model": path, "samples": 2, "tile": 1, "device": "cpu", "precision": "fp32"}
    expected = read(predict(scene, tmp_path / "sr.tif", **options).path)
    done = predict(scene, tmp_path / "bands/", **options)
    names = ("B02", "B08", "B02_spread", "B08_spread")
    assert done.bands == names
    for number, band in enumerate(names):
        with rasterio.open(done.path / f"{band}.tif") as file, rasterio.open(tmp_path / "sr.tif") as whole:
            np.testing.assert_array_equal(file.read(1), expected[number])
            assert (file.scales[0], file.offsets[0]) == (whole.scales[number], whole.offsets[number])
    with pytest.raises(
        UsageError, match="B02 B08 B02_spread B08_spread in one array, and their encodings differ; add --dtype float32"
    ):
        predict(scene, tmp_path / "sr.zarr", **options)
    spread = predict(scene, tmp_path / "sr.zarr", dtype="float32", **options)
    assert zarr.open_group(spread.path, mode="r")["reflectance"].shape == (4, 160, 560)


@pytest.mark.parametrize("name", ["sr.zarr", "bands"])
@pytest.mark.parametrize("after", [0, 2, 6])
def test_a_stopped_run_continues_to_the_same_bytes(scene, tmp_path, options, name, after):
    undisturbed = tree(
        predict(scene, tmp_path / "undisturbed" if name == "bands" else tmp_path / "a.zarr", **options).path
    )
    out = tmp_path / name
    with pytest.raises(Stop):
        predict(scene, out, **options, progress=stopping(after))
    assert not out.exists()
    assert predict(scene, out, **options).resumed == after
    assert tree(out) == undisturbed
    assert not list(tmp_path.glob(f".{name}*"))


@pytest.mark.parametrize("name", ["sr.zarr", "bands"])
def test_what_a_crash_damaged_is_made_again_and_what_it_left_is_not_delivered(
    scene, tmp_path, options, name, monkeypatch
):
    undisturbed = tree(
        predict(scene, tmp_path / "undisturbed" if name == "bands" else tmp_path / "a.zarr", **options).path
    )
    out, stored = tmp_path / name, []
    planned = outputs.plan_output

    def watched(*args, **kwargs):
        stored.append(planned(*args, **kwargs))
        return stored[-1]

    monkeypatch.setattr("geosr.inference.tiled.plan_output", watched)
    with pytest.raises(Stop):
        predict(scene, out, **options, progress=stopping(5))
    first, second, third = [path for shard in range(6) if (path := stored[0].shard_path(shard)).exists()][:3]
    os.truncate(first, 0)
    os.truncate(second, second.stat().st_size - 1)
    with third.open("r+b") as file:
        file.seek(third.stat().st_size // 3)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    monkeypatch.setattr("geosr.io.blocks.os.replace", lambda *_: os._exit(9))
    if (process := os.fork()) == 0:  # killed between the last byte of a shard and its name
        stored[0].store(5, {key: b"" for key in ("4/2", "B02.tif:0")[: 1 if name == "sr.zarr" else 2]})
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    monkeypatch.undo()
    assert predict(scene, out, **options).resumed == 2
    assert tree(out) == undisturbed


def test_a_crash_before_a_zarr_group_has_its_name_costs_no_shard(scene, tmp_path, options, monkeypatch):
    real, calls = os.rename, []

    def crash(source, target):
        calls.append(source)
        if str(target) == str(tmp_path / "sr.zarr"):
            raise Stop
        real(source, target)

    predict(scene, tmp_path / "sr.zarr", **options)
    before = tree(tmp_path / "sr.zarr")
    monkeypatch.setattr("geosr.inference.outputs.os.rename", crash)
    with pytest.raises(Stop):
        predict(scene, tmp_path / "sr.zarr", overwrite=True, **options)
    monkeypatch.undo()
    assert predict(scene, tmp_path / "sr.zarr", overwrite=True, **options).resumed == 6
    assert tree(tmp_path / "sr.zarr") == before


def test_an_existing_group_is_replaced_as_a_whole_and_only_when_asked(scene, tmp_path, options):
    out = tmp_path / "sr.zarr"
    predict(scene, out, **options)
    (out / "mine.txt").write_text("old")
    with pytest.raises(OutputError, match=r"sr\.zarr exists; give --overwrite to replace it"):
        predict(scene, out, **options)
    assert (out / "mine.txt").exists()
    predict(scene, out, overwrite=True, **options)
    assert not (out / "mine.txt").exists()
    (tmp_path / "plain.zarr").mkdir()
    with pytest.raises(OutputError, match=r"plain\.zarr exists and is no Zarr group; choose another name"):
        predict(scene, tmp_path / "plain.zarr", overwrite=True, **options)


def test_a_folder_keeps_what_else_is_in_it(scene, tmp_path, options):
    out = tmp_path / "bands"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "B02.tif").write_text("an earlier result")
    with pytest.raises(OutputError, match=r"bands holds B02\.tif already; give --overwrite to replace them"):
        predict(scene, out, **options)
    assert sorted(path.name for path in out.iterdir()) == ["B02.tif", "notes.txt"]
    predict(scene, out, overwrite=True, **options)
    assert sorted(path.name for path in out.iterdir()) == ["B02.tif", "B08.tif", "notes.txt"]
    assert (out / "notes.txt").read_text() == "mine"
    assert read(out / "B02.tif").shape == (1, 1200, 800)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sr.tif", "tif"), ("SR.TIFF", "tif"), ("a.zarr", "zarr"), ("a.zarr/", "zarr"), ("bands", "folder"),
        ("bands/", "folder"), ("v1.2/", "folder"), ("deep/bands", "folder"),
    ],
)  # fmt: skip
def test_the_name_says_what_is_written(name, kind):
    assert kind_of(name) == kind


def test_a_folder_that_exists_may_have_any_name(tmp_path):
    (tmp_path / "v1.2").mkdir()
    assert kind_of(tmp_path / "v1.2") == "folder"
    with pytest.raises(UsageError, match=r"sr\.png ends in \.png; give a name in \.tif or \.zarr, or a folder"):
        kind_of("sr.png")


def test_a_file_where_a_folder_is_to_be_is_an_error_before_any_work(scene, tmp_path, options):
    (tmp_path / "bands").write_text("")
    with pytest.raises(OutputError, match="bands is a file; give the name of a folder"):
        predict(scene, tmp_path / "bands", overwrite=True, **options)
    group = predict(scene, tmp_path / "scene.zarr", **options).path
    with pytest.raises(OutputError, match=r"lies inside the input .*scene\.zarr"):
        predict(group, group / "sr.zarr", **options)
    assert not list(tmp_path.glob(".*"))


def profile():
    geobox = GeoBox((1100, 700), Affine(2.5, 0, 400_000, 0, -2.5, 5_000_000), "EPSG:32633")
    return Profile(geobox, BANDS, Radiometry(1e-4, nodata=0, dtype="uint16"))


def test_of_runs_that_begin_a_group_together_each_finds_it_whole(tmp_path):
    """As the jobs of an array do, here or on other machines."""
    target = tmp_path / "sr.zarr"
    with locked_folder(target) as folder:
        together = threading.Barrier(4)

        def begin(_):
            output = plan_output(target, profile(), shard=512, job="a")
            together.wait()
            output.begin()
            return output.is_stored(0), output.shard_path(0).parent.parent.is_dir()

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(begin, range(4))) == [(False, True)] * 4
        assert sorted(path.name for path in folder.iterdir()) == ["lock", "shards-a.sums", "shards-a.zarr"]


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr"])
def test_who_is_late_with_a_shard_of_another_job_or_of_a_finished_one_stores_nothing(tmp_path, name):
    target, pixels = tmp_path / name, np.full((2, 512, 512), 0.5, np.float32)
    window = (slice(0, 512), slice(0, 512))
    with locked_folder(target) as folder:
        mine, other = (plan_output(target, profile(), shard=512, job=job) for job in ("mine", "other"))
        other.begin()
        mine.begin()
        mine.store(0, mine.encode(window, pixels))
        assert mine.is_stored(0)
        assert not other.is_stored(0)
        other.store(0, other.encode(window, pixels / 2))
        again = plan_output(target, profile(), shard=512, job="mine")
        assert again.is_stored(0)
        assert again.shard_path(0).read_bytes() != other.shard_path(0).read_bytes()
        shutil.rmtree(folder)
        with pytest.raises(OSError, match="No such file"):
            mine.store(0, mine.encode(window, pixels))
    assert not list(tmp_path.iterdir())
