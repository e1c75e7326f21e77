"""Commands about models: which there are, and what can be done with their weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geosr.cli.app import app
from geosr.cli.options import (
    MODEL,
    Bands,
    Baseline,
    Json,
    Nodata,
    Offset,
    Scale,
    Sensor,
    TrustModule,
    split_names,
)
from geosr.errors import OutputError, UsageError

if TYPE_CHECKING:
    from geosr.models.foreign import Imported
    from geosr.models.weights import WeightsFile

models = typer.Typer(help="Models: which there are, what they cost, their files, and those of other programs.")
app.add_typer(models, name="models")


@models.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    architectures: Annotated[
        bool, typer.Option("--architectures", help="Networks that can be trained, and what they cost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models that come with geosr, with their measured quality."""
    if context.invoked_subcommand is not None:
        return
    if architectures:
        _architectures(as_json=as_json)
        return
    from geosr.models import shipped_models

    specs = [(weights.spec, weights.path.stat().st_size) for weights in shipped_models()]
    if as_json:
        print(json.dumps([spec.to_dict() | {"bytes": size} for spec, size in specs]))
        return
    from rich.console import Console
    from rich.table import Column, Table

    name, variant = Column("name", no_wrap=True), Column("variant", no_wrap=True)
    table = Table(name, variant, "bands", "scale", "made for", "size", "PSNR over bicubic", "licence")
    for spec, size in specs:
        gain = spec.quality.get("psnr_over_bicubic")
        table.add_row(
            spec.name,
            spec.variant,
            " ".join(spec.outputs),
            f"x{spec.scale * spec.guide_scale}",
            f"{spec.gsd:g} m" if spec.gsd else "any",
            f"{size / 1e6:.1f} MB",
            f"{gain:+.2f} dB" if gain is not None else "not measured",
            spec.licence,
        )
    Console().print(table)


def _architectures(*, as_json: bool) -> None:
    """Networks by the names that ``Generator.model_type`` may have, in the size of the other keys' defaults."""
    from geosr.models.costs import costs

    found = costs()
    if as_json:
        print(json.dumps([asdict(cost) for cost in found]))
        return
    from rich.console import Console
    from rich.table import Table

    shown = found[0]
    title = f"x{shown.scale}, {shown.bands} bands, {shown.channels} channels, {shown.blocks} blocks"
    table = Table("architecture", "parameters", "GFLOP per 128 x 128 input", "reach", "tiling", title=title)
    for cost in found:
        reach = "the image" if cost.reach is None else f"{cost.reach} pixels"
        table.add_row(cost.architecture, f"{cost.parameters:,}", f"{cost.gflop:.1f}", reach, cost.tiling)
    Console().print(table)


