"""STAC items: the files of the scene behind one, and what it says of their digital numbers."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from geosr.errors import BandError, InputError, RadiometryError, did_you_mean, extra
from geosr.io.claims import Claims
from geosr.io.product import DEFAULT_BANDS
from geosr.io.scene import Scene
from geosr.sensors import canonical_band, get_sensor

if TYPE_CHECKING:
    import pystac

_PICTURES = {"thumbnail", "overview", "visual"}  # roles of assets whose values are no measurement
_LIMIT = 16 * 2**20  # bytes of an item; real ones have some 100 kB
_TIMEOUT = 30  # seconds
_PLANETARY = "planetarycomputer.microsoft.com"
_AZURE = ".blob.core.windows.net"
_DARK = -0.02  # reflectance; atmospheric correction goes below it in few pixels of deep shadow or water only
_OFFSET = 1000  # DN that the offset is, since processing baseline 04.00
_SHARE = 0.05  # of the pixels of a band that may be darker


@dataclass(frozen=True)
class _Band:
    """One band of an asset, as the item tells it."""

    name: str | None
    """Canonical name, else the item's own."""
    scale: float | None
    offset: float | None
    nodata: float | None


@dataclass(frozen=True)
class ItemScene:
    """The scene of a STAC item: files with the wanted bands, and what the item says of them. Nothing was read."""

    name: str
    """The item's id."""
    files: tuple[str, ...]
    """As GDAL opens them."""
    names: tuple[str, ...]
    """Band names in file order."""
    told: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Scale, offset and nodata, as far as the item gives them."""
    applied: bool | None = None
    """Whether Earth Search says that it has added the offset to the files; None where the item says nothing of it."""
    baseline: str | None = None
    """Processing baseline."""
    classes: str | None = None
    """Scene classification (SCL)."""
    start: datetime | None = None
    end: datetime | None = None
    origin: str = "unknown"
    licence: str = "unknown"


def read_item(href: str, item: str | None = None) -> pystac.Item:
    """The STAC item at a path or an address; relative addresses in it count from there.

    Args:
        href: The item, or the landing page of a STAC API.
        item: ``collection/id`` of an item of that API.

    Raises:
        InputError: It cannot be read, or is no item.
        GeosrError: pystac is missing.
    """
    with extra("stac", "a STAC item"):
        import pystac

    if item is not None:
        collection, _, name = item.strip("/").rpartition("/")
        if not collection or not re.match(r"https?://", href):
            raise InputError(
                f"--item {item} needs the address of a STAC API's landing page, such as "
                f"https://earth-search.aws.element84.com/v1, and collection/id; {href} was given"
            )
        href = f"{href.rstrip('/')}/collections/{quote(collection, safe='')}/items/{quote(name, safe='')}"
    try:
        found = pystac.read_dict(json.loads(_content(href)), href=_absolute(href))
    except OSError as error:
        hint = "; is there a network?" if "://" in href and not hasattr(error, "code") else ""
        raise InputError(f"{href} cannot be read ({error}){hint}") from error
    except (ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        raise InputError(f"{href} is no STAC item ({type(error).__name__}: {error})") from error
    if not isinstance(found, pystac.Item):
        raise InputError(
            f"{href} is a STAC {type(found).__name__.lower()}, not an item; name its items, or search it; of an API, "
            "give --item collection/id"
        )
    return found


def _absolute(href: str) -> str:
    return href if "://" in href else os.path.abspath(href)


def _content(href: str) -> bytes:
    """The file at a path or an address."""
    if re.match(r"https?://", href):
        request = Request(href, headers={"Accept": "application/geo+json, application/json", "User-Agent": "geosr"})
        with urlopen(request, timeout=_TIMEOUT) as answer:
            content = answer.read(_LIMIT + 1)
    else:
        with open(href, "rb") as file:
            content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise ValueError(f"more than {_LIMIT >> 20} MiB")
    return bytes(content)


def item_scene(item: pystac.Item, bands: Sequence[str] | None = None, *, resolution: int | None = None) -> ItemScene:
    """The scene of an item: its assets with the wanted bands, and the encoding that its metadata gives.

    Scale, offset and nodata come from ``raster:bands`` (or ``bands``, since STAC 1.1). Items of the Planetary Computer
    give none: their files are the product's own, so that the processing baseline says it [1]. Its files are opened
    through GDAL, which signs each request and renews the signature.

    Args:
        item: The item.
        bands: Canonical names, in the order wanted; None: those of 10 m, and at another resolution all.
        resolution: Metres; None: the finest that each band has.

    Raises:
        BandError: No asset has a wanted band.
        RadiometryError: The item gives its bands different encodings.

    References:
        STAC electro-optical extension 1.1 and 2.0, raster extension 1.1 and 2.0.
        [1] https://planetarycomputer.microsoft.com/dataset/sentinel-2-l2a#Baseline-Change
    """
    held = {
        key: told
        for key, asset in item.assets.items()
        if not _PICTURES & set(asset.roles or ())
        and (told := _bands(key, asset))
        and (resolution is None or _resolution(asset) == resolution)
    }
    if bands is None:
        there = {one.name for told in held.values() for one in told}
        order = get_sensor("sentinel-2-l2a").band_names
        bands = DEFAULT_BANDS if resolution in (None, 10) else tuple(band for band in order if band in there)
    chosen, names, said = _choose(item, held, bands)
    time = item.datetime or item.common_metadata.start_datetime
    end = item.datetime or item.common_metadata.end_datetime
    classes = next((asset for key, asset in item.assets.items() if key.lower() in ("scl", "scl_20m")), None)
    properties = item.properties
    words = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    baselines = (re.fullmatch(r"\d\d\.\d\d", str(properties.get(word, ""))) for word in words)
    applied = (properties.get(f"{word}:boa_offset_applied") for word in ("earthsearch", "sentinel"))
    baseline = next((match[0] for match in baselines if match), None)
    facts = _told(item, said)
    if not facts and baseline and _is_planetary(item) and item.collection_id == "sentinel-2-l2a":
        encoding = get_sensor("sentinel-2-l2a").radiometry(baseline)
        facts = {"scale": encoding.scale, "offset": encoding.offset, "nodata": float(encoding.nodata or 0)}
    return ItemScene(
        name=item.id,
        files=tuple(_href(item, asset) for asset in chosen),
        names=names,
        told=MappingProxyType(facts),
        applied=next((bool(value) for value in applied if value is not None), None),
        baseline=baseline,
        classes=_href(item, classes) if classes else None,
        start=time,
        end=end,
        origin=" ".join(filter(None, (item.collection_id, item.id))),
        licence=properties.get("license") or "unknown",
    )


def item_claims(found: ItemScene, user: Claims, *, decides: bool = False) -> Claims:
    """What item and user say of the digital numbers, together; the user fills what the item leaves open.

    Args:
        found: The scene of the item.
        user: What the user says.
        decides: Whether the user's offset counts even where the item has another.

    Raises:
        RadiometryError: The user contradicts the item, or the item itself.
    """
    told = dict(found.told)
    # Earth Search kept the offset in raster:bands of images that it had applied it to.
    # https://github.com/Element84/earth-search/issues/9
    if found.applied and told.get("offset") and not decides:
        if user.offset is None:
            raise RadiometryError(
                f"STAC item {found.name} says that its offset was applied already and gives offset "
                f"{told['offset']:g} all the same; look at its values, then give --offset 0 or that number, or use "
                "collection sentinel-2-c1-l2a"
            )
        del told["offset"]
    if decides and user.offset is not None:
        told.pop("offset", None)
    for fact, value in told.items():
        claim = getattr(user, fact)
        if claim is not None and not _same(claim, value):
            raise RadiometryError(
                f"STAC item {found.name} has {fact} {value:g} and --{fact} says {claim:g}; drop the flag"
            )
    said = tuple((fact, f"STAC item {found.name}") for fact in told)
    return replace(user, **told, sources=said)  # type: ignore[arg-type]


def require_offset(found: ItemScene, user: Claims, scene: Scene) -> None:
    """Nothing, unless the pixels of an item's files contradict what it says of their offset, and the user is silent.

    Catalogues err in both ways. Earth Search adds the offset to the files of its sentinel-2-l2a and is at times wrong
    about it, in ``raster:bands`` and in ``earthsearch:boa_offset_applied`` [1, 2, 3]; it does not for
    sentinel-2-c1-l2a, nor does the Planetary Computer [4]. Pixels only raise the doubt: the user's flag settles it.

    Args:
        found: The scene of the item.
        user: What the user says.
        scene: The scene, opened; a decimated part of it is read.

    Raises:
        RadiometryError: There is a doubt, and the user gives no offset; or there is none, and the user another.

    References:
        [1] https://github.com/Element84/earth-search/issues/66
        [2] https://github.com/Element84/earth-search/issues/71
        [3] https://github.com/cirrus-geo/cirrus-earth-search/issues/33
        [4] https://github.com/microsoft/PlanetaryComputer/issues/134
    """
    offset = found.told.get("offset")
    doubt, sample = None, {}
    if offset or (_may_hold(found) and "scale" in found.told):
        # A DN of 0 is no measurement in any product of Sentinel-2, whether the item says so or not.
        sample = {band: kept for band, dn in scene.sample.items() if (kept := dn[dn > 0]).size}
        doubt = _doubt(found, sample) if sample else None
    if doubt and user.offset is None:
        figures = "; ".join(
            f"{band} {dn.min():.10g} to {dn.max():.10g}, median {np.median(dn):.10g}" for band, dn in sample.items()
        )
        raise RadiometryError(
            f"STAC item {found.name} {doubt}. Values: {figures}. Say which it is:\n"
            f"  {'the offset was applied to the files:':<40} --offset 0 --scale 1e-4\n"
            f"  {'it was not:':<40} --offset -0.1 --scale 1e-4"
        )
    if not doubt and offset is not None and user.offset is not None and not _same(user.offset, offset):
        raise RadiometryError(
            f"STAC item {found.name} has offset {offset:g}, which its values do not contradict, and --offset says "
            f"{user.offset:g}; drop the flag"
        )


def _may_hold(found: ItemScene) -> bool:
    """Whether the product behind an item has an offset, which a catalogue may have left in its files."""
    return bool(found.applied) or (found.baseline or "") >= (get_sensor("sentinel-2-l2a").offset_since or "")


def _doubt(found: ItemScene, sample: Mapping[str, NDArray[Any]]) -> str | None:
    """What is wrong with the offset that an item gives, by some of the numbers of each band; None where nothing is."""
    offset, scale = found.told.get("offset"), found.told.get("scale", 1e-4)
    if found.applied and offset:
        return f"says that its offset was applied already and gives offset {offset:g} all the same"
    if offset:
        dark = {band: float(np.mean(dn * scale + offset < _DARK)) for band, dn in sample.items()}
        worst = max(dark, key=dark.__getitem__)
        if dark[worst] > _SHARE:
            return (
                f"gives offset {offset:g}, with which {dark[worst]:.0%} of the pixels of {worst} have a reflectance "
                f"below {_DARK:g}: it may have been applied already"
            )
    elif all(dn.min() >= _OFFSET for dn in sample.values()):
        why = "says that its offset was applied" if found.applied else f"is of baseline {found.baseline}, has no offset"
        return f"{why}, and not one pixel lies below {_OFFSET}: it may not have been applied"
    return None


def _same(claim: float, value: float) -> bool:
    return math.isclose(claim, value, rel_tol=1e-6) or math.isnan(claim + value)


def _choose(
    item: pystac.Item, held: Mapping[str, Sequence[_Band]], bands: Sequence[str]
) -> tuple[list[pystac.Asset], tuple[str, ...], list[_Band]]:
    """The assets to open, the names of their bands in file order, and what the item says of the wanted ones."""
    for key, told in held.items():  # one file with all of them is read in one go
        names = [band.name for band in told]
        if len(told) > 1 and all(band in names for band in bands):
            filled = tuple(name or f"band{number}" for number, name in enumerate(names, start=1))
            return [item.assets[key]], filled, [told[names.index(band)] for band in bands]
    assets, said = [], []
    for band in bands:
        keys = [key for key, told in held.items() if len(told) == 1 and told[0].name == band]
        if not keys:
            known = sorted({one.name for told in held.values() for one in told if one.name})
            raise BandError(
                f"STAC item {item.id} has no asset with band {band!r} ({' '.join(known) or 'no asset names its bands'})"
                + did_you_mean(band, known)
            )
        # An item may offer one band several times: at several resolutions, and as JPEG 2000 beside the COG.
        best = min(keys, key=lambda key: (_resolution(item.assets[key]), "tif" not in item.assets[key].href, key))
        assets.append(item.assets[best])
        said.append(held[best][0])
    return assets, tuple(bands), said


def _bands(key: str, asset: pystac.Asset) -> list[_Band]:
    """What an item says of the bands of an asset."""
    fields = asset.extra_fields
    together: list[dict[str, Any]] = fields.get("bands") or []
    colours: list[dict[str, Any]] = fields.get("eo:bands") or together
    numbers: list[dict[str, Any]] = fields.get("raster:bands") or together
    count = max(len(colours), len(numbers), 1)
    told = []
    for index in range(count):
        colour = colours[index] if index < len(colours) else {}
        number = fields | (numbers[index] if index < len(numbers) else {})
        spelt = [colour.get("name"), colour.get("eo:common_name"), colour.get("common_name")]
        if count == 1:
            spelt.append(key.split("_")[0])  # B02_10m
        known = filter(None, (canonical_band(name) for name in spelt if name))
        name = next(known, None) or spelt[0]
        values = (number.get(f"raster:{fact}", number.get(fact)) for fact in ("scale", "offset", "nodata"))
        told.append(_Band(name, *(None if value is None else float(value) for value in values)))
    return told if any(band.name for band in told) else []


def _resolution(asset: pystac.Asset) -> float:
    """Size of an asset's pixels in metres, as far as the item tells it."""
    fields = asset.extra_fields
    inside = next(iter(fields.get("raster:bands") or fields.get("bands") or [{}]))
    places = (fields.get("gsd"), fields.get("raster:spatial_resolution"), inside.get("spatial_resolution"))
    return float(next((value for value in places if value is not None), math.inf))


def _told(item: pystac.Item, said: Sequence[_Band]) -> dict[str, float]:
    """Scale, offset and nodata that an item gives all of these bands."""
    told: dict[str, float] = {}
    for fact in ("scale", "offset", "nodata"):
        values = {getattr(band, fact) for band in said}
        if len(values) > 1:
            raise RadiometryError(f"STAC item {item.id} gives its bands different {fact} ({values}); choose others")
        if (value := values.pop()) is not None:
            told[fact] = value
    return told


def _is_planetary(item: pystac.Item) -> bool:
    """Whether an item comes from the Planetary Computer."""
    hrefs = (link.get_href(transform_href=False) for link in item.links)
    return any(urlsplit(href).hostname == _PLANETARY for href in hrefs if href)


def _href(item: pystac.Item, asset: pystac.Asset) -> str:
    """Where an asset lies, as GDAL opens it."""
    href = (asset.get_absolute_href() or asset.href).removeprefix("file://")
    if (urlsplit(href).hostname or "").endswith(_AZURE) and _is_planetary(item):
        # The path stays the same from run to run, which a signature in it would not.
        return f"/vsicurl?pc_url_signing=yes&pc_collection={item.collection_id}&url={href}"
    return href
