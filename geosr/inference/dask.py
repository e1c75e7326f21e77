"""Shards of a job on a Dask cluster, one machine or many.

Dask only deals out: what is done lies on disk, so nothing is lost with a worker, nor with the scheduler. Workers reach
the scene, the weights and the output's folder under the same paths as the client; they and the scheduler have geosr
installed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import signal
import socket
import statistics
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from geosr.errors import GeosrError, InputError, OutputError, extra
from geosr.inference.executors import bundles
from geosr.inference.work import Work

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

CONNECT = 60
"""Seconds to wait for a scheduler, at first and when it was lost."""
ANSWER = 15
"""Seconds in which a scheduler says that it is one."""
POLL = 0.02
"""Seconds between two looks at what has ended."""
LOOK = 1.0
"""Seconds between two looks at what the cluster consists of."""
SLOW = 2
"""Times the usual time after which a bundle is late, and is given to an idle worker, too."""
QUEUED = 2
"""Bundles that are given out for each thread of the cluster: the next one is there when one ends."""


Bundle = tuple[int, ...]
"""Shards that a worker gets at once."""


class Outcome(NamedTuple):
    """What became of a bundle."""

    worker: str
    """Address of the worker that had it."""
    shards: list[int]
    """What is stored."""
    trouble: str | None
    """Why the rest could not be stored there; another worker may."""


class Dask:
    """A Dask cluster.

    Args:
        where: ``local`` (a cluster of this machine's cores, one thread each), the scheduler's address such as
            ``tcp://10.0.0.1:8786``, or its scheduler file.
        workers: Workers of a local cluster; None: one for each core.

    Raises:
        InputError: There is no such scheduler file.
        GeosrError: Dask is not installed.
    """

    def __init__(self, where: str, *, workers: int | None = None) -> None:
        with extra("dask", "Work on a Dask cluster"):
            import distributed  # noqa: F401  (fails here, where it does, before anything has begun)
        _check(where)
        self.where, self.workers = where, workers

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[int]:
        """Have the cluster do the shards; see `Executor`."""
        pickle.dumps(work)  # what other processes cannot have is told before any is asked
        with ExitStack() as stack:
            address = self._address(stack)
            yield from _Run(work, shards, address).shards()

    def _address(self, stack: ExitStack) -> str:
        """The scheduler's address; a local cluster lasts as long as the stack."""
        if self.where != "local":
            return self.where
        from distributed import LocalCluster

        cluster = LocalCluster(
            n_workers=self.workers or os.cpu_count(),
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
            preload=[__name__],
        )
        stack.callback(cluster.close)
        return str(cluster.scheduler_address)


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the client, which closes its local cluster; each worker of that runs this when it begins."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check(where: str) -> None:
    """Fail where a scheduler file is named that is not there."""
    if where.endswith(".json") and not os.path.isfile(where):
        raise InputError(f"scheduler file {where} does not exist; dask scheduler --scheduler-file {where} writes it")


def _connect(where: str) -> Client:
    """A client of the scheduler at an address or in a scheduler file.

    Raises:
        InputError: None answers.
    """
    from distributed import Client

    _check(where)  # the client would wait for it for ever
    try:
        address = json.loads(Path(where).read_text())["address"] if where.endswith(".json") else where
        with ThreadPoolExecutor(1) as thread:  # a notebook has a loop of its own in this one
            thread.submit(asyncio.run, _require_scheduler(address)).result()
        return Client(address, timeout=CONNECT, set_as_default=False)
    except Exception as error:  # whatever Dask makes of an answer that is not its own
        raise InputError(
            f"no Dask scheduler answers at {where} ({error or type(error).__name__}); dask scheduler starts one, "
            "dask worker ADDRESS a worker"
        ) from error


async def _require_scheduler(address: str) -> None:
    """Fail where something answers at an address that is no scheduler: the client would wait for it for ever.

    Where nothing answers yet, the client itself waits for a while.
    """
    from distributed import Security
    from distributed.comm import connect, get_address_host_port

    async def kind() -> str:
        comm = await connect(address, timeout=ANSWER, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return str((await comm.read())["type"])
        finally:
            comm.abort()

    if address.startswith("inproc://"):
        return
    host, port = get_address_host_port(address)
    try:
        socket.create_connection((host, port), timeout=ANSWER).close()
    except OSError:
        return
    try:
        found = await asyncio.wait_for(kind(), ANSWER)
    except TimeoutError as error:
        raise InputError(f"what answers there says nothing that Dask understands in {ANSWER} s") from error
    if found != "Scheduler":
        raise InputError(f"a Dask {found.lower()} answers there")


def do_bundle(work: Work, bundle: Sequence[int]) -> Outcome:
    """A bundle, done by a worker.

    Raises:
        GeosrError: What would stop other workers, too.
    """
    from distributed import get_worker

    worker = get_worker()
    threads = worker.state.nthreads
    torch.set_num_threads(threads)  # Dask gives torch one thread, and one network runs at a time
    stored: list[int] = []
    try:
        stored.extend(work.do(bundle, threads=threads))
    except OSError as error:
        return Outcome(worker.address, stored, f"{error.strerror or error}")
    except GeosrError as error:
        failure = type(error)(*error.args)  # without its cause: GDAL's errors cannot travel
    else:
        return Outcome(worker.address, stored, None)
    raise failure


class _Run:
    """A job on its way through a cluster."""

    def __init__(self, work: Work, shards: Sequence[int], where: str) -> None:
        self.work, self.where = work, where
        self.client = _connect(where)
        self.left = set(shards)
        self.waiting: deque[Bundle] = deque()
        self.running: dict[Future, Bundle] = {}
        """A bundle that is late runs several times."""
        self.given: dict[Bundle, float] = {}
        """When a bundle was last given to a worker, seconds."""
        self.took: list[float] = []
        """Seconds until bundles came back."""
        self.refusing: set[str] = set()
        """Workers that could not store a shard: they get no more while there are others."""
        self.deserted = False

    def shards(self) -> Iterator[int]:
        """The shards, as they are stored."""
        try:
            threads = sum(self.client.nthreads().values())
            log.info("Dask workers with %d threads; %s", threads, self.client.dashboard_link)
            self.waiting.extend(map(tuple, bundles(self.work, sorted(self.left), workers=max(threads, 1))))
            look = 0.0
            while self.left:
                try:
                    if time.monotonic() >= look:
                        self._deal_out()
                        look = time.monotonic() + LOOK
                    for future in [future for future in self.running if future.status not in ("pending", "lost")]:
                        yield from self._take(future)
                        look = 0.0
                except (OSError, CancelledError):  # the client's: a worker's are in an outcome
                    self._find_scheduler()
                    look = 0.0
                time.sleep(POLL)
        finally:
            self.client.close()

    def _deal_out(self) -> None:
        """Give out bundles that wait; when there are none, give idle workers what others are late with."""
        workers, busy = self.client.nthreads(), self.client.processing()
        if not workers and not self.deserted:
            log.warning("the scheduler at %s has no workers; waiting for some (dask worker ADDRESS)", self.where)
        self.deserted = not workers
        if self.waiting:
            while self.waiting and len(self.running) < QUEUED * max(sum(workers.values()), 1):
                self._submit(self.waiting.popleft(), workers.keys() - self.refusing if self.refusing else ())
        elif self.took:
            late = time.monotonic() - SLOW * statistics.median(self.took)
            slow = {bundle for bundle in self.running.values() if self.given[bundle] < late}
            idle = [worker for worker in workers if not busy.get(worker) and worker not in self.refusing]
            for bundle, worker in zip(sorted(slow, key=self.given.__getitem__), idle, strict=False):
                self._submit(bundle, [worker])

    def _submit(self, bundle: Bundle, workers: Collection[str]) -> None:
        """Give a bundle to one of these workers; to any, if they are none or gone."""
        choice: dict[str, Any] = {"workers": list(workers), "allow_other_workers": True} if workers else {}
        self.running[self.client.submit(do_bundle, self.work, bundle, pure=False, **choice)] = bundle
        self.given[bundle] = time.monotonic()

    def _take(self, future: Future) -> Iterator[int]:
        """The shards that a bundle's end brings; what it does not bring waits again.

        Raises:
            OutputError: No worker can store it, or workers died of it.
            GeosrError: What stopped the work.
            CancelledError: The scheduler that knew of it is gone.
        """
        if future not in self.running:  # another worker was faster
            return
        if future.status == "error":
            raise self._failure(future)
        outcome: Outcome = future.result()
        bundle = self.running.pop(future)
        self.took.append(time.monotonic() - self.given[bundle])
        new = sorted(self.left.intersection(outcome.shards))
        self.left.difference_update(new)
        if not self.left.intersection(bundle):
            self.running = {other: same for other, same in self.running.items() if same != bundle}
        elif bundle not in self.running.values():
            self._wait_again(bundle)
        yield from new
        if outcome.trouble is not None:
            self._refuse(outcome)

    def _wait_again(self, bundle: Bundle) -> None:
        """Put the shards of a bundle that are still to be done behind those that wait."""
        self.waiting.append(tuple(shard for shard in bundle if shard in self.left))

    def _refuse(self, outcome: Outcome) -> None:
        """Leave out a worker that could not store a shard; give up when nobody is left."""
        log.warning("worker %s could not store its shards (%s); others do", outcome.worker, outcome.trouble)
        self.refusing.add(outcome.worker)
        workers = self.client.nthreads().keys()
        if workers and workers <= self.refusing:
            raise OutputError(
                f"{self.work.output.target} could not be written by any of {len(workers)} workers: {outcome.trouble}. "
                "What is finished is kept; the same command continues"
            )

    def _failure(self, future: Future) -> Exception:
        """Why a bundle failed, in an error to raise."""
        from distributed import KilledWorker

        error = future.exception()
        if isinstance(error, KilledWorker):
            return OutputError(
                f"workers died again and again of the same shards ({error}), perhaps for lack of memory: try a smaller "
                "--tile. What is finished is kept; the same command continues"
            )
        plain = isinstance(error, Exception) and not isinstance(error, OSError | CancelledError)
        return error if plain else OutputError(f"a worker failed: {error!r}")

    def _find_scheduler(self) -> None:
        """Connect again to where the scheduler was; one that was started again knows nothing of the job."""
        log.warning("lost the scheduler at %s; waiting for it to come back", self.where)
        self.client.close()
        for bundle in set(self.running.values()):
            self._wait_again(bundle)
        self.running = {}
        try:
            self.client = _connect(self.where)
        except InputError as error:
            raise OutputError(
                f"the scheduler at {self.where} did not come back in {CONNECT} s. What is finished is kept; the same "
                "command continues"
            ) from error
