"""Entrants: models in groups that see the same LR image, each beside the baselines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from geosr.errors import ModelError, UsageError
from geosr.evaluation.cases import Case
from geosr.evaluation.methods import BACK_PROJECTION, BICUBIC, FileMethod, Method, ModelMethod, baselines
from geosr.evaluation.pairs import Pair
from geosr.grid import BLOCK
from geosr.inference.superresolver import SuperResolver, load_model
from geosr.models.noise import TakesNoise

BORDER = 8
"""HR pixels at each edge that do not count: they are extrapolated rather than resolved."""
MTF = 0.3
"""Contrast at LR's Nyquist frequency where no model says another."""


@dataclass(frozen=True)
class Entrants:
    """Methods that see the same LR image."""

    models: tuple[ModelMethod, ...]
    mtf: float
    bands: tuple[str, ...] | None = None
    """None: whatever the files have."""
    scale: int | None = None
    tile: int = BLOCK
    """SR pixels along a side of the tiles of finished images."""

    def methods(self, pair: Pair) -> list[Method]:
        """The baselines, then the models, or the finished image."""
        found: list[Method] = list(baselines(pair.bands, pair.scale, self.mtf))
        if self.models:
            return [*found, *self.models]
        return [*found, FileMethod("SR", self.tile)]

    def border(self, pair: Pair, wanted: int | Literal["halo"]) -> int:
        """HR pixels to leave out at each edge: so many, or as far as a model looks beyond it, at least `BORDER`."""
        if wanted != "halo":
            return wanted
        return max([BORDER, *(method.resolver.halo * pair.scale for method in self.models)])


def entrants_of(
    cases: Sequence[Case],
    models: Sequence[str | os.PathLike[str] | SuperResolver],
    *,
    mtf: float | None,
    samples: int | None,
    tta: bool,
    tile: int,
    device: str,
    precision: str,
    trust: str | Sequence[str] = (),
) -> list[Entrants]:
    """Models in groups that see the same LR.

    Raises:
        UsageError: There are models beside finished images, or neither.
        ModelError: A model does not exist.
    """
    finished = [case.name for case in cases if case.sr]
    if finished and (models or len(finished) < len(cases)):
        raise UsageError(f"{finished[0]} is a finished image; evaluate those alone, and models on HR scenes or pairs")
    if finished:
        return [Entrants((), MTF if mtf is None else mtf, tile=tile)]
    if not models:
        raise UsageError("no model is given: name one or more with --model, such as --model s2-rgbn-x2")
    groups: dict[tuple[tuple[str, ...], int, float], list[ModelMethod]] = {}
    for method in _methods(models, samples=samples, tta=tta, device=device, precision=precision, trust=trust):
        spec = method.resolver.spec
        own = MTF if spec.consistency_mtf is None else spec.consistency_mtf
        groups.setdefault((spec.bands, spec.scale, own if mtf is None else mtf), []).append(method)
    return [Entrants(tuple(methods), contrast, names, factor) for (names, factor, contrast), methods in groups.items()]


def _methods(
    models: Sequence[str | os.PathLike[str] | SuperResolver],
    *,
    samples: int | None,
    tta: bool,
    device: str,
    precision: str,
    trust: str | Sequence[str],
) -> Iterator[ModelMethod]:
    """The models by name, each with a name of its own."""
    seen = {BICUBIC: 1, BACK_PROJECTION: 1}
    noisy = 0
    for one in models:
        resolver = (
            one
            if isinstance(one, SuperResolver)
            else load_model(os.fspath(one), device=device, precision=precision, trust=trust)
        )
        if resolver.spec.outputs != resolver.spec.bands:
            raise ModelError(
                f"model {resolver.spec.name!r} sharpens {' '.join(resolver.spec.outputs)} with finer bands beside "
                "them, of which no LR image is made here; evaluate its product: --sr sr.tif --lr lr.tif"
            )
        takes_noise = isinstance(resolver.model.network, TakesNoise)
        noisy += takes_noise
        answer = resolver.answer(
            samples=samples if takes_noise else None,
            tta=tta and not takes_noise,
            confidence=resolver.spec.calibration is not None and not takes_noise,
        )
        seen[resolver.spec.name] = seen.get(resolver.spec.name, 0) + 1
        count = seen[resolver.spec.name]
        yield ModelMethod(resolver.spec.name if count == 1 else f"{resolver.spec.name}-{count}", resolver, answer)
    if samples is not None and not noisy:
        raise UsageError(f"--samples {samples} is for models that take noise, and none of these does; leave it out")


def facts_of(entrants: Sequence[Entrants]) -> dict[str, dict[str, Any]]:
    """What readers need to know of each model to find it again."""
    return {
        method.name: {
            "sha256": method.resolver.weights_hash,
            "scale": method.resolver.spec.scale,
            "bands": list(method.resolver.spec.bands),
            "halo": method.resolver.halo,
            "device": str(method.resolver.device),
            "precision": method.resolver.precision,
            "samples": len(method.answer.seeds),
            "tta": method.answer.tta,
        }
        for group in entrants
        for method in group.models
    }
