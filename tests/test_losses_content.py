import copy
import math
import pickle

import pytest
import torch

from geosr.config.schema import LossesSection
from geosr.degrade import usm_sharpen
from geosr.errors import ConfigError
from geosr.losses import ContentLoss, Perceptual, l1, sam, sharpened, tv

BANDS = ["B02", "B03", "B04", "B08"]
LAYERS = {"conv1_2": 1.0}


def section(**settings):
    return LossesSection(perceptual_weights="random", perceptual_layers=LAYERS, **settings)


def case(seed=0, *, bands=4):
    generator = torch.Generator().manual_seed(seed)
    hr = 0.4 * torch.rand(2, bands, 20, 18, generator=generator)
    sr = hr + 0.05 * torch.randn(hr.shape, generator=generator)
    return sr, hr, torch.rand(2, 20, 18, generator=generator) < 0.8


def test_the_total_is_the_weighted_sum_and_the_terms_have_no_weight():
    content = ContentLoss(section(l1_weight=2, sam_weight=0.5, tv_weight=0.1, perceptual_weight=0.3), BANDS)
    sr, hr, valid = case()
    sr.requires_grad_()
    total, terms = content(sr, hr, valid)
    expected = {
        "l1": l1(sr, hr, valid),
        "sam": sam(sr, hr, valid),
        "tv": tv(sr, valid),
        "perceptual": Perceptual(BANDS, layers=LAYERS, weights="random")(sr, hr, valid),
    }
    assert terms == {name: value.detach() for name, value in expected.items()}
    weights = {"l1": 2, "sam": 0.5, "tv": 0.1, "perceptual": 0.3}
    assert float(total.detach()) == pytest.approx(
        sum(weights[name] * float(value.detach()) for name, value in expected.items())
    )
    assert total.requires_grad
    assert not any(value.requires_grad for value in terms.values())


def test_a_term_without_weight_is_not_computed_but_can_be_asked_for():
    content = ContentLoss(section(l1_weight=1, sam_weight=0), BANDS)
    sr, hr, valid = case()
    _, terms = content(sr, hr, valid)
    assert set(terms) == {"l1"}
    figures = content.terms(sr.requires_grad_(), hr, valid)
    assert set(figures) == {"l1", "sam", "tv"}
    assert figures["sam"] == sam(sr, hr, valid).detach()
    assert not any(value.requires_grad for value in figures.values())


def test_the_perceptual_network_is_built_when_it_has_a_weight():
    assert not hasattr(ContentLoss(section(), ["B11"]), "perceptual")
    content = ContentLoss(section(perceptual_weight=1), BANDS)
    assert set(content.terms(*case())) == {"l1", "sam", "tv", "perceptual"}
    with pytest.raises(ConfigError, match="lacks B04 B03 B02"):
        ContentLoss(section(perceptual_weight=1), ["B11"])


def test_pretraining_may_do_with_some_of_the_terms():
    content = ContentLoss(section(l1_weight=2, sam_weight=0.5, tv_weight=0.1), BANDS)
    sr, hr, valid = case()
    total, terms = content(sr, hr, valid, only=["l1", "tv"])
    assert set(terms) == {"l1", "tv"}
    assert total.item() == pytest.approx(2 * float(l1(sr, hr, valid)) + 0.1 * float(tv(sr, valid)))


@pytest.mark.parametrize("name", ["sma", "perceptual"])
def test_a_term_of_pretraining_needs_a_weight(name):
    content = ContentLoss(section(sam_weight=1), BANDS)
    with pytest.raises(ConfigError, match=rf"pretrain_losses names '{name}'; terms that have a weight: l1, sam"):
        content(*case(), only=["l1", name])


def test_without_any_weight_the_loss_is_zero():
    total, terms = ContentLoss(section(l1_weight=0), BANDS)(*case())
    assert total == 0
    assert terms == {}


@pytest.mark.parametrize("bands", [1, 2, 3, 6, 13])
def test_any_number_of_bands(bands):
    sr, hr, valid = case(bands=bands)
    sr.requires_grad_()
    content = ContentLoss(section(sam_weight=0.1, tv_weight=0.1), [f"B{number:02}" for number in range(bands)])
    total, _ = content(sr, hr, valid)
    total.backward()
    assert sr.grad.isfinite().all()
    assert sr.grad.any()


def test_l1_and_perceptual_look_at_a_sharpened_image_when_told_to():
    sr, hr, valid = case()
    sharp = usm_sharpen(hr, threshold=10)
    valid = torch.ones_like(valid)
    assert not torch.equal(sharp, hr)
    plain = ContentLoss(section(sam_weight=1, perceptual_weight=1), BANDS)
    told = ContentLoss(section(sam_weight=1, perceptual_weight=1, l1_gt_usm=True, percep_gt_usm=True), BANDS)
    _, terms = told(sr, hr, valid)
    _, measured = plain(sr, hr, valid)
    assert terms["l1"] == l1(sr, sharp, valid) != measured["l1"]
    assert terms["perceptual"] == plain.perceptual(sr, sharp, valid) != measured["perceptual"]
    assert terms["sam"] == measured["sam"]
    assert told.terms(sr, hr, valid) == plain.terms(sr, hr, valid)


def test_sharpening_does_not_see_invalid_pixels():
    _, hr, valid = case()
    first = sharpened(hr, valid).movedim(1, -1)[valid]
    hr.movedim(1, -1)[~valid] = math.nan
    second = sharpened(hr, valid).movedim(1, -1)[valid]
    assert first.isfinite().all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("stored", [0.0, 1e9, math.nan])
@pytest.mark.parametrize("usm", [False, True])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored, usm):
    content = ContentLoss(
        section(sam_weight=1, tv_weight=1, perceptual_weight=1, l1_gt_usm=usm, percep_gt_usm=usm), BANDS
    )
    sr, hr, valid = case()
    results = []
    for value in (0.1, stored):
        for image in (sr, hr):
            image.movedim(1, -1)[~valid] = value
        leaf = sr.clone().requires_grad_()
        total, terms = content(leaf, hr, valid)
        total.backward()
        results.append((total.item(), leaf.grad, terms, content.terms(leaf, hr, valid)))
    assert results[0][0] == results[1][0] > 0
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][2:] == results[1][2:]


def test_it_has_no_state_and_can_be_copied_and_pickled():
    content = ContentLoss(section(tv_weight=1, perceptual_weight=1), BANDS)
    assert not content.state_dict()
    assert not list(content.parameters())
    total, _ = content(*case())
    assert copy.deepcopy(content)(*case())[0] == total
    assert pickle.loads(pickle.dumps(content))(*case())[0] == total
