import warnings
from collections import Counter

import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from torchgeo.datasets import random_bbox_assignment, random_bbox_splitting, roi_split
from torchgeo.samplers import GridGeoSampler, RandomGeoSampler

from geosr.data.datasets import GeoPairDataset, SceneDataset
from geosr.data.index import index_crs, pixel_size, window_polygon
from geosr.data.patches import SceneFiles
from geosr.data.splits import BlockSplit
from geosr.errors import GridError
from geosr.footprint import GLOBAL, in_pixels, located

pytestmark = pytest.mark.filterwarnings("ignore:Use torchgeo:DeprecationWarning")
SIDE = 48
PLACES = {
    "virginia": ("EPSG:32618", -76.0, 37.4),
    "cape": ("EPSG:32734", 19.9, -32.8),
    "fiji west": ("EPSG:32760", 179.999, -17.0),
    "fiji east": ("EPSG:32701", -179.999, -17.0),
    "svalbard": ("EPSG:32633", 15.0, 79.5),
    "north pole": ("EPSG:3413", 0.0, 90.0),
    "south pole": ("EPSG:3031", 90.0, -89.999),
    "greenland": ("EPSG:3413", -40.0, 78.0),
    "degrees": ("EPSG:4326", 13.3, 45.8),
    "degrees across": ("EPSG:4326", 179.9995, 10.0),
    "degrees to 360": ("EPSG:4326", 190.0, 20.0),
    "congo": ("EPSG:32734", 20.0, -2.0),
    "mercator": ("EPSG:3857", 100.0, 60.0),
}
"""CRS, longitude and latitude of the centre of a scene."""


def grid(place, side=SIDE):
    crs, east, north = PLACES[place]
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(east, north)
    if crs == "EPSG:4326":
        x = east  # 190 degrees stays 190
    pixel = 1e-4 if crs == "EPSG:4326" else 10.0
    return GeoBox((side, side), Affine(pixel, 0, x - side / 2 * pixel, 0, -pixel, y + side / 2 * pixel), crs)


@pytest.fixture
def write(make_raster):
    """A factory of scenes: pixels say which scene, row and column they are; without a place there is no CRS."""

    def make(place, mark, *, step=1, name=None):
        geobox = grid(place) if place else GeoBox((SIDE, SIDE), Affine.identity(), None)
        affine = geobox.affine * Affine.scale(step)
        side = SIDE // step
        rows, columns = np.indices((side, side)) * step
        dn = np.stack([rows, columns, np.full_like(rows, mark)]) + 1000
        where = (
            {"crs": str(geobox.crs), "transform": affine} if place else {"crs": None, "transform": Affine.identity()}
        )
        path = make_raster(
            dn, name=f"{name or place or 'bare'}_{mark}_{step}.tif", dtype="uint16", nodata=0, scale=1e-4,
            descriptions=["row", "column", "mark"], **where,
        )  # fmt: skip
        return str(path)

    return make


@pytest.fixture
def world(write):
    """One scene at each place; its mark is its number."""
    return [SceneFiles(place, (write(place, number),)) for number, place in enumerate(PLACES)]


def dataset(scenes, **arguments):
    return SceneDataset(scenes, ["row", "column", "mark"], size=16, stride=8, **arguments)


def numbers(image):
    return np.rint(np.asarray(image) * 1e4).astype(int) - 1000


def assert_pixels_of_the_file(scenes, sample):
    """Every valid pixel of a sample is what rasterio reads at one window of one file; the scene's number."""
    valid = sample["valid"].numpy()
    rows, columns, marks = numbers(sample["hr"])
    (mark,) = np.unique(marks[valid])
    steps = np.indices(valid.shape)
    (top,) = np.unique((rows - steps[0])[valid])
    (left,) = np.unique((columns - steps[1])[valid])
    with rasterio.open(scenes[mark].hr[0]) as file:
        whole = file.read()
    here = np.zeros((3, *valid.shape), int)
    inside = np.zeros(valid.shape, bool)
    for row, column in np.argwhere(np.ones(valid.shape, bool)):
        if 0 <= row + top < SIDE and 0 <= column + left < SIDE:
            here[:, row, column], inside[row, column] = whole[:, row + top, column + left], True
    np.testing.assert_array_equal(valid, inside)
    np.testing.assert_array_equal((numbers(sample["hr"]) + 1000)[:, valid], here[:, valid])
    assert (sample["hr"].numpy()[:, ~valid] == 0).all()
    return int(mark), int(top), int(left)


