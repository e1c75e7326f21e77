import os
import resource
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import jobs_kit
import pytest
from jobs_kit import Watch, in_background, make_folder, options, wait_until

from geosr.errors import GeosrError, InputError, ModelError, OutputError
from geosr.inference import dask, load_model, predict, tiled
from geosr.inference.dask import Dask

distributed = pytest.importorskip("distributed", reason="Dask is absent: pip install 'geosr[dask]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scene of nine shards, weights, and what one process makes of them."""
    return make_folder(tmp_path_factory.mktemp("dask"), 300, 290, tiles=9)


@pytest.fixture
def watch(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    watch = Watch(tmp_path / "notes")
    monkeypatch.setattr(tiled, "plan_output", watch.output)
    monkeypatch.setattr(dask, "LOOK", 0.1)
    return watch


@pytest.fixture(scope="module")
def cluster():
    """A scheduler here and two workers in processes of their own, which are started again when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50, memory_limit=0
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """Tells of the cluster, whose workers are both there."""
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=jobs_kit.PATIENCE)
        yield client


@pytest.fixture
def run(folder, tmp_path, watch, client):
    """A prediction on the cluster in the background; then the bytes are compared, and the shards counted."""

    @contextmanager
    def run(name="exact", out=tmp_path / "sr.tif"):
        with in_background(
            folder / "scene.tif",
            out,
            executor=Dask(client.scheduler.address),
            progress=watch.progress,
            **options(folder, name),
        ) as future:
            yield future
        future.result()
        assert out.read_bytes() == (folder / f"{name}.tif").read_bytes()
        assert not list(tmp_path.glob(".sr.tif*")), "work is left"
        watch.assert_each_counted_once()
        assert len(watch.calls) == 1 + 9

    return run


@pytest.mark.parametrize("name", ["exact", "approximate"])
def test_a_cluster_gives_the_bytes_of_one_process(run, watch, name):
    with run(name):
        pass
    assert os.getpid() not in watch.pids("stored-*")


def test_what_a_killed_worker_had_is_done_by_others(run, watch):
    watch.say("hold-4")
    with run() as future:
        killed = watch.wait_for("begun-4")
        os.kill(killed, signal.SIGKILL)
        watch.unsay("hold-4")
        future.result(jobs_kit.PATIENCE)
    assert killed not in watch.pids("stored-4")


def test_what_a_stopped_worker_has_is_done_by_others_and_it_harms_nothing_when_it_continues(
    run, watch, client, folder, tmp_path
):
    watch.say("hold-4")
    with run() as future:
        stopped = watch.wait_for("begun-4")
        os.kill(stopped, signal.SIGSTOP)
        try:
            watch.unsay("hold-4")
            future.result(jobs_kit.PATIENCE)
            assert watch.pids("stored-4")
            assert stopped not in watch.pids("stored-4")
        finally:
            os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: not any(client.processing().values()), "the worker does not come to an end")
    assert client.submit(os.getpid, workers=[address_of(client, stopped)]).result() == stopped
    assert (tmp_path / "sr.tif").read_bytes() == (folder / "exact.tif").read_bytes()
    assert not list(tmp_path.glob(".sr.tif*")), "it made the work folder again"


def address_of(client, pid):
    """The address of the worker that is this process."""
    return {number: address for address, number in client.run(os.getpid).items()}[pid]


def limit_files(size):
    """Let no file of this process become larger: what a full disk does, without one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_what_a_worker_with_a_full_disk_cannot_store_is_stored_by_others(run, watch, client, caplog):
    full, good = client.run(os.getpid)
    client.run(limit_files, 4096, workers=[full])
    try:
        with run():
            pass
    finally:
        client.run(limit_files, resource.RLIM_INFINITY, workers=[full])
    assert set(watch.pids("stored-*")) == set(client.run(os.getpid, workers=[good]).values())
    assert f"worker {full} could not store its shards (File too large); others do" in caplog.text


def test_when_no_worker_can_store_the_run_ends_and_the_next_one_continues(run, watch, client, folder, tmp_path):
    pids = client.run(os.getpid)
    watch.say("hold-4")
    with in_background(
        folder / "scene.tif", tmp_path / "sr.tif", executor=Dask(client.scheduler.address), **options(folder)
    ) as future:
        wait_until(lambda: len(watch.pids("stored-*")) >= 2, "nothing is stored")
        watch.wait_for("begun-4")
        for pid in pids.values():
            watch.say(f"full-{pid}")
        watch.unsay("hold-4")
        with pytest.raises(
            OutputError,
            match=r"sr\.tif could not be written by any of 2 workers: No space left on device\. What is finished is",
        ):
            future.result(jobs_kit.PATIENCE)
    assert not (tmp_path / "sr.tif").exists()
    stored = {path.name.split("-")[1] for path in watch.notes.glob("stored-*")}
    for pid in pids.values():
        watch.unsay(f"full-{pid}")
    done = predict(folder / "scene.tif", tmp_path / "sr.tif", **options(folder))
    assert len(stored) <= done.resumed < 9, "another one may have been under way"
    assert (tmp_path / "sr.tif").read_bytes() == (folder / "exact.tif").read_bytes()


def test_a_shard_that_workers_die_of_is_an_error(watch, client, folder, tmp_path):
    watch.say("die-8")
    before = client.run_on_scheduler(allow_failures, 0)
    try:
        with pytest.raises(
            OutputError, match=r"workers died again and again of the same shards .* try a smaller --tile"
        ):
            predict(
                folder / "scene.tif", tmp_path / "sr.tif", executor=Dask(client.scheduler.address), **options(folder)
            )
    finally:
        client.run_on_scheduler(allow_failures, before)
    watch.unsay("die-8")
    assert predict(folder / "scene.tif", tmp_path / "sr.tif", **options(folder)).resumed >= 1
    assert (tmp_path / "sr.tif").read_bytes() == (folder / "exact.tif").read_bytes()


def allow_failures(count, dask_scheduler):
    """Set how many workers may die of a task, and return how many could before."""
    before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, count
    return before


def test_what_stops_a_worker_arrives(client, folder, tmp_path):
    scene = tmp_path / "scene.tif"
    whole = (folder / "scene.tif").read_bytes()
    scene.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 4) + whole[len(whole) * 3 // 4 :])
    with pytest.raises(InputError, match=r"scene\.tif: rows .* cannot be read"):
        predict(scene, tmp_path / "sr.tif", executor=Dask(client.scheduler.address), **options(folder))
    assert not (tmp_path / "sr.tif").exists()


def test_a_model_in_memory_stays_in_its_process(client, folder, tmp_path):
    model = load_model(folder / "exact.safetensors", device="cpu", precision="fp32")
    with pytest.raises(ModelError, match=r"'exact' is in this process only.*; save it with geosr\.models\.save_model"):
        predict(folder / "scene.tif", tmp_path / "sr.tif", model=model, tile=1, executor=Dask(client.scheduler.address))


def test_a_local_cluster_lasts_as_long_as_its_work(geosr, folder, tmp_path):
    more = ["--model", folder / "exact.safetensors", "--tile", 1, "--precision", "fp32", "--quiet"]
    code, out, err = geosr(
        "predict", folder / "scene.tif", "--out", tmp_path / "sr.tif", "--dask", "local", "--workers", 1, *more
    )
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "sr.tif").read_bytes() == (folder / "exact.tif").read_bytes()


def test_a_scheduler_that_is_not_there_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT", 0.3)
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"no Dask scheduler answers at {address} .*dask scheduler starts one"):
            predict(folder / "scene.tif", tmp_path / "sr.tif", executor=Dask(address), **options(folder))
    with pytest.raises(InputError, match=r"gone\.json does not exist; dask scheduler --scheduler-file .*gone\.json"):
        Dask(str(tmp_path / "gone.json"))


