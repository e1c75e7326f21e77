import kornia
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.data.augment import cutblur, d4, gain, noise
from geosr.errors import GridError
from geosr.models.orientation import orient


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(items=6, *, bands=3, lr=8, scale=2, seed=0):
    """HR whose pixels are all different, LR its block means minus 1; reflectance above 1 and below 0 occurs."""
    hr = torch.randn((items, bands, lr * scale, lr * scale), generator=generator(seed)) * 2
    means = torch.nn.functional.avg_pool2d(hr, scale)
    valid = torch.rand((items, lr * scale, lr * scale), generator=generator(seed + 1)) < 0.9
    return {"lr": means - 1, "hr": hr, "lr_valid": torch.ones(items, lr, lr, dtype=torch.bool), "valid": valid}


def untouched(function, **arguments):
    """The result, after a check that the batch itself did not change and that the seed decides."""
    batch = batch_of(32)
    before = {name: value.clone() for name, value in batch.items()}
    result, again = (function(batch, generator(3), **arguments) for _ in range(2))
    other = function(batch, generator(4), **arguments)
    for name, value in before.items():
        assert torch.equal(batch[name], value)
        assert torch.equal(result[name], again[name])
    assert not torch.equal(result["lr"], other["lr"])
    return batch, result


def test_all_that_belongs_to_an_item_gets_one_orientation():
    batch, turned = untouched(d4)
    seen = set()
    for item in range(32):
        matches = [e for e in range(8) if torch.equal(orient(batch["hr"][item], e), turned["hr"][item])]
        assert len(matches) == 1
        for name in ("lr", "valid", "lr_valid"):
            assert torch.equal(orient(batch[name][item], matches[0]), turned[name][item])
        seen |= set(matches)
    assert seen == set(range(8))
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(turned["hr"], 2) - 1, turned["lr"])


def test_only_squares_are_turned():
    with pytest.raises(GridError, match="hr has 8 x 6 pixels; only squares"):
        d4({"hr": torch.zeros(1, 1, 8, 6)}, generator())


@pytest.mark.parametrize("per_band", [False, True])
def test_gain_is_one_factor_for_lr_and_hr_and_clips_nothing(per_band):
    batch, result = untouched(gain, limit=2.0, per_band=per_band)
    factors = (result["hr"] / batch["hr"])[:, :, 0, 0]
    assert factors.min() >= 0.5
    assert factors.max() <= 2
    assert (factors.std(dim=1).mean() > 0.1) == per_band
    expected = kornia.enhance.denormalize(batch["hr"], torch.zeros_like(factors), factors)
    torch.testing.assert_close(result["hr"], expected)
    torch.testing.assert_close(result["lr"], batch["lr"] * factors[:, :, None, None])
    assert result["hr"].max() > 1
    assert result["hr"].min() < 0
    if not per_band:
        unclipped = kornia.enhance.adjust_brightness_accumulative(batch["hr"], factors[:, 0], clip_output=False)
        torch.testing.assert_close(result["hr"], unclipped)


def test_a_gain_per_band_needs_the_same_bands():
    with pytest.raises(GridError, match=r"different numbers of bands \(\[2, 3\]\)"):
        gain({"lr": torch.zeros(1, 2, 4, 4), "hr": torch.zeros(1, 3, 8, 8)}, generator(), limit=2, per_band=True)


def test_noise_is_on_lr_alone_and_clips_nothing():
    batch, result = untouched(noise, deviation=0.1)
    assert torch.equal(result["hr"], batch["hr"])
    added = result["lr"] - batch["lr"]
    deviations = added.std(dim=(2, 3))
    assert deviations.max() < 0.15
    assert deviations.mean() == pytest.approx(0.05, abs=0.01)
    assert abs(added.mean()) < 0.005
    assert result["lr"].max() > 1
    assert set(noise({"hr": batch["hr"]}, generator(), deviation=1.0)) == {"hr"}


@given(seed=st.integers(0, 1000), scale=st.sampled_from([2, 4]), largest=st.sampled_from([0.1, 0.7, 1.0]))
def test_cutblur_pastes_a_rectangle_as_the_paper_does(seed, scale, largest):
    batch = batch_of(4, scale=scale, seed=seed)
    del batch["lr_valid"], batch["valid"]
    mixed = cutblur(batch, generator(seed), probability=1.0, largest=largest)
    assert torch.equal(mixed["hr"], batch["hr"])
    means = torch.nn.functional.avg_pool2d(batch["hr"], scale)
    pasted = (mixed["lr"] == means).all(dim=1)
    assert torch.equal(pasted, (mixed["lr"] == means).any(dim=1))
    assert torch.equal(mixed["lr"].movedim(1, -1)[~pasted], batch["lr"].movedim(1, -1)[~pasted])
    for item, swap in enumerate(pasted):
        inside = swap if _is_rectangle(swap) else ~swap
        assert _is_rectangle(inside)
        # The paper's own way, at HR size: repeat LR, paste HR, and then average back.
        repeated = batch["lr"][item].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        mask = swap.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        at_hr_size = torch.where(mask, batch["hr"][item], repeated)
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(at_hr_size, scale), mixed["lr"][item])


def _is_rectangle(mask):
    rows, columns = mask.any(dim=1), mask.any(dim=0)
    return (
        bool(mask.any())
        and torch.equal(mask, rows[:, None] & columns)
        and all(len(torch.unique_consecutive(axis.int())) <= 3 - int(axis[0]) for axis in (rows, columns))
    )


def test_cutblur_leaves_what_is_invalid():
    batch, mixed = untouched(cutblur, probability=1.0)
    whole = batch["valid"].unflatten(1, (8, 2)).unflatten(3, (8, 2)).all(4).all(2)
    changed = (mixed["lr"] != batch["lr"]).any(dim=1)
    assert changed.any()
    assert not (changed & ~whole).any()


def test_cutblur_mixes_the_share_that_was_asked_for():
    batch = batch_of(400)
    changed = (cutblur(batch, generator(), probability=0.25)["lr"] != batch["lr"]).flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(cutblur(batch, generator(), probability=0.0)["lr"], batch["lr"])


def test_cutblur_needs_an_exact_scale_and_the_same_bands():
    for lr, hr in (((1, 3, 8, 8), (1, 3, 20, 20)), ((1, 2, 8, 8), (1, 3, 16, 16)), ((1, 3, 8, 8), (1, 3, 16, 24))):
        with pytest.raises(GridError, match="must have the same bands and an exact scale"):
            cutblur({"lr": torch.zeros(lr), "hr": torch.zeros(hr)}, generator(), probability=1.0)
