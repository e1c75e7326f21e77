"""What a model says about itself; stored in the header of its weights file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import pi
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal

from geosr.config.names import VARIANTS
from geosr.errors import ModelError, printable

METADATA = "geosr"
"""Key of the specification in the metadata of a file."""
LARGEST_METADATA = 8 * 2**20
"""Characters of a specification in a file, at most; those of geosr's models have 13 thousand."""
LARGEST_FACTOR = 64
"""SR pixels per LR pixel along an axis, at most."""
LARGEST_OUTPUT = 16_384
"""Values that come of one LR pixel, at most: bands times the square of the scale."""
_LETTERS = 1000
_BANDS = 1000
_PIXELS = 1024  # of a halo, or the side of a block
_DEEPEST = 32
_VALUES = 500_000


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build, feed and trust a model, except its weights."""

    name: str
    architecture: str
    """Key of ``geosr.models.registry.ARCHITECTURES``, or the ``package.module.Class`` of a network of one's own."""
    scale: int
    """SR pixels per LR pixel, along each axis."""
    bands: tuple[str, ...]
    """Names of the bands in and, but for those of `guide`, out; in order."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture, without ``bands`` and ``scale``: its width, depth, normalisation."""
    gsd: float | None = None
    """Ground sampling distance (m) of the input that the model is meant for."""
    guide: tuple[str, ...] = ()
    """The first of `bands`, where they only show the way to the others: they are finer, and do not come out."""
    guide_scale: int = 1
    """LR pixels along the side of a pixel of the other bands, which come repeated on the grid of the guide.

    The LR pixel is the guide's: with 10 m bands that guide 20 m bands, this is 2 and `scale` 1."""
    consistency_mtf: float | None = 0.3
    """MTF at Nyquist of the point-spread function in the consistency layer; None leaves the layer out."""
    halo: int | None = None
    """LR pixels of context that one output pixel depends on, to each side; found when the model is built."""
    tiling: Literal["exact", "approximate"] = "exact"
    """``exact`` when tiles with the halo give what the whole image gives."""
    multiple_of: int = 1
    """LR pixels along one side of the blocks that the network works on, from the first row and column of its input.

    The input may be of any size. Tiles begin at multiples of this, so that their blocks are those of the scene."""
    variant: Literal["standard", "fast", "detail"] = "standard"
    """What the model is for among those of its bands and resolution: a measurement, large areas, or the eye."""
    licence: str = "Apache-2.0"
    provenance: dict[str, Any] = field(default_factory=dict)
    """How the weights came about: config, training scenes, steps, attribution."""
    quality: dict[str, Any] = field(default_factory=dict)
    """Figures measured on scenes that were not trained on."""
    calibration: dict[str, Any] | None = None
    """Expected errors, measured on held-out scenes: see `geosr.models.calibration.Calibration`."""

    def __post_init__(self) -> None:
        for fact, (holds, allowed) in _FACTS.items():
            value = getattr(self, fact)
            if not holds(value):
                raise ModelError(f"model {shortened(self.name)} has {fact} {shortened(value)}; allowed is {allowed}")
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "guide", tuple(self.guide))
        self._require_sizes()
        for argument in ("mean", "std"):
            values = self.arguments.get(argument)
            if values is not None and not (_is_row(values, len(self.bands), is_number)):
                raise ModelError(
                    f"model {self.name!r} has the {argument} {shortened(values)}; allowed is a finite number for each "
                    f"of its {len(self.bands)} bands"
                )
        if min(self.arguments.get("std") or [1]) <= 0:
            raise ModelError(f"model {self.name!r} has the std {self.arguments['std']}; it divides, and is above 0")

    def _require_sizes(self) -> None:
        """Fail where bands, guide and scales do not go together, or an LR pixel becomes too many values."""
        if self.guide != self.bands[: len(self.guide)] or len(self.guide) == len(self.bands):
            raise ModelError(
                f"model {self.name!r} has guide {' '.join(self.guide)} and bands {' '.join(self.bands)}; the guide is "
                "the first of the bands, and others follow"
            )
        if bool(self.guide) != (self.guide_scale > 1):
            raise ModelError(
                f"model {self.name!r} has guide_scale {self.guide_scale} and {len(self.guide)} bands that guide; "
                "a guide is at least 2 times finer, and without one guide_scale is 1"
            )
        factor = self.scale * self.guide_scale
        if factor > LARGEST_FACTOR or len(self.bands) * factor**2 > LARGEST_OUTPUT:
            raise ModelError(
                f"model {self.name!r} has scale {self.scale}, guide_scale {self.guide_scale} and {len(self.bands)} "
                f"bands; the scales' product is at most {LARGEST_FACTOR}, and its square times the bands at most "
                f"{LARGEST_OUTPUT:,}"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the bands that come out, in order."""
        return self.bands[len(self.guide) :]

    @property
    def factor(self) -> int:
        """How many times finer the bands that come out are than they were sampled, along each axis."""
        return self.scale * self.guide_scale

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON-ready values."""
        return asdict(self) | {"bands": list(self.bands), "guide": list(self.guide)}

    @classmethod
    def from_dict(cls, values: Any) -> "ModelSpec":
        """The specification that ``to_dict`` wrote; keys of a newer geosr are an error, not a silence.

        Raises:
            ModelError: It is damaged, or of a newer geosr.
        """
        if not _is_table(values):
            raise ModelError(f"damaged geosr specification: {shortened(values)}; it is a table of plain values")
        known = {fact.name for fact in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"the weights say {printable(', '.join(unknown[:5]))[:200]}, which this geosr does not know; a newer "
                "geosr wrote them"
            )
        if missing := [fact for fact in ("name", "architecture", "scale", "bands") if fact not in values]:
            raise ModelError(f"damaged geosr specification: it lacks {' '.join(missing)}")
        return cls(**values)

    def to_metadata(self) -> dict[str, str]:
        """The specification as the metadata of a file holds it, in JSON."""
        return {METADATA: json.dumps(self.to_dict(), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> "ModelSpec":
        """The specification in the metadata of ``path``, which has one.

        Raises:
            ModelError: It is damaged, or of a newer geosr.
        """
        text = metadata[METADATA]
        if len(text) > LARGEST_METADATA:
            raise ModelError(f"{path} has a geosr specification of {len(text):,} characters, more than any model has")
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} has a damaged geosr specification in its header: {error}") from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


def _is_word(value: object) -> bool:
    """Whether a value is text for one line of a terminal."""
    return isinstance(value, str) and 0 < len(value) <= _LETTERS and value == printable(value) and "\n" not in value


def is_whole(value: object, lowest: int, highest: int) -> bool:
    """Whether a value is a whole number in a range."""
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def is_number(value: object) -> bool:
    """Whether a value is a number that float32 has."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -3e38 < value < 3e38


def _is_row(value: object, length: int, holds: Callable[[object], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == length and all(map(holds, value))


def _are_names(value: object) -> bool:
    """Whether a value is a list of different names."""
    if not isinstance(value, list | tuple) or len(value) > _BANDS or not all(map(_is_word, value)):
        return False
    return len(set(value)) == len(value)


def _is_table(value: object) -> bool:
    """Whether a value is a table by name of what JSON has, of a depth and number of values that something can have."""
    if not isinstance(value, Mapping):
        return False
    waiting: list[tuple[object, int]] = [(value, 0)]
    count = 0
    while waiting:
        item, depth = waiting.pop()
        inner: Sequence[object] = ()
        if isinstance(item, Mapping):
            if not all(isinstance(name, str) for name in item):
                return False
            inner = list(item.values())
        elif isinstance(item, list | tuple):
            inner = item
        elif not isinstance(item, str | int | float | None):
            return False
        count += len(inner)
        if (inner and depth == _DEEPEST) or count > _VALUES:
            return False
        waiting += [(each, depth + 1) for each in inner]
    return True


_TABLE = (_is_table, f"a table of plain values, nested at most {_DEEPEST} deep")
_FACTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_word, f"text of 1 to {_LETTERS} letters, without control characters"),
    "architecture": (_is_word, f"text of 1 to {_LETTERS} letters, without control characters"),
    "scale": (lambda it: is_whole(it, 1, LARGEST_FACTOR), f"a whole number from 1 to {LARGEST_FACTOR}"),
    "bands": (lambda it: _are_names(it) and len(it) > 0, f"1 to {_BANDS} names, each of them once"),
    "arguments": _TABLE,
    "gsd": (lambda it: it is None or (is_number(it) and it > 0), "a number of metres above 0, or null"),
    "guide": (_are_names, "names, each of them once"),
    "guide_scale": (lambda it: is_whole(it, 1, LARGEST_FACTOR), f"a whole number from 1 to {LARGEST_FACTOR}"),
    "consistency_mtf": (
        lambda it: it is None or (is_number(it) and 1e-6 <= it < 2 / pi),
        "a contrast from 1e-6 to below 2/pi = 0.637, or null",
    ),
    "halo": (lambda it: it is None or is_whole(it, 0, _PIXELS), f"a whole number up to {_PIXELS}, or null"),
    "tiling": (lambda it: it in ("exact", "approximate"), "'exact' and 'approximate'"),
    "multiple_of": (lambda it: is_whole(it, 1, _PIXELS), f"a whole number from 1 to {_PIXELS}"),
    "variant": (lambda it: isinstance(it, str) and it in VARIANTS, " ".join(VARIANTS)),
    "licence": (_is_word, f"text of 1 to {_LETTERS} letters, without control characters"),
    "provenance": _TABLE,
    "quality": _TABLE,
    "calibration": (lambda it: it is None or _is_table(it), f"{_TABLE[1]}, or null"),
}
"""Of each fact, what its values are."""
