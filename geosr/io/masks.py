"""Masks that come beside a scene: clouds, defects and snow, on the scene's own grid."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.errors import GridError, InputError, UsageError, did_you_mean
from geosr.grid import Window, grow, pixel_sides_m, relative
from geosr.io.gdal import burn
from geosr.io.safe import read_small
from geosr.io.scene import open_scene
from geosr.io.xml import parse_xml

CLASSES: Mapping[str, tuple[int, ...]] = {"clouds": (3, 8, 9, 10), "defects": (1,), "snow": (11,)}
"""Classes of Sentinel-2's scene classification (SCL) by kind of mask [1].

1 saturated or defective, 3 cloud shadows, 8 cloud of medium probability, 9 cloud of high probability, 10 thin cirrus,
11 snow or ice.

References:
    [1] Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), scene classification map of Level-2A.
"""
KINDS = tuple(CLASSES)
"""Kinds of masks."""

_CHUNK = 1024
"""Pixels along a side of what polygons are drawn on at once."""


@dataclass(frozen=True)
class MaskFile:
    """A file that says which pixels to leave out."""

    path: str
    """A raster, or polygons in the GML of Sentinel-2."""
    classes: tuple[int, ...] | None = None
    """The values that leave a pixel out; None: all but 0."""
    bands: tuple[int, ...] = (0,)
    """The bands of a raster that count, from 0; any of them leaves a pixel out."""


class Mask(Protocol):
    """Pixels to leave out, on the grid of a scene."""

    def read(self, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Where a window of a grid is to be left out, ``(y, x)``."""
        ...

    def close(self) -> None:
        """Close its files."""
        ...


def classification_masks(path: str) -> dict[str, tuple[MaskFile, ...]]:
    """The masks, by kind, that a Sentinel-2 scene classification holds."""
    return {kind: (MaskFile(path, classes),) for kind, classes in CLASSES.items()}


def classification_beside(stem: str) -> str | None:
    """The scene classification next to a raster: ``<stem>_SCL.tif``, also with a resolution at its end.

    Args:
        stem: Path of the raster without band, resolution and ending.
    """
    if stem.startswith("/vsi") or "://" in stem:
        return None
    names = (f"{stem}_{word}{end}" for word in ("SCL", "scl") for end in ("", "_10m", "_20m", "_60m"))
    files = (name + ending for name in names for ending in (".tif", ".tiff", ".jp2"))
    return next(filter(os.path.isfile, files), None)


