"""The catalogue of public data sets and sources of scenes: a static STAC catalogue, read without its network.

The entries are the ``data_catalog/*/collection.json`` that come with geosr. Fields of geosr's own:

``geosr:kind``        pairs (LR and HR), images (HR) or scenes (a STAC API)
``geosr:reader``      the reader in `geosr.data.readers`, ``stac`` for an API, null where geosr has none
``geosr:route``       how to use what has no reader
``geosr:api``         url and collection of a STAC API
``geosr:validation``  patterns of the names of the scenes that are for validation, where the publisher parts them
``geosr:scale``       HR pixels per LR pixel
``geosr:size``, ``geosr:get``   how much it is and how to get it, in words
``geosr:radiometry``  in words, where scale and offset differ between items
``geosr:unverified``  names of the fields that nobody could check
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from geosr.data.patches import SceneFiles
from geosr.data.readers import LAYOUTS, READERS
from geosr.errors import InputError, UsageError, did_you_mean

KINDS = ("pairs", "images", "scenes")
STAC_READER = "stac"
"""The reader of entries that are a STAC API, which `geosr prepare --stac` searches."""


@dataclass(frozen=True)
class Entry:
    """One data set or source of scenes."""

    id: str
    """What ``Data.catalog`` calls it."""
    title: str
    """What its publisher calls it."""
    kind: str
    """``pairs``, ``images`` or ``scenes``."""
    licence: str
    """SPDX identifier, or ``other``."""
    gsd: tuple[float, ...]
    """Ground sampling distances, metres, finest first."""
    bands: tuple[str, ...]
    """Bands of the HR images, or of the scenes."""
    scale: int | None
    """HR pixels per LR pixel; None where there are no pairs."""
    size: str
    """How much it is, in words."""
    reader: str | None
    """The reader that geosr has for it."""
    unverified: tuple[str, ...]
    """Fields that nobody could check."""
    stac: Mapping[str, Any]
    """The whole STAC collection."""

    @property
    def validation(self) -> tuple[str, ...]:
        """Patterns of the names of the scenes that are for validation; none: a split parts them."""
        return tuple(self.stac.get("geosr:validation", ()))


class StacSource(NamedTuple):
    """Where scenes are searched: ``geosr prepare --stac URL --collection C``."""

    url: str
    collection: str


def catalog_file() -> Path:
    """The catalogue that comes with geosr.

    Raises:
        InputError: It is not there, so geosr is not installed whole.
    """
    package = Path(str(files("geosr")))
    candidates = (package / "data_catalog", package.parent / "data_catalog")  # in the wheel; in a checkout
    for folder in candidates:
        if (folder / "catalog.json").is_file():
            return folder / "catalog.json"
    raise InputError(f"the data catalogue is missing ({candidates[0]}); install geosr again")


def collections(catalog: Path | None = None) -> list[Entry]:
    """All entries, checked, in the order of the catalogue.

    Args:
        catalog: A ``catalog.json``; by default the one that comes with geosr.

    Raises:
        InputError: The catalogue or an entry is broken.
    """
    path = catalog or catalog_file()
    children = [link for link in _json(path).get("links", ()) if link.get("rel") == "child"]
    entries = [_entry(path.parent / link["href"]) for link in children]
    if not entries:
        raise InputError(f"{path} has no link with rel 'child'; it lists no collection")
    ids = [entry.id for entry in entries]
    if repeated := sorted({one for one in ids if ids.count(one) > 1}):
        raise InputError(f"{path} lists {repeated[0]!r} more than once")
    return entries


def get_collection(id: str, *, catalog: Path | None = None) -> Entry:
    """The entry of that id; its case does not matter.

    Raises:
        UsageError: There is none.

    >>> get_collection("SEN2NAIP").scale
    4
    >>> get_collection("sen2nap")
    Traceback (most recent call last):
    geosr.errors.UsageError: data set 'sen2nap' is not in the catalogue (geosr-demo ...); did you mean 'sen2naip'?
    """
    entries = {entry.id: entry for entry in collections(catalog)}
    if id.lower() not in entries:
        raise UsageError(
            f"data set {id!r} is not in the catalogue ({next(iter(entries))} ...)"
            + (did_you_mean(id, entries) or "; `geosr data list` names them all")
        )
    return entries[id.lower()]


def scenes_of(id: str, root: str | Path, *, catalog: Path | None = None) -> list[SceneFiles]:
    """The scenes of a data set that was downloaded to ``root``.

    Args:
        id: Of the entry, as in ``Data.catalog``.
        root: The folder of the download, as in ``Data.root``.
        catalog: As for :func:`collections`.

    Raises:
        UsageError: The id is unknown, or the entry is nothing that is read from a folder.
        InputError: The folder lacks the layout that the publisher documents.
    """
    entry = get_collection(id, catalog=catalog)
    if entry.reader == STAC_READER:
        url, collection = stac_source(id, catalog=catalog)
        raise UsageError(
            f"{entry.id} is a source of scenes, not a folder; make a training store of it and name that store in "
            f"Data.root:\n  geosr prepare --stac {url} --collection {collection} --bbox ... --datetime ... --out ..."
        )
    if entry.reader is None:
        raise UsageError(f"geosr has no reader for {entry.id}. {entry.stac['geosr:route']}")
    scenes = READERS[entry.reader](Path(root))
    if not scenes:
        state = "holds no" if Path(root).is_dir() else "does not exist; it should hold"
        raise InputError(f"{root} {state} {LAYOUTS[entry.reader]}, the layout of {entry.id}. {entry.stac['geosr:get']}")
    return scenes


def stac_source(id: str, *, catalog: Path | None = None) -> StacSource:
    """API and collection of a source of scenes.

    Raises:
        UsageError: The id is unknown, or the entry is no STAC API.
    """
    entry = get_collection(id, catalog=catalog)
    if entry.reader != STAC_READER:
        sources = [one.id for one in collections(catalog) if one.reader == STAC_READER]
        raise UsageError(f"{entry.id} is no source that can be searched ({' '.join(sources)} are)")
    return StacSource(**entry.stac["geosr:api"])


def rows(entries: list[Entry]) -> list[dict[str, str]]:
    """One row of a table for each entry: id, kind, resolution, scale, bands, licence, size, reader."""
    return [
        {
            "id": entry.id,
            "kind": entry.kind,
            "resolution": f"{' / '.join(f'{gsd:g}' for gsd in entry.gsd)} m",
            "scale": f"x{entry.scale}" if entry.scale else "",
            "bands": " ".join(entry.bands),
            "licence": _licence(entry),
            "size": entry.size,
            "reader": entry.reader or "none",
        }
        for entry in entries
    ]


def describe(entry: Entry) -> dict[str, str]:
    """All that is known of an entry, label by label; what nobody could check is marked."""
    stac = entry.stac
    told = {
        "id": entry.id,
        "title": entry.title,
        "description": stac["description"],
        "kind": entry.kind + (f", x{entry.scale}" if entry.scale else ""),
        "licence": _licence(entry),
        "licence text": ", ".join(link["href"] for link in stac["links"] if link["rel"] == "license"),
        "size": entry.size + _doubt(entry, "geosr:size"),
        **{f"image {name}": _image(entry, name) for name in stac["item_assets"]},
        "radiometry": stac.get("geosr:radiometry", ""),
        "place": f"{stac['extent']['spatial']['bbox'][0]} (W S E N)" + _doubt(entry, "extent.spatial"),
        "time": " to ".join(str(end or "now") for end in stac["extent"]["temporal"]["interval"][0])
        + _doubt(entry, "extent.temporal"),
        "providers": ", ".join(f"{one['name']} ({', '.join(one['roles'])})" for one in stac["providers"]),
        "source": ", ".join(link["href"] for link in stac["links"] if link["rel"] == "via"),
        "get it": stac["geosr:get"],
        "reader": entry.reader or f"none. {stac['geosr:route']}",
        "layout": LAYOUTS.get(entry.reader or "", ""),
        "cite": stac["sci:citation"] + _doubt(entry, "sci:citation"),
        "doi": stac.get("sci:doi", ""),
    }
    return {label: text for label, text in told.items() if text}


def _licence(entry: Entry) -> str:
    return entry.licence + _doubt(entry, "license")


def _doubt(entry: Entry, field: str) -> str:
    return " (not verified)" if field in entry.unverified else ""


def _image(entry: Entry, name: str) -> str:
    """One kind of image of an entry, in a line."""
    asset = entry.stac["item_assets"][name]
    parts = [asset["title"], " ".join(band["name"] for band in asset["bands"]), f"{asset['gsd']:g} m"]
    parts += [asset["data_type"]] if "data_type" in asset else []
    if "raster:scale" in asset:
        parts.append(f"reflectance = DN * {asset['raster:scale']:.6g} + {asset['raster:offset']:g}")
    parts += [f"nodata {asset['nodata']}"] if "nodata" in asset else []
    inside = [one.rpartition(".")[2] for one in entry.unverified if one.startswith(f"item_assets.{name}.")]
    return "; ".join(parts) + (f" (not verified: {', '.join(inside)})" if inside else "")


_REQUIRED = (
    "type", "id", "title", "description", "license", "providers", "extent", "summaries", "item_assets", "links",
    "sci:citation", "geosr:kind", "geosr:reader", "geosr:size", "geosr:get", "geosr:unverified",
)  # fmt: skip
_DOI = r"10\.\d{4,}(\.\d+)*/\S+"


def _entry(path: Path) -> Entry:
    """The entry of a ``collection.json``, checked."""
    stac = _json(path)
    if missing := [field for field in _REQUIRED if field not in stac]:
        raise InputError(f"{path} has no {missing[0]}; an entry needs {' '.join(_REQUIRED)}")
    for check in (_check_identity, _check_licence, _check_reader, _check_assets, _check_links, _check_unverified):
        if problem := check(stac, path):
            raise InputError(f"{path} ({stac['id']}): {problem}")
    hr = stac["item_assets"].get("hr") or next(iter(stac["item_assets"].values()))
    return Entry(
        id=stac["id"],
        title=stac["title"],
        kind=stac["geosr:kind"],
        licence=stac["license"],
        gsd=tuple(sorted(stac["summaries"]["gsd"])),
        bands=tuple(band["name"] for band in hr["bands"]),
        scale=stac.get("geosr:scale"),
        size=stac["geosr:size"],
        reader=stac["geosr:reader"],
        unverified=tuple(stac["geosr:unverified"]),
        stac=stac,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); a link of the catalogue is broken") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds a {type(loaded).__name__}; it should hold a JSON object")
    return loaded


def _check_identity(stac: Mapping[str, Any], path: Path) -> str | None:
    if stac["type"] != "Collection":
        return f"type is {stac['type']!r}; it should be 'Collection'"
    if stac["id"] != path.parent.name or stac["id"] != stac["id"].lower():
        return f"id is {stac['id']!r}; it should be that of its folder, {path.parent.name!r}, in lower case"
    if stac["geosr:kind"] not in KINDS:
        return f"geosr:kind is {stac['geosr:kind']!r}; it is one of {' '.join(KINDS)}"
    if stac["geosr:kind"] == "pairs" and not isinstance(stac.get("geosr:scale"), int):
        return "pairs need geosr:scale, a whole number of HR pixels per LR pixel"
    return None


def _check_licence(stac: Mapping[str, Any], path: Path) -> str | None:
    if not stac["license"]:
        return "license is empty; it is an SPDX identifier, or 'other' with a link to the text"
    if stac["license"] == "other" and not any(link.get("rel") == "license" for link in stac["links"]):
        return "license is 'other' and no link has rel 'license'; link its text"
    if not stac["providers"] or not stac["sci:citation"]:
        return "providers and sci:citation must not be empty; say whose data it is and how to cite it"
    dois = [stac.get("sci:doi"), *(one.get("doi") for one in stac.get("sci:publications", ()))]
    for doi in dois:
        if doi is not None and not re.fullmatch(_DOI, doi):
            return f"{doi!r} is no DOI; write 10.PREFIX/SUFFIX without the address"
    return None


def _check_reader(stac: Mapping[str, Any], path: Path) -> str | None:
    reader = stac["geosr:reader"]
    if reader is None:
        return None if stac.get("geosr:route") else "geosr:reader is null; say in geosr:route how to use the data"
    if reader == STAC_READER:
        complete = set(stac.get("geosr:api", ())) == set(StacSource._fields)
        return None if complete else "geosr:reader is 'stac'; give geosr:api with url and collection"
    if reader not in READERS:
        return f"reader {reader!r} is unknown ({' '.join([*READERS, STAC_READER])})" + did_you_mean(reader, READERS)
    return None


def _check_assets(stac: Mapping[str, Any], path: Path) -> str | None:
    for name, asset in stac["item_assets"].items():
        if not asset.get("bands") or not all(band.get("name") for band in asset["bands"]):
            return f"item_assets.{name} names no bands"
        if not asset.get("gsd", 0) > 0:
            return f"item_assets.{name} has no gsd in metres"
        doubted = f"item_assets.{name}.raster:scale" in stac["geosr:unverified"]
        visual = "visual" in asset.get("roles", ())
        if "raster:scale" not in asset and not (doubted or visual or stac.get("geosr:radiometry")):
            return f"item_assets.{name} has no raster:scale, and neither geosr:radiometry nor geosr:unverified says why"
    return None if stac["item_assets"] else "item_assets is empty"


def _check_links(stac: Mapping[str, Any], path: Path) -> str | None:
    for link in stac["links"]:
        if "://" not in link["href"] and not (path.parent / link["href"]).is_file():
            return f"link {link['rel']!r} leads to {link['href']}, which does not exist"
    return None


def _check_unverified(stac: Mapping[str, Any], path: Path) -> str | None:
    for field in stac["geosr:unverified"]:
        place: Any = stac
        for key in field.split(".")[:-1]:  # the last key may be what nobody knows
            place = place.get(key) if isinstance(place, Mapping) else None
        if not isinstance(place, Mapping) or (place is stac and field not in stac):
            return f"geosr:unverified names {field!r}, which is no field of the entry"
    return None
