"""The layer that keeps super-resolution a measurement: seen by the sensor again, its output is its input."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.degrade.psf import PSF, degrade


class Consistency(nn.Module):
    """Projection onto the images that the sensor would have seen as ``lr``.

    With ``D`` the degradation (blur and averaging) and ``D'`` its adjoint, iterated back-projection [1] repeats
    ``sr += D'(lr - D sr)``. Its limit has a closed form, ``sr + D' (D D')^-1 (lr - D sr)``: among all images consistent
    with ``lr`` the one nearest to ``sr``. ``D D'`` is a short separable filter on the LR grid, so its inverse is one too,
    and one pass replaces the twenty or more rounds that the iteration needs.

    The inverse filter is cut off at ``reach`` LR pixels. What that leaves of ``lr - D sr``, and what the edge of the
    scene adds, is small enough to be measured rather than derived: see ``benchmarks/RESULTS.md``.

    References:
        [1] M. Irani and S. Peleg, "Improving resolution by image registration", CVGIP 53(3), 1991, with the
            back-projection kernel that makes it Landweber's iteration.
    """

    def __init__(self, psf: PSF, *, reach: int = 4) -> None:
        super().__init__()
        self.psf = psf
        inverse = torch.tensor(inverse_filter(autocorrelation(psf), reach), dtype=torch.float32)
        self.register_buffer("blur", psf.weight.clone(), persistent=False)
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        """``sr`` (batch, band, y * scale, x * scale), corrected so that its degradation is ``lr`` (batch, band, y, x)."""
        with torch.autocast(sr.device.type, enabled=False):  # a measurement is checked in full precision
            return sr + self.correction(lr - degrade(sr, self.psf))

    def correction(self, residual: Tensor) -> Tensor:
        """``D' (D D')^-1`` of a residual on the LR grid, which beyond the edge is taken to stay as it is there."""
        psf, inverse = self.psf, self.inverse
        batch, band = residual.shape[:2]
        spread = -(-psf.radius // psf.scale)  # LR pixels beyond the scene whose correction still reaches into it
        pad = spread + len(inverse) // 2
        residual = F.pad(residual.flatten(0, 1).unsqueeze(1), (pad,) * 4, mode="replicate")
        residual = F.conv2d(F.conv2d(residual, inverse.view(1, 1, -1, 1)), inverse.view(1, 1, 1, -1))
        correction = F.conv_transpose2d(residual, self.blur, stride=psf.scale, padding=psf.radius + spread * psf.scale)
        return correction.view(batch, band, *correction.shape[-2:])


def autocorrelation(psf: PSF) -> np.ndarray:
    """``D D'`` along one axis of the LR grid: taps at LR distances ``-n ... n``."""
    kernel, scale = psf.kernel, psf.scale
    furthest = (kernel.size - 1) // scale
    one_side = [float(kernel[: kernel.size - lag * scale] @ kernel[lag * scale :]) for lag in range(furthest + 1)]
    return np.array(one_side[:0:-1] + one_side)


def inverse_filter(taps: np.ndarray, reach: int) -> np.ndarray:
    """Symmetric filter of ``2 * reach + 1`` taps whose convolution with ``taps`` is nearest to a unit impulse."""
    size = 2 * reach + 1
    convolution = np.stack([np.convolve(row, taps) for row in np.eye(size)], axis=1)
    impulse = np.zeros(len(convolution))
    impulse[len(convolution) // 2] = 1
    return np.linalg.lstsq(convolution, impulse, rcond=None)[0]
