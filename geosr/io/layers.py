"""Layers: the bands of a scene, with what files, products and users say of their names and digital numbers."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from geosr.errors import BandError
from geosr.io.claims import Claims, claim
from geosr.io.source import Said, Source
from geosr.sensors import QUALITY_SUFFIXES, canonical_band, canonical_name, spelt_band

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """One band of a scene: where it is stored and what is known of its encoding."""

    path: str
    index: int
    """Position in the file or store, counted from 0."""
    description: str | None
    in_file_name: str | None
    scale: Said | None
    offset: Said | None
    nodata: Said | None
    saturated: Said | None


def layers_of(path: str, source: Source, *, claims: Claims) -> list[Layer]:
    """The bands of one file with everything that product, file and user say about them."""
    in_file_name = band_in_file_name(source.name) if len(source.bands) == 1 else None
    product, contradicted = source.product, False
    layers = []
    for index, stored in enumerate(source.bands):
        scale, offset, nodata, saturated = stored.scale, stored.offset, stored.nodata, stored.saturated
        band = canonical_name(stored.description or "") or in_file_name
        if product is not None and band is not None and band in product.offsets:
            said = f"product metadata {basename(product.path)}, baseline {product.processing_baseline}"
            told = product.radiometry([band])
            if scale and offset and not np.allclose((scale.value, offset.value), (told.scale, told.offset)):
                if not contradicted:
                    tags = f"scale {scale.value:g}, offset {offset.value:g}"
                    logger.warning("%s: its own tags (%s) count, not %s", source.name, tags, said)
                contradicted = True
            else:
                scale, offset = Said(told.scale, said), Said(told.offset, said)
                nodata, saturated = nodata or claim(told.nodata, said), claim(told.saturated, said)

        known = claims.explain(
            replace(stored, scale=scale, offset=offset, nodata=nodata, saturated=saturated),
            name=source.name,
            place=index,
        )
        facts = (known.scale, known.offset, known.nodata, known.saturated)
        layers.append(Layer(path, index, stored.description, in_file_name, *facts))
    return layers


def band_names(
    layers: Sequence[Layer], *, given: Sequence[str] | None, name: str
) -> tuple[tuple[str, ...], str | None]:
    """Names of all bands, and who gave them; None where they are only counted."""
    counted = tuple(f"band{position}" for position in range(1, len(layers) + 1))
    if given is not None:
        if len(given) != len(layers):
            raise BandError(f"--bands names {len(given)} bands ({' '.join(given)}) and {name} has {len(layers)}")
        names = tuple(canonical_name(band) or band for band in given)
        for ours, layer in zip(names, layers, strict=True):
            theirs = canonical_name(layer.description or "") or layer.in_file_name
            if theirs not in (None, ours):
                logger.warning("%s: flag --bands calls %s what the file calls %s", name, ours, theirs)
        return names, "flag --bands"
    descriptions = [layer.description or "" for layer in layers]
    # "Band 1", "Band 2" ... only count: in a file of blue, green, red and near infrared, Band 1 is not B01.
    if all(re.fullmatch(rf"([Bb]and|b)[ _]?0*{n}", text) for n, text in enumerate(descriptions, start=1)):
        return counted, None
    names = tuple(
        canonical_name(layer.description or "") or layer.in_file_name or layer.description or number
        for layer, number in zip(layers, counted, strict=True)
    )
    if names == counted:
        return counted, None
    return names, "band descriptions" if all(descriptions) else "file names" if not any(descriptions) else "the files"


def band_labels(layers: Sequence[Layer], names: Sequence[str], *, given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of bands as the user, the descriptions or the file names spell them: what a result calls its bands.

    Args:
        layers: The bands.
        names: What `band_names` made of them.
        given: Names that the user gave.
    """
    if given is not None:
        return tuple(map(spelt_band, given))
    spelt = ([layer.description or "", _word_of_band(layer.path) or ""] for layer in layers)
    return tuple(
        next((spelt_band(one) for one in spellings if name in (one, canonical_name(one))), name)
        for spellings, name in zip(spelt, names, strict=True)
    )


def band_in_file_name(path: str) -> str | None:
    """The Sentinel-2 band that a file name ends in: ``T33UUB_20170527_B04_10m.jp2``, ``B4.tif``, ``red.tif``."""
    word = _word_of_band(path)
    return None if word is None else canonical_name(word)


def _word_of_band(path: str) -> str | None:
    """The word in a file name that is the name of a band, ``red_error`` of ``T33UUB_red_error.tif``."""
    stem = basename(path).rpartition(".")[0]
    if re.match(r"L[COTEM]0\d_|HLS\.L30", stem):  # Landsat's B5 is near infrared, Sentinel-2's is red edge
        return None
    suffix = next((suffix for suffix in QUALITY_SUFFIXES if stem.endswith(suffix)), "")
    words = re.split(r"[_.\-\s]+", stem.removesuffix(suffix))
    word = next(filter(canonical_band, reversed(words)), None)
    return None if word is None else word + suffix


def basename(path: str) -> str:
    """The last part of a path or an address."""
    return re.split(r"[/\\]", path)[-1]
