import errno
import pickle
from dataclasses import replace

import numpy as np
import pytest
from jobs_kit import BANDS, save_interpolation, write_scene

from geosr.errors import ModelError
from geosr.inference import load_model, predict
from geosr.inference.job import Job
from geosr.inference.journal import Journal
from geosr.inference.outputs import plan_output
from geosr.inference.resident import keep, locate
from geosr.inference.work import Work
from geosr.io.scene import open_scene

CPU = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def plan(tmp_path):
    """Plans the work of a scene of six shards."""
    scene = write_scene(tmp_path / "scene.tif", 300, 200)
    with open_scene(scene) as opened:

        def plan(name="sr.tif", *, tiling="exact", model=None, batch_size=1, tile=1, dtype=None):
            path = tmp_path / f"{tiling}.safetensors"
            key = model or locate(path if path.exists() else save_interpolation(path, tiling=tiling), **CPU)
            job = Job.plan(opened, key, aoi=None, dtype=dtype, tile=tile)
            output = plan_output(tmp_path / name, job.profile, shard=job.tiles.core * job.scale)
            Journal(output.target, {}).close()
            output.begin()
            return Work(opened, job, output, batch_size)

        yield plan


def stored(work):
    """What is on disk of each shard."""
    paths = [work.output.shard_path(shard) for shard in range(len(work))]
    return [path.read_bytes() if path.exists() else None for path in paths]


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr", "bands"])
def test_work_travels_in_few_bytes_and_does_the_same_elsewhere(plan, tmp_path, name):
    work = plan(name)
    list(work.do(range(6)))
    before = stored(work)
    pickled = pickle.dumps(work)
    assert len(pickled) < 20_000
    Journal(work.output.target, {}, restart=True).close()
    work.output.begin()
    arrived = pickle.loads(pickled)
    assert sorted(arrived.do(range(6))) == list(range(6))
    assert stored(arrived) == before
    assert None not in before


def test_work_with_a_large_model_travels_without_it(tmp_path):
    """The whole graph of a task must stay below 100 kB."""
    with open_scene(write_scene(tmp_path / "scene.tif", 64, 64)) as scene:
        shipped = locate("s2-rgbn-x4", **CPU)
        weights = sum(tensor.numel() * 4 for tensor in shipped.load().model.state_dict().values())
        job = replace(
            Job.plan(
                scene, locate(save_interpolation(tmp_path / "a.safetensors"), **CPU), aoi=None, dtype=None, tile=1
            ),
            model=shipped,
        )
        work = Work(scene, job, plan_output(tmp_path / "sr.tif", job.profile, shard=512))
        assert len(pickle.dumps(work)) < 20_000 < 100_000 < weights


def test_work_with_a_model_in_memory_does_not_travel(plan, tmp_path):
    model = keep(load_model(save_interpolation(tmp_path / "mine.safetensors"), **CPU))
    work = plan(model=model)
    assert list(work.do([5])) == [5]
    with pytest.raises(ModelError, match="'mine' is in this process only"):
        pickle.dumps(work)


@pytest.mark.parametrize("tiling", ["exact", "approximate"])
def test_a_shard_is_the_same_whatever_else_is_done(plan, tiling):
    whole, parts = plan("whole.tif", tiling=tiling), plan("parts.tif", tiling=tiling)
    list(whole.do(range(6)))
    for bundle in ([4], [0, 5], [2, 1, 3]):
        assert sorted(parts.do(bundle, threads=1)) == sorted(bundle)
    assert stored(parts) == stored(whole)


def test_a_shard_is_told_when_it_is_on_disk(plan):
    work = plan()
    for done in work.do(range(6)):
        assert work.output.is_stored(done)


def test_who_stops_early_leaves_whole_shards_alone(plan):
    work = plan()
    doing = work.do(range(6))
    first = next(doing)
    doing.close()
    assert work.output.is_stored(first)
    assert all(work.output.is_stored(shard) for shard, data in enumerate(stored(work)) if data is not None)


def test_a_shard_that_cannot_be_stored_stops_the_work(plan, monkeypatch):
    work = plan()
    monkeypatch.setattr("geosr.io.blocks.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        list(work.do(range(6)))
    assert stored(work) == [None] * 6


def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_invalid_pixels_are_nodata_and_all_of_them_where_nothing_is_valid(tmp_path):
    scene, model = write_scene(tmp_path / "scene.tif", 300, 200), save_interpolation(tmp_path / "a.safetensors")
    done = predict(scene, tmp_path / "sr.tif", model=model, tile=1, **CPU)
    with open_scene(scene) as lr, open_scene(done.path) as sr:
        expected = np.kron(lr.read().valid, np.ones((4, 4), bool))
        np.testing.assert_array_equal(sr.read().valid, expected)
        digital = sr.read_digital((slice(0, 1200), slice(0, 800)))
        assert digital.shape == (len(BANDS), 1200, 800)
        np.testing.assert_array_equal(digital == 0, np.broadcast_to(~expected, digital.shape))


def test_shards_are_done_in_an_order_that_fills_batches(plan):
    """Whole ones first: those of the last row and column have other shapes."""
    work = plan(batch_size=2)
    shapes = [work.job.tiles.tile(shard).shape for shard in work._in_order([5, 0, 3, 1, 2, 4])]
    assert shapes == sorted(shapes, reverse=True)
    blended = plan("blended.tif", tiling="approximate")
    assert blended._in_order([5, 0, 3]) == [0, 3, 5]
