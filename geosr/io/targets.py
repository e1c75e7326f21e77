"""Targets: every file and folder that a command writes, checked together against what it reads and what exists."""

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from geosr.errors import OutputError, UsageError
from geosr.files import require_replaceable, same_file
from geosr.io.origins import local_files
from geosr.io.work import work_folder

_LONGEST = 255  # bytes of a file's name on every usual file system


@dataclass(frozen=True)
class Target:
    """A file, a Zarr store or a folder of files that is to be written."""

    path: Path
    kind: Literal["file", "zarr", "folder"] = "file"
    names: tuple[str, ...] = ()
    """Of a folder, the files in it that are written; what else is in it stays."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What is replaced: the files in a folder, else the file or store itself."""
        return tuple(self.path / name for name in self.names) if self.kind == "folder" else (self.path,)


def inputs_of(sources: Iterable[str | os.PathLike[str] | None]) -> set[str]:
    """The files and stores of this machine behind whatever a command reads; see `geosr.io.origins.local_files`."""
    return {file for source in sources if source is not None for file in local_files(os.fspath(source))}


def require_free(
    targets: Sequence[Target], inputs: Collection[str], *, overwrite: bool, done: Collection[Path] = ()
) -> None:
    """Refuse targets that cannot be written, or whose writing would lose what exists.

    Args:
        targets: Everything that is written.
        inputs: Files and stores that are read, as `inputs_of` gives them.
        overwrite: Replace what exists; an input is never replaced.
        done: Targets that an earlier run of the same work has written.

    Raises:
        OutputError: One is an input or another target, exists, lies in what is read or replaced, or where nothing can
            be written.
        UsageError: A name is empty, or no name of a file.
    """
    for target in targets:
        require_name(target.path)
    for target in targets:
        _require_kind(target)
        _require_place(target.path)
        _require_apart(target, inputs)
    for first, second in combinations(targets, 2):
        _require_different(first, second)
    for target in targets:
        for file in target.files:
            require_replaceable(file)
        there = [file for file in target.files if os.path.lexists(file) and not overwrite and not _is_among(file, done)]
        if there and target.kind == "folder":
            names = " ".join(file.name for file in there)
            raise OutputError(f"{target.path} holds {names} already; give --overwrite to replace them")
        if there:
            raise OutputError(f"{target.path} exists; give --overwrite to replace it")


def _is_among(file: Path, done: Collection[Path]) -> bool:
    """Whether a file, or the folder that it is in, is one of these."""
    whole = Path(os.path.abspath(file))
    return whole in done or whole.parent in done


def require_name(path: str | os.PathLike[str]) -> None:
    """Refuse what no file or folder can be called.

    Raises:
        UsageError: It is empty, the root folder, longer than file systems allow, or no text.
    """
    text = os.fspath(path)
    shown = ascii(text if len(text) <= 80 else f"{text[:80]}...")
    name = os.path.basename(os.path.abspath(text)) if text and "\0" not in text else ""
    if not name:
        raise UsageError(f"{shown} is no name of an output; give that of a file, or of a folder")
    try:
        longest = max(len(part.encode()) for part in text.split("/"))
    except UnicodeEncodeError as error:
        raise UsageError(f"{shown} is no text in UTF-8; give the output another name") from error
    if longest > _LONGEST:
        raise UsageError(f"{shown} has a name of {longest} bytes in it; file systems allow {_LONGEST}")


def _require_kind(target: Target) -> None:
    """Refuse a file where a folder is, and the other way round."""
    path = target.path
    if target.kind == "file":
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file in it")
    elif target.kind == "zarr":
        if os.path.lexists(path) and not (path / "zarr.json").is_file():
            raise OutputError(f"{path} exists and is no Zarr group; choose another name")
    elif os.path.lexists(path):
        if not path.is_dir():
            raise OutputError(f"{path} is a file; give the name of a folder, or one in .tif or .zarr")
        if not os.access(path, os.W_OK):
            raise OutputError(f"folder {path} is not writable")


def _require_apart(target: Target, inputs: Collection[str]) -> None:
    """Refuse a target that is an input, lies in one, or takes one with it when it is replaced."""
    work = work_folder(Path(os.path.abspath(target.path)))
    for source in inputs:
        for file in target.files:
            if same_file(source, file):
                raise OutputError(f"{file} is another file of this run, {source}; choose another name")
            if _lies_in(file, source):
                raise OutputError(f"{file} lies inside the input {source}; choose another folder")
            if _lies_in(source, file) or _lies_in(source, work):
                raise OutputError(f"the input {source} lies inside {file}, which is replaced; choose another name")


def _require_different(first: Target, second: Target) -> None:
    """Refuse two targets that would be one file, or of which one would lie in the other."""
    work = [work_folder(Path(os.path.abspath(target.path))) for target in (first, second)]
    for one in first.files or (first.path,):
        for other in second.files or (second.path,):
            if same_file(one, other):
                raise OutputError(f"{one} is another file of this run, {other}; choose another name")
            inside = _lies_in(other, one) or _lies_in(one, other) or _lies_in(other, work[0]) or _lies_in(one, work[1])
            if inside:
                raise OutputError(f"{one} and {other} lie in each other, or in work on the way; choose another name")


def _lies_in(inner: str | Path, outer: str | Path) -> bool:
    """Whether a path lies below another; neither needs to exist."""
    return Path(os.path.realpath(outer)) in Path(os.path.realpath(inner)).parents


def _require_place(path: Path) -> None:
    """Refuse a target without a folder that it can be written in."""
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"folder {folder} is not writable")


def safe_name(text: str) -> str:
    """The name of a file in the folder that it is put into, which any text becomes; empty where nothing is left of it.

    >>> safe_name("../../etc/a b"), safe_name(".."), safe_name("S2A_T33UUB.SAFE")
    ('_.._etc_a_b', '', 'S2A_T33UUB.SAFE')
    """
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".")
