"""The scenes that a configuration names: files and windows, pairs, a prepared store, or a data set of the catalogue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from geosr.config.schema import DataSection
from geosr.data.patches import PatchTable, SceneFiles
from geosr.data.store import MANIFEST, open_store
from geosr.demo import demo_scene, example_folder
from geosr.errors import ConfigError
from geosr.grid import Window
from geosr.io.scene import open_scene

EXAMPLE = "example"
"""``Data.root`` or ``Data.catalog`` of the example set that comes with geosr."""


@dataclass(frozen=True)
class Selection:
    """What to train on, and what to validate on."""

    train: tuple[SceneFiles, ...]
    """Scenes that training patches come from; those of validation too, where a split parts the patches."""
    val: tuple[SceneFiles, ...] = ()
    """Scenes that are for validation alone; none: a split parts the patches of `train`."""
    table: PatchTable | None = None
    """The patches of a prepared store, with their split."""
    notice: str | None = None
    """What a reader of the run's first line must know of these scenes."""


def select_scenes(data: DataSection) -> Selection:
    """The scenes of a configuration's ``Data`` section.

    Raises:
        ConfigError: A pattern matches nothing, a window does not fit, or a pixel would be trained and validated on.
        InputError: A folder or a store does not hold what it should.
    """
    if is_example(data):
        return _of_example(data)
    if (Path(data.root) / MANIFEST).is_file() or data.dataset_type == "store":
        return _of_store(data)
    if data.dataset_type == "pairs":
        return _parted(_pairs(data), data)
    if data.catalog is not None:
        from geosr.data.catalog import get_collection, scenes_of

        scenes = scenes_of(data.catalog, scenes_folder(data.root))
        return _parted(scenes, data, validation=get_collection(data.catalog).validation)
    return _of_files(data)


def is_example(data: DataSection) -> bool:
    """Whether a configuration asks for the example set that comes with geosr."""
    if data.catalog is not None:
        return data.catalog.lower() == EXAMPLE
    return data.root == EXAMPLE and data.dataset_type == "scenes"


def _of_example(data: DataSection) -> Selection:
    """The example set: the scenes that the configuration names, or, where it names none of them, the whole set."""
    from geosr.data.catalog import get_collection, scenes_of

    scenes, patterns = scenes_of(EXAMPLE, EXAMPLE), (*data.train_scenes, *data.val_scenes)
    foreign = bool(patterns) and not any(_named(scene, patterns) for scene in scenes)
    if foreign:  # written for scenes that are not there, with windows in them
        data = replace(data, train_scenes=[], val_scenes=[], exclude={}, val_windows={})
    if data.exclude or data.val_windows:
        chosen = _of_files(data)
    else:
        chosen = _parted(scenes, data, validation=get_collection(EXAMPLE).validation)
    notice = (
        "example set: these scenes come with geosr (the coast of Virginia to train on, six places in Europe to "
        "validate on) and are for trying out, too few for a model to use; train on your own with Data.root=FOLDER"
    )
    if foreign:
        notice += "\n  what the configuration says of other scenes (" + " ".join(patterns[:3]) + " ...) is left aside"
    return replace(chosen, notice=notice)


def scenes_folder(root: str | Path) -> Path:
    """Folder that scene paths are relative to; ``demo`` and ``example`` are those of the scenes that come with geosr.

    Folders of one's own that have these names are ``./demo`` and ``./example``.
    """
    shipped = {"demo": demo_scene().parent, EXAMPLE: example_folder()}
    return shipped.get(str(root), Path(root))


def expand_scenes(root: str | Path, patterns: Sequence[str]) -> list[Path]:
    """The files below ``root`` that the paths and globs name, in order, each once.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    folder = scenes_folder(root)
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern or Path(pattern).is_absolute():
            raise ConfigError(f"scene {pattern!r} is no path relative to Data.root, which is {root}")
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise ConfigError(
                f"scene {pattern!r} matches no file in {root}; set Data.root to the folder of the scenes"
                + _rebuilt(pattern)
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def _rebuilt(pattern: str) -> str:
    """How to come by scenes of the shipped models' own training, which do not come with geosr."""
    from geosr.data.catalog import catalog_file

    listed = catalog_file().with_name("training_scenes.yaml")
    if not listed.is_file() or not any(
        fnmatch(line.split(": ", 1)[1], pattern)
        for line in listed.read_text("utf-8").splitlines()
        if line.startswith("- path: ")
    ):
        return ""
    return (
        f".\n  It is one of the scenes of geosr's own models, which do not come with geosr; {listed} says where each "
        "is from, so that you can gather them again.\n  To try the configuration on the example set: Data.root=example"
    )


def _of_store(data: DataSection) -> Selection:
    """Everything that a prepared store holds; its bands must include those that are wanted, its patches their size."""
    store = open_store(data.root)
    if missing := [band for band in data.bands if band not in store.bands]:
        raise ConfigError(
            f"{data.root} holds {' '.join(store.bands)}, not {' '.join(missing)}; prepare it with --bands "
            f"{','.join(data.bands)}, or set Data.bands"
        )
    return Selection(store.scenes, table=store.table)


