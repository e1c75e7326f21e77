"""The scenes that a configuration names: files and windows, pairs, a prepared store, or a data set of the catalogue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geosr.config.schema import DataSection
from geosr.data.patches import PatchTable, SceneFiles
from geosr.data.store import MANIFEST, open_store
from geosr.demo import demo_scene
from geosr.errors import ConfigError
from geosr.grid import Window
from geosr.io.scene import open_scene


@dataclass(frozen=True)
class Selection:
    """What to train on, and what to validate on."""

    train: tuple[SceneFiles, ...]
    """Scenes that training patches come from; those of validation too, where a split parts the patches."""
    val: tuple[SceneFiles, ...] = ()
    """Scenes that are for validation alone; none: a split parts the patches of `train`."""
    table: PatchTable | None = None
    """The patches of a prepared store, with their split."""


def select_scenes(data: DataSection) -> Selection:
    """The scenes of a configuration's ``Data`` section.

    Raises:
        ConfigError: A pattern matches nothing, a window does not fit, or a pixel would be trained and validated on.
        InputError: A folder or a store does not hold what it should.
    """
    if (Path(data.root) / MANIFEST).is_file() or data.dataset_type == "store":
        return _of_store(data)
    if data.dataset_type == "pairs":
        return _parted(_pairs(data), data)
    if data.catalog is not None:
        from geosr.data.catalog import scenes_of

        return _parted(scenes_of(data.catalog, scenes_folder(data.root)), data)
    return _of_files(data)


def scenes_folder(root: str | Path) -> Path:
    """Folder that scene paths are relative to; ``demo`` is that of the scene that comes with geosr.

    A folder of one's own that has this name is ``./demo``.
    """
    return demo_scene().parent if root == "demo" else Path(root)


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
            raise ConfigError(f"scene {pattern!r} matches no file in {root}; set Data.root to the folder of the scenes")
        found.update(dict.fromkeys(matches))
    return list(found)


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


def _parted(scenes: Sequence[SceneFiles], data: DataSection) -> Selection:
    """Scenes that are found rather than listed; ``train_scenes`` and ``val_scenes`` choose among their names."""
    chosen = {}
    for key in ("train_scenes", "val_scenes"):
        patterns = getattr(data, key)
        chosen[key] = [scene for scene in scenes if any(Path(scene.name).match(pattern) for pattern in patterns)]
        if patterns and not chosen[key]:
            raise ConfigError(f"Data.{key} ({' '.join(patterns)}) matches none of {len(scenes)} scenes in {data.root}")
    val = chosen["val_scenes"]
    train = chosen["train_scenes"] or [scene for scene in scenes if scene not in val]
    if both := [scene.name for scene in train if scene in val]:
        raise ConfigError(f"{both[0]} is in Data.train_scenes and in Data.val_scenes, so validation would flatter")
    return Selection(tuple(train), tuple(val))


def _of_files(data: DataSection) -> Selection:
    """Files below ``root``, with the windows that are kept out of training or validated on."""
    if not data.train_scenes:
        raise ConfigError("Data.train_scenes must name a scene")
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
