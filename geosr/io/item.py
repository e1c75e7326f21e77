"""STAC items that describe a result: where it lies on Earth, what its numbers mean, and what it was made with."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rasterio.io import MemoryFile

from geosr.errors import OutputError, extra
from geosr.files import write
from geosr.io.cog import Profile

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd+zarr; version=3",
}
"""Of what files of these endings are, in the words of STAC."""

_EXTENSIONS = (
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
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
        GeosrError: rio-stac is not installed.

    References:
        STAC 1.1, and its extensions projection, raster 1.1, eo 1.1 and processing 1.2.
    """
    with extra("stac", "Writing a STAC item"):
        from pystac import Asset, Link
        from rio_stac import create_stac_item

    assets = {
        (band_names[0] if len(files) > 1 else "image"): Asset(
            os.path.relpath(file, path.parent),
            media_type=MEDIA_TYPES[file.suffix],
            roles=["data", "reflectance"],
            extra_fields={
                "eo:bands": [{"name": band} for band in band_names],
                "raster:bands": [_raster_band(profile, band) for band in band_names],
            },
        )
        for file, band_names in files.items()
    }
    height, width = profile.geobox.shape
    grid = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8", "SPARSE_OK": True,
        "crs": profile.geobox.crs and str(profile.geobox.crs), "transform": profile.geobox.affine,
    }  # fmt: skip
    # rio-stac looks at a raster of the same grid and without pixels: it could not open a Zarr group.
    with MemoryFile() as memory, memory.open(**grid) as empty:
        item = create_stac_item(
            empty, id=path.stem, input_datetime=time, assets=assets, properties=dict(properties), with_proj=True
        )
    item.stac_extensions += _EXTENSIONS
    item.add_links([Link("derived_from", source) for source in sources])
    try:
        return write(at or path, json.dumps(item.to_dict(include_self_link=False), indent=2))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def _raster_band(profile: Profile, band: str) -> dict[str, Any]:
    """What the raster extension says of a band."""
    encoding = profile.encoding(band)
    told: dict[str, Any] = {"data_type": profile.dtype.name, "scale": encoding.scale, "offset": encoding.offset}
    if encoding.nodata is not None:
        told["nodata"] = "nan" if encoding.nodata != encoding.nodata else encoding.nodata
    return told
