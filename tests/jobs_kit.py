"""A small job, and an output that tells what happens to it and lets tests disturb it; workers import this, too."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from geosr.inference import predict, tiled
from geosr.models import Model, ModelSpec, save_model

BANDS = ("B02", "B08")
PATIENCE = 180
"""Seconds until a test gives up what it waits for; nothing is wrong with a machine that needs many of them."""


def save_interpolation(path: Path, *, tiling: str = "exact") -> Path:
    """Weights that every process can load: bicubic x4, which looks around far enough that neighbours count."""
    arguments: dict[str, Any] = {"mode": "bicubic"}
    kwargs = {"halo": 6} if tiling == "approximate" else {}
    return save_model(
        Model(ModelSpec(path.stem, "interpolation", 4, BANDS, arguments, tiling=tiling, **kwargs)), path
    ).path


def write_scene(path: Path, height: int, width: int) -> Path:
    """A scene of noise with a hole; 128 x 128 of its pixels are a shard."""
    array = np.random.default_rng(0).integers(1, 3000, (len(BANDS), height, width), dtype="uint16")
    array[:, height // 3 : height // 2, width // 2 :] = 0
    with rasterio.open(
        path, "w", driver="GTiff", count=len(BANDS), height=height, width=width, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=Affine(10, 0, 400_000, 0, -10, 5_000_000), compress="deflate", blockysize=16,
    ) as file:  # fmt: skip
        file.write(array)
        file.descriptions = BANDS
        file.scales = [1e-4] * len(BANDS)
    return path


def make_folder(folder: Path, height: int, width: int, *, tiles: int) -> Path:
    """A scene of so many shards, weights of an exact and an approximate model, and what one process makes of them."""
    save_interpolation(folder / "exact.safetensors")
    save_interpolation(folder / "approximate.safetensors", tiling="approximate")
    write_scene(folder / "scene.tif", height, width)
    for name in ("exact", "approximate"):
        done = predict(folder / "scene.tif", folder / f"{name}.tif", **options(folder, name))
        assert (done.tiles, done.tiling) == (tiles, name)
    return folder


def options(folder: Path, name: str = "exact") -> dict[str, Any]:
    """What `predict` is asked for, beside scene and output."""
    return {"model": folder / f"{name}.safetensors", "tile": 1, "device": "cpu", "precision": "fp32"}


@dataclass(frozen=True)
class Watched:
    """An output that leaves notes in a folder, and does there what it finds written."""

    inner: Any
    notes: Path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def store(self, shard: int, blocks: Any) -> None:
        (self.notes / f"begun-{shard}-{os.getpid()}").touch()
        if (self.notes / f"die-{shard}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        while (self.notes / f"hold-{shard}").exists():
            time.sleep(0.01)
        if (self.notes / f"full-{os.getpid()}").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.inner.store(shard, blocks)
        (self.notes / f"stored-{shard}-{os.getpid()}").touch()


class Watch:
    """What a test knows of a job, and does to it."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.calls: list[tuple[int, int, int]] = []

    def output(self, *args: Any, **kwargs: Any) -> Watched:
        """In the place of `plan_output`."""
        return Watched(_plan_output(*args, **kwargs), self.notes)

    def say(self, what: str) -> None:
        """Let workers find this."""
        (self.notes / what).touch()

    def unsay(self, what: str) -> None:
        """Let workers find it no more."""
        (self.notes / what).unlink()

    def pids(self, what: str) -> list[int]:
        """The processes that left such a note."""
        return [int(path.name.rpartition("-")[2]) for path in self.notes.glob(f"{what}-*")]

    def wait_for(self, what: str) -> int:
        """The first process that leaves such a note."""
        wait_until(lambda: self.pids(what), f"no process has {what}")
        return self.pids(what)[0]

    def progress(self, *call: int) -> None:
        """Takes progress down."""
        self.calls.append(call)

    def assert_each_counted_once(self) -> None:
        """Fail unless progress went from nothing to everything, in steps that add up."""
        done = 0
        for now, so_far, total in self.calls:
            done += now
            assert so_far == done <= total
        assert done == self.calls[-1][2]


_plan_output = tiled.plan_output


def wait_until(happened: Callable[[], Any], otherwise: str) -> None:
    """Return when something has happened; fail when it does not."""
    give_up = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < give_up, otherwise
        time.sleep(0.02)


@contextmanager
def in_background(*args: Any, **kwargs: Any):
    """A prediction on its way: a future, which has ended when the block has."""
    with ThreadPoolExecutor(1) as threads:
        future: Future[Any] = threads.submit(predict, *args, **kwargs)
        yield future
        future.exception(PATIENCE)
