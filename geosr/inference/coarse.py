"""Bands that were sampled coarser than the scene's pixels: which models take them, and whether they are unspoilt."""

import numpy as np
from numpy.typing import NDArray

from geosr.errors import GridError, ModelError
from geosr.io.scene import Scene
from geosr.models import ModelSpec


def require_sampling(scene: Scene, spec: ModelSpec) -> None:
    """Fail where a scene repeats pixels of a band that the model takes for sampled on the grid, or by another factor.

    Raises:
        ModelError: It does.
    """
    steps = {band: scene.steps[place] for band, place in zip(spec.bands, scene.select(spec.bands), strict=True)}
    for band, step in steps.items():
        allowed = spec.guide_scale if band in spec.outputs else 1
        if step not in (1, allowed):
            finer = [name for name, held in zip(scene.bands, scene.steps, strict=True) if held == 1]
            raise ModelError(
                f"{scene.name} holds {band} in pixels {step} times as large as {' '.join(finer)}, and model "
                f"{spec.name!r} takes it {f'{allowed} times as large' if allowed > 1 else 'as fine'}; give the files "
                "of one resolution, or another model (geosr models)"
            )


def require_blocks(lr: NDArray[np.float32], valid: NDArray[np.bool_], spec: ModelSpec) -> None:
    """Fail unless the bands that are guided hold one value in each valid block, as repeated pixels do.

    Args:
        lr: Reflectance (band, y, x) of the model's bands, from the first row and column of a block on.
        valid: Mask (y, x).
        spec: The model.

    Raises:
        GridError: They do not: they were interpolated, or the image begins inside a block.
    """
    if not spec.guide:
        return
    side = spec.guide_scale
    height, width = (length // side * side for length in valid.shape)
    parts = [(slice(down, height, side), slice(right, width, side)) for down in range(side) for right in range(side)]
    first = lr[len(spec.guide) :, *parts[0]]
    whole = np.logical_and.reduce([valid[part] for part in parts])
    differs = np.zeros(first.shape, bool)
    for part in parts[1:]:
        differs |= lr[len(spec.guide) :, *part] != first
    spoilt = (differs & whole).any(axis=(1, 2))
    if spoilt.any():
        told = " ".join(band for band, wrong in zip(spec.outputs, spoilt, strict=True) if wrong)
        raise GridError(
            f"{told} should hold pixels that are repeated {side} x {side} times, from the first row and column on; "
            f"model {spec.name!r} sharpens what was measured, and they were interpolated, or cut inside a pixel. Give "
            "the files of both resolutions (geosr predict scene_10m.tif scene_20m.tif), or repeat the coarse bands "
            "(nearest) on a grid that begins where a pixel of theirs does"
        )
