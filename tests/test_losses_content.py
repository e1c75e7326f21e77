import copy
import math
import pickle
from functools import partial

import pytest
import torch

from geosr.config.combinations import content_weights
from geosr.config.names import CONTENT_LOSSES
from geosr.config.schema import LossesSection
from geosr.degrade import PSF, degrade, usm_sharpen
from geosr.errors import ConfigError
from geosr.losses import (
    ContentLoss,
    charbonnier,
    consistency,
    focal_frequency,
    gradient,
    index_pairs,
    indices,
    l1,
    log_spectral_distance,
    mse,
    perceptual_loss,
    sam,
    sharpened,
    tv,
)
from geosr.losses.perceptual import SatelliteLoss

BANDS = ["B02", "B03", "B04", "B08"]
LAYERS = {"conv1_2": 1.0}
PSF2 = PSF(2, 0.3)
ALL = {f"{name}_weight": 0.1 * number for number, name in enumerate(CONTENT_LOSSES, 1)}


def section(**settings):
    return LossesSection(perceptual_weights="random", perceptual_layers=LAYERS, **settings)


def content_of(bands=BANDS, **settings):
    return ContentLoss(section(**settings), bands, PSF2)


def case(seed=0, *, bands=4, share=0.97):
    """SR, HR, valid pixels and LR."""
    generator = torch.Generator().manual_seed(seed)
    hr = 0.4 * torch.rand(2, bands, 20, 18, generator=generator)
    sr = hr + 0.05 * torch.randn(hr.shape, generator=generator)
    return sr, hr, torch.rand(2, 20, 18, generator=generator) < share, degrade(hr, PSF2)


def test_the_total_is_the_weighted_sum_and_the_terms_have_no_weight():
    content = content_of(**ALL)
    sr, hr, valid, lr = case()
    sr.requires_grad_()
    total, terms = content(sr, hr, valid, lr)
    expected = {
        "l1": l1(sr, hr, valid),
        "charbonnier": charbonnier(sr, hr, valid),
        "mse": mse(sr, hr, valid),
        "fft": focal_frequency(sr, hr, valid),
        "spectrum": log_spectral_distance(sr, hr, valid),
        "gradient": gradient(sr, hr, valid),
        "sam": sam(sr, hr, valid),
        "indices": indices(sr, hr, valid, pairs=index_pairs(BANDS)),
        "tv": tv(sr, valid),
        "consistency": consistency(sr, lr, valid, psf=PSF2),
        "perceptual": perceptual_loss(section(), BANDS)(sr, hr, valid),
    }
    assert terms == {name: value.detach() for name, value in expected.items()}
    assert all(terms.values())
    assert terms.keys() == set(CONTENT_LOSSES)
    weights = content_weights(section(**ALL))
    assert float(total.detach()) == pytest.approx(
        sum(weights[name] * float(value.detach()) for name, value in expected.items())
    )
    assert total.requires_grad
    assert not any(value.requires_grad for value in terms.values())


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("charbonnier", {"charbonnier_eps": 0.1}, lambda sr, hr, valid: charbonnier(sr, hr, valid, eps=0.1)),
        ("fft", {"fft_alpha": 0.0}, lambda sr, hr, valid: focal_frequency(sr, hr, valid, alpha=0)),
        ("tv", {"tv_kind": "isotropic"}, lambda sr, hr, valid: tv(sr, valid, isotropic=True)),
        *(
            (name, {"band_weights": {"B03": 2, "B08": 0}}, partial(loss, band_weights=[1, 2, 1, 0]))
            for name, loss in {"l1": l1, "mse": mse, "charbonnier": charbonnier}.items()
        ),
        ("perceptual", {"perceptual_metric": "ssl4eo"}, SatelliteLoss(BANDS, network="ssl4eo", weights="random")),
    ],
)
def test_a_term_is_computed_as_its_settings_say(name, settings, expected):
    content = content_of(**{f"{name}_weight": 1.0}, **settings)
    sr, hr, valid, lr = case()
    assert content(sr, hr, valid, lr)[1][name] == expected(sr, hr, valid)


def test_a_term_without_weight_is_not_computed_but_some_can_be_asked_for():
    content = content_of(l1_weight=1, sam_weight=0)
    sr, hr, valid, lr = case()
    _, terms = content(sr, hr, valid, lr)
    assert set(terms) == {"l1"}
    figures = content.terms(sr.requires_grad_(), hr, valid, lr)
    assert set(figures) == {"l1", "sam", "tv"}
    assert figures["sam"] == sam(sr, hr, valid).detach()
    assert not any(value.requires_grad for value in figures.values())


