"""How good the shipped models are on scenes that they were not trained on, next to what needs no learning."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import geosr
from geosr import metrics
from geosr.data.datamodule import whole_scene
from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.models import Model
from geosr.models.consistency import Consistency
from geosr.training.module import inside

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class HeldOut:
    """A scene that no shipped model was trained on."""

    path: str
    note: str
    sensor: str | None = None
    baseline: str | None = None


SCENES = (
    HeldOut("s2/danube_a_10m.tif", "native 10 m; chose the checkpoint"),
    HeldOut("s2/danube_b_10m.tif", "native 10 m; the place of danube_a on another date"),
    HeldOut("s2/germany_fields_10m.tif", "native 10 m; chose the checkpoint"),
    HeldOut("s2_offset/parana_bridge_a.tif", "10 m; never looked at", "sentinel-2-l2a", "04.00"),
    HeldOut("s2_20m_grid/lidia.tif", "resampled to a grid of degrees; chose the checkpoint"),
    HeldOut("s2_20m_grid/water.tif", "resampled to a grid of degrees; chose the checkpoint"),
)


@dataclass(frozen=True)
class Figures:
    """Quality on one scene; gains in dB over bicubic interpolation, angles in degrees, reflectance else."""

    scene: str
    note: str
    bicubic_psnr: float
    back_projection_gain: float
    model_gain: float
    bicubic_sam: float
    model_sam: float
    consistency: float


@torch.inference_mode()
def measure(model: Model) -> list[Figures]:
    """Figures of a model on every held-out scene, LR made from the scene by the model's own degradation."""
    mtf = model.spec.consistency_mtf
    psf = PSF(model.spec.scale, 0.3 if mtf is None else mtf)
    return [measure_scene(model, psf, scene) for scene in SCENES]


def measure_scene(model: Model, psf: PSF, scene: HeldOut) -> Figures:
    """Figures of a model on one scene."""
    with geosr.open_scene(DATA / scene.path, sensor=scene.sensor, baseline=scene.baseline) as opened:
        raster = opened.read(bands=model.spec.bands)
    whole = whole_scene(raster, psf.scale)
    hr, valid = whole["hr"][None], inside(whole["valid"][None])
    lr = degrade(hr, psf)
    interpolated = bicubic(lr, psf.scale)
    sr = model(lr)
    reference = inside(hr)

    def psnr(image: Tensor) -> float:
        return float(metrics.psnr(inside(image), reference, valid))

    baseline = psnr(interpolated)
    return Figures(
        scene=scene.path,
        note=scene.note,
        bicubic_psnr=baseline,
        back_projection_gain=psnr(Consistency(psf)(interpolated, lr)) - baseline,
        model_gain=psnr(sr) - baseline,
        bicubic_sam=float(metrics.sam(inside(interpolated), reference, valid)),
        model_sam=float(metrics.sam(inside(sr), reference, valid)),
        consistency=float((degrade(sr, psf) - lr).abs().mean()),
    )
