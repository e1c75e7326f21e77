"""Training stores: what ``geosr prepare`` writes, opened and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.data.patches import PatchTable, SceneFiles
from geosr.data.sources import pair_key
from geosr.errors import GeosrError, InputError
from geosr.files import sha256_of
from geosr.grid import TOLERANCE, upsample_mask
from geosr.io.scene import Scene, open_scene

VERSION = 1
"""Version of the layout; a store of another version is refused."""
MANIFEST = "manifest.json"
"""Everything about a store that is not an array."""
SPLITS = ("train", "val", "test")
"""What 0, 1 and 2 mean in the column ``split``; -1 is none."""
COLUMNS = tuple(field.name for field in fields(PatchTable) if field.name != "size")
"""Arrays of the index, of one length."""

_LOWEST, _HIGHEST = -0.2, 2.0  # reflectance: dark water overcorrected, and snow or glint facing the sun
_OUTLIERS = 0.01  # share of a scene's valid values that may lie beyond


@dataclass(frozen=True)
class Store:
    """A training store: its scenes, and where patches are in them."""

    path: Path
    scenes: tuple[SceneFiles, ...]
    """One Zarr group each, two for a pair."""
    table: PatchTable
    """All patches, with their part of the split."""
    bands: tuple[str, ...]
    """Bands of every scene, in this order."""
    scale: int | None
    """LR pixels are that many times as wide as HR ones; None where scenes have no LR image."""
    manifest: Mapping[str, Any]
    """Options, scenes with source and licence, checksums, and counts."""


@dataclass(frozen=True)
class Report:
    """What a check of a store found."""

    path: Path
    scenes: int
    patches: int
    violations: tuple[str, ...]
    """One line each; none where the store is sound."""


def scene_path(store: Path, slug: str, role: str) -> Path:
    """Where a store keeps an image of a scene; its role is ``hr`` or ``lr``."""
    return store / "scenes" / slug / role


def open_store(path: str | Path) -> Store:
    """The scenes and patches of a training store; no pixel is read.

    Raises:
        InputError: There is no store, it is of another version, or its manifest or index is damaged.
    """
    store = _open(Path(path))
    for told in _changed_index(store):
        raise InputError(f"the index of {path} is damaged ({told}); run geosr prepare again")
    return store


def _open(path: Path) -> Store:
    """The store, its index as it is."""
    manifest = _read_manifest(path)
    try:
        scenes = tuple(_scene_files(path, entry) for entry in manifest["scenes"])
        bands, scale, size = tuple(manifest["options"]["bands"]), manifest["scale"], manifest["options"]["patch"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path / MANIFEST} is damaged ({error!r}); run geosr prepare again") from error
    try:
        index = zarr.open_group(path / "index", mode="r")
        table = PatchTable(size, **{name: np.asarray(index[name]) for name in COLUMNS})
    except Exception as error:  # whatever zarr and its codecs make of damaged bytes
        raise InputError(f"the index of {path} is damaged ({error}); run geosr prepare again") from error
    if len(table) and not 0 <= int(table.scene.min()) <= int(table.scene.max()) < len(scenes):
        raise InputError(f"the index of {path} names scenes that it does not hold; run geosr prepare again")
    return Store(path, scenes, table, bands, scale, manifest)


def _changed_index(store: Store) -> Iterator[str]:
    """Whether the index is not as it was written."""
    expected = store.manifest["index_sha256"]
    if (actual := digest(store.path / "index")) != expected:
        yield f"it has checksum {actual[:12]} and was written with {expected[:12]}"


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a store of this version."""
    if not path.exists():
        raise InputError(f"{path} does not exist; make it with geosr prepare SOURCES... --out {path}")
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} is no training store (it holds no {MANIFEST}); make one with geosr prepare"
        ) from error
    except ValueError as error:
        raise InputError(f"{path / MANIFEST} is damaged ({error}); run geosr prepare again") from error
    version = manifest.get("store") if isinstance(manifest, dict) else None
    if version != VERSION:
        raise InputError(
            f"{path} is a training store of version {version} and this geosr reads version {VERSION}; "
            "run geosr prepare again"
        )
    return manifest


def _scene_files(path: Path, entry: Mapping[str, Any]) -> SceneFiles:
    start, end = (datetime.fromisoformat(entry[key]) if entry[key] else None for key in ("start", "end"))
    files = {role: (str(scene_path(path, entry["slug"], role)),) for role in entry["checksums"]}
    return SceneFiles(entry["name"], files["hr"], files.get("lr", ()), start=start, end=end)


