import logging
import os
import resource
import tracemalloc
from contextlib import closing
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from geosr.errors import OutputError
from geosr.grid import TilePlan, scaled, size
from geosr.inference import SuperResolver, predict
from geosr.inference.blend import Blender, OverlapPlan, ramp
from geosr.io.scene import open_scene
from geosr.models import Model, ModelSpec
from geosr.testing import assert_partition, block_model

BANDS = ("B02", "B03", "B04", "B08")

plans = st.builds(
    OverlapPlan,
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    core=st.integers(1, 17),
    halo=st.integers(0, 9),
)


@st.composite
def plans_of_parts(draw):
    """A plan of a part of the scene, for a network that works on blocks."""
    plan = draw(plans)
    rows, columns = (
        slice(*sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))) for n in plan.shape
    )
    return replace(plan, multiple_of=draw(st.integers(1, 6)), area=(rows, columns))


def blend(plan, image, tmp_path, *, scale=1, wanted=None, valid=None):
    """The cores, by index, of tiles that ``image(tile)`` makes, unless ``valid`` (LR) is nowhere true in them."""
    wanted = range(len(plan)) if wanted is None else wanted
    valid = np.ones(plan.shape, bool) if valid is None else valid
    cores = {}
    blender = Blender(plan, scale=scale, bands=len(image(next(iter(plan)))), folder=tmp_path, wanted=wanted)
    with closing(blender):
        for tile in plan:
            if tile.index in blender.needed:
                there = valid[tile.read]
                for core, sr in blender.add(tile, image(tile) if there.any() else None, there):
                    assert core.index not in cores, "a core is delivered once"
                    cores[core.index] = sr
        places = os.fstat(blender._file.fileno()).st_size
    assert set(cores) == set(wanted)
    largest = max(prod(tile.shape) for tile in plan)
    assert places <= (plan.grid[1] + 2) * largest * scale**2 * 4 * len(image(tile))
    return cores


def mosaic(plan, cores, scale=1):
    """The scene that cores make."""
    bands = next(len(core) for core in cores.values() if core is not None)
    whole = np.full((bands, *(n * scale for n in plan.shape)), np.nan, np.float32)
    for tile in plan:
        if cores[tile.index] is not None:
            whole[:, *scaled(tile.core, scale)] = cores[tile.index]
    return whole


@given(plans)
def test_cores_partition_the_scene_and_tiles_are_equally_large(plan):
    assert_partition(TilePlan(plan.shape, plan.core, plan.halo))
    sizes = set()
    for tile, exact in zip(plan, TilePlan(plan.shape, plan.core, plan.halo), strict=True):
        assert (tile.index, tile.core) == (exact.index, exact.core)
        sizes.add(tile.shape)
        for core, read, n in zip(tile.core, tile.read, plan.shape, strict=True):
            assert 0 <= read.start <= max(core.start - plan.overlap, 0)
            assert core.stop <= read.stop <= n
    assert sizes == {tuple(min(plan.core + plan.overlap, n) for n in plan.shape)}


@given(plans_of_parts())
def test_tiles_of_a_part_lie_on_the_blocks_of_the_scene(plan):
    count = np.zeros(plan.shape, int)
    for tile in plan:
        count[tile.core] += 1
        for core, read, whole, n in zip(tile.core, tile.read, plan.window, plan.shape, strict=True):
            assert read.start % plan.multiple_of == 0
            assert read.stop % plan.multiple_of == 0 or read.stop == n
            assert 0 <= read.start <= max(core.start - plan.overlap, 0)
            assert core.stop <= read.stop <= n
            if core.stop == whole.stop:
                assert read.stop >= min(core.stop + plan.halo, n), "nothing fades in at the end of the part"
            assert read.stop - read.start < plan.core + plan.overlap + plan.halo + 2 * plan.multiple_of
    assert (count[plan.window] == 1).all()
    assert count.sum() == prod(size(plan.window))


@given(st.integers(1, 300))
def test_the_ramp_rises_from_0_to_1_and_is_its_own_complement(length):
    weights = ramp(length)
    assert (np.diff(weights) > 0).all()
    np.testing.assert_allclose(weights + weights[::-1], 1, atol=1e-6)
    steps = np.diff(weights, prepend=0, append=1)
    assert steps.max() <= max(np.pi / 2 / length + 1e-6, 0.5), "no step is steeper than the wave"


