import threading

import numpy as np
import pytest
import torch

from geosr.grid import TilePlan, flipped, scaled
from geosr.inference import SuperResolver
from geosr.inference.blend import OverlapPlan
from geosr.inference.cores import superresolve_cores
from geosr.inference.ensemble import Answer
from geosr.io.raster import Raster
from geosr.models import Model, ModelSpec
from geosr.testing import coordinate_raster, impulse_model

SHAPE = (70, 90)


class Pixels:
    """An array in the place of a scene; it counts what is read, and where."""

    def __init__(self, *, holes=True, fail_at=None):
        self.raster = coordinate_raster(*SHAPE)
        self.array = np.random.default_rng(0).random((4, *SHAPE), np.float32)
        self.valid = np.ones(SHAPE, bool)
        if holes:
            self.valid[20:33, 40:61] = False
            self.valid[0:32, 0:32] = False
        self.fail_at, self.reads = fail_at, []

    def read(self, window, bands):
        self.reads.append(threading.current_thread().name)
        if len(self.reads) == self.fail_at:
            raise OSError("unplugged")
        array = np.where(self.valid[window], self.array[:, *window], np.float32(np.nan))
        return Raster(array, self.valid[window], self.raster.geobox[window], tuple(bands), self.raster.radiometry)


@pytest.fixture(scope="module")
def resolver():
    return SuperResolver(impulse_model(2, 3), device="cpu", precision="fp32")


def whole(pixels, resolver):
    """The image in one piece."""
    (core,) = superresolve_cores(pixels, TilePlan(SHAPE, 128, 3), resolver, [0])
    return core.sr


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_cores_come_in_the_order_given_and_are_those_of_the_whole(resolver, batch_size, ahead):
    pixels, plan = Pixels(), TilePlan(SHAPE, 32, 3)
    expected, wanted = whole(pixels, resolver), [7, 2, 0, 5, 8]
    got = list(superresolve_cores(pixels, plan, resolver, wanted, batch_size=batch_size, ahead=ahead))
    assert [core.tile.index for core in got] == wanted
    for core in got:
        np.testing.assert_array_equal(core.valid, pixels.valid[core.tile.core])
        if not core.valid.any() and core.sr is None:
            continue
        mask = np.kron(core.valid, np.ones((2, 2), bool))
        there = expected[:, *scaled(core.tile.core, 2)]
        np.testing.assert_allclose(core.sr[:, mask], there[:, mask], atol=1e-6)


def test_a_core_without_a_valid_pixel_around_is_empty(resolver):
    pixels = Pixels()
    pixels.valid[:] = False
    (core,) = superresolve_cores(pixels, TilePlan(SHAPE, 32, 3), resolver, [4])
    assert core.sr is None
    assert not core.valid.any()


def test_blended_cores_are_those_of_the_whole_plan_to_the_bit_and_no_others_are_read():
    spec = ModelSpec(
        "bicubic", "interpolation", 2, ("a", "b", "c", "d"), {"mode": "bicubic"}, tiling="approximate", halo=4
    )
    resolver, plan = SuperResolver(Model(spec), device="cpu", precision="fp32"), OverlapPlan(SHAPE, 16, 4)
    everything = {core.tile.index: core for core in superresolve_cores(Pixels(), plan, resolver, range(len(plan)))}
    assert sorted(everything) == list(range(len(plan)))
    pixels = Pixels(holes=False)
    list(superresolve_cores(pixels, plan, resolver, [0]))
    assert len(pixels.reads) == 4, "its own tile and the three that fade into it"
    wanted = [22, 3, 8, 9]
    got = list(superresolve_cores(Pixels(), plan, resolver, wanted))
    assert sorted(core.tile.index for core in got) == sorted(wanted)
    for core in got:
        same = everything[core.tile.index]
        np.testing.assert_array_equal(core.valid, same.valid)
        np.testing.assert_array_equal(core.sr, same.sr)


