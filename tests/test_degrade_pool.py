import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.degrade import PairPool


def seeded():
    return torch.Generator().manual_seed(0)


def batches(sizes):
    """LR and HR that both hold the number of their pair."""
    first = 0
    for size in sizes:
        number = torch.arange(first, first + size)
        yield number[:, None, None, None].expand(-1, 1, 2, 2).float(), number[:, None].expand(-1, 3)
        first += size


@settings(max_examples=60)
@given(queue_size=st.integers(1, 20), sizes=st.lists(st.integers(1, 9), max_size=12))
def test_no_pair_is_lost_or_doubled_or_torn(queue_size, sizes):
    pool, generator, left = PairPool(queue_size), seeded(), []
    seen = 0
    for lr, hr in batches(sizes):
        filling = pool.filled < queue_size
        out_lr, out_hr = pool.exchange(lr, hr, generator=generator)
        assert out_lr.shape == lr.shape
        assert torch.equal(out_lr[:, 0, 0, 0].long(), out_hr[:, 0])
        if filling:
            assert torch.equal(out_hr, hr)  # passes through, and is kept as well
        else:
            left += out_hr[:, 0].tolist()
            seen += len(hr)
    kept = pool.pool[1][: pool.filled, 0].tolist() if sizes else []
    assert len(set(left)) == len(left)
    assert not set(left) & set(kept)
    assert len(left) == seen


def test_batches_pass_until_the_pool_is_full_and_are_exchanged_then():
    pool, generator = PairPool(10), seeded()
    exchanged = [pool.exchange(lr, hr, generator=generator)[1][:, 0] for lr, hr in batches([4] * 50)]
    for number, (_, hr) in enumerate(batches([4] * 3)):
        assert torch.equal(exchanged[number], hr[:, 0])  # 4, 8, then the rest of 10
    later = torch.stack(exchanged[3:])
    age = torch.arange(3, 50)[:, None] * 4 - later
    assert (age > -4).all()
    assert age.float().mean() == pytest.approx(10, abs=3)  # a pair stays about queue_size pairs long
    assert age.max() > 20


def test_the_pool_holds_copies():
    pool, generator = PairPool(2), seeded()
    first = torch.zeros(2, 1)
    pool.exchange(first, generator=generator)
    first += 7
    (out,) = pool.exchange(torch.ones(2, 1), generator=generator)
    assert torch.equal(out, torch.zeros(2, 1))


def test_a_pool_of_nothing_is_no_pool():
    lr = torch.rand(3, 1)
    assert PairPool(0).exchange(lr, generator=seeded())[0] is lr


def test_what_does_not_fit_is_refused():
    pool = PairPool(4)
    pool.exchange(torch.rand(2, 1, 8, 8), generator=seeded())
    with pytest.raises(ValueError, match=r"holds torch.float32 \(1, 8, 8\) and was given torch.float32 \(1, 9, 9\)"):
        pool.exchange(torch.rand(2, 1, 9, 9), generator=seeded())
    with pytest.raises(ValueError, match="queue_size is -1"):
        PairPool(-1)
