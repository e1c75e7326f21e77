"""xarray objects, super-resolved, and what there is to say of them."""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from geosr.errors import GeosrError, UsageError
from geosr.grid import finer, resolution_m
from geosr.inference.arrays import Encoding, superresolve_array
from geosr.inference.choose import choose_model, fitting_models, refuse_variant, require_factor, told
from geosr.inference.job import provenance, spread_radiometry
from geosr.inference.resident import keep, locate
from geosr.inference.superresolver import SuperResolver
from geosr.radiometry import Radiometry

if TYPE_CHECKING:
    import xarray as xr

    from geosr.io.xarray import Cube
    from geosr.io.xarray_units import Units

log = logging.getLogger(__name__)


def superresolve_cube(
    cube: Cube,
    model: str | PathLike[str] | SuperResolver | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    ensemble: int | None = None,
    seed: int | None = None,
    tta: bool = False,
    confidence: bool = False,
    variant: str | None = None,
    factor: int | None = None,
    trust: str | Sequence[str] = (),
) -> xr.DataArray | xr.Dataset:
    """The xarray object with the model's bands on the finer grid, in the units and the encoding of the input.

    Its attributes name the model and its hash, as the tags of a file do.

    Args:
        cube: The object.
        model: A name that `load_model` takes, or a loaded model; None chooses the shipped one that fits.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        batch_size: Tiles that the network takes at once, inside a chunk; 1 if left out.
        ensemble: Members of the ensemble of a model that takes noise.
        seed: The first member.
        tta: Mean of the eight orientations.
        confidence: Further bands that say how sure the model is.
        variant: Which of the shipped models that fit: ``standard``, ``fast`` or ``detail``.
        factor: How many times finer the shipped one is to make the bands.
        trust: Modules whose code may run for a model of a class of one's own, as for `geosr.load_model`.

    Raises:
        GeosrError: See its children; the message says what to do.
    """
    refuse_variant(model, variant)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size={batch_size} must be at least 1")
    if isinstance(model, SuperResolver):
        require_factor(model.spec, factor)
        chosen, key = cube.select(model.spec.bands), keep(model)
        units, geobox = chosen.units, chosen.geobox
        chosen.require_plausible()
    else:
        weights = choose_model(cube, model, variant=variant, factor=factor)
        chosen = cube.select(weights.spec.bands)
        units, geobox = chosen.units, chosen.geobox  # fails, where it does, before the weights are loaded
        chosen.require_plausible()
        name = weights.spec.name if model is None else model
        key = locate(name, device=device, precision=precision, trust=trust)
    if geobox.crs is None:
        log.warning("%s has no coordinate reference system; its output will have none", cube.name)
    resolver = key.load()
    spec = resolver.spec
    if left_out := [band for place, band in enumerate(cube.bands) if place not in cube.places(spec.bands)]:
        log.info("model %s has no %s: left out of the output", spec.name, " ".join(left_out))
    if spec.tiling == "approximate":
        log.info("model %s looks farther than a tile: tiles are approximate, and blended where they overlap", spec.name)
    answer = resolver.answer(samples=ensemble, seed=seed, tta=tta, confidence=confidence)
    outputs = cube.places(spec.outputs)
    made = cube.select([cube.bands[place] for place in sorted(outputs)])
    further = len(answer.suffixes) > 1
    if further:
        made.require_stackable()
    bands = _marking(units)
    runs = [bands, _spread(bands, units.state)] if further else [bands]
    if further and made.stacked and units.state != "decoded":
        # One array has one scale and one offset, and a spread or an error has others: both are reflectance then.
        runs = [_Words(None, Radiometry(1.0, nodata=float("nan"), dtype="float32"), None)] * 2
    encoding = Encoding(
        units.values,
        tuple(run.values for run in runs),
        tuple(run.stored for run in runs),
        chosen.plausibility,
    )
    sr = superresolve_array(
        chosen.pixels(),
        key,
        encoding,
        answer=answer,
        planes=answer.planes(outputs),
        flips=resolver.flips(geobox),
        batch_size=batch_size or 1,
    )
    rebuilt = made.rebuilt(
        sr,
        finer(geobox, spec.scale),
        suffixes=answer.suffixes,
        words=[run.words for run in runs],
    )
    return rebuilt.assign_attrs(provenance(resolver, answer))


