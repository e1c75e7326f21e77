"""Commands that prepare training data and train."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from geosr.cli.app import app
from geosr.cli.options import (
    Bands,
    Baseline,
    Json,
    Nodata,
    Offset,
    Quiet,
    Scale,
    Sensor,
    progress_bar,
    split_names,
)
from geosr.errors import UsageError, extra

data = typer.Typer(no_args_is_help=True, help="The catalogue of training data and sources of scenes.")
app.add_typer(data, name="data")

CHECK_FAILED = 1
"""Exit code of a check that found something."""


@app.command()
def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings on top of the config's.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="YAML file, or the name of a shipped config; config_20m.yaml if left out."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a run: auto for the latest of this config, its folder, a checkpoint.")
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Processes, each on a device of its own.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop after days:hours:minutes:seconds.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Small networks, 16 steps, everything once.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything and measure a step; train and write nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model and export its weights file."""
    with extra("train", "training"):
        from geosr.training import measure_run, settings_of
        from geosr.training import train as run

    given = {"Training.devices": devices, "Training.precision": precision, "Training.max_time": max_time}
    settings = [*(overrides or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    if resume is not None:
        settings.append(
            f"Model.continue_training={json.dumps(resume, ensure_ascii=False)}"
        )  # whatever YAML would make of its name
    of_run = settings_of(resume) if resume is not None and config is None else None
    source = config or of_run or "config_20m.yaml"
    if dry_run:
        needs = measure_run(source, settings)
        print(json.dumps(asdict(needs)) if as_json else needs)
        return
    path = run(source, settings, debug=debug, quiet=quiet or as_json)
    if int(os.environ.get("LOCAL_RANK", 0)):  # of several processes the first one speaks
        return
    print(json.dumps({"weights": str(path), "folder": str(path.parent)}) if as_json else path)


@app.command()
def prepare(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Training store to write, ending in .zarr.", show_default=False)
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCES]...",
            help="Rasters, folders, SAFE products (folders, zips), STAC items.",
            show_default=False,
        ),
    ] = None,
    bands: Bands = "B02,B03,B04,B08",
    patch: Annotated[int, typer.Option(min=2, help="Side of a patch, HR pixels.")] = 256,
    stride: Annotated[int | None, typer.Option(min=1, help="HR pixels between patches; a patch if left out.")] = None,
    scales: Annotated[str, typer.Option(help="Resolutions to store, over the scene's own: 1 0.75 0.5.")] = "1",
    min_valid: Annotated[float, typer.Option(help="Smallest share of valid pixels in a patch.")] = 0.9,
    max_cloud: Annotated[
        float | None, typer.Option(help="Largest percentage of cloud: in a patch, and of a STAC item.")
    ] = None,
    cloud_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where there are clouds.")] = None,
    split: Annotated[str, typer.Option(help="Shares of train, validation and test.")] = "0.8 0.1 0.1",
    split_block: Annotated[str, typer.Option(help="Side of the blocks of ground that are dealt out whole.")] = "2560m",
    split_buffer: Annotated[str, typer.Option(help="Distance to blocks of another part.")] = "0m",
    lr: Annotated[Path | None, typer.Option(help="Folder of LR images, paired with --hr by name.")] = None,
    hr: Annotated[Path | None, typer.Option(help="Folder of HR images.")] = None,
    suffixes: Annotated[
        str | None, typer.Option(help="Ends of names that tell the images of a pair apart: lr,hr,10m,40m.")
    ] = None,
    pair_scale: Annotated[int | None, typer.Option(min=2, help="HR pixels along an LR pixel of pairs.")] = None,
    stac: Annotated[str | None, typer.Option(help="STAC API to search for scenes.")] = None,
    collection: Annotated[str | None, typer.Option(help="Collection to search in.")] = None,
    bbox: Annotated[str | None, typer.Option(help="west south east north in degrees: all that is read.")] = None,
    datetime: Annotated[str | None, typer.Option(help="When: 2023-06-01/2023-08-31.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="STAC items at most.")] = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    licence: Annotated[str | None, typer.Option(help="Terms of scenes whose terms nothing else tells.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Scenes that are worked on at a time.")] = 2,
    check: Annotated[bool, typer.Option("--check", help="Verify the store instead of writing it.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing store.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make one training store of many scenes, with patches, their split and a manifest.

    A run that was stopped continues when the same command is given again.
    """
    with extra("train", "preparing data"):
        from geosr.data.prepare import prepare as run
        from geosr.data.sources import PAIR_SUFFIXES
        from geosr.data.splits import BlockSplit
        from geosr.io.claims import Claims
    if check:
        _check(out, as_json=as_json, quiet=quiet)
        return
    found: list[object] = list(sources or [])
    area = None if bbox is None else _numbers("--bbox", bbox, 4)
    if stac is not None:
        found += _search(stac, collection, area, datetime, max_cloud, limit)
    with progress_bar("preparing", quiet=quiet or as_json) as progress:
        done = run(
            found,  # type: ignore[arg-type]
            out, bands=split_names(bands) or [], patch=patch, stride=stride, scales=_numbers("--scales", scales),
            min_valid=min_valid, max_cloud=max_cloud, cloud_mask=cloud_mask,
            split=BlockSplit(
                tuple(_numbers("--split", split, 3)),  # type: ignore[arg-type]
                _metres("--split-block", split_block), _metres("--split-buffer", split_buffer),
            ),
            bbox=area, lr=lr, hr=hr, scale=pair_scale,
            suffixes=PAIR_SUFFIXES if suffixes is None else split_names(suffixes) or (),
            encoding=Claims(scale, offset, nodata, sensor, baseline), licence=licence, workers=workers,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(done), default=str))
    elif not quiet:
        parts = ", ".join(f"{name} {count:,}" for name, count in done.patches.items())
        print(f"{done.path}: {done.scenes} scenes, {done.bytes / 1e6:.1f} MB, {done.seconds:.1f} s; patches: {parts}")


@app.command()
def degrade(
    source: Annotated[str, typer.Argument(metavar="SCENE", help="HR scene.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="GeoTIFF to write.", show_default=False)],
    config: Annotated[
        str, typer.Option("--config", "-c", help="YAML file, or the name of a shipped config: its Degradation section.")
    ] = "config_20m.yaml",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE on top of the config; may be repeated.")
    ] = None,
    bands: Bands = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    preview: Annotated[Path | None, typer.Option(help="PNG to write; beside the output if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Degrade a scene as training does, to see what the network will see."""
    with extra("train", "degrading"):
        from geosr.config import load_config
        from geosr.data.degrade_scene import degrade_scene
    from geosr.io.origins import files_of_scene
    from geosr.io.scene import open_scene
    from geosr.io.targets import Target, inputs_of, require_free
    from geosr.preview import write_pair_preview

    settings = load_config(config, overrides or [])
    picture = preview or out.with_suffix(".png")
    with open_scene(source) as scene:
        require_free([Target(out), Target(picture)], inputs_of(files_of_scene(scene)), overwrite=overwrite)
        done = degrade_scene(
            scene,
            out,
            section=settings.Degradation,
            scale=settings.Generator.scaling_factor,
            bands=split_names(bands),
            seed=seed,
            overwrite=overwrite,
        )
    write_pair_preview(done.hr, done.lr, picture)
    height, width = done.lr.valid.shape
    drawn = {name: values.tolist()[0] for name, values in done.parameters.items()}
    if as_json:
        print(json.dumps({"path": str(out), "preview": str(picture), "shape": [height, width], "parameters": drawn}))
    elif not quiet:
        print(f"{out}: {width} x {height} pixels ({settings.Degradation.type}, x{settings.Generator.scaling_factor})")
        for name, value in drawn.items():
            print(f"  {name}: {value}")
        print(f"{picture}: HR and LR")


@data.command("list")
def list_data(as_json: Json = False) -> None:
    """List data sets to train on and public sources of scenes."""
    with extra("train", "the catalogue"):
        from geosr.data.catalog import collections, rows

    told = rows(collections())
    if as_json:
        print(json.dumps(told))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "kind", "resolution", "reader", "licence", box=None)
    for row in told:
        kind = f"{row['kind']} {row['scale']}".strip()
        table.add_row(row["id"], kind, row["resolution"], row["reader"], row["licence"])
    Console().print(table)


@data.command("show")
def show_data(
    id: Annotated[str, typer.Argument(help="Id of the data set.", show_default=False)], as_json: Json = False
) -> None:
    """Show what is known of a data set: licence, bands, radiometry, how to get it and how to cite it."""
    with extra("train", "the catalogue"):
        from geosr.data.catalog import describe, get_collection

    entry = get_collection(id)
    if as_json:
        print(json.dumps(entry.stac))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid("", "", padding=(0, 2))
    for label, text in describe(entry).items():
        table.add_row(escape(label), escape(text))
    Console().print(table)


def _check(store: Path, *, as_json: bool, quiet: bool) -> None:
    """Verify a store; the exit code tells."""
    from geosr.data.store import check_store

    report = check_store(store)
    if as_json:
        print(json.dumps(asdict(report), default=str))
    elif not quiet:
        for violation in report.violations:
            print(violation)
        print(f"{store}: {report.scenes} scenes, {report.patches:,} patches, violations: {len(report.violations)}")
    if report.violations:
        raise typer.Exit(CHECK_FAILED)


def _search(
    url: str,
    collection: str | None,
    area: list[float] | None,
    datetime: str | None,
    max_cloud: float | None,
    limit: int | None,
) -> list[object]:
    from geosr.data.stac import search_stac

    if collection is None:
        raise UsageError("--stac needs --collection, such as sentinel-2-c1-l2a; `geosr data list` names sources")
    return list(search_stac(url, collection, bbox=area, datetime=datetime, max_cloud=max_cloud, limit=limit))


def _numbers(option: str, text: str, count: int | None = None) -> list[float]:
    """Numbers between commas or spaces."""
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers or count not in (None, len(numbers)):
        raise UsageError(f"{option} {text!r} is not {count or 'one or more'} numbers with commas between them")
    return numbers


def _metres(option: str, text: str) -> float:
    """Metres, with or without their unit."""
    try:
        return float(text.removesuffix("km")) * 1000 if text.endswith("km") else float(text.removesuffix("m"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is no length; write 2560m or 2.56km") from None
