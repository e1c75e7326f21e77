import numpy as np
import pytest
import torch
from affine import Affine
from evaluation_kit import BANDS, FINE, hr_file, lr_file, textured
from hypothesis import given
from hypothesis import strategies as st

from geosr.degrade import PSF, degrade
from geosr.errors import BandError, GridError, UsageError
from geosr.evaluation.cases import Case, OpenCases, Reading
from geosr.evaluation.pairs import ArrayPair, inner_window, lr_shape, pieces
from geosr.grid import size
from geosr.radiometry import Radiometry

WHOLE = (slice(0, 32), slice(0, 32))


@pytest.fixture
def pair_of():
    opened = []

    def make(case, *, bands=BANDS, scale=2, mtf=0.3):
        files = OpenCases(Reading())
        opened.append(files)
        return files.pair(case, bands=bands, scale=scale, mtf=mtf)

    yield make
    for files in opened:
        files.__exit__()


def test_windows_of_the_lr_image_are_those_of_the_whole_scene_degraded(make_raster, pair_of):
    dn = textured(65, 67)  # of which x2 leaves out a row and a column
    pair = pair_of(Case("one", hr=(str(hr_file(make_raster, dn)),)))
    assert lr_shape(pair) == (32, 33)
    assert tuple(pair.geobox.shape) == (64, 66)
    whole = degrade(torch.from_numpy(dn[:, :64, :66] * np.float32(1e-4))[None], PSF(2))[0].numpy()
    for window in ((slice(0, 32), slice(0, 33)), (slice(7, 19), slice(1, 33)), (slice(0, 1), slice(5, 6))):
        raster = pair.read(window, BANDS)
        np.testing.assert_allclose(raster.array, whole[:, *window], atol=1e-6)
        assert raster.geobox == pair.geobox[:, :].zoom_out(2)[window]


def test_an_lr_pixel_is_valid_where_nothing_invalid_is_under_its_kernel(make_raster, pair_of):
    dn = textured()
    dn[:, 30, 40] = 0
    pair = pair_of(Case("one", hr=(str(hr_file(make_raster, dn)),)))
    valid = pair.read(WHOLE, BANDS).valid
    psf = PSF(2)
    # Independent of the code: which LR pixels does a pulse at that place reach?
    pulse = torch.zeros(1, 1, 64, 64)
    pulse[..., 30, 40] = 1
    np.testing.assert_array_equal(valid, (degrade(pulse, psf)[0, 0] == 0).numpy())
    assert np.isnan(pair.read(WHOLE, BANDS).array[:, ~valid]).all()


def test_only_the_windows_that_count_are_valid(make_raster, pair_of):
    only = ((slice(0, 8), slice(0, 16)), (slice(40, 70), slice(60, 90)))
    pair = pair_of(Case("one", hr=(str(hr_file(make_raster)),), only=only))
    expected = np.zeros((64, 64), bool)
    expected[:8, :16] = expected[40:, 60:] = True
    np.testing.assert_array_equal(pair.read_hr((slice(0, 64), slice(0, 64))).valid, expected)
    np.testing.assert_array_equal(pair.read_hr((slice(4, 64), slice(10, 64))).valid, expected[4:, 10:])
    assert pair.read(WHOLE, BANDS).valid.all()  # a network may see all of LR


def test_files_are_cut_to_the_ground_that_all_of_them_cover(make_raster, pair_of):
    hr = textured(72, 68)
    moved = FINE * Affine.translation(-4, -6)  # HR begins 4 columns to the left and 6 rows above LR
    sr_dn = np.ascontiguousarray(hr[:, 10:70, 6:66])  # SR begins 2 columns and 4 rows inside LR
    files = Case(
        "one",
        hr=(str(hr_file(make_raster, hr, transform=moved)),),
        lr=(str(lr_file(make_raster, hr[:, 6:70, 4:68])),),
        sr=(str(hr_file(make_raster, sr_dn, name="sr.tif", transform=FINE * Affine.translation(2, 4))),),
    )
    pair = pair_of(files, bands=None, scale=None)
    assert (pair.scale, pair.bands, tuple(pair.geobox.shape)) == (2, BANDS, (60, 60))
    assert pair.geobox.affine == FINE * Affine.translation(2, 4)
    window = (slice(6, 30), slice(2, 20))
    np.testing.assert_array_equal(pair.read_hr(window).array, pair.read_sr(window).array)
    assert pair.read_hr(window).geobox == pair.geobox[window]
    assert pair.read_sr(window, suffix="_spread") is None


def test_what_does_not_fit_is_told_with_both_sides(make_raster, pair_of, tmp_path):
    hr = textured()
    fine, coarse = str(hr_file(make_raster, hr)), str(lr_file(make_raster, hr))
    with pytest.raises(GridError, match=r"x2 the pixels of LR lr\.tif, and x4 is wanted"):
        pair_of(Case("one", hr=(fine,), lr=(coarse,)), scale=4)
    off = str(hr_file(make_raster, hr, name="off.tif", transform=FINE * Affine.translation(0.3, 0)))
    with pytest.raises(GridError, match=r"SR off.tif does not sit on the grid of LR lr.tif[\s\S]*400003[\s\S]*400000"):
        pair_of(Case("one", lr=(coarse,), sr=(off,)), scale=None, bands=None)
    rgb = str(hr_file(make_raster, hr[:3], name="rgb.tif", descriptions=BANDS[:3]))
    with pytest.raises(BandError, match=r"lacks B08 of the bands B02 B03 B04 B08; it has B02 B03 B04$"):
        pair_of(Case("one", hr=(rgb,)))
    with pytest.raises(UsageError, match="an SR image alone"):
        Case("one", sr=(fine,))
    with pytest.raises(GridError, match="64 x 64 HR pixels, and a border of 26 on each side leaves less than 16 x 16"):
        inner_window(pair_of(Case("one", hr=(fine,))), 25)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 64), st.integers(0, 50))
def test_pieces_partition_a_window(height, width, side, start):
    window = (slice(start, start + height), slice(2 * start, 2 * start + width))
    counts = np.zeros((start + height, 2 * start + width), int)
    for piece in pieces(window, side=side):
        assert max(size(piece)) <= side
        counts[piece] += 1
    assert (counts[window] == 1).all()
    assert counts.sum() == height * width


def test_arrays_must_have_the_shapes_that_the_scale_asks_for():
    lr, hr = np.zeros((2, 8, 9), np.float32), np.zeros((2, 16, 18), np.float32)
    pair = ArrayPair("one", ("B02", "B03"), 2, lr, hr, {"ours": hr}, np.ones((16, 18), bool))
    assert pair.read_hr((slice(0, 4), slice(2, 6))).valid.all()
    assert pair.units == Radiometry(scale=1.0).units
    with pytest.raises(GridError, match=r"ours has shape \(2, 16, 16\); LR \(2, 8, 9\) at x2 needs \(2, 16, 18\)"):
        ArrayPair("one", ("B02", "B03"), 2, lr, hr, {"ours": hr[:, :, :16]})
    with pytest.raises(GridError, match=r"LR has shape \(2, 8, 9\); it must be \(band, y, x\) with bands B02$"):
        ArrayPair("one", ("B02",), 2, lr)
    with pytest.raises(GridError, match="the mask has shape"):
        ArrayPair("one", ("B02", "B03"), 2, lr, hr, valid=np.ones((8, 9), bool))
