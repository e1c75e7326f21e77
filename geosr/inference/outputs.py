"""What a prediction becomes: a Cloud-Optimised GeoTIFF, a folder of them with one band each, or a Zarr group.

Shards come from any process in any order. Each is a file of its own, which has its name only when it is whole: two
processes that do the same shard write the same bytes, and neither can harm the other.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray

from geosr.errors import OutputError, UsageError
from geosr.grid import BLOCK, Window, size
from geosr.io.blocks import Block, BlockFile, store_blocks, stored_blocks
from geosr.io.cog import Profile, add_overviews, blocks_of, encode, halve, overview_place, verify, write_cog
from geosr.io.scene import open_scene
from geosr.io.shards import ShardedArray, encode_chunk
from geosr.io.work import work_folder
from geosr.io.zarr import REFLECTANCE, create_zarr

CHUNK = 256
"""Side of a Zarr chunk, pixels."""


class Output(Protocol):
    """A result that grows in a work folder beside its target, on a file system that every worker reaches."""

    @property
    def name(self) -> str:
        """What it was asked for by: an absolute path, a folder's with a slash behind it."""
        ...

    @property
    def target(self) -> Path:
        """What it will be."""
        ...

    @property
    def profile(self) -> Profile:
        """Everything about it but its pixels."""
        ...

    @property
    def part_side(self) -> int:
        """Side of what is encoded at once, SR pixels."""
        ...

    @property
    def paths(self) -> list[Path]:
        """What the finished result is opened by."""
        ...

    def begin(self) -> None:
        """Make in the work folder what shards go into, unless an earlier run did."""
        ...

    def encode(self, part: Window, sr: NDArray[np.float32]) -> dict[str, bytes]:
        """Compressed blocks of a part, which begins at a multiple of `part_side`: SR reflectance, NaN where invalid."""
        ...

    def store(self, shard: int, blocks: Mapping[str, bytes]) -> None:
        """Put the blocks of all parts of a shard on disk.

        Raises:
            OSError: They cannot be written.
        """
        ...

    def shard_path(self, shard: int) -> Path:
        """The file of a shard, which is there when it is whole."""
        ...

    def is_stored(self, shard: int) -> bool:
        """Whether a shard is on disk, as it was written."""
        ...

    def publish(self, executor: Executor) -> None:
        """Make the result of all shards, check it, and give it the target's name."""
        ...


def plan_output(
    out: str | os.PathLike[str], profile: Profile, *, shard: int, job: str = "", overwrite: bool = False
) -> Output:
    """The output that a name asks for.

    Args:
        out: What `kind_of` takes.
        profile: Everything about the result but its pixels.
        shard: Side of a shard, SR pixels.
        job: What tells this job from others with the same target, in letters that a file's name may have. A worker that
            is still at another one, whose client is gone, stores nothing here.
        overwrite: Replace a band's file that is in the folder.

    Raises:
        OutputError: A band's file exists already.
        UsageError: The ending is another, or a Zarr group cannot hold the bands.
    """
    target, kind = Path(os.path.abspath(out)), kind_of(out)
    if kind == "zarr":
        if any(profile.encoding(band) != profile.radiometry for band in profile.bands):
            raise UsageError(
                f"{target} would hold {' '.join(profile.bands)} in one array, and their encodings differ; "
                "add --dtype float32, or write a GeoTIFF"
            )
        return ZarrOutput(target, profile, shard, job)
    files = {"": profile}
    if kind == "folder":
        names = [re.sub("[/:]", "_", band) for band in profile.bands]  # a description may be any text
        files = {
            f"{name}.tif": replace(profile, bands=(band,), radiometry=profile.encoding(band), encodings={})
            for name, band in zip(names, profile.bands, strict=True)
        }
        if not overwrite and (there := [name for name in files if (target / name).exists()]):
            raise OutputError(f"{out} holds {' '.join(there)} already; give --overwrite to replace them")
    side = 2 * BLOCK if shard % (2 * BLOCK) == 0 and len(profile.levels) > 1 else BLOCK
    return CogOutput(target, profile, side, files, job)


def kind_of(out: str | os.PathLike[str]) -> str:
    """``tif``, ``zarr`` or ``folder``: what a name asks for.

    Raises:
        UsageError: It ends in something else.

    >>> kind_of("sr.tif"), kind_of("sr.zarr"), kind_of("bands/"), kind_of("bands")
    ('tif', 'zarr', 'folder', 'folder')
    """
    name = os.fspath(out)
    ending = Path(name).suffix.lower()
    if ending == ".zarr":
        return "zarr"
    if name.endswith(("/", os.sep)) or os.path.isdir(name) or not ending:
        return "folder"
    if ending in (".tif", ".tiff"):
        return "tif"
    raise UsageError(f"{name} ends in {ending}; give a name in .tif or .zarr, or a folder for one file per band")


