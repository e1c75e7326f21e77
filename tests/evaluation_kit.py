"""Scenes for tests of evaluation: HR files, and the LR images that a sensor would have seen of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from affine import Affine

from geosr.degrade import PSF, degrade
from geosr.inference import SuperResolver
from geosr.models import Model, ModelSpec

BANDS = ("B02", "B03", "B04", "B08")
FINE = Affine(10, 0, 400_000, 0, -10, 5_000_000)


def textured(height: int = 64, width: int = 64, *, seed: int = 0, bands: int = 4) -> np.ndarray:
    """DN of a scene with edges and texture of all sizes, uint16 (band, y, x)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    fields = 0.1 + 0.2 * ((rows // 9 + columns // 13) % 3)
    scene = [fields * (0.5 + 0.3 * band) + 0.02 * generator.standard_normal((height, width)) for band in range(bands)]
    return (np.clip(scene, 0.01, 1) * 1e4).astype(np.uint16)


def hr_file(make_raster: Callable[..., Path], array: np.ndarray | None = None, **options: object) -> Path:
    """An HR scene that says what it is."""
    given = {"name": "hr.tif", "nodata": 0, "scale": 1e-4, "offset": 0.0, "descriptions": BANDS, "transform": FINE}
    return make_raster(textured() if array is None else array, **(given | options))


def lr_of(hr: np.ndarray, scale: int = 2) -> np.ndarray:
    """DN of the LR image of DN."""
    return degrade(torch.from_numpy(hr.astype(np.float32))[None], PSF(scale))[0].round().numpy().astype(np.uint16)


def lr_file(make_raster: Callable[..., Path], hr: np.ndarray, *, scale: int = 2, **options: object) -> Path:
    """The LR image of an HR scene as a file of its own."""
    transform = FINE * Affine.scale(scale)
    return hr_file(make_raster, lr_of(hr, scale), **({"name": "lr.tif", "transform": transform} | options))


def small_resolver(scale: int = 2, *, name: str = "small", **options: object) -> SuperResolver:
    """A small model with its consistency layer, whose weights say nothing."""
    torch.manual_seed(0)
    given = {"architecture": "compact", "arguments": {"channels": 4, "blocks": 1}} | options
    return SuperResolver(Model(ModelSpec(name, scale=scale, bands=BANDS, **given)), device="cpu", precision="fp32")
