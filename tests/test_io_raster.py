import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.errors import GridError
from geosr.io.raster import Raster
from geosr.radiometry import Radiometry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"array": np.zeros((4, 4), np.float32)}, r"must be float32 \(band, y, x\)"),
        ({"array": np.zeros((1, 4, 4))}, "array is float64"),
        ({"bands": ("B02", "B03")}, "array has 1 bands and 2 are named"),
        ({"valid": np.ones((4, 5), bool)}, r"valid has shape \(4, 5\)"),
        ({"geobox": GeoBox((5, 4), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")}, r"geobox has shape \(5, 4\)"),
    ],
)
def test_a_raster_holds_together(change, message):
    raster = Raster(
        np.zeros((1, 4, 4), np.float32),
        np.ones((4, 4), bool),
        GeoBox((4, 4), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633"),
        ("B02",),
        Radiometry(1e-4),
    )
    with pytest.raises(GridError, match=message):
        dataclasses.replace(raster, **change)


def test_whatever_is_not_valid_is_written_as_nodata():
    raster = Raster(
        np.full((2, 1, 2), 0.5, np.float32),
        np.array([[True, False]]),
        GeoBox((1, 2), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633"),
        ("B02", "B03"),
        Radiometry(1e-4, nodata=0),
    )
    assert raster.to_digital().tolist() == [[[5000, 0]], [[5000, 0]]]


def test_importing_costs_no_torch():
    code = "import sys, geosr.sensors, geosr.radiometry, geosr.io.scene; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
