"""What a training store is to hold: every source at every resolution, on grids that fit together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from odc.geo.geobox import GeoBox
from odc.geo.geom import box

from geosr.data.coarsen import as_fraction, coarser
from geosr.data.sources import Skipped, Source
from geosr.data.splits import BlockSplit
from geosr.errors import GeosrError, GridError, InputError, UsageError
from geosr.footprint import is_box
from geosr.grid import Window, pair_grids, window_of_bounds
from geosr.io.claims import Claims
from geosr.io.masks import CLASSES, RasterMask
from geosr.io.scene import open_files
from geosr.radiometry import Radiometry


@dataclass(frozen=True)
class Image:
    """One image of a scene, on its way into the store."""

    files: tuple[str, ...]
    names: tuple[str, ...] | None
    encoding: Claims
    window: Window
    """Pixels of the source that are used."""
    exclude: tuple[Window, ...]
    """Pixels of the source that count as invalid."""
    geobox: GeoBox
    """The grid in the store."""
    radiometry: Radiometry


@dataclass(frozen=True)
class Part:
    """One scene of the store: a source at one resolution."""

    name: str
    slug: str
    source: Source
    factor: Fraction
    """Resolution over that of the source."""
    images: dict[str, Image]
    """By role, ``hr`` and ``lr``."""

    @property
    def pixels(self) -> int:
        """HR pixels."""
        height, width = self.images["hr"].geobox.shape
        return height * width


@dataclass(frozen=True)
class Options:
    """Everything that a store depends on, besides its sources."""

    bands: tuple[str, ...]
    patch: int
    stride: int
    scales: tuple[float, ...]
    min_valid: float
    max_cloud: float | None
    cloud_mask: str | None
    bbox: tuple[float, ...] | None
    suffixes: tuple[str, ...]
    split: BlockSplit

    def __post_init__(self) -> None:
        if not self.bands:
            raise UsageError("no band was given; --bands names those that the store holds, such as B02,B03,B04,B08")
        if self.patch < 2 or self.stride < 1:
            raise UsageError(f"patch {self.patch} must be at least 2 pixels and stride {self.stride} at least 1")
        if not 0 <= self.min_valid <= 1:
            raise UsageError(f"min_valid {self.min_valid:g} is not a share from 0 to 1")
        if self.max_cloud is not None and not 0 <= self.max_cloud <= 100:
            raise UsageError(f"max_cloud {self.max_cloud:g} is not a percentage from 0 to 100")
        if (area := self.bbox) is not None and not is_box(area):
            raise UsageError(f"--bbox {' '.join(map(str, area))} is not west south east north in degrees")

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))

    def mask_file(self, source: Source) -> str | None:
        """The file that tells the clouds of a scene, where clouds matter."""
        return self.cloud_mask or (None if self.max_cloud is None else source.classes)

    def mask(self, source: Source) -> RasterMask | None:
        """The clouds of a scene, where clouds matter."""
        path = self.mask_file(source)
        return None if path is None else RasterMask(path, classes=None if self.cloud_mask else CLASSES["clouds"])


def plan(
    sources: Sequence[Source], options: Options, scale: int | None
) -> tuple[list[Part], list[Skipped], int | None]:
    """The scenes of the store, what is not used and why, and the scale of its pairs; no pixel is read.

    Args:
        sources: The scenes that the user named.
        options: What is to be made of them.
        scale: HR pixels along the side of an LR pixel, where pairs must have this one.

    Raises:
        GeosrError: A scene that the user named itself cannot be used, or the scenes do not fit into one store.
    """
    factors = [as_fraction(factor) for factor in dict.fromkeys(options.scales)]
    parts: list[Part] = []
    skipped: list[Skipped] = []
    slugs: set[str] = set()
    ratios: dict[int | None, str] = {}
    unmasked = []
    for source in sources:
        try:
            images, ratio = _images(source, options)
            _require_patch(source.files.name, images["hr"].geobox, options, ratio)
        except GeosrError as error:
            if source.asked:
                raise
            skipped.append(Skipped(source.files.name, str(error).splitlines()[0]))
            continue
        ratios.setdefault(ratio, source.files.name)
        mask = options.mask(source)
        if mask is not None:
            with closing(mask):
                mask.read(
                    images["hr"].geobox, (slice(0, 1), slice(0, images["hr"].geobox.shape[1]))
                )  # fails, where it does, before any work
        elif options.max_cloud is not None:
            unmasked.append(source.files.name)
        for factor in factors:
            name = source.files.name if factor == 1 else f"{source.files.name}@{float(factor):g}"
            resampled = {role: _coarser(image, factor, ratio, role) for role, image in images.items()}
            try:
                _require_patch(name, resampled["hr"].geobox, options, ratio)
            except GridError as error:
                skipped.append(Skipped(name, str(error)))
                continue
            slug = _slug(name, slugs)
            slugs.add(slug.lower())
            parts.append(Part(name, slug, source, factor, resampled))
    if unmasked:
        raise InputError(
            f"--max-cloud needs to know the clouds of {len(unmasked)} scenes ({', '.join(unmasked[:5])}"
            f"{' ...' if len(unmasked) > 5 else ''}); lay NAME_SCL.tif beside each, give --cloud-mask FILE, or leave "
            "--max-cloud out"
        )
    if not parts:
        raise InputError(
            f"nothing that was named can be used; of {len(skipped)} skipped, the first is "
            f"{skipped[0].name}: {skipped[0].reason}"
            if skipped
            else "nothing that was named can be used"
        )
    if len(ratios) > 1:
        told = ", ".join(f"{name} {f'is x{ratio}' if ratio else 'has no LR image'}" for ratio, name in ratios.items())
        raise GridError(f"a store holds pairs of one scale, or no pairs ({told}); make a store of each")
    (ratio,) = ratios
    if scale is not None and ratio != scale:
        raise GridError(f"scale {scale} was asked for and the pairs have {ratio or 'no LR images'}")
    return parts, skipped, ratio


def _images(source: Source, options: Options) -> tuple[dict[str, Image], int | None]:
    """The images of a source at its own resolution, and the scale of a pair."""
    files = source.files
    with open_files(files.hr, source.encoding, bands=source.names) as hr:
        hr.select(options.bands)
        radiometry, geobox = hr.band_radiometry(options.bands), hr.geobox
    window = files.window or (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
    if options.bbox is not None:
        window = _both(window, window_of_bounds(geobox, box(*options.bbox, crs="EPSG:4326")), files.name)
    if not files.lr:
        image = Image(files.hr, source.names, source.encoding, window, files.exclude, geobox[window], radiometry)
        return {"hr": image}, None
    with open_files(files.lr, source.encoding) as lr:
        lr.select(options.bands)
        low, coarse = lr.band_radiometry(options.bands), lr.geobox
    grids = pair_grids(geobox, coarse, hr_name=files.hr[0], lr_name=files.lr[0])
    shifts = [fine.start - grids.scale * rough.start for fine, rough in zip(grids.hr, grids.lr, strict=True)]
    # Whole LR pixels that lie inside the HR window, and their HR pixels.
    rows, columns = (
        slice(
            max(-((shift - part.start) // grids.scale), rough.start),
            min((part.stop - shift) // grids.scale, rough.stop),
        )
        for part, shift, rough in zip(window, shifts, grids.lr, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise GridError(f"the part of {files.name} that is used holds no whole LR pixel")
    down, across = (
        slice(part.start * grids.scale + shift, part.stop * grids.scale + shift)
        for part, shift in zip((rows, columns), shifts, strict=True)
    )
    touched = []
    for one in files.exclude:
        top, left = (
            slice((part.start - shift) // grids.scale, -((shift - part.stop) // grids.scale))
            for part, shift in zip(one, shifts, strict=True)
        )
        touched.append((top, left))
    return {
        "hr": Image(
            files.hr, source.names, source.encoding, (down, across), files.exclude, geobox[down, across], radiometry
        ),
        "lr": Image(files.lr, None, source.encoding, (rows, columns), tuple(touched), coarse[rows, columns], low),
    }, grids.scale


def _both(first: Window, second: Window, name: str) -> Window:
    """The part that two windows share."""
    rows, columns = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise GridError(f"the area lies outside the part of {name} that is used")
    return rows, columns


def _coarser(image: Image, factor: Fraction, ratio: int | None, role: str) -> Image:
    """The image at a lower resolution; of a pair both keep the same outline."""
    if factor == 1:
        return image
    if ratio is None or role == "lr":
        return replace(image, geobox=coarser(image.geobox, factor))
    height, width = (int(length // ratio * factor) * ratio for length in image.geobox.shape)
    return replace(image, geobox=coarser(image.geobox, factor)[:height, :width])


def _require_patch(name: str, geobox: GeoBox, options: Options, ratio: int | None) -> None:
    """Raise unless a patch fits into the scene, and whole LR pixels into a patch."""
    if ratio is not None and (options.patch % ratio or options.stride % ratio):
        raise UsageError(f"patch {options.patch} and stride {options.stride} must be multiples of the scale {ratio}")
    if min(geobox.shape) < options.patch:
        raise GridError(
            f"{name} has {geobox.shape[0]} x {geobox.shape[1]} pixels, less than a patch of {options.patch} x "
            f"{options.patch}; lower --patch"
        )


def _slug(name: str, taken: set[str]) -> str:
    """The name of a scene's group, unlike those in `taken`: letters, digits, ``-``, ``_`` and ``.``, as Zarr wants."""
    plain = re.sub(r"\.(tiff?|jp2|vrt|img|zarr|SAFE|zip)(?=$|[@/-])", "", name, flags=re.IGNORECASE)
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain.replace("@", "-at-")).strip("-_.") or "scene"
    slug, count = plain, 1
    while slug.lower() in taken:  # file systems may not tell case apart
        count += 1
        slug = f"{plain}-{count}"
    return slug
