import math

import pytest
import torch
from torch import nn

from geosr.config.schema import OptimizersSection, SchedulersSection
from geosr.training.optim import Plateau, build_optimizer, clip, is_better_higher, parameter_groups, set_rate


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.PReLU(3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 1))


def test_only_kernels_decay():
    kernels, others = parameter_groups(network(), 0.1)
    assert [tuple(parameter.shape) for parameter in kernels["params"]] == [(3, 2, 3, 3), (1, 3)]
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert (kernels["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_weight_decay_shrinks_kernels_and_nothing_else():
    net = network()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = build_optimizer(OptimizersSection(name="adamw", weight_decay_d=0.5, optim_d_lr=0.1), net, "d")
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before, net.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5) if old.ndim > 1 else old)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_step_is_that_of_the_paper(name):
    section = OptimizersSection(name=name, optim_g_lr=0.01, betas=[0.5, 0.9], eps=1e-7)
    weight = nn.Linear(1, 1, bias=False)
    start = weight.weight.item()
    optimizer = build_optimizer(section, weight, "g")
    mean = variance = moved = 0.0
    for step, gradient in enumerate([0.3, -0.1, 0.7], start=1):
        weight.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        mean, variance = 0.5 * mean + 0.5 * gradient, 0.9 * variance + 0.1 * gradient**2
        # D. Kingma, J. Ba, "Adam", ICLR 2015, algorithm 1
        moved += 0.01 * (mean / (1 - 0.5**step)) / (math.sqrt(variance / (1 - 0.9**step)) + 1e-7)
    assert weight.weight.item() == pytest.approx(start - moved, rel=1e-5)


def test_each_network_has_its_own_rate():
    section = OptimizersSection(optim_g_lr=0.1, optim_d_lr=0.2)
    rates = [build_optimizer(section, network(), which).param_groups[0]["lr"] for which in ("g", "d")]
    assert rates == [0.1, 0.2]
    optimizer = build_optimizer(section, network(), "g")
    set_rate(optimizer, 0.7)
    assert [group["lr"] for group in optimizer.param_groups] == [0.7, 0.7]


def plateau_of(which="g", **settings):
    return Plateau(SchedulersSection(metric="val_metrics/l1", metric_d=None, **settings), 1.0, which)


def rates(plateau, values):
    seen = []
    for value in values:
        plateau.validated({} if value is None else {"val_metrics/l1": torch.tensor(value)})
        seen.append(plateau.rate)
    return seen


def test_a_plateau_lasts_for_its_patience_and_then_cools_down():
    plateau = plateau_of(patience=1, factor=0.5, cooldown=2, min_lr=0.2)
    # Best at first; two without improvement are one too many; then two that do not count.
    assert rates(plateau, [1.0] * 9) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert rates(plateau, [1.0] * 9)[-1] == 0.2


def test_a_validation_without_the_metric_does_not_count():
    assert rates(plateau_of(patience=1), [1.0, None, None, 1.0, None, 1.0]) == [1, 1, 1, 1, 1, 0.5]


def test_settings_of_one_network_come_before_those_of_both():
    assert rates(plateau_of("d", patience=9, patience_d=0, factor_d=0.1), [1.0, 1.0]) == pytest.approx([1.0, 0.1])
    assert rates(plateau_of("g", patience=9, patience_d=0, factor_d=0.1), [1.0, 1.0]) == [1.0, 1.0]


def test_higher_is_better_for_psnr():
    section = SchedulersSection(metric="val_metrics/psnr", patience=0)
    plateau = Plateau(section, 1.0, "g")
    for value, rate in ((30.0, 1.0), (31.0, 1.0), (30.5, 0.5)):
        plateau.validated({"val_metrics/psnr": torch.tensor(value)})
        assert plateau.rate == rate
    assert [is_better_higher(name) for name in ("val_metrics/ssim", "validation/DISC_adversarial_loss")] == [
        True,
        False,
    ]


def test_a_plateau_goes_on_with_what_it_saw_and_the_config_s_own_settings():
    first, second = plateau_of(patience=3), plateau_of(patience=1)
    rates(first, [1.0, 1.0])
    second.load_state_dict(first.state_dict())
    assert rates(second, [1.0]) == [0.5]


def test_clipping_shortens_what_is_too_long_only():
    weight = nn.Parameter(torch.zeros(4))
    for limit, expected in ((1.0, 1.0), (0.0, 2.0), (5.0, 2.0)):
        weight.grad = torch.ones(4)
        clip([weight], limit)
        assert weight.grad.norm().item() == pytest.approx(expected)
