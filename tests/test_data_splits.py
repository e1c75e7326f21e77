import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.ndimage import maximum_filter

from geosr.data.patches import PatchTable, patches_of
from geosr.data.splits import POLAR, BlockSplit, footprints, hashed, split_patches
from geosr.errors import ConfigError, GeosrError
from geosr.io.scene import open_scene

UTM = "EPSG:32633"


def grid(height=400, width=500, *, x=400_000.0, y=5_000_000.0, pixel=10.0, crs=UTM, turn=0.0):
    affine = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(pixel, -pixel)
    return GeoBox((height, width), affine, crs)


def whole_table(geoboxes, *, size, stride):
    """All patches of scenes that are valid everywhere."""
    parts = [
        patches_of(np.ones(box.shape, bool), np.zeros(box.shape, np.float32), scene=n, size=size, stride=stride)
        for n, box in enumerate(geoboxes)
    ]
    return PatchTable.concatenate(parts)


def ground(geobox, mask, onto):
    """Which pixels of the grid ``onto`` the marked pixels of another grid touch, by their corners.

    The independent oracle: through the two CRSs directly, not through the equal-area grid that the split uses.
    """
    rows, columns = np.nonzero(mask)
    touched = np.zeros(onto.shape, bool)
    for down in (0.02, 0.98):
        for right in (0.02, 0.98):
            x, y = geobox.affine * (columns + right, rows + down)
            if geobox.crs != onto.crs:
                x, y = Transformer.from_crs(str(geobox.crs), str(onto.crs), always_xy=True).transform(x, y)
            column, row = (np.floor(value).astype(int) for value in ~onto.affine * (np.array(x), np.array(y)))
            inside = (row >= 0) & (row < onto.shape[0]) & (column >= 0) & (column < onto.shape[1])
            touched[row[inside], column[inside]] = True
    return touched


def masks(table, geoboxes, part):
    """The pixels of each scene that lie in a patch of that part."""
    painted = [np.zeros(box.shape, bool) for box in geoboxes]
    for patch in table.select(table.split == part):
        painted[patch.scene][patch.row : patch.row + table.size, patch.column : patch.column + table.size] = True
    return painted


