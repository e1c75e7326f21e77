"""Random patches of HR scenes, drawn where there is detail, in one of the eight orientations of the square."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geosr.demo import demo_scene
from geosr.errors import ConfigError
from geosr.io.raster import Raster, open_scene

STRIDE = 8
"""HR pixels between the places that a patch may start at."""


def scenes_folder(root: str | Path) -> Path:
    """Folder that scene paths are relative to; ``demo`` is that of the scene that comes with geosr.

    A folder of one's own that has this name is ``./demo``.
    """
    return demo_scene().parent if root == "demo" else Path(root)


def expand_scenes(root: str | Path, patterns: Sequence[str]) -> list[Path]:
    """The files below ``root`` that the paths and globs name, in order, each once.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    folder = scenes_folder(root)
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern or Path(pattern).is_absolute():
            raise ConfigError(f"scene {pattern!r} is no path relative to Data.root, which is {root}")
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise ConfigError(f"scene {pattern!r} matches no file in {root}; set Data.root to the folder of the scenes")
        found.update(dict.fromkeys(matches))
    return list(found)


def read_scenes(
    root: str | Path,
    patterns: Sequence[str],
    bands: Sequence[str],
    *,
    exclude: Mapping[str, Sequence[int]] | None = None,
    windows: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Raster]:
    """Scenes as reflectance, by path relative to ``root``.

    Args:
        root: Folder of the scenes.
        patterns: Paths and globs below it.
        bands: Bands to read, in this order.
        exclude: Windows [row, column, height, width] whose pixels are to be invalid, by scene.
        windows: Windows to read where it is not the whole scene, by scene.

    Raises:
        ConfigError: A pattern matches nothing, or a window lies outside its scene or belongs to none.
    """
    folder = scenes_folder(root)
    exclude, windows = exclude or {}, windows or {}
    for name in (*exclude, *windows):  # a misspelt name would let the window into training
        if [path.relative_to(folder).as_posix() for path in expand_scenes(root, [name])] != [name]:
            raise ConfigError(f"a window belongs to one scene, named by its path in {root}; {name!r} is no such path")
    rasters = {}
    for path in expand_scenes(root, patterns):
        name = path.relative_to(folder).as_posix()
        with open_scene(path) as scene:
            shape = tuple(scene.geobox.shape)
            window = rows_and_columns(windows[name], name, shape) if name in windows else None
            raster = scene.read(window, bands)
        if name in exclude:
            valid = raster.valid.copy()
            valid[rows_and_columns(exclude[name], name, shape)] = False
            raster = replace(raster, array=np.where(valid, raster.array, np.float32(np.nan)), valid=valid)
        rasters[name] = raster
    return rasters


def rows_and_columns(window: Sequence[int], name: str, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The pixels of a window [row, column, height, width].

    Raises:
        ConfigError: It reaches beyond the scene ``name`` of that shape.
    """
    row, column, height, width = window
    if row + height > shape[0] or column + width > shape[1]:
        raise ConfigError(
            f"window {list(window)} (row, column, height, width) reaches beyond {name}, "
            f"which has {shape[0]} rows and {shape[1]} columns"
        )
    return slice(row, row + height), slice(column, column + width)


@dataclass(frozen=True)
class Patch:
    """Place of a patch: its scene and its first row and column."""

    scene: int
    row: int
    column: int


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Fully valid HR patches of ``size`` pixels; the item's index seeds its draw, so the same index is the same patch.

    Args:
        rasters: Scenes as reflectance, by name.
        size: Side of a patch, HR pixels.
        length: Number of items; one epoch.
        detail: A patch is drawn in proportion to (its mean absolute difference between neighbours) ** detail.
        gain: Patches are multiplied by a factor drawn log-uniformly from 1/gain to gain.
        seed: Seed of the sequence of patches.

    Raises:
        ConfigError: A scene is smaller than a patch, or no patch is fully valid.
    """

    def __init__(
        self,
        rasters: Mapping[str, Raster],
        *,
        size: int,
        length: int,
        detail: float = 0.5,
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.size, self.length, self.gain, self.seed = size, length, gain, seed
        self.images = []
        self.patches: list[Patch] = []
        weights: list[np.ndarray] = []
        for index, (name, raster) in enumerate(rasters.items()):
            height, width = raster.valid.shape
            if min(height, width) < size:
                raise ConfigError(
                    f"{name} has {height} x {width} pixels, less than a patch of {size} x {size}; lower Data.patch_size"
                )
            places, share = _places(raster, size)
            self.images.append(torch.from_numpy(np.nan_to_num(raster.array)))
            self.patches += [Patch(index, int(row), int(column)) for row, column in places]
            weights.append(share**detail)
        if not self.patches:
            raise ConfigError(f"no patch of {size} x {size} pixels is fully valid; lower Data.patch_size")
        share = np.concatenate(weights)
        cumulative = np.cumsum(share if share.any() else np.ones_like(share))  # scenes without detail: uniformly
        self.cumulative = cumulative / cumulative[-1]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``hr``: reflectance (band, size, size)."""
        random = np.random.default_rng((self.seed, index))
        patch = self.patches[int(np.searchsorted(self.cumulative, random.random(), side="right"))]
        hr = self.images[patch.scene][:, patch.row : patch.row + self.size, patch.column : patch.column + self.size]
        hr = torch.rot90(hr, int(random.integers(4)), (1, 2))
        if random.integers(2):
            hr = hr.flip(2)
        return {"hr": hr * float(self.gain ** random.uniform(-1, 1))}


def _places(raster: Raster, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First (row, column) of every fully valid patch on the stride grid, and the detail of each."""
    image = np.nan_to_num(raster.array).mean(axis=0)
    detail = np.zeros_like(image)
    detail[:-1, :-1] = np.abs(np.diff(image, axis=0))[:, :-1] + np.abs(np.diff(image, axis=1))[:-1]
    rows, columns = np.meshgrid(*(np.arange(0, n - size + 1, STRIDE) for n in image.shape), indexing="ij")
    whole = _box_sum(raster.valid.astype(np.int64), rows, columns, size) == size**2
    share = _box_sum(detail.astype(np.float64), rows, columns, size - 1) / size**2  # both neighbours are in the patch
    return np.stack([rows[whole], columns[whole]], axis=1), share[whole]


def _box_sum(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
    """Sum over the ``size`` x ``size`` window that starts at each row and column, from the integral image."""
    integral = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    below, right = rows + size, columns + size
    return integral[below, right] - integral[rows, right] - integral[below, columns] + integral[rows, columns]