def expected_weight(plan, tile, scale):
    """Weight map (y, x) of one tile on the whole SR grid, from the distance to the ends of its core."""
    axes = []
    for part, n in zip(tile.core, plan.shape, strict=True):
        at = (np.arange(n * scale) + 0.5) / scale
        wide = max(plan.overlap, 1e-9)
        rise = np.ones(n * scale) if part.start == 0 else np.clip((at - (part.start - wide)) / wide, 0, 1)
        fall = np.ones(n * scale) if part.stop == n else np.clip((part.stop - at) / wide, 0, 1)
        axes.append(np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2)
    return np.outer(*axes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(plans, st.integers(1, 3))
def test_weights_are_half_cosine_waves_that_sum_to_1(tmp_path, plan, scale):
    """A tile holds 1 in one band and 0 in the others, so the bands come out as the weights of their tiles."""
    colours = min(len(plan), 30)

    def image(tile):
        sr = np.zeros((colours, *(n * scale for n in tile.shape)), np.float32)
        sr[tile.index % colours] = 1
        return sr

    weights = mosaic(plan, blend(plan, image, tmp_path, scale=scale), scale)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    expected = np.zeros_like(weights)
    for tile in plan:
        expected[tile.index % colours] += expected_weight(plan, tile, scale)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.one_of(plans, plans_of_parts()), st.integers(1, 3), st.integers(0, 99))
def test_tiles_that_agree_give_what_they_agree_on(tmp_path, plan, scale, seed):
    """Every pixel stays where it is, and a constant stays constant."""
    whole = np.random.default_rng(seed).uniform(-1, 1, (2, *(n * scale for n in plan.shape))).astype(np.float32)
    whole[1] = 0.37
    got = mosaic(plan, blend(plan, lambda tile: whole[:, *scaled(tile.read, scale)], tmp_path, scale=scale), scale)
    wanted = (slice(None), *scaled(plan.window, scale))
    np.testing.assert_allclose(got[wanted], whole[wanted], atol=3e-7)
    assert np.isfinite(got).sum() == got[wanted].size


