"""A page about an evaluation: tables, spectra and pictures, in one HTML file that needs nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from geosr import __version__
from geosr.errors import OutputError
from geosr.evaluation.charts import calibration_chart, spectra_chart
from geosr.evaluation.figures import ALL, FIGURES, kind_of, label_of
from geosr.evaluation.intervals import Interval
from geosr.evaluation.methods import BICUBIC
from geosr.evaluation.parts import FREQUENCIES
from geosr.evaluation.pictures import EXTREMES, Extreme, Panel
from geosr.evaluation.results import Evaluation, Table
from geosr.page import drawing, picture, write_page

Rows = dict[str, tuple[str, Sequence[Interval | None]]]
"""Of a table, by label: the figure's name, and its value for each method."""

REPORT = "report.html"
FILES = ("metrics.json", "metrics.csv", REPORT)
"""What an evaluation writes."""
PICTURED = 24
"""Scenes whose pictures are in the report; the figures of all are."""

MEANINGS = {
    "psnr": "peak signal-to-noise ratio for a peak of reflectance 1, over all bands",
    "psnr_gain": "PSNR less that of bicubic interpolation of the same pixels",
    "ssim": "structural similarity, window of 11 pixels",
    "sam": "mean angle between the spectra of SR and HR",
    "ergas": "relative global error in synthesis, 0 is best",
    "rmse": "root of the mean squared error",
    "bias": "mean of SR less HR",
    "uqi": "universal image quality index",
    "scc": "correlation of the high pass, the detail alone",
    "lpips": "distance of AlexNet's features, red, green and blue",
    "dists": "distance of VGG16's features that forgives texture of the same kind",
    "ndvi_error": "mean absolute error of the vegetation index",
    "spectrum_gap": "largest difference of the power spectra up to 0.8 of Nyquist's frequency, a mean over bands",
    "improvement": "score from 0 to 1 of detail that is in HR, as opensr-test defines it; the three add up to 1",
    "omission": "score of detail of HR that is missing: SR looks like interpolated LR",
    "hallucination": "score of detail that is neither in HR nor in LR; by pixel, what the pictures call invented",
    "consistency": "mean absolute difference of SR, degraded again, and LR",
    "consistency_sam": "mean angle between the spectra of SR, degraded again, and LR",
    "shift": "how far SR lies from HR, or without HR from interpolated LR, by phase correlation",
    "seams": "energy across tile borders over that beside them: 1 says that none shows",
}


