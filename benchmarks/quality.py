"""How good an image is on scenes that no shipped model was trained on, next to what needs no learning."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import geosr
from geosr import metrics
from geosr.data.datamodule import whole_scene
from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.models import Model, ModelSpec
from geosr.models.consistency import Consistency
from geosr.training.figures import inside

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MTF = 0.3
"""Contrast at the LR Nyquist frequency with which images are degraded for a model that does not say."""
NYQUIST = 0.8
"""Share of the Nyquist frequency up to which spectra are compared."""
BLOCK, FLAT = 16, 0.1
"""HR pixels along a side of the blocks that texture is looked for in, and the share of them that counts as flat."""


@dataclass(frozen=True)
class HeldOut:
    """A scene that no shipped model was trained on."""

    path: str
    note: str
    sensor: str | None = None
    baseline: str | None = None


SCENES = (
    HeldOut("s2/danube_a_10m.tif", "native 10 m"),
    HeldOut("s2/danube_b_10m.tif", "native 10 m; the place of danube_a on another date"),
    HeldOut("s2_offset/parana_bridge_a.tif", "10 m", "sentinel-2-l2a", "04.00"),
    HeldOut("s2_test/terramesh_38d_l2a_10m.tif", "native 10 m; dry savanna"),
    HeldOut("s2_test/terramesh_433d_l2a_10m.tif", "native 10 m; fields in Chile"),
    HeldOut("s2_test/terramesh_637u_l2a_10m.tif", "native 10 m; fields in Denmark"),
)


@dataclass(frozen=True)
class Pair:
    """A scene as the truth, and what the same sensor would have seen of it from farther away; reflectance."""

    lr: Tensor
    """(1, band, y, x)."""
    hr: Tensor
    """(1, band, y * scale, x * scale)."""
    valid: Tensor
    """(1, y * scale, x * scale)."""
    psf: PSF

    def of(self, bands: Sequence[int]) -> "Pair":
        """The pair with some of its bands, in that order."""
        chosen = list(bands)
        return Pair(self.lr[:, chosen], self.hr[:, chosen], self.valid, self.psf)


@dataclass(frozen=True)
class Figures:
    """How good one image is."""

    psnr: float
    """dB, all bands together, peak 1.0."""
    sam: float
    """Degrees."""
    ergas: float
    rmse: tuple[float, ...]
    """Reflectance, of each band."""
    consistency: float
    """Mean absolute difference between the degraded image and the input, reflectance."""
    spectrum_gap: float
    """dB between its power and the truth's, in the band and at the frequency, up to 0.8 Nyquist, of most difference."""
    texture: float
    """Standard deviation within blocks of 16 x 16 pixels that are flat in truth, over that of the truth there."""

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return asdict(self) | {"rmse": list(self.rmse)}


def pair(scene: HeldOut, bands: Sequence[str], psf: PSF) -> Pair:
    """A held-out scene and its degraded image."""
    with geosr.open_scene(DATA / scene.path, sensor=scene.sensor, baseline=scene.baseline) as opened:
        whole = whole_scene(opened.read(bands=bands), psf.scale)
    hr = whole["hr"][None]
    return Pair(degrade(hr, psf), hr, whole["valid"][None], psf)


@torch.inference_mode()
def figures(sr: Tensor, truth: Pair) -> Figures:
    """How good ``sr`` (1, band, y, x) is; eight pixels at the edge do not count."""
    ours, hr, valid = inside(sr), inside(truth.hr), inside(truth.valid)
    gap = metrics.spectrum_gap(metrics.spectrum(ours, valid), metrics.spectrum(hr, valid), up_to=NYQUIST).largest
    return Figures(
        psnr=float(metrics.psnr(ours, hr, valid)),
        sam=float(metrics.sam(ours, hr, valid)),
        ergas=float(metrics.ergas(ours, hr, valid, scale=truth.psf.scale)),
        rmse=tuple(metrics.rmse(ours, hr, valid).tolist()),
        consistency=float(metrics.consistency(sr, truth.lr, truth.valid, psf=truth.psf).reflectance),
        spectrum_gap=float(gap.max()),
        texture=flat_texture(ours, hr, valid),
    )


def flat_texture(sr: Tensor, hr: Tensor, valid: Tensor) -> float:
    """Standard deviation of ``sr`` over that of ``hr`` within the flattest tenth of the blocks: above 1, invented."""
    whole = F.avg_pool2d(valid[:, None].float(), BLOCK)[:, 0] == 1
    theirs, ours = _variance(hr)[whole], _variance(sr)[whole]
    flattest = theirs.argsort()[: max(round(FLAT * len(theirs)), 1)]
    return float((ours[flattest].mean() / theirs[flattest].mean()).sqrt())


def _variance(image: Tensor) -> Tensor:
    """Variance (batch, row, column) within the blocks of an image, mean over its bands."""
    centred = image.double() - image.double().mean(dim=(-2, -1), keepdim=True)
    mean = F.avg_pool2d(centred, BLOCK)
    return (F.avg_pool2d(centred.square(), BLOCK) - mean.square()).mean(dim=1)


def require_unseen(spec: ModelSpec) -> None:
    """Stop where a model learned from a scene that is held out."""
    seen = set(spec.provenance["scenes"]["train"]) & {scene.path for scene in SCENES}
    if seen:
        raise SystemExit(f"{spec.name} was trained on {' '.join(sorted(seen))}, which benchmarks.quality holds out")


@torch.inference_mode()
def measure(model: Model) -> dict[str, dict[str, Figures]]:
    """Figures by scene and method (``bicubic``, ``back-projection``, ``model``), inputs made by the model's own PSF."""
    mtf = model.spec.consistency_mtf
    psf = PSF(model.spec.scale, MTF if mtf is None else mtf)
    found = {}
    for scene in SCENES:
        truth = pair(scene, model.spec.bands, psf)
        interpolated = bicubic(truth.lr, psf.scale)
        images = {
            "bicubic": interpolated,
            "back-projection": Consistency(psf)(interpolated, truth.lr),
            "model": model(truth.lr),
        }
        found[scene.path] = {name: figures(image, truth) for name, image in images.items()}
    return found


@torch.inference_mode()
def calibrated(model: Model) -> dict[str, Any] | None:
    """Expected and actual errors, by tenths of the pixels of the scenes that the calibration did not learn from."""
    if not model.spec.to_dict().get("calibration"):
        return None
    from geosr.models.calibration import Calibration, reliability

    calibration = Calibration.of(model.spec)
    psf = PSF(model.spec.scale, model.spec.consistency_mtf or MTF)
    expected, actual, seen = [], [], []
    for scene in SCENES:
        name = Path(scene.path).stem
        if any(name in learned for learned in calibration.scenes):
            continue
        truth = pair(scene, model.spec.bands, psf)
        sr = model(truth.lr)
        valid = inside(truth.valid)[0]
        expected.append(inside(calibration.expected_error(sr, truth.lr))[0][:, valid].flatten())
        actual.append(inside((sr - truth.hr).abs())[0][:, valid].flatten())
        seen.append(name)
    found = reliability(torch.cat(expected).numpy(), torch.cat(actual).numpy())
    return {
        "learned": list(calibration.scenes),
        "scenes": seen,
        "expected": [float(f"{value:.4g}") for value in found.expected],
        "actual": [float(f"{value:.4g}") for value in found.actual],
        "rank_correlation": round(found.rank_correlation, 3),
    }