def noise(plan, scale=2):
    """A prediction of its own for each tile: any that is not the right one shows."""
    shape = (2, *(n * scale for n in next(iter(plan)).shape))
    return lambda tile: np.random.default_rng(tile.index).random(shape, np.float32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(plans, st.data())
def test_cores_of_a_later_run_are_the_same_bits(tmp_path, plan, data):
    every = blend(plan, noise(plan), tmp_path, scale=2)
    wanted = data.draw(st.sets(st.integers(0, len(plan) - 1)))
    some = blend(plan, noise(plan), tmp_path, scale=2, wanted=wanted)
    for index in wanted:
        np.testing.assert_array_equal(some[index], every[index])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(plans, st.integers(0, 99), st.sampled_from([0.02, 0.5]))
def test_invalid_pixels_are_nan_and_the_others_as_ever(tmp_path, plan, seed, share):
    valid = np.random.default_rng(seed).random(plan.shape) > share
    valid[: plan.shape[0] // 2, plan.shape[1] // 3 :] = False
    if not valid.any():
        return
    complete = mosaic(plan, blend(plan, noise(plan), tmp_path, scale=2), 2)
    got = mosaic(plan, blend(plan, noise(plan), tmp_path, scale=2, valid=valid), 2)
    mask = np.broadcast_to(np.kron(valid, np.ones((2, 2), bool)), got.shape)
    np.testing.assert_array_equal(np.isnan(got), ~mask)
    np.testing.assert_array_equal(got[mask], complete[mask])


def test_memory_and_file_do_not_grow_with_the_scene(tmp_path):
    """Where 8 times as many tiles are blended, memory stays and the file holds one row of them."""
    peaks, places = [], []
    for shape in ((3, 3), (24, 3), (3, 24)):
        plan = OverlapPlan(tuple(32 * n for n in shape), 32, 4)
        image = np.ones((4, 160, 160), np.float32)
        tracemalloc.start()
        with closing(Blender(plan, scale=4, bands=4, folder=tmp_path, wanted=range(len(plan)))) as blender:
            for tile in plan:
                for _ in blender.add(tile, image, np.ones((40, 40), bool)):
                    pass
            places.append(os.fstat(blender._file.fileno()).st_size / image.nbytes)
        peaks.append(tracemalloc.get_traced_memory()[1] - image.nbytes)
        tracemalloc.stop()
    assert places == [5, 5, 26]
    assert max(peaks) < 1.3 * peaks[0], peaks
    assert not list(tmp_path.iterdir()), "the file has no name"


class Pooled(nn.Module):
    """Nearest interpolation, brightened by the mean of all that it sees: squeeze and excitation at its simplest."""

    reach = None

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, lr):
        sharper = nn.functional.interpolate(lr, scale_factor=self.scale, mode="nearest")
        return sharper * (1 + lr.mean(dim=(2, 3), keepdim=True))


class Limited(Pooled):
    """The same on a device whose memory holds 3000 LR pixels."""

    def forward(self, lr):
        if lr.shape[0] * lr.shape[2] * lr.shape[3] > 3000:
            raise torch.OutOfMemoryError
        return super().forward(lr)


def pooled(scale=4, halo=10, network=Pooled):
    spec = ModelSpec("pooled", "pooled", scale, BANDS, consistency_mtf=None, tiling="approximate", halo=halo)
    return SuperResolver(Model(spec, network(scale)), device="cpu", precision="fp32")


@pytest.fixture
def scene(make_raster):
    def make(array, **kwargs):
        return make_raster(array, **{"nodata": 0, "scale": 1e-4, "descriptions": BANDS, **kwargs})

    return make


def slope(height, width):
    """A scene that brightens smoothly from one corner to the other."""
    rows, columns = np.indices((height, width))
    values = 500 + 7 * columns + 5 * rows
    return np.stack([values, values + 300, values * 2, values + 9]).astype("uint16")


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def whole_image(resolver, path):
    with open_scene(path) as opened:
        return resolver.superresolve(opened.read(bands=BANDS)).array


def steepest(image):
    """Largest difference of two neighbours."""
    return max(np.abs(np.diff(image, axis=1)).max(), np.abs(np.diff(image, axis=2)).max())


@pytest.mark.parametrize("shape", [(300, 290), (129, 401), (513, 20)])
def test_no_seam_is_larger_than_what_neighbours_differ_by(scene, tmp_path, shape):
    path = scene(slope(*shape))
    files = {
        halo: predict(path, tmp_path / f"{halo}.tif", model=pooled(halo=halo), tile=1, dtype="float32")
        for halo in (0, 32)
    }
    whole = whole_image(pooled(), path)
    ordinary = steepest(whole)
    cut, blended = (read(files[halo].path) for halo in (0, 32))
    assert steepest(cut) > 4 * ordinary, "without blending the seams show"
    assert steepest(blended) < 1.5 * ordinary
    assert np.abs(blended - whole).max() < 0.5 * whole.max()


def test_a_constant_scene_stays_constant(scene, tmp_path):
    got = read(predict(scene(np.full((4, 270, 140), 2000, "uint16")), tmp_path / "sr.tif", model=pooled(), tile=1).path)
    assert (got == 2400).all()


@pytest.mark.parametrize("shape", [(128, 128), (1, 1), (1, 100), (37, 128)])
def test_a_scene_of_one_tile_is_the_whole_image(scene, tmp_path, caplog, shape):
    path = scene(slope(*shape))
    with caplog.at_level(logging.INFO, "geosr"):
        done = predict(path, tmp_path / "sr.tif", model=pooled(), tile=1, dtype="float32")
    np.testing.assert_array_equal(read(done.path), whole_image(pooled(), path))
    assert (done.tiles, done.tiling) == (1, "exact")
    assert "approximate" not in caplog.text
    with rasterio.open(done.path) as file:
        assert "GEOSR_TILING" not in file.tags()


@pytest.mark.parametrize("aoi", [None, (400_010, 4_997_500, 401_950, 4_999_970)], ids=["scene", "part"])
@pytest.mark.parametrize("side", [5, 8])
def test_tiles_have_the_blocks_of_the_scene(scene, tmp_path, side, aoi):
    """Means of blocks, declared approximate: all tiles agree where their blocks are the same."""
    blocks = block_model(4, side, bands=BANDS)
    resolver = SuperResolver(Model(replace(blocks.spec, tiling="approximate", halo=10), blocks.network), device="cpu")
    path = scene(np.random.default_rng(0).integers(1, 9000, (4, 263, 211), dtype="uint16"))
    done = predict(path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32", aoi=aoi, batch_size=2)
    assert (done.tiles, done.tiling) == (6 if aoi is None else 4, "approximate")
    rows, columns = (slice(None), slice(None)) if aoi is None else (slice(12, 1000), slice(4, 780))
    np.testing.assert_allclose(read(done.path), whole_image(resolver, path)[:, rows, columns], rtol=0, atol=1e-6)


def test_a_part_in_one_tile_is_not_the_whole_scene(scene, tmp_path, caplog):
    path = scene(slope(150, 130))
    with caplog.at_level(logging.INFO, "geosr"):
        done = predict(path, tmp_path / "sr.tif", model=pooled(), tile=1, aoi=(400_000, 4_999_900, 400_100, 5_000_000))
    assert (done.tiles, done.tiling) == (1, "approximate")
    assert "approximate" in caplog.text


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_scenes_of_any_size_keep_every_pixel_in_its_place(scene, tmp_path, scale):
    """Nearest interpolation declared approximate: all tiles agree."""
    spec = ModelSpec("nearest", "interpolation", scale, BANDS, {"mode": "nearest"}, tiling="approximate", halo=20)
    spec = replace(spec, consistency_mtf=None)
    resolver = SuperResolver(Model(spec), device="cpu", precision="fp32")
    array = np.random.default_rng(0).integers(1, 9000, (4, 530, 515), dtype="uint16")
    done = predict(scene(array), tmp_path / "sr.tif", model=resolver, tile=1)
    assert done.tiles >= 4
    np.testing.assert_array_equal(read(done.path), array.repeat(scale, 1).repeat(scale, 2))


def test_the_result_says_that_tiles_are_approximate(scene, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "geosr"):
        done = predict(scene(slope(140, 130)), tmp_path / "sr.tif", model=pooled(), tile=1)
    assert done.tiling == "approximate"
    assert "pooled looks farther than a tile: tiles are approximate, and blended where they overlap" in caplog.text
    with rasterio.open(done.path) as file:
        assert file.tags()["GEOSR_TILING"] == "approximate: tiles of 128 x 128 input pixels, blended over 20"


@pytest.fixture
def holed(scene):
    """Six tiles; one of them, and parts of others, are invalid."""
    array = slope(258, 131)
    array[:, :150, :] = 0
    array[:, 200:207, 40:] = 0
    return scene(array)


def test_invalid_pixels_stay_invalid(holed, tmp_path):
    got = read(predict(holed, tmp_path / "sr.tif", model=pooled(), tile=1).path)
    np.testing.assert_array_equal(got == 0, np.kron(read(holed) == 0, np.ones((1, 4, 4), bool)))


class Stop(Exception):
    """Ends a run from outside."""


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_a_stopped_run_continues_to_the_same_bytes(holed, tmp_path, after, batch_size):
    undisturbed = predict(holed, tmp_path / "undisturbed.tif", model=pooled(), tile=1, batch_size=batch_size)
    finished = -1

    def stop(now, done, total):
        nonlocal finished
        finished += 1
        if finished == after:
            raise Stop

    arguments = {"model": pooled(), "tile": 1, "batch_size": batch_size}
    with pytest.raises(Stop):
        predict(holed, tmp_path / "sr.tif", **arguments, progress=stop)
    done = predict(holed, tmp_path / "sr.tif", **arguments)
    assert (done.tiles, done.resumed) == (6, after)
    assert done.path.read_bytes() == undisturbed.path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "sr.tif", "undisturbed.tif"]


def test_a_full_disk_is_the_usual_error(scene, tmp_path):
    """No file may become larger than a megabyte, and a tile takes five."""
    path = scene(slope(140, 130))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(OutputError, match=r"sr\.tif could not be written: File too large.* same command continues"):
            predict(path, tmp_path / "sr.tif", model=pooled(), tile=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert predict(path, tmp_path / "sr.tif", model=pooled(), tile=1).tiles == 4


@pytest.mark.parametrize("shape", [(80, 47), (50, 90), (63, 70)])
def test_halves_that_memory_forces_fade_into_each_other(shape, caplog):
    lr = torch.from_numpy(slope(*shape).astype(np.float32) * 1e-4)[None]
    with caplog.at_level(logging.WARNING, "geosr"):
        got = pooled(network=Limited)(lr)[0].numpy()
    whole = pooled()(lr)[0].numpy()
    assert "pixels is halved" in caplog.text
    assert got.shape == whole.shape
    assert 1e-3 < np.abs(got - whole).max() < 0.2 * whole.max()
    assert steepest(got) < 1.5 * steepest(whole)
    constant = torch.full((1, 4, *shape), 0.2)
    torch.testing.assert_close(pooled(network=Limited)(constant), pooled()(constant), rtol=0, atol=1e-6)


def test_halves_keep_every_pixel_in_its_place():
    class Agreeing(Limited):
        def forward(self, lr):
            return super().forward(lr) / (1 + lr.mean(dim=(2, 3), keepdim=True))

    lr = torch.rand(1, 4, 90, 64, generator=torch.Generator().manual_seed(0))
    expected = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(pooled(network=Agreeing)(lr), expected, rtol=0, atol=1e-6)
