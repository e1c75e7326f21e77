"""Sources: what a scene asks of the file or store that holds its pixels."""

from __future__ import annotations

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
    row_bytes: int
    """Bytes of a row of blocks, where blocks are large and slow to decode; else 0."""

    @property
    def product(self) -> ProductMetadata | None:
        """The Sentinel-2 product that the file is part of."""
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

    def mask(self, window: Window) -> NDArray[np.bool_] | None:
        """Where a mask that is stored beside the bands leaves pixels in, ``(y, x)``; None without such a mask."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def unreadable(path: str, window: Window, reason: str) -> InputError:
    """The error for a window whose pixels cannot be read."""
    rows, columns = window
    return InputError(
        f"{path}: rows {rows.start}..{rows.stop}, columns {columns.start}..{columns.stop} cannot be read ({reason})"
    )