@pytest.mark.parametrize("answer", [None, b"HTTP/1.0 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", bytes(64)])
def test_whatever_else_answers_is_no_scheduler(folder, tmp_path, monkeypatch, answer):
    """Nothing at all, a web server, a login server, zeros: the client would wait for ever."""
    monkeypatch.setattr(dask, "ANSWER", 0.5)

    class Other(socketserver.BaseRequestHandler):
        def handle(self):
            if answer:
                self.request.sendall(answer)
            done.wait(10)

    done = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"tcp://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(InputError, match=rf"no Dask scheduler answers at {address} "):
            predict(folder / "scene.tif", tmp_path / "sr.tif", executor=Dask(address), **options(folder))
        done.set()
        server.shutdown()
    assert not (tmp_path / "sr.tif").exists()


def test_a_worker_and_a_damaged_scheduler_file_are_no_scheduler(client, tmp_path):
    (worker, *_) = client.nthreads()
    with pytest.raises(InputError, match="a Dask worker answers there"):
        dask._connect(worker)
    for text in ("", "[]", '{"address": 5}', '{"address": "nowhere"}'):
        (tmp_path / "scheduler.json").write_text(text)
        with pytest.raises(InputError, match=r"no Dask scheduler answers at .*scheduler\.json"):
            dask._connect(str(tmp_path / "scheduler.json"))


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(GeosrError, match=r"pip install 'geosr\[dask\]'"):
        Dask("local")


