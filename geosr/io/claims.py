"""Claims: what a user says of an encoding, for what a file or an array does not say itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from geosr.errors import RadiometryError, UsageError
from geosr.io.source import Said, StoredBand
from geosr.radiometry import Radiometry, representable
from geosr.sensors import get_sensor

BRIGHT = 2.0
"""Reflectance stays near 1 even over snow and glint: a larger median is percent or digital numbers stored as float."""


class Encoded(Protocol):
    """A band of which something is known."""

    @property
    def scale(self) -> Said | None: ...  # noqa: D102
    @property
    def offset(self) -> Said | None: ...  # noqa: D102
    @property
    def nodata(self) -> Said | None: ...  # noqa: D102
    @property
    def saturated(self) -> Said | None: ...  # noqa: D102


@dataclass(frozen=True)
class Claims:
    """What the user says about the encoding: it fills silence, and overrules nothing.

    Raises:
        UsageError: A baseline came without its sensor.
    """

    scale: float | None = None
    """Reflectance per digital number."""
    offset: float | None = None
    """Reflectance at digital number 0."""
    nodata: float | None = None
    """The digital number of an invalid pixel."""
    sensor: str | None = None
    """A sensor whose product specification says all three."""
    baseline: str | None = None
    """Processing baseline, for Sentinel-2."""
    form: Literal["flag", "argument"] = "flag"
    """How messages write them: ``--scale 1e-4`` or ``scale=1e-4``."""
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Who says one of the first three, where it is not the user: ``("offset", "STAC item S2B_33UXP")``."""
    places: tuple[int, ...] | None = field(default=None, compare=False)
    """Positions of the bands in their file that `sources` speak for; None: all."""

    def __post_init__(self) -> None:
        if self.baseline is not None and self.sensor is None:
            raise UsageError(
                f"{self._write('baseline', self.baseline)} says nothing without {self._word('sensor')} "
                "(sentinel-2-l2a or sentinel-2-l1c)"
            )

    @property
    def stated(self) -> frozenset[str]:
        """The facts that the user states, whoever else does."""
        others = dict(self.sources)
        facts = ("scale", "offset", "nodata", "sensor")
        return frozenset(fact for fact in facts if getattr(self, fact) is not None and fact not in others)

    def explain(self, band: StoredBand, *, name: str, place: int = 0) -> StoredBand:
        """The band with everything that is known of it, once the user has been heard.

        Args:
            band: What files and metadata say of it.
            name: What messages call the data.
            place: Position of the band in its file.

        Raises:
            RadiometryError: The user contradicts them.
        """
        encoded = self._radiometry(silent=band.scale is None)
        others = dict(self.sources) if self.places is not None and place not in self.places else {}
        claimed = {fact: None if fact in others else getattr(self, fact) for fact in ("scale", "offset", "nodata")}
        marker = claimed["nodata"]
        if marker is not None and "nodata" in dict(self.sources) and not representable(marker, band.dtype):
            claimed["nodata"] = None  # an item's marker that the type cannot hold marks nothing, as a file's
        known: dict[str, Said | None] = {
            fact: self._agree(name, fact, getattr(band, fact), claim(claimed[fact], self._source(fact)))
            for fact in ("scale", "offset", "nodata")
        }
        known["saturated"] = band.saturated
        if encoded is not None:
            for fact in ("scale", "offset"):
                says = claim(getattr(encoded, fact), self._source("sensor"))
                known[fact] = self._agree(name, fact, known[fact], says)
            for fact in ("nodata", "saturated"):
                known[fact] = known[fact] or claim(getattr(encoded, fact), self._source("sensor"))
        saturated = known["saturated"]
        if saturated is not None and not representable(saturated.value, band.dtype):
            known["saturated"] = None
        return replace(band, **known)  # type: ignore[arg-type]

    def silence(self, name: str, dtype: str, observed: str, *, nodata: Said | None) -> str:
        """The message for data that nobody explained.

        Args:
            name: What the data are called.
            dtype: The numpy name of their type.
            observed: What was seen of them.
            nodata: What is known of invalid pixels.
        """
        none = {"nodata": "0"} if nodata is None or nodata.value == 0 else {}
        lines = {
            "Sentinel-2 L2A, processing baseline 04.00 or later:": {"scale": "1e-4", "offset": "-0.1", **none},
            "Sentinel-2 before baseline 04.00, or *_HARMONIZED:": {"scale": "1e-4", **none},
            "values that are reflectance already:": {"scale": "1"},
        }
        if dtype == "uint8":
            lines["8-bit imagery with 255 = 100 %:"] = {"scale": f"{1 / 255:.15g}"}
        elif np.dtype(dtype).kind == "f":
            lines["percent:"] = {"scale": "0.01"}
        between = " " if self.form == "flag" else ", "
        told = "".join(
            f"\n  {meaning:<52} {between.join(self._write(*one) for one in says.items())}"
            for meaning, says in lines.items()
        )
        return f"{name} holds {dtype} {observed} and says nothing about their unit.{told}"

    def _radiometry(self, *, silent: bool) -> Radiometry | None:
        """What the sensor says; a baseline is only asked for where the data need one."""
        if self.sensor is None:
            return None
        sensor = get_sensor(self.sensor)
        needed = sensor.offset_since is None or self.baseline is not None or (silent and self.scale is None)
        return sensor.radiometry(self.baseline) if needed else None

    def _agree(self, name: str, fact: str, trusted: Said | None, says: Said | None) -> Said | None:
        """What is known after a less trusted claim, which fills silence but overrules nothing."""
        if trusted is None or says is None:
            return trusted or says
        same = math.isclose(trusted.value, says.value, rel_tol=1e-6) or (
            math.isnan(trusted.value) and math.isnan(says.value)
        )
        if not same:
            remedy = {
                "flag": "correct a wrongly tagged file: gdal_edit.py -scale S -offset O -a_nodata N FILE",
                "argument": "correct the attributes that say otherwise",
            }
            drop = "correct the item" if says.source == dict(self.sources).get(fact) else f"drop the {self.form}"
            raise RadiometryError(
                f"{name} has {fact} {trusted.value:g} ({trusted.source}) and {says.source} says {says.value:g}; "
                f"{drop}, or {remedy[self.form]}"
            )
        return trusted

    def _source(self, fact: str) -> str:
        if source := dict(self.sources).get(fact):
            return source
        baseline = f" {self._write('baseline', self.baseline)}" if fact == "sensor" and self.baseline else ""
        value = f" {self.sensor}" if fact == "sensor" and self.form == "flag" else ""
        value = repr(self.sensor) if fact == "sensor" and self.form == "argument" else value
        return f"{self.form} {self._word(fact)}{value}{baseline}"

    def _word(self, fact: str) -> str:
        return f"--{fact}" if self.form == "flag" else f"{fact}="

    def _write(self, fact: str, value: Any) -> str:
        return f"--{fact} {value}" if self.form == "flag" else f"{fact}={value}"


