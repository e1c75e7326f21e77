"""Files of two resolutions are one scene: pixels of the coarser are repeated where they were measured."""

import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geosr.errors import GridError
from geosr.io.scene import open_scene


def raster(make_raster, name, shape, *, pixel, left=0, top=0, bands=("B02",)):
    """A file whose pixels are all different, on a grid of 10 m pixels that begins left and top of them from the origin.

    ``pixel`` counts 10 m pixels, too.
    """
    size = (len(bands), *shape)
    array = np.arange(1, 1 + np.prod(size)).reshape(size)
    transform = Affine(10 * pixel, 0, 400_000 + 10 * left, 0, -10 * pixel, 5_000_000 - 10 * top)
    return make_raster(
        array, name=name, dtype="uint16", nodata=0, scale=1e-4, offset=0, descriptions=bands, transform=transform
    ), array


def test_each_pixel_shows_the_coarse_one_that_it_lies_in(make_raster):
    fine, dn = raster(make_raster, "fine.tif", (9, 8), pixel=1, bands=("B02", "B03"))
    coarse, low = raster(make_raster, "coarse.tif", (4, 5), pixel=2, left=-1, top=2, bands=("B05",))
    for files in ([fine, coarse], [coarse, fine]):
        with open_scene(files) as scene:
            read = scene.read_digital(bands=["B03", "B05"])
            assert dict(zip(scene.bands, scene.steps, strict=True)) == {"B02": 1, "B03": 1, "B05": 2}
            # Columns from 1 (where a coarse pixel begins) to 7, rows from 2 to 8: whole coarse pixels in the fine file.
            assert scene.geobox.affine == Affine(10, 0, 400_010, 0, -10, 4_999_980)
            np.testing.assert_array_equal(read[0], dn[1, 2:8, 1:7])
            np.testing.assert_array_equal(read[1], low[0, :3, 1:4].repeat(2, 0).repeat(2, 1))
            window = (slice(1, 4), slice(3, 6))
            np.testing.assert_array_equal(scene.read_digital(window, ["B03", "B05"]), read[:, 1:4, 3:6])
            sent = pickle.loads(pickle.dumps(scene))
            np.testing.assert_array_equal(sent.read_digital(window, ["B03", "B05"]), read[:, 1:4, 3:6])
            sent.close()


@given(data=st.data())
def test_three_resolutions_share_whole_pixels_of_the_coarsest(data, tmp_path_factory):
    from geosr.io.grids import common_grid

    class File:
        def __init__(self, name, pixel):
            from odc.geo.geobox import GeoBox

            left, top = (data.draw(st.integers(-8, 8)) for _ in range(2))
            shape = tuple(data.draw(st.integers(12, 20)) for _ in range(2)) if pixel > 1 else (90, 80)
            self.name, self.pixel, self.left, self.top = name, pixel, left, top
            self.geobox = GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, -top), "EPSG:32633")

    files = [File(f"{pixel}", pixel) for pixel in (1, 2, 3)]
    try:
        places = common_grid(files)
    except GridError:
        starts = [(file.left, file.top) for file in files]
        shapes = [tuple(side * file.pixel for side in file.geobox.shape) for file in files]
        sizes = [
            min(s[axis] + n[1 - axis] for s, n in zip(starts, shapes, strict=True)) - max(s[axis] for s in starts)
            for axis in (0, 1)
        ]
        assert min(sizes) < 12  # nothing but the edges of what is shared lies beside whole pixels of both
        return
    for file, place in zip(files, places, strict=True):
        assert place.geobox == places[0].geobox
        assert place.step == file.pixel
        corner = file.geobox.affine * (place.column, place.row)
        assert corner == (place.geobox.affine.c, place.geobox.affine.f)
        assert all(side % place.step == 0 for side in place.geobox.shape)
        for start, side, held in zip((place.row, place.column), place.geobox.shape, file.geobox.shape, strict=True):
            assert 0 <= start <= start + side // place.step <= held


@pytest.mark.parametrize(
    ("shape", "place", "message"),
    [
        ((9, 8), {"pixel": 1, "left": 1}, r"has transform .*, or have pixels a whole number of times as large"),
        ((9, 7), {"pixel": 1}, "has shape"),
        ((4, 4), {"pixel": 2, "left": 0.5}, "does not sit on the grid"),
        ((4, 4), {"pixel": 1.5}, "does not sit on the grid"),
        ((4, 4), {"pixel": 2, "left": 40}, "share no LR pixel"),
    ],
)
def test_grids_that_do_not_fit_are_refused(make_raster, shape, place, message):
    fine, _ = raster(make_raster, "fine.tif", (9, 8), pixel=1)
    other, _ = raster(make_raster, "other.tif", shape, bands=("B05",), **place)
    with pytest.raises(GridError, match=message):
        open_scene([fine, other])


def test_a_coarse_pixel_without_data_is_none_in_all_its_pixels(make_raster):
    fine, _ = raster(make_raster, "fine.tif", (8, 8), pixel=1)
    low = np.arange(16).reshape(1, 4, 4)  # 0 is nodata
    coarse = make_raster(
        low, name="coarse.tif", dtype="uint16", nodata=0, scale=1e-4, offset=0, descriptions=["B05"],
        transform=Affine(20, 0, 400_000, 0, -20, 5_000_000),
    )  # fmt: skip
    with open_scene([fine, coarse]) as scene:
        valid = scene.read().valid
        assert not valid[:2, :2].any()
        assert valid.sum() == 60


