"""A scene on disk, super-resolved tile by tile into a Cloud-Optimised GeoTIFF."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from geosr.errors import OutputError, UsageError
from geosr.grid import BLOCK, Window, relative, scaled, size
from geosr.inference.choose import choose_model
from geosr.inference.cores import superresolve_cores
from geosr.inference.job import Job
from geosr.inference.journal import Journal
from geosr.inference.superresolver import SuperResolver, load_model
from geosr.io.cog import add_overviews, blocks_of, encode, halve, overview_place, verify, write_cog
from geosr.io.scene import Scene, open_scene

log = logging.getLogger(__name__)

DEFAULT_TILE = 512
"""LR pixels along one side of a tile's core: smaller ones spend more on the halo, larger ones more memory."""
AHEAD = 1
"""Batches that are read, and tiles that are compressed, while the network works."""

Progress = Callable[[int, int, int], None]
"""Called with LR pixels done now, done in all and to be done."""


@dataclass(frozen=True)
class Prediction:
    """What a prediction did."""

    path: Path
    """The finished GeoTIFF."""
    model: str
    weights_sha256: str
    scale: int
    bands: tuple[str, ...]
    shape: tuple[int, int]
    """Height and width of the output, pixels."""
    device: str
    precision: str
    tiles: int
    tiling: Literal["exact", "approximate"]
    """``exact``: what the whole image in one piece gives; ``approximate``: blended from tiles that differ a little."""
    resumed: int
    """Tiles that an earlier run had finished."""
    seconds: float
    megapixels_per_second: float
    """Output pixels of this run (all bands together count once)."""
    bytes: int
    preview: Path | None = None
    samples: int = 0
    """Members of the ensemble whose mean the bands are; 0 without noise."""
    seed: int | None = None
    """The first member."""


