"""The reader of SEN2VENµS, whose patches come without their surroundings: as tensors or as small rasters in archives.

Either way the patches of one site and day become one image, each patch at its place and invalid between them: patches
that touch are one piece of land, and a split by place keeps the days of a site together.

References:
    Michel et al. (2022), SEN2VENµS, Data 7(7), 96, doi:10.3390/data7070096.
"""

import csv
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from geosr.data.patches import SceneFiles
from geosr.data.virtual import CACHE, Source, finished, opened, write_virtual
from geosr.errors import GridError, InputError
from geosr.grid import finer

logger = logging.getLogger(__name__)

BANDS = ("B02", "B03", "B04", "B08")
"""Bands of the files whose names hold ``b2b3b4b8``."""
GSD = {"hr": 5.0, "lr": 10.0}
"""Ground sampling distance in m."""
UNUSED = -10000
"""The DN of pixels that no patch covers, as the publisher marks invalid ones; reflectance times 10000 is above it."""

_TENSORS = {"hr": "tensor_05m_b2b3b4b8", "lr": "tensor_10m_b2b3b4b8"}  # columns of index.csv, version 1
_RASTERS = {"hr": "b2b3b4b8_05m", "lr": "b2b3b4b8_10m"}  # version 2


def read_sen2venus(root: Path) -> list[SceneFiles]:
    """Pairs, one a site and day: Sentinel-2 at 10 m and VENµS at 5 m, bands B02 B03 B04 B08.

    Both published layouts are read, told apart by the columns of each ``SITE/index.csv`` (separated by tabs):

    - version 1: for each day tensors of shape (patch, band, y, x), int16, reflectance times 10000, and a GeoPackage
      with the patches' footprints in the same order. They are written once to GeoTIFFs, of about their size.
    - version 2: for each patch ``ARCHIVE.zip/PATCH.tif``, georeferenced. They stay in their archives.

    Patches that overlap go to further scenes of that day.

    Raises:
        InputError: A named file is missing or is not what it should be.
        GridError: Footprints do not fit the patches or lie on no common grid.
    """
    scenes = []
    for index in sorted(path for path in root.rglob("index.csv") if CACHE not in path.relative_to(root).parts):
        with index.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, delimiter="\t")
            names, rows = reader.fieldnames or [], list(reader)
        if {*_TENSORS.values(), "patches_gpkg", "date"} <= set(names):
            scenes += [scene for row in rows for scene in _of_tensors(root, index, row)]
        elif set(_RASTERS.values()) <= set(names):
            scenes += _of_rasters(root, index, rows)
        else:
            raise InputError(
                f"{index} has the columns {' '.join(names)}; an index of SEN2VENµS has {' '.join(_TENSORS.values())} "
                f"(version 1) or {' '.join(_RASTERS.values())} (version 2)"
            )
    return scenes


def _of_tensors(root: Path, index: Path, row: Mapping[str, str]) -> list[SceneFiles]:
    """Scenes of one row of an index of version 1, which is one day."""
    tensors = {part: index.parent / row[column] for part, column in _TENSORS.items()}
    footprints = index.parent / row["patches_gpkg"]
    _require([*tensors.values(), footprints], index)
    name = tensors["hr"].name.removesuffix("_05m_b2b3b4b8.pt")
    target = root / CACHE / index.parent.name / name
    return _scenes(name, target, tensors.values(), row["date"], ".tif", partial(_convert, tensors, footprints, target))


def _of_rasters(root: Path, index: Path, rows: Iterable[Mapping[str, str]]) -> list[SceneFiles]:
    """Scenes of an index of version 2, which has a row for each patch."""
    folder = index.parent.resolve().as_posix()
    days: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        archives = tuple(row[column].partition(".zip/")[0] for column in _RASTERS.values())
        files = days.setdefault((archives[0], archives[1]), {part: [] for part in _RASTERS})
        for part, column in _RASTERS.items():
            files[part].append(f"/vsizip/{folder}/{row[column]}")
    scenes = []
    for archives, files in days.items():
        paths = [index.parent / f"{archive}.zip" for archive in archives]
        _require(paths, index)
        name = archives[0].removesuffix("_b2b3b4b8_05m")
        target = root / CACHE / index.parent.name / name
        date = re.search(r"\d{4}-\d\d-\d\d", name)
        scenes += _scenes(name, target, paths, date[0] if date else None, ".vrt", partial(_mosaic, files, target))
    return scenes


