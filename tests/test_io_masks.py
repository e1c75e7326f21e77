import pickle
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geosr.errors import GridError, InputError, UsageError
from geosr.io.inputs import open_input
from geosr.io.masks import CLASSES, MaskFile, RasterMask, SceneMask, VectorMask, open_masks

SCENE = GeoBox((8, 12), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
WHOLE = np.s_[0:8, 0:12]
COARSE = Affine(20, 0, 400_000, 0, -20, 5_000_000)


@pytest.fixture
def make_mask(make_raster):
    def make(values, *, classes=None, **arguments):
        arguments = {"transform": COARSE} | arguments
        path = make_raster(np.asarray(values)[None], name="mask.tif", dtype="uint8", **arguments)
        return RasterMask(str(path), classes=classes)

    return make


def test_each_pixel_takes_the_nearest_of_a_coarser_mask(make_mask):
    values = np.random.default_rng(0).integers(0, 12, (4, 6))
    mask = make_mask(values, classes=CLASSES["clouds"])
    expected = np.isin(values, [3, 8, 9, 10]).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(mask.read(SCENE, WHOLE), expected)
    np.testing.assert_array_equal(mask.read(SCENE, np.s_[3:6, 1:9]), expected[3:6, 1:9])


def test_whatever_is_not_zero_is_cloud_in_a_plain_mask_that_reaches_farther(make_mask):
    values = np.zeros((10, 14), int)
    values[3, 4] = 200
    mask = make_mask(values, transform=Affine(10, 0, 399_990, 0, -10, 5_000_010))
    assert np.argwhere(mask.read(SCENE, WHOLE)).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"transform": Affine(20, 0, 400_040, 0, -20, 5_000_000)}, "covers .* and the scene reaches over"),
        ({"crs": "EPSG:32634"}, "is in EPSG:32634 and the scene in EPSG:32633.*gdalwarp"),
    ],
)
def test_a_mask_elsewhere_is_refused(make_mask, arguments, told):
    with pytest.raises(GridError, match=told):
        make_mask(np.zeros((4, 6)), **arguments).read(SCENE, WHOLE)


# Masks of a scene

HEIGHT, WIDTH = 36, 44


def scene_grid(step=(10, 10), crs="EPSG:32633"):
    return GeoBox((HEIGHT, WIDTH), Affine(step[1], 0, 400_000, 0, -step[0], 5_000_000), crs)


