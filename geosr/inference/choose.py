"""Which model fits a scene."""

import logging
from math import log2
from os import PathLike, fspath

from geosr.errors import ModelError
from geosr.io.raster import Scene, resolution_m
from geosr.models import ModelSpec, find_weights, shipped_models

log = logging.getLogger(__name__)


def fitting_models(scene: Scene) -> list[ModelSpec]:
    """The shipped models whose bands the scene has, the best fit first.

    The nearest ground sampling distance fits best; among equals the larger scale.
    """
    pixel = resolution_m(scene.geobox)

    def misfit(spec: ModelSpec) -> tuple[float, int]:
        distance = abs(log2(pixel / spec.gsd)) if pixel and spec.gsd else 0.0
        return round(distance, 1), -spec.scale

    specs = [weights.spec for weights in shipped_models()]
    return sorted((spec for spec in specs if set(spec.bands) <= set(scene.bands)), key=misfit)


def choose_model(scene: Scene, wanted: str | PathLike[str] | None = None) -> str:
    """Name or path of the model to use: the one that is wanted, else the shipped one that fits best.

    Raises:
        ModelError: The scene lacks bands that the model, or every shipped model, needs.
    """
    if wanted is not None:
        spec = find_weights(fspath(wanted)).spec
        missing = [band for band in spec.bands if band not in scene.bands]
        if missing:
            raise ModelError(_lacking(scene, f"model {spec.name!r} needs {' '.join(spec.bands)}"))
        name = fspath(wanted)
    else:
        fitting = fitting_models(scene)
        if not fitting:
            needs = "\n".join(f"  {w.spec.name}: {' '.join(w.spec.bands)}" for w in shipped_models())
            raise ModelError(_lacking(scene, f"no shipped model fits; they need\n{needs}"))
        spec, name = fitting[0], fitting[0].name
    pixel = resolution_m(scene.geobox)
    if pixel and spec.gsd and abs(log2(pixel / spec.gsd)) > 1.1:
        log.warning("%s has pixels of %.3g m; model %s was made for %.3g m", scene.name, pixel, spec.name, spec.gsd)
    return name


def _lacking(scene: Scene, needs: str) -> str:
    has = f"{scene.name} has {len(scene.bands)} bands"
    if scene.named:
        return f"{has} ({' '.join(scene.bands)}); {needs}"
    return f"{has} without names; {needs}\nName its bands in file order with --bands, such as --bands B02,B03,B04,B08"