class Turned(Pixels):
    """The same ground, its rows and columns stored in reversed order."""

    def __init__(self, flips):
        super().__init__()
        self.array, self.valid = flipped(self.array, flips), flipped(self.valid, flips)


def noisy():
    torch.manual_seed(0)
    return Model(ModelSpec("noisy", "stochastic", 2, ("a", "b", "c", "d"), {"channels": 8, "blocks": 1}))


def windows_of_attention():
    torch.manual_seed(0)
    size = {"channels": 8, "blocks": 1, "depth": 2, "heads": 2, "window_size": 4, "global_skip": False}
    return Model(ModelSpec("swin", "swinir", 2, ("a", "b", "c", "d"), size, consistency_mtf=None))


@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (lambda: impulse_model(2, 3), Answer()),
        (noisy, Answer(seeds=range(3, 5))),
        (windows_of_attention, Answer()),
        (windows_of_attention, Answer(tta=True)),
    ],
    ids=["convolutions", "noise", "windows", "orientations"],
)
def test_reversed_rows_and_columns_are_turned_for_the_network_and_back(model, answer, flips):
    resolver = SuperResolver(model(), device="cpu", precision="fp32")
    halo, multiple_of = resolver.halo, resolver.spec.multiple_of
    pixels = Pixels()
    (core,) = superresolve_cores(pixels, TilePlan(SHAPE, 128, halo, multiple_of), resolver, [0], answer=answer)
    mask = np.kron(pixels.valid, np.ones((2, 2), bool))
    expected = np.where(mask, core.sr, 0)
    turned = Turned(flips)
    (one,) = superresolve_cores(
        turned, TilePlan(SHAPE, 128, halo, multiple_of, flips=flips), resolver, [0], answer=answer
    )
    np.testing.assert_array_equal(np.where(mask, flipped(one.sr, flips), 0), expected)
    np.testing.assert_array_equal(one.valid, turned.valid)
    got = np.zeros_like(expected)
    plan = TilePlan(SHAPE, 32, halo, multiple_of, flips=flips)
    for core in superresolve_cores(turned, plan, resolver, range(len(plan)), answer=answer):
        got[:, *scaled(core.tile.core, 2)] = 0 if core.sr is None else core.sr
    np.testing.assert_allclose(np.where(mask, flipped(got, flips), 0), expected, atol=1e-6)


@pytest.mark.parametrize(("ahead", "threads"), [(0, {threading.main_thread().name}), (1, {"read_0"})])
def test_a_thread_of_its_own_reads_unless_there_is_none_ahead(resolver, ahead, threads):
    pixels = Pixels()
    list(superresolve_cores(pixels, TilePlan(SHAPE, 32, 3), resolver, range(9), ahead=ahead))
    assert set(pixels.reads) == threads


@pytest.mark.parametrize("ahead", [0, 1])
def test_what_cannot_be_read_is_raised_and_no_thread_stays(resolver, ahead):
    before = threading.active_count()
    pixels, got = Pixels(holes=False, fail_at=4), []
    with pytest.raises(OSError, match="unplugged"):
        got.extend(superresolve_cores(pixels, TilePlan(SHAPE, 32, 3), resolver, range(9), ahead=ahead))
    assert threading.active_count() == before


def test_who_stops_early_leaves_no_thread_and_no_file(resolver, tmp_path):
    spec = ModelSpec(
        "bicubic", "interpolation", 2, ("a", "b", "c", "d"), {"mode": "bicubic"}, tiling="approximate", halo=4
    )
    blending = SuperResolver(Model(spec), device="cpu", precision="fp32")
    before = threading.active_count()
    for plan, model in ((TilePlan(SHAPE, 16, 3), resolver), (OverlapPlan(SHAPE, 16, 4), blending)):
        cores = superresolve_cores(Pixels(), plan, model, range(9), folder=tmp_path)
        next(cores)
        cores.close()
        assert threading.active_count() == before
        assert not list(tmp_path.iterdir())
