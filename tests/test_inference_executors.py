import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jobs_kit
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs_kit import Watch, in_background, make_folder, options, wait_until

from geosr.errors import InputError, ModelError, OutputError, UsageError
from geosr.grid import TilePlan
from geosr.inference import executors, load_model, predict, tiled
from geosr.inference.blend import OverlapPlan
from geosr.inference.executors import Processes, bundles, share


class Planned:
    """As much of a `Work` as dealing it out needs."""

    def __init__(self, tiles, batch_size=1):
        self.job, self.batch_size = self, batch_size
        self.tiles = tiles

    def __len__(self):
        return len(self.tiles)


plans = st.builds(
    lambda plan, rows, columns: plan((rows, columns), 16, 3),
    st.sampled_from([TilePlan, OverlapPlan]),
    st.integers(1, 250),
    st.integers(1, 250),
)


@given(plans, st.integers(1, 40))
def test_shares_are_all_of_the_work_each_shard_once_and_about_equal(plan, of):
    work = Planned(plan)
    shares = [share(work, number, of) for number in range(1, of + 1)]
    assert [shard for one in shares for shard in one] == list(range(len(plan)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("number", "of"), [(0, 4), (5, 4), (1, 0)])
def test_a_share_that_is_none_is_refused(number, of):
    with pytest.raises(UsageError, match=f"--shard {number}/{of} is none of {of}; give 1/{of} to {of}/{of}"):
        share(Planned(TilePlan((99, 99), 16, 3)), number, of)


@given(plans, st.data(), st.integers(1, 9), st.integers(1, 5))
def test_bundles_hold_what_is_wanted_each_shard_once(plan, data, workers, batch_size):
    wanted = sorted(data.draw(st.sets(st.integers(0, len(plan) - 1))))
    dealt = bundles(Planned(plan, batch_size), wanted, workers=workers)
    assert sorted(shard for bundle in dealt for shard in bundle) == wanted
    assert all(dealt), "a worker gets nothing"
    if isinstance(plan, OverlapPlan):
        sides = [{divmod(shard, plan.grid[1])[axis] for shard in bundle} for bundle in dealt for axis in (0, 1)]
        assert all(max(side) - min(side) < executors.SQUARE for side in sides)
    else:
        assert max(map(len, dealt), default=0) <= max(executors.MOST, batch_size)
        assert len(dealt) >= min(len(wanted) // batch_size, 4 * workers), "some workers have nothing to do"


def test_no_processes_are_refused():
    with pytest.raises(UsageError, match="--workers 0: give at least 1"):
        Processes(0)


@pytest.mark.parametrize("first", ["SpawnProcess-1", "SpawnProcess-7", "SpawnProcess-2:5"])
def test_workers_that_follow_each_other_have_different_gpus(monkeypatch, first):
    parent, _, number = first.rpartition("-")
    number, outer = int(number.rpartition(":")[2]), number.rpartition(":")[0]
    monkeypatch.setattr(executors, "_end_with_parent", lambda: None)
    monkeypatch.setattr(executors, "_GPU", None)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    gpus = []
    for worker in range(number, number + 6):
        name = f"{parent}-{outer}:{worker}" if outer else f"{parent}-{worker}"
        monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
        executors._settle(6)
        gpus.append(executors._GPU)
    assert sorted(gpus) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:2", "cuda:2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scene of six shards, weights, and what one process makes of them."""
    return make_folder(tmp_path_factory.mktemp("executors"), 300, 200, tiles=6)


@pytest.fixture
def watch(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    watch = Watch(tmp_path / "notes")
    monkeypatch.setattr(tiled, "plan_output", watch.output)
    return watch


def test_processes_give_the_bytes_of_one(folder, tmp_path, watch):
    """The harder case, in which neighbouring shards are blended; the others are below."""
    out = tmp_path / "sr.tif"
    done = predict(
        folder / "scene.tif", out, executor=Processes(2), progress=watch.progress, **options(folder, "approximate")
    )
    assert out.read_bytes() == (folder / "approximate.tif").read_bytes()
    assert done.resumed == 0
    assert os.getpid() not in watch.pids("stored-*")
    watch.assert_each_counted_once()


def test_what_a_killed_process_had_is_done_by_others(folder, tmp_path, watch, caplog):
    out = tmp_path / "sr.tif"
    watch.say("hold-3")
    with in_background(
        folder / "scene.tif", out, executor=Processes(2), progress=watch.progress, **options(folder)
    ) as future:
        os.kill(watch.wait_for("begun-3"), signal.SIGKILL)
        watch.unsay("hold-3")
        assert future.result(jobs_kit.PATIENCE).missing == 0
    assert out.read_bytes() == (folder / "exact.tif").read_bytes()
    assert "a worker process died; its shards are done again" in caplog.text
    watch.assert_each_counted_once()


def test_processes_that_die_of_a_shard_are_an_error_and_what_is_finished_stays(folder, tmp_path, watch, monkeypatch):
    out = tmp_path / "sr.tif"
    monkeypatch.setattr(executors, "ATTEMPTS", 2)
    watch.say("die-5")
    with pytest.raises(OutputError, match=r"worker processes died 2 times in a row.* What is finished is kept"):
        predict(folder / "scene.tif", out, executor=Processes(1), **options(folder))
    assert not out.exists()
    watch.unsay("die-5")
    assert predict(folder / "scene.tif", out, **options(folder)).resumed == 5
    assert out.read_bytes() == (folder / "exact.tif").read_bytes()


def test_what_stops_a_process_arrives_and_what_is_finished_stays(folder, tmp_path):
    """The lower part of the scene cannot be read; then it can again."""
    scene, out = tmp_path / "scene.tif", tmp_path / "sr.tif"
    whole = (folder / "scene.tif").read_bytes()
    scene.write_bytes(whole)
    with scene.open("r+b") as file:
        file.seek(len(whole) * 3 // 4)
        file.write(bytes(len(whole) // 8))
    with pytest.raises(InputError, match=r"scene\.tif: rows .* cannot be read"):
        predict(scene, out, executor=Processes(1), **options(folder))
    assert not out.exists()
    assert len(list(tmp_path.glob(".sr.tif.geosr/shards-*/*"))) in range(1, 6)
    scene.write_bytes(whole)
    assert predict(scene, out, **options(folder)).resumed == 0, "the scene is another one now"
    assert out.read_bytes() == (folder / "exact.tif").read_bytes()


def test_a_model_in_memory_stays_in_its_process(folder, tmp_path):
    model = load_model(folder / "exact.safetensors", device="cpu", precision="fp32")
    with pytest.raises(ModelError, match=r"'exact' is in this process only.*; save it with geosr\.models\.save_model"):
        predict(folder / "scene.tif", tmp_path / "sr.tif", model=model, tile=1, executor=Processes(1))


COMMAND = """
import signal, sys
from pathlib import Path
from jobs_kit import Watch, in_background, make_folder, options, save_interpolation, wait_until, write_scene
from geosr import cli
from geosr.inference import tiled

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
    notes, *arguments = sys.argv[1:]
    tiled.plan_output = Watch(Path(notes)).output
    sys.argv = ["geosr", "predict", *arguments]
    cli.main()
"""


@pytest.mark.parametrize(
    ("how", "workers"),
    [
        (signal.SIGKILL, ["--workers", "1"]),
        (signal.SIGINT, ["--workers", "1"]),
        (signal.SIGINT, ["--workers", "1", "--dask", "local"]),
    ],
    ids=["kill -9", "ctrl-c", "ctrl-c dask"],
)
def test_processes_end_with_the_command(folder, tmp_path, how, workers):
    """Ctrl-C reaches all of them, kill -9 the command alone."""
    if "--dask" in workers:
        pytest.importorskip("distributed", reason="Dask is absent: pip install 'geosr[dask]'")
    (tmp_path / "command.py").write_text(COMMAND)
    watch, out = Watch(tmp_path / "notes"), tmp_path / "sr.tif"
    watch.notes.mkdir()
    watch.say("hold-2")
    words = [word for name, value in options(folder).items() for word in (f"--{name}", str(value))]
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    words += ["--out", str(out), *workers]
    with subprocess.Popen(
        [sys.executable, tmp_path / "command.py", watch.notes, folder / "scene.tif", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, stderr=subprocess.PIPE, text=True,
        process_group=0,
    ) as command:  # fmt: skip
        worker = watch.wait_for("begun-2")
        (os.kill if how == signal.SIGKILL else os.killpg)(command.pid, how)
        if "--dask" in workers:
            watch.unsay("hold-2")  # Dask waits for a worker some seconds before it kills it, and says so
        _, told = command.communicate(timeout=jobs_kit.PATIENCE)
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"), "a worker outlives the command")
    assert command.returncode == (-how if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        lines = [line for line in told.splitlines() if not re.match(r" *\d+ %$|Dask workers with ", line)]
        assert lines == ["interrupted; the same command continues"]
    assert not out.exists()
    assert predict(folder / "scene.tif", out, **options(folder)).resumed in range(1, 6)
    assert out.read_bytes() == (folder / "exact.tif").read_bytes()
