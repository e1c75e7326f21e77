"""Commands that look at scenes and super-resolve them."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geosr.cli.app import app
from geosr.cli.options import (
    INPUT,
    MODEL,
    NETWORK,
    READING,
    RESULT,
    RUNNING,
    Bands,
    Baseline,
    Dask,
    Device,
    Item,
    Json,
    Mask,
    MaskDilate,
    Nodata,
    Offset,
    Precision,
    Quiet,
    Resolution,
    Scale,
    Sensor,
    Sources,
    TrustModule,
    Workers,
    executor,
    progress_bar,
    read_share,
    read_variant,
    split_names,
)
from geosr.errors import GeosrError, OutputError, UsageError, printable

if TYPE_CHECKING:
    from geosr.inference import Prediction
    from geosr.io.scene import Scene
    from geosr.radiometry import Radiometry


@app.command()
def predict(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help=INPUT, show_default=False),
    ] = None,
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="What to write: sr.tif (Cloud-Optimised GeoTIFF), sr.zarr, or a folder for one GeoTIFF per band; "
            "of a batch a folder, or out/{name}.zarr.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help=f"{MODEL}; the shipped one that fits best if left out.", rich_help_panel=NETWORK
        ),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="The shipped model for large areas on CPUs.", rich_help_panel=NETWORK)
    ] = False,
    detail: Annotated[
        bool,
        typer.Option(
            "--detail", help="The shipped model whose detail is for the eye, not to measure.", rich_help_panel=NETWORK
        ),
    ] = False,
    factor: Annotated[
        int | None,
        typer.Option(help="2 or 4: the shipped model that makes pixels so many times finer.", rich_help_panel=NETWORK),
    ] = None,
    blend: Annotated[
        tuple[str, float] | None,
        typer.Option(
            metavar="MODEL SHARE",
            help="Mix in another model of the same network; its share is 0 to 1.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    item: Item = None,
    resolution: Resolution = None,
    mask: Mask = None,
    mask_dilate: MaskDilate = 0.0,
    aoi: Annotated[
        str | None,
        typer.Option(help="minx,miny,maxx,maxy in the scene's CRS, or a .geojson file.", rich_help_panel=READING),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Mean of so many samples of a model that takes noise, and their spread as further bands.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The first of the samples, or the only one; the same seed, the same image.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            help="Mean of the eight orientations of the scene: a little better, in about eight times the time.",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence",
            help="A further band for each: the expected absolute error (B02_error), as measured on held-out scenes; of "
            "a model that takes noise the spread of 8 samples.",
            rich_help_panel=RESULT,
        ),
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 stores reflectance itself; the input's type if left out.", rich_help_panel=RESULT),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    trust_module: TrustModule = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Tiles that the network takes at once.", rich_help_panel=NETWORK)
    ] = 1,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile in input pixels.", rich_help_panel=NETWORK)
    ] = None,
    workers: Workers = None,
    dask: Dask = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do the I-th of N shares, as one job of an array; then geosr assemble.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            help="Many scenes: a text file with one in each line, or a STAC search's answer as JSON.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Of a batch, leave out scenes that are done.", rich_help_panel=RUNNING)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.", rich_help_panel=RESULT)
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Do not continue a run that was stopped.", rich_help_panel=RUNNING)
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(help="PNG to write with a before/after picture.", rich_help_panel=RESULT)
    ] = None,
    stac: Annotated[
        bool, typer.Option("--stac", help="Write a STAC item beside the result.", rich_help_panel=RESULT)
    ] = False,
    datetime: Annotated[
        str | None,
        typer.Option(
            help="When the scene was acquired, for --stac, where the product does not say.", rich_help_panel=RESULT
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Super-resolve a scene into a GeoTIFF, a Zarr group or a folder of bands.

    A run that was stopped continues when the same command is given again.
    """
    from geosr.inference import Prediction
    from geosr.inference import predict as run
    from geosr.inference.tiled import DEFAULT_TILE

    if model is not None and (fast or detail):
        raise UsageError("--fast and --detail choose among the shipped models; leave out --model")
    variant = read_variant(fast=fast, detail=detail)
    if (batch is None) == (not sources):
        raise UsageError("give the files of one scene, or many scenes with --batch LIST")
    if batch is None and resume:
        raise UsageError("--resume is for a batch; one scene continues by itself")
    if batch is not None and (shard or preview):
        raise UsageError("--shard and --preview are for one scene, not for a batch")

    def one(files: list[str], target: str) -> Prediction:
        with progress_bar("super-resolving", quiet=quiet or as_json) as progress:
            return run(
                files, target, model=model, variant=variant, factor=factor, blend=blend, bands=split_names(bands),
                scale=scale, offset=offset, nodata=nodata, sensor=sensor, baseline=baseline, item=item,
                resolution=resolution, mask=split_names(mask) or (), mask_dilate=mask_dilate, aoi=aoi,
                samples=samples, seed=seed, tta=tta, confidence=confidence, dtype=dtype, device=device,
                precision=precision, batch_size=batch_size, tile=DEFAULT_TILE if tile is None else tile,
                executor=executor(workers, dask), shard=None if shard is None else read_share(shard),
                overwrite=overwrite, restart=restart, preview=preview, stac=stac, datetime=datetime, progress=progress,
                trust=trust_module or (),
            )  # fmt: skip

    if batch is None:
        _report(one(sources or [], out), as_json=as_json, quiet=quiet)
        return
    from geosr.inference.batch import predict_batch

    ended = predict_batch(batch, out, one, resume=resume, overwrite=overwrite, stac=stac)
    if as_json:
        print(json.dumps(asdict(ended), default=str))
    else:
        if not quiet:
            print(f"{len(ended.done)} scenes are done, {len(ended.skipped)} were, {len(ended.failed)} failed")
        for name, why in ended.failed.items():
            print(printable(f"{name}: {why}"), file=sys.stderr)
    if ended.failed:
        raise typer.Exit(1)


