import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.config.names import OBJECTIVES
from geosr.config.schema import LossesSection
from geosr.errors import ConfigError
from geosr.losses import Objective, adversarial_objective

ALL = [*((kind, False) for kind in OBJECTIVES), ("bce", True), ("hinge", True), ("lsgan", True)]


def objective(kind, relativistic=False, *, label_smoothing=False):
    section = LossesSection(adv_loss_type=kind, relativistic_average_d=relativistic)
    return adversarial_objective(section, label_smoothing=label_smoothing)


def scores(seed=0, shape=(3, 1, 4, 5), gap=0.5):
    generator = torch.Generator().manual_seed(seed)
    real, fake = 2 * torch.randn(2, *shape, generator=generator)
    return real + gap, fake


def log_sigmoid(scores):
    return -np.logaddexp(0, -scores)


def oracle(kind, relativistic, real, fake, target=1.0):
    """Losses of discriminator and generator, from the formulas of the papers, in float64."""
    real, fake = (image.double().numpy() for image in (real, fake))
    if relativistic:
        real, fake = real - fake.mean(), fake - real.mean()
    # what a score costs when it should be called real, and when it should be called fake
    low = -1 if relativistic else 0
    as_real, as_fake = {
        "bce": (
            lambda score, goal: -(goal * log_sigmoid(score) + (1 - goal) * log_sigmoid(-score)).mean(),
            lambda score: -log_sigmoid(-score).mean(),
        ),
        "hinge": (lambda score, goal: np.maximum(0, 1 - score).mean(), lambda score: np.maximum(0, 1 + score).mean()),
        "lsgan": (lambda score, goal: ((score - goal) ** 2).mean(), lambda score: ((score - low) ** 2).mean()),
        "wasserstein": (lambda score, goal: -score.mean(), lambda score: score.mean()),
    }[kind]
    discriminator = as_real(real, target) + as_fake(fake)
    if relativistic:
        generator = (as_real(fake, 1.0) + as_fake(real)) / 2
    else:
        generator = -fake.mean() if kind == "hinge" else as_real(fake, 1.0) * (0.5 if kind == "lsgan" else 1)
    return discriminator if kind == "wasserstein" else discriminator / 2, generator


@pytest.mark.parametrize(("kind", "relativistic"), ALL)
@pytest.mark.parametrize("smooth", [False, True])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), gap=st.floats(-3, 3), shape=st.sampled_from([(1, 1), (4, 1), (2, 1, 3, 5)]))
def test_losses_are_those_of_the_formulas(kind, relativistic, smooth, seed, gap, shape):
    real, fake = scores(seed, shape, gap)
    ours = objective(kind, relativistic, label_smoothing=smooth)
    of_discriminator, of_generator = oracle(kind, relativistic, real, fake, 0.9 if smooth else 1.0)
    assert float(ours.discriminator(real, fake)) == pytest.approx(of_discriminator, rel=1e-5, abs=1e-6)
    assert float(ours.generator(fake, real)) == pytest.approx(of_generator, rel=1e-5, abs=1e-6)


def test_bce_that_cannot_tell_is_the_logarithm_of_two():
    ours = objective("bce")
    undecided = torch.zeros(2, 1, 3, 3)
    assert float(ours.discriminator(undecided, undecided)) == pytest.approx(math.log(2))
    assert float(ours.generator(undecided)) == pytest.approx(math.log(2))


@pytest.mark.parametrize(("kind", "relativistic"), ALL)
def test_discriminator_and_generator_pull_in_opposite_directions(kind, relativistic):
    ours = objective(kind, relativistic)
    # everything within reach of hinge and lsgan, so that no score has arrived where it should be
    real, fake = (0.2 * torch.rand(2, 4, 1, generator=torch.Generator().manual_seed(0)) + 0.1).requires_grad_().unbind()
    by_discriminator = torch.autograd.grad(ours.discriminator(real, fake), (real, fake), retain_graph=True)
    (by_generator,) = torch.autograd.grad(ours.generator(fake, real), (fake,))
    assert (by_discriminator[0] < 0).all()
    assert (by_discriminator[1] > 0).all()
    assert (by_generator < 0).all()


