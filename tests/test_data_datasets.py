import copy
import math
import pickle
import warnings
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchgeo.datasets import (
    random_bbox_assignment,
    random_bbox_splitting,
    random_grid_cell_assignment,
    roi_split,
    stack_samples,
    time_series_split,
)
from torchgeo.samplers import GridGeoSampler, RandomBatchGeoSampler, RandomGeoSampler

from geosr.data import opened
from geosr.data.batches import Samples, collate
from geosr.data.datasets import GeoPairDataset, SceneDataset
from geosr.data.patches import Patch, SceneFiles
from geosr.data.samplers import PatchSampler
from geosr.data.splits import BlockSplit
from geosr.errors import BandError, ConfigError, GridError, RadiometryError
from geosr.io.scene import open_scene
from geosr.testing import coordinate_raster

pytestmark = pytest.mark.filterwarnings("ignore:Use torchgeo:DeprecationWarning")
WEST, NORTH = 400_000, 5_000_000
ROW, COLUMN = 0, 1


def decoded(image):
    """The numbers that a coordinate file holds: world row and column of each pixel, counted in HR pixels."""
    return np.rint(np.asarray(image) * 1e4).astype(int) - 1000


@pytest.fixture
def write(make_raster):
    """A factory of coordinate files: each pixel says where its first HR pixel lies in the world; `mark` is added."""

    def make(name, height, width, *, top=0, left=0, step=1, mark=0, crs="EPSG:32633", invalid=(), third=False):
        rows, columns = coordinate_raster(height, width).array
        dn = np.stack([rows * step + top, columns * step + left]) + 1000
        if third:
            dn = np.concatenate([dn, np.full_like(dn[:1], 1000 + mark)])
        for window in invalid:
            dn[:, *window] = 0
        transform = (
            Affine(10 * step, 0, WEST + 10 * left, 0, -10 * step, NORTH - 10 * top) if crs else Affine.identity()
        )
        names = ["row", "column", "mark"][: len(dn)]
        return str(
            make_raster(
                dn, name=name, dtype="uint16", nodata=0, scale=1e-4, descriptions=names, crs=crs, transform=transform
            )
        )

    return make


@pytest.fixture
def pair(write):
    """HR of 100 x 120 pixels; LR at scale 2 that starts 4 HR rows and columns before it and reaches beyond."""
    hr = write("hr.tif", 100, 120, top=10, left=20, third=True)
    lr = write("lr.tif", 60, 80, top=6, left=16, step=2, third=True)
    return SceneFiles("place", (hr,), (lr,))


def pairs(*scenes, size=16, **arguments):
    return GeoPairDataset(scenes, ["row", "column"], size=size, **arguments)


def assert_registered(sample, scale=2, *, at=None):
    """LR and HR show one place, pixel by pixel, wherever both are valid."""
    hr, lr = decoded(sample["hr"]), decoded(sample["lr"])
    valid, lr_valid = sample["valid"].numpy(), sample["lr_valid"].numpy()
    assert hr.shape[1:] == tuple(scale * length for length in lr.shape[1:]) == valid.shape
    assert lr.shape[1:] == lr_valid.shape
    both = lr_valid & valid[::scale, ::scale]
    assert both.any()
    np.testing.assert_array_equal(hr[:, ::scale, ::scale][:, both], lr[:, both])
    for image, mask in ((sample["hr"], valid), (sample["lr"], lr_valid)):
        assert (image.numpy()[:, ~mask] == 0).all()
        assert image.dtype == torch.float32
    assert_one_grid(hr, valid, 1)
    assert_one_grid(lr, lr_valid, scale)
    if at is not None:
        assert (hr[ROW, 0, 0], hr[COLUMN, 0, 0]) == at


def assert_one_grid(image, valid, step):
    """Valid pixels count rows and columns without a gap."""
    steps = np.indices(valid.shape) * step
    for axis in (ROW, COLUMN):
        assert len(np.unique((image[axis] - steps[axis])[valid])) == 1