@app.command()
def assemble(
    out: Annotated[str, typer.Argument(help="What geosr predict --shard was to write.", show_default=False)],
    trust_module: TrustModule = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the result of the shares that several geosr predict --shard I/N have done."""
    from geosr.inference import assemble as run

    _report(run(out, trust=trust_module or ()), as_json=as_json, quiet=quiet)


def _report(done: "Prediction", *, as_json: bool, quiet: bool) -> None:
    """Tell what a prediction did."""
    if as_json:
        print(json.dumps(asdict(done), default=str))
    elif not quiet:
        height, width = done.shape
        how, path = printable(f"{done.model}, {done.device}, {done.precision}"), printable(str(done.path))
        if done.bytes:
            print(f"{path}: {width} x {height} pixels, {done.bytes / 1e6:.1f} MB, {done.seconds:.1f} s ({how})")
        elif done.missing:
            print(f"this share of {path} is done in {done.seconds:.1f} s ({how}); {done.missing} shards are missing")
        else:
            print(f"{path}: all shares are done, now: geosr assemble {path}")
        for beside, what in ((done.preview, "before and after"), (done.stac, "STAC item")):
            if beside:
                print(printable(f"{beside}: {what}"))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("demo-output"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier demo.")] = False,
    path: Annotated[bool, typer.Option("--path", help="Print the path of the scene and do nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Super-resolve the scene that comes with geosr: 5 x 5 km of the Virginia coast."""
    from geosr.demo import demo_scene

    if path:
        print(demo_scene())
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {out} cannot be made: {error.strerror}") from error
    predict(
        [str(demo_scene())],
        out=str(out / "virginia_coast_sr.tif"),
        overwrite=overwrite,
        preview=out / "virginia_coast_sr.png",
        quiet=quiet,
    )


@app.command()
def info(
    sources: Sources,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    item: Item = None,
    resolution: Resolution = None,
    mask: Mask = None,
    mask_dilate: MaskDilate = 0.0,
    as_json: Json = False,
) -> None:
    """Show a scene's bands, grid, radiometry and masks, where each fact comes from, and which models fit."""
    from geosr.inference.choose import fitting_models, told
    from geosr.io.inputs import open_input

    with open_input(
        sources, item=item, bands=split_names(bands), scale=scale, offset=offset, nodata=nodata, sensor=sensor,
        baseline=baseline, resolution=resolution, mask=split_names(mask) or (), mask_dilate=mask_dilate,
    ) as scene:  # fmt: skip
        facts, models = _facts(scene), [told(weights) for weights in fitting_models(scene)]
    if as_json:
        print(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("fact", "value", "from", title=facts["name"], title_justify="left")
    values = {f"values of {band}": _in_words(one) for band, one in facts["values"].items()}
    rows = {name: value for name, value in facts.items() if name not in ("name", "from", "values", "models")}
    for name, value in (rows | values | {"models": models}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
        table.add_row(name, shown, facts["from"].get(name, ""))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)


def _facts(scene: "Scene") -> dict[str, Any]:
    """What is known of a scene, ready for JSON; ``from`` says who said it."""
    from geosr.grid import resolution_m
    from geosr.inference.choose import fitting_models

    radiometry: dict[str, Any] = {}
    encoding = None
    try:
        encoding = scene.encoding(scene.bands)
        radiometry = {
            "scale": encoding.scale,
            "offset": encoding.offset,
            "nodata": encoding.nodata,
            "saturated": encoding.saturated,
        }
        if encoding.nodata is not None and not math.isfinite(encoding.nodata):
            radiometry["nodata"] = str(encoding.nodata)  # JSON has no NaN
        _ = scene.radiometry  # fails where the values do not bear it out
    except GeosrError as error:
        radiometry["radiometry"] = str(error)
    pixel = resolution_m(scene.geobox)
    steps = zip(scene.bands, scene.steps, strict=True)
    repeated = [f"{band} {step} x {step}" for band, step in steps if step > 1]
    return {
        "name": scene.name,
        "bands": list(scene.bands),
        "size": f"{scene.geobox.shape[1]} x {scene.geobox.shape[0]}",
        "crs": None if scene.geobox.crs is None else str(scene.geobox.crs),
        "pixel": None if pixel is None else f"{pixel:.6g} m",
        "bounds": list(scene.geobox.boundingbox),
        "dtype": scene.dtype,
        **radiometry,
        "values": _values(scene, encoding),
        **({"repeated": repeated} if repeated else {}),
        "masks": list(scene.masks),
        **({} if scene.mask is None else {"masked": f"about {100 * scene.mask.share(scene.geobox):.1f} %"}),
        "models": [weights.spec.name for weights in fitting_models(scene)],
        "from": scene.facts,
    }


def _values(scene: "Scene", encoding: "Radiometry | None") -> dict[str, Any]:
    """Of each band lowest, middle and highest digital number and reflectance, and shares of pixels, of a sample."""
    try:
        statistics = {band: asdict(one) for band, one in scene.statistics().items()}
    except GeosrError:  # the file is damaged; whoever reads it says so
        return {}
    for one in statistics.values():
        numbers = [one[word] for word in ("minimum", "median", "maximum")]
        one["reflectance"] = None
        if encoding is not None and None not in numbers:
            one["reflectance"] = [float(f"{encoding.scale * dn + encoding.offset:.6g}") for dn in numbers]
    return statistics


def _in_words(values: dict[str, Any]) -> str:
    """The values of a band on one line.

    >>> shares = {"invalid": 0.25, "zero": 0.0, "saturated": 0.0}
    >>> _in_words({"minimum": 1.0, "median": 12.5, "maximum": 5000.0, **shares, "reflectance": [0.0001, 0.00125, 0.5]})
    'minimum 1, median 12.5, maximum 5000 (reflectance 0.0001, 0.00125, 0.5); 25 % invalid, 0 % zero, 0 % saturated'
    """
    shares = ", ".join(f"{100 * values[word]:.3g} % {word}" for word in ("invalid", "zero", "saturated"))
    if values["minimum"] is None:
        return f"none is valid; {shares}"
    numbers = ", ".join(f"{word} {values[word]:.7g}" for word in ("minimum", "median", "maximum"))
    reflectance = values["reflectance"]
    told = f" (reflectance {', '.join(f'{value:.4g}' for value in reflectance)})" if reflectance else ""
    return f"{numbers}{told}; {shares}"
