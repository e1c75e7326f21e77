"""What a model says of itself and what was measured of it, as a person reads it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from statistics import fmean
from typing import TYPE_CHECKING, Any

from geosr.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from geosr.models.weights import WeightsFile

FIGURES = (("PSNR, dB", "psnr", "{:.2f}"), ("SAM, °", "sam", "{:.3f}"), ("SSIM", "ssim", "{:.4f}"))
CONSISTENCY = ("consistency, reflectance", "consistency", "{:.1e}")
INDENT = 2
MOST_LINES, MOST_LETTERS = 2000, 4000
"""Of what a file says, the lines of a section and the letters of a line that are shown."""


def describe(weights: "WeightsFile", measured: Mapping[str, Any] | None) -> "Iterator[RenderableType]":
    """Tables and lines for a terminal: facts, quality, what was measured, data and configuration."""
    spec = weights.spec
    told = dict(spec.provenance)
    config, scenes = told.pop("config", None), told.pop("scenes", None)
    facts = {"file": str(weights.path), "bytes": f"{weights.path.stat().st_size:,}", "sha256": weights.sha256}
    facts |= {
        name: _inline(value)
        for name, value in spec.to_dict().items()
        if name not in ("name", "provenance", "quality", "calibration")
    }
    yield _title(spec.name)
    yield _grid(facts | {name: _inline(value) for name, value in told.items()})
    if spec.quality:
        yield from _section("Validation at the end of training", _quality(spec.quality))
    if measured is not None:
        where = f"{measured['machine']}, torch {measured['torch']}, {measured['date']}"
        yield from _section("Scenes that it was not trained on", _held_out(measured["figures"]))
        yield from _section(f"Speed: {where}", _speed(measured))
        yield from _section("Data", _data(measured["data"]))
    elif scenes:
        yield from _section("Scenes", _lines(scenes))
    if config:
        yield from _section("Configuration", _lines(config))


def _section(title: str, body: "RenderableType") -> "Iterator[RenderableType]":
    yield _title(f"\n{title}")
    yield body


def _title(words: str) -> "RenderableType":
    from rich.text import Text

    return Text(words, style="bold")


def _grid(facts: Mapping[str, str]) -> "RenderableType":
    from rich.table import Column, Table

    table = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 1))
    for name, value in facts.items():
        table.add_row(_short(name.replace("_", " ")), _short(value))
    return table


def _quality(figures: Mapping[str, Any]) -> "RenderableType":
    """Figures of the weights' header, those of bicubic interpolation beside them."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    bicubic = {name: numbers.get(f"{name}_bicubic") for _, name, _ in (*FIGURES, CONSISTENCY)}
    if {"psnr", "psnr_over_bicubic"} <= numbers.keys():
        bicubic["psnr"] = numbers["psnr"] - numbers["psnr_over_bicubic"]
    shown = [each for each in (*FIGURES, CONSISTENCY) if each[1] in numbers]
    known = {end for _, name, _ in shown for end in (name, f"{name}_bicubic")} | {"psnr_over_bicubic"}
    rows = [
        (title, "-" if (other := bicubic[name]) is None else form.format(other), form.format(numbers[name]))
        for title, name, form in shown
    ]
    others = [(_short(name), "", _short(_inline(value))) for name, value in figures.items() if name not in known]
    return _table(("figure", "bicubic", "model"), rows + others)


def _held_out(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> "RenderableType":
    """Figures by scene, of bicubic interpolation and of the model; short, for terminals of 80 columns."""
    rows = []
    for scene, one in figures.items():
        bicubic, model = one["bicubic"], one["model"]
        rows.append(
            (
                PurePosixPath(scene).stem,
                f"{bicubic['psnr']:.2f}",
                f"{model['psnr'] - bicubic['psnr']:+.2f}",
                f"{bicubic['sam']:.2f} > {model['sam']:.2f}",
                f"{fmean(bicubic['rmse']):.4f} > {fmean(model['rmse']):.4f}",
                f"{model['consistency']:.1e}",
            )
        )
    return _table(("scene", "bicubic", "gain, dB", "SAM, °", "RMSE", "consistency"), rows)


def _speed(measured: Mapping[str, Any]) -> str:
    speed = measured["speed"]
    rate = f"{speed['pixels_per_second'] / 1e6:.2g} MP of input per second in {speed['precision']}"
    return f"{rate}, at a load of {speed['load']:g}; {measured['parameters']:,} parameters"


def _data(data: Sequence[Mapping[str, str]]) -> str:
    """The scenes, a line each where the terminal is wide enough."""
    return "\n".join(
        f"{one['path']} ({one['for']}, {one['level']}, date {one['date']}): {one['source']}; {one['licence']}"
        for one in data
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> "RenderableType":
    from rich.table import Column, Table

    columns = [Column(name, justify="right" if index else "left", overflow="fold") for index, name in enumerate(head)]
    table = Table(*columns, box=None, padding=(0, INDENT, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def _lines(value: Any) -> str:
    """A mapping as YAML shows it, lists of more than one line item by item; the first lines of a long one."""
    lines = list(islice(_yaml(value, 0), MOST_LINES + 1))
    more = ["... and more, which --json shows"] if len(lines) > MOST_LINES else []
    return "\n".join([*map(_short, lines[:MOST_LINES]), *more])


def _short(line: str) -> str:
    """A line for a terminal: without control characters of the file's, and of a length that a person reads."""
    line = printable(line[: MOST_LETTERS + 1])
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]} ..."


def _yaml(value: Any, depth: int) -> Iterator[str]:
    space = " " * INDENT * depth
    if not isinstance(value, Mapping):
        value = {"": value}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield f"{space}{name}:"
            yield from _yaml(item, depth + 1)
        elif isinstance(item, list) and len(_inline(item)) > 80:
            yield f"{space}{name}:"
            yield from (f"{space}{' ' * INDENT}- {_inline(one)}" for one in item)
        else:
            yield f"{space}{name}: {_inline(item)}"


def _inline(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_inline(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        words = all(isinstance(item, str) for item in value)
        return " ".join(value) if words else f"[{', '.join(map(_inline, value))}]"
    return "-" if value is None else str(value)
