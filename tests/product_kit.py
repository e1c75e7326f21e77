"""Sentinel-2 products for tests: real metadata around small JPEG 2000 images of given pixels."""

import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

L2A = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158.SAFE"
"""Name of a real product in ``../shared/data/safe_metadata``; processing baseline 05.09."""
LEFT, TOP, CRS = 300_000, 7_800_000, "EPSG:32601"


def write_jp2(path: Path, pixels: np.ndarray, step: float) -> Path:
    """Write ``pixels``, (y, x) or (band, y, x), without loss as JPEG 2000 at ``step`` metres."""
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "JP2OpenJPEG", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(
        path, "w", crs=CRS, transform=Affine(step, 0, LEFT, 0, -step, TOP), QUALITY=100, REVERSIBLE="YES", **profile
    ) as file:
        file.write(pixels)
    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
    return path


def write_l2a(folder: Path, xml: Path, dn: np.ndarray, scl: np.ndarray, *, granules: int = 1) -> Path:
    """A Level-2A product: B02 B03 B04 B08 of ``dn`` at 10 m, B02 B05 B11 at 20 m, and its scene classification.

    Args:
        folder: Where the ``.SAFE`` folder goes.
        xml: Its MTD_MSIL2A.xml.
        dn: Digital numbers, (4, y, x), sides even.
        scl: Scene classification at 20 m.
        granules: How many granules the product has.
    """
    product = folder / xml.parent.name
    for number in range(granules):
        granule = product / "GRANULE" / f"L2A_T01WCP_A04182{number}_20230625T234624"
        stem = "T01WCP_20230625T234621"
        for band, pixels in zip(("B02", "B03", "B04", "B08"), dn, strict=True):
            write_jp2(granule / "IMG_DATA" / "R10m" / f"{stem}_{band}_10m.jp2", pixels, 10)
        for band in ("B02", "B05", "B11"):
            write_jp2(granule / "IMG_DATA" / "R20m" / f"{stem}_{band}_20m.jp2", dn[0, ::2, ::2], 20)
        write_jp2(granule / "IMG_DATA" / "R20m" / f"{stem}_SCL_20m.jp2", scl, 20)
        (granule / "MTD_TL.xml").write_text("<Level-2A_Tile_ID/>")
    shutil.copy(xml, product / xml.name)
    return product


def zipped(product: Path) -> Path:
    """The product as a zip file beside it; the folder goes."""
    target = product.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(product.rglob("*")):
            if path.is_file():
                file.write(path, f"{product.name}/{path.relative_to(product).as_posix()}")
    shutil.rmtree(product)
    return target


def crafted_zip(path: Path, entries: list[tuple[str, bytes]], *, deflated: bool = False) -> Path:
    """A zip file with entries of these names, whatever they are."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of names that occur twice
        for name, content in entries:
            file.writestr(name, content, zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED)
    return path
