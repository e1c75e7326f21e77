"""Expected errors of a model, measured on scenes that it did not learn from, and put into its weights file."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from geosr.errors import GridError, ModelError, OutputError
from geosr.grid import TilePlan, scaled
from geosr.inference.fill import fill_invalid
from geosr.inference.superresolver import SuperResolver
from geosr.io.inputs import open_input
from geosr.io.scene import Scene
from geosr.models import find_weights, load_model
from geosr.models.calibration import (
    NOTHING,
    WINDOW,
    Calibration,
    Reliability,
    Tally,
    added,
    local_rms,
    reliability,
    simulated,
)
from geosr.models.noise import TakesNoise
from geosr.models.weights import WeightsFile, require_safetensors, save_facts

log = logging.getLogger(__name__)

CORE = 256
"""LR pixels along one side of what is worked on at once."""
BORDER = 8
"""HR pixels that are left out along edges and around invalid pixels, where LR was made of what is not there."""
EDGE = 4
"""LR pixels around what is worked on that LR, made of a part of the scene, may be another in."""
THIN = 4
"""When a calibration is checked, one row in so many is looked at, and one column: neighbours say the same."""


@dataclass(frozen=True)
class Calibrated:
    """What was measured."""

    weights: WeightsFile
    """The file that was written."""
    calibration: Calibration
    checks: dict[str, dict[str, Reliability]]
    """Of each scene that was checked, and each band, what was expected and what was."""


def calibrate(
    model: str | Path,
    scenes: Sequence[str | Path],
    out: str | Path,
    *,
    check: Sequence[str | Path] = (),
    claims: Mapping[str, Any] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    trust: str | Sequence[str] = (),
) -> Calibrated:
    """Write the weights of a model with the expected absolute errors (reflectance) that it makes on these scenes.

    LR is made of each scene by the model's degradation, and SR of that is compared with the scene; see
    `geosr.models.calibration.Calibration`.

    Args:
        model: What `geosr.models.find_weights` takes; its weights are in a .safetensors file.
        scenes: HR scenes that it did not learn from, and that did not choose it.
        out: The weights file to write.
        check: Further scenes, on which expected errors are compared with those that occur.
        claims: Further arguments of `geosr.io.inputs.open_input`, for all scenes.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        overwrite: Replace an existing file.
        trust: As for `geosr.load_model`.

    Raises:
        OutputError: The file exists, or cannot be written.
        ModelError: The model says how sure it is by its samples, has a guide, or is in another kind of file.
        GeosrError: A scene cannot be read, or lacks a band.
    """
    target = Path(out)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; give --overwrite to replace it, or another --out")
    if target.suffix != ".safetensors" or not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written; give a name that ends in .safetensors, in a folder that exists")
    weights = find_weights(model)
    require_safetensors(weights)
    resolver = SuperResolver(load_model(weights, trust=trust), device=device, precision="fp32")
    if isinstance(resolver.model.network, TakesNoise):
        raise ModelError(f"model {weights.spec.name!r} takes noise: geosr predict --confidence gives its spread")
    if weights.spec.guide:
        raise ModelError(f"model {weights.spec.name!r} has a guide, and errors of such models are not calibrated yet")
    tallies = {band: Tally() for band in weights.spec.bands}
    names = []
    for path in scenes:
        with open_input(path, wanted=weights.spec.bands, **(claims or {})) as scene:
            names.append(scene.name)
            for part in _parts(resolver, scene):
                for tally, (detail, error) in zip(tallies.values(), part, strict=True):
                    tally.add(detail, error)
            log.info("%s is measured", scene.name)
    curves = {band: tally.curve() for band, tally in tallies.items()}
    pixels = next(iter(tallies.values())).pixels
    calibration = Calibration(window=WINDOW, bands=curves, scenes=tuple(names), pixels=pixels)
    checks = {}
    for path in check:
        with open_input(path, wanted=weights.spec.bands, **(claims or {})) as scene:
            checks[scene.name] = _check(resolver, scene, calibration)
    written = save_facts(weights, replace(weights.spec, calibration=calibration.to_dict()), target)
    return Calibrated(written, calibration, checks)


def _check(resolver: SuperResolver, scene: Scene, calibration: Calibration) -> dict[str, Reliability]:
    """Of each band, the errors that were expected in a scene and those that occur."""
    parts = list(_parts(resolver, scene, step=THIN))
    if not parts:
        raise ModelError(NOTHING)
    checked = {}
    for place, (band, curve) in enumerate(calibration.bands.items()):
        details, errors = (np.concatenate([part[place][one] for part in parts]) for one in (0, 1))
        checked[band] = reliability(curve.at(details), errors)
    return checked


def _parts(
    resolver: SuperResolver, scene: Scene, *, step: int = 1
) -> Iterator[list[tuple[NDArray[np.float64], NDArray[np.float32]]]]:
    """Part after part of a scene, of each band the detail and the absolute error of its valid pixels, reflectance."""
    spec = resolver.spec
    height, width = (side // spec.scale for side in scene.geobox.shape)
    if min(height, width) == 0:
        raise GridError(f"{scene.name} is smaller than one pixel of the {spec.scale} times coarser grid")
    halo = max(resolver.halo, -(-BORDER // spec.scale)) + EDGE
    for tile in TilePlan((height, width), CORE, halo, spec.multiple_of):
        raster = scene.read(scaled(tile.read, spec.scale), spec.bands)
        clear = minimum_filter(raster.valid, 2 * BORDER + 1, mode="constant", cval=False)
        rows, columns = scaled(tile.inner, spec.scale)
        inner = (slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step))
        if not clear[inner].any():
            continue
        hr = fill_invalid(raster.array, raster.valid, distance=2 * BORDER)
        lr = simulated(torch.from_numpy(hr)[None], spec)
        sr = resolver(lr)
        origin = [part.start for part in tile.read]
        resolver.require_finite(sr[0].numpy(), lr[0].numpy(), np.ones(lr.shape[2:], bool), origin=origin)
        error = np.abs(sr[0].numpy() - hr)
        yield [
            (local_rms(detail)[inner][clear[inner]], wrong[inner][clear[inner]])
            for detail, wrong in zip(added(sr, lr)[0], error, strict=True)
        ]
