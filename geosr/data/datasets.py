"""TorchGeo datasets of scenes: HR images alone, or with the LR images of the same places, as reflectance with masks."""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from rasterio.features import rasterize
from torch import Tensor
from torchgeo.datasets import GeoDataset, IntersectionDataset

from geosr.data.batches import Samples, empty_tensor
from geosr.data.index import index_crs, pixel_size, turns, window_polygon
from geosr.data.opened import Decoded, DecodedScenes, OpenScenes, open_paths, require_memory
from geosr.data.patches import Patch, PatchTable, SceneFiles, scan_patches
from geosr.data.splits import BlockSplit, split_patches
from geosr.errors import ConfigError, GridError
from geosr.footprint import GLOBAL, in_pixels, located
from geosr.grid import TOLERANCE, Window, coarsened, moved, pair_grids, upsample_mask

_MASKS = {"hr": "valid", "lr": "lr_valid"}
_ALL = np.ones((1, 1), bool)


@dataclass(frozen=True)
class _Image:
    """The HR or the LR image of a scene."""

    paths: tuple[str, ...]
    bands: tuple[str, ...]
    row: int
    """Row of the file that is row 0 of the scene's region."""
    column: int
    step: int
    """HR pixels per pixel of this image."""
    dtype: str


@dataclass(frozen=True)
class _Source:
    """A scene as the dataset counts it: its region is what HR and LR both cover, its rows and columns are HR pixels."""

    name: str
    geobox: GeoBox
    """Grid of the region, HR pixels."""
    used: Window
    """The part that patches may come from."""
    exclude: tuple[Window, ...]
    images: dict[str, _Image]
    unit: int
    """HR pixels that a patch moves by."""