def _require(paths: Iterable[Path], index: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is missing, which {index} names; unpack the site's archive again")


def _scenes(
    name: str, target: Path, sources: Iterable[Path], date: str | None, suffix: str, make: Callable[[], int]
) -> list[SceneFiles]:
    """Scenes of one day; ``make`` writes them and returns their number, unless they are there already."""
    done = target / "done.txt"  # written last: how many scenes there are, and of which data set
    place = target.resolve().as_posix()
    known = done.read_text("utf-8").split("\n") if done.is_file() else ["0", ""]
    newest = max(path.stat().st_mtime for path in sources)
    if known[1] != place or done.stat().st_mtime < newest:  # archives are named from the root, which may move
        logger.info("preparing %s of SEN2VENµS", name)
        known[0] = str(make())
        with finished(done) as unfinished:
            unfinished.write_text(f"{known[0]}\n{place}", encoding="utf-8")
    start = None if date is None else datetime.fromisoformat(date).replace(tzinfo=UTC)
    return [
        SceneFiles(
            f"{name}_{layer}" if layer else name,
            hr=(str(target / f"hr_{layer}{suffix}"),),
            lr=(str(target / f"lr_{layer}{suffix}"),),
            start=start,
            end=None if start is None else start + timedelta(days=1) - timedelta(seconds=1),
        )
        for layer in range(int(known[0]))
    ]


class _Arranged(NamedTuple):
    """Patches at their places."""

    geobox: GeoBox
    """The grid that holds them all, LR pixels."""
    corners: NDArray[np.int64]
    """First LR row and column of each patch."""
    layers: list[list[int]]
    """Patches that do not overlap, by scene."""


def _arrange(crs: Any, bounds: NDArray[np.float64], size: int, *, source: object) -> _Arranged:
    """Where patches of ``size`` LR pixels lie; bounds (left, bottom, right, top) in metres, one row a patch."""
    if not np.allclose(bounds[:, 2:] - bounds[:, :2], size * GSD["lr"], atol=0.1):
        raise GridError(f"footprints in {source} are not {size * GSD['lr']:g} m wide and high, as the patches are")
    left, top = float(np.min(bounds[:, 0])), float(np.max(bounds[:, 3]))
    places = np.stack([top - bounds[:, 3], bounds[:, 0] - left], axis=1) / GSD["lr"]
    corners = np.rint(places).astype(np.int64)
    if not np.allclose(places, corners, atol=0.02):
        raise GridError(f"footprints in {source} lie on no common grid of {GSD['lr']:g} m")
    height, width = (corners.max(axis=0) + size).tolist()
    affine = rasterio.transform.from_origin(left, top, GSD["lr"], GSD["lr"])
    return _Arranged(GeoBox((height, width), affine, crs), corners, _layers(corners, size))


def _layers(corners: NDArray[np.int64], size: int) -> list[list[int]]:
    """Members of each layer: squares of ``size`` pixels that overlap never share one.

    >>> _layers(np.array([[0, 0], [0, 4], [2, 2], [4, 0]]), 4)
    [[0, 1, 3], [2]]
    """
    layers: list[list[int]] = []
    for member, corner in enumerate(corners):
        for layer in layers:
            if not (np.abs(corners[layer] - corner) < size).all(axis=1).any():
                layer.append(member)
                break
        else:
            layers.append([member])
    return layers


def _convert(tensors: Mapping[str, Path], footprints: Path, target: Path) -> int:
    """Write the tensors of one day as GeoTIFFs; the number of scenes."""
    pixels = {part: _tensor(path) for part, path in tensors.items()}
    crs, bounds = _footprints(footprints)
    for part, array in pixels.items():
        if len(array) != len(bounds):
            raise GridError(f"{tensors[part]} has {len(array)} patches and {footprints} {len(bounds)} footprints")
    size = pixels["lr"].shape[-1]
    if pixels["hr"].shape[-1] != 2 * size:
        raise GridError(f"{tensors['hr']} has {pixels['hr'].shape[-1]} pixels a side; it should have 2 x {size}")
    arranged = _arrange(crs, bounds, size, source=footprints)
    for number, members in enumerate(arranged.layers):
        for part, array in pixels.items():
            factor = array.shape[-1] // size
            grid = finer(arranged.geobox, factor)
            with finished(target / f"{part}_{number}.tif") as path, rasterio.open(
                path, "w", driver="GTiff", count=len(BANDS), dtype="int16", nodata=UNUSED, crs=crs,
                height=grid.shape.y, width=grid.shape.x, transform=grid.affine, tiled=True, blockxsize=256,
                blockysize=256, compress="deflate", sparse_ok=True, bigtiff="if_safer",
            ) as file:  # fmt: skip
                file.scales, file.offsets, file.descriptions = [1e-4] * len(BANDS), [0.0] * len(BANDS), BANDS
                for member in members:
                    row, column = (arranged.corners[member] * factor).tolist()
                    file.write(array[member], window=Window(column, row, array.shape[-1], array.shape[-1]))
    return len(arranged.layers)


def _mosaic(files: Mapping[str, Sequence[str]], target: Path) -> int:
    """Write virtual rasters of the patches of one day; the number of scenes."""
    bounds = {part: np.empty((len(names), 4)) for part, names in files.items()}
    sizes = dict.fromkeys(files, (0, 0))
    crs = None
    for part, names in files.items():
        for number, name in enumerate(names):
            with opened(name) as file:
                if (number and file.shape != sizes[part]) or (crs is not None and file.crs != crs):
                    raise GridError(f"{name} has another shape or CRS than {names[0]}; a day's patches share them")
                bounds[part][number], sizes[part], crs = file.bounds, file.shape, file.crs
    apart = np.abs(bounds["hr"] - bounds["lr"]).max(axis=1)
    if apart.max() > 0.1:
        worst = int(np.argmax(apart))
        raise GridError(f"{files['hr'][worst]} and {files['lr'][worst]} cover different places")
    if sizes["lr"][0] * 2 != sizes["hr"][0]:
        raise GridError(f"{files['hr'][0]} has {sizes['hr']} pixels; it should have twice {sizes['lr']}")
    arranged = _arrange(crs, bounds["lr"], sizes["lr"][0], source=files["lr"][0])
    for number, members in enumerate(arranged.layers):
        for part, names in files.items():
            factor = sizes[part][0] // sizes["lr"][0]
            sources = [Source(names[member], *(arranged.corners[member] * factor).tolist()) for member in members]
            grid, path = finer(arranged.geobox, factor), target / f"{part}_{number}.vrt"
            with opened(names[0]) as like:
                write_virtual(path, sources, like, grid, bands=BANDS, scale=1e-4, nodata=UNUSED)
    return len(arranged.layers)


def _tensor(path: Path) -> NDArray[np.int16]:
    """Patches of a tensor file, (patch, band, y, x), reflectance times 10000."""
    import torch

    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)  # tensors only: no pickle from strangers
    except Exception as error:  # torch raises whatever unpickling and unzipping do
        raise InputError(f"{path} is no tensor file that can be read ({error}); download it again") from error
    shape = tuple(getattr(loaded, "shape", ()))
    if not isinstance(loaded, torch.Tensor) or len(shape) != 4 or shape[1] != 4 or loaded.dtype != torch.int16:
        raise InputError(
            f"{path} holds {getattr(loaded, 'dtype', type(loaded).__name__)} {shape}; it should be int16 "
            "(patch, 4 bands, y, x)"
        )
    array: NDArray[np.int16] = loaded.numpy()
    return array


def _footprints(path: Path) -> tuple[Any, NDArray[np.float64]]:
    """CRS and bounds (left, bottom, right, top) in metres of each patch, in the order of the tensors."""
    import geopandas  # type: ignore[import-untyped]

    table = geopandas.read_file(path)
    if table.crs is None or not table.crs.is_projected:
        raise GridError(f"footprints in {path} are in {table.crs}; they should be in metres")
    bounds: NDArray[np.float64] = table.geometry.bounds.to_numpy(dtype=np.float64)
    return table.crs.to_wkt(), bounds