# Footprints


@pytest.mark.parametrize("place", PLACES)
def test_a_footprint_comes_back_as_the_pixels_that_it_was_made_of(place):
    geobox = grid(place)
    whole = window_polygon((slice(0, SIDE), slice(0, SIDE)))
    outline = located(geobox, whole, GLOBAL)
    assert outline.is_valid
    assert outline.geom_type == "Polygon"
    assert -180 <= outline.bounds[0] < 180
    back = in_pixels(geobox, outline, GLOBAL)
    assert shapely.symmetric_difference(back.buffer(0), whole).area < 0.02 * whole.area
    if "pole" not in place:
        assert outline.bounds[2] - outline.bounds[0] < 0.1
        assert shapely.hausdorff_distance(back, whole) < 0.01


@given(east=st.floats(-180, 180), north=st.floats(-89.99, 89.99), turn=st.floats(0, 360))
def test_a_place_in_degrees_is_one_place_in_pixels(east, north, turn):
    """A stereographic grid around the place, turned; the footprint holds the place by the name that the index has."""
    crs = f"+proj=stere +lat_0={north} +lon_0={east} +datum=WGS84"
    geobox = GeoBox((40, 60), Affine.rotation(turn) * Affine(10, 0, -300, 0, -10, 200), crs)
    outline = located(geobox, window_polygon((slice(0, 40), slice(0, 60))), GLOBAL)
    names = [shapely.Point(east + by, north) for by in (0, -360, 360)]
    assert any(outline.buffer(1e-9).contains(name) for name in names)
    for name in names:
        centre = in_pixels(geobox, name, GLOBAL)
        assert (centre.x, centre.y) == pytest.approx((30, 20), abs=1e-3)


def test_a_place_that_a_projection_lacks_is_none():
    assert located(grid("congo"), window_polygon((slice(0, 9), slice(0, 9))), CRS.from_epsg(32618)) is None


def test_an_index_keeps_the_crs_that_all_share():
    one, other = grid("virginia"), grid("cape")
    assert index_crs([one, one]).to_epsg() == 32618
    assert index_crs([one, other]) == GLOBAL
    bare = GeoBox((9, 9), Affine.identity(), None)
    assert index_crs([bare, one]).to_epsg() == 32618
    assert index_crs([bare]) is None


def test_no_footprint_counts_fewer_pixels_than_its_scene_has():
    geoboxes = [grid(place) for place in PLACES]
    outlines = [located(box, window_polygon((slice(0, SIDE), slice(0, SIDE))), GLOBAL) for box in geoboxes]
    width, height = pixel_size(geoboxes, outlines, GLOBAL)
    for left, bottom, right, top in (outline.bounds for outline in outlines):
        assert (right - left) / width >= SIDE - 1e-6
        assert (top - bottom) / height >= SIDE - 1e-6


# The dataset


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_samples_of_scenes_all_over_the_world_are_the_pixels_of_their_files(world, cache):
    data = dataset(world, cache=cache)
    assert (len(data), data.crs) == (len(PLACES), GLOBAL)
    assert Counter(data.table.scene.tolist()) == dict.fromkeys(range(len(PLACES)), 25)
    torch.manual_seed(0)
    near = [place for place in PLACES if "pole" not in place]
    keys = list(RandomGeoSampler(dataset([world[list(PLACES).index(place)] for place in near]), size=16, length=200))
    seen = Counter()
    for key in keys:
        sample = data[key]
        assert sample["hr"].shape == (3, 16, 16)
        if sample["valid"].any():
            mark, top, left = assert_pixels_of_the_file(world, sample)
            centre = in_pixels(grid(list(PLACES)[mark]), shapely.box(
                key[0].start, key[1].start, key[0].stop, key[1].stop).centroid, GLOBAL)  # fmt: skip
            assert abs(centre.x - left - 8) <= 0.5 + 1e-6
            assert abs(centre.y - top - 8) <= 0.5 + 1e-6
            seen[mark] += 1
    assert set(seen) == {list(PLACES).index(place) for place in near}


