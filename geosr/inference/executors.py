"""Executors: who does the shards of a job. The work is the same in all of them; they only deal it out."""

import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Protocol

import torch

from geosr.errors import OutputError, UsageError
from geosr.inference.blend import OverlapPlan
from geosr.inference.work import Work

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often workers may die without a shard in between before the work is given up."""
MOST = 8
"""Shards that a worker gets at once, at most."""
SQUARE = 4
"""Shards along one side of what a worker gets at once where tiles overlap."""


class Executor(Protocol):
    """Has shards done, anywhere."""

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[int]:
        """Have these shards done and stored; each one's index when it is, in any order.

        Raises:
            OSError: A shard cannot be stored.
            GeosrError: The scene cannot be read, the model cannot be had, or the workers cannot.
        """
        ...


class InProcess:
    """This process: reading, network and compression at the same time, in threads."""

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[int]:
        """Do the shards here; see `Executor`."""
        yield from work.do(shards)


class Processes:
    """Processes of this machine, with a GPU each where there are several.

    Args:
        count: How many; on a CPU they share its cores.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"--workers {count}: give at least 1")
        self.count = count

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[int]:
        """Have processes do the shards; see `Executor`. Those of a process that dies are done again by others."""
        pickle.dumps(work)  # what other processes cannot have is told before there are any
        left, deaths = set(shards), 0
        while left:
            dealt = bundles(work, sorted(left), workers=self.count)
            try:
                for done in self._with_new_processes(work, dealt):
                    left.difference_update(done)
                    deaths = 0
                    yield from done
            except BrokenProcessPool as error:
                deaths += 1
                if deaths == ATTEMPTS:
                    raise OutputError(
                        f"worker processes died {deaths} times in a row, perhaps for lack of memory: try fewer "
                        "--workers, or a smaller --tile. What is finished is kept"
                    ) from error
                log.warning("a worker process died; its shards are done again")

    def _with_new_processes(self, work: Work, dealt: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
        """Bundles that are done, in any order."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.count, context, _settle, (self.count,)) as pool:
            futures: list[Future[list[int]]] = [pool.submit(do_bundle, work, bundle) for bundle in dealt]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def share(work: Work, number: int, of: int) -> range:
    """The shards of one of several equal shares, counted from 1; each has neighbouring ones.

    Raises:
        UsageError: There is no such share.
    """
    if not 1 <= number <= of:
        raise UsageError(f"--shard {number}/{of} is none of {of}; give 1/{of} to {of}/{of}")
    return range(len(work) * (number - 1) // of, len(work) * number // of)


def bundles(work: Work, shards: Sequence[int], *, workers: int) -> list[list[int]]:
    """The shards in groups for one worker each.

    There are enough in a group to read ahead, and few enough that all workers end at about the same time. Where tiles
    overlap, groups are squares: what lies between two of them is done twice.
    """
    if not isinstance(work.job.tiles, OverlapPlan):
        most = max(1, work.batch_size, min(MOST, len(shards) // (4 * workers)))
        return [list(shards[first : first + most]) for first in range(0, len(shards), most)]
    squares: dict[tuple[int, int], list[int]] = {}
    for shard in shards:
        row, column = divmod(shard, work.job.tiles.grid[1])
        squares.setdefault((row // SQUARE, column // SQUARE), []).append(shard)
    return list(squares.values())


def do_bundle(work: Work, bundle: Sequence[int]) -> list[int]:
    """The shards of a bundle when they are stored; runs in a worker."""
    if _GPU is not None and work.job.model.device in ("auto", "cuda"):
        work = replace(work, job=replace(work.job, model=replace(work.job.model, device=_GPU)))
    return list(work.do(bundle, threads=torch.get_num_threads()))


_GPU: str | None = None
"""The device of this worker, where the machine has several."""


def _settle(count: int) -> None:
    """Give a new worker its share of the machine."""
    global _GPU
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max((os.cpu_count() or 1) // count, 1))
    if (gpus := torch.cuda.device_count()) > 1:
        name = multiprocessing.current_process().name  # SpawnProcess-5: its parent counts them
        _GPU = f"cuda:{int(name.rpartition('-')[2].rpartition(':')[2]) % gpus}"


def _end_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for work for ever, with a model in memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
