import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geosr.data.scenes import STRIDE, PatchDataset, expand_scenes, read_scenes, rows_and_columns, scenes_folder
from geosr.demo import demo_scene
from geosr.errors import ConfigError
from geosr.io.raster import Raster, open_scene
from geosr.radiometry import Radiometry

BANDS = ("B02", "B03")
GRID = Affine(10, 0, 400_000, 0, -10, 5_000_000)


def raster_of(array, valid=None):
    """A raster of two bands; where it is not valid it is NaN."""
    array = np.asarray(array, np.float32)
    valid = np.ones(array.shape[1:], bool) if valid is None else valid
    geobox = GeoBox(array.shape[1:], GRID, "EPSG:32633")
    return Raster(np.where(valid, array, np.float32(np.nan)), valid, geobox, BANDS, Radiometry(scale=1e-4))


def addresses(height, width, *, scene=0):
    """A raster whose pixel values are all different: every patch says where it was cut."""
    number = np.arange(height * width, dtype=np.float32).reshape(height, width)
    return raster_of(np.stack([number, number + 10**5 * (scene + 1)]))


def dataset(*rasters, size=16, length=64, **arguments):
    return PatchDataset({f"{i}.tif": r for i, r in enumerate(rasters)}, size=size, length=length, **arguments)


def starts(patches):
    return {(patch.scene, patch.row, patch.column) for patch in patches.patches}


@pytest.fixture
def scene_files(make_raster):
    """Folder of two scenes, ``a.tif`` of 40 x 48 pixels with nodata in a corner and ``b.tif`` of 24 x 24 without."""
    generator = np.random.default_rng(0)
    for name, height, width in (("a.tif", 40, 48), ("b.tif", 24, 24)):
        dn = generator.integers(1, 5000, (3, height, width))
        if name == "a.tif":
            dn[:, :4, :6] = 0
        path = make_raster(dn, name=name, dtype="uint16", nodata=0, scale=1e-4, descriptions=["B02", "B03", "B08"])
    return path.parent


# Files


def test_scenes_are_found_in_order_each_once(scene_files):
    (scene_files / "sub").mkdir()
    (scene_files / "b.tif").rename(scene_files / "sub" / "b.tif")
    found = expand_scenes(scene_files, ["sub/*.tif", "a.tif", "**/b.tif", "[a-c].tif"])
    assert found == [scene_files / "sub" / "b.tif", scene_files / "a.tif"]


@pytest.mark.parametrize("pattern", ["c.tif", "*.jp2", "sub/a.tif"])
def test_a_pattern_that_matches_nothing_is_refused(scene_files, pattern):
    with pytest.raises(ConfigError, match=r"matches no file in .*set Data.root"):
        expand_scenes(scene_files, ["a.tif", pattern])


@pytest.mark.parametrize("pattern", ["", "/etc/a.tif"])
def test_a_path_that_is_not_relative_is_refused(scene_files, pattern):
    with pytest.raises(ConfigError, match=r"is no path relative to Data\.root"):
        expand_scenes(scene_files, [pattern])


def test_demo_is_the_folder_of_the_embedded_scene_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert expand_scenes("demo", ["*.tif"]) == [demo_scene()]
    assert scenes_folder("./demo").resolve() == tmp_path / "demo"


def test_scenes_are_reflectance_by_name(scene_files):
    rasters = read_scenes(scene_files, ["*.tif"], ["B08", "B02"])
    assert list(rasters) == ["a.tif", "b.tif"]
    with open_scene(scene_files / "a.tif") as scene:
        whole = scene.read()
    np.testing.assert_array_equal(rasters["a.tif"].array, whole.array[[2, 0]])
    assert rasters["a.tif"].bands == ("B08", "B02")
    assert not rasters["a.tif"].valid[:4, :6].any()
    assert rasters["a.tif"].valid.sum() == 40 * 48 - 24


def test_an_excluded_window_is_invalid_and_nothing_else_is(scene_files):
    whole = read_scenes(scene_files, ["*.tif"], BANDS)
    parts = read_scenes(scene_files, ["*.tif"], BANDS, exclude={"a.tif": [10, 20, 5, 7]})
    np.testing.assert_array_equal(parts["b.tif"].array, whole["b.tif"].array)
    expected = whole["a.tif"].valid.copy()
    expected[10:15, 20:27] = False
    np.testing.assert_array_equal(parts["a.tif"].valid, expected)
    np.testing.assert_array_equal(parts["a.tif"].array[:, expected], whole["a.tif"].array[:, expected])
    assert np.isnan(parts["a.tif"].array[:, ~expected]).all(), "an invalid pixel is NaN"