@dataclass(frozen=True)
class CogOutput:
    """One GeoTIFF with all bands, or several."""

    target: Path
    profile: Profile
    part_side: int
    files: Mapping[str, Profile]
    """Of each file, its name in the target, empty where the target is the file, and its bands."""
    job: str

    @property
    def name(self) -> str:
        """What it was asked for by."""
        return str(self.target) if list(self.files) == [""] else f"{self.target}/"

    @property
    def paths(self) -> list[Path]:
        """What the finished result is opened by."""
        return [self.target / name for name in self.files]

    @property
    def _shards(self) -> Path:
        return work_folder(self.target) / f"shards-{self.job}"

    def begin(self) -> None:
        """Make the folder of shards."""
        self._shards.mkdir(exist_ok=True)

    def encode(self, part: Window, sr: NDArray[np.float32]) -> dict[str, bytes]:
        """Compressed blocks of a part, and those of the first overview that it fills."""
        digital = self.profile.to_digital(sr)
        blocks = {}
        for name, profile in self.files.items():
            planes = digital[[self.profile.bands.index(band) for band in profile.bands]]
            for index, (rows, columns) in blocks_of(part, profile.levels[0]):
                blocks[f"{name}:{index}"] = encode(planes[:, rows, columns])
            if self.part_side > BLOCK:
                blocks[f"{name}:{overview_place(part, profile)}"] = encode(halve(planes, profile.radiometry))
        return blocks

    def store(self, shard: int, blocks: Mapping[str, bytes]) -> None:
        """Put the blocks of a shard into a file of their own."""
        store_blocks(self.shard_path(shard), blocks)

    def shard_path(self, shard: int) -> Path:
        """The file of a shard."""
        return self._shards / str(shard)

    def is_stored(self, shard: int) -> bool:
        """Whether the blocks of a shard are as they were written."""
        try:
            return all(block.intact for block in stored_blocks(self.shard_path(shard)).values())
        except (FileNotFoundError, ValueError):
            return False

    def publish(self, executor: Executor) -> None:
        """Assemble the files, check them, and move them to the target."""
        finished = work_folder(self.target) / "finished"
        finished.mkdir(exist_ok=True)
        made: dict[str, dict[int, Block]] = {name: {} for name in self.files}
        for path in self._shards.iterdir():
            if not path.name.startswith("."):
                for key, block in stored_blocks(path).items():
                    name, _, index = key.rpartition(":")
                    made[name][int(index)] = block
        for name, profile in self.files.items():
            with closing(BlockFile(work_folder(self.target) / "overviews")) as overviews:
                levels = add_overviews(overviews, made[name], profile, executor)
            path = finished / (name or self.target.name)
            write_cog(path, profile, levels, executor)
            verify(path, profile)
        if list(self.files) == [""]:
            os.replace(finished / self.target.name, self.target)
        elif self.target.exists():  # whatever else is in the user's folder stays
            for name in self.files:
                os.replace(finished / name, self.target / name)
        else:
            os.rename(finished, self.target)


