"""The 20 m bands of held-out scenes as the truth, and what they and the 10 m bands are from twice as far (Wald)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import geosr
from benchmarks import quality
from benchmarks.quality import DATA, MTF, Figures, HeldOut, Pair, figures
from geosr.data.datamodule import whole_scene
from geosr.degrade import PSF, degrade
from geosr.degrade.masks import coarse_valid
from geosr.degrade.resample import bicubic
from geosr.models import Model, WeightsFile, shipped_models
from geosr.models.guided import repeated

NAME = "s2-20m-x2"
FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
TWO_GRIDS = ("s2/germany_fields", *(f"s2/{path.name[:-8]}" for path in sorted(DATA.glob("s2/bigearthnet_*_20m.tif"))))
"""Scenes whose files end in ``_10m.tif`` and ``_20m.tif``, on grids that cover the same ground."""
ONE_GRID = next(scene for scene in quality.SCENES if scene.path == "s2_offset/parana_bridge_a.tif")
"""A scene whose coarse bands were resampled to 10 m: the truth is what they are once degraded to 20 m."""
SCENES = (*TWO_GRIDS, ONE_GRID.path.removesuffix(".tif"))


@dataclass(frozen=True)
class Guided:
    """A pair of images of the coarse bands, and the fine bands on the grid of the truth."""

    pair: Pair
    guide: Tensor
    """(1, band, y, x) reflectance."""

    def stored(self) -> dict[str, Any]:
        """What `benchmarks.peer_images` describes."""
        lr, guide = self.pair.lr[0].numpy(), self.guide[0].numpy()
        return {"lr": lr, "bands": COARSE, "scale": self.pair.psf.scale, "guide": guide, "guide_bands": FINE}


def pair(scene: str) -> Guided:
    """A scene and its degraded images."""
    psf = PSF(2, MTF)
    if scene in TWO_GRIDS:
        coarse, valid = read(HeldOut(f"{scene}_20m.tif", ""), COARSE, psf.scale)
        fine, _ = read(HeldOut(f"{scene}_10m.tif", ""), FINE, psf.scale)
    else:
        resampled, seen = read(ONE_GRID, COARSE, psf.scale**2)
        coarse, valid = degrade(resampled, psf), coarse_valid(seen, psf.scale)
        fine, _ = read(ONE_GRID, FINE, psf.scale**2)
    return Guided(Pair(degrade(coarse, psf), coarse, valid, psf), degrade(fine, psf))


def read(scene: HeldOut, bands: tuple[str, ...], scale: int) -> tuple[Tensor, Tensor]:
    """Reflectance (1, band, y, x) and validity (1, y, x) of a scene."""
    with geosr.open_scene(DATA / scene.path, sensor=scene.sensor, baseline=scene.baseline) as opened:
        whole = whole_scene(opened.read(bands=bands), scale)
    return whole["hr"][None], whole["valid"][None]


@torch.inference_mode()
def measure(model: Model) -> dict[str, dict[str, Figures]]:
    """Figures by scene and method (``bicubic``, ``model``)."""
    truths, _ = pairs()
    return {
        name: {
            "bicubic": figures(bicubic(one.pair.lr, one.pair.psf.scale), one.pair),
            "model": figures(sharpened(model, one.pair.lr, one.guide), one.pair),
        }
        for name, one in truths.items()
    }


def sharpened(model: Callable[[Tensor], Tensor], lr: Tensor, guide: Tensor) -> Tensor:
    """Coarse bands on the grid of the guide; the model takes the guide first, and coarse pixels repeated."""
    factor = guide.shape[-1] // lr.shape[-1]
    return model(torch.cat([guide, repeated(lr, factor)], dim=1))


@cache
def shipped() -> WeightsFile | None:
    """The guided model, if it is shipped."""
    return next((weights for weights in shipped_models() if weights.spec.name == NAME), None)


def pairs() -> tuple[dict[str, Guided], list[str]]:
    """Pairs of the scenes that the shipped model was not trained on, by name, and the other scenes."""
    weights = shipped()
    trained = " ".join(weights.spec.provenance["scenes"]["train"]) if weights else ""
    held_out = [scene for scene in SCENES if scene not in trained]
    return {Path(scene).name: pair(scene) for scene in held_out}, [scene for scene in SCENES if scene in trained]
