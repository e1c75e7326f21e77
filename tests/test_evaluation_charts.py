import numpy as np
import pytest

from geosr.evaluation.charts import calibration, calibration_chart, spectra_chart
from geosr.page import to_svg


def test_errors_as_large_as_expected_lie_on_the_diagonal():
    generator = np.random.default_rng(0)
    expected = generator.uniform(0.001, 0.02, 100_000)
    said, found = calibration(expected, np.abs(generator.normal(0, expected * np.sqrt(np.pi / 2))))
    assert len(said) == 12
    assert found == pytest.approx(said, rel=0.05)
    _, twice = calibration(expected, 2 * expected)
    assert twice == pytest.approx([2 * one for one in said], rel=1e-6)


def test_charts_are_svg_that_says_what_it_shows():
    frequency = np.linspace(0.02, 0.5, 20)
    curves = {"HR": -frequency, "bicubic": -3 * frequency, "s2": -2 * frequency}
    drawn = to_svg(spectra_chart(frequency, curves, scale=2))
    assert drawn == to_svg(spectra_chart(frequency, curves, scale=2))
    for word in ("<svg", "Power over HR's, dB", "bicubic", "s2", "LR ends"):
        assert word in drawn
    assert "Power over HR" not in to_svg(spectra_chart(frequency, {"s2": -frequency}, scale=4))
    drawn = to_svg(calibration_chart(np.array([0.1, 0.2, np.nan]), np.array([0.1, 0.3, 0.1]), title="ours"))
    assert "expected, reflectance" in drawn
    assert "ours" in drawn
