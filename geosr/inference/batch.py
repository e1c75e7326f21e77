"""Many scenes, one after the other: one that fails stops none of the others."""

import json
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from geosr.errors import GeosrError, InputError, OutputError, UsageError
from geosr.inference.journal import PUBLISHING
from geosr.inference.outputs import kind_of
from geosr.inference.publish import item_of
from geosr.inference.tiled import Prediction
from geosr.io.targets import inputs_of, require_name, safe_name
from geosr.io.work import work_folder

log = logging.getLogger(__name__)

NAME = "{name}"
"""What stands for a scene's name in the name of an output."""


class Listed(NamedTuple):
    """A scene of a batch."""

    name: str
    sources: list[str]
    """What :func:`geosr.predict` takes."""


@dataclass
class Batch:
    """What became of many scenes."""

    done: list[Prediction] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Names of scenes whose output was there."""
    failed: dict[str, str] = field(default_factory=dict)
    """Of scenes that failed, by name, why."""


def predict_batch(
    listed: str | Path,
    out: str,
    predict: Callable[[list[str], str], Prediction],
    *,
    resume: bool = False,
    overwrite: bool = False,
    stac: bool = False,
) -> Batch:
    """Super-resolve all scenes of a list.

    Args:
        listed: What `read_list` takes.
        out: A folder for GeoTIFFs, or the name of an output with ``{name}`` in it: ``out/{name}.zarr``.
        predict: Super-resolves the sources of one scene into an output of that name.
        resume: Leave out scenes whose output is there.
        overwrite: Replace outputs that are there.
        stac: A scene is done when its STAC item is there, too.

    Raises:
        InputError: The list cannot be read.
        OutputError: Outputs are there and neither `resume` nor `overwrite` says what to do.
        UsageError: ``out`` names one file for all.
    """
    scenes = read_list(Path(listed))
    outputs = name_outputs(scenes, out)
    batch = Batch(failed=_confused(scenes, outputs, Path(listed), stac=stac))
    scenes = [scene for scene in scenes if scene.name and scene.name not in batch.failed]
    done = {scene.name for scene in scenes if is_done(outputs[scene.name], stac=stac)}
    if done and not (resume or overwrite):
        raise OutputError(
            f"{len(done)} of {len(scenes)} outputs are there, such as {outputs[min(done)]}; --resume leaves them "
            "out, --overwrite makes them again"
        )
    batch.skipped = sorted(done) if resume else []
    for number, scene in enumerate(scenes, start=1):
        if scene.name in batch.skipped:
            continue
        log.info("scene %d of %d: %s", number, len(scenes), scene.name)
        try:
            _make_folder(outputs[scene.name])
            batch.done.append(predict(scene.sources, outputs[scene.name]))
        except GeosrError as error:
            batch.failed[scene.name] = str(error)
            log.warning("%s failed: %s", scene.name, error)
        except Exception as error:  # a defect of geosr, or of a library, costs this scene only
            batch.failed[scene.name] = f"{type(error).__name__}: {error}"
            log.exception("%s failed", scene.name)
    return batch


def _confused(scenes: Sequence[Listed], outputs: Mapping[str, str], listed: Path, *, stac: bool) -> dict[str, str]:
    """Why scenes cannot be done, by name: they have none, share one, or their output is what another is read from."""
    times = Counter(scene.name for scene in scenes)
    inputs = inputs_of([listed, *(source for scene in scenes for source in scene.sources if "://" not in source)])
    failed = {}
    for scene in scenes:
        writes = [Path(outputs[scene.name]), *([item_of(outputs[scene.name])] if stac else [])]
        if not scene.name:
            failed[" ".join(scene.sources)] = "nothing of its name can be that of a file; give it another"
        elif times[scene.name] > 1:
            failed[scene.name] = (
                f"{times[scene.name]} scenes of the list are called {scene.name}, and their outputs would be one; "
                "give the files other names, or put them into several lists"
            )
        elif there := [path for path in writes if os.path.realpath(path) in inputs]:
            failed[scene.name] = f"{there[0]} would replace what is read; choose another folder or name"
    return failed


def is_done(out: str, *, stac: bool = False) -> bool:
    """Whether all files of a result are there, and no run was killed before it had given all of them their names."""
    target = Path(os.path.abspath(out))
    if not os.path.lexists(target) or os.path.lexists(work_folder(target) / PUBLISHING):
        return False
    whole = any(target.glob("*.tif")) if kind_of(out) == "folder" else target.exists()
    return whole and (not stac or item_of(out).exists())


def _make_folder(out: str) -> None:
    """Make the folder that an output lies in.

    Raises:
        OutputError: It cannot be made.
    """
    require_name(out)
    folder = Path(os.path.abspath(out)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be made: {error.strerror}") from error


def read_list(path: Path) -> list[Listed]:
    """The scenes of a list.

    Args:
        path: A text file with a scene in each line, its files separated by spaces (quotes keep spaces), ``#`` before a
            comment, paths counted from the list's folder; or what a STAC API answers to a search, as JSON: a
            FeatureCollection of items.

    Raises:
        InputError: It cannot be read, or holds no scene.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {path} cannot be read: {error}") from error
    scenes = _items(path, text) if path.suffix.lower() in (".json", ".geojson") else _lines(path, text)
    if not scenes:
        raise InputError(f"the list {path} holds no scene; write one in each line, or give what a STAC search found")
    return scenes


