"""The eight orientations of an image on a square grid, and a network's answers to all of them as one."""

from collections.abc import Callable

import torch
from torch import Tensor

from geosr.models.padding import padded

ORIENTATIONS = range(8)
"""Elements of the dihedral group D4."""


def orient(image: Tensor, element: int) -> Tensor:
    """The image (..., y, x) in one of the eight orientations of the square: quarter turns, from 4 on mirrored as well.

    >>> orient(torch.tensor([[1, 2], [3, 4]]), 5).tolist()
    [[4, 2], [3, 1]]
    """
    turned = torch.rot90(image, element % 4, (-2, -1))
    return turned.flip(-1) if element >= 4 else turned


def orient_back(image: Tensor, element: int) -> Tensor:
    """The image (..., y, x) that `orient` brought into this orientation.

    >>> orient_back(orient(torch.tensor([[1, 2], [3, 4]]), 5), 5).tolist()
    [[1, 2], [3, 4]]
    """
    return torch.rot90(image.flip(-1) if element >= 4 else image, -(element % 4), (-2, -1))


def self_ensemble(network: Callable[[Tensor], Tensor], lr: Tensor, *, scale: int, multiple_of: int = 1) -> Tensor:
    """Mean SR reflectance (batch, band, y * scale, x * scale) of the eight orientations, each turned back.

    It takes eight times as long. A pixel depends on as much of the image around it as in a single answer, so that
    tiles with the same halo stay exact; and where each answer degrades to LR, their mean does.

    Args:
        network: From LR to SR reflectance, images of any size.
        lr: LR reflectance (batch, band, y, x).
        scale: SR pixels per LR pixel.
        multiple_of: LR pixels along one side of the blocks that the network works on. The image is grown to whole ones
            before it is turned, so that the blocks of all orientations are the same pixels.

    References:
        R. Timofte, R. Rothe, L. Van Gool, "Seven ways to improve example-based single image super resolution",
        CVPR 2016, section 3.4; as self-ensemble, B. Lim et al., "Enhanced deep residual networks for single image
        super-resolution", CVPRW 2017, section 3.3.
    """
    whole = padded(lr, multiple_of=multiple_of)
    total = torch.zeros(())
    for element in ORIENTATIONS:
        total = total + orient_back(network(orient(whole, element).contiguous()), element)
    height, width = lr.shape[-2] * scale, lr.shape[-1] * scale
    return (total / len(ORIENTATIONS))[..., :height, :width]
