"""Scenes as a process has them: opened when they are first read, or decoded into memory that processes share."""

import os
import shutil
from collections import OrderedDict
from typing import NamedTuple, Self

from torch import Tensor

from geosr.errors import ConfigError
from geosr.io.scene import Scene, open_scene
from geosr.radiometry import Radiometry

OPEN_SCENES = 64
"""Scenes that a process keeps open for a dataset, a limit below that of files per process."""
MEMORY_SHARE = 0.8
"""Share of the available memory that ``cache="memory"`` may take."""


class OpenScenes:
    """Scenes by their paths, opened when they are first asked for, in each process anew; the least used are closed."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, ...], Scene] = OrderedDict()
        self._process = os.getpid()

    def __getitem__(self, paths: tuple[str, ...]) -> Scene:
        if self._process != os.getpid():  # after a fork: the parent's handles are the parent's, not even to close
            self._inherited, self._open, self._process = self._open, OrderedDict(), os.getpid()
        if paths not in self._open:
            self._open[paths] = open_paths(paths)
            if len(self._open) > OPEN_SCENES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(paths)
        return self._open[paths]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return OpenScenes, ()

    def __deepcopy__(self, memo: object) -> Self:
        return self


def open_paths(paths: tuple[str, ...]) -> Scene:
    """The scene of these files."""
    return open_scene(paths if len(paths) > 1 else paths[0])


class Decoded(NamedTuple):
    """The used part of an image in shared memory."""

    dn: Tensor
    valid: Tensor
    radiometry: Radiometry


class DecodedScenes(dict[tuple[int, str], Decoded]):
    """Decoded images by scene and name; a copy of the dataset shares them."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


def require_memory(needed: int, scenes: int) -> None:
    """Raise unless so many bytes fit into memory and into what is set apart for sharing it."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    where = "memory"
    if os.path.isdir("/dev/shm") and (shared := shutil.disk_usage("/dev/shm").free) < available:
        available, where = shared, "shared memory (/dev/shm)"
    if needed > MEMORY_SHARE * available:
        raise ConfigError(
            f"Data.cache: memory needs {needed / 1e9:.2f} GB for {scenes} scenes; {available / 1e9:.2f} GB of {where} "
            f"is available, of which {MEMORY_SHARE:.0%} may be used; set Data.cache: none, or use fewer scenes or bands"
        )