def prepare_folder(out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The folder that results go to, made if it is not there.

    Raises:
        OutputError: It holds an earlier evaluation, is no folder, or cannot be written to.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give the name of a folder")
    if not overwrite and (there := [name for name in FILES if (folder / name).exists()]):
        raise OutputError(f"{folder} holds {' '.join(there)} already; give --overwrite to replace them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"folder {folder} is not writable")
    return folder


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Path of ``report.html``, written in the folder."""
    title = "Evaluation: " + ", ".join(evaluation.models) if evaluation.models else "Evaluation of finished images"
    sections = [_facts(evaluation)]
    for table in evaluation.tables:
        sections += _sections(table, evaluation.border[str(table.setting)])
    sections.append(_meanings(evaluation))
    return write_page(folder / REPORT, title, sections)


def _facts(evaluation: Evaluation) -> str:
    told = [f"geosr {__version__}"]
    for name, facts in evaluation.models.items():
        more = f", mean of {facts['samples']} samples" if facts["samples"] > 1 else ""
        more += ", mean of 8 orientations" if facts["tta"] else ""
        told.append(f"{name}: SHA-256 {facts['sha256'][:12]}, {facts['device']}, {facts['precision']}{more}")
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in evaluation.notes)
    return f"<p>{escape('; '.join(told))}</p>{notes}"


def _sections(table: Table, border: int) -> list[str]:
    """Everything about the scenes of one setting."""
    count = len(table.scenes)
    head = f"<h2>{escape(str(table.setting))}</h2>"
    said = f"{count} scenes" if count > 1 else f"Scene {table.scenes[0]}"
    edge = f"{border} HR pixels at each edge and all invalid pixels are left out."
    return [
        head,
        f"<p>{escape(said)}; {edge}</p>",
        _means(table),
        _bands(table),
        _by_scene(table),
        _by_class(table),
        _spectra(table),
        _calibration(table),
        _pictures(table),
        _extremes(table),
    ]


def _means(table: Table) -> str:
    summary = table.summary()
    over = {interval.over for figures in summary.values() for interval in figures.values()} - {""}
    note = f"Small: 95 % intervals over {' and '.join(sorted(over))}." if over else "Too few scenes for intervals."
    if over == {"patches"}:
        note += " They tell how the scene varies, not how other scenes would come out."
    names = [name for name in FIGURES if name != "pixels" and any(name in figures for figures in summary.values())]
    rows: Rows = {name: (name, [figures.get(name) for figures in summary.values()]) for name in names}
    title = "Means over scenes" if len(table.scenes) > 1 else "Figures"
    return f"<h3>{title}</h3>{_table(table.methods, rows)}<p class='note'>{note}</p>"


def _bands(table: Table) -> str:
    summary = table.summary()
    names = [f"{kind}_{band}" for kind in ("rmse", "bias") for band in table.setting.bands]
    rows: Rows = {name: (name, [figures.get(name) for figures in summary.values()]) for name in names}
    body = _table(table.methods, rows, intervals=False)
    return f"<h3>By band</h3>{body}" if body else ""


def _by_scene(table: Table) -> str:
    if len(table.scenes) < 2:
        return ""
    parts = []
    for name in ("psnr_gain", "sam", "hallucination", "consistency"):
        rows: Rows = {}
        for result in table.results:
            values = [result.figures[method][ALL].get(name, math.nan) for method in table.methods]
            rows[result.scene] = (name, [Interval(value) for value in values])
        if body := _table(table.methods, rows):
            parts.append(f"<h3>{_titled(name)}, by scene</h3>{body}")
    return "".join(parts)


def _by_class(table: Table) -> str:
    parts = []
    for name in ("psnr_gain", "rmse", "sam", "pixels"):
        rows: Rows = {}
        for klass in table.classes:
            summary = table.summary(klass)
            rows[klass] = (name, [summary[method].get(name) for method in table.methods])
        if body := _table(table.methods, rows):
            parts.append(f"<h3>{_titled(name)}, by land cover</h3>{body}")
    return "".join(parts)


def _spectra(table: Table) -> str:
    curves = table.spectra()
    if not curves:
        return ""
    chart = drawing("Power spectra", spectra_chart(FREQUENCIES, curves, scale=table.setting.scale))
    return f"<h3>Power spectra, averaged over directions, bands and scenes</h3>{chart}"


def _calibration(table: Table) -> str:
    parts = []
    for method in table.methods:
        pairs = [result.samples[method] for result in table.results if method in result.samples]
        if pairs:
            expected, actual = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
            chart = calibration_chart(expected, actual, title=method)
            parts.append(drawing(f"Calibration of {method}", chart))
    return f"<h3>Expected and actual error</h3>{''.join(parts)}" if parts else ""


def _pictures(table: Table) -> str:
    shown = [result for result in table.results if result.pictures is not None]
    parts = []
    for result in shown[:PICTURED]:
        assert result.pictures is not None
        panel = result.pictures.most_detail
        where = f"rows from {panel.row}, columns from {panel.column}"
        gains = {name: classes[ALL].get("psnr_gain") for name, classes in result.figures.items()}
        parts.append(f"<h3>{escape(result.scene)}, where it has most detail ({where})</h3>{_grid(panel, gains)}")
    if len(shown) > PICTURED:
        parts.append(f"<p class='note'>{len(shown) - PICTURED} further scenes are not pictured.</p>")
    return "".join(parts)


def _grid(panel: Panel, gains: Mapping[str, float | None]) -> str:
    """LR, SR of each method and HR in a row; below, errors and invented detail."""

    def caption(name: str) -> str:
        gain = gains.get(name)
        return name if gain is None or name == BICUBIC else f"{name}, {gain:+.2f} dB"

    methods = list(panel.sr)
    rows = [
        [_figure("LR", panel.lr), *(_figure(caption(name), panel.sr[name]) for name in methods)],
        ["", *(_figure(f"error, white {panel.error_end:.3f}", panel.error[name]) for name in panel.error)],
        ["", *(_figure("invented, white 1", one) for one in panel.invented.values())],
    ]
    if panel.hr is not None:
        rows[0].append(_figure("HR", panel.hr))
    columns = len(rows[0])
    cells = "".join(
        cell or "<figure></figure>" for row in rows if len(row) > 1 for cell in [*row, *[""] * (columns - len(row))]
    )
    return f'<div class="grid" style="grid-template-columns:repeat({columns},minmax(130px,320px))">{cells}</div>'


def _extremes(table: Table) -> str:
    """The worst and the best patches of each model, over all scenes."""
    parts = []
    for method in table.methods[2:]:
        drawn = [result.pictures for result in table.results if result.pictures is not None]
        worst = [one for pictures in drawn for one in pictures.worst if one.method == method]
        best = [one for pictures in drawn for one in pictures.best if one.method == method]
        for title, chosen in (
            ("Worst", sorted(worst, key=lambda one: one.gain)[:EXTREMES]),
            ("Best", sorted(best, key=lambda one: -one.gain)[:EXTREMES]),
        ):
            if chosen:
                rows = "".join(map(_extreme, chosen))
                parts.append(f"<h3>{title} patches of {escape(method)}, by gain over bicubic</h3>{rows}")
    return "".join(parts)


def _extreme(one: Extreme) -> str:
    panel = one.panel
    cells = [_figure(f"LR: {one.scene}, row {panel.row}, column {panel.column}", panel.lr)]
    cells.append(_figure(BICUBIC, panel.sr[BICUBIC]))
    cells.append(_figure(f"{one.method}, {one.gain:+.2f} dB", panel.sr[one.method]))
    if panel.hr is not None:
        cells.append(_figure("HR", panel.hr))
        cells.append(_figure(f"error, white {panel.error_end:.3f}", panel.error[one.method]))
        cells.append(_figure("invented, white 1", panel.invented[one.method]))
    return f'<div class="grid" style="grid-template-columns:repeat(6,minmax(130px,210px))">{"".join(cells)}</div>'


def _figure(caption: str, image: bytes) -> str:
    return f"<figure>{picture(caption, image)}<figcaption>{escape(caption)}</figcaption></figure>"


def _titled(name: str) -> str:
    """A figure's label and unit for a heading."""
    label, unit = label_of(name), kind_of(name).unit
    return escape(f"{label[0].upper()}{label[1:]}{f', {unit}' if unit else ''}")


def _table(methods: Sequence[str], rows: Rows, *, intervals: bool = True) -> str:
    """A column for each method; of each row the best is bold. Rows without a number are left out, and maybe all."""
    lines = []
    for label, (name, values) in rows.items():
        if all(value is None or math.isnan(value.mean) for value in values):
            continue
        kind = kind_of(name)
        unit = f"<small>{escape(kind.unit)}</small>" if label == name and kind.unit else ""
        told = label_of(name) if label == name else label
        best = _best(values, kind.better, kind.digits)
        cells = [_cell(value, kind.digits, best=i in best, interval=intervals) for i, value in enumerate(values)]
        lines.append(f"<tr><td>{escape(told)}{unit}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(method)}</th>" for method in methods)
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>' if lines else ""


def _best(values: Sequence[Interval | None], better: str, digits: int) -> set[int]:
    """Positions of the best values, as far as the digits that are shown tell; none where all are alike."""
    if not better:
        return set()
    towards = {"higher": lambda v: -v, "lower": lambda v: v, "0": abs, "1": lambda v: abs(v - 1)}[better]
    distance = {
        i: round(towards(value.mean), digits)
        for i, value in enumerate(values)
        if value is not None and not math.isnan(value.mean)
    }
    if len(set(distance.values())) < 2:
        return set()
    return {i for i, one in distance.items() if one == min(distance.values())}


def _cell(value: Interval | None, digits: int, *, best: bool, interval: bool) -> str:
    if value is None or math.isnan(value.mean):
        return "<td></td>"
    between = ""
    if interval and value.high > value.low:
        between = f"<small>{value.low:z.{digits}f} to {value.high:z.{digits}f}</small>"
    return f"<td{' class=best' if best else ''}>{value.mean:z,.{digits}f}{between}</td>"


def _meanings(evaluation: Evaluation) -> str:
    had: Iterable[str] = {name for row in evaluation.rows for name in row.figures}
    lines = "".join(
        f"<li>{escape(label_of(name))}: {escape(meaning)}</li>" for name, meaning in MEANINGS.items() if name in had
    )
    return f"<details><summary>What the figures are</summary><ul>{lines}</ul></details>"
