"""The metadata of a Sentinel-2 product in SAFE format: what its digital numbers mean, in the producer's words."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from geosr.errors import InputError, RadiometryError
from geosr.io.archive import archive_of, names_in, read_from
from geosr.io.xml import LIMIT, parse_xml
from geosr.radiometry import Radiometry
from geosr.sensors import Sensor, get_sensor

PRODUCT_XML = re.compile(r"(MTD_MSIL(1C|2A)|S2\w_(OPER|USER)_MTD_SAFL(1C|2A)\w*)\.xml", re.IGNORECASE)
"""The name of the XML file that describes a whole product."""
_PRODUCT_IMAGE = re.compile(r"(?:^|.*[_.-])B\d[\dA](?:[_-]\d+m)?\.jp2", re.IGNORECASE)
IMAGE_FOLDER = re.compile(r"(.*)/IMG_DATA(?:/R\d0m)?", re.IGNORECASE)
"""The folders that hold the images of a granule, which is its group."""
_IMAGE_NAME = re.compile(r"(T\w{5})_(\d{8}T\d{6})_.*|S2\w_(OPER|USER)_MSI_L\w\w_.*", re.IGNORECASE)
_PRODUCT_NAME = re.compile(r"S2\w_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{4})_R\d{3}_T\w{5}_\d{8}T\d{6}(\.SAFE)?")


@dataclass(frozen=True)
class ProductMetadata:
    """What a Sentinel-2 product says about itself."""

    path: str
    """The product XML, or the product folder where only its name could be read."""
    product_uri: str
    """The product's name, ending in ``.SAFE``."""
    level: str
    """``L1C`` or ``L2A``."""
    processing_baseline: str
    """Such as ``05.09``."""
    quantification: float
    """DN per unit of reflectance."""
    offsets: Mapping[str, float]
    """By band name, the number that is added to a DN before it is divided by `quantification`; zero before 04.00."""
    nodata: int | None = None
    """The DN that marks an invalid pixel."""
    saturated: int | None = None
    """The DN that marks a saturated pixel."""
    sensing_time: datetime | None = None
    """Start of the datatake, UTC."""

    @property
    def sensor(self) -> Sensor:
        """The sensor that the product belongs to."""
        return get_sensor(f"sentinel-2-{self.level.lower()}")

    def decodes(self, path: str, *, dtype: str, driver: str) -> bool:
        """Whether a file that lies in the product holds its digital numbers; derived files may have any other.

        The images are JPEG 2000 files in IMG_DATA, files with the tile and time of the product in their names, and
        what GDAL shows of the product itself.

        Args:
            path: The file.
            dtype: The numpy name of its type; all images of Sentinel-2 are uint16.
            driver: The GDAL driver that reads it.
        """
        if dtype != "uint16":
            return False
        if re.match(r"SENTINEL2_L\w\w:", path, re.IGNORECASE):
            return True
        folder, name = posixpath.split(path)
        if not _PRODUCT_IMAGE.fullmatch(name):
            return False
        if IMAGE_FOLDER.fullmatch(f"/{folder}"):
            return True
        spelt = _IMAGE_NAME.fullmatch(name)
        if spelt is None or not driver.startswith("JP2"):
            return False
        return spelt[1] is None or all(f"_{word.upper()}" in self.product_uri.upper() for word in spelt.groups()[:2])

    def radiometry(self, bands: Iterable[str]) -> Radiometry:
        """How the DN of these bands encode reflectance.

        Args:
            bands: Canonical names, such as ``B04``.

        Raises:
            RadiometryError: A band holds no reflectance, or the bands have different offsets.
        """
        bands = tuple(bands)
        if unknown := [band for band in bands if band not in self.offsets]:
            raise RadiometryError(
                f"{self.product_uri} does not say how {' '.join(unknown)} encodes reflectance; "
                f"it does for {' '.join(self.offsets)}"
            )
        offsets = {self.offsets[band]: band for band in reversed(bands)}
        if len(offsets) != 1:
            told = ", ".join(f"{band} {offset:g}" for offset, band in offsets.items()) or "no bands were given"
            raise RadiometryError(f"{self.product_uri} has different offsets ({told}); choose bands that share one")
        (offset,) = offsets
        return Radiometry(1 / self.quantification, offset / self.quantification, self.nodata, self.saturated)


def product_metadata(path: str) -> ProductMetadata | None:
    """What the Sentinel-2 product around a file says, or None where the file is part of none.

    Looks for the product XML next to the file, in the folder that holds ``GRANULE`` and in the ``.SAFE`` folder, on
    disk and inside a local ``/vsizip/``. Elsewhere (a bucket, a web server) folders cannot be listed: there the
    product's name, which holds the processing baseline, speaks for the JPEG 2000 files below it.

    Args:
        path: The product XML, or any path in the product; GDAL's ``SENTINEL2_L2A:...`` names work too.

    Raises:
        InputError: The product XML is there but cannot be parsed.
    """
    path = re.sub(r"^SENTINEL2_L\w\w:(.*\.xml).*$", r"\1", str(path), flags=re.IGNORECASE)
    for candidate in _candidates(path):
        content = read_small(candidate)
        if content is not None:
            return _parse(content, candidate)
    return _from_name(path)


