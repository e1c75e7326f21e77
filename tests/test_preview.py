import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from geosr.errors import OutputError
from geosr.io.scene import open_scene
from geosr.preview import compose, write_preview
from geosr.radiometry import Radiometry

BANDS = ("B02", "B03", "B04")
GAP, CAPTION = 6, 26


@pytest.fixture
def preview(make_raster, tmp_path):
    """A factory that draws the picture of an LR and an SR image, (band, y, x), and returns its pixels."""

    def draw(lr, sr, *, bands=BANDS, window=None, out="preview.png", **kwargs):
        kwargs = {"nodata": 0, "scale": 1e-4, "descriptions": bands} | kwargs
        scene = make_raster(lr, name="lr.tif", **kwargs)
        height, width = lr.shape[1:]
        window = window or (slice(0, height), slice(0, width))
        fine = make_raster(sr, name="sr.tif", **kwargs, transform=Affine(5, 0, 400_000, 0, -5, 5_000_000))
        with open_scene(scene) as opened, open_scene(fine) as sr:
            path = write_preview(opened, sr, tmp_path / out, bands=bands, window=window, radiometry=opened.radiometry)
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGB")
            return np.asarray(picture)

    return draw


def random_scene(height, width, bands=3):
    return np.random.default_rng(0).integers(500, 4000, (bands, height, width), dtype="uint16")


def repeated(lr, scale=2):
    return lr.repeat(scale, 1).repeat(scale, 2)


def panels(picture, shape):
    """The four panels of a picture of a scene of this shape: whole left and right, zoom left and right."""
    step = max(shape) / 640
    height, width = (max(round(n / step), 1) for n in shape)
    side = min(80, *shape) * 8
    column = max(width, side)
    assert picture.shape == (height + side + 2 * CAPTION + 3 * GAP, 2 * column + 3 * GAP, 3)
    second = 2 * GAP + height + 2 * CAPTION
    return [
        picture[top : top + h, left : left + w]
        for top, h, w in ((GAP + CAPTION, height, width), (second, side, side))
        for left in (GAP, 2 * GAP + column)
    ]


def test_what_a_mask_leaves_out_is_black_before_and_after(make_raster, tmp_path, monkeypatch):
    monkeypatch.setattr("geosr.preview.STRIP", 7)
    lr = random_scene(40, 40)
    valid = np.ones((40, 40), bool)
    valid[:, 30:] = False
    path = make_raster(lr, name="lr.tif", scale=1e-4, descriptions=BANDS)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    fine = make_raster(repeated(np.where(valid, lr, 0)), name="sr.tif", scale=1e-4, nodata=0, descriptions=BANDS)
    with open_scene(path) as scene, open_scene(fine) as sr:
        window = (slice(0, 40), slice(0, 40))
        write_preview(scene, sr, tmp_path / "p.png", bands=BANDS, window=window, radiometry=sr.radiometry)
    with Image.open(tmp_path / "p.png") as picture:
        before, after, *_ = panels(np.asarray(picture), (40, 40))
    for panel in (before, after):
        dark = (panel == 0).all(axis=(0, 2))
        assert dark[-150:].all()
        assert not dark[:450].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 137), (137, 1), (3, 2), (90, 120), (79, 81), (700, 650)])
def test_a_scene_of_any_size_gets_four_panels(preview, shape):
    lr = random_scene(*shape)
    for panel in panels(preview(lr, repeated(lr)), shape):
        assert panel.size
        assert (panel < 255).any(), "nothing was drawn here"


def test_the_input_is_left_and_the_result_is_right(preview):
    lr = np.full((3, 100, 100), 1000, "uint16")
    lr[:, 60:] = 3000
    sr = repeated(lr)
    sr[:, :, 160:] = 2000  # only the result has a grey stripe
    left, right, zoom_left, zoom_right = panels(preview(lr, sr), (100, 100))
    assert (left[:300] < 30).all()
    assert (left[420:] > 225).all()
    np.testing.assert_array_equal(left[:, 560], left[:, 100])
    for rows in (slice(0, 340), slice(430, None)):  # the edge between is softer in the input
        np.testing.assert_allclose(right[rows, :480].astype(int), left[rows, :480], atol=2)
    assert ((right[:, 540:] > 120) & (right[:, 540:] < 200)).all()
    assert zoom_left.std() > 50
    assert zoom_right.std() > 50


def test_both_panels_have_the_same_stretch(preview):
    """A result that is brighter looks brighter."""
    lr = random_scene(30, 30)
    left, right, *_ = panels(preview(lr, repeated(lr) + np.uint16(2000)), (30, 30))
    assert right.mean() > left.mean() + 50


def test_red_is_red(preview):
    lr = np.full((3, 90, 90), 1000, "uint16")
    lr[2, :45] = 3000  # B04
    left, right, *_ = panels(preview(lr, repeated(lr)), (90, 90))
    for panel in (left, right):
        assert (panel[50:250] == [255, 0, 0]).all()
        assert not panel[400:600].any()


