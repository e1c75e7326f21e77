"""Scenes made into one training store, scene by scene, so that a killed run continues where it was."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import zarr
from numpy.typing import NDArray

from geosr import __version__, files
from geosr.data.coarsen import average, covered
from geosr.data.manifest import cut_from, describe, made_from, require_same
from geosr.data.patches import PatchTable, SceneFiles, scan_patches
from geosr.data.plan import Image, Options, Part, plan
from geosr.data.sources import PAIR_SUFFIXES, SILENT, Skipped, find_sources
from geosr.data.splits import BlockSplit, footprints
from geosr.data.store import COLUMNS, MANIFEST, SPLITS, VERSION, digest, open_store, scene_path
from geosr.errors import InputError, OutputError, RadiometryError, UsageError
from geosr.grid import Window, relative, size, upsample_mask
from geosr.io.claims import Claims
from geosr.io.scene import Scene, open_files, open_scene
from geosr.io.targets import Target, inputs_of, require_free
from geosr.io.work import JOB, locked_folder, make_folder, remove_leftovers, remove_work, work_folder
from geosr.io.zarr import create_zarr
from geosr.sensors import canonical_band

if TYPE_CHECKING:
    from pystac import Item

log = logging.getLogger(__name__)

STRIP = 512
"""Rows that are read at a time: what bounds memory, with the width of a shard."""

SPLIT = BlockSplit()
"""Eight tenths of the patches to train on, one to validate, one to test."""

Progress = Callable[[int, int, int], None]
"""Called with HR pixels done now, done in all and to be done."""


@dataclass(frozen=True)
class Prepared:
    """What a preparation did."""

    path: Path
    """The training store."""
    scenes: int
    """Scenes in it; a scene at three resolutions counts three times."""
    patches: dict[str, int]
    """Patches in train, val and test, and those that are in none."""
    skipped: tuple[Skipped, ...]
    """What lies in the named folders and is not used, with the reason."""
    resumed: int
    """Scenes that an earlier run had finished."""
    bytes: int
    """Size of the store."""
    seconds: float


def prepare(
    sources: Iterable[str | os.PathLike[str] | SceneFiles | Item],
    out: str | os.PathLike[str],
    *,
    bands: Sequence[str],
    patch: int = 256,
    stride: int | None = None,
    scales: Sequence[float] = (1.0,),
    min_valid: float = 0.9,
    max_cloud: float | None = None,
    cloud_mask: str | os.PathLike[str] | None = None,
    split: BlockSplit = SPLIT,
    bbox: Sequence[float] | None = None,
    lr: str | os.PathLike[str] | None = None,
    hr: str | os.PathLike[str] | None = None,
    scale: int | None = None,
    suffixes: Sequence[str] = PAIR_SUFFIXES,
    encoding: Claims = SILENT,
    licence: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """One training store of many scenes, with an index of patches, their split, and a manifest.

    Digital numbers keep their encoding; at scale 1 they are copied. A run that was stopped continues when the same call
    is made again, and a store that is complete is left as it is. Memory does not grow with the scenes: about 250 MB for
    each worker.

    Args:
        sources: What :func:`geosr.data.sources.find_sources` takes: rasters, folders, products, STAC items.
        out: The store to write, ending in ``.zarr``.
        bands: The bands that it holds, in this order.
        patch: Side of a patch, HR pixels.
        stride: HR pixels between the places where a patch may start; by default a patch.
        scales: Resolutions that every scene is stored at, over its own: 0.5 has pixels twice as wide, averaged.
        min_valid: Smallest share of valid pixels in a patch.
        max_cloud: Largest share of cloudy pixels in a patch, percent; needs a mask for every scene: the scene
            classification of a Sentinel-2 product or STAC item, ``<name>_SCL.tif`` beside a file, or `cloud_mask`.
        cloud_mask: Raster that is not 0 where there are clouds, on a grid that covers every scene.
        split: How patches are parted into train, validation and test.
        bbox: West, south, east, north in degrees: the only part of each scene that is read.
        lr: Folder of LR images.
        hr: Folder of HR images, paired with `lr` by file name.
        scale: HR pixels along the side of an LR pixel, where pairs must have this one.
        suffixes: Ends of file names that tell the images of a pair apart.
        encoding: What files do not say about their digital numbers.
        licence: Terms of scenes that nothing else tells the terms of.
        workers: Scenes that are worked on at a time.
        overwrite: Replace an existing store.
        progress: Called after every strip.

    Raises:
        GeosrError: See its children; the message says what to do.
    """
    started = perf_counter()
    target = Path(out)
    options = Options(
        bands=tuple(canonical_band(band) or band for band in bands),
        patch=patch,
        stride=patch if stride is None else stride,
        scales=tuple(map(float, scales)),
        min_valid=min_valid,
        max_cloud=max_cloud,
        cloud_mask=None if cloud_mask is None else os.fspath(cloud_mask),
        bbox=None if bbox is None else tuple(bbox),
        suffixes=tuple(suffixes),
        split=split,
    )
    _check_target(target, workers)
    found = find_sources(
        sources, bands=options.bands, lr=lr, hr=hr, suffixes=suffixes, encoding=encoding, licence=licence,
        ignore=[target, *([cloud_mask] if cloud_mask else [])],
    )  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=128 * 2**20):
        parts, unfit, ratio = plan(found.scenes, options, scale)
        skipped = tuple(sorted((*found.skipped, *unfit)))
        for one in skipped:
            log.info("skipped %s: %s", one.name, one.reason)
        with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
            entries = describe(parts, options, pool)
            if target.exists() and not overwrite:
                require_same(target, options, entries)
                resumed = len(parts)
                if work_folder(target).exists():  # a run was killed when the store had its name
                    with _work_folder(target) as work:
                        remove_work(work)
            else:
                if target.exists():
                    read = inputs_of(path for part in parts for image in part.images.values() for path in image.files)
                    require_free([Target(target, "zarr")], read, overwrite=True)
                with _work_folder(target) as work:
                    if target.exists() and not overwrite:
                        raise OutputError(f"another geosr process has just made {target}; the same command uses it")
                    resumed = _build(work, parts, entries, options, pool, progress)
                    _finish(work / "store.zarr", work, parts, entries, options, ratio, skipped)
                    _publish(work, target, overwrite=overwrite)
    table = open_store(target).table
    counts = _counts(table.split)
    held = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Prepared(target, len(parts), counts, skipped, resumed, held, round(perf_counter() - started, 3))


def _check_target(target: Path, workers: int) -> None:
    """Fail early where the store cannot be written."""
    if workers < 1:
        raise UsageError(f"workers {workers} must be at least 1")
    if target.suffix != ".zarr":
        raise OutputError(f"{target} must end in .zarr, by which readers know a store")
    if not target.parent.is_dir():
        raise OutputError(f"folder {target.parent} does not exist; make it first")
    if target.exists() and not (target / MANIFEST).is_file():
        raise OutputError(f"{target} is no training store and is not replaced; choose another name")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"folder {target.parent} is not writable")


class _Meter:
    """Counts pixels for all threads, and ends them when one has failed."""

    def __init__(self, progress: Progress | None, done: int, total: int) -> None:
        self.progress, self.done, self.total = progress, done, total
        self.stop = threading.Event()
        self._lock = threading.Lock()
        if progress:
            progress(done, done, total)

    def add(self, pixels: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        with self._lock:
            self.done += pixels
            if self.progress:
                self.progress(pixels, self.done, self.total)


class _Stopped(Exception):
    """Another thread failed, and its error is what is told."""


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """The folder beside the target that holds unfinished work; one process at a time may have it."""
    try:
        remove_leftovers(target)
        with locked_folder(target) as work:
            if not (work / JOB).exists():
                files.write(work / JOB, json.dumps({"prepare": VERSION}))
            make_folder(work / "done")
            yield work
    except OSError as error:
        raise OutputError(
            f"{target} could not be written: {error.strerror or error}. "
            "What is finished is kept; the same command continues"
        ) from error


def _build(
    work: Path,
    parts: Sequence[Part],
    entries: Sequence[dict[str, Any]],
    options: Options,
    pool: ThreadPoolExecutor,
    progress: Progress | None,
) -> int:
    """Make every scene that an earlier run has not finished; the number of those that it has."""
    store = work / "store.zarr"
    group = zarr.open_group(store, mode="a", zarr_format=3).require_group("scenes")
    wanted = {part.slug for part in parts}
    for stale in {*group.group_keys()} - wanted:
        shutil.rmtree(store / "scenes" / stale)
    told = options.to_dict()
    records = [_read_record(work, part, made_from(entry, told)) for part, entry in zip(parts, entries, strict=True)]
    finished = sum(part.pixels for part, record in zip(parts, records, strict=True) if record)
    meter = _Meter(progress, finished, sum(part.pixels for part in parts))

    def make(part: Part, entry: dict[str, Any], record: dict[str, Any] | None) -> None:
        if record is None:
            _write_scene(store, part, options, meter)
            sums = {role: digest(scene_path(store, part.slug, role)) for role in part.images}
            record = {"made_from": made_from(entry, told), "checksums": sums, "cut_from": None}
            _write_record(work, part, record)
        if record["cut_from"] != (cut := cut_from(entry, told)):
            with files.replacing(work / "done" / f"{part.slug}.npz", sync=False) as columns:
                np.savez(columns, **_scan(store, part, options))  # type: ignore[arg-type]
            _write_record(work, part, record | {"cut_from": cut})

    jobs = [pool.submit(make, *job) for job in zip(parts, entries, records, strict=True)]
    try:
        wait(jobs, return_when=FIRST_EXCEPTION)
    finally:
        meter.stop.set()
        for job in jobs:
            job.cancel()
        wait(jobs)
    errors = [error for job in jobs if not job.cancelled() and (error := job.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
        raise error
    return sum(record is not None for record in records)


def _read_record(work: Path, part: Part, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run noted of a scene that it finished, if it is the same scene and still intact."""
    try:
        record = json.loads((work / "done" / f"{part.slug}.json").read_text("utf-8"))
        same = record["made_from"] == json.loads(json.dumps(wanted)) and all(
            digest(scene_path(work / "store.zarr", part.slug, role)) == record["checksums"][role]
            for role in part.images
        )
        if not (work / "done" / f"{part.slug}.npz").is_file():
            record["cut_from"] = None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if same else None


