"""The oracle for models finds what it is there to find."""

import pytest
import torch
from torch import nn

from geosr.models import ModelSpec
from geosr.models.compact import Compact
from geosr.models.registry import ARCHITECTURES
from geosr.testing import assert_model_contract

BANDS = ("B02", "B03")


def spec(**facts):
    return ModelSpec("m", "compact", 2, BANDS, {"channels": 4, "blocks": 1}, consistency_mtf=None, **facts)


def fresh():
    torch.manual_seed(0)
    return Compact(bands=2, scale=2, channels=4, blocks=1)


class TooLarge(Compact):
    def resolve(self, features):
        return super().resolve(features) + 1


class Boasting(Compact):
    def __init__(self, **options):
        super().__init__(**options)
        self.reach = 4


class Modest(Compact):
    def __init__(self, **options):
        super().__init__(**options)
        self.reach = 2


class Short(Compact):
    def forward(self, lr):
        return super().forward(lr)[..., 1:, :]


class Rounding(Compact):
    def forward(self, lr):
        return super().forward(lr).to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else lr.dtype)


class Imprecise(Compact):
    def forward(self, lr):
        return super().forward(lr) + 0.05 * torch.is_autocast_enabled("cpu")


class Idle(Compact):
    def __init__(self, **options):
        super().__init__(**options)
        self.unused = nn.Parameter(torch.ones(1))


class Forgetful(Compact):
    """What it starts with is not in its state."""

    def __init__(self, **options):
        super().__init__(**options)
        self.drawn = float(torch.rand(()))

    def forward(self, lr):
        return super().forward(lr) + 1e-3 * self.drawn


def test_a_network_of_one_s_own_is_judged():
    assert_model_contract(spec(), fresh())


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (TooLarge, "fresh weights differ from bicubic by 1"),
        (Boasting, "the network reaches 3 pixels, not 4 as it says"),
        (Modest, "the output depends on pixels beyond the halo of 2"),
        (Short, r"1 x 1 became \(2, 2, 1, 2\)"),
        (Rounding, "under autocast, reflectance became torch.bfloat16"),
        (Imprecise, "bfloat16 changes the output by more than 2 %"),
        (Idle, "no gradient reaches network.unused"),
    ],
)
def test_what_breaks_the_contract_is_found(broken, told):
    with pytest.raises(AssertionError, match=told):
        assert_model_contract(spec(), broken(bands=2, scale=2, channels=4, blocks=1))


def test_a_state_that_is_not_whole_is_found(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "compact", Forgetful)
    with pytest.raises(AssertionError, match="the state dictionary does not hold everything"):
        assert_model_contract(spec())


def test_a_halo_that_is_too_small_is_found():
    with pytest.raises(AssertionError, match="depends on pixels beyond the halo of 2"):
        assert_model_contract(spec(halo=2), fresh())
