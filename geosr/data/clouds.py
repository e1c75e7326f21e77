"""Clouds: which pixels of a scene a mask calls cloudy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geosr.errors import GridError
from geosr.io.scene import open_scene

CLOUDY_CLASSES = (3, 8, 9, 10)
"""Classes of Sentinel-2's scene classification (SCL) that count as cloud [1].

3 cloud shadows, 8 cloud of medium probability, 9 cloud of high probability, 10 thin cirrus.

References:
    [1] Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), scene classification map of Level-2A.
"""


class CloudMask:
    """Cloudy pixels of a mask file, on any grid that it covers.

    Args:
        path: A raster whose first band is a scene classification, or a mask.
        classes: The values that mean cloud; None: all but 0.
    """

    def __init__(self, path: str, *, classes: tuple[int, ...] | None) -> None:
        self.path, self.classes = path, classes
        self._scene = open_scene(path)

    def close(self) -> None:
        """Close the file."""
        self._scene.close()

    def read(self, geobox: GeoBox, rows: slice) -> NDArray[np.bool_]:
        """Where whole rows of a grid are cloudy, (y, x); each pixel takes the mask's nearest.

        Raises:
            GridError: The mask has another CRS, is turned against the grid, or does not cover it.
        """
        down, across = self._places(geobox)
        down = down[rows]
        here = slice(int(down.min()), int(down.max()) + 1), slice(int(across.min()), int(across.max()) + 1)
        values = self._scene.read_digital(here, self._scene.bands[:1])[0]
        cloudy = values != 0 if self.classes is None else np.isin(values, self.classes)
        return cloudy[np.ix_(down - here[0].start, across - here[1].start)]

    def _places(self, geobox: GeoBox) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the mask at the centres of a grid's pixels."""
        mask = self._scene.geobox
        a, b, c, d, e, f = (~mask.affine * geobox.affine)[:6]
        if mask.crs != geobox.crs or max(abs(b), abs(d)) * max(geobox.shape) > 0.5:
            raise GridError(
                f"cloud mask {self._scene.name} is in {mask.crs} and the scene in {geobox.crs}, or turned against it; "
                "bring it to the scene's grid: gdalwarp -t_srs CRS -r near MASK NEW"
            )
        places = []
        for step, start, length, held in zip((e, a), (f, c), geobox.shape, mask.shape, strict=True):
            # A hair is added so that a centre on an edge of the mask falls on the same side everywhere.
            index = np.floor(step * (np.arange(length) + 0.5) + start + 1e-9).astype(np.int64)
            if index.min() < 0 or index.max() >= held:
                raise GridError(
                    f"cloud mask {self._scene.name} covers {tuple(mask.boundingbox)} and the scene reaches over "
                    f"{tuple(geobox.boundingbox)}; give a mask that covers all of it"
                )
            places.append(index)
        return places[0], places[1]
