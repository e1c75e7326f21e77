"""Pictures of a model card, from the demo scene, which no shipped model was trained on."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import geosr
from benchmarks import guided
from benchmarks.model_card import standard_of
from benchmarks.quality import DATA, MTF
from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.grid import Window, scaled
from geosr.models import Model, load_model
from geosr.preview import compose, most_detail, save, stretch_of, to_image

SIDE = 256
"""Screen pixels along a side of a panel."""
SEEN, FLAT = 64, 32
"""Input pixels along a side of what is shown, and of a flat place."""
CREDIT = "contains modified Copernicus Sentinel data"
RGB = (2, 1, 0)
SWIR = (5, 3, 0)
"""B12, B8A and B05 among the 20 m bands."""
CONTRAST = 0.02
"""Reflectance around the mean that is shown of flat places."""
WITHIN = 252
"""Pixels of 20 m along a side of what lies within the demo scene, whose edge may cut some."""
WATER, FIELD = (-1.0, 0.05), (0.2, 1.0)
"""Near-infrared reflectance of water, and of a field that something grows on."""

Row = Mapping[str, Image.Image]
"""Panels by their captions."""


def write(model: Model, kind: str, folder: Path) -> dict[str, str]:
    """Write the pictures of a model; what each shows, by the name of its file."""
    painted = guided_pictures(model) if kind == "guided" else pictures(model, flat=kind == "detail")
    told = {}
    for what, (title, picture) in painted.items():
        path = save(picture, folder / f"{model.spec.name}_{what}.png")
        told[path.name] = f"{title}; {CREDIT}"
    return told


@torch.inference_mode()
def pictures(model: Model, *, flat: bool) -> Mapping[str, tuple[str, Image.Image]]:
    """The demo scene as the model is used, from twice or four times as far beside the truth, and its flat places."""
    with geosr.open_scene(geosr.demo_scene()) as scene:
        demo = tensor(scene.read(bands=model.spec.bands).array)
    psf = PSF(model.spec.scale, MTF)
    far = degrade(demo, psf)
    use = {"10 m, bicubic": bicubic(demo, psf.scale), f"{10 / psf.scale:g} m, {model.spec.name}": model(demo)}
    truth = {f"{10 * psf.scale} m, bicubic": bicubic(far, psf.scale), model.spec.name: model(far), "10 m, truth": demo}
    found = {
        "use": ("The demo scene as it is used", [panels(use, scaled(detailed(demo, SEEN), psf.scale), RGB)]),
        "truth": ("The demo scene, degraded, beside the truth", [panels(truth, detailed(demo, 2 * SEEN), RGB)]),
    }
    if flat:
        standard = standard_of(model.spec.name)
        beside = dict([*list(use.items())[:1], (standard, load_model(standard)(demo)), *list(use.items())[1:]])
        rows = [contrasts(beside, scaled(flattest(demo, nir), psf.scale), RGB) for nir in (WATER, FIELD)]
        found["flat"] = (f"Water and a flat field of the demo scene, {CONTRAST:g} reflectance around their mean", rows)
    return {what: (title, painted(rows)) for what, (title, rows) in found.items()}


@torch.inference_mode()
def guided_pictures(model: Model) -> Mapping[str, tuple[str, Image.Image]]:
    """The 20 m bands of the demo scene's ground as they are used, and from twice as far beside the truth."""
    coarse, fine = demo_20m()
    psf = PSF(2, MTF)
    far, guide = degrade(coarse, psf), degrade(fine, psf)
    use = {"20 m, bicubic": bicubic(coarse, 2), f"10 m, {model.spec.name}": guided.sharpened(model, coarse, fine)}
    truth = {
        "40 m, bicubic": bicubic(far, 2),
        model.spec.name: guided.sharpened(model, far, guide),
        "20 m, truth": coarse,
    }
    what = "B12, B8A and B05 as red, green and blue"
    found = {
        "use": (f"The demo scene as it is used: {what}", balanced(use, scaled(detailed(coarse, SEEN), 2), SWIR)),
        "truth": (f"The demo scene, degraded, beside the truth: {what}", balanced(truth, detailed(coarse, SEEN), SWIR)),
    }
    return {name: (title, painted([row])) for name, (title, row) in found.items()}