# Patches


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_patches_of_a_pair_are_registered(pair, cache):
    dataset = pairs(pair, cache=cache)
    assert dataset.scale == 2
    assert len(dataset.table) > 50
    for patch in dataset.table:
        # The LR grid starts at (6, 16) and steps by 2: HR's first whole LR pixel is at (10, 20).
        assert_registered(dataset[patch], at=(10 + patch.row, 20 + patch.column))
    sample = dataset[dataset.table[0]]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "hr": (2, 16, 16),
        "valid": (16, 16),
        "lr": (2, 8, 8),
        "lr_valid": (8, 8),
    }


def test_a_pair_uses_whole_lr_pixels_only(write):
    hr = write("hr.tif", 60, 60, top=7, left=5)
    lr = write("lr.tif", 40, 25, top=0, left=0, step=2)
    dataset = pairs(SceneFiles("odd", (hr,), (lr,)), size=8, stride=2)
    starts = {(decoded(dataset[patch]["hr"])[:, 0, 0].tolist()[0], patch.row) for patch in dataset.table}
    assert min(starts) == (8, 0)
    for patch in dataset.table:
        assert_registered(dataset[patch], at=(8 + patch.row, 6 + patch.column))
    assert dataset.table.column.max() == 50 - 6 - 8  # LR ends at column 50