def _candidates(path: str) -> list[str]:
    """Where the product XML of `path` can be."""
    if PRODUCT_XML.fullmatch(posixpath.basename(path)):
        return [path]
    folders = [posixpath.dirname(path)]
    parts = path.split("/")
    for position, part in enumerate(parts):
        if part.upper() == "GRANULE":
            folders.append("/".join(parts[:position]))
        elif part.upper().endswith(".SAFE"):
            folders.append("/".join(parts[: position + 1]))
    return [
        posixpath.join(folder, name)
        for folder in dict.fromkeys(folders)
        for name in _names(folder)
        if PRODUCT_XML.fullmatch(name)
    ]


def _names(folder: str) -> list[str]:
    """Names of the files in a folder; nothing where it cannot be listed."""
    if archive := archive_of(folder):
        inside = [posixpath.split(name) for name in names_in(archive[0])]
        return [name for parent, name in inside if parent == archive[1]]
    try:
        return sorted(entry.name for entry in Path(folder).iterdir())
    except OSError:
        return []


def read_small(path: str) -> bytes | None:
    """The content of a small file on disk or in a local ``/vsizip/``, or None where there is no such file.

    Raises:
        InputError: It is larger than any metadata, or lies in an archive that is not to be trusted.
    """
    if archive := archive_of(path):
        return read_from(*archive, limit=LIMIT)
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return file.read(LIMIT + 1)


def _parse(content: bytes, path: str) -> ProductMetadata:
    """The product XML as values.

    Raises:
        InputError: It is no XML, or holds values that no product has.
    """
    root = parse_xml(content, path)
    try:
        return _metadata(root, path)
    except (ValueError, OverflowError, IndexError, KeyError) as error:
        raise InputError(f"{path} holds what no product says ({error!r}); download the product again") from error


def _metadata(root: ElementTree.Element, path: str) -> ProductMetadata:
    """The values of a product XML; tags as in the Products Specification Document, versions 13 to 15."""

    def first(*tags: str) -> str | None:
        elements = (element for tag in tags for element in root.iter(tag))
        return next((element.text.strip() for element in elements if element.text), None)

    baseline = first("PROCESSING_BASELINE")
    quantification = first("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    if baseline is None or quantification is None:
        raise InputError(f"{path} names no processing baseline or no quantification; download the product again")
    if not 0 < float(quantification) < math.inf:
        raise ValueError(f"quantification {quantification}")
    match = re.search("L1C|L2A", posixpath.basename(path).upper())
    level = match[0] if match else "L1C"
    special = {
        element.findtext("SPECIAL_VALUE_TEXT"): int(element.findtext("SPECIAL_VALUE_INDEX", ""))
        for element in root.iter("Special_Values")
    }
    names = get_sensor(f"sentinel-2-{level.lower()}").band_names
    offsets = dict.fromkeys(names, 0.0)
    for tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
        for element in root.iter(tag):
            # band_id counts the bands of the instrument, B8A between B08 and B09.
            position, offset = int(element.attrib["band_id"]), float(element.text or 0)
            if position < 0 or not math.isfinite(offset):
                raise ValueError(f"offset {offset} of band {position}")
            offsets[names[position]] = offset
    time = first("DATATAKE_SENSING_START", "PRODUCT_START_TIME")
    return ProductMetadata(
        path=path,
        product_uri=first("PRODUCT_URI", "PRODUCT_URI_2A", "PRODUCT_URI_1C")
        or posixpath.basename(posixpath.dirname(path)),
        level=level,
        processing_baseline=baseline,
        quantification=float(quantification),
        offsets=offsets,
        nodata=special.get("NODATA"),
        saturated=special.get("SATURATED"),
        sensing_time=datetime.fromisoformat(time) if time else None,
    )


def _from_name(path: str) -> ProductMetadata | None:
    """What the product's name says, for its own JPEG 2000 files: derived files may have dropped the offset."""
    parts = path.split("/")
    position = next((i for i, part in enumerate(parts) if _PRODUCT_NAME.fullmatch(part)), None)
    # N9999 marks a product that somebody processed himself; it orders after every baseline and says nothing.
    if position is None or not path.lower().endswith(".jp2") or "_N9999_" in parts[position]:
        return None
    match = _PRODUCT_NAME.fullmatch(parts[position])
    assert match is not None
    level, time, number, _ = match.groups()
    baseline = f"{number[:2]}.{number[2:]}"
    sensor = get_sensor(f"sentinel-2-{level.lower()}")
    radiometry = sensor.radiometry(baseline)
    return ProductMetadata(
        path="/".join(parts[: position + 1]),
        product_uri=parts[position],
        level=level,
        processing_baseline=baseline,
        quantification=sensor.quantification,
        offsets=dict.fromkeys(sensor.band_names, radiometry.offset * sensor.quantification),
        nodata=0,
        saturated=sensor.saturated,
        sensing_time=datetime.fromisoformat(f"{time}+00:00"),
    )
