"""What a prediction becomes: a Cloud-Optimised GeoTIFF, a folder of them with one band each, or a Zarr group.

Shards come from any process in any order. Each is a file of its own, which has its name only when it is whole: two
processes that do the same shard write the same bytes, and neither can harm the other.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Literal, Protocol
from uuid import uuid4
from zlib import crc32

import numpy as np
import zarr
from numpy.typing import NDArray

from geosr import files
from geosr.errors import OutputError, UsageError
from geosr.grid import BLOCK, Window, size
from geosr.inference.journal import Staged
from geosr.io.blocks import Block, BlockFile, require_file, store_blocks, stored_blocks
from geosr.io.cog import Profile, add_overviews, blocks_of, encode, halve, overview_place, verify, write_cog
from geosr.io.scene import open_scene
from geosr.io.shards import ShardedArray, encode_chunk
from geosr.io.targets import Target
from geosr.io.work import make_folder, work_folder
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

    def assemble(self, executor: Executor) -> None:
        """Make the result of all shards in the work folder, and check it.

        Raises:
            OutputError: A shard is missing, or the result is not as it was meant.
        """
        ...

    @property
    def finished(self) -> list[Path]:
        """Where the files of `paths` are in the work folder once they are made."""
        ...

    def staged(self) -> list[Staged]:
        """What was assembled, with the names that it is to have."""
        ...


def plan_output(out: str | os.PathLike[str], profile: Profile, *, shard: int, job: str = "") -> Output:
    """The output that a name asks for.

    Args:
        out: What `kind_of` takes.
        profile: Everything about the result but its pixels.
        shard: Side of a shard, SR pixels.
        job: What tells this job from others with the same target, in letters that a file's name may have. A worker that
            is still at another one, whose client is gone, stores nothing here.

    Raises:
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
    parts = {"": profile}
    if kind == "folder":
        parts = {
            _file_of(band): replace(profile, bands=(band,), radiometry=profile.encoding(band), encodings={})
            for band in profile.bands
        }
    side = 2 * BLOCK if shard % (2 * BLOCK) == 0 and len(profile.levels) > 1 else BLOCK
    return CogOutput(target, profile, side, parts, job)


def target_of(out: str | os.PathLike[str], bands: Sequence[str] = ()) -> Target:
    """What a result replaces, as far as its name and, of a folder, its bands tell; errors as for `kind_of`."""
    kind = kind_of(out)
    names = tuple(map(_file_of, bands)) if kind == "folder" else ()
    return Target(Path(out), "file" if kind == "tif" else kind, names)


def _file_of(band: str) -> str:
    """The file of a band in a folder; a name may come from a description, which is any text."""
    return f"{re.sub('[/:]', '_', band)}.tif"


