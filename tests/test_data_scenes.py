import numpy as np
import pytest
import shapely

from geosr.config.schema import DataSection
from geosr.data.datasets import SceneDataset
from geosr.data.scenes import expand_scenes, scenes_folder, select_scenes, without_lr
from geosr.data.splits import BlockSplit
from geosr.demo import demo_scene, example_folder
from geosr.errors import ConfigError, InputError
from geosr.grid import window_of_bounds
from geosr.io.scene import open_scene

BANDS = ["B02", "B03", "B08"]


@pytest.fixture
def folder(make_raster):
    """Folder of two scenes, ``a.tif`` of 40 x 48 pixels and ``b.tif`` of 24 x 24."""
    for name, height, width in (("a.tif", 40, 48), ("b.tif", 24, 24)):
        dn = np.random.default_rng(0).integers(1, 5000, (3, height, width))
        path = make_raster(dn, name=name, dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS)
    return path.parent


def section(root, **settings):
    return DataSection(root=str(root), **({"train_scenes": ["a.tif"], "val_scenes": ["b.tif"]} | settings))


def test_scenes_are_found_in_order_each_once(folder):
    (folder / "sub").mkdir()
    (folder / "b.tif").rename(folder / "sub" / "b.tif")
    found = expand_scenes(folder, ["sub/*.tif", "a.tif", "**/b.tif", "[a-c].tif"])
    assert [path.relative_to(folder).as_posix() for path in found] == ["sub/b.tif", "a.tif"]


@pytest.mark.parametrize("pattern", ["c.tif", "*.jp2"])
def test_a_pattern_that_matches_nothing_is_refused(folder, pattern):
    with pytest.raises(ConfigError, match="matches no file"):
        expand_scenes(folder, ["a.tif", pattern])


@pytest.mark.parametrize("pattern", ["", "/a.tif"])
def test_a_path_that_is_not_relative_is_refused(folder, pattern):
    with pytest.raises(ConfigError, match="no path relative to"):
        expand_scenes(folder, [pattern])


def test_demo_is_the_folder_of_the_embedded_scene_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scenes_folder("demo") == demo_scene().parent
    assert str(scenes_folder("./demo")) == "demo"


def test_files_are_scenes_by_their_names_with_their_windows(folder):
    windows = {"exclude": {"a.tif": [0, 0, 8, 48]}, "val_windows": {"b.tif": [4, 0, 20, 24]}}
    selection = select_scenes(section(folder, **windows))
    (train,), (val,) = selection.train, selection.val
    assert (train.name, train.hr) == ("a.tif", (str(folder / "a.tif"),))
    assert train.exclude == ((slice(0, 8), slice(0, 48)),)
    assert (val.name, val.window) == ("b.tif", (slice(4, 24), slice(0, 24)))
    assert selection.table is None


@pytest.mark.parametrize("key", ["exclude", "val_windows"])
@pytest.mark.parametrize("name", ["c.tif", "A.tif", "*.tif"])
def test_a_window_of_no_scene_is_refused(folder, key, name):
    with pytest.raises(ConfigError, match=r"is no such path|matches no file"):
        select_scenes(section(folder, **{key: {name: [0, 0, 4, 4]}}))


@pytest.mark.parametrize(("key", "name"), [("exclude", "a.tif"), ("val_windows", "b.tif")])
def test_a_window_that_reaches_beyond_its_scene_is_refused(folder, key, name):
    with pytest.raises(ConfigError, match=rf"reaches beyond {name}, which has \d+ rows"):
        select_scenes(section(folder, **{key: {name: [30, 0, 40, 4]}}))


@pytest.mark.parametrize(
    "settings",
    [
        {"val_scenes": ["a.tif"]},
        {"train_scenes": ["*.tif"]},
        {"val_scenes": ["a.tif"], "val_windows": {"a.tif": [0, 0, 32, 48]}},
        {"val_scenes": ["a.tif"], "exclude": {"a.tif": [0, 0, 32, 48]}},
        {
            "val_scenes": ["a.tif"],
            "exclude": {"a.tif": [0, 0, 31, 48]},
            "val_windows": {"a.tif": [0, 0, 32, 48]},
        },
    ],
)
def test_a_pixel_that_is_trained_and_validated_on_is_refused(folder, settings):
    with pytest.raises(ConfigError, match=r"in Data\.train_scenes and in Data\.val_scenes, so validation"):
        select_scenes(section(folder, **settings))


def test_one_scene_can_be_divided(folder):
    window = {"a.tif": [0, 0, 20, 48]}
    selection = select_scenes(section(folder, val_scenes=["a.tif"], exclude=window, val_windows=window))
    assert selection.train[0].exclude == (selection.val[0].window,)


def test_no_training_scene_is_an_error(folder):
    with pytest.raises(ConfigError, match="must name a scene"):
        select_scenes(section(folder, train_scenes=[]))


def test_a_folder_that_is_no_store_is_refused(folder):
    with pytest.raises(InputError, match="is no training store"):
        select_scenes(section(folder, dataset_type="store"))


