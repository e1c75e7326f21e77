import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.config.schema import TrainingSection
from geosr.degrade import usm_sharpen
from geosr.models.discriminators import Discriminator, Look
from geosr.training.adversary import Adversary

MEAN, STD = [0.1, 0.2], [0.05, 0.1]


class Linear(Discriminator):
    """Scores that are a convolution of the image; with two scales, another of every other pixel as well."""

    name = "linear"

    def __init__(self, bands=2, scales=1):
        super().__init__(bands=bands, least=3)
        self.layers = nn.ModuleList(nn.Conv2d(bands, 1, 3) for _ in range(scales))

    def look(self, image):
        pyramid = [image[..., :: 2**scale, :: 2**scale] for scale in range(len(self.layers))]
        scores = tuple(layer(level) for layer, level in zip(self.layers, pyramid, strict=True))
        return Look(scores, tuple(torch.tanh(3 * each) for each in scores))


def adversary_of(*, scales=1, conditional=False, detail=False, **losses):
    torch.manual_seed(0)
    training = TrainingSection()
    for name, value in losses.items():
        assert name in vars(training.Losses)
        setattr(training.Losses, name, value)
    network = Linear(4 if conditional else 2, scales)
    return Adversary(network, training, mean=MEAN, std=STD, conditional=conditional, detail=detail)


def images(seed=0, *, share=0.8):
    """SR, and the batch that it is part of."""
    generator = torch.Generator().manual_seed(seed)
    sr, hr = (torch.rand(2, 2, 12, 10, generator=generator) * 0.4 for _ in range(2))
    lr = torch.rand(2, 2, 6, 5, generator=generator) * 0.4
    return sr, {"hr": hr, "lr": lr, "valid": torch.rand(2, 12, 10, generator=generator) < share}


def test_an_image_is_seen_in_its_normalisation_and_an_invalid_pixel_as_the_mean():
    sr, batch = images()
    seen, valid = adversary_of().seen(sr, batch["valid"]), batch["valid"]
    for band in range(2):
        expected = (sr[:, band] - MEAN[band]) / STD[band]
        torch.testing.assert_close(seen[:, band][valid], expected[valid])
        assert (seen[:, band][~valid] == 0).all()


def scored(adversary, image, valid):
    """Scores at the only scale."""
    return adversary.look(adversary.seen(image, valid), None).scores[0]


def test_losses_are_those_of_the_scores():
    adversary, (sr, batch) = adversary_of(), images()
    real, fake = (scored(adversary, image, batch["valid"]) for image in (batch["hr"], sr))
    loss, values = adversary.loss(sr, batch)
    expected = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    torch.testing.assert_close(loss, expected)
    assert values["D(y)_prob"].item() == pytest.approx(real.sigmoid().mean().item())
    assert values["D(G(x))_prob"].item() == pytest.approx(fake.sigmoid().mean().item())
    torch.testing.assert_close(adversary.fooled(sr, batch).loss, F.softplus(-fake).mean().detach())


@pytest.mark.parametrize(
    ("kind", "relativistic"), [("bce", False), ("hinge", True), ("lsgan", True), ("wasserstein", False)]
)
def test_of_several_scales_everything_is_the_mean(kind, relativistic):
    losses = {"adv_loss_type": kind, "relativistic_average_d": relativistic, "r1_gamma": 2.0, "gp_weight": 3.0}
    adversary, (sr, batch) = adversary_of(scales=2, **losses), images(share=1.0)
    hr, lr, valid = batch["hr"], batch["lr"], batch["valid"]
    apart = []
    for scale, layer in enumerate(adversary.network.layers):
        alone = adversary_of(**losses)
        alone.network.layers[0].load_state_dict(layer.state_dict())
        step = 2**scale
        coarse = {"hr": hr[..., ::step, ::step], "lr": lr, "valid": valid[..., ::step, ::step]}
        seen = sr[..., ::step, ::step]
        torch.manual_seed(0)
        penalties = alone.r1(coarse, number=0), alone.gradient_penalty(seen, coarse)
        loss, values = alone.loss(seen, coarse)
        apart.append(torch.stack([loss, *values.values(), alone.fooled(seen, coarse).loss, *penalties]))
    torch.manual_seed(0)
    penalties = adversary.r1(batch, number=0), adversary.gradient_penalty(sr, batch)
    loss, values = adversary.loss(sr, batch)
    together = torch.stack([loss, *values.values(), adversary.fooled(sr, batch).loss, *penalties])
    torch.testing.assert_close(together, torch.stack(apart).mean(0))