class RasterMask:
    """Pixels that a raster leaves out, on any grid that it covers; each pixel takes the raster's nearest.

    Args:
        path: The raster.
        classes: The values that leave a pixel out; None: all but 0.
        bands: The bands that count, from 0.
    """

    def __init__(self, path: str, *, classes: tuple[int, ...] | None, bands: Sequence[int] = (0,)) -> None:
        self.path, self.classes = path, classes
        self.scene = open_scene(path)
        if max(bands) >= len(self.scene.bands):
            raise InputError(f"mask {self.scene.name} has {len(self.scene.bands)} bands; {max(bands) + 1} are needed")
        self._bands = [self.scene.bands[band] for band in bands]

    def close(self) -> None:
        """Close the file."""
        self.scene.close()

    def read(self, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Where a window of a grid is to be left out, ``(y, x)``.

        Raises:
            GridError: The mask has another CRS, is turned against the grid, or does not cover it.
        """
        down, across = (places[part] for places, part in zip(self._places(geobox), window, strict=True))
        here = slice(int(down.min()), int(down.max()) + 1), slice(int(across.min()), int(across.max()) + 1)
        values = self.scene.read_digital(here, self._bands)
        chosen = values != 0 if self.classes is None else np.isin(values, self.classes)
        out: NDArray[np.bool_] = np.logical_or.reduce(chosen)
        return out[np.ix_(down - here[0].start, across - here[1].start)]

    def _places(self, geobox: GeoBox) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the mask at the centres of a grid's pixels."""
        mask = self.scene.geobox
        a, b, c, d, e, f = (~mask.affine * geobox.affine)[:6]
        if mask.crs != geobox.crs or max(abs(b), abs(d)) * max(geobox.shape) > 0.5:
            raise GridError(
                f"mask {self.scene.name} is in {mask.crs} and the scene in {geobox.crs}, or turned against it; "
                "bring it to the scene's grid: gdalwarp -t_srs CRS -r near MASK NEW"
            )
        places = []
        for step, start, length, held in zip((e, a), (f, c), geobox.shape, mask.shape, strict=True):
            # A hair is added so that a centre on an edge of the mask falls on the same side everywhere.
            index = np.floor(step * (np.arange(length) + 0.5) + start + 1e-9).astype(np.int64)
            if index.min() < 0 or index.max() >= held:
                raise GridError(
                    f"mask {self.scene.name} covers {tuple(mask.boundingbox)} and the scene reaches over "
                    f"{tuple(geobox.boundingbox)}; give a mask that covers all of it"
                )
            places.append(index)
        return places[0], places[1]


class VectorMask:
    """Pixels whose centres lie in the polygons of a Sentinel-2 GML mask (Level-1C before baseline 04.00).

    Args:
        path: The GML file, on disk or in a local ``/vsizip/``.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        """The path alone; the polygons are read again."""
        return {"path": self.path}

    def close(self) -> None:
        """Nothing stays open."""

    def read(self, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Where a window of a grid is to be left out, ``(y, x)``.

        Raises:
            GridError: The mask has another CRS.
            InputError: The file cannot be read.
        """
        epsg, polygons = self._polygons
        out = np.zeros([part.stop - part.start for part in window], bool)
        if not polygons:
            return out
        if geobox.crs is None or geobox.crs.to_epsg() != epsg:
            raise GridError(f"mask {self.path} is in EPSG:{epsg} and the scene in {geobox.crs}")
        # Pieces of fixed places: what is drawn for a pixel does not depend on the window, to the last bit.
        for top in range(window[0].start // _CHUNK * _CHUNK, window[0].stop, _CHUNK):
            for left in range(window[1].start // _CHUNK * _CHUNK, window[1].stop, _CHUNK):
                drawn = _draw(polygons, geobox, top, left)
                rows = slice(max(top, window[0].start), min(top + _CHUNK, window[0].stop))
                columns = slice(max(left, window[1].start), min(left + _CHUNK, window[1].stop))
                out[relative((rows, columns), window)] = drawn[relative((rows, columns), _chunk(top, left))]
        return out

    @cached_property
    def _polygons(self) -> tuple[int, list[_Polygon]]:
        """The EPSG code and the polygons of the file."""
        content = read_small(self.path)
        if content is None:
            raise InputError(f"mask {self.path} does not exist; download the whole product")
        root = parse_xml(content, self.path)
        names = (element.get("srsName", "") for element in root.iter())
        epsg = next((int(match[1]) for name in names if (match := re.search(r"EPSG:.*?(\d+)$", name))), 0)
        try:
            outlines = [
                [_ring(element) for element in polygon.iter(f"{_GML}posList")]
                for polygon in root.iter(f"{_GML}Polygon")
            ]
        except ValueError as error:
            raise InputError(f"mask {self.path} is damaged ({error}); download the product again") from error
        return epsg, [_Polygon(rings) for rings in outlines if rings and len(rings[0]) > 3]


_GML = "{http://www.opengis.net/gml/3.2}"


class _Polygon:
    """Rings of map coordinates (point, 2), the outer one first."""

    def __init__(self, rings: Sequence[NDArray[np.float64]]) -> None:
        self.rings = rings
        self.low, self.high = rings[0].min(axis=0), rings[0].max(axis=0)


def _ring(element: Any) -> NDArray[np.float64]:
    values = np.array((element.text or "").split(), float)
    return values.reshape(-1, int(element.get("srsDimension", 2)))[:, :2]


def _chunk(top: int, left: int) -> Window:
    return slice(top, top + _CHUNK), slice(left, left + _CHUNK)


def _draw(polygons: Iterable[_Polygon], geobox: GeoBox, top: int, left: int) -> NDArray[np.bool_]:
    """Which pixel centres of a piece of a grid lie in polygons."""
    affine = geobox.affine * Affine.translation(left, top)
    corners = np.array([affine * (x, y) for x in (0, _CHUNK) for y in (0, _CHUNK)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    near = [
        {"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon.rings if len(ring) > 3]}
        for polygon in polygons
        if (polygon.low <= high).all() and (polygon.high >= low).all()
    ]
    if not near:
        return np.zeros((_CHUNK, _CHUNK), bool)
    return burn(near, (_CHUNK, _CHUNK), affine)


class SceneMask:
    """The pixels of a scene that any of several masks leaves out, and those that lie near them.

    It may be pickled and used by several threads, as a `Scene` may.

    Args:
        files: The masks.
        kinds: What they are called.
        dilate: Metres between the centres of pixels that are left out beside a masked one.
    """

    def __init__(self, files: Sequence[MaskFile], *, kinds: Sequence[str], dilate: float) -> None:
        self.files, self.kinds, self.dilate = tuple(files), tuple(kinds), dilate
        self._masks: list[RasterMask | VectorMask] = []
        try:
            for file in self.files:
                vector = file.path.lower().endswith(".gml")
                self._masks.append(
                    VectorMask(file.path) if vector else RasterMask(file.path, classes=file.classes, bands=file.bands)
                )
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return " and ".join(self.kinds) + (f" and {self.dilate:g} m around" if self.dilate else "")

    @property
    def cache_bytes(self) -> int:
        """Like :attr:`geosr.io.scene.Scene.cache_bytes`, of its files."""
        return sum(mask.scene.cache_bytes for mask in self._masks if isinstance(mask, RasterMask))

    def close(self) -> None:
        """Close the files."""
        for mask in self._masks:
            mask.close()

    def read(self, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Where a window of the scene is to be left out, ``(y, x)``; what the same window of the whole would be.

        Raises:
            GridError: A mask does not lie on the scene; or the scene has no CRS to measure metres in.
        """
        if not self.dilate:
            return self._read(geobox, window)
        from scipy.ndimage import distance_transform_edt

        sides = pixel_sides_m(geobox)
        if sides is None:
            raise GridError("the scene has no coordinate reference system, so --mask-dilate has no metres to count in")
        # A margin for either axis; the larger one serves both.
        wide = grow(window, math.ceil(self.dilate / min(sides)), tuple(geobox.shape))
        out = self._read(geobox, wide)
        if not out.any():
            return out[relative(window, wide)]
        near = distance_transform_edt(~out, sampling=sides) <= self.dilate * (1 + 1e-9)
        return near[relative(window, wide)]

    def share(self, geobox: GeoBox) -> float:
        """About which share of a scene is left out, 0 to 1: of some 500 x 500 of its pixels."""
        height, width = geobox.shape
        step = max(1, max(height, width) // 500)
        coarse = GeoBox((height // step, width // step), geobox.affine * Affine.scale(step), geobox.crs)
        rows, columns = coarse.shape
        return float(self.read(coarse, (slice(0, rows), slice(0, columns))).mean())

    def _read(self, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        return np.logical_or.reduce([mask.read(geobox, window) for mask in self._masks])


def open_masks(
    available: Mapping[str, Sequence[MaskFile]], kinds: Sequence[str], *, dilate: float, scene: str
) -> SceneMask | None:
    """The masks of some kinds together; None where no kind is asked for.

    Args:
        available: The masks that a scene has, by kind.
        kinds: What is asked for.
        dilate: Metres to leave out around what is masked.
        scene: What messages call the scene.

    Raises:
        UsageError: There is no such kind, or the distance is negative or without a mask.
        InputError: The scene has no such mask.
    """
    if not (math.isfinite(dilate) and dilate >= 0) or (dilate and not kinds):
        raise UsageError(f"--mask-dilate {dilate:g} must be 0 or more metres, and needs --mask {','.join(KINDS)}")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"--mask {unknown[0]!r} is not one of {' '.join(KINDS)}" + did_you_mean(unknown[0], KINDS))
    if missing := [kind for kind in kinds if kind not in available]:
        has = f"it has {' '.join(available)}" if available else "it has none"
        raise InputError(
            f"{scene} comes with no mask of {' '.join(missing)} ({has}). Looked for: the scene classification (SCL) of "
            "a Level-2A product or STAC item, MSK_CLASSI, MSK_QUALIT, MSK_CLOUDS, MSK_DEFECT and MSK_SATURA of a "
            "Level-1C product, and NAME_SCL.tif beside a raster"
        )
    files = dict.fromkeys(file for kind in dict.fromkeys(kinds) for file in available[kind])
    return SceneMask(tuple(files), kinds=tuple(dict.fromkeys(kinds)), dilate=dilate) if kinds else None


def stem_of(path: str) -> str:
    """A raster's path without its band, its resolution and its ending.

    >>> stem_of("data/T33UUB_20170527_B04_10m.jp2"), stem_of("data/field_10m.tif")
    ('data/T33UUB_20170527', 'data/field')
    """
    here = Path(path)
    name = re.sub(r"(?:[_.-]B\d[\dA]?)?(?:[_.-]\d+m)?\.\w+$", "", here.name, flags=re.IGNORECASE)
    return str(here.with_name(name)) if name else str(here)
