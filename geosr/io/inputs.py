"""Inputs: what a user names, whatever it is (raster, product, STAC item, folder of bands, Zarr), as one scene."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from geosr.errors import InputError, UsageError
from geosr.io.claims import Claims
from geosr.io.layers import band_in_file_name
from geosr.io.masks import MaskFile, classification_beside, classification_masks, stem_of
from geosr.io.product import Granule, Product, is_product, products_at
from geosr.io.scene import Scene, open_files
from geosr.io.source import RASTERS, zarr_store
from geosr.sensors import QUALITY_SUFFIXES, canonical_band

_EOPF = "measurements/reflectance"
_EOPF_CLASSES = "conditions/mask/l2a_classification/r20m/scl"


def open_input(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    item: str | None = None,
    wanted: Sequence[str] | None = None,
    guide: Sequence[str] = (),
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    sensor: str | None = None,
    baseline: str | None = None,
    resolution: int | None = None,
    mask: Sequence[str] = (),
    mask_dilate: float = 0.0,
) -> Scene:
    """The scene of whatever the user names, as :func:`geosr.io.scene.open_scene` gives it for files.

    Beyond rasters and Zarr groups it takes a Sentinel-2 product (``.SAFE`` folder, zip file, or a metadata file or a
    granule in one), a STAC item (file, address, or a STAC API with `item`), and a folder with the single-band files of
    one scene. Of these it opens the bands that are asked for, at the finest resolution that they share.

    Args:
        sources: What is named; several are the single-band files of one scene.
        item: ``collection/id`` of an item, where the source is the landing page of a STAC API.
        wanted: Bands to open, such as those of a model, where the source offers a choice and `bands` is None.
        guide: Those of them that are to be finer than the others: a product or a folder is opened at two resolutions.
        bands: The same for a source that offers a choice; for files, the names of their bands in file order.
        scale: Reflectance per DN, as for :func:`~geosr.io.scene.open_scene`; likewise the next four.
        offset: Reflectance at DN 0; for a STAC item whose metadata is in doubt, it decides.
        nodata: The DN that marks an invalid pixel.
        sensor: A sensor whose product specification says all three.
        baseline: Its processing baseline.
        resolution: Metres; None: the finest that all bands have.
        mask: Kinds of masks that make pixels invalid: ``clouds`` (with their shadows), ``defects``, ``snow``.
        mask_dilate: Metres around masked pixels that are invalid too; Sentinel-2's masks miss the edges of clouds.

    Raises:
        GeosrError: See its children; the message says what there is and what to do.
    """
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    paths = [os.fspath(source) for source in several]
    claims = Claims(scale, offset, nodata, sensor, baseline)
    chosen = bands if bands is not None else wanted
    select = None if chosen is None else tuple(canonical_band(band) or band for band in chosen)
    if item is not None or (len(paths) == 1 and _is_item(paths[0])):
        scene = _item_scene(paths, item, claims, select, resolution)
    elif len(paths) == 1 and (products := products_at(paths[0])):
        scene = _granule_scene(_only(products, paths[0]), claims, select, resolution, guide=guide)
    elif len(paths) == 1 and _is_folder(paths[0]):
        scene = _granule_scene(folder_granule(paths[0]), claims, select, resolution, guide=guide, ask=True)
    else:
        if len(paths) == 1 and paths[0].lower().endswith(".zip") and os.path.isfile(paths[0]):
            raise InputError(no_product(paths[0]))
        if len(paths) > 1 and (whole := [path for path in paths if _is_item(path) or _is_folder(path)]):
            raise UsageError(f"{whole[0]} is a scene of its own; give it alone, or name the single-band files of one")
        scene = _files_scene(paths, claims, bands, resolution)
    try:
        return scene.mask_with(mask, dilate=mask_dilate)
    except BaseException:
        scene.close()
        raise


def no_product(archive: str) -> str:
    """The message for a zip file that holds something else."""
    return f"{archive} holds no Sentinel-2 product (no MTD_MSIL1C.xml or MTD_MSIL2A.xml); unpack it first"


def _is_item(path: str) -> bool:
    """Whether a path or an address can only mean a STAC item."""
    if re.match(r"https?://", path):
        bare = path.split("?")[0].rstrip("/").lower()
        return not bare.endswith((*RASTERS, ".zip")) and not zarr_store(path)
    return path.lower().endswith((".json", ".geojson")) and not os.path.isdir(path)


def _is_folder(path: str) -> bool:
    """Whether a path is a folder of files, and no Zarr store."""
    return os.path.isdir(path) and not zarr_store(path)


def _item_scene(
    paths: Sequence[str], item: str | None, claims: Claims, bands: Sequence[str] | None, resolution: int | None
) -> Scene:
    """The scene of a STAC item."""
    from geosr.io.stac import item_claims, item_scene, read_item, require_offset

    if len(paths) != 1:
        raise UsageError(f"--item {item} belongs to one STAC API; {len(paths)} inputs were given")
    found = item_scene(read_item(paths[0], item), bands, resolution=resolution)
    masks = classification_masks(found.classes) if found.classes else {}
    told = item_claims(found, claims, decides=True)
    scene = open_files(found.files, told, bands=found.names, masks=masks, acquired=found.start)
    try:
        require_offset(found, claims, scene)
    except BaseException:
        scene.close()
        raise
    return scene


def _only(products: Sequence[Product], path: str) -> Granule:
    """The one granule of a path."""
    if len(products) > 1:
        told = "".join(f"\n  {product.path}" for product in products)
        raise InputError(f"{path} holds {len(products)} products; give one of{told}")
    (product,) = products
    if len(product.granules) > 1:
        told = "".join(f"\n  {product.path}/GRANULE/{granule.name.rpartition('/')[2]}" for granule in product.granules)
        raise InputError(f"{product.name} holds {len(product.granules)} granules; give one of{told}")
    return product.granules[0]


def _granule_scene(
    granule: Granule,
    claims: Claims,
    bands: Sequence[str] | None,
    resolution: int | None,
    *,
    guide: Sequence[str] = (),
    ask: bool = False,
) -> Scene:
    """The scene of a granule, or of a folder of single-band files; a guide's resolution is the one that is given."""
    finer = [band for band in bands or () if band in guide]
    if finer:
        coarser = [band for band in bands or () if band not in guide]
        files = (*granule.select(finer, resolution), *granule.select(coarser, None))
    else:
        files = granule.select(bands, resolution, ask=ask)
    names = [next(band for (band, _), path in granule.images.items() if path == file) for file in files]
    return open_files(files, claims, masks=granule.masks(names))


