"""What several commands share: options, and how progress is shown."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from geosr.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from geosr.inference.executors import Executor

Progress = Callable[[int, int, int], None]
"""Called with pixels done now, done in all and to be done."""

MODEL = "Name of a shipped model, .safetensors or .onnx file, folder of a run, or hf://owner/repo/file"
"""What a model may be named by."""

INPUT = "Raster, files of one scene or their folder, .SAFE product or its zip file, STAC item, or Zarr store."
"""What a scene may be."""

READING, NETWORK, RUNNING, RESULT = "What the input is", "What the network does", "Who does it", "What comes out"
"""Groups of options in the help."""

Sources = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help=INPUT, show_default=False),
]
Bands = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=READING,
        help="Names of a file's bands in file order: B02,B03,B04,B08; of products and items, which to take.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(rich_help_panel=READING, help="Reflectance per digital number, where the file does not say."),
]
Offset = Annotated[
    float | None,
    typer.Option(rich_help_panel=READING, help="Reflectance at digital number 0, where the file does not say."),
]
Nodata = Annotated[
    float | None,
    typer.Option(rich_help_panel=READING, help="Digital number of invalid pixels, where the file does not say."),
]
Sensor = Annotated[
    str | None,
    typer.Option(rich_help_panel=READING, help="sentinel-2-l2a, sentinel-2-l1c or reflectance: sets the three above."),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=READING, help="Sentinel-2 processing baseline, such as 05.09; the Nxxxx in the product's name."
    ),
]
Item = Annotated[
    str | None,
    typer.Option(rich_help_panel=READING, metavar="COLLECTION/ID", help="Item of the STAC API that INPUT is."),
]
Resolution = Annotated[
    int | None,
    typer.Option(rich_help_panel=READING, min=1, help="Metres, where INPUT has images of several resolutions."),
]
Mask = Annotated[
    str | None,
    typer.Option(rich_help_panel=READING, help="Pixels to leave out: clouds,defects,snow, as masks beside INPUT say."),
]
MaskDilate = Annotated[
    float,
    typer.Option(rich_help_panel=READING, min=0, metavar="METRES", help="Leave out what is nearer to masked pixels."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=RUNNING,
        min=1,
        help="Processes of this machine to share the work, a GPU each where there are several.",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RUNNING,
        metavar="WHERE",
        help="Dask cluster to share the work: local, tcp://host:8786 or scheduler-file.json.",
    ),
]
TrustModule = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-module",
        metavar="NAME",
        help="Module or package that a model's class is imported from, whose code you trust; may be repeated.",
        rich_help_panel=NETWORK,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=NETWORK)]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.", rich_help_panel=NETWORK)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


def split_names(names: str | None) -> list[str] | None:
    """Names between commas or spaces."""
    return None if names is None else [name.strip() for name in names.replace(",", " ").split()]


def executor(workers: int | None, dask: str | None) -> "Executor | None":
    """Who does the work: this process (None), several, or a Dask cluster.

    Raises:
        UsageError: Workers are wanted of a cluster that has its own.
    """
    if dask is not None:
        if workers is not None and dask != "local":
            raise UsageError(f"--workers {workers} makes no workers on {dask}: start them there, and leave it out")
        from geosr.inference.dask import Dask

        cluster = Dask(dask, workers=workers)
        logging.getLogger("distributed").setLevel(logging.WARNING)  # importing it made it loud
        return cluster
    if workers is None:
        return None
    from geosr.inference.executors import Processes

    return Processes(workers)


def read_variant(*, fast: bool, detail: bool) -> str | None:
    """The variant of the shipped models that the options ask for, if any.

    Raises:
        UsageError: Both do.
    """
    if fast and detail:
        raise UsageError("--fast and --detail are two models; give one of them")
    return "fast" if fast else "detail" if detail else None


def read_share(text: str) -> tuple[int, int]:
    """The numbers of a share, such as ``3/16``.

    Raises:
        UsageError: It is none.

    >>> read_share("3/16")
    (3, 16)
    """
    if not (match := re.fullmatch(r"(\d+)/(\d+)", text)):
        raise UsageError(f"--shard {text!r} is no share; write 3/16 for the third of sixteen")
    return int(match[1]), int(match[2])


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A progress callback: a bar with throughput and time left on a terminal, a line every ten percent elsewhere."""
    if quiet:
        yield None
        return
    console = stderr_console()
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
    with Progress(TextColumn(what), *columns, console=console) as bar:
        task = bar.add_task("", total=None, rate="")

        def advance(now: int, done: int, total: int) -> None:
            if bar.tasks[0].total is None:  # the first call tells what an earlier run did
                bar.reset(task, total=total, completed=done, rate="")
                return
            speed = bar.tasks[0].speed
            bar.update(task, advance=now, rate=f"{speed / 1e6:.2f} Mpx/s" if speed else "")

        yield advance


def stderr_console() -> "Console":
    """A console on standard error, which leaves standard output to results."""
    from rich.console import Console

    return Console(stderr=True)
