"""A chart of curves over the steps of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
"""Step and value, in order."""
Phase = tuple[str, int, int]
"""Name, first step and end."""

BINS = 300
"""Points of a curve at most; each is the mean of those nearby."""
WARM_UP = "warm-up"
"""The phase that lies beside the others: a bar at the foot."""
TINTS = {
    "pretraining": "#e8eef7",
    "ramp": "#fdf1d8",
    "adversarial": "#f9e4e1",
    "content losses": "#eef5ea",
    WARM_UP: "#e59866",
}
"""Colour of each phase."""


def chart(
    title: str,
    curves: Mapping[str, Points],
    *,
    end: int,
    phases: Sequence[Phase] = (),
    log: bool = False,
    limits: tuple[float | None, float | None] = (None, None),
    references: Sequence[str] = (),
) -> "Figure":
    """The curves; values that are not finite are left out, and a chart without any says so.

    Args:
        title: What is drawn, and its unit.
        curves: Points of each curve by the name in the legend.
        end: Step at which the axis ends.
        phases: Shaded behind the curves, with their names.
        log: Whether the axis of the values is logarithmic; it is linear all the same where one is not above 0.
        limits: Ends of that axis; None fits it to the values.
        references: Names of curves that others are compared with, such as bicubic: dashed.
    """
    from matplotlib.figure import Figure

    shown = {name: _thinned([(x, y) for x, y in points if math.isfinite(y)], end) for name, points in curves.items()}
    values = [y for points in shown.values() for _, y in points]
    figure = Figure(figsize=(5.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", alpha=0.2)
    for name, start, stop in phases:
        if name == WARM_UP:
            axes.axvspan(start, stop, ymax=0.02, color=TINTS[name])
        else:
            axes.axvspan(start, stop, color=TINTS[name], zorder=0)
    for name, points in shown.items():
        style = {"color": "#777777", "linestyle": "--"} if name in references else {}
        marker = "." if len(points) == 1 else ""
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, linewidth=1.2, marker=marker, **style)  # type: ignore[arg-type]
    axes.set_xlim(0, max(end, 1))
    if not values:
        axes.annotate("no finite values", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=8)
        return figure
    axes.legend(fontsize=6, frameon=False)
    if log and min(values) > 0:
        axes.set_yscale("log")
    axes.set_ylim(*limits)
    return figure


def _thinned(points: Points, end: int) -> Points:
    """At most `BINS` points, each the mean of its neighbours."""
    if len(points) <= BINS:
        return points
    steps, values = np.array(points, dtype=float).T
    bins = np.minimum(steps * BINS // max(end, 1), BINS - 1).astype(int)
    _, place = np.unique(bins, return_inverse=True)
    count = np.bincount(place)
    means = (np.bincount(place, part) / count for part in (steps, values))
    return list(zip(*(mean.tolist() for mean in means), strict=True))
