import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.losses import gradient_penalty, r1_penalty


def images(seed=0, shape=(3, 2, 6, 5)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class Quadratic(nn.Module):
    """Score ``sum(weight * image**2)``, once or as several equal logits; its gradient is ``2 weight image``."""

    def __init__(self, logits=1):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 2, 60).view(1, 2, 6, 5))
        self.logits = logits

    def forward(self, image):
        score = (self.weight * image**2).sum((1, 2, 3))
        return [score.view(-1, 1, 1, 1).expand(-1, 1, 1, self.logits)]


@pytest.mark.parametrize("logits", [1, 4])
def test_r1_is_half_the_squared_gradient_of_the_sum_of_logits(logits):
    network, image = Quadratic(logits), images()
    penalty = r1_penalty(network, image)
    gradient = logits * 2 * network.weight.detach() * image
    expected = 0.5 * gradient.square().sum((1, 2, 3)).mean()
    assert penalty.item() == pytest.approx(float(expected), rel=1e-5)
    penalty.backward()
    by_weight = (logits * 2 * image) ** 2 * network.weight.detach()
    torch.testing.assert_close(network.weight.grad, by_weight.mean(0, keepdim=True))


@pytest.mark.parametrize("logits", [1, 4])
def test_the_gradient_penalty_wants_a_slope_of_one_between_real_and_fake(logits):
    network, real, fake = Quadratic(logits), images(0), images(1)
    penalty = gradient_penalty(network, real, fake, torch.Generator().manual_seed(5))
    share = torch.rand(3, 1, 1, 1, generator=torch.Generator().manual_seed(5))
    norms = (2 * network.weight.detach() * (share * real + (1 - share) * fake)).square().sum((1, 2, 3)).sqrt()
    assert penalty.item() == pytest.approx(float((norms - 1).square().mean()), rel=1e-5)


def critic(network):
    """A network of one scale."""
    return lambda image: [network(image)]


def test_several_scales_are_penalised_one_by_one():
    torch.manual_seed(0)
    fine, coarse = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 1)), nn.Conv2d(2, 1, 2)

    def both(image):
        return fine(image), coarse(F.avg_pool2d(image, 2))

    image, eps = images(), 1e-3
    of_scales = []
    for scale in range(2):
        squares = []
        for number in range(len(image)):  # derivatives by every pixel, as quotients of differences in float64
            one = image[number : number + 1].double()
            steps = eps * torch.eye(one.numel(), dtype=torch.float64).view(-1, *one.shape[1:])
            fine.double(), coarse.double()
            high, low = (both(one + sign * steps)[scale].detach().flatten(1).sum(1) for sign in (1, -1))
            fine.float(), coarse.float()
            squares.append(float(((high - low) / (2 * eps)).square().sum()))
        of_scales.append(squares)
    r1 = float(r1_penalty(both, image).detach())
    assert r1 == pytest.approx(sum(sum(squares) / 3 / 2 for squares in of_scales) / 2, rel=1e-3)
    counts = [both(image)[scale][0].numel() for scale in range(2)]
    penalty = float(gradient_penalty(both, image, image, torch.Generator()).detach())
    by_hand = [
        (square**0.5 / count - 1) ** 2 for squares, count in zip(of_scales, counts, strict=True) for square in squares
    ]
    assert penalty == pytest.approx(sum(by_hand) / 6, rel=1e-3)


def test_a_critic_of_slope_one_is_not_penalised():
    class Linear(nn.Module):
        def forward(self, image):
            return [image.sum((1, 2, 3)) / image[0].numel() ** 0.5]

    penalty = gradient_penalty(Linear(), images(0), images(1), torch.Generator().manual_seed(0))
    assert penalty.item() == pytest.approx(0, abs=1e-6)
    assert r1_penalty(Linear(), images()).item() == pytest.approx(0.5, rel=1e-5)


def test_the_places_between_real_and_fake_come_from_the_generator_alone():
    network = Quadratic()
    global_state = torch.get_rng_state()
    penalties = [
        gradient_penalty(network, images(0), images(1), torch.Generator().manual_seed(seed)).item()
        for seed in (1, 1, 2)
    ]
    assert penalties[0] == penalties[1] != penalties[2]
    assert torch.equal(torch.get_rng_state(), global_state)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, nn.BatchNorm2d, nn.Identity])
def test_weights_get_a_gradient_and_images_none(norm):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), norm(4), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(4, 1, 3), nn.Softplus()
    )
    real, fake = images(0).requires_grad_(), images(1).requires_grad_()
    penalty = r1_penalty(critic(network), real)
    penalty = penalty + gradient_penalty(critic(network), real, fake, torch.Generator().manual_seed(0))
    penalty.backward()
    assert network[0].weight.grad.any()
    assert network[0].weight.grad.isfinite().all()
    assert real.grad is None
    assert fake.grad is None


def test_autocast_does_not_reach_them():
    torch.manual_seed(0)
    network = critic(nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)))
    plain = r1_penalty(network, images()), gradient_penalty(network, images(), images(1), torch.Generator())
    with torch.autocast("cpu", torch.bfloat16):
        inside = r1_penalty(network, images()), gradient_penalty(network, images(), images(1), torch.Generator())
    assert inside == plain


def test_a_flat_discriminator_has_finite_gradients():
    network = nn.Conv2d(2, 1, 3)
    nn.init.zeros_(network.weight)
    penalty = gradient_penalty(critic(network), images(0), images(1), torch.Generator())
    penalty.backward()
    assert penalty.item() == pytest.approx(1)
    assert network.weight.grad.isfinite().all()
