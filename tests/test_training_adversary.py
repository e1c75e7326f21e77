import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.config.schema import TrainingSection
from geosr.degrade import usm_sharpen
from geosr.training.adversary import Adversary

MEAN, STD = [0.1, 0.2], [0.05, 0.1]


def adversary_of(**losses):
    torch.manual_seed(0)
    training = TrainingSection()
    for name, value in losses.items():
        assert name in vars(training.Losses)
        setattr(training.Losses, name, value)
    return Adversary(nn.Conv2d(2, 1, 3), training, mean=MEAN, std=STD)


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sr, hr = (torch.rand(2, 2, 12, 10, generator=generator) * 0.4 for _ in range(2))
    valid = torch.rand(2, 12, 10, generator=generator) > 0.2
    return sr, hr, valid


def test_an_image_is_seen_in_its_normalisation_and_an_invalid_pixel_as_the_mean():
    sr, _, valid = images()
    seen = adversary_of().seen(sr, valid)
    for band in range(2):
        expected = (sr[:, band] - MEAN[band]) / STD[band]
        torch.testing.assert_close(seen[:, band][valid], expected[valid])
        assert (seen[:, band][~valid] == 0).all()


def test_losses_are_those_of_the_scores():
    adversary, (sr, hr, valid) = adversary_of(), images()
    real, fake = (adversary.network(adversary.seen(image, valid)) for image in (hr, sr))
    loss, values = adversary.loss(sr, hr, valid)
    expected = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    torch.testing.assert_close(loss, expected)
    assert values["D(y)_prob"].item() == pytest.approx(real.sigmoid().mean().item())
    assert values["D(G(x))_prob"].item() == pytest.approx(fake.sigmoid().mean().item())
    torch.testing.assert_close(adversary.fooled(sr, hr, valid).loss, F.softplus(-fake).mean())


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_pull_is_the_derivative_of_the_loss(relativistic, scale):
    adversary, (sr, hr, valid) = adversary_of(relativistic_average_d=relativistic), images()
    fooled = adversary.fooled(sr, hr, valid, scale=scale)
    assert all(parameter.grad is None for parameter in adversary.network.parameters())
    leaf = sr.clone().requires_grad_(True)
    scores = adversary.network(adversary.seen(leaf, valid))
    loss = adversary.objective.generator(scores, adversary.network(adversary.real(hr, valid)).detach())
    loss.backward()
    torch.testing.assert_close(fooled.pull, leaf.grad)
    torch.testing.assert_close(fooled.scores, scores)
    assert (fooled.pull.movedim(1, -1)[~valid] == 0).all()


def test_scores_that_are_known_teach_what_new_ones_would():
    gradients = []
    for known in (False, True):
        adversary, (sr, hr, valid) = adversary_of(), images()
        fake = adversary.fooled(sr, hr, valid).scores if known else None
        adversary.loss(sr, hr, valid, fake=fake)[0].backward()
        gradients.append(adversary.network.weight.grad)
    torch.testing.assert_close(*gradients)


def test_r1_is_due_now_and_then_and_weighs_as_much_more():
    _, hr, _ = images()
    valid = torch.ones(2, 12, 10, dtype=torch.bool)
    often, seldom = adversary_of(r1_gamma=2.0), adversary_of(r1_gamma=2.0, r1_every=4)
    expected = 2.0 * _squared_gradient(often.network, hr.shape) / 2
    assert float(often.r1(hr, valid, number=3).detach()) == pytest.approx(expected, rel=1e-5)
    assert [float(seldom.r1(hr, valid, number=n).detach()) for n in (3, 5)] == [0.0, 0.0]
    assert float(seldom.r1(hr, valid, number=8).detach()) == pytest.approx(4 * expected, rel=1e-5)
    assert float(adversary_of().r1(hr, valid, number=0)) == 0.0


def _squared_gradient(network, shape):
    """The gradient of the sum of a convolution's output is the convolution of ones with its kernel."""
    ones = torch.ones(1, 1, shape[2] - 2, shape[3] - 2)
    return float(F.conv_transpose2d(ones, network.weight.detach()).square().sum())


def test_the_gradient_penalty_of_a_linear_network_is_the_same_everywhere():
    adversary, (sr, hr, _) = adversary_of(gp_weight=10.0), images()
    valid = torch.ones(2, 12, 10, dtype=torch.bool)
    norm = _squared_gradient(adversary.network, hr.shape) ** 0.5 / (10 * 8)
    assert float(adversary.gradient_penalty(sr, hr, valid).detach()) == pytest.approx(10 * (norm - 1) ** 2, rel=1e-4)
    assert float(adversary_of().gradient_penalty(sr, hr, valid)) == 0.0


def test_what_it_takes_for_real_may_be_sharpened():
    _, hr, _ = images()
    valid = torch.ones(2, 12, 10, dtype=torch.bool)
    large = F.interpolate(hr, scale_factor=6)
    whole = torch.ones(2, 72, 60, dtype=torch.bool)
    adversary = adversary_of(gan_gt_usm=True)
    torch.testing.assert_close(adversary.real(large, whole), adversary.seen(usm_sharpen(large), whole))
    assert not torch.equal(adversary.real(large, whole), adversary.seen(large, whole))
    assert torch.equal(adversary_of().real(hr, valid), adversary.seen(hr, valid))


def test_only_the_network_is_in_its_state():
    assert set(adversary_of().state_dict()) == {"network.weight", "network.bias"}
