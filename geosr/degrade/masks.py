"""What a degradation makes of invalid pixels: they blur into nothing, and an LR pixel over one is invalid."""

import torch
from torch import Tensor


def filled(image: Tensor, valid: Tensor) -> Tensor:
    """Image (batch, band, y, x) with the mean of its valid pixels, band by band, where ``valid`` (batch, y, x) is not.

    >>> filled(torch.tensor([[[[1.0, 3.0, 0.0]]]]), torch.tensor([[[True, True, False]]])).flatten().tolist()
    [1.0, 3.0, 2.0]
    """
    if valid.all():
        return image
    mask = valid.unsqueeze(1)
    mean = torch.where(mask, image, 0).sum((-2, -1), keepdim=True) / mask.sum((-2, -1), keepdim=True).clamp(min=1)
    return torch.where(mask, image, mean)


def coarse_valid(valid: Tensor, scale: int) -> Tensor:
    """LR pixels (batch, y / scale, x / scale) under which every HR pixel is valid.

    >>> coarse_valid(torch.tensor([[[True, True, True, False], [True, True, True, True]]]), 2)
    tensor([[[ True, False]]])
    """
    return valid.unflatten(-2, (-1, scale)).unflatten(-1, (-1, scale)).all(-1).all(-2)
