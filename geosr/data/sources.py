"""Sources: what the user names (rasters, folders, Sentinel-2 products, STAC items, pairs of folders), as scenes."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from geosr.data.patches import SceneFiles
from geosr.errors import GeosrError, InputError, UsageError
from geosr.io.claims import Claims
from geosr.io.inputs import no_product
from geosr.io.masks import classification_beside
from geosr.io.product import BAND_FILE, is_product, products_at
from geosr.io.safe import product_metadata
from geosr.io.source import RASTERS, zarr_store
from geosr.sensors import canonical_band

if TYPE_CHECKING:
    from pystac import Item

PAIR_SUFFIXES = ("lr", "hr", "1m", "1.5m", "2.5m", "3m", "5m", "10m", "15m", "20m", "30m", "40m", "60m")
"""Ends of file names, after ``_`` or ``-``, that tell the two images of a pair apart."""

_COMPANIONS = (".aux.xml", ".ovr", ".msk", ".tfw", ".prj", ".wld", "index.csv")  # files that belong to a raster
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d))?(?!\d)")


SILENT = Claims()
"""Nothing is said; the files know."""


@dataclass(frozen=True)
class Source:
    """One scene as the user named it: its files, and what is known of them."""

    files: SceneFiles
    """Name, files, dates and window."""
    names: tuple[str, ...] | None = None
    """Band names in file order, where a STAC item gives them; None: the files do."""
    encoding: Claims = SILENT
    """What the files do not say about their digital numbers."""
    classes: str | None = None
    """Sentinel-2 scene classification (SCL) of the scene."""
    origin: str = "unknown"
    """Where the scene comes from, in words."""
    licence: str = "unknown"
    """Terms that the scene is used under."""
    matched: bool = False
    """Whether LR and HR files were matched by their names."""
    asked: bool = True
    """Whether the user named this scene itself; one that only lies in a named folder may be skipped."""


class Skipped(NamedTuple):
    """Something in a named folder that is not used."""

    name: str
    reason: str


@dataclass(frozen=True)
class Sources:
    """Everything that the user named."""

    scenes: tuple[Source, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __add__(self, other: Sources) -> Sources:
        return Sources(self.scenes + other.scenes, self.skipped + other.skipped)


@dataclass(frozen=True)
class _Finder:
    """What every kind of source needs to know."""

    bands: tuple[str, ...]
    encoding: Claims
    ignore: frozenset[str] = field(default_factory=frozenset)
    """Resolved paths that are no source, such as the output."""


def find_sources(
    named: Iterable[str | os.PathLike[str] | SceneFiles | Item],
    *,
    bands: Sequence[str],
    lr: str | os.PathLike[str] | None = None,
    hr: str | os.PathLike[str] | None = None,
    suffixes: Sequence[str] = PAIR_SUFFIXES,
    encoding: Claims = SILENT,
    licence: str | None = None,
    ignore: Iterable[str | os.PathLike[str]] = (),
) -> Sources:
    """Scenes with unique names behind what the user named; no pixel is read, and rasters are not opened.

    A folder stands for everything below it: rasters, single-band files of one scene, ``.SAFE`` products as folders and
    zip files, STAC items, Zarr stores. Licence and source come from an ``index.csv`` (columns path, source, licence)
    beside the files or one folder up, from the STAC item, or from `licence`.

    Args:
        named: Rasters (local or remote), folders, products, STAC items (files, addresses or pystac's), scenes.
        bands: The bands that are wanted.
        lr: Folder of LR images.
        hr: Folder of HR images; paired with `lr` by file name, never by position.
        suffixes: Ends of file names that tell the images of a pair apart.
        encoding: What the files do not say about their digital numbers.
        licence: Terms of scenes that nothing else tells the terms of.
        ignore: Paths that are no source.

    Raises:
        InputError: A source does not exist, holds nothing, or names of a pair do not match.
        UsageError: Nothing was named, or only one folder of a pair.
    """
    finder = _Finder(
        tuple(canonical_band(band) or band for band in bands), encoding, frozenset(map(os.path.realpath, ignore))
    )
    if (lr is None) != (hr is None):
        raise UsageError("pairs need both folders: --lr FOLDER --hr FOLDER")
    found = Sources()
    for one in named:
        if isinstance(one, SceneFiles):
            found += Sources((Source(one, encoding=encoding),))
        elif isinstance(one, str | os.PathLike):
            found += _find(finder, os.fspath(one))
        else:
            from geosr.data.stac import item_source

            found += Sources((item_source(one, finder.bands, encoding),))
    if lr is not None and hr is not None:
        found += _pairs(finder, Path(lr), Path(hr), suffixes)
    if not found.scenes and not found.skipped:
        raise UsageError("no source was given; name rasters, folders, .SAFE products, STAC items, or --lr and --hr")
    scenes = [_with_facts(source, licence) for source in found.scenes]
    return Sources(tuple(_uniquely_named(scenes)), found.skipped)


def pair_key(path: str, suffixes: Sequence[str] = PAIR_SUFFIXES) -> str:
    """The part of a file name that both images of a pair share.

    >>> pair_key("lr/paris_2020_lr.tif"), pair_key("hr/paris_2020_HR_2.5m.tif")
    ('paris_2020', 'paris_2020')
    """
    ends = "|".join(re.escape(suffix.strip("_-")) for suffix in suffixes)
    return re.sub(rf"(?:[_-](?:{ends}))+$", "", _stem(path), flags=re.IGNORECASE)


def _find(finder: _Finder, path: str) -> Sources:
    """What one named path or address stands for."""
    if re.match(r"https?://", path):
        if path.split("?")[0].lower().endswith(RASTERS):
            return Sources((_raster(finder, path),))
        return Sources((_item(finder, path),))
    if re.match(r"/vsi|\w{2,}:", path):  # GDAL's own names
        return Sources((_raster(finder, path),))
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist")
    if path.lower().endswith(".json"):
        return Sources((_item(finder, path),))
    if path.lower().endswith(".zip"):
        if not (scenes := tuple(_products(finder, path))):
            raise InputError(no_product(path))
        return Sources(scenes)
    if not os.path.isdir(path) or zarr_store(path):
        return Sources((_raster(finder, path),))
    if is_product(path):
        return Sources(tuple(_products(finder, path)))
    found = _folder(finder, Path(path))
    if not found.scenes and not found.skipped:
        raise InputError(f"folder {path} is empty; give a folder of rasters, .SAFE products or STAC items")
    return found


def _raster(finder: _Finder, path: str) -> Source:
    name = re.split(r"[/\\]", path.split("?")[0].rstrip("/"))[-1]
    product = product_metadata(path)
    start = product.sensing_time if product else _date_in(name)
    return Source(SceneFiles(name, (path,), start=start, end=start), encoding=finder.encoding, classes=_beside(path))


def _item(finder: _Finder, href: str) -> Source:
    from geosr.data.stac import item_source
    from geosr.io.stac import read_item

    return item_source(read_item(href), finder.bands, finder.encoding)


def _folder(finder: _Finder, folder: Path) -> Sources:
    """Everything below a folder that may be a scene, named by its path in the folder; what is not one is skipped."""
    scenes: list[Source] = []
    skipped: list[Skipped] = []
    used: set[str] = set()
    paths = sorted(_walk(finder, folder), key=lambda path: (not path.name.endswith(".json"), path))
    for path in paths:  # STAC items first: the files that they speak for are no scenes of their own
        name = path.relative_to(folder).as_posix()
        if os.path.realpath(path) in used or path.name.lower().endswith(_COMPANIONS):
            continue
        try:
            if path.suffix.lower() in (".json", ".zip") or (path.is_dir() and not zarr_store(str(path))):
                found = list(_find(finder, str(path)).scenes)
            elif group := _single_bands(finder, path):
                found = [replace(_raster(finder, str(path)), files=replace(_raster(finder, str(path)).files, hr=group))]
            else:
                found = [_raster(finder, str(path))]
        except GeosrError as error:
            skipped.append(Skipped(name, str(error).splitlines()[0]))
            continue
        for source in found:
            used.update(map(os.path.realpath, source.files.hr))
            own = name if len(found) == 1 else f"{name}/{source.files.name}"
            scenes.append(replace(source, files=replace(source.files, name=own), asked=False))
    scenes.sort(key=lambda source: source.files.name)
    return Sources(tuple(scenes), tuple(sorted(skipped)))


def _walk(finder: _Finder, folder: Path) -> Iterator[Path]:
    """Files, products and Zarr stores below a folder; hidden ones are left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or os.path.realpath(path) in finder.ignore:
            continue
        if path.is_dir() and not zarr_store(str(path)) and not is_product(path):
            yield from _walk(finder, path)
        else:
            yield path


def _single_bands(finder: _Finder, path: Path) -> tuple[str, ...] | None:
    """The single-band files of one scene, in the order of the wanted bands, of which `path` is one."""
    if not (match := BAND_FILE.fullmatch(path.name)):
        return None
    start, end = match.span(1)
    siblings = {
        band: path.with_name(path.name[:start] + spelt + path.name[end:])
        for band in finder.bands
        for spelt in (band, band.lower())
        if (path.parent / (path.name[:start] + spelt + path.name[end:])).is_file()
    }
    if path not in siblings.values() or len(siblings) < len(finder.bands):
        return None
    return tuple(str(siblings[band]) for band in finder.bands)


def _products(finder: _Finder, path: str) -> Iterator[Source]:
    """The scenes of Sentinel-2 products, one for each granule: the wanted bands at the finest resolution they share."""
    for product in products_at(path):
        for granule in product.granules:
            chosen = granule.select(finder.bands, None)
            metadata = product_metadata(chosen[0])
            time = metadata.sensing_time if metadata else _date_in(product.name)
            yield Source(
                SceneFiles(granule.name, chosen, start=time, end=time),
                encoding=finder.encoding,
                classes=granule.classes,
                origin=metadata.product_uri if metadata else product.name,
            )


def _pairs(finder: _Finder, lr: Path, hr: Path, suffixes: Sequence[str]) -> Sources:
    """LR and HR images of two folders whose names match, suffixes left out.

    Raises:
        InputError: A name has no partner, or more than one.
    """
    keyed: list[Mapping[str, str]] = []
    skipped = []
    for folder in (lr, hr):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; --lr and --hr each name a folder of images")
        keys: dict[str, str] = {}
        for path in _walk(finder, folder):
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() not in (*RASTERS, ".zarr"):
                if not path.name.lower().endswith(_COMPANIONS):
                    skipped.append(Skipped(f"{folder.name}/{name}", f"no raster ({' '.join(RASTERS)})"))
                continue
            key = (path.parent.relative_to(folder) / pair_key(name, suffixes)).as_posix()
            if key in keys:
                raise InputError(f"{keys[key]} and {path} are both {key!r} once {' '.join(suffixes)} are left out")
            keys[key] = str(path)
        keyed.append(keys)
    low, high = keyed
    if unmatched := sorted(low.keys() ^ high.keys()):
        told = "".join(f"\n  {low[key] if key in low else high[key]}" for key in unmatched)
        raise InputError(
            f"{len(unmatched)} images have no partner of the same name in the other folder (ends such as _lr, _hr and "
            f"_10m do not count; --suffixes names others):{told}"
        )
    if not low:
        raise InputError(f"{lr} and {hr} hold no rasters ({' '.join(RASTERS)})")
    scenes = []
    for key in sorted(low):
        start = _date_in(key) or _date_in(_stem(high[key]))
        files = SceneFiles(key, (high[key],), (low[key],), start=start, end=start)
        scenes.append(Source(files, encoding=finder.encoding, classes=_beside(high[key]), matched=True))
    return Sources(tuple(scenes), tuple(skipped))


def _beside(path: str) -> str | None:
    """The scene classification next to a raster."""
    return classification_beside(os.path.join(os.path.dirname(path), pair_key(path)))


def _with_facts(source: Source, licence: str | None) -> Source:
    """The source with what an ``index.csv`` says of its files, and else the user."""
    origin, terms = source.origin, source.licence
    for path in (*source.files.hr, *source.files.lr):
        row = _row(re.sub(r"^/vsizip/(.+?\.zip)/.*$", r"\1", path))
        origin = row.get("source") or origin if origin == "unknown" else origin
        terms = row.get("licence") or terms if terms == "unknown" else terms
    return replace(source, origin=origin, licence=licence or "unknown" if terms == "unknown" else terms)


def _row(path: str) -> Mapping[str, str]:
    """What an ``index.csv`` beside a file or one folder up says of it, or of the product that it belongs to."""
    here = Path(path).absolute()
    product = next((folder for folder in here.parents if folder.suffix.upper() == ".SAFE"), here)
    for folder in product.parents[:2]:
        index = folder / "index.csv"
        rows = _index(index, index.stat().st_mtime_ns) if index.is_file() else {}
        if row := rows.get(product.relative_to(folder).as_posix()):
            return row
    return {}


@lru_cache(maxsize=64)
def _index(path: Path, changed: int) -> Mapping[str, Mapping[str, str]]:
    """Rows of an ``index.csv`` by path; none where it is another kind of table."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file) if row.get("path")}


def _uniquely_named(sources: Sequence[Source]) -> Iterator[Source]:
    """The sources with a counter after names that occur again."""
    seen: set[str] = set()
    for source in sources:
        name, count = source.files.name, 1
        while name in seen:
            count += 1
            name = f"{source.files.name}-{count}"
        seen.add(name)
        yield replace(source, files=replace(source.files, name=name))


def _stem(path: str) -> str:
    return re.sub(r"\.(tiff?|jp2|vrt|img|zarr)$", "", re.split(r"[/\\]", path)[-1], flags=re.IGNORECASE)


def _date_in(name: str) -> datetime | None:
    """The first date that a file name spells, ``20170527`` or ``20170527T103021``, UTC."""
    for match in _DATE.finditer(name):
        try:
            year, month, day, hour, minute, second = (int(group or 0) for group in match.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:  # eight digits that are no date
            continue
    return None
