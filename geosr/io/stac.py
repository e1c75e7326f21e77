"""STAC items: the files of the scene behind one, and what it says of their digital numbers."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from geosr.errors import BandError, InputError, RadiometryError, did_you_mean, extra
from geosr.io.claims import Claims
from geosr.io.documents import is_web_address, read_json
from geosr.io.product import DEFAULT_BANDS
from geosr.io.scene import Scene
from geosr.io.stac_fields import (
    ItemBand,
    asset_bands,
    asset_path,
    asset_resolution,
    asset_roles,
    hoisted_bands,
    is_planetary,
    mistyped,
    processing_baseline,
)
from geosr.sensors import get_sensor

if TYPE_CHECKING:
    import pystac

_PICTURES = {"thumbnail", "overview", "visual"}  # roles of assets whose values are no measurement
_ASSETS = 10_000  # that an item may have; those of scenes have some dozens
_LISTED = 30  # names that a message lists
_DARK = -0.02  # reflectance; atmospheric correction goes below it in few pixels of deep shadow or water only
_OFFSET = 1000  # DN that the offset is, since processing baseline 04.00
_SHARE = 0.05  # of the pixels of a band that may be darker


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
    places: tuple[int, ...] | None = None
    """Positions of the bands in their file that these are of; None: all."""
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
        import pystac  # noqa: F401  (before anything is read)

    if item is not None:
        collection, _, name = item.strip("/").rpartition("/")
        if not collection or not re.match(r"https?://", href):
            raise InputError(
                f"--item {item} needs the address of a STAC API's landing page, such as "
                f"https://earth-search.aws.element84.com/v1, and collection/id; {href} was given"
            )
        href = f"{href.rstrip('/')}/collections/{quote(collection, safe='')}/items/{quote(name, safe='')}"
    href = re.sub(r"^file:(//)?", "", href, flags=re.IGNORECASE)
    try:
        document = read_json(href)
    except OSError as error:
        online = is_web_address(href) and not hasattr(error, "code") and not isinstance(error, TimeoutError)
        hint = "; is there a network?" if online else ""
        raise InputError(f"{href} cannot be read ({error.strerror or error}){hint}") from error
    except ValueError as error:
        raise InputError(f"{href} is no STAC item ({error})") from error
    return _parsed(document, href if is_web_address(href) else os.path.abspath(href))


def _parsed(document: Any, href: str) -> pystac.Item:
    """A JSON document as an item, with its parts checked by type; no link of it is followed."""
    import pystac

    kind = document.get("type") if isinstance(document, dict) else type(document).__name__
    if kind in ("Catalog", "Collection") or (isinstance(document, dict) and "description" in document and not kind):
        raise InputError(
            f"{href} is a STAC {str(kind or 'catalog').lower()}, not an item; name its items, or search it; of an API, "
            "give --item collection/id"
        )
    if kind != "Feature":
        several = "; it is a list of features: give one of them" if kind == "FeatureCollection" else ""
        raise InputError(f"{href} is no STAC item (its type is {kind!r}, not 'Feature'){several}")
    for name, value, wanted, needed in _parts(document):
        if not isinstance(value, wanted):
            raise mistyped(document.get("id", href), name, value, needed)
    if len(document["assets"]) > _ASSETS:
        raise InputError(
            f"{href}: the STAC item has {len(document['assets'])} assets, and at most {_ASSETS} are read; leave those "
            "in it that hold the wanted bands"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an extension of an old version is no matter of the user's
            # Not pystac.read_dict: of an item of an old version it fetches the collection that a link names.
            return pystac.Item.from_dict(document, href=href, preserve_dict=False)
    except Exception as error:  # pystac passes on whatever a value of a wrong type raises
        raise InputError(f"{href} is no STAC item ({type(error).__name__}: {error})") from error


def _parts(document: Mapping[str, Any]) -> Iterator[tuple[str, Any, type, str]]:
    """The parts of an item by name: value, the type that the specification gives it, and that type in words."""
    assets: Any = document.get("assets")
    links: Any = document.get("links", [])
    yield "id", document.get("id"), str, "a text"
    yield "collection", document.get("collection") or "", str, "a text"
    yield "properties", document.get("properties"), dict, "an object"
    yield "assets", assets, dict, "an object"
    yield "links", links, list, "a list of objects"
    for key, asset in assets.items():  # whoever asks for more has checked that it is an object
        yield f"assets.{key}", asset, dict, "an object"
        yield f"assets.{key}.href", asset.get("href"), str, "a path or an address"
    for number, link in enumerate(links):
        yield f"links[{number}]", link, dict, "an object"
        yield f"links[{number}].rel", link.get("rel"), str, "a text"
        yield f"links[{number}].href", link.get("href"), str, "a path or an address"


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
    hoisted = {band["name"]: band for band in hoisted_bands(item) if band.get("name")}
    held = {
        key: known
        for key in item.assets
        if not _PICTURES & asset_roles(item, key)
        and (known := asset_bands(item, key, hoisted))
        and (resolution is None or asset_resolution(item, key) == resolution)
    }
    chosen, names, known = _choose(item, held, _default_bands(held, resolution) if bands is None else bands)
    properties = item.properties
    classes = next((key for key in item.assets if key.lower() in ("scl", "scl_20m")), None)
    baseline = processing_baseline(item)
    facts = _shared(item, known)
    if not facts and baseline and is_planetary(item) and item.collection_id == "sentinel-2-l2a":
        encoding = get_sensor("sentinel-2-l2a").radiometry(baseline)
        facts = {"scale": encoding.scale, "offset": encoding.offset, "nodata": float(encoding.nodata or 0)}
    return ItemScene(
        name=item.id,
        files=tuple(asset_path(item, key) for key in chosen),
        names=names,
        told=MappingProxyType(facts),
        places=_places(held[chosen[0]], known[0]) if len(chosen) == 1 and known else None,
        applied=_applied(item),
        baseline=baseline,
        classes=asset_path(item, classes) if classes else None,
        start=item.datetime or _time(item, "start_datetime"),
        end=item.datetime or _time(item, "end_datetime"),
        origin=" ".join(filter(None, (item.collection_id, item.id))),
        licence=str(properties.get("license") or "unknown"),
    )


def _default_bands(held: Mapping[str, Sequence[ItemBand]], resolution: int | None) -> tuple[str, ...]:
    """The bands to open where nobody names any: those of 10 m, else all that the item names, in the sensor's order."""
    there = dict.fromkeys(band.name for known in held.values() for band in known if band.name)
    if resolution in (None, 10) and (not there or there.keys() >= set(DEFAULT_BANDS)):
        return DEFAULT_BANDS
    canonical = tuple(band for band in get_sensor("sentinel-2-l2a").band_names if band in there)
    return canonical or tuple(there)


