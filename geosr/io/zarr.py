"""Zarr: rasters written as sharded Zarr v3 groups, and raster groups of any Zarr store read as a source of a scene.

One raster is one group: an array with dimensions ``band y x``, or an array ``y x`` for each band, with coordinates and
a grid mapping beside it; :mod:`geosr.io.cf` says in which words.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from operator import itemgetter
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from geosr.errors import GeosrError, GridError, InputError, OutputError, UsageError
from geosr.grid import Window, size
from geosr.io import cf
from geosr.io.shards import ShardedArray, compression
from geosr.io.source import StoredBand, unreadable, zarr_store
from geosr.io.zarr_damage import METADATA, damaged, reason, require_sizes
from geosr.radiometry import Radiometry

REFLECTANCE = "reflectance"
"""Name of the array that :func:`create_zarr` writes."""

_EOPF_10M = "measurements/reflectance/r10m"  # Sentinel-2 Level-1C and Level-2A products of the EOPF
_SPATIAL = {("y", "x"), ("lat", "lon"), ("latitude", "longitude"), ("northing", "easting")}
_LISTED = 12  # rasters that an error names
_BLOCKS = 16  # along each side of an image that is made of blocks from all over a large array


@dataclass(frozen=True)
class ZarrWriter:
    """A raster group that is being filled; made by :func:`create_zarr`.

    Windows may come in any order and from several processes, but a shard is one file: a window that covers a part of
    it reads and rewrites the whole, and two writers must not share one. :meth:`windows` avoids both.
    """

    path: str
    """The group, as :func:`geosr.io.scene.open_scene` takes it."""
    geobox: GeoBox
    bands: tuple[str, ...]
    radiometry: Radiometry
    shard: tuple[int, int]
    """Rows and columns of a shard."""
    _array: zarr.Array

    def windows(self) -> Iterator[Window]:
        """The windows that each fill one shard, row by row."""
        rows, columns = (
            [slice(start, min(start + step, length)) for start in range(0, length, step)]
            for step, length in zip(self.shard, self.geobox.shape, strict=True)
        )
        yield from product(rows, columns)

    def write(self, window: Window, dn: NDArray[Any]) -> None:
        """Store the digital numbers (DN) ``(band, y, x)`` of a window.

        Raises:
            GridError: Shape or type do not fit.
            OutputError: They cannot be written.
        """
        rows, columns = window
        expected = (len(self.bands), *size(window))
        if dn.shape != expected or dn.dtype != self._array.dtype:
            raise GridError(f"dn is {dn.dtype} {dn.shape}; the window needs {self._array.dtype} {expected}")
        try:
            self._array[:, rows, columns] = dn
        except OSError as error:
            raise OutputError(f"{self.path} could not be written: {error.strerror or error}") from error


def create_zarr(
    path: str | os.PathLike[str],
    *,
    geobox: GeoBox,
    bands: Sequence[str],
    radiometry: Radiometry,
    chunk: int = 256,
    shard: int = 2048,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ZarrWriter:
    """A new raster group whose pixels are written window by window.

    It is a Zarr v3 group with the array ``reflectance`` (digital numbers; one chunk holds all bands of ``chunk`` x
    ``chunk`` pixels), pixel-centre coordinates ``x`` and ``y`` and a grid mapping ``spatial_ref``.

    Args:
        path: ``store.zarr``, or ``store.zarr/group/sub``; groups on the way are made.
        geobox: The grid.
        bands: Band names.
        radiometry: How digital numbers encode reflectance; its ``dtype`` is stored.
        chunk: Side of a chunk, pixels.
        shard: Side of a shard, pixels: the unit of writing. Small scenes get smaller ones. The side of a chunk makes
            none, for readers that know no shards.
        attributes: Further attributes of the group.
        overwrite: Replace a group of this name.

    Raises:
        OutputError: The group exists, or cannot be written.
        UsageError: Shards are not made of whole chunks.
    """
    if chunk < 1 or shard < chunk or shard % chunk:
        raise UsageError(f"shard {shard} is not a multiple of chunk {chunk}")
    height, width = (min(shard, math.ceil(length / chunk) * chunk) for length in geobox.shape)
    try:
        group = _create_group(os.fspath(path), overwrite=overwrite)
        group.attrs.update({"Conventions": "CF-1.11", **cf.grid_attributes(geobox), **(attributes or {})})
        array = group.create_array(
            REFLECTANCE,
            shape=(len(bands), *geobox.shape),
            dtype=radiometry.dtype,
            chunks=(len(bands), chunk, chunk),
            shards=None if shard == chunk else (len(bands), height, width),
            # Readers that know no shards (GDAL before 3.13) know no checksum but that of zstd.
            compressors=ZstdCodec(level=1, checksum=True) if shard == chunk else compression(radiometry.dtype),
            fill_value=0 if radiometry.nodata is None else radiometry.nodata,
            dimension_names=("band", "y", "x"),
            attributes={**cf.encoding_attributes(radiometry), "long_name": list(bands), cf.COMPLETE: True},
            config={"write_empty_chunks": True},
        )
        cf.write_grid(group, geobox)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}") from error
    return ZarrWriter(os.fspath(path), geobox, tuple(bands), radiometry, (height, width), array)


def _create_group(path: str, *, overwrite: bool) -> zarr.Group:
    """A new, empty group, and those on the way to it."""
    root, inside = _split(path)
    exists = OutputError(f"{path} exists; choose another name, or overwrite it")
    if not inside:
        if os.path.exists(root) and not (overwrite and os.path.exists(os.path.join(root, "zarr.json"))):
            raise exists  # a folder of anything else is never emptied
        return zarr.create_group(root, overwrite=overwrite)
    group = zarr.open_group(root, mode="a", zarr_format=3)
    *parents, name = inside.split("/")
    for parent in parents:
        group = group.require_group(parent)
    if name in group and not overwrite:
        raise exists
    return group.create_group(name, overwrite=overwrite)


class ZarrGroup:
    """One raster group of a Zarr store; a :class:`geosr.io.source.Source`.

    A store that holds exactly one is opened by its own path, a Sentinel-2 product in EOPF layout as its 10 m bands.

    Raises:
        InputError: There is no such group, it is no raster, or there are several.
        GridError: The pixels lie on no regular grid.
    """

    product = None
    alpha: tuple[int, ...] = ()
    row_bytes = 0

    def __init__(self, path: str) -> None:
        self.path = path = path.rstrip("/")
        root, _ = zarr_store(path) or (path, "")
        try:
            self._inspect(path)
        except GeosrError:
            raise
        except Exception as error:  # whatever zarr, its codecs and its metadata make of damage
            raise damaged(root, error) from error

    def _inspect(self, path: str) -> None:
        """Collect every fact without reading a pixel."""
        root, inside = zarr_store(path) or (path, "")
        top = _open_store(root)
        node, band = _node(top, inside, path), None
        if isinstance(node, zarr.Array):  # one band of a group; its coordinates are beside it
            inside, _, band = inside.rpartition("/")
            node = _node(top, inside, path)
        assert isinstance(node, zarr.Group)  # an array holds nothing
        group, below = _raster_group(node, path)
        beside = dict(sorted(group.arrays()))
        self.name = "/".join(filter(None, (os.path.basename(root), inside, below, band)))
        arrays = {name: array for name, array in beside.items() if band in (None, name) and _is_raster(array)}
        shapes = {array.shape[-2:]: name for name, array in arrays.items()}
        if len(shapes) != 1:
            told = ", ".join(f"{name} {shape}" for shape, name in shapes.items()) or "none with dimensions y x"
            raise InputError(f"{self.name} has rasters of different shapes, or none ({told}); open one of one shape")
        for array in arrays.values():
            require_sizes(array)
        self.geobox = cf.stored_geobox(
            next(iter(arrays.values())), beside, dict(group.attrs), dict(top.attrs), name=self.name
        )
        self._arrays = [_Pixels.of(array, beside) for array in arrays.values()]
        self.bands = tuple(band for pixels in self._arrays for band in pixels.bands)
        self._layers = [(pixels, layer) for pixels in self._arrays for layer in range(len(pixels.bands))]

    def read(
        self,
        bands: Sequence[int],
        window: Window,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Digital numbers of some bands; see :class:`geosr.io.source.Source`."""
        step = 1 if shape is None else max(1, min(have // want for have, want in zip(size(window), shape, strict=True)))
        if shape is not None and step > max(side for pixels in self._arrays for side in pixels.array.chunks[-2:]):
            return self._scattered(bands, window, shape)
        parts = []
        for pixels, chosen in groupby((self._layers[band] for band in bands), key=itemgetter(0)):
            try:
                parts.append(pixels.read([layer for _, layer in chosen], window, step))
            except Exception as error:  # whatever zarr and its codecs make of damaged bytes
                raise unreadable(self.path, window, f"{error}; the store is incomplete or damaged") from error
        dn = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if shape is None or dn.shape[1:] == shape:
            return dn
        nodata = self.bands[bands[0]].nodata
        return _resample(dn, shape, resampling, nodata and nodata.value)

    def _scattered(self, bands: Sequence[int], window: Window, shape: tuple[int, int]) -> NDArray[Any]:
        """An image of a shape from small blocks all over a window, where single pixels would each need a chunk."""
        block = [-(-want // _BLOCKS) for want in shape]
        starts = [
            [part.start + (part.stop - part.start - side) * place // _BLOCKS for place in range(-(-want // side))]
            for part, side, want in zip(window, block, shape, strict=True)
        ]
        image = np.empty(
            (len(bands), *(side * len(along) for side, along in zip(block, starts, strict=True))),
            self._arrays[0].array.dtype,
        )
        for (i, top), (j, left) in product(enumerate(starts[0]), enumerate(starts[1])):
            rows, columns = slice(top, top + block[0]), slice(left, left + block[1])
            place = (slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1]))
            image[:, *place] = self.read(bands, (rows, columns))
        return image[:, : shape[0], : shape[1]]

    def mask(self, window: Window, *, shape: tuple[int, int] | None = None) -> None:
        """None: invalid pixels are told by their values alone."""
        return None

    def close(self) -> None:
        """Nothing stays open between reads."""


@dataclass(frozen=True, eq=False)
class _Pixels:
    """One array of a raster group, ``y x`` or ``band y x``."""

    array: zarr.Array
    bands: tuple[StoredBand, ...]
    complete: bool
    """Whether a chunk that is missing is damage; elsewhere Zarr takes it for one that holds the fill value alone."""
    shards: ShardedArray | None
    """A faster way to the pixels of complete arrays."""

    @classmethod
    def of(cls, array: zarr.Array, beside: Mapping[str, zarr.Array]) -> _Pixels:
        complete = bool(array.attrs.get(cf.COMPLETE))
        shards = ShardedArray.of(array) if complete else None
        return cls(array, tuple(cf.stored_bands(array, beside)), complete, shards)

    def read(self, layers: Sequence[int], window: Window, step: int) -> NDArray[Any]:
        """Every so many pixels of some layers, ``(band, y, x)``."""
        # Layers mostly share chunks: those between the first and the last cost nothing.
        first, stop = min(layers), max(layers) + 1
        if self.shards is not None and step == 1:
            dn = self.shards.read(window)[first:stop]
        else:
            if self.complete:
                self._require_files(window)
            rows, columns = (slice(part.start, part.stop, step) for part in window)
            wanted = (rows, columns) if self.array.ndim == 2 else (slice(first, stop), rows, columns)
            dn = np.asarray(self.array[wanted]).reshape(stop - first, -(-size(window)[0] // step), -1)
        if list(layers) != list(range(first, stop)):
            dn = dn[[layer - first for layer in layers]]
        return dn.astype(self.array.dtype.newbyteorder("="), copy=False)

    def _require_files(self, window: Window) -> None:
        """Fail where a file of this window is missing; zarr would read it as the fill value."""
        array, store = self.array, self.array.store_path.store
        if not isinstance(store, LocalStore):
            return
        sides = array.shards or array.chunks
        ranges = [range(math.ceil(array.shape[0] / sides[0]))] if array.ndim == 3 else []
        ranges += [range(w.start // side, (w.stop - 1) // side + 1) for w, side in zip(window, sides[-2:], strict=True)]
        for chunk in product(*ranges):
            key = "/".join(filter(None, (array.path, array.metadata.encode_chunk_key(chunk))))
            if not os.path.exists(os.path.join(store.root, key)):
                raise FileNotFoundError(f"{key} is missing")


def _split(path: str) -> tuple[str, str]:
    """The store and the path inside it; a path without ``.zarr`` in it is a store.

    >>> _split("data/train.zarr/scenes/a"), _split("data/train.zarr"), _split("data/store")
    (('data/train.zarr', 'scenes/a'), ('data/train.zarr', ''), ('data/store', ''))
    """
    match = re.match(r"(.*?\.zarr)(?:/(.*))?$", path.rstrip("/"))
    return (match[1], match[2] or "") if match else (path.rstrip("/"), "")


def _open_store(root: str) -> zarr.Group:
    """The group at the top of a store."""
    remote = "://" in root
    try:
        # Consolidated metadata can be out of date, but a web server lists no folders.
        return zarr.open_group(root, mode="r", use_consolidated=None if remote else False)
    except Exception as error:  # whatever zarr makes of damaged metadata
        if remote:
            raise InputError(f"{root} cannot be opened ({reason(error)})") from error
        if not os.path.exists(root):
            raise InputError(f"{root} does not exist") from error
        if not any(os.path.lexists(os.path.join(root, name)) for name in METADATA):
            raise InputError(f"{root} is no Zarr store") from error
        raise damaged(root, error) from error


def _node(top: zarr.Group, inside: str, path: str) -> zarr.Array | zarr.Group:
    """What is at a path inside a store, or an error that says what is there instead."""
    node: zarr.Array | zarr.Group = top
    for name in filter(None, inside.split("/")):
        inner = node.get(name) if isinstance(node, zarr.Group) else None
        if inner is None:
            there = ", ".join(sorted(node)) if isinstance(node, zarr.Group) else "numbers"
            raise InputError(f"{path} does not exist: {node.name} has no {name!r}; it holds {there}")
        node = inner
    return node


def _raster_group(node: zarr.Group, path: str) -> tuple[zarr.Group, str]:
    """The one raster group at or below a node, and its path from there."""
    if any(map(_is_raster, node.array_values())):
        return node, ""
    rasters = [_EOPF_10M] if _EOPF_10M in node else sorted(_groups_of_rasters(node))
    if len(rasters) == 1:
        return node[rasters[0]], rasters[0]  # type: ignore[return-value]
    if rasters:
        more = f"\n  and {len(rasters) - _LISTED} more" if len(rasters) > _LISTED else ""
        listed = "".join(f"\n  {path}/{name}" for name in rasters[:_LISTED])
        raise InputError(f"{path} holds {len(rasters)} rasters; open one of{listed}{more}")
    there = ", ".join(f"{name} {array.shape}" for name, array in sorted(node.arrays())) or "no array"
    raise InputError(
        f"{path} holds no raster but {there}; a raster group has an array with dimensions band y x, or one y x for "
        "each band"
    )


def _groups_of_rasters(node: zarr.Group) -> Iterator[str]:
    """The paths from a node of all groups below it that hold pixels; links are not followed in circles."""
    seen: set[str] = set()
    waiting = [("", node)]
    while waiting:
        path, group = waiting.pop()
        for name, member in group.members():
            below = f"{path}/{name}".lstrip("/")
            if isinstance(member, zarr.Group):
                store = member.store_path.store
                real = (
                    os.path.realpath(os.path.join(store.root, member.path)) if isinstance(store, LocalStore) else below
                )
                if real not in seen:
                    seen.add(real)
                    waiting.append((below, member))
        if any(map(_is_raster, group.array_values())):
            yield path


def _is_raster(node: zarr.Array | zarr.Group) -> bool:
    """Whether a node is an array of pixels: numbers, with dimensions y x or band y x."""
    if not isinstance(node, zarr.Array) or node.ndim not in (2, 3) or node.dtype.kind not in "iuf":
        return False
    names = cf.dimensions(node)
    return names[-2:] in _SPATIAL and (node.ndim == 2 or names[0] != "time" or node.shape[0] == 1)


def _resample(dn: NDArray[Any], shape: tuple[int, int], resampling: Resampling, nodata: float | None) -> NDArray[Any]:
    """The image at another size, resampled by GDAL."""
    count, height, width = dn.shape
    profile = {"count": count, "height": height, "width": width, "dtype": dn.dtype, "nodata": nodata}
    # Any transform but the identity, flipped or not, of which rasterio warns.
    with MemoryFile() as memory, memory.open(driver="GTiff", transform=Affine.scale(2), **profile) as file:
        file.write(dn)
        return file.read(out_shape=(count, *shape), resampling=resampling)