def kind_of(out: str | os.PathLike[str]) -> Literal["tif", "zarr", "folder"]:
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
        make_folder(self._shards)

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
        path = self.shard_path(shard)
        if not _is_plain(path):
            files.remove(path)
        store_blocks(path, blocks, label=self._label(shard))

    def _label(self, shard: int) -> str:
        """What the file of a shard says it is: a copy of another one is taken for none."""
        return f"shard {shard} of {self.job}"

    def shard_path(self, shard: int) -> Path:
        """The file of a shard."""
        return self._shards / str(shard)

    def is_stored(self, shard: int) -> bool:
        """Whether the blocks of a shard are as they were written."""
        try:
            stored = stored_blocks(self.shard_path(shard), label=self._label(shard))
            return all(block.intact for block in stored.values())
        except (FileNotFoundError, ValueError):
            return False

    def assemble(self, executor: Executor) -> None:
        """Make the files of the blocks of all shards."""
        made: dict[str, dict[int, Block]] = {name: {} for name in self.files}
        for path in self._shards.iterdir():
            if path.name.isdecimal():
                for key, block in stored_blocks(path, label=self._label(int(path.name))).items():
                    name, _, index = key.rpartition(":")
                    made[name][int(index)] = block
        files.remove(self._finished)  # what a killed run finished may have the target's name, too
        for path in self.finished:
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, (name, profile) in zip(self.finished, self.files.items(), strict=True):
            with closing(BlockFile(work_folder(self.target) / "overviews")) as overviews:
                levels = add_overviews(overviews, made[name], profile, executor)
            write_cog(path, profile, levels, executor)
            verify(path, profile)

    @property
    def _finished(self) -> Path:
        return work_folder(self.target) / "finished"

    @property
    def finished(self) -> list[Path]:
        """Where the files are in the work folder."""
        return [self._finished / self.target.name / name for name in self.files]

    def staged(self) -> list[Staged]:
        """The file, or the folder as a whole, or the files where that is there: whatever else is in it stays."""
        if list(self.files) != [""] and not os.path.lexists(self.target):
            return [Staged(self._finished / self.target.name, self.target, fresh=True)]
        return [Staged(path, target) for path, target in zip(self.finished, self.paths, strict=True)]


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

    @property
    def _sums(self) -> Path:
        """Where a file for each shard says which one it is, and its checksum."""
        return work_folder(self.target) / f"shards-{self.job}.sums"

    def begin(self) -> None:
        """Make the group, its coordinates and the metadata of its array; what is damaged of them is made again."""
        make_folder(self._sums)
        made = self._group.with_name(f"shards-{uuid4().hex}.zarr")
        create_zarr(
            made,
            geobox=self.profile.geobox,
            bands=self.profile.bands,
            radiometry=self.profile.radiometry,
            chunk=CHUNK,
            shard=self.shard_side,
            attributes=self.profile.tags,
            overwrite=True,
        )
        (made / REFLECTANCE / "c" / "0").mkdir(parents=True)
        try:
            os.rename(made, self._group)
        except OSError:  # there is one of an earlier run, or another run that does another share was faster
            for path in sorted(made.rglob("*")):
                there = self._group / path.relative_to(made)
                if path.is_dir():
                    make_folder(there)
                elif not _is_plain(there):
                    files.remove(there)
                if path.is_file() and not (there.is_file() and there.read_bytes() == path.read_bytes()):
                    files.write(there, path.read_bytes(), folder=work_folder(self.target), sync=False)
            files.remove(made)

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
        path = self.shard_path(shard)
        if not _is_plain(path):
            files.remove(path)
        crc = array.write(divmod(shard, self._columns), chunks, folder=work_folder(self.target))
        files.write(self._sums / str(shard), self._sum(shard, crc), folder=work_folder(self.target), sync=False)

    def _sum(self, shard: int, crc: int) -> str:
        """What says which shard a file is, and whether it is as it was written: a copy of another is taken for none."""
        return f"shard {shard} of {self.job} {crc:08x}\n"

    def shard_path(self, shard: int) -> Path:
        """The file of a shard."""
        return self._array.path(divmod(shard, self._columns))

    def is_stored(self, shard: int) -> bool:
        """Whether the chunks of a shard are as they were written."""
        path, beside = self.shard_path(shard), self._sums / str(shard)
        try:
            require_file(path)
            require_file(beside)
            return beside.read_bytes() == self._sum(shard, _crc_of(path)).encode()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False

    @property
    def _columns(self) -> int:
        """Columns of shards."""
        return -(-self.profile.geobox.shape[1] // self.shard_side)

    def assemble(self, executor: Executor) -> None:
        """Check the group: it is where it was made."""
        self.begin()
        shards = range(prod(-(-side // self.shard_side) for side in self.profile.geobox.shape))
        held = {self.shard_path(shard) for shard in shards}
        found = {
            path for path in (self._group / REFLECTANCE / "c").rglob("*") if not path.is_dir() or path.is_symlink()
        }
        if missing := held - found:
            raise OutputError(
                f"{len(missing)} of {len(held)} shards of {self.target} are missing; the same command makes them"
            )
        if foreign := found - held:
            raise OutputError(f"{min(foreign)} is no shard of {self.target}; move it away")
        with open_scene(self._group) as scene:
            if (scene.geobox, scene.labels) != (self.profile.geobox, self.profile.bands):
                raise OutputError(f"{self._group} was written as {scene!r}, meant for {self.profile.geobox!r}")
            scene.read_digital(tuple(slice(length - 1, length) for length in self.profile.geobox.shape))  # type: ignore[arg-type]

    @property
    def finished(self) -> list[Path]:
        """Where the group is in the work folder."""
        return [self._group]

    def staged(self) -> list[Staged]:
        """The group."""
        return [Staged(self._group, self.target)]


def _is_plain(path: Path) -> bool:
    """Whether a path is that of a file, and neither of a link nor of anything else."""
    return path.is_file() and not path.is_symlink()


def _crc_of(path: Path) -> int:
    """The CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            crc = crc32(part, crc)
    return crc


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    held = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in held if file.is_file())
