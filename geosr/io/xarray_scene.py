"""A scene as an xarray Dataset: digital numbers, read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import xr_coords

from geosr.errors import GridError, UsageError, extra
from geosr.grid import Window
from geosr.io.scene import Scene
from geosr.radiometry import Radiometry

_Fill = tuple[float | None, bool]
"""What pixels of a band hold that a mask leaves out, and whether it was a measurement until now."""
_MANY_CHUNKS, _MOST_CHUNKS = 2**16, 2**20  # of which dask makes a graph in seconds, and in a minute or two
_CHUNK = 1024  # pixels along one side: a few tiles of a network, and megabytes, not gigabytes, to hold


def scene_to_xarray(scene: Scene, *, chunks: int | Literal["auto"] | None = "auto") -> xr.Dataset:
    """The scene as a Dataset with a variable for each band: digital numbers, with the words of CF for what they mean.

    Pixels that a mask beside the bands leaves out hold nodata. A task carries the scene, which opens its files again
    where it is read.

    Args:
        scene: The scene.
        chunks: Side of a chunk, pixels; None reads everything now.

    Raises:
        RadiometryError: Nothing says what the digital numbers mean.
        UsageError: The chunks are no number of pixels, or too many.
        GridError: The CRS lacks parameters of its projection.
    """
    side = _side(scene.geobox.shape) if chunks == "auto" else chunks
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise UsageError(f"chunks={chunks!r} is not allowed; give the side of a chunk in pixels, 'auto' or None")
    if side is not None and (count := _count(scene.geobox.shape, side)) > _MOST_CHUNKS:
        raise UsageError(f"chunks={chunks!r} cuts {scene.name} into {count:,} chunks; give a larger side or 'auto'")
    corner = (slice(0, 1), slice(0, 1))
    # Bands of one file are decoded together; of files of their own, one by one.
    groups = [(band,) for band in scene.bands] if len(scene.paths) == len(scene.bands) else [scene.bands]
    placed = _coordinates(scene)
    dims = ("y", "x")
    variables: dict[str, xr.DataArray] = {}
    for group in groups:
        radiometries = [scene.band_radiometry([band]) for band in group]
        nodata = [radiometry.nodata for radiometry in radiometries]
        taken = [False] * len(group)
        if scene.read_mask(corner, group) is not None:
            taken = [value is None and np.dtype(scene.dtype).kind in "iu" for value in nodata]
            nodata = [_or_default(value, scene.dtype) for value in nodata]
        fills = tuple(zip(nodata, taken, strict=True))
        values = _read(scene, group, fills, None) if side is None else _lazy(scene, group, fills, side=side)
        for place, (band, radiometry) in enumerate(zip(group, radiometries, strict=True)):
            attrs = _attributes(radiometry, nodata[place]) | {"long_name": band}
            variable = xr.DataArray(values[place], placed, dims, name=band, attrs=attrs)
            variable.encoding["grid_mapping"] = "spatial_ref"
            variables[band] = variable
    return xr.Dataset(variables)


def _coordinates(scene: Scene) -> Any:
    """The coordinates of the scene's pixels, and its CRS beside them."""
    try:
        return xr_coords(scene.geobox, always_yx=True)
    except (KeyError, ValueError, RuntimeError) as error:  # of pyproj, where a projection lacks a parameter
        raise GridError(
            f"{scene.name} has a CRS that CF has no words for ({error} is missing or wrong); correct it"
        ) from error


def _side(shape: tuple[int, int]) -> int:
    """The side of a chunk, pixels: larger where a graph of so many chunks would take minutes to make."""
    side = _CHUNK
    while _count(shape, side) > _MANY_CHUNKS:
        side *= 2
    return side


def _count(shape: tuple[int, int], side: int) -> int:
    """The number of chunks of an image."""
    return math.prod(-(-length // side) for length in shape)


def _or_default(nodata: float | None, dtype: str) -> float:
    """What invalid pixels hold; as `Radiometry.to_digital`, where nothing says it."""
    return nodata if nodata is not None else 0 if np.dtype(dtype).kind in "iu" else np.nan


def _attributes(radiometry: Radiometry, nodata: float | None) -> dict[str, Any]:
    """The words of CF for the meaning of digital numbers."""
    attrs: dict[str, Any] = {"scale_factor": radiometry.scale, "add_offset": radiometry.offset, "units": "1"}
    if nodata is not None:
        attrs["_FillValue"] = np.dtype(radiometry.dtype).type(nodata)
    if radiometry.saturated is not None:
        attrs |= {"flag_values": [radiometry.saturated], "flag_meanings": "saturated"}
    return attrs


def _lazy(scene: Scene, bands: Sequence[str], fills: Sequence[_Fill], *, side: int) -> Any:
    """The digital numbers (band, y, x) as a dask array."""
    with extra("xarray", "a scene in chunks"):
        import dask.array as da
        from dask.base import tokenize

    sides = tuple(tuple(min(side, length - start) for start in range(0, length, side)) for length in scene.geobox.shape)
    name = f"scene-{scene.name}-{tokenize(scene.paths, repr(scene), bands, side)}"
    starts = [np.cumsum((0, *along)).tolist() for along in sides]
    graph: dict[Any, Any] = {}
    for row, column in product(range(len(sides[0])), range(len(sides[1]))):
        window = (slice(*starts[0][row : row + 2]), slice(*starts[1][column : column + 2]))
        graph[name, 0, row, column] = (partial(_read, scene, bands, fills, window),)
    return da.Array(graph, name, ((len(bands),), *sides), meta=np.empty((0, 0, 0), scene.dtype))


def _read(scene: Scene, bands: Sequence[str], fills: Sequence[_Fill], window: Window | None) -> NDArray[Any]:
    """Digital numbers (band, y, x) of a window; what a mask leaves out holds nodata, and nothing else does."""
    dn = scene.read_digital(window, bands)
    mask = scene.read_mask(window, bands)
    if mask is None:
        return dn
    masked = np.array(dn)
    for plane, (nodata, taken) in zip(masked, fills, strict=True):
        if taken:
            plane[plane == nodata] += 1
        plane[~mask] = nodata
    return masked
