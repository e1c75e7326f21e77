"""Charts of an evaluation: power spectra, and expected against actual error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HR = "HR"
"""The curve that the others are compared with."""
REFERENCES = {HR: ("black", "-"), "bicubic": ("#777777", "--"), "back-projection": ("#777777", ":")}
"""Colour and line of what is no model."""
BINS = 12
"""Points of the calibration plot, each of equally many pixels."""


def spectra_chart(frequency: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]], *, scale: int) -> Figure:
    """Power of each image over the frequency, and beside it how much stronger than HR's it is, in dB.

    Args:
        frequency: Cycles per pixel.
        curves: Power in dB by name; without ``HR`` the second chart is left out.
        scale: SR pixels per LR pixel: LR holds nothing beyond ``1 / scale`` of Nyquist's frequency.
    """
    from matplotlib.figure import Figure

    count = 2 if HR in curves else 1
    figure = Figure(figsize=(5.2 * count, 3.2), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    share = 2 * frequency
    for name, values in curves.items():
        colour, line = REFERENCES.get(name, (None, "-"))
        panels[0].plot(share, values, line, color=colour, linewidth=1.3, label=name)
        if count == 2 and name != HR:
            panels[1].plot(share, values - curves[HR], line, color=colour, linewidth=1.3, label=name)
    _dress(panels[0], "Power, dB of reflectance squared", scale)
    if count == 2:
        _dress(panels[1], "Power over HR's, dB", scale)
        panels[1].axhspan(-3, 3, color="#000000", alpha=0.05)
        panels[1].axhline(0, color="black", linewidth=0.8)
    panels[0].legend(fontsize=7, frameon=False)
    return figure


def calibration_chart(
    expected: NDArray[np.floating], actual: NDArray[np.floating], *, title: str = "Expected and actual error"
) -> Figure:
    """Mean absolute error of the pixels that were expected to have about equal error, in reflectance.

    The pixels are put in order of what was expected and divided into bins of equally many. Points on the diagonal are
    errors as large as was said; above it they are larger.

    Args:
        expected: Absolute error that a method expects of each pixel, on average.
        actual: Absolute error of the same pixels.
        title: What stands above.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    said, found = calibration(expected, actual)
    end = float(max([*said, *found, 1e-6])) * 1.05
    axes.plot((0, end), (0, end), color="#777777", linewidth=0.8, linestyle="--")
    axes.plot(said, found, marker="o", markersize=3.5, linewidth=1.2, color="tab:red")
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)
    axes.set_aspect("equal")
    axes.set_xlabel("expected, reflectance", fontsize=8)
    axes.set_ylabel("actual, reflectance", fontsize=8)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.tick_params(labelsize=7)
    return figure


def calibration(expected: NDArray[np.floating], actual: NDArray[np.floating]) -> tuple[list[float], list[float]]:
    """Mean expected and mean actual error of each bin.

    >>> calibration(np.array([0.25, 0.125]), np.array([0.5, 0.125]))
    ([0.125, 0.25], [0.125, 0.5])
    """
    known = np.isfinite(expected) & np.isfinite(actual)
    order = np.argsort(expected[known], kind="stable")
    bins = np.array_split(order, min(BINS, len(order)) or 1)
    said, found = (
        [float(values[known][one].mean(dtype=np.float64)) for one in bins if len(one)] for values in (expected, actual)
    )
    return said, found


def _dress(axes: Axes, title: str, scale: int) -> None:
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("frequency, share of Nyquist's", fontsize=8)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", alpha=0.2)
    axes.tick_params(labelsize=7)
    axes.axvline(1 / scale, color="#bbbbbb", linewidth=0.8)
    axes.annotate("LR ends", (1 / scale, 1), xycoords=("data", "axes fraction"), fontsize=6, ha="right", va="top",
                  rotation=90, color="#777777")  # fmt: skip
