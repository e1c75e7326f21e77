"""Land cover: an integer raster on any grid, as classes of HR pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from geosr.errors import GridError, InputError, UsageError


@dataclass(frozen=True)
class ClassMap:
    """A raster of class numbers, and their names.

    Raises:
        InputError: It cannot be read, or does not hold integers.
        GridError: It has no CRS.
    """

    path: str
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self._open() as file:
            if np.dtype(file.dtypes[0]).kind not in "iu":
                raise InputError(f"{self.path} holds {file.dtypes[0]}; a class map holds integers, one for each class")
            if file.crs is None:
                raise GridError(f"{self.path} has no coordinate reference system, so its place is unknown; assign one")

    def _open(self) -> rasterio.DatasetReader:
        try:
            return rasterio.open(self.path)
        except RasterioError as error:
            raise InputError(f"class map {self.path} cannot be read: {error}") from error

    def masks(self, geobox: GeoBox) -> dict[str, NDArray[np.bool_]]:
        """Where each class is on a grid (y, x), by name; nearest neighbour, and none where the map has nodata.

        Raises:
            GridError: The grid has no CRS.
        """
        if geobox.crs is None:
            raise GridError(f"the scene has no coordinate reference system, so {self.path} has no place on it")
        height, width = geobox.shape
        with self._open() as file:
            inside = file.nodata if file.nodata is not None else None
            with WarpedVRT(
                file,
                crs=geobox.crs.to_wkt(),
                transform=geobox.affine,
                width=width,
                height=height,
                resampling=Resampling.nearest,
                add_alpha=inside is None,
            ) as warped:
                numbers = warped.read(1)
                known = warped.dataset_mask() > 0
        found = np.unique(numbers[known]).tolist()
        return {self.names.get(number, str(number)): known & (numbers == number) for number in found}


def read_names(text: str | None) -> dict[int, str]:
    """Names of classes, from ``1=water,2=fields`` or from a text file with one in each line.

    Raises:
        UsageError: It is neither.

    >>> read_names("1=water, 2=bare soil")
    {1: 'water', 2: 'bare soil'}
    """
    if text is None:
        return {}
    parts = Path(text).read_text("utf-8").splitlines() if Path(text).is_file() else text.split(",")
    found = {}
    for part in parts:
        if not part.strip():
            continue
        if not (match := re.fullmatch(r"\s*(-?\d+)\s*[=:]\s*(.+?)\s*", part)):
            raise UsageError(f"{part.strip()!r} is no class; write 1=water,2=fields, or a file with one in each line")
        found[int(match[1])] = match[2]
    return found