def digest(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and contents of all files below a folder."""
    if path.is_file():
        return sha256_of(path)
    total = hashlib.sha256()
    for inside in sorted(path.rglob("*")):
        if inside.is_file():
            total.update(f"{inside.relative_to(path).as_posix()} {digest(inside)}\n".encode())
    return total.hexdigest()


def check_store(path: str | Path) -> Report:
    """What is wrong with a training store, found from its own arrays and not from how they were made.

    Checksums of all arrays; pairs that match by name, CRS, outline and scale; values that can be reflectance; the valid
    shares in the index; patches inside their scenes; and no ground that two parts of the split share.

    Raises:
        InputError: There is no store to check, or too little of it is left to open it.
    """
    store = _open(Path(path))
    found: list[str] = []
    geoboxes: list[GeoBox | None] = []
    for number, entry in enumerate(store.manifest["scenes"]):
        try:
            found += _check_files(store, entry)
            with open_scene(store.scenes[number].hr) as hr:
                geoboxes.append(hr.geobox)
                inside = _check_windows(store, number, hr.geobox)
                found += _check_pair(store, number, hr)
                found += inside or _check_pixels(store, number, hr)
        except GeosrError as error:
            found.append(f"{entry['name']}: cannot be read ({str(error).splitlines()[0]})")
            geoboxes += [None] * (number + 1 - len(geoboxes))
    found += _check_index(store)
    found += _check_leaks(store, geoboxes)
    return Report(store.path, len(store.scenes), len(store.table), tuple(found))


def _check_files(store: Store, entry: Mapping[str, Any]) -> Iterator[str]:
    """Arrays that are not as they were written."""
    for role, expected in entry["checksums"].items():
        folder = scene_path(store.path, entry["slug"], role)
        if not folder.is_dir():
            yield f"{entry['name']}: its {role} image is missing"
        elif (actual := digest(folder)) != expected:
            yield f"{entry['name']}: its {role} image has checksum {actual[:12]} and was written with {expected[:12]}"


def _check_index(store: Store) -> Iterator[str]:
    """Columns of the index that are not as they were written, or hold what they cannot."""
    yield from (f"index: {told}" for told in _changed_index(store))
    if odd := sorted(set(np.unique(store.table.split).tolist()) - {-1, 0, 1, 2}):
        yield f"index: column split holds {odd}; allowed are -1 (none), 0 train, 1 val, 2 test"
    wants_clouds = store.manifest["options"]["max_cloud"] is not None
    index = zarr.open_group(store.path / "index", mode="r")
    if wants_clouds and ("cloud" not in index or len(np.asarray(index["cloud"])) != len(store.table)):
        yield "index: column cloud is missing, or not as long as the others, and --max-cloud was given"


def _check_windows(store: Store, number: int, geobox: GeoBox) -> list[str]:
    """Patches of a scene that reach beyond it."""
    table = store.table
    here = table.scene == number
    beyond = (table.row < 0) | (table.column < 0)
    beyond |= (table.row + table.size > geobox.shape[0]) | (table.column + table.size > geobox.shape[1])
    if not (outside := np.flatnonzero(here & beyond)).size:
        return []
    first = table[int(outside[0])]
    return [
        f"{store.scenes[number].name}: {outside.size} patches of {table.size} pixels reach beyond its "
        f"{geobox.shape[0]} x {geobox.shape[1]}, such as row {first.row}, column {first.column}"
    ]


def _check_pair(store: Store, number: int, hr: Scene) -> Iterator[str]:
    """Whether a scene is a pair where it should be, of one name, one outline and the exact scale."""
    entry, scene = store.manifest["scenes"][number], store.scenes[number]
    if (store.scale is None) != (not scene.lr):
        yield f"{scene.name}: the store's scale is {store.scale} and the scene has {len(scene.lr)} LR images"
        return
    if store.scale is None:
        return
    suffixes = store.manifest["options"]["suffixes"]
    keys = {pair_key(file["path"], suffixes) for role in ("files", "lr_files") for file in entry[role]}
    if len(keys) > 1 and entry["matched"]:
        yield f"{scene.name}: it was made of images with different names ({' '.join(sorted(keys))})"
    with open_scene(scene.lr) as lr:
        if lr.geobox.crs != hr.geobox.crs:
            yield f"{scene.name}: its LR image is in {lr.geobox.crs} and its HR image in {hr.geobox.crs}"
        shapes = tuple(hr.geobox.shape), tuple(length * store.scale for length in lr.geobox.shape)
        if shapes[0] != shapes[1]:
            yield (
                f"{scene.name}: its HR image has {shapes[0][0]} x {shapes[0][1]} pixels and {store.scale} times its LR "
                f"image has {shapes[1][0]} x {shapes[1][1]}"
            )
        # Where HR corners lie in LR pixels.
        to_lr, (height, width) = ~lr.geobox.affine * hr.geobox.affine, hr.geobox.shape
        apart = max(
            abs(there - here / store.scale)
            for corner in ((0, 0), (width, 0), (0, height), (width, height))
            for there, here in zip(to_lr * corner, corner, strict=True)
        )
        if apart * store.scale > TOLERANCE:
            yield (
                f"{scene.name}: its HR grid is up to {apart * store.scale:.3g} HR pixels away from its LR grid divided "
                f"by {store.scale}"
            )
        found = _out_of_range(lr, slice(0, lr.geobox.shape[0]), store.bands, f"{scene.name}: its LR image")
    yield from found


def _check_pixels(store: Store, number: int, hr: Scene) -> list[str]:
    """Values that cannot be reflectance, and patches whose valid share is not what the index says."""
    name, table = store.scenes[number].name, store.table
    height, width = hr.geobox.shape
    if found := _out_of_range(hr, slice(0, height), store.bands, name):
        return found
    here = np.flatnonzero(table.scene == number)
    lr = open_scene(store.scenes[number].lr) if store.scenes[number].lr else None
    wrong = 0
    for top in np.unique(table.row[here]):
        rows = slice(int(top), int(top) + table.size)
        valid = hr.read((rows, slice(0, width)), store.bands).valid
        if lr is not None and store.scale:
            coarse = slice(rows.start // store.scale, rows.stop // store.scale)
            low = lr.read((coarse, slice(0, width // store.scale)), store.bands).valid
            valid = valid & upsample_mask(low, store.scale)
        for index in here[table.row[here] == top]:
            column = int(table.column[index])
            share = float(valid[:, column : column + table.size].mean())
            wrong += abs(share - float(table.valid[index])) > 1e-4
    if lr is not None:
        lr.close()
    if wrong:
        found.append(f"{name}: {wrong} patches have another share of valid pixels than the index says")
    return found


def _out_of_range(scene: Scene, rows: slice, bands: Sequence[str], name: str) -> list[str]:
    """Whether more of an image than outliers lies where reflectance does not, read strip by strip."""
    valid = outside = 0
    width, encoding = scene.geobox.shape[1], scene.encoding(bands)
    for top in range(rows.start, rows.stop, 512):
        # Read as it is stored: a scene whose values are no reflectance refuses to give it.
        dn = scene.read_digital((slice(top, min(top + 512, rows.stop)), slice(0, width)), bands)
        valid_here = encoding.valid(dn)
        values = encoding.to_reflectance(dn, valid=valid_here)[:, valid_here]
        valid += values.size
        outside += int(((values < _LOWEST) | (values > _HIGHEST)).sum())
    if not valid:
        return [f"{name}: it has no valid pixel"]
    if outside > _OUTLIERS * valid:
        return [
            f"{name}: {outside / valid:.1%} of its values are outside reflectance {_LOWEST:g} to {_HIGHEST:g}; "
            "its scale or offset is wrong"
        ]
    return []


def _check_leaks(store: Store, geoboxes: Sequence[GeoBox | None]) -> Iterator[str]:
    """Ground that patches of two parts share, whichever scene or date shows it."""
    places: dict[int, list[tuple[NDArray[Any], NDArray[np.int64]]]] = {0: [], 1: [], 2: []}
    for number, geobox in enumerate(geoboxes):
        for part in places:
            here = np.flatnonzero((store.table.scene == number) & (store.table.split == part))
            if geobox is not None and here.size:
                places[part].append((_outlines(store, number, geobox, here), here))
    shapes = {
        part: (np.concatenate([one for one, _ in told]), np.concatenate([which for _, which in told]))
        for part, told in places.items()
        if told
    }
    for first, second in ((0, 1), (0, 2), (1, 2)):
        if first not in shapes or second not in shapes:
            continue
        (some, which), (others, other) = shapes[first], shapes[second]
        pairs = shapely.STRtree(some).query(others, predicate="intersects")
        if pairs.size:
            a, b = store.table[int(which[pairs[1, 0]])], store.table[int(other[pairs[0, 0]])]
            yield (
                f"split: {pairs.shape[1]} pairs of patches in {SPLITS[first]} and {SPLITS[second]} show one place, "
                f"such as {store.scenes[a.scene].name} row {a.row} column {a.column} and "
                f"{store.scenes[b.scene].name} row {b.row} column {b.column}"
            )


def _outlines(store: Store, number: int, geobox: GeoBox, patches: NDArray[np.int64]) -> NDArray[Any]:
    """Polygons of patches in degrees, a hundredth of a pixel smaller on each side so that neighbours do not touch.

    Scenes without a CRS lie apart from each other and from the Earth, in units of their own; copies of one at other
    resolutions share its place.
    """
    entry = store.manifest["scenes"][number]
    inset, size = 0.01, store.table.size
    top, left = store.table.row[patches] + inset, store.table.column[patches] + inset
    bottom, right = top + size - 2 * inset, left + size - 2 * inset
    if geobox.crs is None:
        unit = float(1 / Fraction(entry["resolution"]))
        first = next(i for i, one in enumerate(store.manifest["scenes"]) if one["scene"] == entry["scene"])
        away = 1e7 * (first + 1)
        return shapely.box(left * unit + away, top * unit, right * unit + away, bottom * unit)
    corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1).reshape(-1, 4, 1, 2)
    # Edges bend between two projections: eight points on each.
    along = np.linspace(0, 1, 8, endpoint=False)[:, None]
    points = (corners + (np.roll(corners, -1, axis=1) - corners) * along).reshape(len(patches), -1, 2)
    a, b, c, d, e, f = geobox.affine[:6]
    x = a * points[..., 0] + b * points[..., 1] + c
    y = d * points[..., 0] + e * points[..., 1] + f
    to_degrees = geobox.crs.transformer_to_crs("EPSG:4326")
    return shapely.polygons(np.stack(to_degrees(x, y), axis=-1))