@dataclass(frozen=True)
class ZarrOutput:
    """A Zarr v3 group as `create_zarr` makes it, whose shards are written by whoever has them."""

    target: Path
    profile: Profile
    shard_side: int
    job: str

    part_side = 2 * BLOCK

    @property
    def name(self) -> str:
        """What it was asked for by."""
        return str(self.target)

    @property
    def paths(self) -> list[Path]:
        """What the finished result is opened by."""
        return [self.target]

    @property
    def _group(self) -> Path:
        return work_folder(self.target) / f"shards-{self.job}.zarr"

    @cached_property
    def _array(self) -> ShardedArray:
        """How the array lies on disk."""
        array = zarr.open_array(self._group / REFLECTANCE, mode="r")
        sharded = ShardedArray.of(array)
        assert sharded is not None  # create_zarr made it
        return sharded

    def begin(self) -> None:
        """Make the group, its coordinates and the metadata of its array."""
        if self._group.exists():
            return
        unfinished = self._group.with_name(f"{uuid4().hex}.zarr")
        create_zarr(
            unfinished,
            geobox=self.profile.geobox,
            bands=self.profile.bands,
            radiometry=self.profile.radiometry,
            chunk=CHUNK,
            shard=self.shard_side,
            attributes=self.profile.tags,
            overwrite=True,
        )
        (unfinished / REFLECTANCE / "c" / "0").mkdir(parents=True)
        try:
            os.rename(unfinished, self._group)
        except OSError:
            if not self._group.exists():  # else another run that does another share was faster
                raise
            shutil.rmtree(unfinished)

    def encode(self, part: Window, sr: NDArray[np.float32]) -> dict[str, bytes]:
        """Compressed chunks of a part, by row and column in the array."""
        digital = self.profile.to_digital(sr)
        fill = self.profile.radiometry.nodata or 0
        first = [along.start // CHUNK for along in part]
        chunks = {}
        for row, column in np.ndindex(*(-(-length // CHUNK) for length in size(part))):
            rows, columns = (slice(step * CHUNK, (step + 1) * CHUNK) for step in (row, column))
            chunks[f"{first[0] + row}/{first[1] + column}"] = encode_chunk(digital[:, rows, columns], CHUNK, fill)
        return chunks

    def store(self, shard: int, blocks: Mapping[str, bytes]) -> None:
        """Put the chunks of a shard into its file."""
        array = self._array
        steps = [side // CHUNK for side in array.shard]
        chunks = {}
        for key, data in blocks.items():
            row, column = (int(along) % step for along, step in zip(key.split("/"), steps, strict=True))
            chunks[row, column] = data
        array.write(divmod(shard, self._columns), chunks, folder=work_folder(self.target))

    def shard_path(self, shard: int) -> Path:
        """The file of a shard."""
        return self._array.path(divmod(shard, self._columns))

    def is_stored(self, shard: int) -> bool:
        """Whether the chunks of a shard are as they were written."""
        return self._array.is_whole(divmod(shard, self._columns))

    @property
    def _columns(self) -> int:
        """Columns of shards."""
        return -(-self.profile.geobox.shape[1] // self.shard_side)

    def publish(self, executor: Executor) -> None:
        """Check the group and give it the target's name."""
        with open_scene(self._group) as scene:
            if (scene.geobox, scene.labels) != (self.profile.geobox, self.profile.bands):
                raise OutputError(f"{self._group} was written as {scene!r}, meant for {self.profile.geobox!r}")
            scene.read_digital(tuple(slice(length - 1, length) for length in self.profile.geobox.shape))  # type: ignore[arg-type]
        if self.target.exists():
            os.rename(self.target, self._group.with_name("replaced.zarr"))  # it goes with the work folder
        os.rename(self._group, self.target)


def check_target(out: str | os.PathLike[str], sources: Iterable[str], *, overwrite: bool) -> None:
    """Fail early where writing ``out`` would harm or cannot work.

    Raises:
        OutputError: It exists already, is one of the sources or lies in one, or lies where nothing can be written.
        UsageError: Its ending is none that is written.
    """
    target, kind = Path(out), kind_of(out)
    if kind == "tif":
        check_file(target, sources, overwrite=overwrite)
        return
    _check_place(target, sources)
    if kind == "folder" and target.exists():
        if not target.is_dir():
            raise OutputError(f"{target} is a file; give the name of a folder, or one in .tif or .zarr")
        if not os.access(target, os.W_OK):
            raise OutputError(f"folder {target} is not writable")
    if kind == "zarr" and target.exists():
        if not (target / "zarr.json").is_file():
            raise OutputError(f"{target} exists and is no Zarr group; choose another name")
        if not overwrite:
            raise OutputError(f"{target} exists; give --overwrite to replace it")


def check_file(target: Path, sources: Iterable[str], *, overwrite: bool) -> None:
    """Fail early where writing a file would harm or cannot work; errors as for `check_target`."""
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give the name of a file in it")
    _check_place(target, sources)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; give --overwrite to replace it")


def _check_place(target: Path, sources: Iterable[str]) -> None:
    """Fail where a target is one of the sources, lies in one, or has no folder to lie in."""
    for source in sources:
        if _same_file(source, target):
            raise OutputError(f"{target} is another file of this run, {source}; choose another name")
        if os.path.isdir(source) and Path(os.path.realpath(source)) in Path(os.path.realpath(target)).parents:
            raise OutputError(f"{target} lies inside the input {source}; choose another folder")
    if not target.parent.is_dir():
        raise OutputError(f"folder {target.parent} does not exist; make it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"folder {target.parent} is not writable")


def _same_file(first: str | Path, second: str | Path) -> bool:
    """Whether two paths mean one file, through links too; neither needs to exist."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
