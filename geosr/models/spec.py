"""What a model says about itself; stored in the header of its weights file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from geosr.config.names import VARIANTS
from geosr.errors import ModelError

METADATA = "geosr"
"""Key of the specification in the metadata of a file."""


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
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "guide", tuple(self.guide))
        if self.scale < 1 or not self.bands:
            raise ModelError(
                f"model {self.name!r} has scale {self.scale} and bands {self.bands}; it needs a scale >= 1 and a band"
            )
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
        if self.tiling not in ("exact", "approximate"):
            raise ModelError(
                f"model {self.name!r} declares tiling {self.tiling!r}; allowed are 'exact' and 'approximate'"
            )
        if self.variant not in VARIANTS:
            raise ModelError(f"model {self.name!r} is of variant {self.variant!r}; allowed are {' '.join(VARIANTS)}")

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
    def from_dict(cls, values: dict[str, Any]) -> "ModelSpec":
        """The specification that ``to_dict`` wrote; keys of a newer geosr are an error, not a silence."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ModelError(
                f"the weights say {', '.join(unknown)}, which this geosr does not know; a newer geosr wrote them"
            )
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
        try:
            return cls.from_dict(json.loads(metadata[METADATA]))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} has a damaged geosr specification in its header: {error}") from error