def predict(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | SuperResolver | None = None,
    blend: tuple[str | Path, float] | None = None,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    sensor: str | None = None,
    baseline: str | None = None,
    aoi: str | Sequence[float] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    dtype: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 1,
    tile: int = DEFAULT_TILE,
    overwrite: bool = False,
    restart: bool = False,
    preview: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Write the super-resolved scene as a Cloud-Optimised GeoTIFF with the input's outline, CRS, type and encoding.

    A run that was stopped continues where it was when the same call is made again.

    Of a model that takes noise, several samples may be asked for. The bands are their mean then, and as many bands
    follow, ``B02_spread`` and so on, with their standard deviation; `mean_and_spread` says what that is and is not. The
    spread's bands have a scale and an offset of their own, so that a spread of 0 is a number and not nodata.

    Args:
        sources: One raster, or the single-band files of one scene, or a Zarr store; as :func:`open_scene` takes them.
        out: The GeoTIFF to write.
        model: A shipped model's name, a ``.safetensors`` or ``.onnx`` file, a run's folder, a file on the Hugging Face
            hub (see `geosr.models.find_weights`), or a loaded model; None chooses the shipped one that fits.
        blend: Another model of the same network, and its share of the weights, from 0 to 1.
        bands: Names of the input's bands, in file order, where the file does not name them.
        scale: Reflectance per digital number, where the file does not say; likewise ``offset``, ``nodata``.
        offset: Reflectance at digital number 0.
        nodata: The digital number of an invalid pixel.
        sensor: A sensor whose product specification says how reflectance is encoded.
        baseline: Processing baseline, for Sentinel-2.
        aoi: Area of interest: ``minx, miny, maxx, maxy`` in the scene's CRS, or a GeoJSON file.
        samples: Members of the ensemble of a model that takes noise; 1 writes that of ``seed`` alone. Without samples
            and seed it is the noise-free image.
        seed: The first member; the others have the seeds after it. Noise belongs to places of the scene, so an area of
            interest gets the noise that the whole scene has there.
        dtype: Type of the output; ``float32`` stores reflectance itself. None keeps the input's.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        batch_size: Tiles that the network takes at once.
        tile: Side of a tile, LR pixels; rounded so that tiles fill whole blocks of the output.
        overwrite: Replace an existing output.
        restart: Do not continue an earlier run.
        preview: PNG to write with a before/after picture.
        progress: Called after every tile.

    Raises:
        GeosrError: See its children; the message says what to do.
    """
    started = perf_counter()
    if batch_size < 1 or tile < 1:
        raise UsageError(f"batch size {batch_size} and tile {tile} must be at least 1")
    if blend is not None and isinstance(model, SuperResolver):
        raise UsageError("a loaded model is not blended; geosr.load_model takes blend, or give both files here")
    target = Path(out)
    with ExitStack() as stack:
        scene = stack.enter_context(
            open_scene(
                sources, bands=bands, scale=scale, offset=offset, nodata=nodata, sensor=sensor, baseline=baseline
            )
        )
        check_target(target, scene.paths, overwrite=overwrite)
        if scene.geobox.crs is None:
            log.warning("%s has no coordinate reference system; its output will have none", scene.name)
        if preview is not None:
            check_target(Path(preview), [*scene.paths, os.fspath(target)], overwrite=True)
        if isinstance(model, SuperResolver):
            resolver = model
        else:
            weights = choose_model(scene, model)
            scene.band_radiometry(weights.spec.bands)  # fails, where it does, before the weights are loaded
            resolver = load_model(weights.path, blend=blend, device=device, precision=precision)
        left_out = [band for band in scene.bands if band not in resolver.spec.bands]
        if left_out:
            log.info("model %s has no %s: left out of the output", resolver.spec.name, " ".join(left_out))
        seeds = resolver.seeds(samples, seed)
        job = Job.plan(scene, resolver, aoi=aoi, dtype=dtype, tile=tile, seeds=seeds)
        if job.tiling == "approximate":
            log.info(
                "model %s looks farther than a tile: tiles are approximate, and blended where they overlap",
                resolver.spec.name,
            )
        journal = stack.enter_context(closing(Journal(target, job.fingerprint(scene), restart=restart)))
        resumed = len(journal.tiles)
        if resumed:
            log.info("continuing: %d of %d tiles were finished by an earlier run", resumed, len(job.tiles))
        threads = os.cpu_count() or 1
        encoders = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="encode"))
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=16 * 2**20))
        try:
            _run(job, scene, journal, encoders, batch_size=batch_size, progress=progress)
            _publish(job, target, journal, encoders)
        except OSError as error:
            raise OutputError(
                f"{target} could not be written: {error.strerror or error}. "
                "What is finished is kept; the same command continues"
            ) from error
        journal.remove()
        seconds = perf_counter() - started
        picture = None
        if preview is not None:
            from geosr.preview import write_preview

            picture = write_preview(scene, target, preview, bands=resolver.spec.bands, window=job.window)
    shape = job.profile.levels[0]
    fresh = (len(job.tiles) - resumed) / len(job.tiles)
    return Prediction(
        path=target,
        model=resolver.spec.name,
        weights_sha256=resolver.weights_hash,
        scale=resolver.spec.scale,
        bands=job.profile.bands,
        shape=shape,
        device=str(resolver.device),
        precision=resolver.precision,
        tiles=len(job.tiles),
        tiling=job.tiling,
        resumed=resumed,
        seconds=round(seconds, 3),
        megapixels_per_second=round(fresh * shape[0] * shape[1] / 1e6 / seconds, 3),
        bytes=target.stat().st_size,
        preview=picture,
        samples=len(seeds),
        seed=seeds.start if seeds else None,
    )


def check_target(target: Path, sources: Iterable[str], *, overwrite: bool) -> None:
    """Fail early where writing ``target`` would harm or cannot work.

    Raises:
        OutputError: It exists already, is one of the sources, is a folder, or lies where nothing can be written.
    """
    for source in sources:
        if _same_file(source, target):
            raise OutputError(f"{target} is another file of this run, {source}; choose another name")
        if os.path.isdir(source) and Path(os.path.realpath(source)) in Path(os.path.realpath(target)).parents:
            raise OutputError(f"{target} lies inside the input {source}; choose another folder")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give the name of a file in it, such as {target / 'sr.tif'}")
    if not target.parent.is_dir():
        raise OutputError(f"folder {target.parent} does not exist; make it first")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; give --overwrite to replace it")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"folder {target.parent} is not writable")


def _same_file(first: str | Path, second: str | Path) -> bool:
    """Whether two paths mean one file, through links too; neither needs to exist."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)


def _run(
    job: Job,
    scene: Scene,
    journal: Journal,
    encoders: ThreadPoolExecutor,
    *,
    batch_size: int,
    progress: Progress | None,
) -> None:
    """Read, super-resolve, compress and store every tile that is not in the journal, all at the same time."""
    pixels = {tile.index: size(tile.core)[0] * size(tile.core)[1] for tile in job.tiles}
    total = sum(pixels.values())
    done = sum(pixels[index] for index in journal.tiles)
    if progress:
        progress(done, done, total)
    pending = [tile for tile in job.tiles if tile.index not in journal.tiles]
    pending.sort(key=lambda tile: tile.shape, reverse=True)  # equal shapes fill batches; smaller fit freed memory
    encoding: deque[tuple[int, list[Future[dict[int, bytes]]]]] = deque()

    def store_oldest() -> None:
        nonlocal done
        index, parts = encoding.popleft()
        journal.record(index, {block: data for part in parts for block, data in part.result().items()})
        done += pixels[index]
        if progress:
            progress(pixels[index], done, total)

    cores = superresolve_cores(
        scene,
        job.tiles,
        job.resolver,
        [tile.index for tile in pending],
        seeds=job.seeds,
        batch_size=batch_size,
        folder=journal.folder,
    )
    for core in cores:
        encoding.append((core.tile.index, _encode(job, core.tile.core, core.sr, core.valid, encoders)))
        if len(encoding) > AHEAD:
            store_oldest()
    while encoding:
        store_oldest()


def _encode(
    job: Job, window: Window, sr: NDArray[np.float32] | None, valid: NDArray[np.bool_], encoders: ThreadPoolExecutor
) -> list[Future[dict[int, bytes]]]:
    """The compressed blocks of a core, and those of the first overview that it fills, under way.

    Args:
        job: The job.
        window: The core, in LR pixels of the scene.
        sr: Its SR reflectance (band, y, x); None where nothing is valid.
        valid: Its mask (y, x), at LR.
        encoders: Runs the compression.
    """
    scale, profile = job.resolver.spec.scale, job.profile
    core = scaled(relative(window, job.window), scale)
    all_valid = bool(valid.all())
    side = job.encoded_side

    def encode_part(part: Window) -> dict[int, bytes]:
        rows, columns = relative(part, core)
        if sr is None:
            values = np.full((len(profile.bands), *size(part)), np.nan, np.float32)
        else:
            values = sr[:, rows, columns]
            if not all_valid:
                lr_rows, lr_columns = (np.arange(along.start, along.stop) // scale for along in (rows, columns))
                values = np.where(valid[np.ix_(lr_rows, lr_columns)], values, np.float32(np.nan))
        digital = profile.to_digital(values)
        blocks = {
            index: encode(digital[:, rows, columns]) for index, (rows, columns) in blocks_of(part, profile.levels[0])
        }
        if side > BLOCK:
            place = overview_place(part, profile)
            blocks[place] = encode(halve(digital, profile.radiometry))
        return blocks

    parts = [
        (slice(top, min(top + side, core[0].stop)), slice(left, min(left + side, core[1].stop)))
        for top in range(core[0].start, core[0].stop, side)
        for left in range(core[1].start, core[1].stop, side)
    ]
    return [encoders.submit(encode_part, part) for part in parts]


def _publish(job: Job, target: Path, journal: Journal, encoders: ThreadPoolExecutor) -> None:
    """Assemble the finished file in the work folder, verify it, and give it the target's name."""
    levels = add_overviews(journal.file, journal.blocks, job.profile, encoders)
    finished = journal.folder / "finished.tif"
    write_cog(finished, job.profile, journal.file, levels, encoders)
    verify(finished, job.profile)
    os.replace(finished, target)