def test_what_looks_at_bands_by_name_is_built_when_it_has_a_weight():
    assert not hasattr(content_of(["B11"]), "perceptual")
    assert set(content_of(perceptual_weight=1).terms(*case())) == {"l1", "sam", "tv", "perceptual"}
    with pytest.raises(ConfigError, match="lacks B04 B03 B02"):
        content_of(["B11"], perceptual_weight=1)
    with pytest.raises(ConfigError, match=r"ndvi.*Data\.bands has B11"):
        content_of(["B11"], indices_weight=1)


@pytest.mark.parametrize("name", CONTENT_LOSSES)
def test_pretraining_may_do_with_any_of_the_terms(name):
    content = content_of(**ALL)
    total, terms = content(*case(), only=[name])
    assert set(terms) == {name}
    assert total.item() == pytest.approx(ALL[f"{name}_weight"] * float(terms[name]))


@pytest.mark.parametrize("name", ["sma", "perceptual"])
def test_a_term_of_pretraining_needs_a_weight(name):
    content = content_of(sam_weight=1)
    with pytest.raises(ConfigError, match=rf"pretrain_losses names '{name}'; terms that have a weight: l1, sam"):
        content(*case(), only=["l1", name])


def test_without_any_weight_the_loss_is_zero():
    total, terms = content_of(l1_weight=0)(*case())
    assert total == 0
    assert terms == {}


@pytest.mark.parametrize("bands", [1, 2, 3, 6, 13])
def test_any_number_of_bands(bands):
    sr, hr, valid, lr = case(bands=bands)
    sr.requires_grad_()
    everywhere = {name: weight for name, weight in ALL.items() if name not in ("indices_weight", "perceptual_weight")}
    total, _ = content_of([f"B{number:02}" for number in range(bands)], **everywhere)(sr, hr, valid, lr)
    total.backward()
    assert sr.grad.isfinite().all()
    assert sr.grad.any()


def test_pixel_losses_and_perceptual_look_at_a_sharpened_image_when_told_to():
    sr, hr, valid, lr = case(share=2)
    sharp = usm_sharpen(hr, threshold=10)
    assert not torch.equal(sharp, hr)
    plain, told = content_of(**ALL), content_of(**ALL, l1_gt_usm=True, percep_gt_usm=True)
    _, terms = told(sr, hr, valid, lr)
    _, measured = plain(sr, hr, valid, lr)
    for name, loss in {"l1": l1, "charbonnier": charbonnier, "mse": mse, "perceptual": plain.perceptual}.items():
        assert terms.pop(name) == loss(sr, sharp, valid) != measured.pop(name)
    assert terms == measured
    assert told.terms(sr, hr, valid, lr) == plain.terms(sr, hr, valid, lr)


def test_sharpening_does_not_see_invalid_pixels():
    _, hr, valid, _ = case(share=0.8)
    first = sharpened(hr, valid).movedim(1, -1)[valid]
    hr.movedim(1, -1)[~valid] = math.nan
    second = sharpened(hr, valid).movedim(1, -1)[valid]
    assert first.isfinite().all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("stored", [0.0, 1e9, math.nan])
@pytest.mark.parametrize("usm", [False, True])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(stored, usm):
    content = content_of(**ALL, l1_gt_usm=usm, percep_gt_usm=usm)
    sr, hr, valid, lr = case()
    results = []
    for value in (0.1, stored):
        for image in (sr, hr):
            image.movedim(1, -1)[~valid] = value
        leaf = sr.clone().requires_grad_()
        total, terms = content(leaf, hr, valid, lr)
        total.backward()
        results.append((total.item(), leaf.grad, terms, content.terms(leaf, hr, valid, lr)))
    assert results[0][0] == results[1][0] > 0
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][2:] == results[1][2:]


@pytest.mark.parametrize("level", [0.0, 0.3])
@pytest.mark.parametrize("share", [0, 2])
def test_flat_images_and_images_without_valid_pixels_have_a_finite_loss_and_gradient(level, share):
    content = content_of(**ALL, tv_kind="isotropic")
    sr, hr, valid, lr = case(share=share)
    for image, target in ((torch.full_like(sr, level), hr), (sr, torch.full_like(hr, level)), (hr, hr)):
        leaf = image.clone().requires_grad_()
        total, _ = content(leaf, target, valid, lr)
        total.backward()
        assert total.isfinite()
        assert leaf.grad.isfinite().all()


def test_an_image_of_low_precision_is_compared_in_float32():
    content = content_of(**ALL)
    sr, hr, valid, lr = case()
    low = sr.bfloat16().requires_grad_()
    total, _ = content(low, hr, valid, lr)
    total.backward()
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(content(low.detach().float(), hr, valid, lr)[0].item())
    assert low.grad.isfinite().all()


def test_it_has_no_state_and_can_be_copied_and_pickled():
    content = content_of(**ALL, band_weights={"B04": 2.0})
    assert not content.state_dict()
    assert not list(content.parameters())
    total, _ = content(*case())
    assert copy.deepcopy(content)(*case())[0] == total
    assert pickle.loads(pickle.dumps(content))(*case())[0] == total
