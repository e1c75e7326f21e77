"""What an evaluation found: a row for each scene, method and class, and tables that mix only what belongs together."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosr import __version__
from geosr.evaluation.figures import ALL, Figures
from geosr.evaluation.intervals import Interval, over_patches, over_scenes
from geosr.evaluation.methods import BICUBIC
from geosr.evaluation.parts import FREQUENCIES, Patches, Samples
from geosr.evaluation.pictures import Pictures
from geosr.files import write


@dataclass(frozen=True)
class Setting:
    """What scenes must have in common to be averaged."""

    scale: int
    """HR pixels per LR pixel."""
    bands: tuple[str, ...]
    units: str
    """What the values are: reflectance, or something else that is never averaged with it."""
    mtf: float
    """Of the sensor that LR was made by, or that SR is compared with LR by."""
    lr: str
    """Where LR comes from: ``degraded`` from HR, or ``given``."""

    def __str__(self) -> str:
        made = f"LR made from HR with MTF {self.mtf:g}" if self.lr == "degraded" else "LR as given"
        return f"x{self.scale}, {' '.join(self.bands)}, {self.units}, {made}"


@dataclass(frozen=True)
class Row:
    """Figures of one method on one scene, or on one class of it."""

    scene: str
    method: str
    klass: str
    """Land cover class; empty for all pixels."""
    setting: Setting
    pixel_m: float | None
    """Side of an HR pixel in metres."""
    figures: Figures


@dataclass(frozen=True)
class SceneResult:
    """Everything that was measured of one scene in one setting."""

    scene: str
    setting: Setting
    pixel_m: float | None
    figures: Mapping[str, Mapping[str, Figures]]
    """By method and class."""
    spectra: Mapping[str, NDArray[np.float64]]
    patches: Patches
    samples: Mapping[str, Samples] = field(default_factory=dict)
    """Of the methods that say what error they expect."""
    pictures: Pictures | None = None

    def rows(self) -> Iterator[Row]:
        """One for each method and class."""
        for method, classes in self.figures.items():
            for klass, figures in classes.items():
                yield Row(self.scene, method, klass, self.setting, self.pixel_m, figures)


@dataclass(frozen=True)
class Table:
    """The scenes of one setting, and their means."""

    setting: Setting
    results: tuple[SceneResult, ...]

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes."""
        return tuple(result.scene for result in self.results)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, the baselines first."""
        return tuple(dict.fromkeys(method for result in self.results for method in result.figures))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the land cover classes."""
        found = {klass for result in self.results for classes in result.figures.values() for klass in classes}
        return tuple(sorted(found - {ALL}, key=lambda name: (not name.isdigit(), name.zfill(9))))

    def summary(self, klass: str = ALL) -> dict[str, dict[str, Interval]]:
        """Means over the scenes by method and figure, with 95 % intervals; of one scene over its patches."""
        found: dict[str, dict[str, Interval]] = {}
        for method in self.methods:
            had = [result.figures[method][klass] for result in self.results if klass in result.figures.get(method, ())]
            names = dict.fromkeys(name for figures in had for name in figures)
            found[method] = {
                name: self._interval(name, [figures.get(name, math.nan) for figures in had], method, klass)
                for name in names
            }
        return found

    def _interval(self, name: str, values: Sequence[float], method: str, klass: str) -> Interval:
        if len(self.results) == 1 and klass == ALL and not math.isnan(values[0]):
            return over_patches(name, values[0], self.results[0].patches, method, BICUBIC)
        return over_scenes(values)

    def spectra(self) -> dict[str, NDArray[np.float64]]:
        """Power in dB at `FREQUENCIES` by method and of HR, a mean over scenes."""
        names = dict.fromkeys(name for result in self.results for name in result.spectra)
        found = {}
        for name in names:
            known = [result.spectra[name] for result in self.results if name in result.spectra]
            known = [one for one in known if not np.isnan(one).any()]
            if known:
                found[name] = np.mean(known, axis=0)
        return found


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    results: tuple[SceneResult, ...]
    border: Mapping[str, int]
    """HR pixels that were left out at each edge of a scene, by setting."""
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Facts of each model: hash, bands, scale."""
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """One for each scene, method and class."""
        return tuple(row for result in self.results for row in result.rows())

    @property
    def tables(self) -> tuple[Table, ...]:
        """One for each setting: scenes of different units, scales or bands are not averaged."""
        by_setting: dict[Setting, list[SceneResult]] = {}
        for result in self.results:
            by_setting.setdefault(result.setting, []).append(result)
        return tuple(Table(setting, tuple(results)) for setting, results in by_setting.items())

    def records(self) -> list[dict[str, Any]]:
        """The rows as flat mappings of one set of keys, as `pandas.DataFrame` or `csv.DictWriter` takes them."""
        names = dict.fromkeys(name for row in self.rows for name in row.figures)
        return [
            {
                "scene": row.scene,
                "method": row.method,
                "class": row.klass,
                "scale": row.setting.scale,
                "bands": " ".join(row.setting.bands),
                "units": row.setting.units,
                "mtf": row.setting.mtf,
                "lr": row.setting.lr,
                "pixel_m": row.pixel_m,
                **{name: row.figures.get(name, math.nan) for name in names},
            }
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: what is not a number is null."""
        tables = [
            {
                "setting": asdict(table.setting) | {"bands": list(table.setting.bands)},
                "scenes": list(table.scenes),
                "border": self.border[str(table.setting)],
                "summary": _summary(table, ALL),
                "classes": {klass: _summary(table, klass) for klass in table.classes},
                "spectra": {
                    "frequency": FREQUENCIES.tolist(),
                    "decibels": {name: values.tolist() for name, values in table.spectra().items()},
                },
            }
            for table in self.tables
        ]
        told = {
            "geosr": __version__,
            "models": {name: dict(facts) for name, facts in self.models.items()},
            "notes": list(self.notes),
            "tables": tables,
            "rows": self.records(),
        }
        return _finite(told)  # type: ignore[no-any-return]

    def write_metrics(self, folder: Path) -> list[Path]:
        """Write ``metrics.json`` and ``metrics.csv``, and return their paths."""
        as_json, as_csv = folder / "metrics.json", folder / "metrics.csv"
        write(as_json, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        records = self.records()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in record.items()} for record in records)
        write(as_csv, text.getvalue())
        return [as_json, as_csv]


def _summary(table: Table, klass: str) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        method: {name: asdict(interval) for name, interval in figures.items()}
        for method, figures in table.summary(klass).items()
    }


def _finite(value: Any) -> Any:
    """The value without numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: Any) -> Any:
    """A value as a table of text has it: nothing where there is none."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