def test_20_m_bands_that_reach_beyond_the_10_m_bands_are_a_pair(shared_data):
    files = {
        f"{side}r": (str(shared_data / "s2" / f"virginia_coast_{res}m.tif"),) for side, res in (("h", 10), ("l", 20))
    }
    scene = SceneFiles("virginia", window=(slice(900, 1300), slice(0, 300)), **files)
    dataset = GeoPairDataset([scene], ["B08", "B04"], lr_bands=["B05", "B11", "B8A"], size=128)
    sample = dataset[dataset.table[3]]
    patch = dataset.table[3]
    assert sample["lr"].shape == (3, 64, 64)
    assert sample["hr"].shape == (2, 128, 128)
    with open_scene(files["lr"][0]) as lr, open_scene(files["hr"][0]) as hr:
        down, right = lr.geobox.affine.f - hr.geobox.affine.f, hr.geobox.affine.c - lr.geobox.affine.c
        first = patch.row // 2 + math.ceil(down / 20), patch.column // 2 + math.ceil(right / 20)
        expected = lr.read(tuple(slice(start, start + 64) for start in first), ["B05", "B11", "B8A"]).array
        np.testing.assert_array_equal(sample["lr"], expected)
    # The near infrared of 10 m and the narrow one of 20 m see the same shore: a shift would show.
    mean = sample["hr"][0].reshape(64, 2, 64, 2).mean((1, 3))
    correlation = [
        np.corrcoef(mean[8:56, 8:56].ravel(), sample["lr"][2, 8 + i : 56 + i, 8 + j : 56 + j].ravel())[0, 1]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    assert int(np.argmax(correlation)) == 4


def test_reflectance_is_that_of_the_reader(shared_data):
    path = str(shared_data / "s2" / "danube_a_10m.tif")
    with open_scene(path) as scene:
        whole = scene.read(bands=["B08", "B02"])
    for cache in ("none", "memory"):
        dataset = SceneDataset([SceneFiles("danube", (path,))], ["B08", "B02"], size=64, cache=cache, min_valid=0.5)
        for patch in list(dataset.table)[::17]:
            part = np.s_[patch.row : patch.row + 64, patch.column : patch.column + 64]
            sample = dataset[patch]
            np.testing.assert_array_equal(sample["hr"], np.nan_to_num(whole.array[:, *part]))
            np.testing.assert_array_equal(sample["valid"], whole.valid[part])


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_excluded_pixels_are_invalid_in_both_images(pair, cache):
    scene = SceneFiles(**{**vars(pair), "exclude": ((slice(21, 40), slice(30, 61)),)})
    dataset = pairs(scene, cache=cache, min_valid=0.2)
    seen = 0
    for patch in dataset.table:
        sample = dataset[patch]
        rows, columns = np.indices((16, 16)) + np.array([patch.row, patch.column])[:, None, None]
        excluded = (rows >= 21) & (rows < 40) & (columns >= 30) & (columns < 61)
        np.testing.assert_array_equal(sample["valid"], ~excluded)
        touched = excluded.reshape(8, 2, 8, 2).any(axis=(1, 3))
        np.testing.assert_array_equal(sample["lr_valid"], ~touched)
        assert (sample["hr"].numpy()[:, excluded] == 0).all()
        assert (sample["lr"].numpy()[:, touched] == 0).all()
        seen += excluded.any()
    assert seen > 10
    assert len(pairs(scene).table) < len(pairs(pair).table)


def test_a_pixel_is_valid_where_both_images_are(write):
    hr = write("hr.tif", 64, 64, invalid=[np.s_[0:16, 0:16]])
    lr = write("lr.tif", 32, 32, step=2, invalid=[np.s_[24:32, 24:32]])
    table = pairs(SceneFiles("a", (hr,), (lr,)), stride=16, min_valid=0.0).table
    share = {(patch.row, patch.column): valid for patch, valid in zip(table, table.valid, strict=True)}
    assert share.pop((0, 0)) == share.pop((48, 48)) == 0
    assert set(share.values()) == {1.0}


def test_a_window_limits_patches_and_queries(pair):
    scene = SceneFiles(**{**vars(pair), "window": (slice(11, 55), slice(20, 81))})
    dataset = pairs(scene)
    rows, columns = dataset.table.row, dataset.table.column
    assert (rows.min(), rows.max() + 16, columns.min(), columns.max() + 16) == (12, 54, 20, 80)
    xmin, ymin, xmax, ymax = dataset.index.total_bounds
    assert (xmax - xmin, ymax - ymin) == (600, 420)
    with pytest.raises(IndexError, match=r"does not lie inside place"):
        dataset[Patch(0, 10, 20)]


# TorchGeo's routes


def queries(sampler):
    for query in sampler:
        yield from query if isinstance(query, list) else [query]


def samplers(dataset, *, size=8):
    """Every spatial sampler of TorchGeo."""
    torch.manual_seed(0)
    yield "random", RandomGeoSampler(dataset, size=size, length=12)
    yield "batch", RandomBatchGeoSampler(dataset, size=size, batch_size=4, length=12)
    yield "grid", GridGeoSampler(dataset, size=size, stride=size - 1)
    try:
        from torchgeo.samplers import GriddedPatchSampler, RandomPatchSampler
    except ImportError:  # before TorchGeo 0.10
        return
    yield "random patch", RandomPatchSampler(dataset, size=size, length=12, generator=0)
    yield "gridded patch", GriddedPatchSampler(dataset, size=size)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_every_sampler_of_torchgeo_gives_registered_pairs(pair, cache):
    dataset = pairs(pair, cache=cache)
    assert dataset.res == (20, 20)
    for name, sampler in samplers(dataset):
        count = 0
        for query in queries(sampler):
            sample = dataset[query]
            at = (NORTH - query[1].stop) / 10, (query[0].start - WEST) / 10
            first = np.indices((16, 16))[:, sample["valid"].numpy()]
            there = decoded(sample["hr"])[:, sample["valid"].numpy()]
            assert abs(there - first - np.array(at)[:, None]).max() <= 1, name  # the nearest LR pixel
            assert_registered(sample)
            count += 1
        assert count >= 12, name


def test_a_query_in_part_outside_is_padded_not_moved(pair):
    dataset = pairs(pair)
    xmin, ymin, _, _ = dataset.index.total_bounds
    sample = dataset[xmin - 60 : xmin + 100, ymin - 40 : ymin + 120]
    assert_registered(sample)
    assert not sample["lr_valid"][:, :3].any()
    assert not sample["lr_valid"][6:].any()
    assert sample["lr_valid"][:6, 3:].all()
    assert decoded(sample["hr"])[COLUMN, 0, 6] == 20
    with pytest.raises(IndexError, match="lies outside the dataset"):
        dataset[xmin - 500 : xmin - 300, ymin : ymin + 100]


def test_patches_read_together_come_in_the_order_of_their_keys_without_a_copy(pair):
    dataset = pairs(pair)
    keys = [*PatchSampler(dataset.table, length=12), dataset.table[0], dataset.table[0]]
    samples = dataset.__getitems__(keys)
    batch = collate(samples)
    assert isinstance(samples, Samples)
    assert batch is samples.stacked
    for place, (patch, sample) in enumerate(zip(keys, samples, strict=True)):
        assert_registered(sample, at=(10 + patch.row, 20 + patch.column))
        assert sample["hr"].data_ptr() == batch["hr"][place].data_ptr()
    copied = collate(list(samples))
    assert all(torch.equal(copied[name], batch[name]) for name in batch)


def test_a_loader_takes_torchgeo_samplers_and_patches(pair):
    dataset = pairs(pair)
    for sampler in (RandomGeoSampler(dataset, size=8, length=8), PatchSampler(dataset.table, length=8)):
        for batch in DataLoader(dataset, sampler=sampler, batch_size=4, collate_fn=stack_samples):
            assert batch["hr"].shape == (4, 2, 16, 16)
            assert batch["lr"].shape == (4, 2, 8, 8)
    batches = RandomBatchGeoSampler(dataset, size=8, batch_size=4, length=8)
    assert sum(len(batch["hr"]) for batch in DataLoader(dataset, batch_sampler=batches)) == 8


def test_torchgeo_splits_share_no_pixel(pair, write):
    scenes = [
        pair,
        SceneFiles("far", (write("h2.tif", 90, 90, left=500),), (write("l2.tif", 45, 45, left=500, step=2),)),
    ]
    west = shapely.box(WEST, 0, WEST + 733, NORTH)
    east = shapely.box(WEST + 733, 0, WEST + 90_000, NORTH)
    generator = torch.Generator().manual_seed(1)
    splits = {
        "bbox": lambda data: random_bbox_assignment(data, [0.5, 0.5], generator=generator),
        "bbox splitting": lambda data: random_bbox_splitting(data, [0.55, 0.45], generator=generator),
        "cells": lambda data: random_grid_cell_assignment(data, [0.5, 0.5], grid_size=3, generator=generator),
        "roi": lambda data: roi_split(data, [west, east]),
    }
    for name, split in splits.items():
        whole = pairs(*scenes, size=8)
        assert len(whole.table) > 100
        parts = split(whole)
        seen: list[set] = []
        for part in parts:
            assert part.crs == whole.crs, name
            pixels = set()
            keys = [*part.table, *queries(GridGeoSampler(part, size=4))]
            assert len(part.table) > 10, name
            for key in keys:
                sample = part[key]
                assert_registered(sample) if sample["lr_valid"].any() else None
                for image, mask, step in (("hr", "valid", 1), ("lr", "lr_valid", 2)):
                    for row, column in decoded(sample[image])[:, sample[mask].numpy()].T:
                        pixels |= (
                            {(row + i, column + j) for i in range(step) for j in range(step)}
                            if step == 2
                            else {(row, column)}
                        )
            seen.append(pixels)
        lr_free = seen[0] & seen[1]
        assert not lr_free, (name, sorted(lr_free)[:5])


@pytest.fixture
def dated(write):
    """Two dates of one place and an undated neighbour; the third band says which."""
    first, second = (
        SceneFiles(
            name, (write(f"{name}.tif", 64, 64, mark=mark, third=True),), start=datetime(2024, month, 1, tzinfo=UTC)
        )
        for name, mark, month in (("may", 5, 5), ("june", 6, 6))
    )
    return first, second


def marks(dataset, keys):
    """The scenes that samples come from; each sample is of one."""
    found = []
    for key in keys:
        mark = np.unique(decoded(dataset[key]["hr"])[2])
        assert len(mark) == 1
        found.append(int(mark[0]))
    return found


def test_two_dates_are_never_mixed(dated):
    dataset = SceneDataset(dated, ["row", "column", "mark"], size=16)
    assert set(marks(dataset, dataset.table)) == {5, 6}
    assert set(marks(dataset, queries(RandomGeoSampler(dataset, size=16, length=30)))) == {5, 6}
    x, y, _ = dataset.bounds
    assert marks(dataset, [(slice(x.start, x.start + 160), slice(y.start, y.start + 160))] * 3) == [5] * 3
    june = slice(datetime(2024, 6, 1), datetime(2024, 6, 2))
    assert marks(dataset, [(slice(x.start, x.start + 160), slice(y.start, y.start + 160), june)]) == [6]
    parts = time_series_split(dataset, [0.5, 0.5])
    assert [set(marks(part, [*part.table, *queries(GridGeoSampler(part, size=16))])) for part in parts] == [{5}, {6}]


def test_a_union_is_one_dataset_of_all_scenes(dated, write):
    bands = ["row", "column", "mark"]
    other = SceneFiles("north", (write("n.tif", 64, 64, top=-64, mark=9, third=True),))
    one, two = SceneDataset(dated, bands, size=16), SceneDataset([other, dated[1]], bands, size=16)
    union = one | two
    assert [scene.name for scene in union.scenes] == ["may", "june", "north"]
    assert set(marks(union, union.table)) == {5, 6, 9}
    keys = list(queries(RandomGeoSampler(union, size=16, length=40)))
    assert set(marks(union, keys)) == {5, 6, 9}
    for key in keys:
        sample = union[key]
        assert_one_grid(decoded(sample["hr"]), sample["valid"].numpy(), 1)
    half = roi_split(one, [shapely.box(WEST, NORTH - 640, WEST + 320, NORTH)])[0]
    assert set((half | half).table.column) <= set(range(17))


def test_an_intersection_is_registered_band_by_band(write):
    bands = ["row", "column"]
    scenes = [
        SceneFiles(name, (write(f"{name}.tif", 70, 70, top=top, left=left, invalid=[np.s_[30:34, 40:44]]),))
        for name, top, left in (("a", 0, 0), ("b", 13, -9))
    ]
    both = SceneDataset(scenes[:1], bands, size=16) & SceneDataset(scenes[1:], bands, size=16)
    for _, sampler in samplers(both, size=16):
        for query in queries(sampler):
            sample = both[query]
            hr, valid = decoded(sample["hr"]), sample["valid"].numpy()
            assert hr.shape == (4, 16, 16)
            assert valid.shape == (16, 16)
            np.testing.assert_array_equal(hr[:2, valid], hr[2:, valid])


def test_an_intersection_on_another_grid_is_refused(write, pair):
    bands = ["row", "column"]
    one = SceneDataset([SceneFiles("a", (write("a.tif", 40, 40),))], bands, size=16)
    coarse = SceneDataset([SceneFiles("b", (write("b.tif", 20, 20, step=2),))], bands, size=16)
    with pytest.raises(GridError, match=r"not on one grid .*pixel \(10.*pixel \(20.*nothing is resampled"):
        one & coarse
    with pytest.raises(GridError, match=r"asks for pixels of 10 x 10; SceneDataset has 20 x 20 and never resamples"):
        coarse.res = 10
    with pytest.raises(GridError, match="asks for other pixels"):
        one[WEST : WEST + 100 : 20, NORTH - 100 : NORTH : 20]


def test_a_scene_of_another_crs_keeps_its_pixels(write, make_raster):
    from pyproj import Transformer

    here = SceneFiles("here", (write("here.tif", 64, 64),))
    x, y = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True).transform(WEST + 2000, NORTH)
    dn = np.indices((64, 64)) + 1000
    there = make_raster(
        dn, name="there.tif", dtype="uint16", nodata=0, scale=1e-4, descriptions=["row", "column"], crs="EPSG:32632",
        transform=Affine(10, 0, x, 0, -10, y),
    )  # fmt: skip
    dataset = SceneDataset([here, SceneFiles("there", (str(there),))], ["row", "column"], size=16)
    assert len(dataset) == 2
    assert dataset.crs.to_epsg() == 4326  # neither zone has a place for every scene
    back = Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    boundary = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(WEST + 1000, NORTH)[0]
    seen = 0
    for query in queries(RandomGeoSampler(dataset, size=16, length=60)):
        sample = dataset[query]
        valid = sample["valid"].numpy()
        if not valid.any():
            continue
        assert_one_grid(decoded(sample["hr"]), valid, 1)
        if query[0].start > boundary and valid[8, 8]:
            middle = back.transform((query[0].start + query[0].stop) / 2, (query[1].start + query[1].stop) / 2)
            row, column = decoded(sample["hr"])[:, 8, 8]
            assert abs(x + 10 * column - middle[0]) <= 5
            assert abs(y - 10 * row - middle[1]) <= 5
            seen += 1
    assert seen > 5
    assert Counter(dataset.table.scene.tolist()) == {0: 49, 1: 49}


