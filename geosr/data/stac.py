"""STAC: items as sources of training data, and the items that a search finds."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from requests.exceptions import RequestException

from geosr.data.patches import SceneFiles
from geosr.data.sources import SILENT, Source
from geosr.errors import InputError, UsageError, did_you_mean
from geosr.footprint import is_box
from geosr.io.claims import Claims
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
        bbox: West, south, east, north in degrees.
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
