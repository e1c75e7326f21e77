"""Shards of a job, super-resolved and stored: what every executor has done, in one process or in hundreds.

A shard is what one tile becomes. It is done, stored and, where work was lost, done again as one.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import rasterio

from geosr.grid import Window, relative, scaled
from geosr.inference.blend import OverlapPlan
from geosr.inference.cores import Core, superresolve_cores
from geosr.inference.job import Job
from geosr.inference.outputs import Output
from geosr.io.scene import Scene
from geosr.io.work import work_folder

AHEAD = 1
"""Cores that are compressed while the network works."""
GDAL_CACHE = 16 * 2**20
"""Bytes of decoded blocks that GDAL may keep, beside those that the scene needs."""


@dataclass(frozen=True)
class Work:
    """Everything that a process needs to do any shard of a job. It pickles in some kilobytes: no pixels, no weights."""

    scene: Scene
    job: Job
    output: Output
    batch_size: int = 1

    def __len__(self) -> int:
        """How many shards there are."""
        return len(self.job.tiles)

    def do(self, shards: Sequence[int], *, threads: int | None = None) -> Iterator[int]:
        """Super-resolve and store these shards; each one's index when it is on disk.

        Reading, the network, compression and storing go on at the same time.

        Args:
            shards: Indices of shards.
            threads: Threads that compress; None: one for each core of the machine.

        Raises:
            OSError: A shard cannot be stored.
            GeosrError: The scene cannot be read, or the model cannot be had.
        """
        encoding: deque[tuple[int, list[Future[dict[str, bytes]]]]] = deque()

        def store_oldest() -> int:
            shard, parts = encoding.popleft()
            self.output.store(shard, {key: data for part in parts for key, data in part.result().items()})
            return shard

        with ThreadPoolExecutor(threads or os.cpu_count(), thread_name_prefix="encode") as encoders:
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE + self.scene.cache_bytes):
                for core in superresolve_cores(
                    self.scene,
                    self.job.tiles,
                    self.job.resolver,
                    self._in_order(shards),
                    answer=self.job.answer,
                    batch_size=self.batch_size,
                    folder=work_folder(self.output.target),
                ):
                    encoding.append((core.tile.index, self._encode(core, encoders)))
                    if len(encoding) > AHEAD:
                        yield store_oldest()
            while encoding:
                yield store_oldest()

    def _in_order(self, shards: Sequence[int]) -> list[int]:
        """The order in which they are done: equal shapes fill batches, and smaller ones fit freed memory."""
        tiles = self.job.tiles
        # Blocks that are slow to decode are read row by row, while they are in the cache.
        if isinstance(tiles, OverlapPlan) or self.scene.cache_bytes:
            return sorted(shards)
        return sorted(shards, key=lambda shard: tiles.tile(shard).shape, reverse=True)

    def _encode(self, core: Core, encoders: ThreadPoolExecutor) -> list[Future[dict[str, bytes]]]:
        """The compressed blocks of a core, under way."""
        window = scaled(relative(core.tile.core, self.job.window), self.job.scale)
        side, planes = self.output.part_side, self.job.planes

        def encode_part(part: Window) -> dict[str, bytes]:
            return self.output.encode(part, core.part(relative(part, window), planes=planes, scale=self.job.scale))

        parts = [
            (slice(top, min(top + side, window[0].stop)), slice(left, min(left + side, window[1].stop)))
            for top in range(window[0].start, window[0].stop, side)
            for left in range(window[1].start, window[1].stop, side)
        ]
        return [encoders.submit(encode_part, part) for part in parts]