def test_scenes_without_a_crs_have_patches(write):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = SceneFiles("bare", (write("bare.tif", 32, 32, crs=None),))
        alone = SceneDataset([bare], ["row", "column"], size=16)
        assert alone.crs is None
        assert_one_grid(decoded(alone[2:18, 3:19]["hr"]), np.ones((16, 16), bool), 1)
        mixed = SceneDataset([SceneFiles("a", (write("a.tif", 32, 32),)), bare], ["row", "column"], size=16)
        assert len(mixed) == 1
        assert set(mixed.table.scene) == {0, 1}


# Splits, as the datasets apply them


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), buffer=st.sampled_from([0.0, 40.0]))
def test_no_training_pixel_is_validated_on(tmp_path_factory, seed, buffer):
    from rasterio import open as open_raster

    path = tmp_path_factory.getbasetemp() / "split.tif"
    if not path.exists():
        profile = {"width": 120, "height": 120, "count": 2, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32633"}
        with open_raster(path, "w", driver="GTiff", transform=Affine(10, 0, WEST, 0, -10, NORTH), **profile) as file:
            file.write((np.indices((120, 120)) + 1000).astype(np.uint16))
            file.scales, file.descriptions = (1e-4, 1e-4), ("row", "column")
    excluded = (slice(40, 70), slice(10, 60))
    scenes = [
        SceneFiles("train", (str(path),), exclude=(excluded,)),
        SceneFiles("held out", (str(path),), window=excluded),
    ]
    split = BlockSplit(shares=(0.6, 0.4, 0.0), block=250, buffer=buffer, seed=seed)
    dataset = SceneDataset(scenes[:1], ["row", "column"], size=10, split=split, min_valid=0.3)
    held_out = SceneDataset(scenes[1:], ["row", "column"], size=10)
    painted = [np.zeros((120, 120), bool) for _ in range(3)]
    keys = [(dataset, patch, part) for patch, part in zip(dataset.table, dataset.table.split, strict=True) if part >= 0]
    for data, patch, part in [*keys, *((held_out, patch, 2) for patch in held_out.table)]:
        sample = data[patch]
        rows, columns = decoded(sample["hr"])[:, sample["valid"].numpy()]
        painted[part][rows, columns] = True
    assert all(mask.any() for mask in painted)
    assert not (painted[0] & painted[1]).any()
    assert not (painted[2] & (painted[0] | painted[1])).any()


# Processes


def numbers(dataset, *, workers, context=None, **arguments):
    """The first pixel of every patch that a loader gives, in order."""
    sampler = PatchSampler(dataset.table, length=24, seed=3)
    loader = DataLoader(
        dataset, sampler=sampler, batch_size=4, num_workers=workers, multiprocessing_context=context, **arguments
    )
    return [tuple(decoded(hr)[:, 0, 0]) for batch in loader for hr in batch["hr"]]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_workers_give_what_one_process_gives(pair, cache):
    dataset = pairs(pair, cache=cache)
    alone = numbers(dataset, workers=0)  # the parent has open handles from here on
    assert len(set(alone)) > 10
    assert numbers(dataset, workers=1, context="fork") == alone
    assert numbers(dataset, workers=2, context="fork", persistent_workers=True, prefetch_factor=3) == alone
    assert numbers(dataset, workers=2, context="spawn", pin_memory=True) == alone


def test_a_dataset_pickles_without_its_handles(pair):
    dataset = pairs(pair)
    before = dataset[dataset.table[0]]
    again = pickle.loads(pickle.dumps(dataset))
    assert not again._open._open
    assert torch.equal(again[again.table[0]]["hr"], before["hr"])
    split = copy.deepcopy(dataset)
    assert split._open is dataset._open


def test_memory_is_shared_not_copied(pair):
    dataset = pairs(pair, cache="memory")
    copied = copy.deepcopy(dataset)
    for key, decoded_image in dataset._memory.items():
        assert decoded_image.dn.is_shared()
        assert decoded_image.valid.is_shared()
        assert copied._memory[key] is decoded_image
    assert dataset._memory[0, "hr"].dn.dtype == torch.uint16


# Errors


def test_a_raster_smaller_than_a_patch_is_named(write):
    scenes = [SceneFiles(name, (write(f"{name}.tif", height, 40),)) for name, height in (("large", 40), ("small", 15))]
    with pytest.raises(ConfigError, match=r"small has 15 x 40 HR pixels to use, less than a patch of 16 x 16; lower"):
        SceneDataset(scenes, ["row"], size=16)


def test_a_dataset_without_valid_patches_says_how_valid_the_best_is(write):
    path = write("holes.tif", 32, 32, invalid=[np.s_[::4, :], np.s_[:, 20:]])
    dataset = SceneDataset([SceneFiles("holes", (path,))], ["row"], size=16)
    with pytest.raises(
        ConfigError, match=r"no patch of 16 x 16 HR pixels has 100% valid pixels; the best of 9 has 75\.0%"
    ):
        _ = dataset.table
    assert len(SceneDataset([SceneFiles("holes", (path,))], ["row"], size=16, min_valid=0.75).table) == 3


def test_memory_that_does_not_suffice_is_refused_with_both_figures(pair, monkeypatch):
    monkeypatch.setattr(opened, "MEMORY_SHARE", 1e-9)
    with pytest.raises(
        ConfigError, match=r"needs 0\.00 GB for 1 scenes; .* GB of (shared )?memory .*may be used; set Data"
    ):
        pairs(pair, cache="memory")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 15}, "a patch of 15 HR pixels is not allowed; it must be a multiple of 2"),
        ({"cache": "disk"}, "cache 'disk' is not allowed; it is 'none' or 'memory'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(pair, arguments, message):
    with pytest.raises(ConfigError, match=message):
        pairs(pair, **arguments)


def test_scenes_need_names_of_their_own(pair):
    with pytest.raises(ConfigError, match="names of their own; it got place place"):
        pairs(pair, pair)
    with pytest.raises(ConfigError, match="it got none"):
        pairs()


def test_a_pair_needs_lr_files(write):
    with pytest.raises(ConfigError, match="alone names no LR file"):
        pairs(SceneFiles("alone", (write("a.tif", 32, 32),)))


def test_a_missing_band_is_named(pair):
    with pytest.raises(BandError, match=r"band 'B99' is not in hr\.tif"):
        GeoPairDataset([pair], ["B99"], size=16)


def test_another_band_stands_in_where_a_scene_lacks_one(write):
    scene = SceneFiles("a", (write("a.tif", 32, 32, third=True),))
    dataset = SceneDataset([scene], ["mark", "B02", "row"], size=16, stand_ins={"B02": "column", "row": "mark"})
    expected = SceneDataset([scene], ["mark", "column", "row"], size=16)
    for patch in dataset.table:
        np.testing.assert_array_equal(dataset[patch]["hr"], expected[patch]["hr"])  # "row" is there: nothing stands in
    with pytest.raises(BandError, match=r"band 'B03' is not in a\.tif"):
        SceneDataset([scene], ["mark", "B03"], size=16, stand_ins={"B02": "column"})


def test_a_scene_of_unknown_units_is_refused(make_raster):
    path = make_raster(np.full((1, 32, 32), 1500), dtype="uint16", descriptions=["B02"])
    with pytest.raises(RadiometryError, match="says nothing about their unit"):
        SceneDataset([SceneFiles("silent", (str(path),))], ["B02"], size=16)


def test_scenes_of_another_scale_are_refused(pair, write):
    other = SceneFiles("x4", (write("h4.tif", 64, 64),), (write("l4.tif", 16, 16, step=4),))
    with pytest.raises(GridError, match=r"h4\.tif does not sit on the grid of .*l4\.tif \(scale 2\)"):
        pairs(pair, other)


def test_a_ready_table_is_used_as_it_is(pair):
    made = pairs(pair).table
    some = made.select(np.arange(5))
    assert list(pairs(pair, table=some).table) == list(some)
    assert list(pairs(pair, size=8, table=some).table) == list(some)
    with pytest.raises(ConfigError, match=r"a table of patches of 16 pixels .* holds none of 32 pixels"):
        pairs(pair, size=32, table=some)
    with pytest.raises(ConfigError, match="comes with its own split"):
        pairs(pair, table=some, split=BlockSplit())