@pytest.mark.parametrize("kind", ["bce", "hinge", "lsgan"])
def test_a_relativistic_objective_sees_differences_alone(kind):
    ours = objective(kind, relativistic=True)
    assert ours.relativistic
    real, fake = scores()
    for loss in (ours.discriminator, lambda real, fake: ours.generator(fake, real), ours.accuracy):
        assert float(loss(real + 7, fake + 7)) == pytest.approx(float(loss(real, fake)), rel=1e-4)
    with pytest.raises(TypeError, match="real scores"):
        ours.generator(fake)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_label_smoothing_lowers_the_target_of_real_scores_where_there_is_one(kind):
    real, fake = scores()
    plain, smooth = objective(kind), objective(kind, label_smoothing=True)
    changed = smooth.discriminator(real, fake) != plain.discriminator(real, fake)
    assert changed == (kind in ("bce", "lsgan"))
    assert smooth.generator(fake) == plain.generator(fake)


@pytest.mark.parametrize(("kind", "relativistic"), ALL)
def test_probabilities_and_accuracy_tell_who_is_winning(kind, relativistic):
    ours = objective(kind, relativistic)
    middle = 0.5 if kind == "lsgan" else 0.0
    noise = 0.1 * torch.randn(4, 1, generator=torch.Generator().manual_seed(0))
    cases = {"won": (9.0, -9.0), "lost": (-9.0, 9.0), "even": (0.0, 0.0)}
    found = {}
    for name, (high, low) in cases.items():
        real, fake = noise + middle + high, noise + middle + low
        of_real, of_fake = (float(share) for share in ours.probabilities(real, fake))
        found[name] = (of_real, of_fake, float(ours.accuracy(real, fake)))
    assert found["won"] == pytest.approx((1, 0, 1), abs=1e-2)
    assert found["lost"] == pytest.approx((0, 1, 0), abs=1e-2)
    assert found["even"] == pytest.approx((0.5, 0.5, 0.5), abs=0.1)


def test_accuracy_is_the_share_of_scores_on_their_side():
    real, fake = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 0.0])
    assert float(objective("bce").accuracy(real, fake)) == pytest.approx((3 / 4 + (1 + 0.5) / 2) / 2)


def test_probability_of_bce_is_the_sigmoid_of_the_logit():
    real, fake = scores()
    of_real, of_fake = objective("bce").probabilities(real.requires_grad_(), fake)
    assert float(of_real) == pytest.approx(float((1 / (1 + (-real.detach().double()).exp())).mean()), abs=1e-6)
    assert float(of_fake) == pytest.approx(float((1 / (1 + (-fake.double()).exp())).mean()), abs=1e-6)
    assert not of_real.requires_grad


@pytest.mark.parametrize(("kind", "relativistic"), ALL)
def test_half_precision_scores_are_taken_to_float32_first(kind, relativistic):
    ours = objective(kind, relativistic)
    real, fake = (image.bfloat16() for image in scores())
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours.discriminator(real, fake)
    assert loss.dtype == torch.float32
    assert loss == ours.discriminator(real.float(), fake.float())
    assert ours.generator(fake, real) == ours.generator(fake.float(), real.float())


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_score_that_is_far_off_has_a_finite_loss_and_gradient(kind):
    ours = objective(kind)
    real, fake = torch.tensor([-1e4]).requires_grad_(), torch.tensor([1e4]).requires_grad_()
    (ours.discriminator(real, fake) + ours.generator(fake)).backward()
    assert real.grad.isfinite().all()
    assert fake.grad.isfinite().all()


def test_an_objective_that_does_not_exist_is_refused():
    with pytest.raises(
        ConfigError, match=r"adv_loss_type is 'hing'.*bce, hinge, lsgan, wasserstein; did you mean 'hinge'"
    ):
        objective("hing")
    with pytest.raises(ConfigError, match="relativistic_average_d=false"):
        objective("wasserstein", relativistic=True)
    with pytest.raises(ConfigError, match="did you mean 'bce'"):
        Objective("bcee")
