"""Sharpened targets for losses, as Real-ESRGAN uses them; they are no longer reflectance as measured."""

import torch
from torch import Tensor

from geosr.degrade.kernels import filtered


def usm_sharpen(
    image: Tensor, *, weight: float = 0.5, radius: int = 50, threshold: float = 10.0, white: float = 0.4
) -> Tensor:
    """Image (batch, band, y, x) with its detail exaggerated where there is some (unsharp mask), in its unit.

    What differs from a Gaussian blur by more than ``threshold`` makes a mask; blurred itself, it says how much of
    ``weight`` times the difference is added. Nothing is clipped.

    Args:
        image: Reflectance.
        weight: Share of the difference that is added.
        radius: Pixels along a side of the blur's kernel, the next odd number if it is even. Its standard deviation is
            OpenCV's for that size: ``0.3 ((radius - 1) / 2 - 1) + 0.8``.
        threshold: Difference that counts as detail, in 1/255 of ``white``.
        white: Reflectance that stands for 255; 0.4 suits land.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, section 3.4 (sharpened ground truth).
    """
    side = radius + 1 - radius % 2
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    position = torch.arange(side, dtype=torch.float64) - side // 2
    line = torch.exp(-0.5 * (position / sigma) ** 2)
    kernel = torch.outer(line, line)
    kernels = (kernel / kernel.sum()).expand(len(image), -1, -1)
    work = image if image.dtype in (torch.float32, torch.float64) else image.float()
    with torch.autocast(image.device.type, enabled=False):
        detail = work - filtered(work, kernels)
        mask = filtered((detail.abs() > threshold / 255 * white).to(work), kernels)
        return (work + mask * detail * weight).to(image.dtype)
