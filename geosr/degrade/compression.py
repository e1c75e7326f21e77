"""What lossy compression leaves of an image, each band by itself: JPEG on the device, JPEG2000 on the CPU."""

import io
from math import cos, pi, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# ITU-T T.81 (1992), table K.1: luminance.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
OFFSET_DN = 1000
"""Added to digital numbers before JPEG2000, so that slightly negative reflectance survives, as Sentinel-2 does."""


def jpeg_coded(image: Tensor, *, quality: Tensor, white: float) -> Tensor:
    """Reflectance (batch, band, y, x) after baseline JPEG, each band as a picture whose 255 is ``white``.

    The coefficients' rounding passes the gradient on as if it were not there. Values are neither clipped to 0 ... 255
    nor rounded to whole numbers before and after.

    Args:
        image: Reflectance.
        quality: JPEG quality (batch,), 1 to 100, as libjpeg scales it.
        white: Reflectance of 255.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image * (255 / white) - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-2, -3)
    transform = _cosines().to(image)
    table = _tables(quality).to(image)[:, None, None, None]
    coefficients = (transform @ blocks @ transform.mT).div(table)
    coefficients = coefficients + (coefficients.round() - coefficients).detach()
    decoded = transform.mT @ coefficients.mul(table) @ transform
    picture = decoded.transpose(-2, -3).flatten(-4, -3).flatten(-2, -1)[..., :height, :width]
    return (picture + 128) * (white / 255)


def jpeg2000_coded(image: Tensor, *, ratio: Tensor) -> Tensor:
    """Reflectance (batch, band, y, x) after irreversible JPEG2000, each band as 16-bit digital numbers of 1e-4.

    Runs on the CPU, one band after another, and passes no gradient.

    Args:
        image: Reflectance; what does not fit into 16 bits (below -0.1, above 6.45) is clipped.
        ratio: Compression ratio (batch,) relative to 16 bits a pixel.
    """
    digital = (image.detach().cpu().double() * 1e4 + OFFSET_DN).round().clamp(0, 65535).numpy().astype(np.uint16)
    decoded = np.empty_like(digital)
    for place in np.ndindex(*digital.shape[:2]):
        with io.BytesIO() as file:
            options = {"irreversible": True, "quality_mode": "rates", "quality_layers": [float(ratio[place[0]])]}
            Image.fromarray(digital[place]).save(file, "JPEG2000", **options)
            with Image.open(file) as picture:
                decoded[place] = np.asarray(picture)
    return torch.from_numpy((decoded.astype(np.float64) - OFFSET_DN) * 1e-4).to(image)


def _cosines() -> Tensor:
    """Matrix (frequency, position) of the orthonormal cosine transform of 8 values (T.81, A.3.3)."""
    rows = [[cos((2 * x + 1) * u * pi / 16) * (sqrt(0.5) if u == 0 else 1) / 2 for x in range(8)] for u in range(8)]
    return torch.tensor(rows, dtype=torch.float64)


def _tables(quality: Tensor) -> Tensor:
    """Quantisation tables (batch, 8, 8) of a quality, by libjpeg's rule."""
    quality = quality.double()[:, None, None]
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return ((torch.tensor(_LUMINANCE) * percent + 50) / 100).floor().clamp(1, 255)
