"""STAC: the scene behind an item, and the items that a search finds."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from requests.exceptions import RequestException

from geosr.data.patches import SceneFiles
from geosr.data.sources import SILENT, Encoding, Source
from geosr.errors import BandError, InputError, RadiometryError, UsageError, did_you_mean
from geosr.sensors import canonical_band

log = logging.getLogger(__name__)

_PICTURES = {"thumbnail", "overview", "visual"}  # roles of assets whose values are no measurement


@dataclass(frozen=True)
class _Band:
    """One band of an asset, as the item tells it."""

    name: str | None
    """Canonical name, else the item's own."""
    scale: float | None
    offset: float | None
    nodata: float | None


def read_item(href: str) -> pystac.Item:
    """The STAC item at a path or an address; relative addresses in it count from there.

    Raises:
        InputError: It cannot be read, or is no item.
    """
    try:
        found = pystac.read_file(href)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        raise InputError(f"{href} is no STAC item ({type(error).__name__}: {error})") from error
    if not isinstance(found, pystac.Item):
        raise InputError(f"{href} is a STAC {type(found).__name__.lower()}, not an item; name its items, or search it")
    return found


def item_source(item: pystac.Item, bands: Sequence[str], encoding: Encoding = SILENT) -> Source:
    """The scene of an item: its assets with the wanted bands, and the encoding that its metadata gives.

    Scale, offset and nodata come from ``raster:bands`` (or ``bands``, since STAC 1.1), and `encoding` fills what they
    leave open. The files are not read; where their own tags say something else, opening the scene fails.

    Args:
        item: The item.
        bands: Canonical names, in the order wanted.
        encoding: What the user says.

    Raises:
        BandError: No asset has a wanted band.
        RadiometryError: The user contradicts the item, or the item itself.

    References:
        STAC electro-optical extension 1.1 and 2.0, raster extension 1.1 and 2.0.
    """
    chosen, names, said = _choose(item, bands)
    time = item.datetime or item.common_metadata.start_datetime
    end = item.datetime or item.common_metadata.end_datetime
    classes = next((asset for key, asset in item.assets.items() if key.lower() in ("scl", "scl_20m")), None)
    origin = " ".join(filter(None, (item.collection_id, item.id)))
    return Source(
        SceneFiles(item.id, tuple(_href(item, asset) for asset in chosen), start=time, end=end),
        names=names,
        encoding=_encoding(item, said, encoding),
        classes=_href(item, classes) if classes else None,
        origin=origin,
        licence=item.properties.get("license") or "unknown",
    )


def _choose(item: pystac.Item, bands: Sequence[str]) -> tuple[list[pystac.Asset], tuple[str, ...] | None, list[_Band]]:
    """The assets to open, the names of their bands in file order, and what the item says of the wanted ones."""
    held = {
        key: told
        for key, asset in item.assets.items()
        if not _PICTURES & set(asset.roles or ()) and (told := _bands(key, asset))
    }
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


def _encoding(item: pystac.Item, said: Sequence[_Band], user: Encoding) -> Encoding:
    """What item and user say of the digital numbers, together."""
    told: dict[str, float] = {}
    for fact in ("scale", "offset", "nodata"):
        values = {getattr(band, fact) for band in said}
        if len(values) > 1:
            raise RadiometryError(f"STAC item {item.id} gives its bands different {fact} ({values}); choose others")
        if (value := values.pop()) is not None:
            told[fact] = value
    # Earth Search kept the offset in raster:bands of images that it had applied it to.
    # https://github.com/Element84/earth-search/issues/9
    if item.properties.get("earthsearch:boa_offset_applied") and told.get("offset"):
        if user.offset is None:
            raise RadiometryError(
                f"STAC item {item.id} says that its offset was applied already and gives offset {told['offset']:g} all "
                "the same; look at its values, then give --offset 0 or that number, or use collection sentinel-2-c1-l2a"
            )
        del told["offset"]
    for fact, value in told.items():
        claim = getattr(user, fact)
        if claim is not None and not math.isclose(claim, value, rel_tol=1e-6) and not math.isnan(claim + value):
            raise RadiometryError(
                f"STAC item {item.id} has {fact} {value:g} and --{fact} says {claim:g}; drop the flag"
            )
    return replace(user, **told)  # type: ignore[arg-type]


def _href(item: pystac.Item, asset: pystac.Asset) -> str:
    """Where an asset lies, as GDAL opens it."""
    return (asset.get_absolute_href() or asset.href).removeprefix("file://")


def search_stac(
    url: str,
    collection: str,
    *,
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    max_cloud: float | None = None,
    limit: int | None = None,
) -> list[pystac.Item]:
    """Items of a STAC API, ordered by id; each carries its collection's licence.

    Args:
        url: Address of the API's landing page.
        collection: Id of the collection.
        bbox: West, south, east, north in degrees.
        datetime: A day, a month, or an interval such as ``2023-06-01/2023-08-31``.
        max_cloud: Highest ``eo:cloud_cover`` in percent; items that do not tell theirs are left out.
        limit: How many items at most.

    Raises:
        InputError: The API does not answer, has no such collection, or finds nothing.
        UsageError: The box is empty.
    """
    if bbox is not None and not (len(bbox) == 4 and bbox[0] < bbox[2] and bbox[1] < bbox[3]):
        raise UsageError(f"--bbox {' '.join(map(str, bbox))} is not west south east north in degrees")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the API does not support is not asked of it
            client = Client.open(url)
            licences = {one.id: one.license for one in client.get_collections()}
            if collection not in licences:
                raise InputError(
                    f"{url} has no collection {collection!r} ({' '.join(licences)})"
                    + did_you_mean(collection, licences)
                )
            asks = max_cloud is not None and client.conforms_to("QUERY")
            search = client.search(
                collections=[collection],
                bbox=None if bbox is None else tuple(bbox),
                datetime=datetime,
                query={"eo:cloud_cover": {"lte": max_cloud}} if asks else None,
                max_items=limit if asks or max_cloud is None else None,
            )
            items = list(search.items())
    except (APIError, RequestException, pystac.STACError) as error:
        raise InputError(f"{url} does not answer as a STAC API ({str(error).splitlines()[0]})") from error
    if max_cloud is not None:
        clear = [item for item in items if item.properties.get("eo:cloud_cover", math.inf) <= max_cloud]
        if len(clear) < len(items):
            log.info(
                "%d of %d items are cloudier than %g %%, or do not say", len(items) - len(clear), len(items), max_cloud
            )
        items = clear[:limit]
    if not items:
        asked = [
            f"{name} {value}" for name, value in (("bbox", bbox), ("datetime", datetime), ("max_cloud", max_cloud))
        ]
        raise InputError(f"{url}: collection {collection} has no item for {', '.join(asked)}; widen the search")
    for item in items:
        item.properties.setdefault("license", licences[collection])
    return sorted(items, key=lambda item: item.id)
