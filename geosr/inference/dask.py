"""Shards of a job on a Dask cluster, one machine or many.

Dask only deals out: what is done lies on disk, so nothing is lost with a worker, nor with the scheduler. Workers reach
the scene, the weights and the output's folder under the same paths as the client, and have geosr installed.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import torch

from geosr.errors import InputError, OutputError, extra
from geosr.inference.executors import ATTEMPTS, bundles
from geosr.inference.work import Work

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

CONNECT = 60
"""Seconds to wait for a scheduler, at first and when it was lost."""
POLL = 0.02
"""Seconds between two looks at what has ended."""
LOOK = 1.0
"""Seconds between two looks at what the cluster consists of."""
SLOW = 2
"""Times the usual time after which a bundle is late."""
QUEUED = 2
"""Bundles that are given out for each thread of the cluster: the next one is there when one ends."""


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
        if where.endswith(".json") and not os.path.isfile(where):
            raise InputError(
                f"scheduler file {where} does not exist; dask scheduler --scheduler-file {where} writes it"
            )
        self.where, self.workers = where, workers

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[int]:
        """Have the cluster do the shards; see `Executor`."""
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
        )
        stack.callback(cluster.close)
        return str(cluster.scheduler_address)


def _connect(where: str) -> Client:
    """A client of the scheduler at an address or in a scheduler file.

    Raises:
        InputError: None answers.
    """
    from distributed import Client

    named = {"scheduler_file" if where.endswith(".json") else "address": where}
    try:
        return Client(**named, timeout=CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {where} ({error}); dask scheduler starts one, dask worker ADDRESS a worker"
        ) from error


def do_bundle(work: Work, bundle: Sequence[int]) -> Outcome:
    """A bundle, done by a worker."""
    from distributed import get_worker

    worker = get_worker()
    threads = worker.state.nthreads
    torch.set_num_threads(threads)  # Dask gives torch one thread, and one network runs at a time
    stored: list[int] = []
    try:
        stored.extend(work.do(bundle, threads=threads))
    except OSError as error:
        return Outcome(worker.address, stored, f"{error.strerror or error}")
    return Outcome(worker.address, stored, None)


class _Run:
    """A job on its way through a cluster."""

    def __init__(self, work: Work, shards: Sequence[int], where: str) -> None:
        self.work, self.where = work, where
        self.client = _connect(where)
        log.info("%d Dask workers; %s", len(self.client.nthreads()), self.client.dashboard_link)
        self.left = set(shards)
        self.running: dict[Future, tuple[int, ...]] = {}
        self.since: dict[tuple[int, ...], float] = {}
        """When a bundle was given out, seconds."""
        self.took: list[float] = []
        """Seconds until bundles came back."""
        self.refused: dict[tuple[int, ...], list[str]] = {}
        """Of bundles that could not be stored, the workers that tried."""
        self.twice: set[tuple[int, ...]] = set()
        """Bundles that were given to a second worker because the first took long."""

    def shards(self) -> Iterator[int]:
        """The shards, as they are stored."""
        try:
            waiting = deque(map(tuple, bundles(self.work, sorted(self.left), workers=max(self._threads, 1))))
            look = 0.0
            while self.left:
                if time.monotonic() >= look:
                    self._deal_out(waiting)
                    look = time.monotonic() + LOOK
                time.sleep(POLL)
                for future in [future for future in self.running if future.status != "pending"]:
                    yield from self._take(future, waiting)
                    look = 0.0
        finally:
            self.client.close()

    @property
    def _threads(self) -> int:
        """Threads of the cluster."""
        return sum(self.client.nthreads().values())

    def _deal_out(self, waiting: deque[tuple[int, ...]]) -> None:
        """Give out bundles; at the end, when threads are idle, to a second worker what the first is slow with."""
        threads = self._threads
        while waiting and len(self.running) < QUEUED * max(threads, 1):
            bundle = waiting.popleft()
            self._submit(bundle, without=self.refused.get(bundle, []))
        if waiting or not self.took or len(self.running) >= threads:
            return
        late = time.monotonic() - SLOW * statistics.median(self.took)
        slow = next((one for one in self.running.values() if self.since[one] < late and one not in self.twice), None)
        if slow is not None:
            mine = {future.key for future, bundle in self.running.items() if bundle == slow}
            at = [worker for worker, keys in self.client.processing().items() if mine & set(keys)]
            if len(at) < len(self.client.nthreads()):
                self.twice.add(slow)
                self._submit(slow, without=[*at, *self.refused.get(slow, [])])

    def _submit(self, bundle: tuple[int, ...], *, without: Sequence[str]) -> None:
        """Give a bundle to a worker other than these, if there is one."""
        others = [worker for worker in self.client.nthreads() if worker not in without] if without else None
        future = self.client.submit(do_bundle, self.work, bundle, workers=others or None, pure=False)
        self.running[future] = bundle
        self.since.setdefault(bundle, time.monotonic())

    def _take(self, future: Future, waiting: deque[tuple[int, ...]]) -> Iterator[int]:
        """The shards that a bundle's end brings; what it does not bring waits again.

        Raises:
            OutputError: Several workers could not store it, workers died of it, or the scheduler is gone.
            GeosrError: What stopped the work.
        """
        bundle = self.running.pop(future, None)
        if bundle is None:  # another worker was faster
            return
        if future.status == "finished":
            outcome: Outcome = future.result()
            self.took.append(time.monotonic() - self.since[bundle])
            yield from self._count(outcome.shards)
            if outcome.trouble is not None:
                self._refused(bundle, outcome)
        elif future.status == "error":
            raise self._failure(future)
        else:  # the scheduler is gone and has forgotten it
            self._wait_for_scheduler()
        missing = self.left.intersection(bundle)
        if missing and bundle not in self.running.values():
            waiting.append(bundle)
        elif not missing:
            for other in [other for other, same in self.running.items() if same == bundle]:
                del self.running[other]
                other.cancel()

    def _count(self, stored: Sequence[int]) -> Iterator[int]:
        """Those shards that nobody had stored before."""
        new = sorted(self.left.intersection(stored))
        self.left.difference_update(new)
        yield from new

    def _refused(self, bundle: tuple[int, ...], outcome: Outcome) -> None:
        """Remember that a worker could not store a bundle; give up when nobody can."""
        refused = self.refused.setdefault(bundle, [])
        refused.append(outcome.worker)
        log.warning("worker %s could not store its shards (%s); others try", outcome.worker, outcome.trouble)
        if len(refused) >= ATTEMPTS or not set(self.client.nthreads()) - set(refused):
            raise OutputError(
                f"{self.work.output.target} could not be written by {len(refused)} workers: {outcome.trouble}. "
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
        return error if isinstance(error, Exception) else OutputError(f"{error}")

    def _wait_for_scheduler(self) -> None:
        """Wait until the client has found a scheduler at the same address, which knows nothing of the job."""
        if self.client.status == "connecting":
            log.warning("the scheduler at %s is gone; waiting for it to come back", self.where)
        while self.client.status == "connecting":
            time.sleep(POLL)
        if self.client.status != "running":
            raise OutputError(
                f"the scheduler at {self.where} did not come back in {CONNECT} s. What is finished is kept; the same "
                "command continues"
            )
