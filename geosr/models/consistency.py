"""The layer that keeps super-resolution a measurement: seen by the sensor again, its output is its input."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from geosr.degrade.psf import PSF, degrade
from geosr.degrade.resample import crop, gather, spread


class Consistency(nn.Module):
    """Projection onto the images that the sensor would have seen as ``lr``.

    With ``D`` the degradation (blur and averaging) and ``D'`` its adjoint, iterated back-projection [1] repeats
    ``sr += D'(lr - D sr)``. Its limit has a closed form, ``sr + D' (D D')^-1 (lr - D sr)``: among all images consistent
    with ``lr`` the one nearest to ``sr``. ``D D'`` is a short separable filter on the LR grid, so its inverse is one
    too, and one pass replaces the twenty or more rounds that the iteration needs.

    The inverse filter is cut off at ``reach`` LR pixels. What that leaves of ``lr - D sr``, and what the edge of the
    scene adds, is small enough to be measured rather than derived: see ``benchmarks/RESULTS.md``.

    References:
        [1] M. Irani and S. Peleg, "Improving resolution by image registration", CVGIP 53(3), 1991, with the
            back-projection kernel that makes it Landweber's iteration.
    """

    def __init__(self, psf: PSF, *, reach: int = 4) -> None:
        super().__init__()
        self.psf = psf
        self.inverse = inverse_filter(autocorrelation(psf), reach).tolist()

    @property
    def reach(self) -> int:
        """LR pixels to each side that the layer adds to the reach of what makes ``sr``: two blurs and the inverse."""
        return 2 * -(-self.psf.radius // self.psf.scale) + len(self.inverse) // 2

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        """``sr`` (batch, band, y * scale, x * scale), corrected so that it degrades to ``lr`` (batch, band, y, x)."""
        return self.correction(lr - degrade(sr, self.psf)).add_(sr)

    def correction(self, residual: Tensor) -> Tensor:
        """``D' (D D')^-1`` of a residual on the LR grid, which beyond the edge is taken to stay as it is there."""
        radius, scale = self.psf.radius, self.psf.scale
        beyond = -(-radius // scale)  # LR pixels outside the scene whose correction still reaches into it
        padded = F.pad(residual, (beyond + len(self.inverse) // 2,) * 4, mode="replicate")
        fine = spread(gather(padded, self.inverse, 1), self.psf.kernel.tolist(), scale)
        return crop(fine, radius + beyond * scale, residual.shape[-2] * scale, residual.shape[-1] * scale)


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