def _applied(item: pystac.Item) -> bool | None:
    """Whether an item says that the offset was applied."""
    for catalogue in ("earthsearch", "sentinel"):
        field = f"{catalogue}:boa_offset_applied"
        value = item.properties.get(field)
        if value is not None and not isinstance(value, bool):
            raise mistyped(item.id, f"properties.{field}", value, "true or false")
        if value is not None:
            return value
    return None


def _time(item: pystac.Item, field: str) -> datetime | None:
    from pystac.utils import str_to_datetime

    value = item.properties.get(field)
    try:
        return None if value is None else str_to_datetime(value)
    except Exception:  # dateutil passes on whatever a value of a wrong type raises
        raise mistyped(item.id, f"properties.{field}", value, "a time in ISO 8601") from None


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
    if user.nodata is not None and math.isnan(told.get("nodata", 0)):  # invalid in a float, and nothing in an integer
        del told["nodata"]
    for fact, value in told.items():
        claim = getattr(user, fact)
        if claim is not None and not _same(claim, value):
            raise RadiometryError(
                f"STAC item {found.name} has {fact} {value:g} and --{fact} says {claim:g}; drop the flag"
            )
    said = tuple((fact, f"STAC item {found.name}") for fact in told)
    return replace(user, **told, sources=said, places=found.places)  # type: ignore[arg-type]


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
    item: pystac.Item, held: Mapping[str, Sequence[ItemBand]], bands: Sequence[str]
) -> tuple[list[str], tuple[str, ...], list[ItemBand]]:
    """The keys of the assets to open, the names of their bands in file order, and the wanted bands."""
    for key, known in held.items():  # one file with all of them is read in one go
        names = [band.name for band in known]
        if len(known) > 1 and all(band in names for band in bands):
            filled = tuple(name or f"band{number}" for number, name in enumerate(names, start=1))
            return [key], filled, [known[names.index(band)] for band in bands]
    alone: dict[str | None, list[str]] = {}
    for key, known in held.items():
        if len(known) == 1:
            alone.setdefault(known[0].name, []).append(key)
    for band in bands:
        if band not in alone:
            there = sorted({one.name for known in held.values() for one in known if one.name})
            listed = " ".join(there[:_LISTED]) + (" ..." if len(there) > _LISTED else "")
            raise BandError(
                f"STAC item {item.id} has no asset with band {band!r} ({listed or 'no asset names its bands'})"
                + did_you_mean(band, there[:1000])
            )
    # An item may offer one band several times: at several resolutions, and as JPEG 2000 beside the COG.
    chosen = [
        min(alone[band], key=lambda key: (asset_resolution(item, key), "tif" not in item.assets[key].href, key))
        for band in bands
    ]
    return chosen, tuple(bands), [held[key][0] for key in chosen]


def _places(bands: Sequence[ItemBand], like: ItemBand) -> tuple[int, ...] | None:
    """The positions of the bands of a file that are encoded like one of them; None where all are."""
    facts = [str((band.scale, band.offset, band.nodata)) for band in bands]
    places = tuple(place for place, fact in enumerate(facts) if fact == str((like.scale, like.offset, like.nodata)))
    return None if len(places) == len(bands) else places


def _shared(item: pystac.Item, bands: Sequence[ItemBand]) -> dict[str, float]:
    """Scale, offset and nodata that an item gives all of these bands."""
    shared: dict[str, float] = {}
    for fact in ("scale", "offset", "nodata"):
        values = [getattr(band, fact) for band in bands]
        distinct = dict.fromkeys("nan" if value != value else value for value in values)  # NaN equals no NaN
        if len(distinct) > 1:
            raise RadiometryError(
                f"STAC item {item.id} gives its bands different {fact} ({', '.join(map(str, distinct))}); choose others"
            )
        if values[0] is not None:
            shared[fact] = values[0]
    return shared
