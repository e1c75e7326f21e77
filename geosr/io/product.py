"""Sentinel-2 products in SAFE format: their granules, and the images and masks of each."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from geosr.errors import InputError
from geosr.io.archive import archive_of, names_in
from geosr.io.masks import MaskFile, classification_masks
from geosr.io.safe import IMAGE_FOLDER, PRODUCT_XML
from geosr.sensors import get_sensor

DEFAULT_BANDS = ("B02", "B03", "B04", "B08")
"""What a product is opened with where nobody says more: the bands of 10 m."""

BAND_FILE = re.compile(r"(?:^|.*[_.-])(B\d[\dA]|SCL)(?:[_-](\d+)m)?\.(?:jp2|tiff?)", re.IGNORECASE)
"""The name of an image of one band: ``T33UUB_20170527T102031_B04_10m.jp2``; band and resolution are its groups."""

_OLD_SCL = re.compile(r"S2\w_USER_SCL_L2A_.*_(\d+)m\.jp2", re.IGNORECASE)  # Sen2Cor before 2.4
_MASK_FILE = re.compile(
    r"(?:.*_)?MSK_(CLOUDS|SATURA|DEFECT|CLASSI|QUALIT)_(?:.*_)?(B\d[\dA])(?:_MSIL1C)?\.(?:gml|jp2|tiff?)", re.IGNORECASE
)

_OPAQUE, _CIRRUS, _SNOW = 0, 1, 2  # bands of MSK_CLASSI, counted from 0
_DEFECTIVE, _SATURATED = 4, 7  # bands of MSK_QUALIT, counted from 0: QT_DEFECTIVE_PIXELS, QT_SATURATED_PIXELS


@dataclass(frozen=True)
class Granule:
    """One tile of a product, or one scene of a folder: the images of its bands, and its masks."""

    name: str
    images: Mapping[tuple[str, int], str]
    """Paths by band and resolution in metres; the resolution is 0 where nothing tells it."""
    quality: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    """Mask files by kind and band, such as ``CLOUDS`` and ``B00``."""

    def select(self, bands: Sequence[str] | None, resolution: int | None, *, ask: bool = False) -> tuple[str, ...]:
        """The images of some bands on one grid: at the finest resolution that they share, unless one is given.

        Args:
            bands: Canonical names, in the order wanted; None: those of 10 m, and at another resolution all.
            resolution: Metres; None: the finest.
            ask: Whether several resolutions are an error where none is given.

        Raises:
            InputError: There are no such images.
        """
        held = sorted({r for band, r in self.images if band != "SCL"})
        chosen = [resolution] if resolution is not None else held
        if resolution is not None and resolution not in held:
            raise InputError(f"{self.name} holds no images at {resolution} m ({self._told()})")
        if bands is None and (resolution in (None, 10)):
            bands = DEFAULT_BANDS
        if bands is None:
            order = get_sensor("sentinel-2-l2a").band_names
            return tuple(self.images[band, chosen[0]] for band in order if (band, chosen[0]) in self.images)
        complete = [r for r in chosen if all((band, r) in self.images for band in bands)]
        if not complete:
            at = "one resolution" if resolution is None else f"{resolution} m"
            raise InputError(
                f"{self.name} holds no images of {' '.join(bands)} at {at} ({self._told()}); choose other --bands or "
                "another --resolution"
            )
        if ask and len(complete) > 1:
            told = ", ".join(f"{r} m" for r in complete)
            raise InputError(f"{self.name} holds {' '.join(bands)} at {told}; choose one with --resolution")
        return tuple(self.images[band, complete[0]] for band in bands)

    def _told(self) -> str:
        """What images there are."""
        by_resolution: dict[int, list[str]] = {}
        for band, resolution in sorted(self.images):
            by_resolution.setdefault(resolution, []).append(band)
        return "; ".join(
            (f"{resolution} m: " if resolution else "") + " ".join(bands)
            for resolution, bands in sorted(by_resolution.items())
        )

    @property
    def classes(self) -> str | None:
        """The scene classification at its finest resolution, where there is one."""
        return next((path for (band, _), path in sorted(self.images.items()) if band == "SCL"), None)

    def masks(self, bands: Sequence[str]) -> dict[str, tuple[MaskFile, ...]]:
        """The masks that the granule has, by kind; for ``defects`` those of some bands.

        References:
            Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), masks of Level-1C: GML before processing
            baseline 04.00; since then ``MSK_CLASSI`` with the bands opaque clouds, cirrus, snow, and ``MSK_QUALIT``
            with ANC_LOST, ANC_DEG, MSI_LOST, MSI_DEG, defective, no data, partially corrected, saturated.
        """
        if self.classes:
            return classification_masks(self.classes)
        found: dict[str, tuple[MaskFile, ...]] = {}
        if path := self.quality.get(("CLASSI", "B00")):
            found["clouds"] = (MaskFile(path, bands=(_OPAQUE, _CIRRUS)),)
            found["snow"] = (MaskFile(path, bands=(_SNOW,)),)
        elif path := self.quality.get(("CLOUDS", "B00")):
            found["clouds"] = (MaskFile(path),)
        if all(("QUALIT", band) in self.quality for band in bands):
            found["defects"] = tuple(
                MaskFile(self.quality["QUALIT", band], bands=(_DEFECTIVE, _SATURATED)) for band in bands
            )
        elif all((kind, band) in self.quality for band in bands for kind in ("DEFECT", "SATURA")):
            found["defects"] = tuple(
                MaskFile(self.quality[kind, band]) for band in bands for kind in ("DEFECT", "SATURA")
            )
        return found


@dataclass(frozen=True)
class Product:
    """A Sentinel-2 product on disk or in a local zip file."""

    path: str
    name: str
    granules: tuple[Granule, ...]
    """In order of their names; one since the end of 2016."""


def is_product(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder on disk is a Sentinel-2 product, renamed or not."""
    return Path(folder).suffix.upper() == ".SAFE" or any(
        PRODUCT_XML.fullmatch(path.name) for path in Path(folder).iterdir()
    )