def test_a_window_is_read_with_its_place(scene_files):
    whole = read_scenes(scene_files, ["a.tif"], BANDS)["a.tif"]
    part = read_scenes(scene_files, ["a.tif"], BANDS, windows={"a.tif": [3, 5, 30, 20]})["a.tif"]
    np.testing.assert_array_equal(part.array, whole.array[:, 3:33, 5:25])
    np.testing.assert_array_equal(part.valid, whole.valid[3:33, 5:25])
    assert part.geobox == whole.geobox[3:33, 5:25]


@pytest.mark.parametrize("part", ["exclude", "windows"])
@pytest.mark.parametrize("name", ["c.tif", "A.tif", "./a.tif", "*.tif", "/a.tif", ""])
def test_a_window_of_no_scene_is_refused(scene_files, part, name):
    with pytest.raises(ConfigError, match=r"is no such path|matches no file|is no path relative"):
        read_scenes(scene_files, ["a.tif"], BANDS, **{part: {name: [0, 0, 5, 5]}})


@pytest.mark.parametrize("part", ["exclude", "windows"])
@pytest.mark.parametrize("window", [[0, 0, 41, 5], [36, 0, 5, 5], [0, 44, 5, 5], [400, 0, 5, 5]])
def test_a_window_that_reaches_beyond_its_scene_is_refused(scene_files, part, window):
    with pytest.raises(ConfigError, match=r"reaches beyond a\.tif, which has 40 rows and 48 columns"):
        read_scenes(scene_files, ["a.tif"], BANDS, **{part: {"a.tif": window}})


def test_a_window_may_be_the_whole_scene():
    assert rows_and_columns([0, 0, 7, 9], "a.tif", (7, 9)) == (slice(0, 7), slice(0, 9))


# Patches


def test_the_same_seed_gives_the_same_patches():
    first, second = (dataset(addresses(64, 80), addresses(40, 40, scene=1), gain=1.4, seed=3) for _ in range(2))
    order = np.random.default_rng(0).permutation(64)  # what came before does not matter
    patches = {int(index): second[int(index)]["hr"] for index in order}
    for index in range(64):
        assert torch.equal(first[index]["hr"], patches[index])


def test_another_seed_and_another_index_give_other_patches():
    first, second = (dataset(addresses(200, 200), length=200, seed=seed) for seed in (0, 1))
    corner = [patches[index]["hr"][0, 0, 0].item() for patches in (first, second) for index in range(200)]
    assert len(set(corner[:200])) > 150
    assert np.mean(np.array(corner[:200]) == np.array(corner[200:])) < 0.05


def test_a_patch_is_what_the_scene_holds_at_one_place():
    raster = addresses(64, 80)
    for index in range(20):
        hr = dataset(raster)[index]["hr"]
        row, column = divmod(int(hr[0].min()), 80)
        assert hr.shape == (2, 16, 16)
        assert hr.dtype == torch.float32
        expected = np.sort(raster.array[:, row : row + 16, column : column + 16].reshape(2, -1))
        np.testing.assert_array_equal(np.sort(hr.numpy().reshape(2, -1)), expected)
        assert row % STRIDE == column % STRIDE == 0


def test_all_eight_orientations_occur_equally_often_and_are_exact():
    square = addresses(16, 16).array
    orientations = {
        np.ascontiguousarray(np.rot90(turned, quarter, (1, 2))).tobytes(): 0
        for turned in (square, square[:, ::-1])
        for quarter in range(4)
    }
    assert len(orientations) == 8
    patches = dataset(addresses(16, 16), length=800)
    for index in range(800):
        orientations[patches[index]["hr"].contiguous().numpy().tobytes()] += 1  # a KeyError is a ninth orientation
    assert all(60 < count < 140 for count in orientations.values()), orientations


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([3, 8, 16]), share=st.floats(0.9, 1))
def test_a_patch_never_touches_an_invalid_pixel(seed, size, share):
    generator = np.random.default_rng(seed)
    valid = generator.random((48, 56)) < share
    valid[generator.integers(20) : generator.integers(20, 48), generator.integers(40) :] = False
    valid[-24:, :24] = True
    raster = raster_of(np.ones((2, 48, 56)), valid)
    patches = dataset(raster, size=size)
    whole = {
        (0, row, column)
        for row in range(0, 48 - size + 1, STRIDE)
        for column in range(0, 56 - size + 1, STRIDE)
        if valid[row : row + size, column : column + size].all()
    }
    assert starts(patches) == whole
    assert all((patches[index]["hr"] == 1).all() for index in range(20))  # an invalid pixel would be 0