@models.command("import")
def import_weights(
    file: Annotated[
        Path,
        typer.Argument(help="Weights of opensr-srgan (.ckpt), of Real-ESRGAN or BasicSR (.pth), or for spandrel."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Weights file to write; NAME.safetensors if left out.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the opensr-srgan run, where FILE lacks it.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the bands in the network's order: B04,B03,B02.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; that of FILE if left out.")] = None,
    white: Annotated[
        float | None,
        typer.Option(help="Reflectance that the network sees as 1; 0.4 for natural-image networks if left out."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights; unknown if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Make a model of weights that another program trained."""
    from geosr.models import save_model
    from geosr.models.foreign import import_model

    target = out or Path(f"{name or file.stem}.safetensors")
    if target.suffix != ".safetensors":
        raise OutputError(f"{target} would not be found as a model; give a name that ends in .safetensors")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; give --overwrite to replace it, or another --out")
    if not target.parent.is_dir():
        raise OutputError(f"folder {target.parent} does not exist; make it first")
    imported = import_model(file, config=config, bands=split_names(bands), name=name, white=white, licence=licence)
    _say_imported(imported, save_model(imported.model, target), as_json=as_json)


def _say_imported(imported: "Imported", weights: "WeightsFile", *, as_json: bool) -> None:
    """Tell what was recognised, how open questions were decided, and where the model is."""
    spec = weights.spec
    parameters = sum(parameter.numel() for parameter in imported.model.network.parameters())
    if as_json:
        facts = {"path": str(weights.path), "recognised": imported.what, "averaged": imported.averaged}
        print(json.dumps(facts | {"parameters": parameters, "notes": imported.notes, "spec": spec.to_dict()}))
        return
    size = [f"{spec.arguments[key]} {key}" for key in ("channels", "blocks") if key in spec.arguments]
    averaged = ", averaged (EMA) weights" if imported.averaged else ""
    print(f"recognised: {imported.what}{averaged}")
    print(f"network:    {', '.join([spec.architecture, f'x{spec.scale}', *size, f'{parameters:,} parameters'])}")
    print(f"bands:      {' '.join(spec.bands)}; other bands of a scene are left out of its output")
    print(f"tiling:     {spec.tiling}")
    print(f"licence:    {spec.licence}")
    for note in imported.notes:
        print(f"note:       {note}")
    print(f"{weights.path}: {weights.path.stat().st_size / 1e6:.1f} MB; geosr predict --model {weights.path}")


@models.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL}.", show_default=False)], as_json: Json = False
) -> None:
    """Show what a model is, how good and how fast it was measured to be, what it learned from, how, and its hash."""
    from geosr.models import find_weights
    from geosr.models.measured import measured

    weights = find_weights(model)
    found = measured(weights)
    if as_json:
        facts = {"path": str(weights.path), "sha256": weights.sha256, "bytes": weights.path.stat().st_size}
        print(json.dumps(facts | weights.spec.to_dict() | ({} if found is None else {"measured": found})))
        return
    from rich.console import Console

    from geosr.cli.model_facts import describe

    console = Console(highlight=False, markup=False)
    for part in describe(weights, found):
        console.print(part)


@models.command()
def calibrate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a shipped model, .safetensors file, or folder of a run."),
    ],
    scenes: Annotated[
        list[str],
        typer.Argument(metavar="SCENE...", help="Scenes of the output's resolution that it did not learn from."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write.", show_default=False)],
    check: Annotated[
        list[str] | None, typer.Option(help="A further scene to compare expected errors with; may be repeated.")
    ] = None,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    sensor: Sensor = None,
    baseline: Baseline = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    trust_module: TrustModule = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Measure how large a model's errors are, for geosr predict --confidence.

    Scenes are degraded, super-resolved and compared. The file gets, for each band, the mean absolute error by how
    much detail the network adds.
    """
    from geosr.inference.calibrate import calibrate as measure

    claims = {"bands": split_names(bands), "scale": scale, "offset": offset, "nodata": nodata, "sensor": sensor}
    done = measure(
        model,
        scenes,
        out,
        check=check or (),
        claims=claims | {"baseline": baseline},
        device=device,
        overwrite=overwrite,
        trust=trust_module or (),
    )
    checks = {
        scene: {band: found._asdict() for band, found in of_bands.items()} for scene, of_bands in done.checks.items()
    }
    if as_json:
        print(json.dumps({"path": str(out), "calibration": done.calibration.to_dict(), "checks": checks}))
        return
    _show_checks(checks)
    scenes_told = ", ".join(done.calibration.scenes)
    print(f"{out}: expected errors measured on {done.calibration.pixels:,} pixels of {scenes_told}")


def _show_checks(checks: dict[str, dict[str, Any]]) -> None:
    """Errors that were expected and that occur, in tenths of the pixels by what was expected of them."""
    from rich.console import Console
    from rich.table import Column, Table

    tenths = [Column(str(tenth), justify="right", no_wrap=True) for tenth in range(1, 11)]
    for scene, of_bands in checks.items():
        title = f"{scene}: mean absolute error, 1e-4 reflectance, by tenths of the pixels"
        table = Table("band", "", *tenths, "rank corr.", title=title, box=None, title_justify="left")
        for band, found in of_bands.items():
            expected, actual = ([f"{1e4 * mean:.0f}" for mean in found[name]] for name in ("expected", "actual"))
            table.add_row(band, "expected", *expected, f"{found['rank_correlation']:.2f}")
            table.add_row("", "actual", *actual)
        Console().print(table)


@models.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL}.", show_default=False)],
    path: Annotated[
        Path | None, typer.Argument(help="File to write; named after the model if left out.", show_default=False)
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="ONNX (.onnx): the one for other programs, and for predict --model.")
    ] = False,
    torchscript: Annotated[
        bool, typer.Option("--torchscript", help="TorchScript (.ts), which PyTorch gives up; only for LibTorch of old.")
    ] = False,
    pt2: Annotated[
        bool, typer.Option("--pt2", help="Exported program (.pt2): PyTorch's own graph, for torch.export.load.")
    ] = False,
    trust_module: TrustModule = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Write the whole model as a graph for another runtime: geosr models export MODEL --onnx [PATH].

    The graph takes float32 reflectance (batch, band, y, x) of any size. Its output is compared with the model's before
    the file is there, and the model's facts are in its metadata.
    """
    wanted = [kind for kind, given in (("onnx", onnx), ("torchscript", torchscript), ("pt2", pt2)) if given]
    if len(wanted) != 1:
        raise UsageError(f"{len(wanted)} kinds of file are asked for; give one of --onnx, --torchscript and --pt2")
    from geosr.models import load_model
    from geosr.models.export import export_model

    done = export_model(load_model(model, trust=trust_module or ()), path, kind=wanted[0], overwrite=overwrite)
    if as_json:
        print(json.dumps(asdict(done), default=str))
        return
    print(
        f"{done.path}: {done.bytes / 1e6:.1f} MB; its output differs from the model's by at most {done.difference:.1e} "
        "reflectance"
    )


@models.command()
def bench(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help=f"{MODEL}; or an architecture, with fresh weights.", show_default=False
        ),
    ],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Precisions with commas between: auto, fp32, bf16, fp16. ONNX files run in fp32.")
    ] = "auto,fp32",
    side: Annotated[int, typer.Option("--size", min=8, help="Side of the image in input pixels.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each model; the median counts.")] = 5,
    trust_module: TrustModule = None,
    as_json: Json = False,
) -> None:
    """Measure how fast models are on this machine, in turns, and ONNX files next to PyTorch."""
    from geosr.inference.bench import bench as measure

    measured = measure(
        names,
        device=device,
        precisions=split_names(precision) or [],
        side=side,
        rounds=rounds,
        trust=trust_module or (),
    )
    if as_json:
        print(json.dumps(asdict(measured)))
        return
    from rich.console import Console
    from rich.table import Column, Table

    figures = [
        Column(name, justify="right", no_wrap=True) for name in ("pixels/s", "memory", "kFLOP/pixel", "parameters")
    ]
    title = f"one image of {side} x {side} input pixels; median of {rounds}, and peak memory"
    runtime, in_ = Column("runtime", no_wrap=True), Column("in", no_wrap=True)
    table = Table(Column("model", overflow="fold"), runtime, in_, *figures, title=title, box=None, title_justify="left")
    for timing in measured.timings:
        table.add_row(
            timing.name,
            f"{timing.runtime} {timing.device}",
            timing.precision,
            f"{timing.pixels_per_second:,.0f}",
            "-" if timing.memory is None else f"{timing.memory / 1e6:,.0f} MB",
            "-" if timing.flop_per_pixel is None else f"{timing.flop_per_pixel / 1e3:,.0f}",
            "-" if timing.parameters is None else f"{timing.parameters:,}",
        )
    Console().print(table)
    for comparison in measured.comparisons:
        print(comparison)