@pytest.mark.parametrize("matching", [0.0, 5e-3])
@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_pull_is_the_derivative_of_the_loss(relativistic, scale, matching):
    losses = {"relativistic_average_d": relativistic, "feature_matching_weight": matching, "adv_loss_beta": 1e-3}
    adversary, (sr, batch) = adversary_of(scales=2, **losses), images()
    fooled = adversary.fooled(sr, batch, scale=scale)
    assert all(parameter.grad is None for parameter in adversary.network.parameters())
    leaf, valid = sr.clone().requires_grad_(True), batch["valid"]
    fake = adversary.network.look(adversary.seen(leaf, valid))
    real = adversary.network.look(adversary.seen(batch["hr"], valid))
    each = zip(fake.scores, real.scores, fake.features, real.features, strict=True)
    loss = 0
    for of_sr, of_hr, ours, theirs in each:
        loss = loss + adversary.objective.generator(of_sr, of_hr.detach()) / 2
        loss = loss + matching / 1e-3 * F.l1_loss(ours, theirs.detach()) / 2
    loss.backward()
    torch.testing.assert_close(fooled.loss, loss.detach())
    torch.testing.assert_close(fooled.pull, leaf.grad)
    for ours, theirs in zip(fooled.scores, fake.scores, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert (fooled.pull.movedim(1, -1)[~valid] == 0).all()


def test_features_are_matched_without_a_weight_on_what_is_logged():
    adversary, (sr, batch) = adversary_of(feature_matching_weight=0.01, adv_loss_beta=0.1), images()
    fooled = adversary.fooled(sr, batch)
    ours, theirs = (torch.tanh(3 * scored(adversary, image, batch["valid"])) for image in (sr, batch["hr"]))
    expected = (ours - theirs).abs().mean().item()
    assert fooled.terms["feature_matching_loss"].item() == pytest.approx(expected, rel=1e-6)
    total = fooled.terms["adversarial_loss"] + 0.1 * fooled.terms["feature_matching_loss"]
    torch.testing.assert_close(fooled.loss, total)
    assert adversary_of().fooled(sr, batch).terms.keys() == {"adversarial_loss"}


@pytest.mark.parametrize(
    ("losses", "looks"), [({}, 1), ({"feature_matching_weight": 1.0}, 2), ({"relativistic_average_d": True}, 2)]
)
def test_sr_is_looked_at_once_and_hr_only_where_it_is_compared(losses, looks):
    adversary, (sr, batch) = adversary_of(**losses), images()
    seen = []
    adversary.network.register_forward_hook(lambda network, shown, look: seen.append(look.scores[0].requires_grad))
    fooled = adversary.fooled(sr, batch)
    assert sorted(seen) == [False] * (looks - 1) + [True]
    adversary.loss(sr, batch, fake=fooled.scores)
    assert len(seen) == looks + 1


@pytest.mark.parametrize("scales", [1, 2])
def test_scores_that_are_known_teach_what_new_ones_would(scales):
    gradients = []
    for known in (False, True):
        adversary, (sr, batch) = adversary_of(scales=scales, feature_matching_weight=1.0), images()
        fake = adversary.fooled(sr, batch).scores if known else None
        adversary.loss(sr, batch, fake=fake)[0].backward()
        gradients.append([layer.weight.grad for layer in adversary.network.layers])
    torch.testing.assert_close(*gradients)


def test_r1_is_due_now_and_then_and_weighs_as_much_more():
    _, batch = images(share=1.0)
    often, seldom = adversary_of(r1_gamma=2.0), adversary_of(r1_gamma=2.0, r1_every=4)
    expected = 2.0 * _squared_gradient(often.network) / 2
    assert float(often.r1(batch, number=3).detach()) == pytest.approx(expected, rel=1e-5)
    assert [float(seldom.r1(batch, number=n).detach()) for n in (3, 5)] == [0.0, 0.0]
    assert float(seldom.r1(batch, number=8).detach()) == pytest.approx(4 * expected, rel=1e-5)
    assert float(adversary_of().r1(batch, number=0)) == 0.0


def _squared_gradient(network, bands=slice(None)):
    """The gradient of the sum of a convolution's output is the convolution of ones with its kernel."""
    kernel = network.layers[0].weight.detach()[:, bands]
    return float(F.conv_transpose2d(torch.ones(1, 1, 10, 8), kernel).square().sum())


def test_the_gradient_penalty_of_a_linear_network_is_the_same_everywhere():
    adversary, (sr, batch) = adversary_of(gp_weight=10.0), images(share=1.0)
    norm = _squared_gradient(adversary.network) ** 0.5 / (10 * 8)
    assert float(adversary.gradient_penalty(sr, batch).detach()) == pytest.approx(10 * (norm - 1) ** 2, rel=1e-4)
    assert float(adversary_of().gradient_penalty(sr, batch)) == 0.0


# Beside the upsampled LR


def test_the_upsampled_lr_is_seen_beside_the_image_normalised_alike():
    adversary, (sr, batch) = adversary_of(conditional=True), images()
    shown = []
    adversary.network.register_forward_pre_hook(lambda network, arguments: shown.append(arguments[0]))
    adversary.loss(sr, batch)
    upsampled = F.interpolate(batch["lr"], scale_factor=2, mode="bicubic", align_corners=False)
    for seen, image in zip(shown, (batch["hr"], sr), strict=True):
        for bands, expected in ((slice(0, 2), image), (slice(2, 4), upsampled)):
            expected = (expected - torch.tensor(MEAN).view(1, 2, 1, 1)) / torch.tensor(STD).view(1, 2, 1, 1)
            torch.testing.assert_close(seen[:, bands], expected * batch["valid"][:, None], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_another_lr_changes_scores_only_where_it_is_seen(conditional):
    adversary, (sr, batch) = adversary_of(conditional=conditional, feature_matching_weight=1.0), images()
    other = batch | {"lr": batch["lr"].flip(-1)}
    for ask in (lambda batch: adversary.fooled(sr, batch).loss, lambda batch: adversary.loss(sr, batch)[0]):
        assert torch.equal(ask(batch), ask(other)) != conditional


def test_penalties_are_on_the_gradient_by_the_image_alone():
    adversary, (sr, batch) = adversary_of(conditional=True, r1_gamma=2.0, gp_weight=10.0), images(share=1.0)
    image, lr = (_squared_gradient(adversary.network, bands) for bands in (slice(0, 2), slice(2, 4)))
    assert lr > 0.1 * image
    assert float(adversary.r1(batch, number=0).detach()) == pytest.approx(image, rel=1e-5)
    expected = 10 * (image**0.5 / (10 * 8) - 1) ** 2
    assert float(adversary.gradient_penalty(sr, batch).detach()) == pytest.approx(expected, rel=1e-4)
    adversary.r1(batch, number=0).backward()
    assert (adversary.network.layers[0].weight.grad[:, 2:] == 0).all()
    assert batch["lr"].grad is None


# Detail alone


def test_of_an_image_only_what_bicubic_interpolation_misses_is_shown_in_units_of_that_of_hr():
    adversary, (sr, batch) = adversary_of(detail=True), images()
    base = F.interpolate(batch["lr"], scale_factor=2, mode="bicubic", align_corners=False)
    valid = batch["valid"]
    for band in range(2):
        missed = (batch["hr"] - base)[:, band]
        unit = missed[valid].square().mean().sqrt()
        for image, shown in ((batch["hr"], adversary.real(batch)), (sr, adversary.shown(sr, batch))):
            expected = (image - base)[:, band] / unit
            torch.testing.assert_close(shown[:, band][valid], expected[valid], atol=1e-4, rtol=1e-4)
            assert (shown[:, band][~valid] == 0).all()
    nothing = batch | {"hr": base}
    assert adversary.real(nothing).abs().max() < 1e-2  # rounding is not blown up to detail


# What is real


def test_what_it_takes_for_real_may_be_sharpened():
    _, batch = images()
    large = F.interpolate(batch["hr"], scale_factor=6)
    whole = {"hr": large, "valid": torch.ones(2, 72, 60, dtype=torch.bool)}
    adversary = adversary_of(gan_gt_usm=True)
    torch.testing.assert_close(adversary.real(whole), adversary.seen(usm_sharpen(large), whole["valid"]))
    assert not torch.equal(adversary.real(whole), adversary.seen(large, whole["valid"]))
    assert torch.equal(adversary_of().real(batch), adversary.seen(batch["hr"], batch["valid"]))


def test_only_the_network_is_in_its_state():
    assert set(adversary_of().state_dict()) == {"network.layers.0.weight", "network.layers.0.bias"}
