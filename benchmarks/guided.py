"""How good a model with a guide is on scenes that it was not trained on, band by band, next to bicubic."""

from dataclasses import dataclass
from functools import partial

import torch

import geosr
from benchmarks.quality import DATA
from geosr.data.datamodule import whole_scene
from geosr.data.reduced import reduced
from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.models import Model
from geosr.training.figures import inside


@dataclass(frozen=True)
class HeldOut:
    """A scene that no shipped model was trained on."""

    files: tuple[str, ...]
    note: str
    sensor: str | None = None
    baseline: str | None = None


SCENES = (
    HeldOut(("s2/germany_fields_10m.tif", "s2/germany_fields_20m.tif"), "chose the checkpoint"),
    HeldOut(("s2/bigearthnet_20170613_87_48_10m.tif", "s2/bigearthnet_20170613_87_48_20m.tif"), "chose the checkpoint"),
    HeldOut(
        ("s2_offset/parana_bridge_a.tif",), "never looked at; all bands on one grid of 10 m", "sentinel-2-l2a", "04.00"
    ),
)


@dataclass(frozen=True)
class Figures:
    """Errors on one scene, reflectance; the reduction is the share of bicubic's RMSE that is gone, mean over bands."""

    scene: str
    note: str
    rmse: dict[str, float]
    bicubic_rmse: dict[str, float]
    reduction: float
    consistency: float


@torch.inference_mode()
def measure(model: Model) -> list[Figures]:
    """Figures of a model on every held-out scene at reduced resolution, degraded as the model's own consistency is."""
    return [measure_scene(model, scene) for scene in SCENES]


def measure_scene(model: Model, scene: HeldOut) -> Figures:
    """Figures of a model on one scene."""
    spec, mtf = model.spec, model.spec.consistency_mtf
    psf = PSF(spec.guide_scale, 0.3 if mtf is None else mtf)
    files = [DATA / name for name in scene.files]
    with geosr.open_scene(files, sensor=scene.sensor, baseline=scene.baseline) as opened:
        raster = opened.read(bands=spec.bands)
    whole = {name: value[None] for name, value in whole_scene(raster, spec.guide_scale**2).items()}
    see = partial(degrade, psf=psf)
    batch = reduced(whole, guide=len(spec.guide), step=spec.guide_scale, see=see, see_guide=see)
    observed, sr = model.observed(batch["lr"]), model(batch["lr"])
    valid, hr = inside(batch["valid"]), inside(batch["hr"])

    def rmse(image: torch.Tensor) -> torch.Tensor:
        return (inside(image) - hr).double().square().permute(0, 2, 3, 1)[valid].mean(0).sqrt()

    ours, theirs = rmse(sr), rmse(bicubic(observed, spec.guide_scale))
    return Figures(
        scene=scene.files[0],
        note=scene.note,
        rmse=dict(zip(spec.outputs, ours.tolist(), strict=True)),
        bicubic_rmse=dict(zip(spec.outputs, theirs.tolist(), strict=True)),
        reduction=float((1 - ours / theirs).mean()),
        consistency=float((degrade(sr, psf) - observed).abs().mean()),
    )