@pytest.mark.parametrize("place", PLACES)
def test_a_grid_of_queries_shows_every_pixel_of_a_scene(world, place):
    mark = list(PLACES).index(place)
    data = dataset([world[mark]])
    if data.crs != GLOBAL and "pole" not in place:
        data.crs = "EPSG:4326"
    shown = np.zeros((SIDE, SIDE), bool)
    for key in GridGeoSampler(data, size=16, stride=12):
        sample = data[key]
        valid = sample["valid"].numpy()
        rows, columns, marks = numbers(sample["hr"])
        shown[rows[valid], columns[valid]] = True
        assert set(marks[valid]) <= {mark}
    assert shown.all()


def test_a_pole_is_one_place_by_every_longitude(world):
    data = dataset(world)
    for longitude in (-179.0, -30.0, 75.0, 200.0):
        half = data.res[0] * 8
        x = slice(longitude - half, longitude + half)
        sample = data[x, slice(90 - 16 * data.res[1], 90.0)]
        mark, top, left = assert_pixels_of_the_file(world, sample)
        assert list(PLACES)[mark] == "north pole"
        # 8 pixels of 10 m from the pole, in the direction of the longitude (EPSG:3413 has 45 W below the pole).
        away = np.deg2rad(longitude + 45)
        metres = 8 * data.res[1] * 111_694
        expected = 24 + metres / 10 * np.cos(away), 24 + metres / 10 * np.sin(away)
        assert (top + 8, left + 8) == pytest.approx(expected, abs=1.2)


def test_a_place_beyond_the_antimeridian_has_two_names(world):
    across = [scene for scene in world if "fiji" in scene.name or "across" in scene.name]
    data = dataset([*across, world[0]])
    for longitude in (179.9995, 180.0004, -179.9996):
        half = data.res[0] * 8
        sample = data[longitude - half : longitude + half, 10 - 8 * data.res[1] : 10 + 8 * data.res[1]]
        left = round((longitude % 360 - 179.9995) / 1e-4 + SIDE / 2) - 8
        assert assert_pixels_of_the_file(world, sample)[1:] == (16, left)


def test_scenes_without_a_crs_take_part_without_a_place(world, write):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = [SceneFiles(f"bare {mark}", (write(None, mark),)) for mark in (90, 91, 92)]
        data = dataset([bare[0], *world[:2], *bare[1:]])
        assert (len(data), data.crs) == (2, GLOBAL)
        assert set(data.table.scene) == {0, 1, 2, 3, 4}
        for key in RandomGeoSampler(data, size=16, length=8):
            assert set(numbers(data[key]["hr"])[2][data[key]["valid"].numpy()]) <= {0, 1}
        # A split of TorchGeo goes by places: what has none is in no part of it, so in no two.
        for part in random_bbox_assignment(data, [0.5, 0.5]):
            assert len(set(part.table.scene)) == 1
        alone = dataset(bare)
        marks = {int(numbers(alone[key]["hr"])[2].max()) for key in RandomGeoSampler(alone, size=16, length=40)}
        assert marks == {90, 91, 92}
        first = SceneDataset([bare[0], world[0]], ["row"], size=16)
        assert first.res == (10, 10)


def test_torchgeo_splits_of_the_world_share_no_pixel(world):
    generator = torch.Generator().manual_seed(2)
    near = [scene for scene in world if "pole" not in scene.name]
    halves = [shapely.box(-180, -90, 180, 20), shapely.box(-180, 20, 360, 90)]
    splits = {
        "assignment": random_bbox_assignment(dataset(near), [0.5, 0.5], generator=generator),
        "splitting": random_bbox_splitting(dataset(near), [0.5, 0.5], generator=generator),
        "roi": roi_split(dataset(near), halves),
    }
    for name, parts in splits.items():
        seen = []
        for part in parts:
            pixels = set()
            for key in [*part.table, *GridGeoSampler(part, size=16)]:
                sample = part[key]
                pixels |= set(map(tuple, numbers(sample["hr"])[:, sample["valid"].numpy()].T))
            assert len(pixels) > 1000, name
            seen.append(pixels)
        assert not seen[0] & seen[1], name