@pytest.mark.parametrize("corner", [(0, 0), (0, 160), (160, 0), (160, 160), (77, 31)])
def test_the_zoom_shows_the_place_with_most_detail(preview, corner):
    lr = np.full((3, 240, 240), 1000, "uint16")
    row, column = corner
    checkers = np.indices((80, 80)).sum(0) // 8 % 2
    lr[:, row : row + 80, column : column + 80] += (2000 * checkers).astype("uint16")
    *_, zoom_left, zoom_right = panels(preview(lr, repeated(lr)), (240, 240))
    for zoom in (zoom_left, zoom_right):
        cells = zoom.reshape(10, 64, 10, 64, 3)[:, 24:40, :, 24:40].mean(axis=(1, 3, 4))
        # The place is found on an overview: it may be off by some pixels, never by a cell.
        assert min(np.abs(np.diff(cells, axis=0)).mean(), np.abs(np.diff(cells, axis=1)).mean()) > 100


def test_an_area_looks_as_a_scene_of_that_area_does(preview):
    lr = random_scene(60, 75)
    window = (slice(20, 50), slice(35, 65))
    part = lr[:, *window]
    got, expected = (
        panels(picture, (30, 30))
        for picture in (preview(lr, repeated(part), window=window), preview(part, repeated(part)))
    )
    for one, other in zip(got, expected, strict=True):  # bicubic interpolation sees beyond the area's border
        np.testing.assert_array_equal(one[64:-64, 64:-64], other[64:-64, 64:-64])


def test_a_scene_without_a_valid_pixel_is_black(preview):
    lr = np.zeros((3, 30, 30), "uint16")
    for panel in panels(preview(lr, repeated(lr)), (30, 30)):
        assert not panel.any()


def test_invalid_pixels_are_black_and_do_not_change_the_stretch(preview):
    lr = random_scene(30, 30)
    whole = panels(preview(lr, repeated(lr)), (30, 30))[1]
    lr[:, :5, :10] = 0
    part = panels(preview(lr, repeated(lr)), (30, 30))[1]
    assert not part[:80, :180].any()
    assert np.abs(part[200:].astype(int) - whole[200:]).max() <= 3


def test_a_flat_scene_can_be_drawn(preview):
    lr = np.full((3, 30, 30), 700, "uint16")
    assert np.unique(panels(preview(lr, repeated(lr)), (30, 30))[1]).size == 1


def test_bands_without_red_green_and_blue_are_grey(preview):
    lr = random_scene(30, 30, bands=2)
    left, right, *_ = panels(preview(lr, repeated(lr), bands=("B11", "B12")), (30, 30))
    for panel in (left, right):
        np.testing.assert_array_equal(panel[..., 0], panel[..., 1])
        np.testing.assert_array_equal(panel[..., 0], panel[..., 2])
    only = preview(lr[:1], repeated(lr[:1]), bands=("B11",))
    np.testing.assert_array_equal(panels(only, (30, 30))[0], left)


def test_reflectance_in_float_looks_as_its_digital_numbers_do(preview, make_raster, tmp_path):
    lr = random_scene(30, 30)
    expected = preview(lr, repeated(lr))
    fine = make_raster(repeated(lr * np.float32(1e-4)), name="float.tif", nodata=np.nan)
    encoding = Radiometry(1.0, nodata=np.nan, dtype="float32")
    with open_scene(tmp_path / "lr.tif") as scene, open_scene(fine, bands=BANDS) as sr:
        path = write_preview(
            scene, sr, tmp_path / "float.png", bands=BANDS, window=(slice(0, 30), slice(0, 30)), radiometry=encoding
        )
    with Image.open(path) as picture:
        assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 2


def test_a_file_that_says_nothing_is_read_as_its_scene_is(make_raster, tmp_path):
    """--scale 1 leaves no tag in the result."""
    lr = random_scene(9, 9) % 2 + 1
    scene, fine = make_raster(lr), make_raster(repeated(lr), name="sr.tif")
    with open_scene(scene, bands=BANDS, scale=1, nodata=0) as opened, open_scene(fine, bands=BANDS) as sr:
        assert write_preview(
            opened,
            sr,
            tmp_path / "a.png",
            bands=BANDS,
            window=(slice(0, 9), slice(0, 9)),
            radiometry=opened.radiometry,
        ).exists()


def test_a_scene_without_a_grid_on_earth_can_be_drawn(preview):
    lr = random_scene(20, 30)
    assert preview(lr, repeated(lr), crs=None).size


@pytest.mark.parametrize("out", ["preview", "preview.picture"])
def test_the_picture_is_png_whatever_its_name(preview, out):
    lr = random_scene(9, 9)
    assert preview(lr, repeated(lr), out=out).size


def test_a_picture_that_cannot_be_written_is_an_error(preview):
    lr = random_scene(9, 9)
    with pytest.raises(OutputError, match=r"preview .*deep.*png cannot be written: No such file or directory"):
        preview(lr, repeated(lr), out="deep/preview.png")


def test_rows_of_three_panels_are_put_side_by_side():
    colours = ("red", "lime", "blue")
    rows = [[Image.new("RGB", (20 + 10 * row, 12), colour) for colour in colours] for row in range(2)]
    picture = np.asarray(compose(rows, [colours] * 2))
    assert picture.shape == (2 * (12 + 26) + 3 * 6, 3 * 30 + 4 * 6, 3)
    for row, top in enumerate((6 + 26, 2 * (6 + 26) + 12)):
        for column in range(3):
            left = 6 + column * (30 + 6)
            panel = picture[top : top + 12, left : left + 20 + 10 * row]
            assert (panel == np.eye(3)[column] * 255).all()
