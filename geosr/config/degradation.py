"""Every setting of the degradation that makes LR images from HR images, and what it may be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geosr.config.rules import Rule, above, at_least, between, interval, nullable, one_of, probabilities

KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
"""Shapes of a blur kernel, as Real-ESRGAN names them."""
CODECS = ("none", "jpeg", "jpeg2000")
"""How a round of ``high_order`` may compress."""


@dataclass
class SensorSection:
    """A sensor of lower resolution: its optics and detectors, its noise and its digital numbers."""

    mtf: float | None = None
    """Modulation transfer at the LR Nyquist frequency, all bands; null takes each band's own from `geosr.sensors`.
    Validation and the consistency layer, whatever the type, take it too, and the bands' mean where it is null."""
    mtf_jitter: float = 0.1
    """Each image and band has its MTF times a factor drawn from 1 - jitter to 1 + jitter."""
    shift: float = 0.0
    """An image is displaced by up to this many LR pixels along each axis. One LR image does not show its own
    displacement, so a network can only learn to blur it: for robustness against pairs that do not register."""
    misregistration: float = 0.1
    """Each band is displaced by up to this many LR pixels more along each axis, on its own. Sentinel-2's bands are
    required to register within 0.3 pixels."""
    noise: bool = True
    """Add the detector's noise."""
    snr: float | None = None
    """Signal-to-noise ratio at the band's reference reflectance, all bands; null takes each band's own."""
    shot_share: float = 0.8
    """Share of the noise variance at the reference reflectance that grows with the signal (photons); the rest is there
    in the dark (read-out). The specification has no such number; 0.8 is an assumption."""
    noise_gain: list[float] = field(default_factory=lambda: [1.0, 1.5])
    """The noise's standard deviation is multiplied by a factor drawn from this range, per image. 1 is an overhead sun;
    with less light the same radiance noise is more reflectance."""
    quantise: bool = True
    """Round to whole digital numbers of 1e-4 reflectance."""


@dataclass
class HighOrderSection:
    """Two rounds of blur, resizing, noise and compression, as in Real-ESRGAN, drawn anew for each image.

    Every key but ``preset`` may be null: it then has the preset's value, see ``PRESETS``. Keys that end in 2 are those
    of the second round. Lengths are in pixels of the image as it then is; noise counts in 1/255 of ``white``.
    """

    preset: str = "satellite"
    """satellite (mild, for reflectance), or real-esrgan (its published options)."""
    white: float | None = None
    """Reflectance that stands for 255 in the noise and JPEG settings."""
    quantise: bool | None = None
    """Round the result to whole digital numbers of 1e-4 reflectance."""

    blur_kernel_size: int | None = None
    """Largest kernel side; it is drawn from the odd numbers from 7 to this."""
    kernel_list: list[str] | None = None
    """Shapes of blur kernel."""
    kernel_prob: list[float] | None = None
    """Probability of each shape."""
    sinc_prob: float | None = None
    """Probability of a sinc (ringing) kernel instead."""
    blur_sigma: list[float] | None = None
    """Range of a kernel's standard deviations."""
    betag_range: list[float] | None = None
    """Range of the exponent of generalised Gaussians; 1 is a Gaussian. Half of the draws are from below 1."""
    betap_range: list[float] | None = None
    """Range of the exponent of plateau kernels. Half of the draws are from below 1, or 1 itself."""
    resize_prob: list[float] | None = None
    """Probabilities to enlarge, to shrink and to keep the size."""
    resize_range: list[float] | None = None
    """Smallest and largest factor of a resize."""
    gaussian_noise_prob: float | None = None
    """Probability that the noise is Gaussian; otherwise it grows with the signal (Poisson)."""
    noise_range: list[float] | None = None
    """Range of the standard deviation of Gaussian noise, in 1/255 of ``white``."""
    poisson_scale_range: list[float] | None = None
    """Range of the factor on Poisson noise, which at 1 is that of 255 photons at ``white``."""
    gray_noise_prob: float | None = None
    """Probability that all bands get the same noise."""
    compression: str | None = None
    """none, jpeg or jpeg2000, each band by itself. JPEG2000 runs on the CPU and passes no gradient."""
    jpeg_range: list[float] | None = None
    """Range of the JPEG quality, 1 to 100."""
    jpeg2000_range: list[float] | None = None
    """Range of the JPEG2000 compression ratio, relative to 16 bits a pixel."""

    second_blur_prob: float | None = None
    """Probability that the second round blurs."""
    blur_kernel_size2: int | None = None
    """As ``blur_kernel_size``, and likewise below."""
    kernel_list2: list[str] | None = None
    kernel_prob2: list[float] | None = None
    sinc_prob2: float | None = None
    blur_sigma2: list[float] | None = None
    betag_range2: list[float] | None = None
    betap_range2: list[float] | None = None
    resize_prob2: list[float] | None = None
    resize_range2: list[float] | None = None
    """Factors relative to the LR size."""
    gaussian_noise_prob2: float | None = None
    noise_range2: list[float] | None = None
    poisson_scale_range2: list[float] | None = None
    gray_noise_prob2: float | None = None
    compression2: str | None = None
    jpeg_range2: list[float] | None = None
    jpeg2000_range2: list[float] | None = None
    final_sinc_prob: float | None = None
    """Probability of a sinc kernel at the very end, before or after the compression."""


