"""The reader of SEN2VENµS on miniatures of both published layouts: their files and types, a few synthetic pixels."""

import csv
import os
import zipfile

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import box

from geosr import open_scene
from geosr.data.catalog import scenes_of
from geosr.data.datasets import GeoPairDataset
from geosr.data.sen2venus import _layers, read_sen2venus
from geosr.errors import GridError, InputError
from geosr.grid import finer

RANDOM = np.random.default_rng(0)
LEFT, TOP = 300_000.0, 4_800_000.0
SITE, DAY = "SUDOUE-4", "2018-06-01"


def sen2venus_site(root, corners, *, side=8, site=SITE, day=DAY, dtype="int16", crs="EPSG:32631", step=10.0):
    """A miniature of one site and day of version 1: patches of ``side`` LR pixels instead of 128, VENµS at twice that.

    ``corners`` are the first row and column of each patch in LR pixels.
    """
    folder = root / site
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{site}_31TCJ_{day}"
    whole = RANDOM.integers(-200, 9000, (4, 64 * 2, 64 * 2)).astype(dtype)
    patches = {
        "05m": np.stack([whole[:, 2 * r : 2 * (r + side), 2 * c : 2 * (c + side)] for r, c in corners]),
        "10m": np.stack([whole[:, ::2, ::2][:, r : r + side, c : c + side] for r, c in corners]),
    }
    for gsd, array in patches.items():
        torch.save(torch.from_numpy(array.copy()), folder / f"{stem}_{gsd}_b2b3b4b8.pt")
    boxes = [
        box(LEFT + c * step, TOP - (r + side) * step, LEFT + (c + side) * step, TOP - r * step) for r, c in corners
    ]
    geopandas.GeoDataFrame(geometry=boxes, crs=crs).to_file(folder / f"{stem}_patches.gpkg", driver="GPKG")
    row = {
        "venus_product_id": "VENUS-XS", "sentinel2_product_id": "SENTINEL2A", "vns_site": site, "s2_tile": "31TCJ",
        "date": day, "patches_gpkg": f"{stem}_patches.gpkg", "nb_patches": len(corners),
        **{f"tensor_{gsd}_b2b3b4b8": f"{stem}_{gsd}_b2b3b4b8.pt" for gsd in patches},
    }  # fmt: skip
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row, delimiter="\t")
        writer.writeheader()
        writer.writerow(row)
    return patches


