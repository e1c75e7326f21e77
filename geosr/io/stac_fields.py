"""Fields of a STAC item, checked by their types: bands and encodings of its assets, addresses, processing baseline."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from geosr.errors import InputError
from geosr.sensors import canonical_band, parse_baseline

if TYPE_CHECKING:
    import pystac

_PLANETARY = "planetarycomputer.microsoft.com"
_AZURE = ".blob.core.windows.net"
_REMOTE = ("http", "https", "s3", "gs", "az")
_BASELINE = re.compile(r"(\w+:)?(process(ing|or)?[:_]?)?baseline|processing:version", re.IGNORECASE)
_PRODUCT = re.compile(r"S2\w_\w{0,80}?_N(\d\d)\.?(\d\d)(?!\d)")  # S2B_MSIL2A_..._N0511_..., S2B_OPER_MSI_..._N05.11
_NO_PRODUCT = "99.99"  # marks a product that somebody processed himself, and orders after every baseline


@dataclass(frozen=True)
class ItemBand:
    """One band of an asset, as the item describes it."""

    name: str | None
    """Canonical name, else the item's own."""
    scale: float | None
    offset: float | None
    nodata: float | None


def mistyped(name: object, field: str, value: object, needed: str) -> InputError:
    """The error for a field of the item of this name whose value has the wrong type."""
    return InputError(f"STAC item {name}: {field} is {_shown(value)}, and {needed} is needed; correct the item")


def _shown(value: object) -> str:
    """A value in few words."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def hoisted_bands(item: pystac.Item) -> list[dict[str, Any]]:
    """The ``bands`` among an item's properties, where STAC 1.1 lets what several assets share stand once.

    Raises:
        InputError: A field has a wrong type.
    """
    return _objects(item, item.properties, "bands", "properties.")


def asset_bands(item: pystac.Item, key: str, hoisted: Mapping[str, dict[str, Any]]) -> list[ItemBand]:
    """The bands of an asset; none where nothing names them.

    A fact counts from where it stands nearest to the band: in ``bands`` (since STAC 1.1), ``eo:bands`` and
    ``raster:bands``, else on the asset, else among the item's properties.

    Args:
        item: The item.
        key: The key of the asset.
        hoisted: The item's `hoisted_bands` by their names.

    Raises:
        InputError: A field has a wrong type.
    """
    asset, place = item.assets[key].extra_fields, f"assets.{key}"
    together = _objects(item, asset, "bands", f"{place}.")
    colours = _objects(item, asset, "eo:bands", f"{place}.") or together
    numbers = _objects(item, asset, "raster:bands", f"{place}.") or together
    if not colours and not numbers:
        colours = _inherited(item, key, hoisted)
    count = max(len(colours), len(numbers), 1)
    bands = []
    for index in range(count):
        colour = colours[index] if index < len(colours) else {}
        number = numbers[index] if index < len(numbers) else {}
        shared = hoisted.get(colour.get("name") or "", {})
        named = "bands" if numbers is together else "raster:bands"
        places = ((f"{place}.{named}[{index}]", number), ("properties.bands", shared), (place, asset))
        name = _name(item, [colour, shared, asset] if count == 1 else [colour, shared], key if count == 1 else None)
        bands.append(ItemBand(name, *(_fact(item, fact, places) for fact in ("scale", "offset", "nodata"))))
    return bands if any(band.name for band in bands) else []


def _inherited(item: pystac.Item, key: str, hoisted: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The bands that an asset has from its item: that of its key, or of an image that nothing else describes all."""
    asset = item.assets[key]
    if key in hoisted:
        return [hoisted[key]]
    described = "eo:common_name" in asset.extra_fields or canonical_band(key.split("_")[0])
    return [] if described or not str(asset.media_type).startswith(("image/tiff", "image/jp2")) else [*hoisted.values()]


def _objects(item: pystac.Item, fields: Mapping[str, Any], name: str, place: str) -> list[dict[str, Any]]:
    """The objects of a list that may be absent; a band's name, where it has one, is a text."""
    found = fields.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise mistyped(item.id, place + name, found, "a list of objects")
    for index, one in enumerate(found):
        if not isinstance(one, dict):
            raise mistyped(item.id, f"{place}{name}[{index}]", one, "an object")
        if not isinstance(one.get("name", ""), str | None):
            raise mistyped(item.id, f"{place}{name}[{index}].name", one["name"], "a text")
    return found