def products_at(path: str) -> tuple[Product, ...]:
    """The products that a path means: a product, the zip file of one, or a folder or metadata file in one.

    A path into a granule means this granule alone. An image is no product, nor is a folder of products: nothing.

    Raises:
        InputError: A zip file is not to be trusted; or a product holds no images.
    """
    path = path.rstrip("/") or path
    if re.search(r"\.zip$", path, re.IGNORECASE) and os.path.isfile(path):
        path = f"/vsizip/{path}"  # an absolute path needs its second slash: /vsizip//data/x.zip
    if archive := archive_of(path):
        top = path[: len(path) - len(archive[1])].rstrip("/")
        names = names_in(archive[0])
        inside = archive[1]
        if inside in names and not _is_metadata(inside):
            return ()
        roots = sorted({folder for folder, name in map(_cut, names) if PRODUCT_XML.fullmatch(name)})
        roots = [root for root in roots if _within(inside, root) or _within(root, inside)]
        return tuple(
            _product(
                f"{top}/{root}".rstrip("/"), [f"{top}/{name}" for name in names if _within(name, root)], within=path
            )
            for root in roots
        )
    if not os.path.exists(path) or (os.path.isfile(path) and not _is_metadata(path)):
        return ()
    here = Path(path)
    candidates = [here, *(here.parents if "GRANULE" in here.parts else [here.parent] if here.is_file() else [])]
    for folder in candidates:
        if folder.is_dir() and is_product(folder):
            files = sorted(file.as_posix() for file in folder.rglob("*") if file.is_file())
            return (_product(folder.as_posix(), files, within=here.as_posix()),)
    return ()


def _cut(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _within(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def _is_metadata(path: str) -> bool:
    name = _cut(path)[1]
    return bool(PRODUCT_XML.fullmatch(name)) or name.lower() in ("manifest.safe", "mtd_tl.xml", "inspire.xml")


def _product(product: str, files: Sequence[str], *, within: str) -> Product:
    """A product of which these are the files, as far as its granules hold or lie in a path.

    References:
        Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD): image files are ``*_B02.jp2`` in Level-1C and
        ``R10m/*_B02_10m.jp2`` in Level-2A products.
    """
    images: dict[str, dict[tuple[str, int], str]] = {}
    quality: dict[str, dict[tuple[str, str], str]] = {}
    # A copy as GeoTIFF beside an image is a derived file; it counts where the image itself is not there.
    for path in sorted(files, key=lambda path: not path.lower().endswith(".jp2")):
        folder, name = _cut(path)
        if granule := IMAGE_FOLDER.fullmatch(folder):
            if match := BAND_FILE.fullmatch(name):
                band, resolution = match[1].upper(), int(match[2] or 0)
            elif match := _OLD_SCL.fullmatch(name):
                band, resolution = "SCL", int(match[1])
            else:
                continue
            if "/IMG_DATA/" in f"{within}/" and band != "SCL" and not _within(path, within):
                continue
            key = band, resolution or _nominal(band)
            images.setdefault(granule[1], {}).setdefault(key, path)
        elif folder.endswith("/QI_DATA") and (match := _MASK_FILE.fullmatch(name)):
            quality.setdefault(_cut(folder)[0], {})[match[1].upper(), match[2].upper()] = path
    title = _cut(product)[1] or product
    if not images:
        raise InputError(f"{title} holds no images (GRANULE/*/IMG_DATA/*.jp2); download the whole product")
    parts = [granule for granule in sorted(images) if _within(within, granule)] or sorted(images)
    granules = tuple(
        Granule(
            title if len(images) == 1 else f"{title}/{_cut(granule)[1]}",
            MappingProxyType(images[granule]),
            MappingProxyType(quality.get(granule, {})),
        )
        for granule in parts
    )
    return Product(product, title, granules)


def _nominal(band: str) -> int:
    """The resolution that a band is delivered at in Level-1C, metres."""
    gsd = None if band == "SCL" else get_sensor("sentinel-2-l1c").band(band).gsd
    return int(gsd or 0)