class Cluster:
    """A scheduler and two workers, started as one starts them, each worker in a network namespace of its own.

    Where namespaces cannot be made, the workers are plain processes.
    """

    def __init__(self, stack, folder):
        self._stack, self._folder = stack, folder
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.file = folder / "scheduler.json"
        self.places = [self._namespace(number) for number in (1, 2)]

    def _namespace(self, number):
        """What a worker's command begins with, and the scheduler's address as seen from there."""
        name, net = f"geosr{os.getpid()}-{number}", f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        ours, theirs = (f"{net}.{4 * number + end}" for end in (1, 2))
        veth = f"g{os.getpid()}-{number}"  # at most 15 letters
        try:
            ip("netns", "add", name)
            self._stack.callback(ip, "netns", "del", name)
            ip("link", "add", veth, "type", "veth", "peer", "name", "worker", "netns", name)
            ip("addr", "add", f"{ours}/30", "dev", veth)
            ip("link", "set", veth, "up")
            inside = ["ip", "netns", "exec", name]
            subprocess.run([*inside, "ip", "addr", "add", f"{theirs}/30", "dev", "worker"], check=True)
            subprocess.run([*inside, "ip", "link", "set", "worker", "up"], check=True)
            subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        except (OSError, subprocess.CalledProcessError):
            return [], f"tcp://127.0.0.1:{self.port}"
        return inside, f"tcp://{ours}:{self.port}"

    def _start(self, *command):
        paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        environment = os.environ | {"PYTHONPATH": paths, "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
        with (self._folder / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self._folder)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def start_scheduler(self):
        return self._start(
            sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "0.0.0.0", "--port", str(self.port),
            "--no-dashboard", "--scheduler-file", str(self.file),
        )  # fmt: skip

    def start_workers(self):
        return [
            self._start(
                *prefix,
                *(sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"),
                *("--no-nanny", "--no-dashboard", "--memory-limit", "0"),
            )
            for prefix, address in self.places
        ]


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def test_a_scheduler_that_is_started_again_continues(folder, tmp_path, watch, caplog):
    """Two workers that reach nothing but the scheduler; all three are killed in the middle."""
    out = tmp_path / "sr.tif"
    watch.say("hold-4")
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path)
        scheduler, workers = cluster.start_scheduler(), cluster.start_workers()
        wait_until(cluster.file.exists, "the scheduler does not begin")
        with in_background(
            folder / "scene.tif", out, executor=Dask(str(cluster.file)), progress=watch.progress, **options(folder)
        ) as future:
            watch.wait_for("begun-4")
            scheduler.kill()
            scheduler.wait()
            time.sleep(0.5)  # the client looks for it several times
            for worker in workers:
                worker.kill()
            watch.unsay("hold-4")
            cluster.start_scheduler()
            cluster.start_workers()
            future.result(jobs_kit.PATIENCE)
        with distributed.Client(f"tcp://127.0.0.1:{cluster.port}", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=jobs_kit.PATIENCE)
            hosts = {address.rpartition(":")[0] for address in client.nthreads()}
        assert len(hosts) == (2 if cluster.places[0][0] else 1)
    assert "lost the scheduler at" in caplog.text
    assert out.read_bytes() == (folder / "exact.tif").read_bytes()
    watch.assert_each_counted_once()
    assert len(watch.calls) == 1 + 9
