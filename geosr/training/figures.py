"""How good an image is, next to what bicubic interpolation makes of the same input."""

from collections.abc import Mapping

from torch import Tensor

from geosr import losses, metrics
from geosr.degrade import PSF, degrade

BORDER = 8
"""HR pixels at the edge of a validation image that do not count: they are extrapolated rather than resolved."""
SEEN = 256
"""HR pixels along a side of the middle of an image that the perceptual network looks at."""


def figures(image: Mapping[str, Tensor], psf: PSF, content: losses.ContentLoss) -> dict[str, Tensor]:
    """Figures of one image by name; those of bicubic interpolation end in ``_bicubic``.

    A figure that the valid pixels do not allow to measure is left out: the mean of nothing is not 0.

    Args:
        image: ``lr``, ``sr``, ``bicubic`` and ``hr`` (1, band, y, x) reflectance and ``valid`` (1, y, x), of which some
            must be true inside the border.
        psf: How SR is degraded to be compared with LR (``consistency``).
        content: The losses of the training, unweighted.
    """
    hr, valid = inside(image["hr"]), inside(image["valid"])
    values: dict[str, Tensor] = {}
    for name, ending in (("sr", ""), ("bicubic", "_bicubic")):
        whole = image[name]
        ours = inside(whole)
        values["l1" + ending] = losses.l1(ours, hr, valid)
        values["sam" + ending] = losses.sam(ours, hr, valid)
        values["psnr" + ending] = metrics.psnr(ours, hr, valid)
        values["ssim" + ending] = metrics.ssim(ours, hr, valid)
        values["consistency" + ending] = losses.consistency(whole, image["lr"], image["valid"], psf=psf)
    side, scale = SEEN // psf.scale, psf.scale
    sr, hr, valid = (central(image[name], side * scale, step=scale) for name in ("sr", "hr", "valid"))
    if valid.any():
        terms = content.terms(sr, hr, valid, central(image["lr"], side), skip=values)
        values |= {name: value for name, value in terms.items() if is_measured(name, valid, psf)}
    values["psnr_gain"] = values["psnr"] - values["psnr_bicubic"]
    whole = image["valid"]
    return {
        name: value
        for name, value in values.items()
        if not value.isnan() and (not name.startswith("consistency") or is_measured("consistency", whole, psf))
    }


def is_measured(name: str, valid: Tensor, psf: PSF) -> bool:
    """Whether a loss compares anything where only these pixels are valid; else it is 0 and says nothing.

    Args:
        name: Name of the loss.
        valid: Valid pixels (batch, y, x).
        psf: How SR is degraded to be compared with LR.
    """
    if name == "consistency":  # wants every HR pixel under an LR pixel's kernel
        return bool((degrade((~valid).float().unsqueeze(1), psf) == 0).any())
    if name in ("tv", "gradient"):  # want neighbours
        return bool((valid[:, 1:] & valid[:, :-1]).any() or (valid[..., 1:] & valid[..., :-1]).any())
    return bool(valid.any())


def inside(image: Tensor) -> Tensor:
    """Image (..., y, x) without its border."""
    return image[..., BORDER:-BORDER, BORDER:-BORDER]


def central(image: Tensor, side: int, *, step: int = 1) -> Tensor:
    """The middle of an image (..., y, x), at most ``side`` pixels along each axis, from a multiple of ``step`` on."""
    for axis in (-2, -1):
        spare = max(image.shape[axis] - side, 0)
        image = image.narrow(axis, spare // (2 * step) * step, image.shape[axis] - spare)
    return image