def claim(value: float | None, source: str) -> Said | None:
    """A value and who said it, if anyone did."""
    return None if value is None else Said(value, source)


def who_says(facts: Iterable[Said | None]) -> str:
    """The distinct sources of a fact, in words."""
    return ", ".join(dict.fromkeys("nothing says it" if fact is None else fact.source for fact in facts))


def shared_encoding(bands: Sequence[Encoded], *, name: str, names: Sequence[str] = ()) -> dict[str, float | None]:
    """Scale, offset, nodata and saturated value that all bands share.

    Args:
        bands: The bands.
        name: What messages call the data.
        names: The names of the bands, for messages; none leaves them out.

    Raises:
        RadiometryError: They differ.
    """
    values: dict[str, float | None] = {}
    for fact in ("scale", "offset", "nodata", "saturated"):
        said = [getattr(band, fact) for band in bands]
        numbers = {f"{one.value:.9g}" if one else "none": one.value if one else None for one in said}
        if len(numbers) > 1:
            which = zip(names, said, strict=True) if names else ()
            held = "".join(f"\n  {band}: {f'{one.value:.9g} ({one.source})' if one else 'none'}" for band, one in which)
            raise RadiometryError(
                f"{name} has bands with different {fact} ({', '.join(numbers)}); choose bands that share one{held}"
            )
        (values[fact],) = numbers.values()
    return values
