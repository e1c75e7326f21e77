"""Which model fits a scene."""

import logging
from collections.abc import Sequence
from math import log2
from os import PathLike, fspath
from typing import Protocol

from odc.geo.geobox import GeoBox

from geosr.config.names import VARIANTS
from geosr.errors import ModelError, UsageError, did_you_mean
from geosr.grid import resolution_m
from geosr.inference.superresolver import SuperResolver
from geosr.models import ModelSpec, WeightsFile, find_weights, shipped_models
from geosr.sensors import canonical_name

log = logging.getLogger(__name__)


class Image(Protocol):
    """What is known of a scene, or of an array in memory."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def geobox(self) -> GeoBox:
        """Its grid."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Its bands."""
        ...

    @property
    def named(self) -> bool:
        """Whether it names its bands itself."""
        ...

    @property
    def naming(self) -> str:
        """How a user names them."""
        ...


def fitting_models(scene: Image, *, variant: str | None = None) -> list[WeightsFile]:
    """The shipped models whose bands the scene has, the best fit first.

    Standard models come before others; the nearest ground sampling distance fits best, and among equals the larger
    scale.

    Args:
        scene: What is known of it.
        variant: ``standard``, ``fast`` or ``detail``; None: all of them.
    """
    pixel = resolution_m(scene.geobox)

    def misfit(weights: WeightsFile) -> tuple[bool, float, int]:
        spec = weights.spec
        distance = abs(log2(pixel / spec.gsd)) if pixel and spec.gsd else 0.0
        return spec.variant != "standard", round(distance, 1), -spec.scale

    shipped = (w for w in shipped_models() if variant in (None, w.spec.variant))
    return sorted((w for w in shipped if has_bands(scene, w.spec.bands)), key=misfit)


def has_bands(scene: Image, bands: Sequence[str]) -> bool:
    """Whether a scene has all of these bands, by whatever names."""
    return {canonical_name(band) or band for band in bands} <= set(scene.bands)


def told(weights: WeightsFile) -> str:
    """A model's name, and its variant where that is not the standard one."""
    name, variant = weights.spec.name, weights.spec.variant
    return name if variant == "standard" else f"{name} ({variant})"


def refuse_variant(model: object, variant: str | None) -> None:
    """Fail where a variant is asked for that there is not, or of a model that is named.

    Raises:
        UsageError: It is.
    """
    if variant is None:
        return
    if variant not in VARIANTS:
        raise UsageError(f"variant {variant!r} is unknown ({' '.join(VARIANTS)})" + did_you_mean(variant, VARIANTS))
    if model is not None:
        raise UsageError(f"the {variant} variant is chosen among the shipped models; leave it out, or the model")


def bands_of(model: str | PathLike[str] | SuperResolver | None) -> tuple[str, ...] | None:
    """The bands that a model takes, from the header of its file; None where no model is named.

    Raises:
        ModelError: There is no such model.
    """
    spec = _spec_of(model)
    return None if spec is None else spec.bands


def guide_of(model: str | PathLike[str] | SuperResolver | None) -> tuple[str, ...]:
    """Those of them that guide the others, and are finer; none where no model is named.

    Raises:
        ModelError: There is no such model.
    """
    spec = _spec_of(model)
    return () if spec is None else spec.guide


def _spec_of(model: str | PathLike[str] | SuperResolver | None) -> ModelSpec | None:
    if model is None:
        return None
    return (model if isinstance(model, SuperResolver) else find_weights(fspath(model))).spec


def require_factor(spec: ModelSpec, factor: int | None) -> None:
    """Fail where a factor is asked for that is not the model's.

    Raises:
        UsageError: It is.
    """
    if factor not in (None, spec.factor):
        raise UsageError(
            f"model {spec.name!r} makes pixels {spec.factor} times finer, and factor={factor} is asked for; leave the "
            "factor out, or the model: the shipped one of that factor is chosen then"
        )


def choose_model(
    scene: Image,
    wanted: str | PathLike[str] | None = None,
    *,
    variant: str | None = None,
    factor: int | None = None,
) -> WeightsFile:
    """The model to use: the one that is wanted, else the shipped one of variant and factor that fits best.

    Args:
        scene: What is known of it.
        wanted: What `geosr.models.find_weights` takes.
        variant: ``standard`` (None), ``fast`` or ``detail``.
        factor: How many times finer the bands are to become; None: any.

    Raises:
        UsageError: The model that is wanted has another factor, or no shipped one that fits has this one.
        ModelError: The scene lacks bands that the model, or every shipped model of the variant, needs.
    """
    if wanted is not None:
        weights = find_weights(fspath(wanted))
        require_factor(weights.spec, factor)
        if not has_bands(scene, weights.spec.bands):
            raise ModelError(_lacking(scene, f"model {weights.spec.name!r} needs {' '.join(weights.spec.bands)}"))
    else:
        fitting = fitting_models(scene, variant=variant or "standard")
        if not fitting:
            which = "" if variant is None else f" of the variant {variant!r}"
            needs = "".join(f"\n  {told(w)}: {' '.join(w.spec.bands)}" for w in shipped_models())
            raise ModelError(
                _lacking(scene, f"no shipped model{which} fits; there are, with the bands they need{needs}")
            )
        weights = _of_factor(scene, fitting, factor, variant=variant)
    pixel, gsd = resolution_m(scene.geobox), weights.spec.gsd
    if pixel and gsd and abs(log2(pixel / gsd)) > 1.1:
        log.warning("%s has pixels of %.3g m; model %s was made for %.3g m", scene.name, pixel, weights.spec.name, gsd)
    return weights


def _of_factor(scene: Image, fitting: Sequence[WeightsFile], factor: int | None, *, variant: str | None) -> WeightsFile:
    """The first of the models that fit, best first, whose factor it is."""
    found = next((weights for weights in fitting if factor in (None, weights.spec.factor)), None)
    if found is None:
        which = "" if variant is None else f" of the variant {variant!r}"
        there = " ".join(map(str, sorted({weights.spec.factor for weights in fitting})))
        raise UsageError(
            f"no shipped model{which} that fits {scene.name} has factor {factor}; there are models of factor {there}"
        )
    return found


def _lacking(scene: Image, needs: str) -> str:
    has = f"{scene.name} has {len(scene.bands)} bands"
    if scene.named:
        return f"{has} ({' '.join(scene.bands)}); {needs}"
    return f"{has} without names; {needs}\nName its bands in order: {scene.naming}"
