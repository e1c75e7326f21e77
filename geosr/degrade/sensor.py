"""LR images as a sensor of lower resolution would deliver them: optics, registration, noise, digital numbers."""

from collections.abc import Sequence
from math import ceil, pi
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.degrade.draws import Draws
from geosr.degrade.noise import detector_noise, quantised
from geosr.degrade.psf import PSF, mirrored
from geosr.degrade.steps import Parameters
from geosr.sensors import Band, canonical_band, get_sensor

DEFAULT_MTF = 0.3
"""MTF of a band that no sensor is known for."""
DEFAULT_SNR = 100.0
"""Signal-to-noise ratio of a band that no sensor is known for, at a reflectance of 0.2."""
SHARPEST = 0.636
"""What jitter takes above this is this: the detector alone leaves 2/pi = 0.637."""
ROWS = 64
"""LR rows or columns that are sampled at once: the cost of a product with a band matrix grows with its width."""


def sensor(
    hr: Tensor,
    draws: Draws,
    *,
    scale: int,
    bands: Sequence[str],
    mtf: float | None = None,
    mtf_jitter: float = 0.0,
    shift: float = 0.0,
    misregistration: float = 0.0,
    noise: bool = True,
    snr: float | None = None,
    shot_share: float = 0.8,
    noise_gain: Sequence[float] = (1.0, 1.0),
    quantise: bool = True,
) -> tuple[Tensor, Parameters]:
    """LR reflectance (batch, band, y / scale, x / scale) of HR reflectance, and what was drawn for it.

    The arguments are those of `geosr.config.degradation.SensorSection`. Drawn are the ``mtf`` (batch, band), the
    ``shift`` (batch, band, 2) down and right in LR pixels, and the ``noise_gain`` (batch,).
    """
    known = [_known(band) for band in bands]
    nominal = [mtf or (band and band.mtf) or DEFAULT_MTF for band in known]
    drawn_mtf = draws.uniform(1 - mtf_jitter, 1 + mtf_jitter, len(bands)) * torch.tensor(nominal, dtype=torch.float64)
    drawn_mtf = drawn_mtf.clamp(max=SHARPEST)
    moved = draws.uniform(-shift, shift, 1, 2) + draws.uniform(-misregistration, misregistration, len(bands), 2)
    gain = draws.uniform(noise_gain[0], noise_gain[1])
    blurriest = PSF(scale, min(nominal) * (1 - mtf_jitter))
    radius = blurriest.radius + ceil((shift + misregistration) * scale)
    lr = observe(hr, mtf=drawn_mtf, shift=moved, scale=scale, radius=radius)
    if noise:
        ratio = [snr or (band and band.snr) or DEFAULT_SNR for band in known]
        level = [(band and band.reference) or 0.2 for band in known]
        lr = detector_noise(lr, draws, snr=ratio, reference=level, shot_share=shot_share, gain=gain)
    if quantise:
        lr = quantised(lr)
    return lr, {"mtf": drawn_mtf, "shift": moved, "noise_gain": gain}


def nominal_mtf(mtf: float | None, bands: Sequence[str]) -> float:
    """The MTF at the LR Nyquist frequency that stands for all bands: the one that is set, else the bands' mean.

    Validation and the consistency layer know one point-spread function. The four 10 m bands of Sentinel-2 have 0.24 to
    0.28, so their mean, 0.26, is off by less than the MTF itself varies in orbit.

    >>> nominal_mtf(None, ["B02", "B03", "B04", "B08"]), nominal_mtf(0.3, ["B02"])
    (0.26, 0.3)
    """
    return mtf or round(fmean((known and known.mtf) or DEFAULT_MTF for known in map(_known, bands)), 4)


def _known(name: str) -> Band | None:
    """What Sentinel-2 says of a band, or of one that has the same common name."""
    canonical = canonical_band(name)
    return canonical and get_sensor("sentinel-2-l2a").band(canonical)  # type: ignore[return-value]


def observe(hr: Tensor, *, mtf: Tensor, shift: Tensor, scale: int, radius: int) -> Tensor:
    """LR image (batch, band, y / scale, x / scale) through each image's and band's own point-spread function.

    It is `geosr.degrade.PSF`, displaced: LR pixel i sees the scene around ``i + shift``. Each axis is a product with a
    matrix that holds the kernel, and the mirror at the image's edge, once per LR row: several times faster on a CPU
    than a sum of shifted slices whose weights differ between images.

    Args:
        hr: Image (batch, band, y, x) whose height and width are multiples of ``scale``.
        mtf: Modulation transfer (batch, band) at the LR Nyquist frequency, above 0 and below 2/pi.
        shift: Displacement (batch, band, 2) down and right, in LR pixels.
        scale: HR pixels per LR pixel.
        radius: HR pixels that a kernel reaches to either side, without the detector.
    """
    kernels = psf_kernels(mtf, shift, scale=scale, radius=radius)
    # Tensor cores would round fp32 to 10 bits if they were allowed to; fp64 they leave alone.
    image = hr.double() if hr.is_cuda else hr
    down, right = (kernels[:, :, axis].to(image) for axis in (0, 1))
    rows = _sample_rows(image, down, scale, radius)
    return _sample_rows(rows.mT, right, scale, radius).mT.to(hr.dtype).contiguous()


def psf_kernels(mtf: Tensor, shift: Tensor, *, scale: int, radius: int) -> Tensor:
    """Weights (batch, band, 2, 2 radius + scale) down and right: displaced Gaussian and detector; they sum to 1."""
    sigma = (-2 * torch.log(mtf.double() * (pi / 2))).sqrt() * (scale / pi)
    position = torch.arange(-radius, radius + 1, dtype=torch.float64) - shift.double()[..., None] * scale
    gaussian = torch.exp(-0.5 * (position / sigma[..., None, None]) ** 2)
    gaussian = gaussian / gaussian.sum(-1, keepdim=True)
    padded = F.pad(gaussian, (scale - 1, scale - 1))
    return padded.unfold(-1, scale, 1).mean(-1)


def _sample_rows(image: Tensor, kernels: Tensor, scale: int, radius: int) -> Tensor:
    """Image (batch, band, y / scale, x): each row is the kernel-weighted sum of the rows around it."""
    height, taps = image.shape[-2], kernels.shape[-1]
    found = mirrored(height, radius, torch.device("cpu"))
    parts = []
    for first in range(0, height // scale, ROWS):
        rows = min(ROWS, height // scale - first)
        source = found[first * scale : (first + rows - 1) * scale + taps].unfold(0, taps, scale)
        start, stop = int(source.min()), int(source.max()) + 1
        place = (source - start).to(image.device).expand(*kernels.shape[:2], -1, -1)
        weights = kernels[:, :, None].expand_as(place)
        matrix = image.new_zeros(*kernels.shape[:2], rows, stop - start).scatter_add_(-1, place, weights)
        parts.append(matrix @ image[..., start:stop, :])
    return torch.cat(parts, dim=-2)
