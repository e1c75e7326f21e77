"""Losses of spectral indices: how far what users compute from the bands is off."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geosr.errors import ConfigError
from geosr.losses.pixel import l1
from geosr.sensors import INDICES

FAINT = 0.01
"""Sum of two reflectances below which it is taken to be this: an index of darker pixels is noise, and steep."""


def indices(sr: Tensor, hr: Tensor, valid: Tensor, *, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Mean absolute error of normalised differences ``(a - b) / (a + b)``, without a unit, over the valid pixels.

    Reflectance below 0 counts as 0, and a sum below ``FAINT`` as ``FAINT``: every index is then between -1 and 1, and
    none changes by more than ``2 / FAINT`` with a reflectance.

    Args:
        sr: SR reflectance (batch, band, y, x).
        hr: HR reflectance.
        valid: Valid pixels (batch, y, x); without any the loss is 0.
        pairs: Which bands a and b each index compares, see ``index_pairs``.
    """
    known = valid.unsqueeze(1)
    sr, hr = torch.where(known, sr, 0.0), torch.where(known, hr, 0.0)  # at once: 0 times NaN is no gradient of 0
    return l1(normalised_differences(sr, pairs), normalised_differences(hr, pairs), valid)


def index_pairs(bands: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of the two bands of each of the ``INDICES`` that these bands have.

    Raises:
        ConfigError: They have none.

    >>> index_pairs(["B02", "B03", "B04", "B08"])
    [(3, 2), (1, 3)]
    """
    order = list(bands)
    pairs = [(order.index(a), order.index(b)) for a, b in INDICES.values() if {a, b} <= set(order)]
    if not pairs:
        known = ", ".join(f"{name} ({a} {b})" for name, (a, b) in INDICES.items())
        raise ConfigError(
            f"the loss of spectral indices needs the bands of one of {known}, and Data.bands has {' '.join(bands)}; "
            "add what is missing, or set Training.Losses.indices_weight=0"
        )
    return pairs


def normalised_differences(image: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """One index a pair (batch, pair, y, x)."""
    image = image.clamp(min=0)
    a, b = image[:, [a for a, _ in pairs]], image[:, [b for _, b in pairs]]
    return (a - b) / (a + b).clamp(min=FAINT)
