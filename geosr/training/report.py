"""A page about a run: its curves, panels and final figures, in one HTML file that needs nothing else."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from time import monotonic
from typing import Any

from lightning.pytorch.callbacks import Callback

from geosr.config.load import load_config
from geosr.config.names import HIGHER_IS_BETTER
from geosr.config.schedule import Schedule
from geosr.config.schema import Config
from geosr.errors import ConfigError, OutputError
from geosr.page import drawing, picture, write_page
from geosr.training.curves import TINTS, Phase, chart
from geosr.training.folder import CONFIG, writing
from geosr.training.loggers import read_metrics
from geosr.training.panels import FOLDER

REPORT = "report.html"
SUMMARY = "summary.json"
"""How a run ended: ``status``, its ``reason`` where it did not finish, ``step``, ``steps`` planned, ``seconds``,
``weights``, the ``weights_step`` that they are of, and ``metrics`` by name."""
PAUSE = 60.0
"""Seconds at least from one report to the next while the run goes on."""
BICUBIC = "_bicubic"
"""End of the names of bicubic interpolation's figures."""


@dataclass(frozen=True)
class Chart:
    """Which values are drawn together, and how."""

    title: str
    curves: Mapping[str, str]
    """Name in the legend of each value that is logged."""
    log: bool = False
    limits: tuple[float | None, float | None] = (None, None)


def _quality(title: str, name: str, *, log: bool = False) -> Chart:
    """A figure of training and validation beside that of bicubic interpolation."""
    groups = {f"train_metrics/{name}": "training", f"val_metrics/{name}": "validation"}
    return Chart(title, groups | {f"val_metrics/{name}{BICUBIC}": "bicubic"}, log)


CHARTS = (
    Chart("Generator's loss", {"generator/content_loss": "content", "generator/total_loss": "total"}, log=True),
    Chart(
        "Adversarial losses",
        {
            "generator/adversarial_loss": "generator",
            "generator/feature_matching_loss": "feature matching",
            "discriminator/adversarial_loss": "discriminator",
            "validation/DISC_adversarial_loss": "discriminator, validation",
            "discriminator/r1_penalty": "R1 penalty",
        },
    ),
    Chart(
        "What the discriminator takes for real",
        {"discriminator/D(y)_prob": "HR: D(y)", "discriminator/D(G(x))_prob": "SR: D(G(x))"},
        limits=(0, 1),
    ),
    Chart("Weight of the adversarial loss", {"training/adv_loss_weight": "weight"}, limits=(0, None)),
    Chart("Learning rates", {"lr_generator": "generator", "lr_discriminator": "discriminator"}, limits=(0, None)),
    Chart("PSNR over bicubic, dB", {"val_metrics/psnr_gain": "validation"}, limits=(0, None)),
    _quality("PSNR, dB", "psnr"),
    _quality("SSIM", "ssim"),
    _quality("L1, reflectance", "l1", log=True),
    _quality("Charbonnier loss, reflectance", "charbonnier", log=True),
    _quality("Squared error, reflectance squared", "mse", log=True),
    _quality("Focal frequency loss, reflectance squared", "fft", log=True),
    _quality("Difference of the spectra, dB", "spectrum"),
    _quality("Error of the gradient, reflectance", "gradient", log=True),
    _quality("Spectral angle, rad", "sam", log=True),
    _quality("Error of spectral indices", "indices", log=True),
    _quality("Total variation of SR, reflectance", "tv"),
    _quality("Perceptual loss", "perceptual", log=True),
    _quality("Consistency with LR, reflectance", "consistency", log=True),
    Chart("Decay of the averaged weights", {"EMA/last_decay": "decay"}, limits=(None, 1)),
    Chart("Seconds of an update", {"step_time": "all", "data_time": "waiting for data"}, limits=(0, None)),
    Chart("Patches per second", {"patches_per_second": "patches"}, limits=(0, None)),
)


class Report(Callback):
    """Writes ``report.html`` after validations, at most once a minute, at the end, and when a run is broken off.

    Args:
        folder: The run's folder.
        clock: Seconds since whenever.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = monotonic) -> None:
        self.folder, self.clock = folder, clock
        self.next = -float("inf")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Write it, when the last is a minute old."""
        if trainer.is_global_zero and not trainer.sanity_checking and self.clock() >= self.next:
            write_report(self.folder, status="running")
            self.next = self.clock() + PAUSE

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Write it with all that was logged."""
        if trainer.is_global_zero:
            write_report(self.folder, status="finished")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write it with what there is, if it can be written: the exception matters more."""
        if trainer.is_global_zero:
            stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
            with suppress(OutputError):
                write_report(self.folder, status="interrupted" if stopped else "failed")


