"""A scene on disk, super-resolved shard by shard into a GeoTIFF, a folder of them or a Zarr group."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime as DateTime
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from geosr import __version__
from geosr.errors import OutputError, UsageError
from geosr.grid import resolution_m, size
from geosr.inference.choose import bands_of, choose_model, guide_of, refuse_variant, require_factor
from geosr.inference.executors import Executor, InProcess, share
from geosr.inference.job import Job
from geosr.inference.journal import Journal, Staged, digest, published_targets, stored_call
from geosr.inference.outputs import Output, plan_output, size_on_disk
from geosr.inference.publish import RunFiles, forgetful, require_unchanged
from geosr.inference.resident import ModelKey, keep, locate
from geosr.inference.superresolver import SuperResolver
from geosr.inference.work import Work
from geosr.io.inputs import open_input
from geosr.io.origins import files_of_scene, stamps_of
from geosr.io.safe import product_metadata
from geosr.io.scene import Scene, open_scene
from geosr.io.targets import require_name

log = logging.getLogger(__name__)

DEFAULT_TILE = 512
"""LR pixels along one side of a tile's core: smaller ones spend more on the halo, larger ones more memory."""

Progress = Callable[[int, int, int], None]
"""Called with LR pixels done now, done in all and to be done."""


@dataclass(frozen=True)
class Prediction:
    """What a prediction did."""

    path: Path
    """The finished result: a GeoTIFF, a folder of them, or a Zarr group."""
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
    """Size of the result; 0 while it is unfinished."""
    preview: Path | None = None
    stac: Path | None = None
    """The STAC item that was written beside it."""
    samples: int = 0
    """Members of the ensemble whose mean the bands are; 0 without noise."""
    seed: int | None = None
    """The first member."""
    tta: bool = False
    """Whether it is the mean of the eight orientations."""
    missing: int = 0
    """Tiles that are still to be done by other runs, of a run that did a share."""


