"""The application that commands register with, and what runs it."""

import logging
import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer

from geosr import __version__
from geosr.errors import GeosrError, printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Super-resolve multispectral satellite imagery; the result is georeferenced and still a measurement.",
)


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


LISTS = ("--scales", "--split", "--bbox")
"""Options that take several numbers, with spaces or commas between them."""


def with_lists(arguments: Sequence[str]) -> list[str]:
    """The arguments with the numbers that follow an option of `LISTS` as one, which is all that Click can take.

    >>> with_lists(["prepare", "a.tif", "--scales", "1", "0.75", "--bbox", "-3", "50", "-2", "51", "--check"])
    ['prepare', 'a.tif', '--scales', '1,0.75', '--bbox', '-3,50,-2,51', '--check']
    """
    joined: list[str] = []
    inside = False
    for argument in arguments:
        if inside and joined[-1] not in LISTS and _is_number(argument):
            joined[-1] += f",{argument}"
        else:
            inside = argument in LISTS or (inside and joined[-1] in LISTS)
            joined.append(argument)
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Printable(logging.Formatter):
    """Messages without the control characters that names in files may have."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, as a terminal may show it."""
        return printable(super().format(record))


def main() -> None:
    """Run the command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    logging.basicConfig(level=logging.INFO)
    for handler in logging.getLogger().handlers:  # a run's own log says everything all the same
        handler.setFormatter(_Printable("%(message)s"))
        handler.setLevel(logging.WARNING if {"-q", "--quiet"} & set(sys.argv) else logging.INFO)
    for noisy in (
        "rasterio",
        "fsspec",
        "PIL",
        "lightning",
        "matplotlib",
        "onnxscript",
        "onnx_ir",
        "httpx",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app(with_lists(sys.argv[1:]))
    except GeosrError as error:
        if "--debug" in takewhile(lambda argument: argument.startswith("-"), sys.argv[1:]):  # not that of a command
            raise
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # Typer turns an interrupt into this code
            raise
        print("interrupted; the same command continues", file=sys.stderr)
        # A reader thread may sit in a long network read: nothing is lost by not waiting for it.
        sys.stderr.flush()
        os._exit(130)
