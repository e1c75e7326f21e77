"""STAC: items as sources of training data, and the items that a search finds."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from geosr.data.patches import SceneFiles
from geosr.data.sources import SILENT, Source
from geosr.errors import GeosrError, InputError, UsageError, did_you_mean
from geosr.footprint import is_box
from geosr.io import documents
from geosr.io.claims import Claims
from geosr.io.documents import SILENCE, is_web_address, within
from geosr.io.stac import item_claims, item_scene

log = logging.getLogger(__name__)


def item_source(item: pystac.Item, bands: Sequence[str], encoding: Claims = SILENT) -> Source:
    """The scene of an item as a source; the files are not read.

    What the item says of their digital numbers fills what the user leaves open; where the files' own tags say
    something else, opening the scene fails.

    Args:
        item: The item.
        bands: Canonical names, in the order wanted.
        encoding: What the user says.

    Raises:
        BandError: No asset has a wanted band.
        RadiometryError: The user contradicts the item, or the item itself.
    """
    found = item_scene(item, bands)
    return Source(
        SceneFiles(found.name, found.files, start=found.start, end=found.end),
        names=found.names,
        encoding=item_claims(found, encoding),
        classes=found.classes,
        origin=found.origin,
        licence=found.licence,
    )


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
        bbox: West, south, east, north in degrees; over 180 degrees, west is the larger number.
        datetime: A day, a month, or an interval such as ``2023-06-01/2023-08-31``.
        max_cloud: Highest ``eo:cloud_cover`` in percent; items that do not tell theirs are left out.
        limit: How many items at most.

    Raises:
        InputError: The API does not answer, has no such collection, or finds nothing.
        UsageError: The box is empty.
    """
    if bbox is not None and not is_box(bbox):
        raise UsageError(f"--bbox {' '.join(map(str, bbox))} is not west south east north in degrees")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the API does not support is not asked of it
            client = Client.open(url, stac_io=_Requests(timeout=SILENCE))
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
    except GeosrError:
        raise
    except Exception as error:  # pystac passes on whatever an answer of another form raises
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{url} does not answer as a STAC API ({cause})") from error
    if max_cloud is not None:
        clear = [item for item in items if _cloud(item) <= max_cloud]
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
        if not is_web_address(item.get_self_href() or ""):  # or else its files could be those of this machine
            item.clear_links("self")
            item.set_self_href(f"{url.rstrip('/')}/collections/{collection}/items/{item.id}")
    return sorted(items, key=lambda item: item.id)


def _cloud(item: pystac.Item) -> float:
    """The cloud cover of an item in percent; infinite where it does not say one."""
    cover = item.properties.get("eo:cloud_cover")
    return float(cover) if isinstance(cover, int | float) else math.inf


class _Requests(StacApiIO):
    """Requests to a STAC API: to web addresses alone, each within a total time."""

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """The answer of an address, or of what a link names."""
        href = source.get_href() if isinstance(source, pystac.Link) else str(source)
        if not is_web_address(href or ""):
            raise APIError(f"it links to {href}, which is no web address")
        return super().read_text(source, *args, **kwargs)

    def request(self, *args: Any, **kwargs: Any) -> str:
        """The answer of an address."""
        return within(documents.SECONDS, lambda: StacApiIO.request(self, *args, **kwargs))

    def stac_object_from_dict(self, d: dict[str, Any], *args: Any, **kwargs: Any) -> pystac.STACObject:
        """The landing page or a collection; of an old item, pystac would fetch the collection that it links to."""
        if d.get("type") == "Feature":
            raise APIError("it is an item")
        return super().stac_object_from_dict(d, *args, **kwargs)
