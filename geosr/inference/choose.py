"""Which model fits a scene."""

import logging
from math import log2
from os import PathLike, fspath
from typing import Protocol

from odc.geo.geobox import GeoBox

from geosr.errors import ModelError
from geosr.inference.superresolver import SuperResolver
from geosr.io.scene import resolution_m
from geosr.models import WeightsFile, find_weights, shipped_models

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


def fitting_models(scene: Image) -> list[WeightsFile]:
    """The shipped models whose bands the scene has, the best fit first.

    The nearest ground sampling distance fits best; among equals the larger scale.
    """
    pixel = resolution_m(scene.geobox)

    def misfit(weights: WeightsFile) -> tuple[float, int]:
        spec = weights.spec
        distance = abs(log2(pixel / spec.gsd)) if pixel and spec.gsd else 0.0
        return round(distance, 1), -spec.scale

    return sorted((w for w in shipped_models() if set(w.spec.bands) <= set(scene.bands)), key=misfit)


def bands_of(model: str | PathLike[str] | SuperResolver | None) -> tuple[str, ...] | None:
    """The bands that a model takes, from the header of its file; None where no model is named.

    Raises:
        ModelError: There is no such model.
    """
    if model is None:
        return None
    return (model if isinstance(model, SuperResolver) else find_weights(fspath(model))).spec.bands


def choose_model(scene: Image, wanted: str | PathLike[str] | None = None) -> WeightsFile:
    """The model to use: the one that is wanted, else the shipped one that fits best.

    Raises:
        ModelError: The scene lacks bands that the model, or every shipped model, needs.
    """
    if wanted is not None:
        weights = find_weights(fspath(wanted))
        if not set(weights.spec.bands) <= set(scene.bands):
            raise ModelError(_lacking(scene, f"model {weights.spec.name!r} needs {' '.join(weights.spec.bands)}"))
    else:
        fitting = fitting_models(scene)
        if not fitting:
            needs = "".join(f"\n  {w.spec.name}: {' '.join(w.spec.bands)}" for w in shipped_models())
            raise ModelError(_lacking(scene, f"no shipped model fits; they need{needs}"))
        weights = fitting[0]
    pixel, gsd = resolution_m(scene.geobox), weights.spec.gsd
    if pixel and gsd and abs(log2(pixel / gsd)) > 1.1:
        log.warning("%s has pixels of %.3g m; model %s was made for %.3g m", scene.name, pixel, weights.spec.name, gsd)
    return weights


def _lacking(scene: Image, needs: str) -> str:
    has = f"{scene.name} has {len(scene.bands)} bands"
    if scene.named:
        return f"{has} ({' '.join(scene.bands)}); {needs}"
    return f"{has} without names; {needs}\nName its bands in order: {scene.naming}"
