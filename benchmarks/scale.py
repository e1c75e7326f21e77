"""Large scenes and several workers, one line of JSON for each: ``python -m benchmarks.scale [--size N] [--part N]``.

The large scene is a Sentinel-2 tile: 10 980 x 10 980 pixels, four bands, uint16, x4 with the model for large areas.
Every figure is the wall time of a whole command in a process of its own, import included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import rasterio

from benchmarks.scenes import BAND_NAMES, synthetic_scene

MODEL = "s2-rgbn-x4-fast"
TILE = 10_980
"""Pixels along one side of a Sentinel-2 tile at 10 m."""
PART = 4096
"""Pixels along one side of the scene that executors are compared on."""
JP2 = 4096
"""Pixels along one side of the product in JPEG 2000."""

ACCESSOR = """
import sys
import dask, geosr, xarray
with dask.config.set(scheduler="threads"):
    geosr.open(sys.argv[1]).geosr.superresolve(model=sys.argv[2]).to_zarr(sys.argv[3])
"""


def main() -> None:
    """Measure everything, in a folder that is emptied between figures: they fill a disk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=TILE)
    parser.add_argument("--part", type=int, default=PART)
    parser.add_argument("--jp2", type=int, default=JP2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("GEOSR_BENCH_DIR")) as folder:
        for one in measurements(Path(folder), args.size, args.part, args.jp2):
            print(json.dumps(one), flush=True)


def measurements(work: Path, size: int, part: int, jp2: int) -> Iterator[dict[str, Any]]:
    """One measurement after the other."""
    scene = synthetic_scene(work / "tile.tif", size)
    for what, out, command in (
        ("cog", "sr.tif", [*predict(scene), "--out"]),
        ("zarr", "sr.zarr", [*predict(scene), "--out"]),
        ("accessor", "sr.zarr", [sys.executable, "-c", ACCESSOR, scene, MODEL]),
    ):
        yield {"what": what, "size": size, **timed(*command, work / out, out=work / out)}
    scene.unlink()
    scene = synthetic_scene(work / "part.tif", part)
    for what, *options in (("serial",), ("processes", "--workers", "2"), ("dask", "--dask", "local", "--workers", "2")):
        yield {
            "what": what,
            "size": part,
            **timed(*predict(scene), *options, "--out", work / "sr.tif", out=work / "sr.tif"),
        }
    scene.unlink()
    yield {"what": "jp2", "size": jp2, **reading(work, jp2)}


def predict(*sources: Path) -> list[object]:
    """The command that super-resolves a scene."""
    return [sys.executable, "-m", "geosr", "predict", *sources, "--model", MODEL, "--quiet"]


def timed(*command: object, out: Path) -> dict[str, float]:
    """Wall time of a command, the largest memory of its processes, and the size of its output, which is removed."""
    shell = [
        sys.executable, "-c",
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)",
    ]  # fmt: skip
    started = perf_counter()
    done = subprocess.run([*shell, *map(str, command)], capture_output=True, text=True, check=False)
    seconds = perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    size = sum(path.stat().st_size for path in files)
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink()
    return {"seconds": seconds, "peak_rss_bytes": int(done.stdout.split()[-1]) * 1024, "bytes": size}


def reading(work: Path, size: int) -> dict[str, float]:
    """Processor seconds of reading a product in JPEG 2000 as predict reads it, and of predict; its wall time.

    In predict, reading goes on beside the network and on the same cores, in GDAL's own threads. So its share is one of
    processor time, and it is measured alone.
    """
    import geosr
    from geosr.inference.job import Job
    from geosr.inference.resident import locate
    from geosr.inference.tiled import DEFAULT_TILE
    from geosr.inference.work import GDAL_CACHE

    files = jpeg_2000(work, size)
    with geosr.open_scene(files, scale=1e-4, nodata=0) as scene:
        job = Job.plan(scene, locate(MODEL), aoi=None, dtype=None, tile=DEFAULT_TILE)
        started = process_time()
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE + scene.cache_bytes):
            for tile in job.tiles:
                scene.read(tile.read, BAND_NAMES)
        alone = process_time() - started
    started = process_time()
    done = geosr.predict(files, work / "jp2.tif", model=MODEL, scale=1e-4, nodata=0)
    return {"reading": alone, "processor": process_time() - started, "seconds": done.seconds}


def jpeg_2000(work: Path, size: int) -> list[Path]:
    """Single-band files such as those of a Sentinel-2 product: lossless JPEG 2000, blocks of 1024 pixels."""
    scene = synthetic_scene(work / "jp2_source.tif", size)
    files = []
    with rasterio.open(scene) as source:
        for index, band in enumerate(BAND_NAMES, start=1):
            files.append(work / f"T33UUB_20230625T100000_{band}_10m.jp2")
            creation = {
                "driver": "JP2OpenJPEG", "width": size, "height": size, "count": 1, "dtype": "uint16",
                "crs": source.crs, "transform": source.transform, "QUALITY": "100", "REVERSIBLE": "YES",
                "BLOCKXSIZE": 1024, "BLOCKYSIZE": 1024,
            }  # fmt: skip
            with rasterio.open(files[-1], "w", **creation) as file:
                file.write(np.asarray(source.read(index)), 1)
    return files


if __name__ == "__main__":
    main()
