"""geosr's shipped models, and what needs no learning: ``python -m benchmarks.peer_geosr METHOD IMAGES OUT``."""

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import PIL
import torch
from PIL import Image as Pillow
from torch import Tensor

from benchmarks.peer_images import Image, places, run
from geosr import SuperResolver
from geosr.degrade import PSF
from geosr.degrade.resample import bicubic
from geosr.models import load_model
from geosr.models.consistency import Consistency


def method(name: str) -> tuple[str, Callable[[Image], np.ndarray]]:
    """What a method is, and the method."""
    known = {
        "bicubic": (f"`interpolate` of torch {torch.__version__.split('+')[0]}", interpolated),
        "Lanczos": (f"`resize` of Pillow {PIL.__version__}, float, three lobes", lanczos),
        "back-projection": ("geosr: bicubic, projected onto what degrades to the input", back_projection),
    }
    if name in known:
        return known[name]
    resolver = SuperResolver(load_model(name))
    return f"geosr, {resolver.precision}", partial(by_model, resolver)


def interpolated(image: Image) -> np.ndarray:
    """Bicubic interpolation."""
    return bicubic(tensor(image["lr"]), int(image["scale"]))[0].numpy()


def lanczos(image: Image) -> np.ndarray:
    """Lanczos interpolation."""
    scale = int(image["scale"])
    _, height, width = image["lr"].shape
    size = (width * scale, height * scale)
    return np.stack(
        [np.asarray(Pillow.fromarray(band).resize(size, Pillow.Resampling.LANCZOS)) for band in image["lr"]]
    )


def back_projection(image: Image) -> np.ndarray:
    """Bicubic interpolation through the consistency layer."""
    lr, psf = tensor(image["lr"]), PSF(int(image["scale"]))
    return Consistency(psf)(bicubic(lr, psf.scale), lr)[0].numpy()


def by_model(resolver: SuperResolver, image: Image) -> np.ndarray:
    """What a model makes of it, in the precision of ``geosr predict``; a guided one takes the guide first."""
    if "guide" in image:
        lr = np.concatenate([image["guide"], image["lr"].repeat(2, axis=1).repeat(2, axis=2)])
    else:
        lr = image["lr"]
    return resolver(tensor(lr))[0].numpy()


def tensor(array: np.ndarray) -> Tensor:
    """A batch of one image."""
    return torch.from_numpy(array)[None]


if __name__ == "__main__":
    with torch.inference_mode():
        run(*method(sys.argv[1]), *places())
