import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.page import to_svg
from geosr.training.curves import BINS, chart

VALUES = st.floats(allow_nan=True, allow_infinity=True, width=32)


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_a_chart_shows_the_points_of_each_curve():
    points = [(0, 0.0), (50, 1.0), (100, 0.5)]
    line = lines_of(chart("A", {"a": points}, end=120))["a"]
    assert list(zip(*line.get_data(), strict=True)) == points
    assert line.axes.get_xlim() == (0, 120)
    assert line.axes.get_title(loc="left") == "A"


@pytest.mark.parametrize(("values", "scale"), [((0.001, 0.1), "log"), ((0.0, 1.0), "linear"), ((-1.0, 1.0), "linear")])
def test_an_axis_is_logarithmic_where_it_can_be(values, scale):
    figure = chart("", {"a": list(enumerate(values))}, end=1, log=True)
    assert figure.axes[0].get_yscale() == scale
    assert chart("", {"a": list(enumerate(values))}, end=1).axes[0].get_yscale() == "linear"


def test_an_axis_has_the_ends_that_are_asked_for():
    points = {"a": [(0, 0.4), (1, 0.6)]}
    assert chart("", points, end=1, limits=(0, 1)).axes[0].get_ylim() == (0, 1)
    low, high = chart("", points, end=1, limits=(0, None)).axes[0].get_ylim()
    assert low == 0
    assert high >= 0.6


def test_phases_are_shaded_from_their_first_step_to_their_end():
    phases = [("warm-up", 0, 10), ("pretraining", 0, 25), ("ramp", 25, 50), ("adversarial", 50, 100)]
    boxes = [
        patch.get_extents().transformed(patch.axes.transData.inverted())
        for patch in chart("", {"a": [(0, 1.0)]}, end=100, phases=phases).axes[0].patches
    ]
    assert [(round(box.x0), round(box.x1)) for box in boxes] == [(start, stop) for _, start, stop in phases]
    assert boxes[0].height < 0.1 * boxes[1].height


def test_references_are_dashed_and_curves_differ_in_colour():
    curves = {name: [(0, 1.0), (1, 2.0)] for name in ("a", "b", "bicubic")}
    lines = lines_of(chart("", curves, end=1, references=["bicubic"]))
    assert [lines[name].get_linestyle() for name in curves] == ["-", "-", "--"]
    assert len({line.get_color() for line in lines.values()}) == 3


@settings(max_examples=15)
@given(
    curves=st.dictionaries(st.sampled_from("abc"), st.lists(st.tuples(st.integers(0, 50), VALUES), max_size=9)),
    log=st.booleans(),
    end=st.integers(0, 60),
)
def test_any_values_give_a_picture_with_the_finite_ones(curves, log, end):
    curves = {name: sorted(points, key=lambda point: point[0]) for name, points in curves.items()}
    figure = chart("", curves, end=end, log=log, phases=[("pretraining", 0, max(end, 1))])
    finite = [sum(math.isfinite(value) for _, value in points) for points in curves.values()]
    assert [len(lines_of(figure)[name].get_xdata()) for name in curves] == finite
    words = "".join(ElementTree.fromstring(to_svg(figure)).itertext())
    assert ("no finite values" in words) == (sum(finite) == 0)


def test_the_title_and_the_legend_are_text_in_the_picture():
    words = "".join(ElementTree.fromstring(to_svg(chart("A & B", {"x<y": [(0, 1.0)]}, end=1))).itertext())
    assert "A & B" in words
    assert "x<y" in words


def test_a_long_curve_is_thinned_to_means():
    line = lines_of(chart("", {"a": [(step, step % 2) for step in range(100_000)]}, end=100_000))["a"]
    assert 0.9 * BINS <= len(line.get_xdata()) <= BINS
    assert line.get_ydata() == pytest.approx([0.5] * len(line.get_xdata()), abs=0.01)