def _lines(path: Path, text: str) -> list[Listed]:
    scenes = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            files = shlex.split(line, comments=True)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}; close the quotes") from error
        if files:
            sources = [file if _is_address(file) else str(path.parent / file) for file in files]
            scenes.append(Listed(_name(files), sources))
    return scenes


def _items(path: Path, text: str) -> list[Listed]:
    try:
        found: dict[str, Any] = json.loads(text)
        features = found["features"]
        scenes = []
        for feature in features:
            links = {link.get("rel"): link["href"] for link in feature.get("links", ())}
            scenes.append(Listed(safe_name(feature["id"]), [os.fspath(links["self"])]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no answer to a STAC search, a FeatureCollection whose items have an id and a link to "
            f"themselves ({error!r})"
        ) from error
    return scenes


def _is_address(file: str) -> bool:
    """Whether a name does not depend on a folder: it is absolute, or begins with a scheme."""
    return bool(re.match(r"/|\w{2,}:", file))


def _name(files: Sequence[str]) -> str:
    """The name of a scene: that of its only file without the ending, or what the names of several begin with.

    >>> _name(["a/S2A_MSIL2A_20230625.SAFE.zip"]), _name(["T33UUB_B02_10m.jp2", "T33UUB_B03_10m.jp2"])
    ('S2A_MSIL2A_20230625', 'T33UUB')
    """
    stems = [re.sub(r"(\.SAFE)?\.\w+$", "", file.rstrip("/").rsplit("/", 1)[-1]) for file in files]
    if len(stems) == 1:
        return stems[0].lstrip(".")
    common = os.path.commonprefix(stems)  # noqa: RUF071  (of names, not of paths)
    return (re.sub(r"[_.-]?[^_.-]*$", "", common) or Path(files[0]).absolute().parent.name).lstrip(".")


def name_outputs(scenes: Sequence[Listed], out: str) -> dict[str, str]:
    """The output of each scene, by its name.

    Args:
        scenes: The scenes.
        out: A folder, or a name with ``{name}`` in it.

    Raises:
        UsageError: ``out`` names one file for all.
    """
    if NAME not in out:
        if kind_of(out) != "folder":
            raise UsageError(
                f"--out {out} would be one file for {len(scenes)} scenes; give a folder, or out/{NAME}.tif"
            )
        out = os.path.join(out, f"{NAME}.tif")
    return {scene.name: out.replace(NAME, scene.name) for scene in scenes}