@dataclass
class DegradationSection:
    """How LR images are made from HR images."""

    type: str = "sensor"
    """sensor (as an instrument would see it), high_order (two random rounds) or steps (a list of your own)."""
    sensor: SensorSection = field(default_factory=SensorSection)
    high_order: HighOrderSection = field(default_factory=HighOrderSection)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Steps in order, such as ``{step: blur, sigma: [0.5, 2]}``; `geosr.degrade.STEPS` names them and their keys."""
    queue_size: int = 180
    """Pairs in the training pair pool of ``high_order`` and ``steps``, which mixes the degradations of many batches in
    one; 0 switches it off. ``sensor`` needs none."""


_PROBABILITIES = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Reflectance of land is mostly below 0.4, and 1/255 of that is close to the noise of Sentinel-2 (SNR 150). No noise
    # is common to all bands; compression is nearly lossless; the blur is about that of an MTF of 0.3 at scale 2 to 4.
    "satellite": {
        "white": 0.4,
        "quantise": True,
        "blur_kernel_size": 21,
        "kernel_list": list(KERNELS),
        "kernel_prob": _PROBABILITIES,
        "sinc_prob": 0.05,
        "blur_sigma": [0.4, 2.0],
        "betag_range": [0.5, 4.0],
        "betap_range": [1.0, 2.0],
        "resize_prob": [0.1, 0.5, 0.4],
        "resize_range": [0.5, 1.2],
        "gaussian_noise_prob": 0.5,
        "noise_range": [0.1, 2.0],
        "poisson_scale_range": [0.02, 0.2],
        "gray_noise_prob": 0.0,
        "compression": "jpeg",
        "jpeg_range": [90.0, 99.0],
        "jpeg2000_range": [2.0, 4.0],
        "second_blur_prob": 0.5,
        "blur_kernel_size2": 21,
        "kernel_list2": list(KERNELS),
        "kernel_prob2": _PROBABILITIES,
        "sinc_prob2": 0.05,
        "blur_sigma2": [0.2, 1.0],
        "betag_range2": [0.5, 4.0],
        "betap_range2": [1.0, 2.0],
        "resize_prob2": [0.2, 0.3, 0.5],
        "resize_range2": [0.6, 1.2],
        "gaussian_noise_prob2": 0.5,
        "noise_range2": [0.1, 1.5],
        "poisson_scale_range2": [0.02, 0.15],
        "gray_noise_prob2": 0.0,
        "compression2": "jpeg",
        "jpeg_range2": [90.0, 99.0],
        "jpeg2000_range2": [2.0, 4.0],
        "final_sinc_prob": 0.2,
    },
    # options/train_realesrgan_x4plus.yml of X. Wang et al., "Real-ESRGAN", ICCVW 2021; a picture's white is 1.
    "real-esrgan": {
        "white": 1.0,
        "quantise": True,
        "blur_kernel_size": 21,
        "kernel_list": list(KERNELS),
        "kernel_prob": _PROBABILITIES,
        "sinc_prob": 0.1,
        "blur_sigma": [0.2, 3.0],
        "betag_range": [0.5, 4.0],
        "betap_range": [1.0, 2.0],
        "resize_prob": [0.2, 0.7, 0.1],
        "resize_range": [0.15, 1.5],
        "gaussian_noise_prob": 0.5,
        "noise_range": [1.0, 30.0],
        "poisson_scale_range": [0.05, 3.0],
        "gray_noise_prob": 0.4,
        "compression": "jpeg",
        "jpeg_range": [30.0, 95.0],
        "jpeg2000_range": [5.0, 20.0],
        "second_blur_prob": 0.8,
        "blur_kernel_size2": 21,
        "kernel_list2": list(KERNELS),
        "kernel_prob2": _PROBABILITIES,
        "sinc_prob2": 0.1,
        "blur_sigma2": [0.2, 1.5],
        "betag_range2": [0.5, 4.0],
        "betap_range2": [1.0, 2.0],
        "resize_prob2": [0.3, 0.4, 0.3],
        "resize_range2": [0.3, 1.2],
        "gaussian_noise_prob2": 0.5,
        "noise_range2": [1.0, 25.0],
        "poisson_scale_range2": [0.05, 2.5],
        "gray_noise_prob2": 0.4,
        "compression2": "jpeg",
        "jpeg_range2": [30.0, 95.0],
        "jpeg2000_range2": [5.0, 20.0],
        "final_sinc_prob": 0.8,
    },
}
"""What the keys of `HighOrderSection` are where they are null."""

_SHARE = between(0, 1)
_MTF = Rule("above 0 and below 2/pi = 0.637", lambda mtf: 0 < mtf < 2 / math.pi)
_ROUND: Mapping[str, Rule] = {
    "blur_kernel_size": Rule("an odd number from 7 to 255", lambda side: 7 <= side <= 255 and side % 2 == 1),
    "kernel_list": Rule(f"some of {', '.join(KERNELS)}", lambda names: bool(names) and set(names) <= set(KERNELS)),
    "kernel_prob": probabilities(),
    "sinc_prob": _SHARE,
    "blur_sigma": interval(above(0)),
    "betag_range": interval(above(0)),
    "betap_range": interval(above(0)),
    "resize_prob": probabilities(3),
    "resize_range": interval(above(0)),
    "gaussian_noise_prob": _SHARE,
    "noise_range": interval(at_least(0)),
    "poisson_scale_range": interval(at_least(0)),
    "gray_noise_prob": _SHARE,
    "compression": one_of(*CODECS),
    "jpeg_range": interval(between(1, 100)),
    "jpeg2000_range": interval(at_least(1)),
}

RULES: Mapping[str, Rule] = {
    "type": one_of("sensor", "high_order", "steps"),
    "sensor.mtf": nullable(_MTF),
    "sensor.mtf_jitter": between(0, 0.5),
    "sensor.shift": between(0, 8),
    "sensor.misregistration": between(0, 8),
    "sensor.snr": nullable(above(0)),
    "sensor.shot_share": _SHARE,
    "sensor.noise_gain": interval(at_least(0)),
    "high_order.preset": one_of(*PRESETS),
    "high_order.white": nullable(above(0)),
    "high_order.second_blur_prob": nullable(_SHARE),
    "high_order.final_sinc_prob": nullable(_SHARE),
    **{f"high_order.{key}{round_}": nullable(rule) for round_ in ("", "2") for key, rule in _ROUND.items()},
    "queue_size": between(0, 65_536),
    "steps": Rule("a list of {step: NAME, ...}", lambda steps: all(isinstance(s.get("step"), str) for s in steps)),
}
"""Which values a setting may have, by its key within the section."""
