"""Training pairs of guided bands from scenes that hold no sharper ones: everything one step coarser."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from geosr.degrade.masks import coarse_valid, filled
from geosr.models.guided import block_means, repeated

See = Callable[[Tensor], Tensor]
"""An image (batch, band, y, x) as a sensor of ``step`` times larger pixels would have seen it."""


def reduced(batch: Mapping[str, Tensor], *, guide: int, step: int, see: See, see_guide: See) -> dict[str, Tensor]:
    """The batch at reduced resolution: the coarse bands as they are become ``hr``, and both are degraded for ``lr``.

    The guide is degraded to the grid of the coarse bands, and these to one as much coarser again, whose pixels are then
    repeated: what a network learns to make of 20 and 40 m it is applied to at 10 and 20 m. That this is the same task
    is Wald's assumption.

    Args:
        batch: ``hr`` reflectance (batch, band, y, x), the guide first and the coarse bands in blocks of repeated
            pixels, and ``valid`` (batch, y, x); sides are multiples of ``step ** 2``. Coarse bands that are not
            repeated, as in scenes with all bands on one grid, are degraded once more: averages would be sharper than
            what is measured.
        guide: Number of bands that guide.
        step: Pixels along the side of a block.
        see: Degrades coarse bands.
        see_guide: Degrades the guide.

    References:
        L. Wald, T. Ranchin, M. Mangolini, "Fusion of satellite images of different spatial resolutions: assessing the
        quality of resulting images", PE&RS 63(6), 1997.
    """
    image = filled(batch["hr"], batch["valid"])
    coarse = image[:, guide:]
    hr, valid = block_means(coarse, step), coarse_valid(batch["valid"], step)
    same = (coarse == repeated(hr, step)).float().mean(dim=(1, 2, 3)) > 0.5  # but for those that were filled
    if not same.all():
        hr = torch.where(same[:, None, None, None], hr, see(coarse))
    lr = torch.cat([see_guide(image[:, :guide]), repeated(see(hr), step)], dim=1)
    return {**batch, "hr": hr, "valid": valid, "lr": lr, "lr_valid": repeated(coarse_valid(valid, step), step)}
