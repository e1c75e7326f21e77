"""Patches per second of a DataLoader with one worker: COG, Zarr and memory against two TorchGeo datasets.

``python -m benchmarks.data_loading SCENE``: four bands, LR 64 and HR 256 pixels (x4). The LR file is made from the
scene by `geosr.degrade`; both are COGs. The routes take turns, and the best round of each counts.

GDAL keeps decoded blocks in 5 % of the machine's memory. This scene would be decoded once, and a training set would
not: the cache is held to 8 MB, a quarter of the scene, unless GDAL_CACHEMAX says otherwise.
"""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.shutil import copy as copy_raster
from torch.utils.data import DataLoader, Dataset, Sampler
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import RandomGeoSampler

from geosr.data.batches import collate
from geosr.data.datasets import GeoPairDataset
from geosr.data.patches import SceneFiles
from geosr.data.samplers import PatchSampler
from geosr.degrade import PSF, degrade
from geosr.grid import Window
from geosr.io.scene import open_scene

BANDS = ("B02", "B03", "B04", "B08")
SCALE, LR = 4, 64
BATCH = 16
CACHE = "8"  # MB
TARGETS = {"COG": 2.0, "Zarr": 3.0, "memory": 20.0, "memory, no worker": 20.0}


def main() -> None:
    """Measure what the command line says and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.scene, Path(folder), batches=args.batches, rounds=args.rounds)
    for row in rows:
        print(f"{row['route']:<18} {row['patches_per_second']:8.0f} patches/s {row['ratio']:6.1f} x  {row['target']}")
    print(json.dumps({"routes": rows}))


def measure(scene: Path, work: Path, *, batches: int = 12, rounds: int = 3) -> list[dict[str, Any]]:
    """Patches per second of each route and the ratio to TorchGeo's, in one run."""
    os.environ.setdefault("GDAL_CACHEMAX", CACHE)  # GDAL looks when it first reads; workers inherit it
    lr = make_lr(scene, work)
    files = SceneFiles("scene", (str(scene),), (str(lr),))
    routes: dict[str, Iterator[Any]] = {"TorchGeo": torchgeo_batches(scene, lr)}
    for name, where, cache, workers in (
        ("COG", files, "none", 1),
        ("Zarr", zarr_files(files, work), "none", 1),
        ("memory", files, "memory", 1),
        ("memory, no worker", files, "memory", 0),
    ):
        if where is not None:
            routes[name] = pair_batches(where, cache, workers)
    for route in routes.values():
        for _ in range(4):  # the worker starts, and its caches fill
            next(route)
    best = dict.fromkeys(routes, 0.0)
    for _ in range(rounds):
        for name, route in routes.items():
            # Batches that were prefetched while another route was measured do not count.
            for _ in range(3):
                next(route)
            several = batches * (8 if "memory" in name else 1)
            started = perf_counter()
            for _ in range(several):
                next(route)
            best[name] = max(best[name], several * BATCH / (perf_counter() - started))
    return [
        {
            "route": name,
            "patches_per_second": rate,
            "ratio": rate / best["TorchGeo"],
            "target": f"(target {TARGETS[name]:g})" if name in TARGETS else "",
        }
        for name, rate in best.items()
    ]


def make_lr(scene: Path, work: Path) -> Path:
    """The scene as a sensor of four times its pixel size would have seen it: a COG of the same encoding."""
    with open_scene(scene) as opened:
        raster = opened.read(bands=BANDS)
    height, width = (length // SCALE * SCALE for length in raster.valid.shape)
    hr, valid = np.nan_to_num(raster.array[:, :height, :width]), raster.valid[:height, :width]
    lr = degrade(torch.from_numpy(hr)[None], PSF(scale=SCALE))[0].numpy()
    valid = valid.reshape(height // SCALE, SCALE, width // SCALE, SCALE).all(axis=(1, 3))
    dn = raster.radiometry.to_digital(np.where(valid, lr, np.float32(np.nan)))
    profile = {"count": len(BANDS), "height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype}
    profile |= {"crs": str(raster.geobox.crs), "transform": raster.geobox.affine * rasterio.Affine.scale(SCALE)}
    plain, path = work / "plain.tif", work / "lr.tif"
    with rasterio.open(plain, "w", driver="GTiff", nodata=raster.radiometry.nodata, **profile) as file:
        file.write(dn)
        file.scales = (raster.radiometry.scale,) * len(BANDS)
        file.offsets = (raster.radiometry.offset,) * len(BANDS)
        file.descriptions = BANDS
    copy_raster(plain, path, driver="COG", compress="DEFLATE", predictor="YES", blocksize=512)
    return path


def zarr_files(files: SceneFiles, work: Path) -> SceneFiles | None:
    """The same images as two Zarr groups; None where this geosr writes none."""
    try:
        from geosr.io.zarr import create_zarr
    except ImportError:
        return None
    groups = {}
    for name in ("hr", "lr"):
        path = work / f"{name}.zarr"
        with open_scene(getattr(files, name)[0]) as scene:
            whole: Window = (slice(0, scene.geobox.shape[0]), slice(0, scene.geobox.shape[1]))
            writer = create_zarr(path, geobox=scene.geobox, bands=scene.bands, radiometry=scene.radiometry)
            writer.write(whole, scene.read_digital())
        groups[name] = (str(path),)
    return SceneFiles(files.name, **groups)


def pair_batches(files: SceneFiles, cache: Any, workers: int) -> Iterator[Any]:
    """Batches of `GeoPairDataset` without end."""
    dataset = GeoPairDataset([files], BANDS, size=LR * SCALE, stride=8, min_valid=0.9, cache=cache)
    return endless(dataset, PatchSampler(dataset.table, length=10**9), workers)


class TwoReads(Dataset[dict[str, torch.Tensor]]):
    """What there is without geosr: two datasets, asked for the same bounds."""

    def __init__(self, lr: RasterDataset, hr: RasterDataset) -> None:
        self.lr, self.hr = lr, hr

    def __getitem__(self, query: Any) -> dict[str, torch.Tensor]:
        return {"lr": self.lr[query]["image"], "hr": self.hr[query]["image"]}


def torchgeo_batches(hr: Path, lr: Path) -> Iterator[Any]:
    """Batches of two `RasterDataset` and a `RandomGeoSampler` without end."""
    fine, coarse = RasterDataset(str(hr)), RasterDataset(str(lr))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sampler = RandomGeoSampler(fine, size=LR * SCALE, length=10**9)
    return endless(TwoReads(coarse, fine), sampler)


def endless(dataset: Dataset[Any], sampler: Sampler[Any], workers: int = 1) -> Iterator[Any]:
    """Batches of a DataLoader."""
    return iter(DataLoader(dataset, sampler=sampler, batch_size=BATCH, num_workers=workers, collate_fn=collate))


if __name__ == "__main__":
    main()