def calibration(name: str, found: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write the picture of `benchmarks.quality.calibrated`; what it shows, by the name of its file."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", aspect="equal", xlabel="expected, reflectance", ylabel="actual, reflectance"
    )
    axes.axline((1e-3, 1e-3), (1e-2, 1e-2), color="grey", linewidth=1)
    axes.plot(found["expected"], found["actual"], marker="o")
    axes.set_title("Absolute error, by tenths of the pixels", loc="left", fontsize=10)
    path = folder / f"{name}_calibration.png"
    figure.savefig(path, dpi=100)
    return {path.name: "Expected and actual absolute error on held-out scenes"}


def demo_20m() -> tuple[Tensor, Tensor]:
    """The 20 m bands within the demo scene, and the 10 m bands of the same ground (1, band, y, x); reflectance."""
    with (
        geosr.open_scene(geosr.demo_scene()) as demo,
        geosr.open_scene(DATA / "s2/virginia_coast_20m.tif") as coarse,
        geosr.open_scene(DATA / "s2/virginia_coast_10m.tif") as fine,
    ):
        column, row = ~coarse.geobox.affine * (demo.geobox.affine * (0, 0))
        corner = ceil(column - 1e-6), ceil(row - 1e-6)
        column, row = ~fine.geobox.affine * (coarse.geobox.affine * corner)
        return (
            tensor(coarse.read(square(corner[1], corner[0], WITHIN), bands=guided.COARSE).array),
            tensor(fine.read(square(round(row), round(column), 2 * WITHIN), bands=guided.FINE).array),
        )


def tensor(array: NDArray[np.float32]) -> Tensor:
    """A batch of one image."""
    return torch.from_numpy(array)[None]


def square(row: int, column: int, side: int) -> Window:
    """The window of a square."""
    return slice(row, row + side), slice(column, column + side)


def detailed(image: Tensor, side: int) -> Window:
    """The square with the most detail."""
    array = image[0].numpy()
    return square(*most_detail(array, array.shape[1:], side), side)


def flattest(image: Tensor, near_infrared: tuple[float, float]) -> Window:
    """The square with the least variance among those whose near infrared, the last band, lies in a range."""
    mean, square_mean = (F.avg_pool2d(one.double(), FLAT, stride=4)[0] for one in (image, image.square()))
    low, high = near_infrared
    variance = (square_mean - mean.square()).sum(dim=0)
    variance = torch.where((mean[-1] > low) & (mean[-1] < high), variance, torch.inf)
    row, column = divmod(int(variance.argmin()), variance.shape[1])
    return square(4 * row, 4 * column, FLAT)


def panels(
    images: Mapping[str, Tensor], window: Window, bands: Sequence[int], *, stretch: tuple[float, float] | None = None
) -> Row:
    """Images of one grid, a window of each, with the stretch of the first if none is given."""
    parts = {name: image[0, list(bands)][:, *window].numpy() for name, image in images.items()}
    low, high = stretch or stretch_of(next(iter(parts.values())))
    return {
        name: to_image(part, low, high).resize((SIDE, SIDE), Image.Resampling.NEAREST) for name, part in parts.items()
    }


def contrasts(images: Mapping[str, Tensor], window: Window, bands: Sequence[int]) -> Row:
    """As `panels`, around the mean of each band in the first."""
    mean = next(iter(images.values()))[..., *window].mean(dim=(-2, -1), keepdim=True)
    grey = {name: image - mean for name, image in images.items()}
    return panels(grey, window, bands, stretch=(-CONTRAST, CONTRAST))


def balanced(images: Mapping[str, Tensor], window: Window, bands: Sequence[int]) -> Row:
    """As `panels`, each band with a stretch of its own, for bands that differ much in brightness."""
    first = next(iter(images.values()))[0][:, *window].flatten(1)
    low, high = (first.quantile(share, dim=1)[:, None, None] for share in (0.01, 0.99))
    return panels({name: (image - low) / (high - low) for name, image in images.items()}, window, bands, stretch=(0, 1))


def painted(rows: Sequence[Row]) -> Image.Image:
    """The rows as one picture."""
    return compose([list(row.values()) for row in rows], [list(row) for row in rows])