class SceneDataset(GeoDataset):
    """HR patches of scenes: ``hr`` (band, y, x) reflectance, invalid pixels 0, and ``valid`` (y, x).

    A key is a `Patch` of `table`, or a query of TorchGeo, whose samplers, splits, ``&`` and ``|`` work on it. Nothing
    is ever resampled: a query becomes an exact window of one scene, the one that it overlaps most (in space, then in
    time, then the first), on the nearest pixel. What lies outside the scene, or outside the part of it that a split of
    TorchGeo's gave to this dataset, is invalid.

    All scenes are in one index: in their CRS where they share one, else in degrees (EPSG:4326). There a footprint that
    crosses the antimeridian goes on beyond 180 degrees, and ``size`` of TorchGeo's samplers still counts pixels: a
    query stands for as many pixels of the scene's own grid, around its centre. Scenes without a CRS have no place
    among others that have one: their patches are in the table, and TorchGeo's splits leave them out.

    Args:
        scenes: The scenes; names are unique.
        bands: Bands of the HR image, by name.
        size: Side of a patch, HR pixels.
        stride: HR pixels between the patches of the table; by default half a patch.
        split: How the table is split; by default all is for training.
        min_valid: Smallest share of valid pixels of a patch in the table.
        cache: ``none``, or ``memory``: scenes are decoded once, into memory that workers share.
        table: A table made before, with its split, whose scenes are counted like ``scenes``; its patches may be larger
            than ``size``.
        stand_ins: Which band takes the place of another, by name, in scenes that lack that one.
        unit: HR pixels that patches move by, so that they hold whole pixels of coarser bands that are repeated.

    Raises:
        ConfigError: A scene is smaller than a patch, no patch has enough valid pixels, the scenes do not fit into
            memory, or arguments contradict each other.
        GridError: LR and HR grids do not fit.
        BandError: A scene has no such band.
        RadiometryError: What the digital numbers of a scene mean is unknown.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("size", "stride", "split", "min_valid", "cache", "stand_ins", "unit")
    _index: gpd.GeoDataFrame | None = None
    _scale: int | None = None

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        bands: Sequence[str],
        *,
        size: int,
        stride: int | None = None,
        split: BlockSplit | None = None,
        min_valid: float = 1.0,
        cache: Literal["none", "memory"] = "none",
        table: PatchTable | None = None,
        stand_ins: Mapping[str, str] | None = None,
        unit: int = 1,
    ) -> None:
        names = [scene.name for scene in scenes]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"a dataset needs scenes with names of their own; it got {' '.join(names) or 'none'}")
        if table is not None and (table.size < size or split is not None):
            raise ConfigError(
                f"a table of patches of {table.size} pixels comes with its own split and holds none of {size} pixels; "
                "give no split beside it, and a size that fits"
            )
        if cache not in ("none", "memory"):
            raise ConfigError(f"cache {cache!r} is not allowed; it is 'none' or 'memory'")
        self.scenes, self.bands, self.size = tuple(scenes), tuple(bands), size
        self.split, self.min_valid, self.cache, self.unit = split, min_valid, cache, unit
        self.stand_ins = dict(stand_ins or {})
        self._given = table
        self._made: PatchTable | None = None
        self._kept: tuple[Any, PatchTable] | None = None
        self._open = OpenScenes()
        self._sources = [self._inspect(scene) for scene in self.scenes]
        self._numbers = {source.name: number for number, source in enumerate(self._sources)}
        unit = max(unit, *(source.unit for source in self._sources))
        if size < 2 or size % unit:
            raise ConfigError(f"a patch of {size} HR pixels is not allowed; it must be a multiple of {unit}, above 1")
        self.stride = max((stride or size // 2) // unit, 1) * unit
        self.paths = [path for scene in self.scenes for path in (*scene.hr, *scene.lr)]
        self._crs = index_crs(self.geoboxes)
        self._unit = unit
        self._places = self._placed()
        self._outlines = {name: located(place, self._used(name), self._crs) for name, place in self._places.items()}
        self._index = self._footprints()
        self._whole = _key(self._index)
        self._res = self._pixel()
        self._memory = DecodedScenes()
        if cache == "memory":
            self._decode()

    def _sides(self, scene: SceneFiles) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Paths and bands of each image."""
        return {"hr": (scene.hr, self.bands)}

    def _inspect(self, files: SceneFiles) -> _Source:
        """What is known of a scene without reading a pixel."""
        grids, images = {}, {}
        for name, (paths, bands) in self._sides(files).items():
            with open_paths(paths) as scene:
                bands = tuple(band if band in scene.bands else self.stand_ins.get(band, band) for band in bands)
                scene.select(bands)
                scene.band_radiometry(bands)
                grids[name] = scene.geobox
                images[name] = _Image(paths, bands, 0, 0, 1, scene.dtype)
        geobox = grids["hr"]
        if "lr" in grids:
            names = {f"{name}_name": images[name].paths[0] for name in grids}
            pair = pair_grids(geobox, grids["lr"], scale=self._scale, **names)
            self._scale = pair.scale
            for name, window, step in (("hr", pair.hr, 1), ("lr", pair.lr, pair.scale)):
                start = (window[0].start, window[1].start)
                images[name] = replace(images[name], row=start[0], column=start[1], step=step)
            geobox = geobox[pair.hr]
        image = images["hr"]
        exclude = tuple(moved(window, -image.row, -image.column) for window in files.exclude)
        unit = max(self.unit, *(image.step for image in images.values()))
        used = _inside(moved(files.window, -image.row, -image.column) if files.window else None, geobox, unit)
        height, width = (max(part.stop - part.start, 0) for part in used)
        if min(height, width) < self.size:
            raise ConfigError(
                f"{files.name} has {height} x {width} HR pixels to use, less than a patch of {self.size} x {self.size}"
                "; lower the patch size (Data.patch_size) or leave the scene out"
            )
        return _Source(files.name, geobox, used, exclude, images, unit)

    # The index and TorchGeo's queries

    @property
    def index(self) -> gpd.GeoDataFrame:
        """Footprint and time of each scene, or of the parts that a split left; ``filepath`` is the scene's name."""
        return self._index

    @index.setter
    def index(self, frame: gpd.GeoDataFrame) -> None:
        if "filepath" not in frame.columns:  # TorchGeo's random_grid_cell_assignment drops names and, in 0.8, the CRS
            frame = gpd.GeoDataFrame(
                {"filepath": frame.iloc[:, 0].to_numpy()}, index=frame.index, geometry=frame.geometry.to_numpy()
            )
        if frame.crs is None and self._index is not None:
            frame = frame.set_crs(self._index.crs)
        self._index = frame

    @property
    def res(self) -> tuple[float, float]:
        """Size of the pixel that queries are counted in: the LR pixel of pairs, else the HR pixel."""
        return self._res

    @res.setter
    def res(self, wanted: float | tuple[float, float]) -> None:
        wanted = (wanted, wanted) if isinstance(wanted, int | float) else wanted
        # In another CRS the unit may be another; there it is TorchGeo's count of pixels that matters.
        if self.index.crs == self._crs and not np.allclose(wanted, self._res, rtol=1e-6):
            raise GridError(
                f"TorchGeo asks for pixels of {wanted[0]:.10g} x {wanted[1]:.10g}; {type(self).__name__} has "
                f"{self._res[0]:.10g} x {self._res[1]:.10g} and never resamples; name it first in lr & hr, or pair two "
                "resolutions with GeoPairDataset or TorchGeoPairs"
            )
        self._res = tuple(wanted)  # type: ignore[assignment]

    @property
    def crs(self) -> CRS | None:
        """The CRS of the index; to set it moves the footprints there, not the pixels."""
        return self.index.crs

    @crs.setter
    def crs(self, wanted: Any) -> None:
        crs = CRS.from_user_input(wanted)
        if self.crs is None or crs == self.crs:
            return
        whole, moved = _key(self.index) == self._whole, self._moved_index(crs)
        self._outlines = {name: located(place, self._used(name), crs) for name, place in self._places.items()}
        self._index = moved
        self._whole = _key(moved) if whole else ()
        self._res = self._pixel()

    def _used(self, name: str) -> shapely.Polygon:
        """The part of a scene that patches may come from, in pixels (column, row)."""
        return window_polygon(self._sources[self._numbers[name]].used)

    def _placed(self) -> dict[str, GeoBox]:
        """The grid of each scene that has a place in the index.

        Scenes without a CRS that would lie on one another there, undated, are laid side by side.
        """
        places: dict[str, GeoBox] = {}
        taken: list[shapely.Polygon] = []
        for scene, source in zip(self.scenes, self._sources, strict=True):
            geobox = source.geobox
            if self._crs is None:
                outline = shapely.box(*geobox.boundingbox)
                if scene.start is None and any(shapely.area(outline & other) > 0 for other in taken):
                    beyond = max(other.bounds[2] for other in taken)
                    geobox = GeoBox(
                        geobox.shape, Affine.translation(beyond - outline.bounds[0], 0) * geobox.affine, None
                    )
                    outline = shapely.box(*geobox.boundingbox)
                taken.append(outline)
            elif geobox.crs is None or located(geobox, self._used(source.name), self._crs) is None:
                continue
            places[source.name] = geobox
        return places

    def _footprints(self) -> gpd.GeoDataFrame:
        """The index of all scenes."""
        rows = []
        for scene in self.scenes:
            if scene.name not in self._places:
                continue  # its patches are in the table
            start = pd.Timestamp.min if scene.start is None else _utc(scene.start)
            end = pd.Timestamp.max if scene.start is None else _utc(scene.end or scene.start)
            # TorchGeo's time_series_split and samplers lose intervals without a length.
            end = max(end, start + pd.Timedelta(seconds=1))
            rows.append((scene.name, start, end, self._outlines[scene.name]))
        names, starts, ends, geometry = zip(*rows, strict=True) if rows else ((), (), (), ())
        index = pd.IntervalIndex.from_arrays(
            pd.DatetimeIndex(starts), pd.DatetimeIndex(ends), closed="both", name="datetime"
        )
        return gpd.GeoDataFrame({"filepath": list(names)}, index=index, geometry=list(geometry), crs=self._crs)

    def _moved_index(self, crs: CRS | None, places: Mapping[str, GeoBox] | None = None) -> gpd.GeoDataFrame:
        """The index in another CRS, each footprint by way of its scene's own grid; without what has no place there."""
        places = self._places if places is None else places
        frame = self.index[self.index["filepath"].isin(list(places)).to_numpy()]
        geometry = []
        for name, outline in zip(frame["filepath"], frame.geometry, strict=True):
            geometry.append(located(places[name], self._pixels(name, outline), crs))
            if geometry[-1] is None:
                raise GridError(
                    f"{name} ({places[name].crs}) has no place in {crs.to_string() if crs else crs}; EPSG:4326 has one "
                    "for every scene"
                )
        return gpd.GeoDataFrame(
            {"filepath": frame["filepath"].to_numpy()}, index=frame.index, geometry=geometry, crs=crs
        )

    def _pixel(self) -> tuple[float, float]:
        """Size of the pixel that queries are counted in, in the CRS of the index as it is now."""
        if not self._places:
            return (1.0, 1.0)
        used = [place[self._sources[self._numbers[name]].used] for name, place in self._places.items()]
        width, height = pixel_size(used, list(self._outlines.values()), self.index.crs)
        return width * self._unit, height * self._unit

    def _pixels(self, name: str, *outlines: shapely.Geometry) -> shapely.Geometry:
        """Geometries of the index in the pixels (column, row) of a scene."""
        if outlines == (self._outlines[name],):  # as they were made: exact
            return self._used(name)
        return shapely.union_all([in_pixels(self._places[name], one, self.index.crs) for one in outlines])

    def _query(self, query: Any) -> dict[str, Tensor]:
        """The sample of a TorchGeo query."""
        x, y, t = self._disambiguate_slice(query)
        if not np.allclose((x.step, y.step), self._res, rtol=1e-6):
            raise GridError(f"query {query} asks for other pixels than {self._res}; this dataset never resamples")
        frame = self.index
        times = pd.Interval(_utc(t.start), _utc(t.stop), closed="both")
        hits = np.flatnonzero(frame.index.overlaps(times))
        outlines = frame.geometry.to_numpy()[hits]
        areas = [shapely.box(x.start + turn, y.start, x.stop + turn, y.stop) for turn in turns(frame.crs)]
        covered = _covered(outlines, areas)
        if not (covered > 0).any():  # in another CRS footprints are not the upright boxes that samplers cut from
            covered = _covered(shapely.envelope(outlines), areas)
        if not (covered > 0).any():
            raise IndexError(f"query {query} lies outside the dataset, whose bounds are {self.bounds}")
        best = max(
            range(len(hits)),
            key=lambda hit: (round(float(covered[hit]), 6), _shared(frame.index[hits[hit]], times), -hits[hit]),
        )
        name = frame["filepath"].iloc[hits[best]]
        source = self._sources[self._numbers[name]]
        centre = in_pixels(self._places[name], areas[0].centroid, frame.crs)
        if not np.isfinite(shapely.get_coordinates(centre)).all():
            raise IndexError(f"query {query} has no place on the grid of {name}, whose CRS is {source.geobox.crs}")
        height, width = (
            round((axis.stop - axis.start) / res) for axis, res in zip((y, x), self._res[::-1], strict=True)
        )
        row, column = (
            (round(middle / source.unit - length / 2) * source.unit, length * source.unit)
            for middle, length in ((centre.y, height), (centre.x, width))
        )
        window = (slice(row[0], sum(row)), slice(column[0], sum(column)))
        mine = outlines[(frame["filepath"].iloc[hits] == name).to_numpy()]
        return self._part(self._numbers[name], window, self._pixels(name, *mine))

    def __and__(self, other: GeoDataset) -> IntersectionDataset:
        """What both show at the same bounds: bands one after the other, valid where both are.

        Raises:
            GridError: The other one is in another CRS or on other pixels, so that TorchGeo would have to resample.
        """
        one, two = self, other
        if isinstance(other, SceneDataset) and self.crs != other.crs and self.crs is not None and other.crs is not None:
            one, two = self._everywhere(), other._everywhere()
        if isinstance(two, SceneDataset):
            two = two._facing(one)
        if one.crs != two.crs or not np.allclose(one.res, two.res, rtol=1e-6) or not _fit(one, two):
            raise GridError(
                f"the two datasets are not on one grid ({self.crs}, pixel {self.res}; {other.crs}, pixel {other.res}) "
                "and nothing is resampled here; pair two resolutions with GeoPairDataset or TorchGeoPairs"
            )
        return IntersectionDataset(one, two, collate_fn=_joined)

    def __or__(self, other: GeoDataset) -> GeoDataset:
        """The scenes of both; a dataset of another class is left to TorchGeo, which overlays what both show."""
        if type(other) is not type(self):
            return super().__or__(other)
        new = [scene for scene in other.scenes if scene not in self.scenes]
        union = self._with((*self.scenes, *new))
        whole = all(_key(part.index) == part._whole for part in (self, other))
        union._index = pd.concat([part._moved_index(union._crs, union._places) for part in (self, other)])
        union._whole = _key(union._index) if whole else ()
        return union

    def _facing(self, other: "SceneDataset") -> Self:
        """The same dataset, with footprints beyond the antimeridian where the other one names the place so."""
        names = [self.index.geometry.translate(turn) for turn in turns(self.crs)[1:]]
        meets = [other.index.sindex.query(outlines, predicate="intersects")[0] for outlines in names]
        if not any(map(len, meets)):
            return self
        facing = copy(self)
        more = [
            self.index.set_geometry(outlines).iloc[np.unique(rows)] for outlines, rows in zip(names, meets, strict=True)
        ]
        facing._index = pd.concat([self.index, *more])
        return facing

    def _everywhere(self) -> Self:
        """The same dataset with its index in degrees."""
        moved = copy(self)
        moved._crs = moved.crs = GLOBAL
        return moved

    def _with(self, scenes: Sequence[SceneFiles], **arguments: Any) -> Self:
        """A dataset like this one of other scenes."""
        arguments |= {name: getattr(self, name) for name in self._arguments}
        return type(self)(scenes, self.bands, **arguments)

    @property
    def geoboxes(self) -> list[GeoBox]:
        """Grid of each scene, HR pixels; of a pair, the part that both images cover."""
        return [source.geobox for source in self._sources]

    def resized(self, size: int) -> Self:
        """The same scenes, opened and decoded once, in patches of another size."""
        other = copy(self)
        other.size, other._made, other._kept = size, None, None
        return other

    # Patches

    @property
    def table(self) -> PatchTable:
        """The patches that have enough valid pixels and lie in the index, with their split; scenes are read once.

        Raises:
            ConfigError: No patch has enough valid pixels, or too few are left for a split.
        """
        if self._made is None:
            self._made = self._enough(self._given) if self._given is not None else self._scan()
        key = _key(self.index)
        if key == self._whole:
            return self._made
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._made.select(self._indexed(self._made)))
        return self._kept[1]

    def _scan(self) -> PatchTable:
        """The table of all scenes, each read in strips."""
        tables = []
        for number, source in enumerate(self._sources):
            rows, columns = source.used
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            table = scan_patches(
                lambda strip, number=number: self._valid_and_mean(number, strip),  # type: ignore[misc]
                shape,
                scene=number,
                size=self.size,
                stride=self.stride,
            )
            tables.append(replace(table, row=table.row + rows.start, column=table.column + columns.start))
        table = self._enough(PatchTable.concatenate(tables))
        if self.split is None:
            return table
        return split_patches(table, self.geoboxes, self.split, names=[source.name for source in self._sources])

    def _enough(self, table: PatchTable) -> PatchTable:
        """The patches with enough valid pixels."""
        kept = table.select(table.valid >= self.min_valid)
        if not len(kept):
            best = float(table.valid.max()) if len(table) else 0.0
            raise ConfigError(
                f"no patch of {table.size} x {table.size} HR pixels has {self.min_valid:.0%} valid pixels; the best of "
                f"{len(table)} has {best:.1%}; lower min_valid or the patch size"
            )
        return kept

    def _valid_and_mean(self, number: int, strip: slice) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Valid pixels and mean over bands of some rows of the part that is used; a pair's must be valid in both."""
        rows, columns = self._sources[number].used
        window = (slice(rows.start + strip.start, rows.start + strip.stop), columns)
        image, valid = self._read(number, "hr", window)
        for name, other in self._sources[number].images.items():
            if name != "hr":
                coarse = self._read(number, name, coarsened(window, other.step))[1]
                valid = valid & upsample_mask(coarse, other.step)
        return valid, image.mean(axis=0)

    def _indexed(self, table: PatchTable) -> NDArray[np.bool_]:
        """Which patches lie in the parts that the index has, wholly."""
        keep = np.zeros(len(table), bool)
        placed = set(self.index["filepath"])
        for number, source in enumerate(self._sources):
            here = np.flatnonzero(table.scene == number)
            if source.name not in placed:
                continue  # given to another part of a split, or without a place that a split could go by
            own = self.index.geometry.to_numpy()[(self.index["filepath"] == source.name).to_numpy()]
            region = self._pixels(source.name, *own).buffer(TOLERANCE)
            shapely.prepare(region)
            top, left = table.row[here], table.column[here]
            keep[here] = shapely.covers(region, shapely.box(left, top, left + table.size, top + table.size))
        return keep

    def __getitem__(self, key: Any) -> dict[str, Tensor]:
        """The sample of a `Patch` or of a TorchGeo query."""
        return self.__getitems__([key])[0] if isinstance(key, Patch) else self._query(key)

    def __getitems__(self, keys: Sequence[Any]) -> list[dict[str, Tensor]]:
        """The samples of a batch; those of patches are parts of one `Samples.stacked`."""
        if not all(isinstance(key, Patch) for key in keys):
            return [self[key] for key in keys]
        images = self._sources[0].images.items()
        sides = {name: (len(image.bands), self.size // image.step) for name, image in images}
        stacked = {
            name: empty_tensor((len(keys), bands, side, side), torch.float32) for name, (bands, side) in sides.items()
        }
        masks = {name: empty_tensor((len(keys), side, side), torch.bool) for name, (_, side) in sides.items()}
        # Place by place: neighbours share the blocks that GDAL keeps decoded.
        for place in sorted(range(len(keys)), key=keys.__getitem__):
            source, window = self._sources[keys[place].scene], self._window(keys[place])
            for name, image in source.images.items():
                into = stacked[name][place].numpy()
                masks[name][place].numpy()[:] = self._read(
                    keys[place].scene, name, coarsened(window, image.step), into
                )[1]
        return Samples(stacked | {_MASKS[name]: mask for name, mask in masks.items()})

    def _window(self, patch: Patch) -> Window:
        """The HR pixels of a patch."""
        rows, columns = self._sources[patch.scene].used
        last = (rows.stop - self.size, columns.stop - self.size)
        if not (rows.start <= patch.row <= last[0] and columns.start <= patch.column <= last[1]):
            raise IndexError(f"{patch} does not lie inside {self._sources[patch.scene].name}")
        return slice(patch.row, patch.row + self.size), slice(patch.column, patch.column + self.size)

    def _part(self, number: int, window: Window, own: shapely.Geometry) -> dict[str, Tensor]:
        """Images and masks of a window of HR pixels; where ``own`` (in pixels) does not reach, pixels are invalid."""
        rows, columns = window
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        inside = np.ones(shape, bool)
        if not own.buffer(TOLERANCE).covers(window_polygon(window)):
            inside = rasterize([own], out_shape=shape, transform=Affine.translation(columns.start, rows.start)) > 0
        used = self._sources[number].used
        common = (_common(rows, used[0]), _common(columns, used[1]))
        sample: dict[str, Tensor] = {}
        for name, image in self._sources[number].images.items():
            step = image.step
            mask = inside.reshape(shape[0] // step, step, shape[1] // step, step).all(axis=(1, 3))
            array, valid = np.zeros((len(image.bands), *mask.shape), np.float32), np.zeros(mask.shape, bool)
            here = coarsened(moved(common, -rows.start, -columns.start), step)
            if valid[here].size:
                array[:, *here], valid[here] = self._read(number, name, coarsened(common, step))
            valid &= mask
            array *= valid
            sample |= {name: torch.from_numpy(array), _MASKS[name]: torch.from_numpy(valid)}
        return sample

    # Pixels

    def _read(
        self, number: int, name: str, window: Window, out: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance (band, y, x) with 0 where it is invalid, and the mask, of a window in the image's own pixels."""
        source = self._sources[number]
        image = source.images[name]
        if decoded := self._memory.get((number, name)):
            used = coarsened(source.used, image.step)
            here = moved(window, -used[0].start, -used[1].start)
            valid = decoded.valid.numpy()[here]
            # Pixels that are not valid become 0 below; on the way there they need not be NaN.
            array = decoded.radiometry.to_reflectance(decoded.dn.numpy()[:, *here], valid=_ALL, out=out)
        else:
            raster = self._open[image.paths].read(moved(window, image.row, image.column), image.bands)
            array, valid = raster.array, _without(raster.valid, source.exclude, window, image.step)
            if out is not None:
                out[:] = array
                array = out
        if not valid.all():
            np.copyto(array, 0, where=~valid)
        return array, valid

    def _decode(self) -> None:
        """Every scene's digital numbers and masks into memory that processes share."""
        jobs = [(number, name) for number, source in enumerate(self._sources) for name in source.images]
        shapes = {}
        for number, name in jobs:
            image = self._sources[number].images[name]
            rows, columns = coarsened(self._sources[number].used, image.step)
            shapes[number, name] = (len(image.bands), rows.stop - rows.start, columns.stop - columns.start)
        types = {job: np.dtype(self._sources[job[0]].images[job[1]].dtype) for job in jobs}
        needed = sum(math.prod(shapes[job][1:]) * (shapes[job][0] * types[job].itemsize + 1) for job in jobs)
        require_memory(needed, len(self._sources))
        for number, name in jobs:
            image, source = self._sources[number].images[name], self._sources[number]
            rows, columns = coarsened(source.used, image.step)
            scene = self._open[image.paths]
            dn = torch.empty(shapes[number, name], dtype=torch.from_numpy(np.empty(0, types[number, name])).dtype)
            valid = torch.empty(shapes[number, name][1:], dtype=torch.bool)
            dn.share_memory_()
            valid.share_memory_()
            for top in range(rows.start, rows.stop, 512):
                strip = (slice(top, min(top + 512, rows.stop)), columns)
                part = moved(strip, image.row, image.column)
                into = slice(strip[0].start - rows.start, strip[0].stop - rows.start)
                dn.numpy()[:, into], known = scene.read_masked(part, image.bands)
                valid.numpy()[into] = _without(known, source.exclude, strip, image.step)
            self._memory[number, name] = Decoded(dn, valid, scene.band_radiometry(image.bands))


class GeoPairDataset(SceneDataset):
    """LR and HR patches of one place and time: as `SceneDataset`, with ``lr`` (band, y, x) and ``lr_valid`` (y, x).

    The HR grid must sit on the LR grid, an exact number of pixels in each LR pixel; what both cover, in whole LR
    pixels, is used. TorchGeo counts in LR pixels here: ``res`` is theirs, and so is the ``size`` of its samplers.

    Args:
        scenes: The scenes, with their LR files.
        bands: Bands of the HR image, by name.
        lr_bands: Bands of the LR image; by default the same.
        scale: HR pixels per LR pixel; by default what the first scene has.
        size: Side of a patch, HR pixels.
        stride: As for `SceneDataset`, and so are the arguments that follow.
        split: See there.
        min_valid: See there; a pixel counts as valid where both images are.
        cache: See there.
        table: See there.
    """

    _arguments = ("size", "stride", "split", "min_valid", "cache", "stand_ins")

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        bands: Sequence[str],
        *,
        size: int,
        lr_bands: Sequence[str] | None = None,
        scale: int | None = None,
        stride: int | None = None,
        split: BlockSplit | None = None,
        min_valid: float = 1.0,
        cache: Literal["none", "memory"] = "none",
        table: PatchTable | None = None,
        stand_ins: Mapping[str, str] | None = None,
    ) -> None:
        self.lr_bands = tuple(bands if lr_bands is None else lr_bands)
        self._scale = scale
        super().__init__(
            scenes,
            bands,
            size=size,
            stride=stride,
            split=split,
            min_valid=min_valid,
            cache=cache,
            table=table,
            stand_ins=stand_ins,
        )

    @property
    def scale(self) -> int:
        """HR pixels per LR pixel."""
        return self._sources[0].unit

    def _sides(self, scene: SceneFiles) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        if not scene.lr:
            raise ConfigError(f"scene {scene.name} names no LR file; a pair needs one, SceneDataset makes do without")
        return {"hr": (scene.hr, self.bands), "lr": (scene.lr, self.lr_bands)}

    def _with(self, scenes: Sequence[SceneFiles], **arguments: Any) -> Self:
        return super()._with(scenes, lr_bands=self.lr_bands, scale=self._scale, **arguments)


def _joined(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One sample of two at the same bounds: images band after band, masks valid where both are."""
    joined = dict(samples[0])
    for name, value in samples[1].items():
        if name not in joined or not isinstance(value, Tensor):
            joined.setdefault(name, value)
        elif name.endswith("valid"):
            joined[name] = joined[name] & value
        else:
            joined[name] = torch.cat([joined[name], value])
    return joined


def _without(valid: NDArray[np.bool_], exclude: Sequence[Window], window: Window, step: int) -> NDArray[np.bool_]:
    """The mask of a window (in an image's pixels) without the excluded windows (in HR pixels)."""
    for rows, columns in exclude:
        touched = (slice(part.start // step, -(-part.stop // step)) for part in (rows, columns))
        here = tuple(
            slice(max(part.start - own.start, 0), max(part.stop - own.start, 0))
            for part, own in zip(touched, window, strict=True)
        )
        if valid[here].any():
            valid = valid.copy()
            valid[here] = False
    return valid


def _inside(window: Window | None, geobox: GeoBox, unit: int) -> Window:
    """The part of a window that lies in a grid, in whole units."""
    height, width = geobox.shape
    wanted = window or (slice(0, height), slice(0, width))
    rows, columns = (
        slice(-(-max(part.start, 0) // unit) * unit, min(part.stop, length) // unit * unit)
        for part, length in zip(wanted, (height, width), strict=True)
    )
    return rows, columns


def _common(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), max(min(one.stop, other.stop), max(one.start, other.start)))


def _key(frame: gpd.GeoDataFrame) -> tuple[Any, ...]:
    """What tells two indices apart: the scenes, and which part of each."""
    return tuple(frame["filepath"]), tuple(shapely.to_wkb(frame.geometry.to_numpy()))


def _covered(outlines: NDArray[Any], areas: Sequence[shapely.Polygon]) -> NDArray[np.float64]:
    """How much of an area each outline covers, 0 to 1; the areas are one place by several names."""
    return sum(shapely.area(shapely.intersection(outlines, area)) for area in areas) / areas[0].area


def _fit(one: "SceneDataset", other: GeoDataset) -> bool:
    """Whether scenes of two datasets are on one grid wherever they show one place."""
    if not isinstance(other, SceneDataset):
        return True
    for first, second in zip(*other.index.sindex.query(one.index.geometry, predicate="intersects"), strict=True):
        if (one.index.geometry.iloc[first] & other.index.geometry.iloc[second]).area > 0:
            grids = [
                dataset._sources[dataset._numbers[dataset.index["filepath"].iloc[row]]]
                for dataset, row in ((one, first), (other, second))
            ]
            if len({_phase(source.geobox, source.unit) for source in grids}) > 1:
                return False
    return True


def _phase(geobox: GeoBox, unit: int) -> tuple[str, ...]:
    """CRS, pixel and where in a pixel the origin lies, as words that are equal for grids that fit each other."""
    a, b, c, d, e, f = geobox.affine[:6]
    x, y = (np.round((~Affine(a, b, 0, d, e, 0) * (c, f))[axis] / unit % 1, 3) % 1 for axis in (0, 1))
    return (str(geobox.crs), *(f"{value * unit:.6g}" for value in (a, b, d, e)), f"{x:.3f}", f"{y:.3f}")


def _utc(moment: Any) -> pd.Timestamp:
    """The moment in UTC, which TorchGeo does not name."""
    stamp = pd.Timestamp(moment)
    return stamp if stamp.tzinfo is None else stamp.tz_convert("UTC").tz_localize(None)


def _shared(one: pd.Interval, other: pd.Interval) -> float:
    """Seconds that two intervals share; as Timedelta, all of TorchGeo's time would overflow."""
    return min(one.right, other.right).timestamp() - max(one.left, other.left).timestamp()
