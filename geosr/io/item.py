"""STAC items that describe a result: where it lies on Earth, what its numbers mean, and what it was made with."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox
from shapely.geometry import mapping

from geosr.errors import OutputError, extra
from geosr.files import write
from geosr.footprint import geographic_footprint
from geosr.io.cog import Profile
from geosr.sensors import common_name

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd+zarr; version=3",
}
"""Of what files of these endings are, in the words of STAC."""

_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "eo/v2.0.0", "processing/v1.2.0")
)


def write_item(
    path: Path,
    files: Mapping[Path, Sequence[str]],
    profile: Profile,
    *,
    time: datetime,
    properties: Mapping[str, Any],
    sources: Sequence[str] = (),
    at: Path | None = None,
) -> Path:
    """Write a STAC item as JSON and return the path of the file.

    Args:
        path: The file to write; its name without the ending is the item's id.
        files: The files of the result, and the bands in each.
        profile: The raster that they hold.
        time: When the scene was acquired.
        properties: Further properties of the item.
        sources: What it was derived from.
        at: Where it is written until it belongs at `path`, from where its links count; None: there.

    Raises:
        OutputError: It cannot be written.
        GeosrError: pystac is not installed.

    References:
        STAC 1.1, and its extensions projection 2.0, raster 2.0, eo 2.0 and processing 1.2.
    """
    with extra("stac", "Writing a STAC item"):
        from pystac import Asset, Item, Link

    outline, bounds = geographic_footprint(profile.geobox) or (None, None)
    item = Item(
        id=path.stem,
        geometry=None if outline is None else mapping(outline),
        bbox=None if bounds is None else list(bounds),
        datetime=time,
        properties={name: value for name, value in properties.items() if value is not None}
        | _projection(profile.geobox),
        stac_extensions=list(_EXTENSIONS),
    )
    for file, band_names in files.items():
        asset = Asset(
            f"./{Path(os.path.relpath(file, path.parent)).as_posix()}",  # a name with a colon alone would be a scheme
            media_type=MEDIA_TYPES[file.suffix],
            roles=["data", "reflectance"],
            extra_fields={"bands": [_band(profile, band) for band in band_names]},
        )
        item.add_asset(band_names[0] if len(files) > 1 else "image", asset)
    item.add_links([Link("derived_from", _reference(source, path.parent)) for source in sources])
    try:
        return write(at or path, json.dumps(item.to_dict(include_self_link=False), indent=2, allow_nan=False))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def _projection(geobox: GeoBox) -> dict[str, Any]:
    """The grid in the words of the projection extension."""
    height, width = geobox.shape
    left, bottom, right, top = geobox.boundingbox
    told: dict[str, Any] = {
        "proj:code": None,
        "proj:shape": [height, width],
        "proj:transform": list(geobox.affine)[:6],
        "proj:bbox": [left, bottom, right, top],
    }
    if geobox.crs is not None:
        authority = geobox.crs.proj.to_authority(min_confidence=100)
        if authority is not None:
            told["proj:code"] = ":".join(authority)
        else:
            told["proj:wkt2"] = geobox.crs.proj.to_wkt()
    return told


def _band(profile: Profile, band: str) -> dict[str, Any]:
    """A band in the words of STAC 1.1 and of the extensions eo and raster."""
    encoding = profile.encoding(band)
    told: dict[str, Any] = {
        "name": band,
        "data_type": profile.dtype.name,
        "raster:scale": encoding.scale,
        "raster:offset": encoding.offset,
    }
    if (colour := common_name(band)) is not None:
        told["eo:common_name"] = colour
    if (nodata := encoding.nodata) is not None:
        told["nodata"] = nodata if math.isfinite(nodata) else str(float(nodata))  # "nan", "inf", "-inf": JSON has none
    return told


def _reference(source: str, folder: Path) -> str:
    """The address of a source; of a file on this machine, its path as it counts from the item."""
    return Path(os.path.relpath(source, folder)).as_posix() if os.path.exists(source) else source