def _name(item: pystac.Item, places: Sequence[Mapping[str, Any]], key: str | None) -> str | None:
    """The name of a band: the canonical name of whatever names it, else its own."""
    own = [places[0].get("name")]
    colours = [place.get(word) for place in places for word in ("eo:common_name", "common_name")]
    for colour in colours:
        if not isinstance(colour, str | None):
            raise mistyped(item.id, "common_name", colour, "a text")
    # Numbers of bands mean something else on every satellite; colours do not.
    spelt = [*colours, *own] if _of_another_mission(item) else [*own, *colours]
    if key is not None:
        spelt.append(key.split("_")[0])  # B02_10m
    return next(filter(None, (canonical_band(name) for name in spelt if name)), None) or own[0]


def _fact(item: pystac.Item, fact: str, places: Sequence[tuple[str, Mapping[str, Any]]]) -> float | None:
    """Scale, offset or nodata from the first place that has it."""
    for place, fields in (*places, ("properties", _prefixed(item.properties))):
        for word in (f"raster:{fact}", fact):
            if (value := fields.get(word)) is not None:
                return _number(item, f"{place}.{word}", value, finite=fact != "nodata", positive=fact == "scale")
    return None


def _prefixed(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts among the properties of an item that can only be those of its bands."""
    return {word: value for word, value in properties.items() if word.startswith("raster:") or word == "nodata"}


def _number(item: pystac.Item, field: str, value: object, *, finite: bool = True, positive: bool = False) -> float:
    """A number; JSON has none for NaN and infinity, which are texts there."""
    needed = ("a number above 0" if positive else "a number") if finite else 'a number, "nan", "inf" or "-inf"'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise mistyped(item.id, field, value, needed)
    try:
        number = value if isinstance(value, int) else float(value)
        if (finite and not math.isfinite(number)) or (positive and number <= 0):
            raise ValueError
    except (ValueError, OverflowError):
        raise mistyped(item.id, field, value, needed) from None
    return number


def asset_roles(item: pystac.Item, key: str) -> frozenset[str]:
    """The roles of an asset.

    Raises:
        InputError: They are no texts.
    """
    roles = item.assets[key].roles
    if roles is None:
        return frozenset()
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise mistyped(item.id, f"assets.{key}.roles", roles, "a list of texts")
    return frozenset(roles)


def asset_resolution(item: pystac.Item, key: str) -> float:
    """Size of an asset's pixels in metres; infinite where the item does not say it.

    Raises:
        InputError: It is no number.
    """
    asset = item.assets[key].extra_fields
    inside = [
        (f"assets.{key}.{name}[0]", one)
        for name in ("bands", "raster:bands")
        for one in _objects(item, asset, name, f"assets.{key}.")[:1]
    ]
    for place, fields in ((f"assets.{key}", asset), *inside):
        for word in ("gsd", "raster:spatial_resolution", "spatial_resolution"):
            if (value := fields.get(word)) is not None:
                return _number(item, f"{place}.{word}", value, positive=True)
    return math.inf


def asset_path(item: pystac.Item, key: str) -> str:
    """Where an asset lies, as GDAL opens it.

    A relative address counts from the item's own. An item on the web means files on the web alone, and no item means
    GDAL's file systems and drivers (``/vsicurl/...``, ``WMS:...``): they would ask other addresses, read other files.

    Raises:
        InputError: The address is none of those.
    """
    href = item.assets[key].href
    if not isinstance(href, str) or not href or "\0" in href:
        raise mistyped(item.id, f"assets.{key}.href", href, "a path or an address")
    home = item.get_self_href() or ""
    at_home = _scheme(home) in _REMOTE
    whole = _joined(home, href) if at_home else href
    scheme = _scheme(href) or _scheme(whole)
    if scheme in _REMOTE:
        bare = whole.split("?")[0]
    elif at_home or scheme not in ("", "file"):
        raise _refused(item, key, f"an item on the web has files on the web ({', '.join(_REMOTE)})" if at_home else "")
    else:
        bare = whole = _local(home, re.sub(r"^\s*file:(//)?", "", whole, flags=re.IGNORECASE))
    strange = re.match(r"\s*[<{]|/+vsi", href) or re.match(r"/+vsi", bare)
    if strange or bare.lower().endswith((".vrt", ".xml", ".wms")):
        raise _refused(item, key, "")
    return _signed(item, whole)


def _refused(item: pystac.Item, key: str, why: str) -> InputError:
    what = why or "assets are raster files or Zarr groups, named by a path, http, https, s3, gs or az"
    return InputError(
        f"STAC item {item.id}: assets.{key}.href is {_shown(item.assets[key].href)}, which is not opened, because "
        f"{what}; to read it all the same, name the file itself"
    )


def _scheme(href: str) -> str:
    """The scheme of an address or the driver of a GDAL name, in lower case; empty for a path.

    >>> _scheme("HTTPS://x.org/a.tif"), _scheme("GTIFF_DIR:1:a.tif"), _scheme("./S2:a.tif"), _scheme("/vsis3/a.tif")
    ('https', 'gtiff_dir', '', '')
    """
    match = re.match(r"\s*([A-Za-z][\w.+-]*):", href)
    return match[1].lower() if match else ""


def _joined(home: str, href: str) -> str:
    """An address as it counts from that of the item; urllib knows how it is done for http."""
    scheme, _, rest = home.partition("://")
    try:
        joined = urljoin(f"http://{rest}", href)
    except ValueError:  # no address
        return href
    return joined if _scheme(href) or not joined.startswith("http://") else f"{scheme}://{joined[7:]}"


def _local(home: str, path: str) -> str:
    """The path of a local file."""
    folder = os.path.dirname(re.sub(r"^file:(//)?", "", home, flags=re.IGNORECASE))
    return os.path.normpath(os.path.join(folder, path)) if home else path


def _signed(item: pystac.Item, href: str) -> str:
    """The address, or the name by which GDAL signs each request to the Planetary Computer."""
    if not ((_host(href) or "").endswith(_AZURE) and is_planetary(item)):
        return href
    # The path stays the same from run to run, which a signature in it would not. What is not quoted would be options.
    collection = quote(str(item.collection_id), safe="")
    return f"/vsicurl?pc_url_signing=yes&pc_collection={collection}&url={quote(href, safe=':/')}"


def is_planetary(item: pystac.Item) -> bool:
    """Whether an item comes from the Planetary Computer."""
    hrefs = (link.get_href(transform_href=False) for link in item.links)
    return any(_host(href) == _PLANETARY for href in hrefs if isinstance(href, str))


def _host(href: str) -> str | None:
    try:
        return urlsplit(href).hostname
    except ValueError:
        return None


def processing_baseline(item: pystac.Item) -> str | None:
    """The processing baseline of a Sentinel-2 product, such as ``05.11``: of the properties, or of a product's name.

    A number (5.11) is as good as the text ("05.11", "N0511"); 5.1 is 05.10, whose last digit a number has lost.

    Raises:
        InputError: A property that holds it is neither.
    """
    if _of_another_mission(item) or "geosr:model" in item.properties:  # a result has the encoding that it says itself
        return None
    for word in filter(_BASELINE.fullmatch, item.properties):
        if baseline := _baseline(item, word):
            return baseline
    for text in _texts(item):
        if (match := _PRODUCT.search(text)) and (baseline := f"{match[1]}.{match[2]}") != _NO_PRODUCT:
            return baseline
    return None


def _baseline(item: pystac.Item, word: str) -> str | None:
    """The baseline that a property holds; another software's version is none."""
    value = item.properties.get(word)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise mistyped(item.id, f"properties.{word}", value, 'a processing baseline such as "05.11"')
    if not isinstance(value, str):
        value = f"{value / 100 if value >= 100 else value:05.2f}"
    if not re.fullmatch(r"[Nn]?\d\d?\.\d\d?|[Nn]?\d{4}", value.strip()):
        return None
    major, minor = parse_baseline(value)
    baseline = f"{major:02}.{minor:02}"
    return None if baseline == _NO_PRODUCT else baseline


def _texts(item: pystac.Item) -> Iterator[str]:
    """Where the name of a product may stand: the id, properties, links and addresses of assets."""
    yield item.id
    yield from (value for value in item.properties.values() if isinstance(value, str))
    hrefs = (link.get_href(transform_href=False) for link in item.links if link.rel in ("derived_from", "self"))
    yield from (href for href in hrefs if isinstance(href, str))
    yield from (asset.href for asset in item.assets.values() if isinstance(asset.href, str))


def _of_another_mission(item: pystac.Item) -> bool:
    """Whether an item names a satellite, and it is none of Sentinel-2."""
    words = [item.properties.get(word) for word in ("constellation", "platform")]
    named = " ".join(word for word in words if isinstance(word, str)).lower()
    return bool(named) and not re.search(r"sentinel-?\s?2|\bs2", named)
