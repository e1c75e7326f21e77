"""The command that measures how good models and finished images are."""

import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geosr.cli.app import app
from geosr.cli.options import (
    INPUT,
    MODEL,
    NETWORK,
    RESULT,
    Bands,
    Baseline,
    Device,
    Json,
    Mask,
    MaskDilate,
    Nodata,
    Offset,
    Precision,
    Quiet,
    Scale,
    Sensor,
    TrustModule,
    progress_bar,
    split_names,
)
from geosr.errors import UsageError, extra

if TYPE_CHECKING:
    from geosr.evaluation import Case, Evaluation
    from geosr.evaluation.intervals import Interval

log = logging.getLogger(__name__)

TEST_SET, MEASURING = "What is measured", "How it is measured"
"""Groups of options in the help."""

SHOWN = (
    "psnr", "psnr_gain", "ssim", "sam", "ergas", "rmse", "lpips", "dists", "ndvi_error", "improvement", "omission",
    "hallucination", "consistency", "consistency_sam", "shift", "seams",
)  # fmt: skip
"""Figures of the table in the terminal; the files have all."""


@app.command()
def evaluate(
    scenes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SCENES]...",
            help=f"HR scenes, of which LR is made. {INPUT} Or a folder of scenes, a store of geosr prepare, or a data "
            "set of the catalogue with --root.",
            show_default=False,
        ),
    ] = None,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help=f"{MODEL}; may be repeated.", rich_help_panel=NETWORK),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for report.html, metrics.json and metrics.csv.", rich_help_panel=RESULT
        ),
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="LR HR",
            help="LR and HR images: two files, or two folders matched by name.",
            rich_help_panel=TEST_SET,
        ),
    ] = None,
    sr: Annotated[Path | None, typer.Option(help="A finished SR image; with --lr.", rich_help_panel=TEST_SET)] = None,
    lr: Annotated[Path | None, typer.Option(help="The LR image it was made of.", rich_help_panel=TEST_SET)] = None,
    hr: Annotated[
        Path | None, typer.Option(help="The HR image of the same place, if there is one.", rich_help_panel=TEST_SET)
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of a data set of the catalogue.", rich_help_panel=TEST_SET)
    ] = None,
    part: Annotated[
        str, typer.Option(help="Of a store of geosr prepare: test, val, train or all.", rich_help_panel=TEST_SET)
    ] = "test",
    classes: Annotated[
        Path | None,
        typer.Option(help="Integer raster of land cover: figures for each class.", rich_help_panel=TEST_SET),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(help="1=water,2=fields, or a file with one in each line.", rich_help_panel=TEST_SET),
    ] = None,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    mask: Mask = None,
    mask_dilate: MaskDilate = 0.0,
    mtf: Annotated[
        float | None,
        typer.Option(
            help="Contrast at LR's Nyquist frequency of the sensor that LR is made by, and SR compared with LR by; the "
            "model's own, or 0.3, if left out.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    border: Annotated[
        str,
        typer.Option(
            metavar="N|halo",
            help="HR pixels to leave out at each edge; halo: as far as the models may look beyond it.",
            rich_help_panel=MEASURING,
        ),
    ] = "8",
    tile: Annotated[
        int,
        typer.Option(min=32, help="SR pixels from one tile border of --sr to the next.", rich_help_panel=MEASURING),
    ] = 512,
    lpips: Annotated[
        Path | None,
        typer.Option(help="File of torchvision's AlexNet, for LPIPS.", rich_help_panel=MEASURING),
    ] = None,
    dists: Annotated[
        Path | None,
        typer.Option(help="File of torchvision's VGG16, for DISTS.", rich_help_panel=MEASURING),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Mean of so many samples of models that take noise, and their spread.", rich_help_panel=NETWORK
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Mean of the eight orientations, in about eight times the time.", rich_help_panel=NETWORK
        ),
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    trust_module: TrustModule = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier evaluation.", rich_help_panel=RESULT)
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure models on scenes beside bicubic interpolation and back-projection, or check a finished image.

    With HR: PSNR, SSIM, SAM, ERGAS, RMSE and bias by band, spectra and more; always whether SR is still the measurement
    that LR was, where it lies, and whether tiles show. --out writes a report with pictures.
    """
    with extra("train", "evaluating"):
        from geosr.evaluation import evaluate as run
        from geosr.evaluation.classes import read_names

    cases = _cases(scenes or [], model or [], pairs=pairs, sr=sr, lr=lr, hr=hr, root=root, part=part)
    with progress_bar("evaluating", quiet=quiet or as_json) as progress:
        found = run(
            cases, models=model or (), bands=split_names(bands), scale=scale, offset=offset, nodata=nodata,
            sensor=sensor, baseline=baseline, mask=split_names(mask) or (), mask_dilate=mask_dilate, mtf=mtf,
            border=_border(border), tile=tile, classes=classes, class_names=read_names(class_names), lpips=lpips,
            dists=dists, samples=samples, tta=tta, device=device, precision=precision, out=out, overwrite=overwrite,
            progress=progress, trust=trust_module or (),
        )  # fmt: skip
    if as_json:
        print(json.dumps(found.to_dict(), allow_nan=False))
    elif not quiet:
        _show(found)
        if out is not None:
            print(f"{out / 'report.html'}: the report; metrics.json and metrics.csv are beside it")


def _border(text: str) -> int | Literal["halo"]:
    """The border that was asked for."""
    if text == "halo":
        return "halo"
    if not text.isdecimal():
        raise UsageError(f"--border {text!r} is no number of HR pixels; give one such as 8, or halo")
    return int(text)


def _cases(
    scenes: Sequence[str],
    models: Sequence[str],
    *,
    pairs: tuple[Path, Path] | None,
    sr: Path | None,
    lr: Path | None,
    hr: Path | None,
    root: Path | None,
    part: str,
) -> "list[Case]":
    """What the user named, as files of scenes."""
    from geosr.evaluation import Case
    from geosr.evaluation.cases import name_of

    file = sr or hr or lr
    given = [what for what, there in (("SCENES", scenes), ("--pairs", pairs), ("--sr, --lr, --hr", file)) if there]
    if len(given) != 1:
        told = " and ".join(given) or "nothing"
        raise UsageError(f"{told} given; name HR scenes, or --pairs LR HR, or --sr sr.tif --lr lr.tif [--hr hr.tif]")
    if file is not None:
        named = [() if path is None else (str(path),) for path in (hr, lr, sr)]
        return [Case(name_of(file), hr=named[0], lr=named[1], sr=named[2])]
    if pairs is not None:
        if not any(_is_collection(path) for path in pairs):
            return [Case(name_of(pairs[1]), hr=(str(pairs[1]),), lr=(str(pairs[0]),))]
        return _found([], models, lr=pairs[0], hr=pairs[1])
    return [case for scene in scenes for case in _of_scene(scene, models, root=root, part=part)]


def _of_scene(scene: str, models: Sequence[str], *, root: Path | None, part: str) -> "list[Case]":
    """The scenes behind one name: of a store, a data set or a folder; else it is one itself."""
    from geosr.evaluation import Case
    from geosr.evaluation.cases import name_of

    if (Path(scene) / "manifest.json").is_file():
        return _of_store(Path(scene), part)
    if root is not None:
        with extra("train", "the catalogue"):
            from geosr.data.catalog import scenes_of
        return [
            Case(one.name, one.hr, one.lr, only=None if one.window is None else (one.window,))
            for one in scenes_of(scene, root)
        ]
    if _is_collection(Path(scene)):
        return _found([scene], models)
    if not os.path.exists(scene) and scene in _catalogue():
        raise UsageError(f"{scene} is a data set of the catalogue; say with --root where it was downloaded to")
    return [Case(name_of(scene), hr=(scene,))]


def _is_collection(path: Path) -> bool:
    """Whether a path is a folder of scenes, not one scene."""
    from geosr.io.source import zarr_store

    return path.is_dir() and path.suffix.lower() != ".safe" and not zarr_store(str(path))


def _catalogue() -> list[str]:
    try:
        from geosr.data.catalog import collections
    except ModuleNotFoundError:  # without what training needs there is no catalogue either
        return []
    return [entry.id for entry in collections()]


def _of_store(path: Path, part: str) -> "list[Case]":
    """The scenes of a store, of which the patches of one part count."""
    with extra("train", "reading a store"):
        from geosr.data.store import SPLITS, open_store
    from geosr.evaluation import Case

    if part not in (*SPLITS, "all"):
        raise UsageError(f"--part {part!r} is unknown; give test, val, train or all")
    store = open_store(path)
    found = []
    for number, scene in enumerate(store.scenes):
        only = None
        if part != "all":
            here = store.table.select((store.table.scene == number) & (store.table.split == SPLITS.index(part)))
            if not len(here):
                continue
            corners = zip(here.row.tolist(), here.column.tolist(), strict=True)
            only = tuple((slice(row, row + here.size), slice(column, column + here.size)) for row, column in corners)
        found.append(Case(scene.name, scene.hr, scene.lr, only=only))
    if not found:
        raise UsageError(f"{path} has no patch for {part}; give another --part, or prepare it with another --split")
    return found


def _found(
    named: Sequence[str], models: Sequence[str], *, lr: Path | None = None, hr: Path | None = None
) -> "list[Case]":
    """The scenes of folders."""
    with extra("train", "evaluating folders"):
        from geosr.data.sources import find_sources
    from geosr.evaluation import Case
    from geosr.models import find_weights

    bands = dict.fromkeys(band for model in models for band in find_weights(model).spec.bands)
    sources = find_sources(named, bands=tuple(bands), lr=lr, hr=hr)
    for name, reason in sources.skipped:
        log.info("%s is left out: %s", name, reason)
    return [Case(source.files.name, source.files.hr, source.files.lr) for source in sources.scenes]


def _show(found: "Evaluation") -> None:
    """Tables for the terminal."""
    from rich.console import Console
    from rich.table import Column, Table

    from geosr.evaluation.figures import FIGURES

    console = Console(soft_wrap=not sys.stdout.isatty())
    for table in found.tables:
        summary = table.summary()
        count = len(table.scenes)
        title = f"{f'mean of {count} scenes' if count > 1 else table.scenes[0]}: {table.setting}"
        columns = [Column(method, justify="right") for method in summary]
        grid = Table("", *columns, title=title, title_justify="left", box=None)
        for name in SHOWN:
            cells = [_told(row.get(name), FIGURES[name].digits) for row in summary.values()]
            if any(cells):
                grid.add_row(", ".join(filter(None, (FIGURES[name].label, FIGURES[name].unit))), *cells)
            if name == "psnr_gain" and any(between := [_between(row.get(name)) for row in summary.values()]):
                over = next(row[name].over for row in summary.values() if row[name].over)
                grid.add_row(f"  95 % over {over}", "", *between[1:])
        console.print(grid)
        console.print(f"{found.border[str(table.setting)]} HR pixels are left out at each edge", highlight=False)
    for note in found.notes:
        console.print(note, highlight=False)


def _told(value: "Interval | None", digits: int) -> str:
    return "" if value is None or math.isnan(value.mean) else f"{value.mean:z.{digits}f}"


def _between(value: "Interval | None") -> str:
    return "" if value is None or math.isnan(value.low) else f"{value.low:.2f} to {value.high:.2f}"