@dataclass(frozen=True)
class _Words:
    """How a run of bands is encoded, and the words of CF for it."""

    words: Mapping[str, Any] | None
    values: Radiometry
    stored: Radiometry | None


def _marking(units: Units) -> _Words:
    """How the bands are encoded: as they came, with a nodata where integers can be invalid and had none."""
    bands = _Words(units.words, units.values, units.stored)
    if units.words is None:
        return bands
    if units.state == "raw" and units.values.saturated is not None and units.values.nodata is None:
        values = units.values.with_nodata()
        return replace(bands, words={**units.words, "_FillValue": values.nodata}, values=values)
    if units.state == "decoded" and units.stored is not None and units.stored.nodata is None:
        stored = units.stored.with_nodata()  # NaN has no place in it otherwise
        return replace(bands, words={**units.words, "_FillValue": stored.nodata}, stored=stored)
    return bands


def _spread(bands: _Words, state: str) -> _Words:
    """How the spreads or errors of these bands are encoded."""
    if state == "decoded":
        if bands.stored is None:
            return bands
        stored = spread_radiometry(bands.stored)
        return replace(bands, words={**(bands.words or {}), "add_offset": stored.offset}, stored=stored)
    taken = bands.stored is not None and bands.stored.nodata == 0
    offset = -bands.values.scale if taken else spread_radiometry(bands.values).offset
    values = replace(bands.values, offset=offset)
    return replace(bands, words={**(bands.words or {}), "add_offset": offset}, values=values)


@dataclass(frozen=True)
class Info:
    """What is known of an xarray object, for people: it shows itself as text, and as a table in a notebook."""

    name: str
    facts: Mapping[str, str]

    def __repr__(self) -> str:
        width = max(map(len, self.facts))
        return "\n".join([self.name, *(f"  {fact:<{width}}  {value}" for fact, value in self.facts.items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(fact)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for fact, value in self.facts.items()
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"


def info_of(cube: Cube) -> Info:
    """What the object says of itself, what it leaves open, and which shipped models fit; nothing lazy is computed."""
    facts = {"bands": " ".join(cube.bands) + ("" if cube.named else " (only counted)")}
    shown = cube.known
    try:
        geobox = shown.geobox
        pixel = resolution_m(geobox)
        facts |= {
            "size": f"{geobox.shape[1]} x {geobox.shape[0]}",
            "crs": "none" if geobox.crs is None else f"EPSG:{geobox.crs.epsg}" if geobox.crs.epsg else str(geobox.crs),
            "pixel": "-" if pixel is None else f"{pixel:.6g} m",
            "bounds": " ".join(f"{edge:.10g}" for edge in geobox.boundingbox),
            "models": " ".join(map(told, fitting_models(shown))) or "none",
        }
    except GeosrError as error:
        facts["grid"] = str(error)
    facts |= {"dims": ", ".join(f"{dim} {size}" for dim, size in cube.obj.sizes.items())}
    facts |= {"values": f"{shown.dtype}, {'yet to be computed' if shown.lazy else 'in memory'}"}
    try:
        units = shown.units
        encoded = units.values if units.state != "decoded" or units.stored is None else units.stored
        done = {"raw": "digital numbers", "masked": "digital numbers, NaN where invalid", "decoded": "reflectance"}
        facts["units"] = "reflectance, if their median is near 1" if units.assumed else done[units.state]
        facts |= {fact: f"{getattr(encoded, fact)} ({units.said[fact]})" for fact in ("scale", "offset", "nodata")}
        shown.require_plausible()
    except GeosrError as error:
        facts["units"] = str(error)
    return Info(cube.name, facts)