def test_virginia_is_what_both_of_its_grids_cover(shared_data):
    files = [shared_data / f"s2/virginia_coast_{pixel}m.tif" for pixel in (10, 20)]
    with open_scene(files) as scene, open_scene(files[0]) as fine, open_scene(files[1]) as coarse:
        assert tuple(scene.geobox.shape) == (1946, 1932)
        assert scene.geobox.affine.c == 435_740  # the 20 m grid begins one 10 m pixel further west
        place = (slice(1000, 1010), slice(500, 510))
        read = scene.read_digital(place, ["B02", "B11"])
        there = fine.read_digital((place[0], slice(501, 511)), ["B02"])
        np.testing.assert_array_equal(read[:1], there)
        low = coarse.read_digital((slice(500, 505), slice(251, 256)), ["B11"])
        np.testing.assert_array_equal(read[1:], low.repeat(2, 1).repeat(2, 2))


HAIRS = [
    (Affine(10, 0, 400_000, 0, -10, 5_000_000), Affine(10, 0, 400_000 + 1e-7, 0, -10, 5_000_000)),
    (Affine(10, 0, 400_000, 0, -10, 5_000_000), Affine(10.000000000000002, 0, 400_000, 0, -10, 5_000_000)),
    (Affine(9e-5, 0, 16.1, 0, -9e-5, 48.2), Affine(9e-5 * (1 + 1e-12), 0, 16.1 + 1e-13, 0, -9e-5, 48.2 - 1e-12)),
    (Affine(10, 0, 400_000, 0, -10, 5_000_000), Affine(10, 0, 400_000.05, 0, -10, 5_000_000.09)),
]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("transforms", HAIRS)
def test_band_files_a_hair_apart_are_one_scene_on_the_grid_of_the_first(make_raster, transforms, order):
    crs = "EPSG:4326" if transforms[0].a < 1 else "EPSG:32633"
    dn = np.random.default_rng(0).integers(1, 9000, (2, 9, 8), dtype="uint16")
    files = [
        make_raster(one[None], name=f"{band}.tif", scale=1e-4, transform=transform, crs=crs)
        for band, one, transform in zip(("B02", "B03"), dn, transforms, strict=True)
    ]
    with open_scene([files[place] for place in order]) as scene:
        assert scene.geobox.affine == transforms[order[0]]
        np.testing.assert_array_equal(scene.read_digital(bands=["B02", "B03"]), dn)
        window = (slice(2, 7), slice(3, 8))
        np.testing.assert_array_equal(scene.read_digital(window, ["B03"]), dn[1:, 2:7, 3:8])
        assert scene.read(window).array.shape == (2, 5, 5)


def test_a_hundredth_of_a_pixel_is_the_limit(make_raster):
    fine, _ = raster(make_raster, "fine.tif", (9, 8), pixel=1)
    other, _ = raster(make_raster, "other.tif", (9, 8), pixel=1, left=0.02, bands=("B05",))
    with pytest.raises(GridError, match="has transform"):
        open_scene([fine, other])


def test_a_coarser_file_joins_two_that_lie_a_hair_apart(make_raster):
    first, dn = raster(make_raster, "first.tif", (8, 8), pixel=1)
    second, other = raster(make_raster, "second.tif", (8, 8), pixel=1, left=1e-5, bands=("B03",))
    coarse, low = raster(make_raster, "coarse.tif", (4, 4), pixel=2, bands=("B05",))
    with open_scene([coarse, first, second]) as scene:
        assert scene.geobox.affine == Affine(10, 0, 400_000, 0, -10, 5_000_000)
        np.testing.assert_array_equal(scene.read_digital(bands=["B02", "B03"]), np.concatenate([dn, other]))
        np.testing.assert_array_equal(scene.read_digital(bands=["B05"]), low.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize(
    "numbers",
    [
        (float("nan"), 10, 0, 5e6, 0, -10),
        (float("inf"), 10, 0, 5e6, 0, -10),
        (5e5, 1e300, 0, 5e6, 0, -1e300),
        (1e300, 10, 0, 5e6, 0, -10),
        (5e5, 0, 0, 5e6, 0, -10),
        (5e5, 0, 0, 5e6, 0, 0),
        (5e5, 10, 10, 5e6, 10, 10),
        (0, float("nan"), 0, 0, 0, float("nan")),
    ],
)
def test_a_geotransform_that_places_no_pixel_is_refused(make_raster, tmp_path, geosr, numbers):
    path = make_raster(np.ones((1, 4, 4), "uint16"), scale=1e-4)
    vrt = tmp_path / "wrong.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{', '.join(map(str, numbers))}</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>{path}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(GridError, match=r"wrong\.vrt lies on no grid: its geotransform is .* gdal_edit\.py"):
        open_scene(vrt)
    for arguments in (["info", vrt], ["predict", vrt, "--out", tmp_path / "sr.tif"]):
        code, _, said = geosr(*arguments)
        assert code == 1
        assert "lies on no grid" in said
