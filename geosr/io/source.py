"""Sources: what a scene asks of the file or store that holds its pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from geosr.errors import InputError
from geosr.grid import Window
from geosr.io.safe import ProductMetadata

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")
"""Endings of raster files."""
_STORE = ("zarr.json", ".zgroup", ".zarray")  # files that make a folder a Zarr group or array


class Said(NamedTuple):
    """A value and who said it."""

    value: float
    source: str


def said_encoding(scale: float | None, offset: float | None, source: str) -> tuple[Said | None, Said | None]:
    """Scale and offset that tags or attributes hold, with their source; None twice where they say nothing.

    A scale of 1 with an offset of 0 says nothing: GDAL reports both for a band without tags, and rioxarray writes both
    into the attributes (or the encoding) of every file that it opens. One without the other stands for the default.

    >>> said_encoding(1.0, 0.0, "tags"), said_encoding(1e-4, None, "tags")[1]
    ((None, None), Said(value=0.0, source='tags'))
    """
    scale, offset = 1.0 if scale is None else scale, 0.0 if offset is None else offset
    return (None, None) if (scale, offset) == (1.0, 0.0) else (Said(scale, source), Said(offset, source))


@dataclass(frozen=True)
class StoredBand:
    """What a file or store itself says about one of its bands."""

    description: str | None
    dtype: str
    """The numpy name of the stored type."""
    scale: Said | None = None
    offset: Said | None = None
    nodata: Said | None = None
    saturated: Said | None = None


class Source(Protocol):
    """One file or store, opened: facts at once, digital numbers on request. One thread uses it at a time."""

    path: str
    """What it was opened by."""
    name: str
    """What messages call it."""
    geobox: GeoBox
    bands: tuple[StoredBand, ...]
    alpha: tuple[int, ...]
    """Bands that only say which pixels are there, counted from 0 with them; they are not among `bands`."""
    row_bytes: int
    """Bytes of a row of blocks, where blocks are large and slow to decode; else 0."""

    @property
    def product(self) -> ProductMetadata | None:
        """The Sentinel-2 product that the file is an image of."""
        ...

    def read(
        self,
        bands: Sequence[int],
        window: Window,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Digital numbers (DN) of some bands, counted from 0, ``(band, y, x)``; resampled where a shape is given.

        Raises:
            InputError: The window cannot be read.
        """
        ...

    def mask(self, window: Window, *, shape: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """Where masks that are stored beside the bands leave pixels in, ``(y, x)``; None without such masks.

        Where a shape is given, it is that of the nearest pixels, as `read` has them.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def zarr_store(path: str) -> tuple[str, str] | None:
    """The Zarr store that a path leads to or into, and the path inside it; None for every other path.

    A store is a folder that holds Zarr metadata, whatever its name. Folders called ``*.zarr`` are taken for stores that
    are missing or damaged, unless there are raster files in them.

    >>> zarr_store("s3://bucket/product.zarr/measurements"), zarr_store("scene.tif"), zarr_store('ZARR:"a.zarr"')
    (('s3://bucket/product.zarr', 'measurements'), None, None)
    >>> zarr_store("https://host/data.zarr/scene.tif?key=1"), zarr_store("data/missing.zarr")
    (None, ('data/missing.zarr', ''))
    """
    if re.match(r"/vsi|ZARR:", path):
        return None
    path = path.rstrip("/") or path
    roots = [path[: match.end(1)] for match in re.finditer(r"(\.zarr)(?=/|$)", path)]
    raster = path.split("?")[0].lower().endswith(RASTERS)
    if "://" in path:
        return (roots[0], path[len(roots[0]) + 1 :]) if roots and not raster else None
    if os.path.isfile(path) and path not in roots:
        return None
    for root in [*roots, path]:
        if any(os.path.isfile(os.path.join(root, name)) for name in _STORE):
            return root, path[len(root) + 1 :]
    if not roots or raster or (os.path.isdir(path) and _holds_rasters(path)):
        return None
    return roots[0], path[len(roots[0]) + 1 :]


def _holds_rasters(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(RASTERS) for entry in entries)


def unreadable(path: str, window: Window, reason: str) -> InputError:
    """The error for a window whose pixels cannot be read."""
    rows, columns = window
    return InputError(
        f"{path}: rows {rows.start}..{rows.stop}, columns {columns.start}..{columns.stop} cannot be read ({reason})"
    )