def _write_record(work: Path, part: Part, record: Mapping[str, Any]) -> None:
    files.write(work / "done" / f"{part.slug}.json", json.dumps(record), sync=False)


def _write_scene(store: Path, part: Part, options: Options, meter: _Meter) -> None:
    """Put the images of a scene into the store, shard by shard."""
    shutil.rmtree(store / "scenes" / part.slug, ignore_errors=True)
    for role, image in part.images.items():
        path = scene_path(store, part.slug, role)
        with open_files(image.files, image.encoding, bands=image.names) as scene:
            writer = create_zarr(path, geobox=image.geobox, bands=options.bands, radiometry=image.radiometry)
            for shard in writer.windows():
                dn = np.empty((len(options.bands), *size(shard)), image.radiometry.dtype)
                for top in range(shard[0].start, shard[0].stop, STRIP):
                    strip = slice(top, min(top + STRIP, shard[0].stop)), shard[1]
                    rows, columns = relative(strip, shard)
                    dn[:, rows, columns] = _digital(scene, image, strip, part, options.bands)
                    meter.add(size(strip)[0] * size(strip)[1] if role == "hr" else 0)
                writer.write(shard, dn)


def _digital(scene: Scene, image: Image, window: Window, part: Part, bands: Sequence[str]) -> NDArray[Any]:
    """Digital numbers (band, y, x) of a window of the image in the store, none of which passes an invalid pixel off."""
    fine = tuple(covered(along, part.factor, length) for along, length in zip(window, size(image.window), strict=True))
    rows, columns = (
        slice(along.start + used.start, along.stop + used.start) for along, used in zip(fine, image.window, strict=True)
    )
    dn, valid = scene.read_masked((rows, columns), bands)
    for down, across in image.exclude:
        top, left = max(down.start - rows.start, 0), max(across.start - columns.start, 0)
        valid[top : max(down.stop - rows.start, 0), left : max(across.stop - columns.start, 0)] = False
    nodata = image.radiometry.nodata
    # What numbers themselves mark as invalid is copied; what only a mask leaves out needs a number that says so.
    hidden = ~valid if part.factor != 1 else image.radiometry.valid(dn) & ~valid
    if nodata is None and hidden.any():
        raise RadiometryError(
            f"{part.source.files.name} has invalid pixels and no value that marks them; choose one with --nodata"
        )
    if part.factor == 1:
        return np.where(hidden, np.asarray(nodata, dn.dtype), dn) if hidden.any() else dn
    mean = average(dn, valid, window, part.factor)  # type: ignore[arg-type]
    return image.radiometry.to_digital(mean * image.radiometry.scale + image.radiometry.offset)


