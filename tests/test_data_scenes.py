import numpy as np
import pytest

from geosr.config.schema import DataSection
from geosr.data.scenes import expand_scenes, scenes_folder, select_scenes, without_lr
from geosr.demo import demo_scene
from geosr.errors import ConfigError, InputError

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
