import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from PIL import Image

from geosr.errors import OutputError
from geosr.grid import finer
from geosr.io.raster import Raster
from geosr.preview import write_pair_preview
from geosr.radiometry import Radiometry

GAP, CAPTION = 6, 26


def rasters(bands=("B02", "B03", "B04"), height=20, width=30, scale=4):
    lr = np.random.default_rng(0).uniform(0.05, 0.4, (len(bands), height, width)).astype(np.float32)
    hr = lr.repeat(scale, 1).repeat(scale, 2)
    box = GeoBox.from_bbox((0, 0, width, height), "EPSG:32633", shape=(height, width))
    encoding = Radiometry(1e-4, nodata=0)
    return [
        Raster(array, np.ones(array.shape[1:], bool), grid, bands, encoding)
        for array, grid in ((hr, finer(box, scale)), (lr, box))
    ]


@pytest.mark.parametrize("bands", [("B02", "B03", "B04"), ("B08",), ("B04", "B03", "B02", "B08")])
def test_hr_and_lr_of_the_same_ground_lie_side_by_side(tmp_path, bands):
    hr, lr = rasters(bands)
    with Image.open(write_pair_preview(hr, lr, tmp_path / "pair.png")) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[1] > 1280
    top = slice(GAP + CAPTION, GAP + CAPTION + 400)
    left, right = pixels[top, GAP : GAP + 640], pixels[top, 2 * GAP + 640 : 2 * GAP + 1280]
    # this HR image is made of squares of the LR image, so both panels show the same
    assert np.abs(left.astype(int) - right).mean() < 2
    if bands == ("B08",):
        assert (left == left[..., :1]).all()


def test_red_is_red(tmp_path):
    hr, lr = rasters()
    lr.array[2, :, :15] = 0.9
    with Image.open(write_pair_preview(hr, lr, tmp_path / "pair.png")) as picture:
        pixels = np.asarray(picture)[GAP + CAPTION : GAP + CAPTION + 400, 2 * GAP + 640 :]
    assert pixels[:, 20:300, 0].mean() > 2 * pixels[:, 20:300, 2].mean()


def test_a_picture_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_pair_preview(*rasters(), tmp_path / "nowhere" / "pair.png")