def write_report(folder: Path, *, status: str | None = None) -> Path:
    """Path of the report of the run in ``folder``, written from what is there: a run may have stopped anywhere.

    Args:
        folder: The run's folder.
        status: How the run is doing now. None takes what ``summary.json`` says, which may be about an earlier part.
    """
    rows, summary, config = read_metrics(folder), summary_of(folder), _config(folder)
    series = _series(rows)
    last = max((int(row["step"]) for row in rows), default=0)
    planned: int | None = summary.get("steps") or (config.Training.max_steps if config else None)
    end = planned or last + 1
    if status is not None:
        summary = {}
    phases = Schedule.of(config, end).phases() if config else []
    name = f"{config.Model.name}: {folder.resolve().name}" if config else folder.resolve().name
    sections = [
        _facts(folder, summary, status or "not finished", logged=min(last + 1, end) if rows else 0, planned=planned),
        _table(summary.get("metrics") or _last(series)),
        _curves(series, end=end, phases=phases),
        _pictures(folder),
        _settings(folder),
    ]
    with writing(folder / REPORT):
        return write_page(folder / REPORT, name, sections)


def summary_of(folder: Path) -> dict[str, Any]:
    """What ``summary.json`` in a run's folder says; nothing where there is none."""
    path = folder / SUMMARY
    try:
        return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
    except ValueError:  # a killed process did not finish it
        return {}


def _config(folder: Path) -> Config | None:
    """The run's settings; None where there are none that this version reads."""
    path = folder / CONFIG
    try:
        return load_config(path) if path.is_file() else None
    except ConfigError:
        return None


def _series(rows: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Steps and values of everything that was logged, in order; of values of one step, the last."""
    series: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                series.setdefault(name, {})[row["step"]] = value
    return {name: sorted(points.items()) for name, points in series.items()}


def _last(series: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Figures of the last validation."""
    return {name: points[-1][1] for name, points in series.items() if name.startswith("val_metrics/")}


def _facts(folder: Path, summary: Mapping[str, Any], status: str, *, logged: int, planned: int | None) -> str:
    """How the run is doing, and whether a loss was not finite."""
    facts = [
        f"Status: {summary.get('status', status)}",
        f"{summary.get('step', logged):,} {f'of {planned:,} ' if planned else ''}steps",
    ]
    if "seconds" in summary:
        minutes, seconds = divmod(round(summary["seconds"]), 60)
        facts.append(f"{minutes // 60} h {minutes % 60} min {seconds} s")
    if summary.get("weights"):
        facts.append(f"weights: {summary['weights']}")
    if summary.get("reason"):
        facts.append(str(summary["reason"]))
    bad = "".join(
        f'<p class="alarm">A loss was not finite: the batch is in {escape(path.name)}</p>'
        for path in sorted(folder.glob("bad_batch_*.pt"))
    )
    return f"<p>{escape('; '.join(facts))}</p>{bad}"


def _table(metrics: Mapping[str, float]) -> str:
    """Final figures, each beside that of bicubic interpolation."""
    values = {name.split("/")[-1]: value for name, value in metrics.items()}
    lines = []
    for name, value in values.items():
        if name.endswith(BICUBIC):
            continue
        theirs = values.get(name + BICUBIC)
        verdict = ""
        if theirs is not None and theirs != value:
            verdict = "better" if (value > theirs) == (name in HIGHER_IS_BETTER) else "worse"
        cells = [name, f"{value:.5g}", "" if theirs is None else f"{theirs:.5g}", verdict]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    if not lines:
        return "<p>There was no validation yet.</p>"
    head = "<tr><th>validation</th><th>SR</th><th>bicubic</th><th></th></tr>"
    return f"<h2>Figures beside bicubic</h2><table>{head}{''.join(lines)}</table>"


def _curves(series: Mapping[str, list[tuple[float, float]]], *, end: int, phases: Sequence[Phase]) -> str:
    drawn = []
    for one in CHARTS:
        curves = {label: series[name] for name, label in one.curves.items() if name in series}
        if curves and set(curves) != {"bicubic"}:
            figure = chart(
                one.title, curves, end=end, phases=phases, log=one.log, limits=one.limits, references=("bicubic",)
            )
            drawn.append(drawing(one.title, figure))
    told = " ".join(
        f'<span style="background:{TINTS[name]};padding:0 .5em">{name}: {start:,} to {stop:,}</span>'
        for name, start, stop in phases
    )
    return f"<h2>Curves over the steps</h2><p>{told}</p><div class='charts'>{''.join(drawn)}</div>" if drawn else ""


def _pictures(folder: Path) -> str:
    """The panels of the last and of the first validation."""
    steps: dict[str, list[Path]] = {}
    for path in sorted((folder / FOLDER).glob("step_*.png")):
        steps.setdefault(path.stem.rsplit("_", 1)[0], []).append(path)
    ordered = sorted(steps, key=lambda step: int(step.split("_")[1]))
    parts = []
    for title, step in (("Last validation", ordered[-1:]), ("First validation", ordered[:-1][:1])):
        for name in step:
            pictures = sorted(steps[name], key=lambda path: int(path.stem.rsplit("_", 1)[1]))
            images = "".join(picture(path.stem, path.read_bytes()) for path in pictures)
            parts.append(f"<h2>{title}, step {int(name.split('_')[1]):,}</h2>{images}")
    return "".join(parts)


def _settings(folder: Path) -> str:
    path = folder / CONFIG
    if not path.is_file():
        return ""
    return f"<details><summary>Configuration</summary><pre>{escape(path.read_text('utf-8'))}</pre></details>"