def test_a_patch_never_touches_an_excluded_pixel(scene_files):
    rasters = read_scenes(scene_files, ["a.tif"], BANDS, exclude={"a.tif": [16, 0, 24, 48]})
    patches = PatchDataset(rasters, size=8, length=50)
    assert starts(patches) == {(0, row, column) for row in (0, 8) for column in range(0, 41, 8)} - {(0, 0, 0)}


def test_the_last_rows_and_columns_belong_to_a_patch_where_the_stride_allows_it():
    assert starts(dataset(addresses(32, 24))) == {(0, row, column) for row in (0, 8, 16) for column in (0, 8)}
    assert starts(dataset(addresses(16, 23))) == {(0, 0, 0)}


def share_of_the_second(first, second, **arguments):
    patches = dataset(first, second, size=16, length=2000, **arguments)
    return np.mean([patches[index]["hr"][1, 0, 0].item() < 0 for index in range(2000)])


@pytest.mark.parametrize(("detail", "odds"), [(0.0, 1), (0.5, 2), (1.0, 4)])
def test_patches_are_drawn_in_proportion_to_a_power_of_their_detail(detail, odds):
    """Two scenes of one patch each; the second has four times the detail, and a negative second band to know it by."""
    ramp = np.indices((16, 16)).sum(0)
    plain, busy = raster_of(np.stack([ramp, 1 + 0 * ramp])), raster_of(np.stack([4 * ramp, -1 + 0 * ramp]))
    share = share_of_the_second(plain, busy, detail=detail)
    assert share == pytest.approx(odds / (1 + odds), abs=0.04)


def test_what_lies_beyond_a_patch_does_not_count_as_its_detail():
    ramp = np.indices((16, 24)).sum(0).astype(float)
    cliff = 0.1 * ramp
    cliff[:, 16:] = 1000  # beyond the only patch of this scene that is valid
    valid = np.ones((16, 24), bool)
    valid[:, 20:] = False
    plain = raster_of(np.stack([0.1 * ramp, 1 + 0 * ramp])[:, :, :16])
    beside = raster_of(np.stack([cliff, -1 + 0 * ramp]), valid)
    assert share_of_the_second(plain, beside, detail=1.0) == pytest.approx(0.5, abs=0.04)


def test_patches_without_detail_are_never_drawn_when_others_have_some():
    ramp = np.indices((16, 16)).sum(0)
    flat, ramp = raster_of(np.stack([0 * ramp, 1 + 0 * ramp])), raster_of(np.stack([ramp, -1 + 0 * ramp]))
    assert share_of_the_second(flat, ramp) == 1


def test_scenes_without_any_detail_are_drawn_uniformly():
    one, other = raster_of(np.full((2, 16, 16), 0.5)), raster_of(np.full((2, 16, 16), -0.5))
    assert share_of_the_second(one, other) == pytest.approx(0.5, abs=0.04)


def test_gain_is_one_factor_for_all_bands_between_its_inverse_and_itself():
    patches = dataset(raster_of(np.stack([np.full((16, 16), 0.2), np.full((16, 16), 0.3)])), length=400, gain=2.0)
    values = torch.stack([patches[index]["hr"] for index in range(400)])
    factors = values[:, 0, 0, 0] / 0.2
    torch.testing.assert_close(values[:, 0], (0.2 * factors)[:, None, None].expand(-1, 16, 16))
    torch.testing.assert_close(values[:, 1], (0.3 * factors)[:, None, None].expand(-1, 16, 16))
    assert factors.min() >= 0.5
    assert factors.max() <= 2
    halves = torch.histc(factors.log2(), bins=4, min=-1, max=1) / 400
    torch.testing.assert_close(halves, torch.full((4,), 0.25), atol=0.08, rtol=0)


def test_a_patch_does_not_share_memory_with_its_scene():
    patches = dataset(addresses(16, 16))
    before = patches[0]["hr"].clone()
    patches[0]["hr"].zero_()
    assert torch.equal(patches[0]["hr"], before)


def test_a_scene_smaller_than_a_patch_is_named_with_both_sizes():
    with pytest.raises(ConfigError, match=r"1\.tif has 30 x 15 pixels, less than a patch of 16 x 16; lower Data"):
        dataset(addresses(16, 16), addresses(30, 15))


def test_scenes_without_a_whole_patch_are_refused():
    valid = np.ones((30, 30), bool)
    valid[::5] = False
    with pytest.raises(ConfigError, match="no patch of 16 x 16 pixels is fully valid"):
        dataset(raster_of(np.ones((2, 30, 30)), valid))
