import numpy as np
import pytest
import rasterio.windows
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box
from rasterio.warp import transform_geom

from geosr.errors import GridError
from geosr.grid import (
    BLOCK,
    TilePlan,
    aligned_core,
    coarsened,
    finer,
    flipped,
    grow,
    moved,
    pair_grids,
    relative,
    reversed_axes,
    scaled,
    size,
    upsample_mask,
    window_of_bounds,
)
from geosr.testing import assert_partition

UTM = GeoBox((40, 60), Affine(10, 0, 600_000, 0, -10, 5_000_000), "EPSG:32633")
ROTATED = GeoBox((12, 17), Affine(8, 6, 400_000, 6, -8, 5_000_000), "EPSG:32633")

shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))
scales = st.integers(1, 8)


@st.composite
def geoboxes(draw):
    """Grids of every attitude: shifted, turned, flipped, with pixels that are not square."""
    sides = st.floats(0.01, 1000).flatmap(lambda side: st.sampled_from([side, -side]))
    affine = (
        Affine.translation(draw(st.floats(-1e6, 1e6)), draw(st.floats(-1e7, 1e7)))
        * Affine.rotation(draw(st.sampled_from([0, 0, 90, 17.3, 211])))
        * Affine.scale(draw(sides), draw(sides))
    )
    return GeoBox(draw(shapes), affine, draw(st.sampled_from(["EPSG:32633", "EPSG:3857", None])))


