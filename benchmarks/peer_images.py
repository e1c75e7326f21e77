"""What a peer needs to take part in `benchmarks.peers`: images in, images out, time and memory; no geosr.

Each method runs in a process of its own, in the environment that it needs:

    PYTHON -m benchmarks.peer_NAME IMAGES OUT

``IMAGES`` is a folder of ``SCENE.npz`` with ``lr`` (band, y, x), float32 reflectance, ``bands``, ``scale``, and for the
20 m bands ``guide`` and ``guide_bands``, the 10 m bands on the grid of the result. Results are ``OUT/SCENE.npy``.
"""

import contextlib
import json
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

Image = Mapping[str, Any]


def run(tool: str, super_resolve: Callable[[Image], np.ndarray], images: Path, out: Path) -> None:
    """Super-resolve every image twice, keep the second result, and print time and memory as one line of JSON.

    The first run is left out of the time: it loads and compiles what is loaded and compiled once.
    """
    seconds = 0.0
    for path in sorted(images.glob("*.npz")):
        with np.load(path) as stored:
            image = dict(stored)
        with contextlib.redirect_stdout(sys.stderr):  # a peer's own talk must not mix with the line of JSON
            super_resolve(image)
            started = perf_counter()
            sr = super_resolve(image)
            seconds += perf_counter() - started
        np.save(out / f"{path.stem}.npy", sr.astype(np.float32))
    print(json.dumps({"tool": tool, "seconds": seconds, "peak_rss_bytes": peak_memory()}))


def peak_memory() -> int:
    """Bytes of memory that this process has held at most.

    Linux's own figure, since getrusage counts what the parent held before it started this program.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def places() -> tuple[Path, Path]:
    """The folders of the command line."""
    return Path(sys.argv[-2]), Path(sys.argv[-1])
