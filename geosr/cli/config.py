"""Commands that show, check and compare configurations."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from geosr.cli.app import app
from geosr.cli.options import Json
from geosr.errors import ConfigError, extra

config = typer.Typer(no_args_is_help=True, help="Configurations of training runs: show, validate, compare.")
app.add_typer(config, name="config")

INVALID = 1
"""Exit code for a configuration that does not hold."""
DEFAULT = "config_20m.yaml"
"""What `geosr train` takes as well."""

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings on top of the config's.")
]


@config.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="[CONFIG]", help="YAML file, or the name of a shipped config.")
    ] = DEFAULT,
    overrides: Overrides = None,
    docs: Annotated[bool, typer.Option("--docs", help="Say what each setting means.")] = False,
    as_json: Json = False,
) -> None:
    """Show all settings of a configuration, defaults included, as YAML."""
    if "=" in name and not Path(name).is_file():  # no configuration is named, only settings
        name, overrides = DEFAULT, [name, *(overrides or [])]
    resolved = _load(name, overrides or [])
    if as_json:
        print(json.dumps(resolved.to_dict()))
        return
    from geosr.config.show import to_yaml

    print(to_yaml(resolved, docs=docs), end="")


@config.command()
def validate(
    name: Annotated[
        str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped config.", show_default=False)
    ],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a configuration: exit code 0 it holds, 1 it does not, with what is wrong."""
    try:
        _load(name, overrides or [])
    except ConfigError as error:
        if as_json:
            print(json.dumps({"valid": False, "errors": str(error).splitlines()}))
        else:
            print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(INVALID) from error
    print(json.dumps({"valid": True, "errors": []}) if as_json else f"{name} holds")


@config.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="Config: a file or a shipped name.", show_default=False)],
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="Another; the defaults if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show the settings in which two configurations differ."""
    from geosr.config import Config
    from geosr.config.show import differences, in_yaml

    found = differences(_load(first, []), Config() if second is None else _load(second, []))
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("setting", box=None)
    for name in (first, second or "default"):
        table.add_column(escape(name), overflow="fold")
    for key, values in found.items():
        table.add_row(key, *(escape(in_yaml(value)) for value in values))
    Console().print(table)


def _load(name: str, overrides: list[str]) -> Any:
    """The configuration; needs the extra ``train``."""
    with extra("train", "a configuration"):
        from geosr.config import load_config

        return load_config(name, overrides)