def predict(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | SuperResolver | None = None,
    variant: str | None = None,
    factor: int | None = None,
    blend: tuple[str | Path, float] | None = None,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    sensor: str | None = None,
    baseline: str | None = None,
    item: str | None = None,
    resolution: int | None = None,
    mask: Sequence[str] = (),
    mask_dilate: float = 0.0,
    aoi: str | Sequence[float] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    tta: bool = False,
    confidence: bool = False,
    dtype: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    trust: str | Sequence[str] = (),
    batch_size: int = 1,
    tile: int = DEFAULT_TILE,
    executor: Executor | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    restart: bool = False,
    preview: str | os.PathLike[str] | None = None,
    stac: bool = False,
    datetime: str | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Write the super-resolved scene with the input's outline, CRS, type, encoding, band order and band names.

    What is invalid in the input is invalid in the result, as nodata. An integer type without nodata, whose invalid
    pixels a mask marks, gets nodata 0, and valid pixels of 0 become 1.

    A run that was stopped continues where it was when the same call is made again.

    Of a model that takes noise, several samples may be asked for. The bands are their mean then, and as many bands
    follow, ``B02_spread`` and so on, with their standard deviation; `mean_and_spread` says what that is and is not. The
    spread's bands have a scale and an offset of their own, so that a spread of 0 is a number and not nodata. Of a model
    without noise, ``confidence`` gives such bands with the expected absolute error, ``B02_error`` and so on;
    `geosr.models.calibration.Calibration` says what that is and is not.

    Args:
        sources: Rasters, a Zarr store, a Sentinel-2 product, a STAC item or a folder of single-band files; as
            :func:`geosr.io.inputs.open_input` takes them.
        out: What to write: a Cloud-Optimised GeoTIFF (``.tif``), a Zarr v3 group (``.zarr``), or a folder, which gets
            one GeoTIFF for each band.
        model: A shipped model's name, a ``.safetensors`` or ``.onnx`` file, a run's folder, a file on the Hugging Face
            hub (see `geosr.models.find_weights`), or a loaded model; None chooses the shipped one that fits.
        variant: Which of the shipped models that fit: ``standard`` (None), ``fast`` for large areas, or ``detail`` for
            the eye.
        factor: How many times finer the shipped model is to make the bands, such as 2 or 4; None: the one that fits
            best decides. With a model it must be the model's.
        blend: Another model of the same network, and its share of the weights, from 0 to 1.
        bands: Names of the input's bands, in file order, where the file does not name them.
        scale: Reflectance per digital number, where the file does not say; likewise ``offset``, ``nodata``.
        offset: Reflectance at digital number 0.
        nodata: The digital number of an invalid pixel.
        sensor: A sensor whose product specification says how reflectance is encoded.
        baseline: Processing baseline, for Sentinel-2.
        item: ``collection/id`` of an item, where the source is a STAC API.
        resolution: Metres, where the source has images of several resolutions; None: the finest.
        mask: Kinds of masks that make pixels invalid: ``clouds``, ``defects``, ``snow``.
        mask_dilate: Metres around masked pixels that are invalid too.
        aoi: Area of interest: ``minx, miny, maxx, maxy`` in the scene's CRS, or a GeoJSON file.
        samples: Members of the ensemble of a model that takes noise; 1 writes that of ``seed`` alone. Without samples
            and seed it is the noise-free image.
        seed: The first member; the others have the seeds after it. Noise belongs to places of the scene, so an area of
            interest gets the noise that the whole scene has there.
        tta: Mean of the eight orientations of the input (D4 self-ensemble), in about eight times the time; not of
            samples.
        confidence: Further bands that say how sure the model is: of one that takes noise the spread of 8 samples,
            unless ``samples`` says how many; of another the expected error, where its weights are calibrated.
        dtype: Type of the output; ``float32`` stores reflectance itself. None keeps the input's.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        trust: Modules and packages whose code may run for a model of a class of one's own, as for `geosr.load_model`.
        batch_size: Tiles that the network takes at once.
        tile: Side of a tile, LR pixels; rounded so that tiles fill whole blocks of the output.
        executor: Who does the work: `InProcess` (None), `Processes` of this machine, or a `Dask` cluster.
        shard: ``(i, n)``: do the i-th of n shares of the work, counted from 1, beside other runs that do the others;
            :func:`assemble` makes the result when all are done.
        overwrite: Replace an existing output.
        restart: Do not continue an earlier run.
        preview: PNG to write with a before/after picture.
        stac: Write a STAC item beside the result, which names model, hash and source.
        datetime: When the scene was acquired (ISO 8601), for the item, where the product does not say.
        progress: Called after every shard.

    Raises:
        GeosrError: See its children; the message says what to do.
    """
    sources = _anywhere(sources)
    asked = dict(locals())  # before there are others
    started = perf_counter()
    refuse_variant(model, variant)
    if batch_size < 1 or tile < 1:
        raise UsageError(f"batch size {batch_size} and tile {tile} must be at least 1")
    if blend is not None and isinstance(model, SuperResolver):
        raise UsageError("a loaded model is not blended; geosr.load_model takes blend, or give both files here")
    if shard is not None and (restart or executor is not None):
        raise UsageError("a shard is one of many runs that share the work: leave out --restart, --workers and --dask")
    with ExitStack() as stack:
        scene = stack.enter_context(
            open_input(
                sources,
                item=item,
                wanted=bands_of(model),
                guide=guide_of(model),
                bands=bands,
                scale=scale,
                offset=offset,
                nodata=nodata,
                sensor=sensor,
                baseline=baseline,
                resolution=resolution,
                mask=mask,
                mask_dilate=mask_dilate,
            )
        )
        stamps = stamps_of(files_of_scene(scene))
        read = (*sources, *stamps, aoi, model, blend and blend[0])
        files = RunFiles.of(out, preview=preview, stac=stac, inputs=read, overwrite=overwrite)
        files.require_free(published_targets(Path(os.path.abspath(out))))
        acquired = acquisition_time(scene, datetime) if stac else None
        if scene.geobox.crs is None:
            log.warning("%s has no coordinate reference system; its output will have none", scene.name)
        key = _model(
            scene,
            model,
            variant=variant,
            factor=factor,
            blend=blend,
            device=device,
            precision=precision,
            trust=trust,
        )
        resolver = key.load()
        answer = resolver.answer(samples=samples, seed=seed, tta=tta, confidence=confidence)
        job = Job.plan(scene, key, aoi=aoi, dtype=dtype, tile=tile, answer=answer)
        if job.tiling == "approximate":
            log.info(
                "model %s looks farther than a tile: tiles are approximate, and blended where they overlap",
                resolver.spec.name,
            )
        keep_work = isinstance(executor, _Nobody)
        together = shard is not None or keep_work
        header = forgetful(job.fingerprint(scene, stamps), stamps, shared=together)
        output = plan_output(out, job.profile, shard=job.tiles.core * job.scale, job=digest(header)[:12])
        work = Work(scene, job, output, batch_size)
        shards = share(work, *shard) if shard is not None else range(len(work))
        journal = stack.enter_context(
            closing(
                Journal(
                    output.target,
                    header,
                    call={} if key.name is None else _repeatable(asked, output, key),
                    writes=files.writes(output),
                    require=lambda done: files.require_free(done, job.profile.bands),
                    restart=restart,
                    shared=shard is not None,
                    keep=keep_work,
                )
            )
        )
        resumed, fresh, missing = set(shards), 0, 0
        try:
            if not journal.complete:
                output.begin()
                resumed = {index for index in shards if output.is_stored(index)}
                fresh = _run(work, shards, resumed, executor=executor or InProcess(), progress=progress)
            if shard is not None:
                missing = sum(not output.shard_path(index).exists() for index in range(len(work)))
            elif journal.complete:
                journal.finish(overwrite=overwrite)
            else:
                with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="publish") as threads:
                    output.assemble(threads)
                beside = _sidecars(scene, work, files, acquired, journal.folder / "sidecars")
                require_unchanged(stamps)
                journal.publish([*beside, *output.staged()], overwrite=overwrite)
        except OSError as error:
            raise OutputError(
                f"{output.target} could not be written: {error.strerror or error}. "
                "What is finished is kept; the same command continues"
            ) from error
        seconds = perf_counter() - started
    height, width = job.profile.levels[0]
    return Prediction(
        path=output.target,
        model=resolver.spec.name,
        weights_sha256=resolver.weights_hash,
        scale=job.scale,
        bands=job.profile.bands,
        shape=(height, width),
        device=str(resolver.device),
        precision=resolver.precision,
        tiles=len(job.tiles),
        tiling=job.tiling,
        resumed=len(resumed),
        seconds=round(seconds, 3),
        megapixels_per_second=round(fresh * job.scale**2 / 1e6 / seconds, 3),
        bytes=0 if shard is not None else sum(map(size_on_disk, output.paths)),
        preview=files.preview if shard is None else None,
        stac=files.item if shard is None else None,
        samples=len(answer.seeds),
        seed=answer.seeds.start if answer.seeds else None,
        tta=tta,
        missing=missing,
    )


def assemble(
    out: str | os.PathLike[str], *, progress: Progress | None = None, trust: str | Sequence[str] = ()
) -> Prediction:
    """Make the result of work that several runs with a ``shard`` each have done; nothing is super-resolved.

    Args:
        out: What the runs were to write.
        progress: Called as by :func:`predict`.
        trust: As for :func:`predict`; it is not kept with the work.

    Raises:
        OutputError: There is no such work, or some of it is missing.
    """
    require_name(out)
    target = Path(os.path.abspath(out))
    call = stored_call(target)
    if Path(str(call.get("out"))) != target:
        raise OutputError(f"the work beside {target} was begun for {call.get('out')}; move it back, or do it again")
    return predict(**call, device="cpu", executor=_Nobody(), progress=progress, trust=trust)


class _Nobody:
    """Does nothing: everything should be done already."""

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[int]:
        """Fail; see `Executor`."""
        yield from ()
        listed = " ".join(map(str, shards[:10])) + (" ..." if len(shards) > 10 else "")
        raise OutputError(
            f"{len(shards)} of the {len(work)} shards of {work.output.target} are missing ({listed}); run the jobs "
            "that ended early again, or geosr predict with the same options and without --shard"
        )


def _model(
    scene: Scene,
    model: str | os.PathLike[str] | SuperResolver | None,
    *,
    variant: str | None,
    factor: int | None,
    blend: tuple[str | Path, float] | None,
    device: str,
    precision: str,
    trust: str | Sequence[str],
) -> ModelKey:
    """The key of the model to use; bands that it leaves out are told."""
    if isinstance(model, SuperResolver):
        require_factor(model.spec, factor)
        key = keep(model)
    else:
        weights = choose_model(scene, model, variant=variant, factor=factor)
        scene.band_radiometry(weights.spec.bands)  # fails, where it does, before the weights are loaded
        name = weights.spec.name if model is None else model
        key = locate(name, blend=blend, device=device, precision=precision, trust=trust)
    spec = key.load().spec
    taken = scene.select(spec.bands)
    left_out = [label for place, label in enumerate(scene.labels) if place not in taken]
    if left_out:
        log.info("model %s has no %s: left out of the output", spec.name, " ".join(left_out))
    return key


def _repeatable(asked: Mapping[str, Any], output: Output, key: ModelKey) -> dict[str, Any]:
    """What `predict` was asked for, so that it can be asked again from any folder, and of a machine of any kind."""
    # What is trusted is the user's word each time: a file that names a module would be code.
    here = ("executor", "shard", "progress", "restart", "device", "variant", "factor", "trust")
    call = {name: value for name, value in asked.items() if name not in here}
    if isinstance(asked["aoi"], str):
        (call["aoi"],) = _anywhere(asked["aoi"])
    call["preview"] = asked["preview"] and os.path.abspath(asked["preview"])
    return {**call, "out": output.name, "model": key.name, "blend": key.blend, "precision": key.precision}


def _anywhere(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The paths, those of files and folders of this machine such that they hold in any folder."""
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    return [os.path.abspath(path) if os.path.exists(path) else os.fspath(path) for path in several]


def _run(
    work: Work, shards: Sequence[int], stored: Collection[int], *, executor: Executor, progress: Progress | None
) -> int:
    """Have the shards done that are not stored yet, and return their LR pixels."""
    pixels = {index: prod(size(work.job.tiles.tile(index).core)) for index in shards}
    total, done = sum(pixels.values()), sum(pixels[index] for index in stored)
    if stored:
        log.info("continuing: %d of %d tiles were finished by an earlier run", len(stored), len(pixels))
    if progress and total:
        progress(done, done, total)
    todo = [index for index in shards if index not in stored]
    for index in executor.run(work, todo) if todo else ():
        done += pixels[index]
        if progress:
            progress(pixels[index], done, total)
    return sum(pixels[index] for index in todo)


def _sidecars(scene: Scene, work: Work, files: RunFiles, acquired: DateTime | None, folder: Path) -> list[Staged]:
    """What belongs beside the assembled result, made in a folder of the work folder."""
    staged = []
    folder.mkdir(exist_ok=True)
    if files.preview is not None:
        staged.append(Staged(_preview(scene, work, folder / "preview.png"), files.preview, copied=True))
    if files.item is not None and acquired is not None:
        staged.append(
            Staged(_write_item(scene, work, acquired, files.item, folder / "item.json"), files.item, copied=True)
        )
    return staged


def _preview(scene: Scene, work: Work, out: Path) -> Path:
    """The before/after picture."""
    from geosr.preview import write_preview

    profile = work.job.profile
    with open_scene(work.output.finished, bands=profile.bands) as sr:
        outputs = sr.bands[: len(work.job.resolver.spec.outputs)]
        return write_preview(scene, sr, out, bands=outputs, window=work.job.window, radiometry=profile.radiometry)


def acquisition_time(scene: Scene, said: str | None) -> DateTime:
    """When a scene was acquired, UTC: what is said, else what its product says.

    Raises:
        UsageError: Neither says it, or not in ISO 8601.
    """
    product = product_metadata(scene.paths[0])
    if said is None:
        time = scene.acquired if product is None else product.sensing_time
        if time is None:
            raise UsageError(f"{scene.name} does not say when it was acquired; a STAC item needs --datetime 2025-06-01")
        return time
    try:
        time = DateTime.fromisoformat(said)
    except ValueError as error:
        raise UsageError(f"--datetime {said} is no date or time in ISO 8601, such as 2025-06-01T10:30:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _write_item(scene: Scene, work: Work, time: DateTime, path: Path, at: Path) -> Path:
    """The STAC item beside the result."""
    from geosr.io.item import write_item

    output, resolver = work.output, work.job.resolver
    paths = output.paths
    bands = [[band] for band in output.profile.bands] if len(paths) > 1 else [list(output.profile.bands)]
    return write_item(
        path,
        dict(zip(paths, bands, strict=True)),
        output.profile,
        time=time,
        properties={
            "gsd": resolution_m(output.profile.geobox),
            "processing:software": {"geosr": __version__},
            "geosr:model": resolver.spec.name,
            "geosr:weights_sha256": resolver.weights_hash,
            "geosr:scale": work.job.scale,
        },
        sources=scene.paths,
        at=at,
    )
