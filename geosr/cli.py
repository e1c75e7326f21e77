"""The ``geosr`` command. Every subcommand delegates; heavy imports wait until one runs."""

import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geosr import __version__
from geosr.errors import GeosrError, OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from geosr.io.raster import Scene

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Super-resolve multispectral satellite imagery; the result is georeferenced and still a measurement.",
)

Sources = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Raster, or the single-band files of one scene.", show_default=False),
]
Bands = Annotated[str | None, typer.Option(help="Names of the input's bands in file order: B02,B03,B04,B08.")]
Scale = Annotated[float | None, typer.Option(help="Reflectance per digital number, where the file does not say.")]
Offset = Annotated[float | None, typer.Option(help="Reflectance at digital number 0, where the file does not say.")]
Nodata = Annotated[float | None, typer.Option(help="Digital number of invalid pixels, where the file does not say.")]
Sensor = Annotated[
    str | None, typer.Option(help="sentinel-2-l2a, sentinel-2-l1c or reflectance: sets the three above.")
]
Baseline = Annotated[
    str | None, typer.Option(help="Sentinel-2 processing baseline, such as 05.09; the Nxxxx in the product's name.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"geosr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Super-resolve multispectral satellite imagery; the result is georeferenced and still a measurement."""


@app.command()
def predict(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="GeoTIFF to write (Cloud-Optimised).", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Name of a shipped model or a .safetensors file; the best fit if left out."),
    ] = None,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    aoi: Annotated[str | None, typer.Option(help="minx,miny,maxx,maxy in the scene's CRS, or a .geojson file.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 stores reflectance itself; the input's type if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles that the network takes at once.")] = 1,
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile in input pixels.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Do not continue a run that was stopped.")] = False,
    preview: Annotated[Path | None, typer.Option(help="PNG to write with a before/after picture.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Super-resolve a scene into a GeoTIFF.

    A run that was stopped continues when the same command is given again.
    """
    from geosr.inference import predict as run
    from geosr.inference.tiled import DEFAULT_TILE

    with _progress(quiet=quiet or as_json) as progress:
        done = run(
            sources, out, model=model, bands=_split(bands), scale=scale, offset=offset, nodata=nodata, sensor=sensor,
            baseline=baseline, aoi=aoi, dtype=dtype, device=device, precision=precision, batch_size=batch_size,
            tile=DEFAULT_TILE if tile is None else tile, overwrite=overwrite, restart=restart, preview=preview,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(done), default=str))
    elif not quiet:
        height, width = done.shape
        how = f"{done.model}, {done.device}, {done.precision}"
        print(f"{done.path}: {width} x {height} pixels, {done.bytes / 1e6:.1f} MB, {done.seconds:.1f} s ({how})")
        if done.preview:
            print(f"{done.preview}: before and after")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("demo-output"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier demo.")] = False,
    quiet: Quiet = False,
) -> None:
    """Super-resolve the scene that comes with geosr: 5 x 5 km of the Virginia coast."""
    from geosr.demo import demo_scene

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {out} cannot be made: {error.strerror}") from error
    predict(
        [str(demo_scene())],
        out / "virginia_coast_sr.tif",
        overwrite=overwrite,
        preview=out / "virginia_coast_sr.png",
        quiet=quiet,
    )


@app.command()
def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings on top of the config's.")
    ] = None,
    config: Annotated[
        str, typer.Option("--config", "-c", help="YAML file, or the name of a shipped config.")
    ] = "config_20m.yaml",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model and export its weights file."""
    try:
        from geosr.training import train as run
    except ModuleNotFoundError as error:
        raise GeosrError(f"training needs {error.name}: pip install 'geosr[train]'") from error

    path = run(config, overrides or [], quiet=quiet or as_json)
    print(json.dumps({"weights": str(path)}) if as_json else path)


@app.command()
def info(
    sources: Sources,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    as_json: Json = False,
) -> None:
    """Show a scene's bands, grid and radiometry, where each fact comes from, and which models fit."""
    from geosr.io.raster import open_scene

    with open_scene(
        sources, bands=_split(bands), scale=scale, offset=offset, nodata=nodata, sensor=sensor, baseline=baseline
    ) as scene:
        facts = _facts(scene)
    if as_json:
        print(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("fact", "value", "from", title=facts["name"], title_justify="left")
    for name, value in facts.items():
        if name not in ("name", "from"):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
            table.add_row(name, shown, facts["from"].get(name, ""))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that come with geosr, with their measured quality."""
    from geosr.models import shipped_models

    specs = [(weights.spec, weights.path.stat().st_size) for weights in shipped_models()]
    if as_json:
        print(json.dumps([spec.to_dict() | {"bytes": size} for spec, size in specs]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "bands", "scale", "made for", "size", "PSNR over bicubic", "licence")
    for spec, size in specs:
        gain = spec.quality.get("psnr_over_bicubic")
        table.add_row(
            spec.name,
            " ".join(spec.bands),
            f"x{spec.scale}",
            f"{spec.gsd:g} m" if spec.gsd else "any",
            f"{size / 1e6:.1f} MB",
            f"{gain:+.2f} dB" if gain is not None else "not measured",
            spec.licence,
        )
    Console().print(table)


def _facts(scene: "Scene") -> dict[str, Any]:
    """What is known of a scene, ready for JSON; ``from`` says who said it."""
    from geosr.inference.choose import fitting_models
    from geosr.io.raster import resolution_m

    radiometry: dict[str, Any]
    try:
        encoding = scene.radiometry
        radiometry = {
            "scale": encoding.scale,
            "offset": encoding.offset,
            "nodata": encoding.nodata,
            "saturated": encoding.saturated,
        }
        if encoding.nodata is not None and not math.isfinite(encoding.nodata):
            radiometry["nodata"] = str(encoding.nodata)  # JSON has no NaN
    except GeosrError as error:
        radiometry = {"radiometry": str(error)}
    pixel = resolution_m(scene.geobox)
    return {
        "name": scene.name,
        "bands": list(scene.bands),
        "size": f"{scene.geobox.shape[1]} x {scene.geobox.shape[0]}",
        "crs": None if scene.geobox.crs is None else str(scene.geobox.crs),
        "pixel": None if pixel is None else f"{pixel:.6g} m",
        "bounds": list(scene.geobox.boundingbox),
        "dtype": scene.dtype,
        **radiometry,
        "models": [weights.spec.name for weights in fitting_models(scene)],
        "from": scene.facts,
    }


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.replace(",", " ").split()]


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """A progress callback: a bar with throughput and time left on a terminal, a line every ten percent elsewhere."""
    if quiet:
        yield None
        return
    console = _console()
    if not console.is_terminal:
        shown = -1

        def lines(_: int, done: int, total: int) -> None:
            nonlocal shown
            if (tenth := 10 * done // total) > shown:
                shown = tenth
                console.print(f"{100 * done // total:3d} %", highlight=False)

        yield lines
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(TextColumn("super-resolving"), *columns, console=console) as bar:
        task = bar.add_task("", total=None, rate="")

        def advance(now: int, done: int, total: int) -> None:
            if bar.tasks[0].total is None:  # the first call tells what an earlier run did
                bar.reset(task, total=total, completed=done, rate="")
                return
            speed = bar.tasks[0].speed
            bar.update(task, advance=now, rate=f"{speed / 1e6:.2f} Mpx/s" if speed else "")

        yield advance


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def main() -> None:
    """Run the command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    logging.basicConfig(
        level=logging.WARNING if {"-q", "--quiet"} & set(sys.argv) else logging.INFO, format="%(message)s"
    )
    for noisy in ("rasterio", "fsspec", "PIL", "lightning", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except GeosrError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # Typer turns an interrupt into this code
            raise
        print("interrupted; the same command continues", file=sys.stderr)
        # A reader thread may sit in a long network read: nothing is lost by not waiting for it.
        sys.stderr.flush()
        os._exit(130)


if __name__ == "__main__":
    main()