def _files_scene(paths: Sequence[str], claims: Claims, bands: Sequence[str] | None, resolution: int | None) -> Scene:
    """The scene of rasters or Zarr groups."""
    store = zarr_store(paths[0]) if len(paths) == 1 else None
    if store and (resolution is None or not store[1]):
        root = store[0]
        if resolution is not None:
            paths = [f"{root}/{_EOPF}/r{resolution}m"]
        classes = f"{root}/{_EOPF_CLASSES}"
        masks = classification_masks(classes) if os.path.isdir(classes) else {}
        return open_files(paths, claims, bands=bands, masks=masks)
    if resolution is not None:
        raise UsageError(
            f"--resolution {resolution} chooses among images of a product, an item or a folder; {paths[0]} is a file"
        )
    return open_files(paths, claims, bands=bands, masks=_masks_of_files(paths))


def _masks_of_files(paths: Sequence[str]) -> Mapping[str, tuple[MaskFile, ...]]:
    """The masks of rasters: those of the product that they are part of, or a classification beside the first."""
    here = Path(paths[0]) if paths else Path()
    if "IMG_DATA" in here.parts and not paths[0].startswith("/vsi"):
        granule = Path(*here.parts[: here.parts.index("IMG_DATA")])
        for product in products_at(granule.as_posix()):
            held = {path: band for one in product.granules for (band, _), path in one.images.items()}
            if all(Path(path).as_posix() in held for path in paths):
                return product.granules[0].masks([held[Path(path).as_posix()] for path in paths])
    beside = classification_beside(stem_of(paths[0])) if paths else None
    return classification_masks(beside) if beside else {}


def folder_granule(folder: str) -> Granule:
    """The single-band files of the one scene in a folder, such as ``B02.jp2`` or ``T33UUB_20170527_B04_10m.jp2``.

    Raises:
        InputError: The folder holds no such files, or those of several scenes.
    """
    scenes: dict[str, dict[tuple[str, int], str]] = {}
    others: list[str] = []
    for path in sorted(Path(folder).iterdir()):
        spelt = _name_parts(path.name) if path.suffix.lower() in RASTERS and path.is_file() else None
        if spelt is None:
            if path.suffix.lower() in (*RASTERS, ".zip", ".json", ".zarr") or (path.is_dir() and is_product(path)):
                others.append(path.name)
            continue
        scene, band, resolution = spelt
        images = scenes.setdefault(scene, {})
        key = band, resolution
        if key in images:
            raise InputError(
                f"{folder} holds band {band} twice ({Path(images[key]).name}, {path.name}); give files instead"
            )
        images[key] = str(path)
    scenes = {scene: images for scene, images in scenes.items() if any(band != "SCL" for band, _ in images)}
    if len(scenes) != 1:
        told = [Path(min(images.values())).name for images in scenes.values()] or others
        what = f"{len(scenes)} scenes" if scenes else "no single-band files (B02.jp2, T33UUB_20170527_B04_10m.jp2)"
        listed = "".join(f"\n  {name}" for name in told[:20]) + ("\n  ..." if len(told) > 20 else "")
        more = f"; give one of{listed}" if told else ""
        raise InputError(f"folder {folder} holds {what}{more}")
    (images,) = scenes.values()
    return Granule(os.path.basename(os.path.abspath(folder)), images)


def _name_parts(name: str) -> tuple[str, str, int] | None:
    """The scene, the band and the resolution in metres (0: none) that the name of a single-band file spells.

    >>> _name_parts("T33UUB_20170527_B04_10m.jp2"), _name_parts("B4.tif"), _name_parts("T33UUB_TCI_10m.jp2")
    (('T33UUB_20170527', 'B04', 10), ('', 'B04', 0), None)
    """
    words = re.split(r"[_.\-\s]+", name.rpartition(".")[0])
    band = "SCL" if "SCL" in map(str.upper, words) else band_in_file_name(name)
    if band is None or band.endswith(QUALITY_SUFFIXES):  # the error of a band is no band of the scene
        return None
    place = max(i for i, word in enumerate(words) if band in (word.upper(), canonical_band(word)))
    end = re.fullmatch(r"(\d+)m", words[-1])
    kept = [word for i, word in enumerate(words) if i != place and not (end and i == len(words) - 1)]
    return "_".join(kept), band, int(end[1]) if end else 0