def test_the_split_by_blocks_leaks_no_ground_across_zones(write):
    """One place by its two zones, as two scenes that know nothing of one another."""
    scenes = [SceneFiles(place, (write(place, mark),)) for mark, place in enumerate(("fiji west", "fiji east"))]
    split = BlockSplit(shares=(0.5, 0.5, 0.0), block=150)
    data = SceneDataset([*scenes], ["row", "column", "mark"], size=6, stride=3, split=split)
    painted = {part: [np.zeros((SIDE, SIDE), bool) for _ in scenes] for part in (0, 1)}
    for patch, part in zip(data.table, data.table.split, strict=True):
        if part >= 0:
            painted[part][patch.scene][patch.row : patch.row + 6, patch.column : patch.column + 6] = True
    assert painted[0][0].any()
    assert painted[1][1].any()
    one, other = (source for source in data.geoboxes)
    rows, columns = np.nonzero(painted[0][0])
    x, y = one.affine * (columns + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(str(one.crs), str(other.crs), always_xy=True).transform(x, y)
    column, row = (np.floor(value).astype(int) for value in ~other.affine * (x, y))
    inside = (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
    assert inside.any()
    assert not painted[1][1][row[inside], column[inside]].any()


def test_an_intersection_of_scenes_in_several_crss_is_registered(world, write):
    fewer = [scene for scene in world if scene.name in ("virginia", "cape", "degrees across")]
    again = [SceneFiles(scene.name, (write(scene.name, 70 + n),)) for n, scene in enumerate(fewer)]
    one = dataset(fewer) & dataset(again)
    other = dataset(fewer[:1]) & dataset([again[1], again[0]])  # 32618, and 32618 with 32734
    for both, marks in ((one, 3), (other, 1)):
        seen = set()
        for key in [*RandomGeoSampler(both, size=16, length=20), *GridGeoSampler(both, size=16)]:
            sample = both[key]
            valid = sample["valid"].numpy()
            first, second = np.split(numbers(sample["hr"])[:, valid], 2)
            np.testing.assert_array_equal(first[:2], second[:2])
            seen |= set(first[2])
        assert len(seen) == marks
    beside = SceneFiles("beside", (write("virginia", 80, name="shifted"),))
    with rasterio.open(beside.hr[0], "r+") as file:
        file.transform = file.transform * Affine.translation(0.5, 0)
    with pytest.raises(GridError, match="not on one grid"):
        dataset(fewer) & dataset([beside, again[1]])


def test_a_union_of_scenes_in_several_crss_has_them_all(world):
    union = dataset(world[:1]) | dataset(world[1:4])
    assert (len(union), union.crs) == (4, GLOBAL)
    assert set(union.table.scene) == {0, 1, 2, 3}
    marks = Counter()
    for key in RandomGeoSampler(union, size=16, length=60):
        sample = union[key]
        if sample["valid"].any():
            marks[assert_pixels_of_the_file(world, sample)[0]] += 1
    assert set(marks) == {0, 1, 2, 3}
    half = roi_split(dataset(world[:1]), [located(grid("virginia"), shapely.box(0, 0, 24, SIDE), CRS.from_epsg(32618))])
    assert set((half[0] | dataset(world[1:2])).table.column[:6]) <= {0, 8}


def test_a_crs_without_a_place_for_a_scene_is_refused(world):
    data = dataset([world[0], world[list(PLACES).index("congo")]])
    with pytest.raises(GridError, match=r"congo \(EPSG:32734\) has no place in EPSG:32618; EPSG:4326 has one"):
        data.crs = "EPSG:32618"
    assert data.crs == GLOBAL


def test_pairs_of_the_world_are_registered(write):
    places = ("virginia", "cape", "fiji west", "degrees across", "north pole")
    scenes = [
        SceneFiles(place, (write(place, mark),), (write(place, mark, step=2),)) for mark, place in enumerate(places)
    ]
    data = GeoPairDataset(scenes, ["row", "column", "mark"], size=16)
    assert data.crs == GLOBAL
    near = GeoPairDataset(scenes[:4], data.bands, size=16)
    seen = set()
    keys = [(data, patch) for patch in data.table] + [(near, key) for key in RandomGeoSampler(near, size=8, length=60)]
    for pairs, key in keys:
        sample = pairs[key]
        valid = sample["lr_valid"].numpy()
        assert sample["hr"].shape[1:] == (16, 16)
        assert sample["lr"].shape[1:] == (8, 8)
        hr, lr = numbers(sample["hr"])[:, ::2, ::2], numbers(sample["lr"])
        np.testing.assert_array_equal(hr[:, valid], lr[:, valid])
        seen |= set(lr[2][valid])
    assert seen == {0, 1, 2, 3, 4}