@st.composite
def windows(draw):
    rows, columns = (sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in (HEIGHT, WIDTH))
    return slice(*rows), slice(*columns)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """A scene classification at 20 m with clouds, snow and defects here and there, and polygons of clouds in GML."""
    folder = tmp_path_factory.mktemp("masks")
    rng = np.random.default_rng(3)
    scl = np.where(rng.random((HEIGHT // 2, WIDTH // 2)) < 0.04, rng.choice([1, 3, 9, 11], (18, 22)), 4)
    profile = {"count": 1, "height": 18, "width": 22, "dtype": "uint8", "crs": "EPSG:32633", "transform": COARSE}
    with rasterio.open(folder / "scl.tif", "w", driver="GTiff", **profile) as file:
        file.write(scl.astype("uint8")[None])
    corners = rng.integers(0, 400, (6, 3, 2)) * [1, -1] + [400_000, 5_000_000]
    write_gml(folder / "clouds.gml", [[np.vstack([ring, ring[:1]])] for ring in corners])
    return folder, scl


def write_gml(path, polygons, *, epsg=32633, dimension=2):
    """Polygons, each a list of rings (point, 2), as Sentinel-2's Level-1C masks hold them."""
    gml = "http://www.opengis.net/gml/3.2"

    def positions(ring):
        points = np.column_stack([ring, np.full(len(ring), 7.5)])[:, :dimension]
        return f'<gml:posList srsDimension="{dimension}">{" ".join(map(str, points.ravel()))}</gml:posList>'

    features = "".join(
        "<gml:Polygon>"
        + "".join(
            f"<gml:{side}><gml:LinearRing>{positions(ring)}</gml:LinearRing></gml:{side}>"
            for side, ring in zip(["exterior"] + ["interior"] * 9, rings, strict=False)
        )
        + "</gml:Polygon>"
        for rings in polygons
    )
    envelope = f'<gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7:{epsg}"/>' if polygons else ""
    path.write_text(f'<Mask xmlns:gml="{gml}">{envelope}{features}</Mask>')
    return path


def whole_mask(folder, dilate, grid):
    files = [MaskFile(str(folder / "scl.tif"), CLASSES["clouds"]), MaskFile(str(folder / "clouds.gml"))]
    return SceneMask(files, kinds=["clouds"], dilate=dilate), (slice(0, HEIGHT), slice(0, WIDTH))


@pytest.mark.parametrize("dilate", [0.0, 10.0, 35.0])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=windows())
def test_the_mask_of_a_window_is_the_window_of_the_mask(masks, dilate, window):
    grid = scene_grid()
    mask, whole = whole_mask(masks[0], dilate, grid)
    np.testing.assert_array_equal(mask.read(grid, window), mask.read(grid, whole)[window])


@pytest.mark.parametrize("dilate", [0.0, 14.0, 15.0, 30.0, 47.0])
def test_what_is_nearer_to_a_masked_centre_than_so_many_metres_is_left_out(masks, dilate):
    """The oracle measures every pair of pixels."""
    folder, scl = masks
    mask = SceneMask([MaskFile(str(folder / "scl.tif"), CLASSES["clouds"])], kinds=["clouds"], dilate=dilate)
    bad = np.isin(scl, CLASSES["clouds"]).repeat(2, 0).repeat(2, 1)
    y, x = np.indices(bad.shape) * 10.0
    near = np.zeros_like(bad)
    for row, column in zip(*np.nonzero(bad), strict=True):
        near |= np.hypot(y - 10 * row, x - 10 * column) <= dilate
    grid = scene_grid()
    np.testing.assert_array_equal(mask.read(grid, (slice(0, HEIGHT), slice(0, WIDTH))), near)


def test_metres_are_metres_along_both_sides_of_pixels(make_raster):
    values = np.zeros((1, 9, 9), "uint8")
    values[0, 4, 4] = 9
    transform = Affine(0.0002, 0, 13, 0, -0.0001, 60)  # about 11.1 m square at 60 degrees north
    path = make_raster(values, name="m.tif", transform=transform, crs="EPSG:4326")
    mask = SceneMask([MaskFile(str(path), (9,))], kinds=["clouds"], dilate=12.0)
    out = mask.read(GeoBox((9, 9), transform, "EPSG:4326"), np.s_[0:9, 0:9])
    assert np.argwhere(out).tolist() == [[3, 4], [4, 3], [4, 4], [4, 5], [5, 4]]


def test_polygons_count_by_pixel_centres_and_leave_their_holes(tmp_path):
    """The oracle is matplotlib's test of points in polygons."""
    from matplotlib.path import Path as Outline

    def ring(points):
        return np.array([*points, points[0]], float)

    outer = ring([(400_013, 4_999_987), (400_337, 4_999_951), (400_291, 4_999_662), (400_041, 4_999_703)])
    hole = ring([(400_102, 4_999_902), (400_201, 4_999_888), (400_188, 4_999_801)])
    far = ring([(500_000, 4_000_000), (500_100, 4_000_000), (500_100, 4_000_100)])
    path = write_gml(tmp_path / "m.gml", [[outer, hole], [far]], dimension=3)
    grid = scene_grid()
    points = np.array([grid.affine * (x + 0.5, y + 0.5) for y in range(HEIGHT) for x in range(WIDTH)])
    inside = Outline(outer).contains_points(points) & ~Outline(hole).contains_points(points)
    drawn = VectorMask(str(path)).read(grid, (slice(0, HEIGHT), slice(0, WIDTH)))
    assert 0.2 < inside.mean() < 0.9
    np.testing.assert_array_equal(drawn, inside.reshape(HEIGHT, WIDTH))


def test_a_piece_far_down_a_large_scene_is_drawn_where_it_lies(tmp_path):
    square = np.array([(0, 0), (30, 0), (30, -20), (0, -20), (0, 0)]) + np.array([410_230, 4_979_530])
    mask = VectorMask(str(write_gml(tmp_path / "m.gml", [[square]])))
    grid = GeoBox((10_980, 10_980), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
    out = mask.read(grid, np.s_[2040:2060, 1020:1030])
    assert [(row + 2040, column + 1020) for row, column in np.argwhere(out).tolist()] == [
        (row, column) for row in (2047, 2048) for column in (1023, 1024, 1025)
    ]


def test_polygons_of_real_products_cover_what_their_corners_say(shared_data):
    """Clouds of a real Level-1C product are drawn at 60 m: every corner is on that grid, so areas are exact."""
    (archive,) = (shared_data / "safe").glob("*T53JQJ*.zip")
    with open_input(archive) as scene:
        (file,) = scene.masks["clouds"]
        left, _, _, top = scene.geobox.boundingbox
        grid = GeoBox((1830, 1830), Affine(60, 0, left, 0, -60, top), "EPSG:32753")
    with zipfile.ZipFile(archive) as held:
        text = held.read(next(name for name in held.namelist() if name.endswith("MSK_CLOUDS_B00.gml"))).decode()
    area = 0.0
    for polygon in re.findall(r"<gml:Polygon.*?</gml:Polygon>", text, re.DOTALL):
        for number, positions in enumerate(re.findall(r"<gml:posList[^>]*>(.*?)</gml:posList>", polygon)):
            x, y = np.array(positions.split(), float).reshape(-1, 2).T
            part = abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
            area += part if number == 0 else -part
    out = VectorMask(file.path).read(grid, np.s_[0:1830, 0:1830])
    assert area > 1e8
    assert out.sum() * 3600 == pytest.approx(area, rel=1e-3)


def test_a_mask_travels_small_between_processes(masks):
    grid = scene_grid()
    mask, whole = whole_mask(masks[0], 25.0, grid)
    expected = mask.read(grid, whole)
    packed = pickle.dumps(mask)
    assert len(packed) < 5000
    np.testing.assert_array_equal(pickle.loads(packed).read(grid, whole), expected)
    with ThreadPoolExecutor(4) as threads:
        rows = [(slice(row, row + 4), whole[1]) for row in range(0, HEIGHT, 4)]
        parts = list(threads.map(lambda window: mask.read(grid, window), rows))
    np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize(
    ("kinds", "dilate", "error", "told"),
    [
        (["cloud"], 0, UsageError, "'cloud' is not one of clouds defects snow; did you mean 'clouds'"),
        (["snow"], 0, InputError, r"comes with no mask of snow \(it has clouds\). Looked for: the scene class"),
        ([], 30, UsageError, "--mask-dilate 30 must be 0 or more metres, and needs --mask"),
        (["clouds"], -1, UsageError, "--mask-dilate -1 must be"),
        (["clouds"], float("nan"), UsageError, "--mask-dilate nan must be"),
    ],
)
def test_masks_that_cannot_be_are_refused(masks, kinds, dilate, error, told):
    available = {"clouds": (MaskFile(str(masks[0] / "clouds.gml")),)}
    with pytest.raises(error, match=told):
        open_masks(available, kinds, dilate=dilate, scene="a.tif")


def test_polygons_elsewhere_or_without_a_file_are_refused(tmp_path):
    ring = np.array([(0, 0), (1, 0), (1, 1), (0, 0)])
    mask = VectorMask(str(write_gml(tmp_path / "m.gml", [[ring]], epsg=32634)))
    with pytest.raises(GridError, match="is in EPSG:32634 and the scene in EPSG:32633"):
        mask.read(scene_grid(), np.s_[0:2, 0:2])
    assert not VectorMask(str(write_gml(tmp_path / "empty.gml", []))).read(scene_grid(), np.s_[0:2, 0:2]).any()
    with pytest.raises(InputError, match="does not exist"):
        VectorMask(str(tmp_path / "missing.gml")).read(scene_grid(), np.s_[0:2, 0:2])
    (tmp_path / "odd.gml").write_text((tmp_path / "m.gml").read_text().replace("0.0 0.0 1.0 0.0", "0.0 0.0 1.0"))
    with pytest.raises(InputError, match=r"odd\.gml is damaged"):
        VectorMask(str(tmp_path / "odd.gml")).read(scene_grid(), np.s_[0:2, 0:2])
    with pytest.raises(InputError, match="has 1 bands; 3 are needed"):
        RasterMask(str(make_single(tmp_path)), classes=None, bands=(2,))


def make_single(folder):
    profile = {"count": 1, "height": 4, "width": 4, "dtype": "uint8", "crs": "EPSG:32633", "transform": COARSE}
    with rasterio.open(folder / "single.tif", "w", driver="GTiff", **profile) as file:
        file.write(np.zeros((1, 4, 4), "uint8"))
    return folder / "single.tif"
