import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.data.patches import Patch, PatchTable
from geosr.data.samplers import PatchSampler, UpdateSampler
from geosr.errors import ConfigError


def table_of(details, *, size=16):
    """A table whose patch i is in column i."""
    count = len(details)
    zeros = np.zeros(count)
    return PatchTable(size, zeros, zeros, np.arange(count), np.ones(count), np.array(details), zeros)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**40),
    length=st.integers(0, 60),
    world_size=st.integers(1, 5),
    start=st.integers(0, 70),
)
def test_a_draw_depends_on_seed_and_number_only(seed, length, world_size, start):
    table = table_of(np.linspace(0.1, 1, 50))
    whole = list(PatchSampler(table, length=200, seed=seed, detail=0.5))
    ranks = [
        PatchSampler(table, length=length, seed=seed, detail=0.5, rank=rank, world_size=world_size, start=start)
        for rank in range(world_size)
    ]
    drawn = [list(rank) for rank in ranks]
    assert {len(rank) for rank in ranks} == {len(drawn[0])} == {max(length - start, 0) // world_size}
    together = [patch for step in zip(*drawn, strict=True) for patch in step]
    assert together == whole[start : start + len(together)]


def test_seeds_and_draws_differ():
    table = table_of(np.ones(10_000))
    first, second = (list(PatchSampler(table, length=500, seed=seed)) for seed in (0, 1))
    assert len(set(first)) > 480
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 5
    assert all(isinstance(patch, Patch) for patch in first)


@pytest.mark.parametrize(("detail", "odds"), [(0.0, 1), (0.5, 2), (1.0, 4)])
def test_patches_are_drawn_in_proportion_to_a_power_of_their_detail(detail, odds):
    counts = Counter(patch.column for patch in PatchSampler(table_of([0.1, 0.4]), length=4000, detail=detail))
    assert counts[1] / 4000 == pytest.approx(odds / (1 + odds), abs=0.03)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_small_scenes_are_drawn_as_often_as_the_balance_wants(balance, share):
    table = replace(table_of(np.ones(10)), scene=np.array([0] * 9 + [1]))
    counts = Counter(patch.scene for patch in PatchSampler(table, length=4000, balance=balance))
    assert counts[1] / 4000 == pytest.approx(share, abs=0.03)


def test_without_any_detail_all_patches_are_alike():
    counts = Counter(patch.column for patch in PatchSampler(table_of([0.0, 0.0]), length=1000, detail=1.0))
    assert counts[0] == pytest.approx(500, abs=60)
    assert {patch.column for patch in PatchSampler(table_of([0.0, 0.3]), length=100, detail=1.0)} == {1}


def test_an_empty_table_and_a_rank_that_is_none_are_refused():
    with pytest.raises(ConfigError, match="there is no patch to draw from"):
        PatchSampler(table_of([]), length=4)
    for rank in (2, -1):
        with pytest.raises(ConfigError, match=f"rank {rank} is not one of 2 processes"):
            PatchSampler(table_of([1.0]), length=4, rank=rank, world_size=2)


def _draw(rank, address, columns):
    distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    sampler = PatchSampler(
        table_of(np.ones(1000)), length=40, seed=5, rank=distributed.get_rank(), world_size=distributed.get_world_size()
    )
    mine = torch.tensor([patch.column for patch in sampler])
    gathered = [torch.empty_like(mine) for _ in range(2)]
    distributed.all_gather(gathered, mine)
    if rank == 0:
        columns.extend(torch.stack(gathered, dim=1).flatten().tolist())
    distributed.destroy_process_group()


@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_draw_what_one_would(tmp_path):
    with multiprocessing.Manager() as manager:
        columns = manager.list()
        multiprocessing.start_processes(_draw, (str(tmp_path / "rendezvous"), columns), nprocs=2, start_method="fork")
        together = list(columns)
    assert together == [patch.column for patch in PatchSampler(table_of(np.ones(1000)), length=40, seed=5)]


def test_each_update_gets_as_many_of_the_draws_as_it_needs():
    patches = table_of(np.linspace(0.1, 1, 20))
    counts = [3, 3, 1, 4]
    whole = list(PatchSampler(patches, length=sum(counts), seed=3))
    updates = UpdateSampler(PatchSampler(patches, length=sum(counts), seed=3), counts)
    assert [len(update) for update in updates] == counts
    assert [patch for update in updates for patch in update] == whole
    later = UpdateSampler(PatchSampler(patches, length=sum(counts), start=6, seed=3), counts, done=2)
    assert list(later) == list(updates)[2:]
    assert len(later) == len(updates) == 4
