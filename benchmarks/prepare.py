"""Memory and time of ``geosr prepare`` on a large scene, printed as one line of JSON: ``python -m benchmarks.prepare``.

The scene is synthetic (:mod:`benchmarks.scenes`): 10 000 x 10 000 pixels of 10 m, four bands, uint16, a tiled GeoTIFF.
It is made first; preparing it is measured in a process of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.scenes import BAND_NAMES, synthetic_scene


def measure(scene: Path, out: Path, scales: list[float]) -> dict[str, float]:
    """Seconds and peak memory of preparing a scene in this process, import included in the memory."""
    from geosr.data.prepare import prepare
    from geosr.data.store import check_store

    started = perf_counter()
    done = prepare([scene], out, bands=BAND_NAMES, scales=scales)
    seconds = perf_counter() - started
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    started = perf_counter()
    report = check_store(out)
    return {
        "seconds": round(seconds, 1),
        "peak_rss_bytes": peak,
        "scene_bytes": scene.stat().st_size,
        "store_bytes": done.bytes,
        "patches": sum(done.patches.values()),
        "check_seconds": round(perf_counter() - started, 1),
        "violations": len(report.violations),
    }


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000, help="pixels along a side")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--scene", type=Path, help="measure this scene, in this process")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("GEOSR_BENCH_DIR")) as folder:
        if args.scene is not None:
            print(json.dumps(measure(args.scene, Path(folder) / "train.zarr", args.scales)))
            return
        scene = synthetic_scene(Path(folder) / "scene.tif", args.size)
        own = [sys.executable, "-m", "benchmarks.prepare", "--scene", str(scene), "--scales", *map(str, args.scales)]
        subprocess.run(own, check=True)


if __name__ == "__main__":
    main()