@st.composite
def windows(draw, height=40, width=60):
    top, bottom = sorted(draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
    left, right = sorted(draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    return slice(top, bottom), slice(left, right)


@settings(deadline=None)
@given(geobox=geoboxes(), scale=scales)
def test_the_finer_grid_keeps_the_outline(geobox, scale):
    fine = finer(geobox, scale)
    height, width = geobox.shape
    assert tuple(fine.shape) == (height * scale, width * scale)
    assert fine.crs == geobox.crs
    extent = max(abs(v) for v in geobox.boundingbox)
    np.testing.assert_allclose(fine.boundingbox, geobox.boundingbox, rtol=0, atol=1e-14 * extent + 1e-300)
    corners = [(0, 0), (width, 0), (0, height), (width, height), (width / 2, height / 3)]
    for x, y in corners:  # not only the outline: every point keeps its place
        np.testing.assert_allclose(
            fine.affine * (x * scale, y * scale), geobox.affine * (x, y), rtol=0, atol=1e-13 * extent
        )


@settings(deadline=None)
@given(
    shape=shapes,
    scale=st.sampled_from([1, 2, 4, 8]),
    corner=st.tuples(st.integers(0, 999_999), st.integers(0, 9_999_999)),
)
def test_the_outline_of_a_utm_grid_is_kept_to_the_last_bit(shape, scale, corner):
    geobox = GeoBox(shape, Affine(10, 0, corner[0], 0, -10, corner[1]), "EPSG:32633")
    assert finer(geobox, scale).boundingbox == geobox.boundingbox


@settings(deadline=None)
@given(shape=shapes, core=st.integers(1, 80), halo=st.integers(0, 90))
def test_cores_partition_the_scene(shape, core, halo):
    plan = TilePlan(shape, core, halo)
    tiles = list(plan)
    assert_partition(plan)
    assert len(tiles) == len(plan) == plan.grid[0] * plan.grid[1]
    assert [tile.index for tile in tiles] == list(range(len(plan)))
    assert all(max(size(tile.core)) <= core for tile in tiles)


@st.composite
def parts(draw):
    """A scene, and a part of it."""
    height, width = draw(shapes)
    rows, columns = (
        sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in (height, width)
    )
    return (height, width), (slice(*rows), slice(*columns))


@settings(deadline=None)
@given(
    scene=parts(),
    core=st.integers(1, 80),
    halo=st.integers(0, 40),
    multiple_of=st.integers(1, 9),
    flips=st.tuples(st.booleans(), st.booleans()),
)
def test_what_is_read_for_a_part_lies_on_the_blocks_of_the_scene(scene, core, halo, multiple_of, flips):
    """A pixel's blocks are the same whatever is read: the oracle numbers the blocks of the scene."""
    shape, area = scene
    plan = TilePlan(shape, core, halo, multiple_of, area, flips)
    assert_partition(plan)
    assert plan.window == area
    blocks = np.add.outer(np.arange(shape[0]) // multiple_of * 100, np.arange(shape[1]) // multiple_of)
    blocks = flipped(blocks, flips)  # those of rows that are reversed begin at the last one
    for tile in plan:
        assert (plan.turned(blocks)[plan.mirrored(tile.read)] == plan.turned(blocks[tile.read])).all()
        read = blocks[tile.read]
        assert all(np.count_nonzero(read == block) == np.count_nonzero(blocks == block) for block in np.unique(read))
        assert set(np.unique(blocks[grow(tile.core, halo, shape)])) == set(np.unique(read))


@pytest.mark.parametrize(
    ("affine", "crs", "expected"),
    [
        (Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633", (False, False)),
        (Affine(10, 0, 400_000, 0, 10, 5_000_000), "EPSG:32633", (True, False)),
        (Affine(-10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633", (False, True)),
        (Affine(-1e-4, 0, 17, 0, 1e-4, 48), "EPSG:4326", (True, True)),
        (Affine(10, 0, 400_000, 0, 10, 5_000_000), None, (True, False)),
        (Affine.identity(), None, (False, False)),
        (Affine.translation(99.5, 99.5), None, (False, False)),
        (Affine.scale(0.25), None, (False, False)),
        (Affine(1, 0, 400_000, 0, 1, 5_000_000), "EPSG:32633", (True, False)),
    ],
)
def test_rows_from_the_south_are_reversed_and_counted_pixels_never_are(affine, crs, expected):
    assert reversed_axes(GeoBox((7, 5), affine, crs)) == expected


@settings(deadline=None)
@given(shape=shapes, core=st.integers(1, 40), halo=st.integers(0, 30))
def test_the_inner_window_finds_the_core_in_what_is_read(shape, core, halo):
    scene = np.arange(shape[0] * shape[1]).reshape(shape)
    for tile in TilePlan(shape, core, halo):
        read = scene[tile.read]
        assert read.shape == tile.shape
        np.testing.assert_array_equal(read[tile.inner], scene[tile.core])


@pytest.mark.parametrize(
    ("shape", "core", "halo", "multiple_of"),
    [((0, 5), 4, 1, 1), ((5, 5), 0, 1, 1), ((5, 5), 4, -1, 1), ((5, 5), 4, 1, 0)],
)
def test_a_plan_without_pixels_is_refused(shape, core, halo, multiple_of):
    with pytest.raises(GridError, match="must be positive"):
        TilePlan(shape, core, halo, multiple_of)


@settings(deadline=None)
@given(scale=st.integers(1, 16), wanted=st.integers(1, 5000))
def test_an_aligned_core_fills_whole_blocks_and_is_near_what_is_wanted(scale, wanted):
    core = aligned_core(scale, wanted)
    assert core >= 1
    assert core * scale % BLOCK == 0
    step = next(n for n in range(1, BLOCK + 1) if n * scale % BLOCK == 0)  # the smallest that fills blocks
    assert core == step or abs(core - wanted) <= step / 2


@settings(deadline=None)
@given(window=windows(), margin=st.integers(0, 50))
def test_a_grown_window_stays_in_the_scene(window, margin):
    mask = np.zeros((40, 60), bool)
    mask[window] = True
    padded = np.pad(mask, margin)  # the oracle grows without a border, then cuts
    rows, columns = np.nonzero(padded)
    padded[rows.min() - margin : rows.max() + margin + 1, columns.min() - margin : columns.max() + margin + 1] = True
    expected = padded[margin : margin + 40, margin : margin + 60]
    grown = np.zeros_like(mask)
    grown[grow(window, margin, (40, 60))] = True
    np.testing.assert_array_equal(grown, expected)


@settings(deadline=None)
@given(inner=windows(20, 30), outer=windows(20, 30))
def test_a_relative_window_shifts_and_keeps_its_size(inner, outer):
    moved = relative(inner, outer)
    assert size(moved) == size(inner)
    assert (moved[0].start + outer[0].start, moved[1].stop + outer[1].start) == (inner[0].start, inner[1].stop)


@settings(deadline=None)
@given(window=windows(20, 30), scale=scales)
def test_a_scaled_window_selects_the_same_part_of_a_finer_image(window, scale):
    image = np.arange(600).reshape(20, 30)
    fine = image.repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_array_equal(fine[scaled(window, scale)], image[window].repeat(scale, 0).repeat(scale, 1))


eighths = st.integers(-80, 560).map(lambda n: n / 8)


@settings(deadline=None)
@given(left=eighths, width=st.integers(1, 500), top=eighths, height=st.integers(1, 300))
def test_bounds_become_the_window_that_rasterio_finds(left, width, top, height):
    """Eighths of a pixel: often on an edge, exactly representable in metres."""
    west, east = 600_000 + 10 * left, 600_000 + 10 * (left + width / 8)
    north, south = 5_000_000 - 10 * top, 5_000_000 - 10 * (top + height / 8)
    exact = rasterio.windows.from_bounds(west, south, east, north, transform=UTM.affine)
    rows = max(np.floor(exact.row_off), 0), min(np.ceil(exact.row_off + exact.height), 40)
    columns = max(np.floor(exact.col_off), 0), min(np.ceil(exact.col_off + exact.width), 60)
    bounds = BoundingBox(west, south, east, north)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        with pytest.raises(GridError, match=r"lies outside the scene, which covers \(600000"):
            window_of_bounds(UTM, bounds)
    else:
        assert window_of_bounds(UTM, bounds) == (slice(*rows), slice(*columns))


@settings(deadline=None)
@given(window=windows())
def test_bounds_written_as_decimals_still_fall_on_pixel_edges(window):
    geobox = GeoBox((40, 60), Affine(1 / 9000, 0, 14.1, 0, -1 / 9000, 50.3), "EPSG:4326")
    (west, north), (east, south) = (
        geobox.affine * (c, r) for c, r in zip(*[(p.start, p.stop) for p in window[::-1]], strict=True)
    )
    assert window_of_bounds(geobox, BoundingBox(*(round(v, 11) for v in (west, south, east, north)))) == window


@settings(deadline=None)
@given(window=windows(12, 17), shrink=st.sampled_from([0, 0.25, 0.49]))
def test_bounds_on_a_rotated_grid_cover_every_pixel_that_they_touch(window, shrink):
    """The oracle intersects the polygon of each pixel with the area."""
    (top, bottom), (left, right) = ((part.start + shrink, part.stop - shrink) for part in window)
    west, south, east, north = Geometry(
        shapely.Polygon([ROTATED.affine * p for p in ((left, top), (right, top), (right, bottom), (left, bottom))]),
        None,
    ).boundingbox
    area = shapely.box(west, south, east, north)
    columns, rows = np.meshgrid(np.arange(17), np.arange(12))
    corners = np.stack(
        [np.stack(ROTATED.affine * (columns + dx, rows + dy), -1) for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1))], -2
    )
    touched = shapely.area(shapely.intersection(shapely.polygons(corners), area)) > 1e-4
    found = np.zeros((12, 17), bool)
    found[window_of_bounds(ROTATED, BoundingBox(west, south, east, north))] = True
    assert (found | ~touched).all(), "a pixel in the area is left out"
    rows, columns = np.nonzero(touched)
    beyond = found.copy()
    beyond[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = False
    # A corner of the area that lies beyond the scene may widen the window, which covers the area and not only pixels.
    inside = shapely.polygons([ROTATED.affine * p for p in ((0, 0), (17, 0), (17, 12), (0, 12))]).contains(area)
    assert not inside or not beyond.any(), "the window is larger than needed"


@settings(max_examples=30, deadline=None)
@given(window=windows(), crs=st.sampled_from(["EPSG:4326", "EPSG:3857", "EPSG:3035"]))
def test_a_geometry_in_another_crs_becomes_its_window(window, crs):
    (top, bottom), (left, right) = ((part.start + 0.3, part.stop - 0.3) for part in window)
    ring = [UTM.affine * p for p in ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))]
    elsewhere = transform_geom("EPSG:32633", crs, {"type": "Polygon", "coordinates": [ring]})
    assert window_of_bounds(UTM, Geometry(elsewhere, crs)) == window


def test_a_geometry_is_covered_by_its_bounds():
    corners = [(600_105, 4_999_950), (600_195, 4_999_985), (600_155, 4_999_875)]
    assert window_of_bounds(UTM, Geometry(shapely.Polygon(corners), "EPSG:32633")) == (slice(1, 13), slice(10, 20))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633"])
def test_a_geometry_far_away_lies_outside(crs):
    with pytest.raises(GridError, match="lies outside the scene"):
        window_of_bounds(UTM, box(-70, -40, -69, -39, crs))


def test_coordinates_that_are_no_degrees_lie_outside():
    """Metres in a GeoJSON file, which holds degrees, have no place on any grid."""
    with pytest.raises(GridError, match="outside the scene"):
        window_of_bounds(UTM, box(600_000, 4_999_000, 600_100, 5_000_000, "EPSG:4326"))


def test_a_geometry_without_coordinates_lies_outside():
    with pytest.raises(GridError, match="outside the scene"):
        window_of_bounds(UTM, Geometry(shapely.Polygon(), "EPSG:32633"))


def test_degrees_cannot_be_found_on_a_grid_without_crs():
    """Taken for the grid's own coordinates they would select some pixels, and the wrong ones."""
    geobox = GeoBox((100, 100), Affine.identity(), None)
    assert window_of_bounds(geobox, BoundingBox(3, 5, 10, 20)) == (slice(5, 20), slice(3, 10))
    with pytest.raises(GridError, match="no coordinate reference system"):
        window_of_bounds(geobox, box(3, 5, 10, 20, "EPSG:4326"))


def grid(shape, *, x=400_000.0, y=5_000_000.0, pixel=10.0, crs="EPSG:32633"):
    return GeoBox(shape, Affine(pixel, 0, x, 0, -pixel, y), crs)


@given(
    scale=st.integers(2, 5),
    row=st.integers(-40, 40),
    column=st.integers(-40, 40),
    hr=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    lr=st.tuples(st.integers(10, 30), st.integers(10, 30)),
)
def test_the_common_part_is_every_lr_pixel_that_hr_covers(scale, row, column, hr, lr):
    coarse = grid(lr, pixel=10.0 * scale)
    fine = grid(hr, x=400_000 + 10 * column, y=5_000_000 - 10 * row)
    covered = [
        [
            row <= i * scale
            and (i + 1) * scale <= row + hr[0]
            and column <= j * scale
            and (j + 1) * scale <= column + hr[1]
            for j in range(lr[1])
        ]
        for i in range(lr[0])
    ]
    if not np.any(covered):
        with pytest.raises(GridError, match="share no LR pixel"):
            pair_grids(fine, coarse)
        return
    pair = pair_grids(fine, coarse)
    assert pair.scale == scale
    rows, columns = np.nonzero(covered)
    assert pair.lr == (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    for part, coarse_part, start in zip(pair.hr, pair.lr, (row, column), strict=True):
        assert part == slice(coarse_part.start * scale - start, coarse_part.stop * scale - start)


@pytest.mark.parametrize(
    ("fine", "scale"),
    [
        (grid((40, 40), x=400_005), None),  # half a pixel beside
        (grid((40, 40), y=5_000_000.3), None),  # far less than a pixel, and still beside
        (grid((40, 40), pixel=8.5), None),
        (grid((40, 40), pixel=10.02), None),
        (grid((40, 40), pixel=20.0), None),  # not finer
        (grid((40, 40), crs="EPSG:32632"), None),
        (grid((40, 40)), 4),
        (GeoBox((40, 40), UTM.affine * Affine.rotation(1), "EPSG:32633"), None),
        (GeoBox((40, 40), Affine(10, 0, 4e5, 0, 10, 5e6 - 400), "EPSG:32633"), None),  # south up
    ],
)
def test_an_hr_grid_beside_the_lr_grid_is_refused_with_origins_and_remedy(fine, scale):
    coarse = grid((20, 20), pixel=20.0)
    with pytest.raises(GridError) as refused:
        pair_grids(fine, coarse, hr_name="fine.tif", lr_name="coarse.tif", scale=scale)
    message = str(refused.value)
    assert "fine.tif does not sit on the grid of coarse.tif" in message
    for affine in (fine.affine, coarse.affine):
        assert f"origin ({affine.c:.10g}, {affine.f:.10g}), pixel {affine.a:.10g}" in message
    assert f"-tr {20 / (scale or 2):g} {20 / (scale or 2):g} -te 400000 4999600 400400 5000000" in message
    assert message.endswith("-r cubic fine.tif aligned.tif")


def test_decimals_in_a_header_are_no_misfit():
    coarse = grid((500, 500), x=15.0, y=50.0, pixel=0.0001798561, crs="EPSG:4326")
    fine = grid((1000, 1000), x=15.000000000001, y=50.0, pixel=0.00008992805, crs="EPSG:4326")
    assert pair_grids(fine, coarse).scale == 2


@given(
    start=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    sides=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    scale=st.integers(1, 6),
)
def test_what_is_moved_or_scaled_comes_back(start, sides, scale):
    window = tuple(slice(first, first + side) for first, side in zip(start, sides, strict=True))
    origin = tuple(slice(first, None) for first in start)
    assert moved(relative(window, origin), *start) == window
    assert coarsened(scaled(window, scale), scale) == window


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_mask_of_the_finer_grid_repeats_each_pixel(scale):
    valid = np.random.default_rng(0).random((5, 7)) > 0.5
    np.testing.assert_array_equal(upsample_mask(valid, scale), np.kron(valid, np.ones((scale, scale), bool)))
