"""Separable filters between two grids: gather fine pixels into coarse ones, spread coarse ones over fine ones.

These are strided convolutions and their transposes. As sums of shifted slices they run several times faster on a CPU
than ``conv2d`` does with one channel, on any device and in any floating type, and every step stays fp32 under autocast.
Into an exported graph they go as convolutions: other runtimes copy a slice where PyTorch only looks at it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def gather(fine: Tensor, kernel: Sequence[float], step: int) -> Tensor:
    """Coarse image whose pixel (i, j) is the kernel-weighted sum of the fine pixels from (i, j) * step on.

    Args:
        fine: Image (..., y, x).
        kernel: Weights along one axis, the same for both.
        step: Fine pixels per coarse pixel.

    >>> gather(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), [0.5, 0.5], 2)
    tensor([[4.]])
    """
    if exporting():
        return _gather_by_convolution(fine, kernel, step)
    return _gather_rows(_gather_rows(fine, kernel, step).mT.contiguous(), kernel, step).mT.contiguous()


def spread(coarse: Tensor, kernel: Sequence[float], step: int) -> Tensor:
    """Fine image to which coarse pixel (i, j) adds its kernel-weighted value from (i, j) * step on.

    It is the adjoint of `gather`.

    >>> spread(torch.tensor([[4.0]]), [0.5, 0.25], 2)
    tensor([[1.0000, 0.5000],
            [0.5000, 0.2500]])
    """
    if exporting():
        return _spread_by_convolution(coarse, kernel, step)
    return _spread_rows(_spread_rows(coarse.mT.contiguous(), kernel, step).mT.contiguous(), kernel, step)


def bicubic(coarse: Tensor, scale: int) -> Tensor:
    """Image (batch, band, y * scale, x * scale): what ``F.interpolate(mode="bicubic", align_corners=False)`` returns.

    References:
        R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981; with
        a = -0.75, as in PyTorch.
    """
    first = -(3 * scale // 2)  # fine pixel, counted from a coarse pixel's own first, where its influence begins
    taps = 4 * scale - scale % 2
    kernel = [_keys((first + tap + 0.5) / scale - 0.5) for tap in range(taps)]
    fine = spread(F.pad(coarse, (2, 2, 2, 2), mode="replicate"), kernel, scale)
    return crop(fine, 2 * scale - first, coarse.shape[-2] * scale, coarse.shape[-1] * scale)


def crop(image: Tensor, start: int, height: int, width: int) -> Tensor:
    """The ``height`` x ``width`` pixels of an image (..., y, x) from (start, start) on, free to be written to."""
    part = image[..., start : start + height, start : start + width]
    return part.clone() if exporting() else part  # a graph would write into a copy of the whole image


def exporting() -> bool:
    """Whether ``torch.export`` or ``torch.jit.trace`` records what is computed, for images of any size."""
    recording = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return recording or torch.jit.is_tracing()


def _keys(distance: float, a: float = -0.75) -> float:
    """Keys' cubic at a distance in coarse pixels."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def _gather_rows(fine: Tensor, kernel: Sequence[float], step: int) -> Tensor:
    rows = (fine.shape[-2] - len(kernel)) // step + 1
    shifted = [fine[..., tap : tap + step * (rows - 1) + 1 : step, :] for tap in range(len(kernel))]
    return _weighted_sum(shifted, kernel)


def _spread_rows(coarse: Tensor, kernel: Sequence[float], step: int) -> Tensor:
    rows, reach = coarse.shape[-2], -(-len(kernel) // step)
    padded = F.pad(coarse, (0, 0, reach - 1, reach - 1))
    phases = []
    for phase in range(step):  # fine rows of one phase see the same taps: every step-th
        weights = kernel[phase::step] or [0.0]
        shifted = [padded[..., reach - 1 - lag : 2 * reach - 2 - lag + rows, :] for lag in range(len(weights))]
        phases.append(_weighted_sum(shifted, weights))
    fine = torch.stack(phases, dim=-2).flatten(-3, -2)
    return fine[..., : (rows - 1) * step + len(kernel), :]


def _weighted_sum(images: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = images[0] * weights[0]
    for image, weight in zip(images[1:], weights[1:], strict=True):
        total.add_(image, alpha=weight)
    return total


def _gather_by_convolution(fine: Tensor, kernel: Sequence[float], step: int) -> Tensor:
    taps = fine.new_tensor(kernel)
    coarse = F.conv2d(fine.reshape(-1, 1, *fine.shape[-2:]), torch.outer(taps, taps)[None, None], stride=step)
    return coarse.view(*fine.shape[:-2], *coarse.shape[-2:])


def _spread_by_convolution(coarse: Tensor, kernel: Sequence[float], step: int) -> Tensor:
    """One convolution to all ``step ** 2`` phases of the fine image, which are shuffled then."""
    reach = -(-len(kernel) // step)
    taps = F.pad(coarse.new_tensor(kernel), (0, reach * step - len(kernel)))
    phases = taps.view(reach, step).flip(0).T  # of each phase the taps, the one of the furthest coarse pixel first
    weight = torch.einsum("pi,qj->pqij", phases, phases).reshape(step**2, 1, reach, reach)
    fine = F.pixel_shuffle(F.conv2d(coarse.reshape(-1, 1, *coarse.shape[-2:]), weight, padding=reach - 1), step)
    height, width = ((size - 1) * step + len(kernel) for size in coarse.shape[-2:])
    return fine[..., :height, :width].view(*coarse.shape[:-2], height, width)