def assert_nothing_leaks(table, geoboxes):
    """No pixel of a training patch lies in a patch of another part, whichever scene shows it."""
    drawn = [masks(table, geoboxes, part) for part in (0, 1, 2)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for n, box in enumerate(geoboxes):
            for m, onto in enumerate(geoboxes):
                if n == m:
                    assert not (drawn[one][n] & drawn[other][n]).any()
                elif box.crs is not None and onto.crs is not None:
                    assert not (ground(box, drawn[one][n], onto) & drawn[other][m]).any(), (one, other, n, m)


def split_of(geoboxes, split, *, size=32, stride=16, names=None):
    table = whole_table(geoboxes, size=size, stride=stride)
    return split_patches(table, geoboxes, split, names=names or [f"{n}.tif" for n in range(len(geoboxes))])


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    block=st.sampled_from([100.0, 500.0]),
    buffer=st.sampled_from([0.0, 35.0]),
    shift=st.tuples(st.floats(-1500, 1500), st.floats(-1500, 1500)),
    turn=st.sampled_from([0.0, 7.0]),
    size=st.sampled_from([8, 15]),
)
def test_no_training_pixel_lies_in_a_validation_patch(seed, block, buffer, shift, turn, size):
    """Two dates of one place, the second moved and turned, and that place in the neighbouring zone and in degrees."""
    x, y = Transformer.from_crs(UTM, "EPSG:32632", always_xy=True).transform(402_000, 4_998_000)
    east, north = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(401_000, 4_999_000)
    geoboxes = [
        grid(200, 220),
        grid(190, 210, x=400_000 + shift[0], y=5_000_000 + shift[1], turn=turn),
        grid(150, 150, x=x, y=y, crs="EPSG:32632"),
        grid(150, 150, x=east, y=north, pixel=1.1e-4, crs="EPSG:4326"),
    ]
    split = BlockSplit(shares=(0.6, 0.2, 0.2), block=block, buffer=buffer, seed=seed)
    table = split_of(geoboxes, split, size=size, stride=size // 2)
    assert {0, 1, 2} <= set(table.split)
    assert_nothing_leaks(table, geoboxes)


def test_two_dates_of_one_place_fall_into_one_part(shared_data):
    scenes = [open_scene(shared_data / "s2" / f"danube_{date}_10m.tif") for date in "ab"]
    geoboxes = [scene.geobox for scene in scenes]
    assert geoboxes[0] == geoboxes[1]
    for seed in range(5):
        split = BlockSplit(shares=(0.7, 0.3, 0.0), block=1000, seed=seed)
        table = split_of(geoboxes, split, size=32, stride=16, names=[scene.name for scene in scenes])
        half = len(table) // 2
        np.testing.assert_array_equal(table.split[:half], table.split[half:])
        assert_nothing_leaks(table, geoboxes)


@pytest.mark.parametrize("latitude", [0, 45, 70])
def test_the_buffer_is_kept_in_metres_on_the_ground(latitude):
    x, y = Transformer.from_crs("EPSG:4326", UTM, always_xy=True).transform(15, latitude)
    box = grid(300, 300, x=x, y=y)
    for buffer in (0.0, 200.0):
        table = split_of([box], BlockSplit(shares=(0.5, 0.5, 0), block=900, buffer=buffer), size=16, stride=4)
        train, val = (masks(table, [box], part)[0] for part in (0, 1))
        near = maximum_filter(train, size=2 * int(buffer // 10) + 1)
        assert not (near & val).any()
    assert train.any()
    assert val.any()


def test_scenes_without_a_crs_have_a_place_of_their_own():
    box = grid(crs=None)
    same = [footprints(box, [0, 5], [0, 7], 16, name=name) for name in ("a.tif", "a.tif", "b.tif")]
    np.testing.assert_array_equal(same[0], same[1])
    assert (same[2][:, 0] > same[0][:, 2]).all() or (same[2][:, 2] < same[0][:, 0]).all()
    np.testing.assert_allclose(same[0][:, 2:] - same[0][:, :2], 160)
    table = split_of([box, box], BlockSplit(shares=(0.7, 0.15, 0.15), block=600, buffer=50))
    assert_nothing_leaks(table, [box, box])
    assert {0, 1, 2} <= set(table.split)


def test_the_split_depends_on_place_and_seed_only():
    boxes = [grid(), grid(x=430_000)]
    table = split_of(boxes, BlockSplit(seed=1))
    back = split_of(boxes[::-1], BlockSplit(seed=1), names=["1.tif", "0.tif"])
    half = (table.scene == 0).sum()
    np.testing.assert_array_equal(np.roll(back.split, half), table.split)
    assert (split_of(boxes, BlockSplit(seed=2)).split != table.split).any()


def test_shares_are_met_where_there_are_enough_blocks():
    table = split_of([grid(1200, 1200)], BlockSplit(block=640), size=8, stride=8)
    share = [np.mean(table.split[table.split >= 0] == part) for part in (0, 1, 2)]
    assert share[0] == pytest.approx(0.8, abs=0.06)
    assert share[1] == pytest.approx(0.1, abs=0.04)
    assert share[2] == pytest.approx(0.1, abs=0.04)
    assert np.mean(table.split < 0) < 0.25


def test_a_block_is_never_too_small_for_its_patches():
    table = split_of([grid(1600, 1600)], BlockSplit(block=2560), size=256, stride=64)
    assert {0, 1, 2} <= set(table.split)


def test_patches_across_the_antimeridian_belong_to_no_part():
    box = grid(64, 300, x=179.99, y=10, pixel=1e-4, crs="EPSG:4326")
    table = split_of([box], BlockSplit(shares=(0.5, 0.5, 0)), size=16, stride=16)
    across = (table.column < 100) & (table.column + 16 > 100)
    assert (table.split[across] == -1).all()
    assert_nothing_leaks(table, [box])


def test_a_buffer_across_the_antimeridian_belongs_to_no_part():
    """One place by its two zones: the ground west and east of 180 degrees is in blocks that know nothing of another."""
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(-179.9998, -10)
    boxes = [grid(400, 300, x=179.975, y=-10, pixel=1e-4, crs="EPSG:4326"), grid(400, 300, x=x, y=y, crs="EPSG:32601")]
    for seed in range(4):
        split = BlockSplit(shares=(0.5, 0.5, 0), block=300, buffer=300, seed=seed)
        table = split_of(boxes, split, size=16, stride=8)
        train, val = (masks(table, boxes, part) for part in (0, 1))
        assert_nothing_leaks(table, boxes)
        assert train[0].any()
        near = maximum_filter(train[0], size=2 * int(300 // 11.2) + 1)
        assert not (ground(boxes[0], near, boxes[1]) & val[1]).any()


@pytest.mark.parametrize("pole", [1, -1])
def test_the_poles_are_split_like_any_ground(pole):
    """A stereographic scene with the pole in it, another date of it turned, and one across the border of the cap."""
    stereographic, zone = ("EPSG:3413", "EPSG:32633") if pole > 0 else ("EPSG:3031", "EPSG:32733")
    x, y = Transformer.from_crs("EPSG:4326", zone, always_xy=True).transform(14, pole * 80 + 0.013)
    boxes = [
        grid(200, 200, x=-1000, y=1000, crs=stereographic),
        grid(160, 160, x=-700, y=900, crs=stereographic, turn=20.0),
        grid(300, 200, x=x, y=y, crs=zone),
        grid(),
    ]
    table = split_of(boxes, BlockSplit(shares=(0.6, 0.2, 0.2), block=300, buffer=20), size=8, stride=8)
    for scene in range(4):
        assert 0 in table.split[table.scene == scene], scene
    assert len({0, 1, 2} & set(table.split[table.scene < 2])) > 1
    assert_nothing_leaks(table, boxes)
    border = Transformer.from_crs(zone, "EPSG:4326", always_xy=True)
    latitude = [border.transform(*(boxes[2].affine * (p.column + 4, p.row + 4)))[1] for p in table if p.scene == 2]
    across = np.abs(np.abs(latitude) - POLAR) < 3e-4
    assert across.any()
    assert (table.split[table.scene == 2][across] == -1).all()


def test_a_polar_scene_does_not_widen_the_blocks_of_others():
    polar = grid(64, 64, x=300, y=300, crs="EPSG:3413")
    alone, among = (split_of(boxes, BlockSplit(block=640), size=16, stride=16) for boxes in ([grid()], [grid(), polar]))
    assert np.mean(among.split[among.scene == 0] < 0) < np.mean(alone.split < 0) + 0.05


def test_too_few_blocks_say_how_many_there_are():
    with pytest.raises(
        ConfigError, match=r"no patch is left for (training|validation|test): 1 patches lie in 1 blocks"
    ):
        split_of([grid(32, 32)], BlockSplit(block=50_000))


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0, 0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.1, 0.1)])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(GeosrError, match="must be 0 or more, sum to 1, and leave some to train on"):
        BlockSplit(shares=shares)


@pytest.mark.parametrize("arguments", [{"block": 0}, {"buffer": -1}])
def test_blocks_and_buffers_that_cannot_be_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"must be above 0 and buffer .* not below"):
        BlockSplit(**arguments)


def test_hashes_are_the_same_everywhere_and_well_mixed():
    assert hashed(0).tolist() == 16294208416658607535  # SplitMix64's first output for seed 0
    values = hashed(7, np.arange(20_000))
    assert len(np.unique(values)) == 20_000
    uniform = np.histogram((values >> np.uint64(11)) * 2.0**-53, bins=20, range=(0, 1))[0]
    assert abs(uniform - 1000).max() < 150
