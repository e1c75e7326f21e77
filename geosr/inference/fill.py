"""Invalid pixels filled from their valid neighbours, so that a network sees no cliff at the edge of the data."""

import warnings

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.fill import fillnodata

# Rasterio silences it for the image in memory that it fills, but threads that do so at a time undo that for each other.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.fill")


def fill_invalid(image: NDArray[np.float32], valid: NDArray[np.bool_], *, distance: int) -> NDArray[np.float32]:
    """Image (band, y, x) without NaN: invalid pixels interpolated from the valid ones within ``distance``, else 0.

    Args:
        image: Reflectance; what its invalid pixels hold is ignored.
        valid: Mask (y, x).
        distance: Pixels that a value may come from.
    """
    if valid.all():
        return image
    filled = np.where(valid, image, np.float32(0))
    if valid.any():
        for band in filled:
            band[:] = fillnodata(band, mask=valid, max_search_distance=distance)
    return filled


def fill_distance(halo: int) -> int:
    """LR pixels that invalid pixels are filled over: enough for every one that a valid pixel's output depends on."""
    return halo + halo // 2 + 1  # the corner of the halo is sqrt(2) halo away