def _pairs(data: DataSection) -> list[SceneFiles]:
    """LR and HR images of two folders, matched by name."""
    from geosr.data.sources import find_sources

    if data.lr_root is None:
        raise ConfigError("Data.dataset_type: pairs needs Data.lr_root, the folder of LR images; root is that of HR")
    return [source.files for source in find_sources([], bands=data.bands, lr=data.lr_root, hr=data.root).scenes]


def _named(scene: SceneFiles, patterns: Sequence[str]) -> bool:
    """Whether a scene's name matches one of the patterns; ``**/`` stands for any number of folders, also none."""
    return any(Path(scene.name).match(pattern.removeprefix("**/")) for pattern in patterns)


def _parted(scenes: Sequence[SceneFiles], data: DataSection, *, validation: Sequence[str] = ()) -> Selection:
    """Scenes that are found rather than listed; ``train_scenes`` and ``val_scenes`` choose among their names.

    Those that match ``validation`` are for validation where the configuration names none for it.
    """
    chosen = {}
    for key in ("train_scenes", "val_scenes"):
        patterns = getattr(data, key)
        chosen[key] = [scene for scene in scenes if _named(scene, patterns)]
        if patterns and not chosen[key]:
            raise ConfigError(f"Data.{key} ({' '.join(patterns)}) matches none of {len(scenes)} scenes in {data.root}")
    val, train = chosen["val_scenes"], chosen["train_scenes"]
    if not val:
        val = [scene for scene in train or scenes if _named(scene, validation)]
        train = [scene for scene in train or scenes if scene not in val]
        if not train:  # they were named to train on
            val, train = [], val
    train = train or [scene for scene in scenes if scene not in val]
    if both := [scene.name for scene in train if scene in val]:
        raise ConfigError(f"{both[0]} is in Data.train_scenes and in Data.val_scenes, so validation would flatter")
    return Selection(tuple(train), tuple(val))


def _of_files(data: DataSection) -> Selection:
    """Files below ``root``, with the windows that are kept out of training or validated on."""
    if not data.train_scenes:
        raise ConfigError(
            f"Data.train_scenes must name a scene below Data.root ({data.root}), such as '**/*.tif' for all; "
            "Data.root=example is a set to try training on"
        )
    folder = scenes_folder(data.root)
    for name in (*data.exclude, *data.val_windows):  # a misspelt name would let the window into training
        if [path.relative_to(folder).as_posix() for path in expand_scenes(data.root, [name])] != [name]:
            raise ConfigError(
                f"a window belongs to one scene, named by its path in {data.root}; {name!r} is no such path"
            )
    train, val = (
        {path.relative_to(folder).as_posix(): _files(path, data.companions) for path in expand_scenes(data.root, names)}
        for names in (data.train_scenes, data.val_scenes)
    )
    excluded = {name: _window(data.exclude, name, train.get(name)) for name in data.exclude}
    windows = {name: _window(data.val_windows, name, val.get(name)) for name in data.val_windows}
    for name in train.keys() & val.keys():
        _require_apart(name, val[name], excluded.get(name), windows.get(name))
    return Selection(
        tuple(
            SceneFiles(name, files, exclude=(excluded[name],) if name in excluded else ())
            for name, files in train.items()
        ),
        tuple(SceneFiles(name, files, window=windows.get(name)) for name, files in val.items()),
    )


def _files(path: Path, companions: Mapping[str, str]) -> tuple[str, ...]:
    """The files of a scene: the one that is named, and the one with its coarser bands."""
    files = [path]
    for end, other in companions.items():
        if path.name.endswith(end):
            files.append(path.with_name(path.name.removesuffix(end) + other))
            if not files[-1].is_file():
                raise ConfigError(
                    f"{path.name} ends in {end}, and its companion {files[-1].name} is not beside it; name it so, or "
                    "change Data.companions"
                )
    return tuple(map(str, files))


def _window(windows: Mapping[str, Sequence[int]], name: str, files: tuple[str, ...] | None) -> Window:
    """The pixels of a window [row, column, height, width], which must lie inside its scene."""
    row, column, height, width = windows[name]
    if files is not None:
        with open_scene(files) as scene:
            shape = scene.geobox.shape
        if row + height > shape[0] or column + width > shape[1]:
            raise ConfigError(
                f"window {list(windows[name])} (row, column, height, width) reaches beyond {name}, "
                f"which has {shape[0]} rows and {shape[1]} columns"
            )
    return slice(row, row + height), slice(column, column + width)


def _require_apart(name: str, files: tuple[str, ...], excluded: Window | None, validated: Window | None) -> None:
    """Raise unless no pixel that is validated on is trained on."""
    with open_scene(files) as scene:
        trained = np.ones(scene.geobox.shape, bool)
    if excluded is not None:
        trained[excluded] = False
    if trained[validated or ...].any():
        raise ConfigError(
            f"{name} is in Data.train_scenes and in Data.val_scenes, so validation would flatter; keep what is "
            "validated on out of training with Data.exclude, or validate on another part with Data.val_windows"
        )


def without_lr(scenes: Sequence[SceneFiles]) -> bool:
    """Whether LR images are still to be made; scenes are all pairs or none is.

    Raises:
        ConfigError: Some are pairs and some are not.
    """
    kinds = {bool(scene.lr) for scene in scenes}
    if len(kinds) > 1:
        raise ConfigError("some scenes have LR images and some have none; train on one kind at a time")
    return kinds == {False}
