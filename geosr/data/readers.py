"""Readers of published data sets: from the folder that a user downloaded to scenes that `geosr.open_scene` reads."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from affine import Affine
from odc.geo.geobox import GeoBox

from geosr.data.patches import SceneFiles
from geosr.data.sen2venus import read_sen2venus
from geosr.data.virtual import CACHE, describe, geobox_of, opened
from geosr.demo import demo_scene, example_folder
from geosr.errors import InputError

logger = logging.getLogger(__name__)

RGBN = ("B04", "B03", "B02", "B08")
"""Red, green, blue, near infrared: the order of SEN2NAIP and of WorldStrat's ``_rgbn.tiff``."""

Reader = Callable[[Path], list[SceneFiles]]
"""From the folder of a data set to its scenes; no scenes where nothing has its layout."""


def read_demo(root: Path) -> list[SceneFiles]:
    """The scene that ships with geosr; ``root`` does not matter."""
    return [SceneFiles("virginia_coast", (str(demo_scene()),))]


def read_example(root: Path) -> list[SceneFiles]:
    """The example set that ships with geosr; ``root`` does not matter."""
    return [SceneFiles(path.name, (str(path),)) for path in sorted(example_folder().glob("*.tif"))]


def read_sen2naip(root: Path) -> list[SceneFiles]:
    """Pairs of SEN2NAIP's cross-sensor part: Sentinel-2 at 10 m, NAIP at 2.5 m.

    The layout is that of the unpacked ``cross-sensor.zip``: ``ROI_0000/lr.tif`` (reflectance times 10000) and
    ``ROI_0000/hr.tif`` (8 bit, taken as 255 = 100 %, which is no calibrated reflectance).

    Raises:
        InputError: A folder holds half a pair, or a file is damaged.

    References:
        Aybar et al. (2024), SEN2NAIP, Scientific Data 11, 1389, doi:10.1038/s41597-024-04214-y.
    """
    folders = sorted({path.parent for name in ("lr.tif", "hr.tif") for path in _found(root, f"ROI_*/{name}")})
    scenes = []
    for folder in folders:
        lr, hr = folder / "lr.tif", folder / "hr.tif"
        if missing := [path.name for path in (lr, hr) if not path.is_file()]:
            raise InputError(f"{folder} has no {missing[0]}; a pair needs lr.tif and hr.tif, so download it again")
        name = folder.relative_to(root).as_posix()
        cache = root / CACHE / name
        scenes.append(
            SceneFiles(
                name,
                hr=(describe(cache / "hr.vrt", hr, bands=RGBN, scale=1 / 255),),
                lr=(describe(cache / "lr.vrt", lr, bands=RGBN, scale=1e-4, nodata=0),),
            )
        )
    return scenes


def read_worldstrat(root: Path) -> list[SceneFiles]:
    """WorldStrat's SPOT 6/7 images (red, green, blue, near infrared at 6 m) as HR images without LR.

    The layout is that of the unpacked archives: ``hr_dataset/12bit/AREA/AREA_rgbn.tiff`` beside
    ``lr_dataset/AREA/L2A/AREA-N-L2A_data.tiff``. The SPOT files hold no georeferencing; both were cut to one box in
    degrees, so they are placed on the bounds of a Sentinel-2 file of their area, or nowhere where there is none. That
    file's pixels are about 10 m: no whole number of SPOT pixels fits one, so the two are no pair without resampling.

    References:
        Cornebise et al. (2022), The WorldStrat Dataset, arXiv:2207.06418; dataset_generation/SPOTDownloader.py and
        src/datasets.py of https://github.com/worldstrat/worldstrat (boxes, band order, division by 10000).
    """
    scenes = []
    for image in _found(root, "hr_dataset/12bit/*/*_rgbn.tiff"):
        area = image.parent.name
        revisits = sorted((image.parents[3] / "lr_dataset" / area / "L2A").glob("*-L2A_data.tiff"))
        path = root / CACHE / area / "hr.vrt"
        scenes.append(
            SceneFiles(area, (describe(path, image, bands=RGBN, scale=1e-4, geobox=_placed(image, revisits)),))
        )
    if scenes:
        logger.info("WorldStrat: %d SPOT images as HR; Sentinel-2 fits no whole number of their pixels", len(scenes))
    return scenes


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "demo": read_demo,
        "example": read_example,
        "sen2naip": read_sen2naip,
        "sen2venus": read_sen2venus,
        "worldstrat": read_worldstrat,
    }
)
"""Every reader, by the name that ``geosr:reader`` of a catalogue entry gives."""

LAYOUTS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "nothing",
        "example": "nothing",
        "sen2naip": "ROI_*/lr.tif and ROI_*/hr.tif",
        "sen2venus": "SITE/index.csv beside the tensors (version 1) or archives (version 2) that it names",
        "worldstrat": "hr_dataset/12bit/AREA/AREA_rgbn.tiff and lr_dataset/AREA/L2A/AREA-N-L2A_data.tiff",
    }
)
"""What each reader expects to find, in words."""


def _found(root: Path, pattern: str) -> list[Path]:
    """Files below ``root`` that match, without those that geosr wrote; archives often unpack into a folder more."""
    return sorted(path for path in root.rglob(pattern) if CACHE not in path.relative_to(root).parts)


def _placed(image: Path, revisits: list[Path]) -> GeoBox:
    """Grid of a SPOT image on the bounds of the first Sentinel-2 revisit of its area."""
    with opened(image) as file:
        height, width = file.shape
    if not revisits:
        return GeoBox((height, width), Affine.identity(), None)
    with opened(revisits[0]) as file:
        coarse = geobox_of(file)
    steps = Affine.scale(coarse.shape.x / width, coarse.shape.y / height)
    return GeoBox((height, width), coarse.affine * steps, coarse.crs)