def _scan(store: Path, part: Part, options: Options) -> dict[str, NDArray[Any]]:
    """Columns of the index for all patches of a scene, those that will be left out too."""
    geobox = part.images["hr"].geobox
    width = geobox.shape[1]
    with closing(open_scene(scene_path(store, part.slug, "hr"))) as hr:
        lr = open_scene(scene_path(store, part.slug, "lr")) if "lr" in part.images else None

        def read(rows: slice) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
            raster = hr.read((rows, slice(0, width)), options.bands)
            valid = raster.valid
            if lr is not None:
                ratio = width // lr.geobox.shape[1]
                low = lr.read((slice(rows.start // ratio, rows.stop // ratio), slice(0, width // ratio)), options.bands)
                valid = valid & upsample_mask(low.valid, ratio)
            return valid, raster.array.mean(axis=0)

        table = scan_patches(read, geobox.shape, scene=0, size=options.patch, stride=options.stride)
        if lr is not None:
            lr.close()
    columns = {name: getattr(table, name) for name in ("row", "column", "valid", "detail")}
    mask = options.mask(part.source)
    if mask is None:
        return columns

    def clouds(rows: slice) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        cloudy = mask.read(geobox, (rows, slice(0, geobox.shape[1])))
        return cloudy, np.zeros(cloudy.shape, np.float32)

    with closing(mask):
        cloudy = scan_patches(clouds, geobox.shape, scene=0, size=options.patch, stride=options.stride)
    return columns | {"cloud": cloudy.valid}


def _finish(
    store: Path,
    work: Path,
    parts: Sequence[Part],
    entries: Sequence[dict[str, Any]],
    options: Options,
    ratio: int | None,
    skipped: Sequence[Skipped],
) -> None:
    """Write index and manifest of a store whose scenes are complete."""
    tables, clouds, bounds = [], [], []
    for number, part in enumerate(parts):
        with np.load(work / "done" / f"{part.slug}.npz") as columns:
            keep = columns["valid"] >= options.min_valid - 1e-6
            if "cloud" in columns and options.max_cloud is not None:
                keep &= columns["cloud"] <= options.max_cloud / 100 + 1e-6
            kept = {name: columns[name][keep] for name in columns.files}
        if not keep.any():
            log.warning("%s: none of its %d patches is valid and clear enough", part.name, keep.size)
        clouds.append(kept.pop("cloud", np.full(int(keep.sum()), np.nan, np.float32)))
        scene, none = np.full(int(keep.sum()), number, np.int32), np.zeros(int(keep.sum()), np.int8)
        tables.append(PatchTable(options.patch, scene=scene, split=none, **kept))
        bounds.append(_bounds(part, tables[-1]))
    table = PatchTable.concatenate(tables)
    if not len(table):
        raise InputError("no patch is valid and clear enough; lower --min-valid, raise --max-cloud, or lower --patch")
    table = replace(table, split=options.split.assign(np.concatenate(bounds)))
    shutil.rmtree(store / "index", ignore_errors=True)
    root = zarr.open_group(store, mode="a")
    index = root.create_group("index")
    cloud = np.concatenate(clouds)
    columns = {name: getattr(table, name) for name in COLUMNS}
    if not np.isnan(cloud).all():
        columns["cloud"] = cloud
    for name, values in columns.items():
        index.create_array(name, data=values, chunks=(len(values),), dimension_names=("patch",))
    told = options.to_dict()
    for number, (part, entry) in enumerate(zip(parts, entries, strict=True)):
        record = json.loads((work / "done" / f"{part.slug}.json").read_text("utf-8"))
        entry |= {"checksums": record["checksums"], "patches": _counts(table.split[table.scene == number])}
    root.attrs.put({"geosr": {"store": VERSION, "bands": told["bands"], "patch": options.patch, "scale": ratio}})
    manifest = {
        "store": VERSION,
        "geosr": __version__,
        "options": told,
        "scale": ratio,
        "patches": _counts(table.split),
        "index_sha256": digest(store / "index"),
        "scenes": list(entries),
        "skipped": [one._asdict() for one in skipped],
    }
    files.write(store / MANIFEST, json.dumps(manifest, indent=1) + "\n", sync=False)


def _bounds(part: Part, table: PatchTable) -> NDArray[np.float64]:
    """Where the patches of a scene are on the Earth, or at a place that all copies of a scene without CRS share."""
    geobox, name = part.images["hr"].geobox, part.source.files.name
    if geobox.crs is not None:
        return footprints(geobox, table.row, table.column, table.size, name=name)
    unit = float(1 / part.factor)
    return footprints(geobox, table.row * unit, table.column * unit, int(np.ceil(table.size * unit)), name=name)


def _counts(split: NDArray[np.int8]) -> dict[str, int]:
    """Patches in each part of a split, and in none."""
    counts = {name: int((split == number).sum()) for number, name in enumerate(SPLITS)}
    return counts | {"none": int((split == -1).sum())}


def _publish(work: Path, target: Path, *, overwrite: bool) -> None:
    """Give the finished store the target's name, and let the work folder go."""
    try:
        files.publish(work / "store.zarr", target, folder=work, overwrite=overwrite)
    except FileExistsError as error:
        raise OutputError(
            f"{target} exists, and did not when the work began; give --overwrite to replace it"
        ) from error
    remove_work(work)