def test_a_data_set_of_the_catalogue_is_found_by_name():
    selection = select_scenes(section("demo", catalog="geosr-demo", train_scenes=[], val_scenes=[]))
    assert [scene.hr for scene in selection.train] == [(str(demo_scene()),)]
    assert without_lr(selection.train)
    with pytest.raises(ConfigError, match=r"val_scenes \(nothing\*\) matches none of 1 scenes"):
        select_scenes(section("demo", catalog="geosr-demo", train_scenes=[], val_scenes=["nothing*"]))


# The example set

VIRGINIA = [f"virginia_coast_{letter}.tif" for letter in "abcd"]


def names(scenes):
    return [scene.name for scene in scenes]


@pytest.mark.parametrize(
    "data",
    [
        DataSection(root="example", train_scenes=["**/*.tif"]),
        DataSection(root="example"),
        DataSection(catalog="example"),
        DataSection(root="elsewhere", catalog="Example", train_scenes=["*.tif"]),
        DataSection(root="example", train_scenes=["s2/a.tif"], val_scenes=["s2/b.tif"], exclude={"s2/a.tif": [0] * 4}),
    ],
)
def test_the_example_set_trains_on_one_place_and_validates_on_others(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = select_scenes(data)
    assert names(chosen.train) == VIRGINIA
    assert len(chosen.val) == 6
    assert all(name.startswith("bigearthnet_") for name in names(chosen.val))
    assert "for trying out" in chosen.notice
    assert "Data.root=" in chosen.notice
    assert ("s2/a.tif" in chosen.notice) == ("s2/a.tif" in data.train_scenes)


def test_scenes_of_the_example_set_may_be_chosen():
    some = select_scenes(DataSection(root="example", train_scenes=["virginia_coast_[ab].tif"]))
    assert (names(some.train), some.val) == (VIRGINIA[:2], ())
    windows = {"virginia_coast_a.tif": [0, 0, 256, 512]}
    part = select_scenes(
        DataSection(
            root="example", train_scenes=VIRGINIA[:1], val_scenes=VIRGINIA[:1], exclude=windows, val_windows=windows
        )
    )
    assert part.train[0].exclude == (part.val[0].window,)
    with pytest.raises(ConfigError, match="matches none of 10 scenes"):
        select_scenes(DataSection(root="example", train_scenes=["virginia*.tif"], val_scenes=["s2/b.tif"]))


def test_a_folder_of_ones_own_is_never_the_example(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"matches no file in \./example"):
        expand_scenes("./example", ["a.tif"])
    own = select_scenes(DataSection(root=str(folder), train_scenes=["**/*.tif"]))
    assert (names(own.train), own.val, own.notice) == (["a.tif", "b.tif"], (), None)
    with pytest.raises(ConfigError, match=r"must name a scene below Data\.root .*Data\.root=example is a set to try"):
        select_scenes(DataSection())


def test_scenes_of_the_shipped_models_say_where_they_are_from(folder):
    with pytest.raises(ConfigError, match=r"(?s)matches no file .*training_scenes\.yaml says .*Data\.root=example"):
        expand_scenes(folder, ["s2/s2100k_[24578]*_10m.tif"])
    with pytest.raises(ConfigError, match=r"set Data\.root to the folder of the scenes$"):
        expand_scenes(folder, ["mine.tif"])


@pytest.mark.parametrize("size", [96, 192])
def test_the_example_set_is_split_for_any_scale(size):
    """Patches of 48 LR pixels at x2 and x4."""
    scenes = select_scenes(DataSection(root="example", train_scenes=["virginia*.tif"])).train
    table = SceneDataset(scenes, ["B08"], size=size, stride=16, split=BlockSplit()).table
    assert {0, 1, 2} <= set(table.split)
    assert set(table.valid) == {1}


def test_the_example_set_is_small_whole_and_apart_from_the_demo_scene():
    paths = sorted(example_folder().glob("*.tif"))
    assert sum(path.stat().st_size for path in example_folder().iterdir()) < 6_000_000
    pixels = 0
    with open_scene(demo_scene()) as demo:
        place = shapely.box(*demo.geobox.boundingbox)
    for path in paths:
        with open_scene(path) as scene:
            assert scene.bands == ("B02", "B03", "B04", "B08")
            assert scene.radiometry.scale == 1e-4
            raster = scene.read()
            assert raster.valid.all()
            assert 0.005 < np.median(raster.array) < 0.5
            pixels += raster.valid.size
            if scene.geobox.crs == demo.geobox.crs:
                assert shapely.box(*scene.geobox.boundingbox).distance(place) >= 640
    assert pixels / 128**2 > 65


def test_the_example_set_is_what_its_sources_hold(shared_data):
    for path in example_folder().glob("*.tif"):
        with open_scene(path) as scene:
            dn, bounds = scene.read_digital(), scene.geobox.boundingbox
        source = "virginia_coast" if "virginia" in path.name else path.stem
        with open_scene(shared_data / "s2" / f"{source}_10m.tif") as whole:
            np.testing.assert_array_equal(dn, whole.read_digital(window_of_bounds(whole.geobox, bounds)))
