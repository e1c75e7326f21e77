"""Augmentation of batches on their device: orientations, gain, noise, cut-blur; nothing is clipped or changed in place.

A batch is ``{"lr", "hr": (batch, band, y, x), "lr_valid", "valid": (batch, y, x)}`` or a part of it. Random numbers are
drawn on the CPU from the generator that is passed, so a GPU gives the same batch. (The random augmentations of kornia
draw from torch's global generator, and its brightness clips to 0..1 by default; the tests take it as the oracle.)
"""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from geosr.errors import GridError
from geosr.models.orientation import orient

Batch = Mapping[str, Tensor]
IMAGES = ("lr", "hr")
SPATIAL = ("lr", "hr", "lr_valid", "valid")


def d4(batch: Batch, generator: Generator) -> dict[str, Tensor]:
    """The batch with every item in an orientation of its own, the same for its LR and HR image and their masks.

    Raises:
        GridError: The images are not square.
    """
    spatial = {name: batch[name] for name in SPATIAL if name in batch}
    for name, image in spatial.items():
        if image.shape[-2] != image.shape[-1]:
            raise GridError(f"{name} has {image.shape[-2]} x {image.shape[-1]} pixels; only squares turn into squares")
    elements = torch.randint(8, (_items(batch),), generator=generator).tolist()
    turned = {
        name: torch.stack([orient(item, element) for item, element in zip(image, elements, strict=True)])
        for name, image in spatial.items()
    }
    return {**batch, **turned}


def gain(batch: Batch, generator: Generator, *, limit: float, per_band: bool = False) -> dict[str, Tensor]:
    """The batch with the images of each item multiplied by a factor, log-uniform from 1/limit to limit.

    Args:
        batch: The batch; LR and HR image get the same factor.
        generator: Where the factors are drawn.
        limit: The largest factor.
        per_band: A factor for each band instead of one for all; LR and HR must then have the same bands.
    """
    images = {name: batch[name] for name in IMAGES if name in batch}
    bands = {image.shape[1] for image in images.values()}
    if per_band and len(bands) > 1:
        raise GridError(f"LR and HR have different numbers of bands ({sorted(bands)}), so a gain per band is undefined")
    draws = torch.rand((_items(batch), max(bands) if per_band else 1), generator=generator)
    factors = limit ** (2 * draws - 1)
    return {**batch, **{name: image * factors[..., None, None].to(image) for name, image in images.items()}}


def noise(batch: Batch, generator: Generator, *, deviation: float) -> dict[str, Tensor]:
    """The batch with white Gaussian noise on its LR images; its deviation, in reflectance, is uniform up to a limit.

    Args:
        batch: The batch; without LR images it stays as it is.
        generator: Where deviations and noise are drawn.
        deviation: The largest standard deviation, reflectance; each band of each item has its own.
    """
    if "lr" not in batch:
        return dict(batch)
    lr = batch["lr"]
    deviations = deviation * torch.rand((*lr.shape[:2], 1, 1), generator=generator)
    return {**batch, "lr": lr + (deviations * torch.randn(lr.shape, generator=generator)).to(lr)}


def cutblur(batch: Batch, generator: Generator, *, probability: float, largest: float = 0.7) -> dict[str, Tensor]:
    """The batch with a rectangle of each LR image replaced by HR content, or everything but the rectangle.

    CutBlur pastes between an HR image and an LR image upsampled by repetition, for networks whose input has HR size.
    These networks take LR size, so what the paper pastes at HR size is averaged back over scale x scale pixels. This
    undoes the repetition: LR pixels that stay are exactly unchanged, and those replaced are the block means of the HR
    image, sharper than LR by the blur that made it. HR does not change. A pixel is replaced only where all of its HR
    pixels are valid and so is its own.

    Args:
        batch: The batch, with LR and HR images of the same bands.
        generator: Where rectangles are drawn.
        probability: Share of the items that are mixed.
        largest: Largest side of the rectangle, as a share of the image's.

    References:
        J. Yoo, N. Ahn, K.-A. Sohn, "Rethinking data augmentation for image super-resolution", CVPR 2020, section 3.2.
    """
    lr, hr = batch["lr"], batch["hr"]
    items, bands, height, width = lr.shape
    if hr.shape[1] != bands or hr.shape[2] % height or hr.shape[2] // height * width != hr.shape[3]:
        raise GridError(f"LR {tuple(lr.shape)} and HR {tuple(hr.shape)} must have the same bands and an exact scale")
    scale = hr.shape[2] // height
    draws = torch.rand((items, 6), generator=generator)
    sides = [(draws[:, i] * largest * length).ceil() for i, length in ((0, height), (1, width))]
    starts = [(draws[:, 2 + i] * (length - sides[i] + 1)).floor() for i, length in ((0, height), (1, width))]
    rows, columns = (
        (torch.arange(length) >= starts[i][:, None]) & (torch.arange(length) < (starts[i] + sides[i])[:, None])
        for i, length in ((0, height), (1, width))
    )
    inside = rows[:, :, None] & columns[:, None, :]
    swap = (inside ^ (draws[:, 4] < 0.5)[:, None, None]) & (draws[:, 5] < probability)[:, None, None]
    swap = swap.to(lr.device)
    if "valid" in batch:
        swap = swap & batch["valid"].unflatten(1, (height, scale)).unflatten(3, (width, scale)).all(4).all(2)
    if "lr_valid" in batch:
        swap = swap & batch["lr_valid"]
    means = torch.nn.functional.avg_pool2d(hr, scale)
    return {**batch, "lr": torch.where(swap[:, None], means.to(lr), lr)}


def _items(batch: Batch) -> int:
    return next(len(batch[name]) for name in SPATIAL if name in batch)