def sen2venus_archives(root, corners, *, side=8, site=SITE, day=DAY, shift=0.0):
    """A miniature of one site and day of version 2: each patch is a GeoTIFF in one of two archives."""
    folder = root / site
    folder.mkdir(parents=True, exist_ok=True)
    whole = RANDOM.integers(-200, 9000, (4, 64 * 2, 64 * 2)).astype("int16")
    patches, rows = {"05m": [], "10m": []}, [{"": number} for number in range(len(corners))]
    for gsd, factor in (("05m", 2), ("10m", 1)):
        kind = f"b2b3b4b8_{gsd}"
        stem = f"{site}_{day}_31TCJ_{kind}"
        with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for number, (row, column) in enumerate(corners):
                image = whole[:, :: 2 // factor, :: 2 // factor]
                patch = image[:, row * factor : (row + side) * factor, column * factor : (column + side) * factor]
                east = LEFT + 10 * column + (shift if gsd == "05m" else 0)
                with rasterio.MemoryFile() as memory:
                    with memory.open(
                        driver="GTiff", count=4, height=side * factor, width=side * factor, dtype="int16",
                        crs="EPSG:32631", transform=from_origin(east, TOP - 10 * row, 10 / factor, 10 / factor),
                    ) as file:  # fmt: skip
                        file.write(patch)
                    archive.writestr(f"{stem}/{number:05}.tif", memory.read())
                patches[gsd].append(patch)
                rows[number][kind] = f"{stem}.zip/{stem}/{number:05}.tif"
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return patches


LAYOUTS = pytest.mark.parametrize("make", [sen2venus_site, sen2venus_archives], ids=["version 1", "version 2"])


@LAYOUTS
def test_sen2venus_patches_lie_at_their_places(tmp_path, make):
    corners = [(3, 5), (3, 13), (30, 40)]
    patches = make(tmp_path, corners)
    (scene,) = read_sen2venus(tmp_path)
    assert scene.name in (f"{SITE}_31TCJ_{DAY}", f"{SITE}_{DAY}_31TCJ")
    assert scene.start.isoformat() == "2018-06-01T00:00:00+00:00"
    assert scene.end.date() == scene.start.date()
    with open_scene(scene.lr[0]) as lr, open_scene(scene.hr[0]) as hr:
        assert lr.bands == hr.bands == ("B02", "B03", "B04", "B08")
        assert finer(lr.geobox, 2) == hr.geobox
        assert (lr.geobox.affine.c, lr.geobox.affine.f) == (300_050.0, 4_799_970.0)
        for opened, gsd, factor in ((lr, "10m", 1), (hr, "05m", 2)):
            read = opened.read()
            covered = np.zeros(read.valid.shape, bool)
            for patch, (row, column) in zip(patches[gsd], corners, strict=True):
                window = tuple(slice((n - m) * factor, (n - m + 8) * factor) for n, m in ((row, 3), (column, 5)))
                np.testing.assert_allclose(read.array[(slice(None), *window)], patch * 1e-4, atol=1e-6)
                covered[window] = True
            np.testing.assert_array_equal(read.valid, covered)


@LAYOUTS
def test_sen2venus_patches_that_overlap_go_to_further_scenes(tmp_path, make):
    patches = make(tmp_path, [(0, 0), (4, 4), (0, 8)])
    first, second = read_sen2venus(tmp_path)
    assert second.name == f"{first.name}_1"
    with open_scene(first.hr[0]) as one, open_scene(second.hr[0]) as two:
        assert one.geobox == two.geobox
        np.testing.assert_allclose(two.read((slice(8, 24), slice(8, 24))).array, patches["05m"][1] * 1e-4, atol=1e-6)
        assert two.read().valid.sum() == 16 * 16
        assert one.read().valid.sum() == 2 * 16 * 16


@LAYOUTS
def test_sen2venus_is_prepared_once(tmp_path, make):
    make(tmp_path, [(0, 0)])
    (scene,) = read_sen2venus(tmp_path)
    written = os.stat(scene.hr[0]).st_mtime_ns
    assert os.stat(read_sen2venus(tmp_path)[0].hr[0]).st_mtime_ns == written


@LAYOUTS
def test_sen2venus_stays_usable_when_its_folder_moves(tmp_path, make):
    make(tmp_path / "here", [(0, 0), (40, 40)])
    read_sen2venus(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    (scene,) = read_sen2venus(tmp_path / "there")
    with open_scene(scene.hr[0]) as hr:
        assert hr.read().valid.sum() == 2 * 16 * 16


@LAYOUTS
def test_patches_that_touch_are_one_image(tmp_path, make):
    patches = make(tmp_path, [(0, 0), (0, 8)])
    dataset = GeoPairDataset(read_sen2venus(tmp_path), ("B02", "B03", "B04", "B08"), size=16)
    assert len(dataset.table) == 3  # one lies across the two
    sample = dataset[dataset.table[1]]
    np.testing.assert_allclose(sample["hr"][:, :, :8], patches["05m"][0][:, :, 8:] * 1e-4, atol=1e-6)
    np.testing.assert_allclose(sample["lr"][:, :, 4:], patches["10m"][1][:, :, :4] * 1e-4, atol=1e-6)
    assert sample["valid"].all()
    assert sample["lr_valid"].all()


def test_a_missing_archive_is_named(tmp_path):
    sen2venus_archives(tmp_path, [(0, 0)])
    (tmp_path / SITE / f"{SITE}_{DAY}_31TCJ_b2b3b4b8_10m.zip").unlink()
    with pytest.raises(InputError, match=r"b2b3b4b8_10m\.zip is missing, which .*index\.csv names"):
        read_sen2venus(tmp_path)


def test_halves_of_a_pair_at_different_places_are_refused(tmp_path):
    sen2venus_archives(tmp_path, [(0, 0), (0, 8)], shift=5)
    with pytest.raises(GridError, match=r"05m/00000\.tif and .*10m/00000\.tif cover different places"):
        read_sen2venus(tmp_path)


def test_every_site_is_read(tmp_path):
    for site, day in (("ALSACE", "2018-02-14"), ("ARM", "2019-03-02")):
        sen2venus_site(tmp_path / "unpacked", [(0, 0)], site=site, day=day)
    assert [scene.name[:6] for scene in scenes_of("SEN2VENuS", tmp_path)] == ["ALSACE", "ARM_31"]


def test_a_tensor_of_another_kind_is_refused(tmp_path):
    sen2venus_site(tmp_path, [(0, 0)], dtype="float32")
    with pytest.raises(InputError, match=r"holds torch.float32 \(1, 4, 16, 16\); it should be int16"):
        read_sen2venus(tmp_path)


def test_a_pickle_that_is_no_tensor_is_not_run(tmp_path):
    sen2venus_site(tmp_path, [(0, 0)])
    torch.save(os.system, tmp_path / SITE / f"{SITE}_31TCJ_{DAY}_05m_b2b3b4b8.pt")
    with pytest.raises(InputError, match="is no tensor file that can be read"):
        read_sen2venus(tmp_path)


def test_a_missing_tensor_is_named(tmp_path):
    sen2venus_site(tmp_path, [(0, 0)])
    (tmp_path / SITE / f"{SITE}_31TCJ_{DAY}_10m_b2b3b4b8.pt").unlink()
    with pytest.raises(InputError, match=r"10m_b2b3b4b8\.pt is missing, which .*index\.csv names"):
        read_sen2venus(tmp_path)


def test_an_index_of_something_else_is_named(tmp_path):
    (tmp_path / "index.csv").write_text("path,level\n")
    with pytest.raises(InputError, match=r"has the columns path,level; an index of SEN2VENµS has"):
        read_sen2venus(tmp_path)


@pytest.mark.parametrize(
    ("corners", "more", "message"),
    [
        ([(0, 0), (0, 8.4)], {}, "lie on no common grid of 10 m"),
        ([(0, 0)], {"step": 20.0}, "are not 80 m wide and high"),
        ([(0, 0)], {"crs": "EPSG:4326"}, "should be in metres"),
    ],
)
def test_footprints_that_do_not_fit_are_refused(tmp_path, monkeypatch, corners, more, message):
    patches = [(int(row), int(column)) for row, column in corners]
    sen2venus_site(tmp_path, patches, **more)
    if patches != corners:
        path = tmp_path / SITE / f"{SITE}_31TCJ_{DAY}_patches.gpkg"
        table = geopandas.read_file(path)
        table.loc[1, "geometry"] = geopandas.GeoSeries([table.geometry[1]]).translate(xoff=4)[0]
        table.to_file(path, driver="GPKG")
    with pytest.raises(GridError, match=message):
        read_sen2venus(tmp_path)


def test_footprints_of_another_number_are_refused(tmp_path):
    sen2venus_site(tmp_path, [(0, 0)])
    tensor = tmp_path / SITE / f"{SITE}_31TCJ_{DAY}_05m_b2b3b4b8.pt"
    torch.save(torch.zeros((2, 4, 16, 16), dtype=torch.int16), tensor)
    with pytest.raises(GridError, match=r"has 2 patches and .* 1 footprints"):
        read_sen2venus(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30), st.integers(1, 12))
def test_layers_hold_every_patch_once_and_none_overlaps(corners, size):
    layers = _layers(np.array(corners), size)
    assert sorted(member for layer in layers for member in layer) == list(range(len(corners)))
    for layer in layers:
        count = np.zeros((60, 60), int)
        for member in layer:
            row, column = corners[member]
            count[row : row + size, column : column + size] += 1
        assert count.max() == 1
