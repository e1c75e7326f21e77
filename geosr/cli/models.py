"""Commands about models: which there are, and what can be done with their weights."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from geosr.cli.app import app
from geosr.cli.options import Json

models = typer.Typer(help="Models: which there are, and what they cost.")
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
