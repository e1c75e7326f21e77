"""What an update does; Lightning runs it, on images made for the purpose."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from geosr.config.names import CONTENT_LOSSES
from geosr.config.schedule import Schedule
from geosr.degrade import PSF, degrade, usm_sharpen
from geosr.errors import TrainingError
from geosr.metrics import psnr, ssim
from geosr.models import Model, ModelSpec
from geosr.training.module import SuperResolution, split
from tests.training_kit import (
    BANDS,
    QUIET,
    Recorder,
    batch_of,
    config_of,
    fit,
    module_of,
    networks_of,
    smooth_image,
    trainer_of,
)

pytestmark = QUIET

IMAGES = smooth_image(6, 2, 32, 32)


def test_twenty_steps_with_two_optimisers_are_twenty_on_the_clock():
    module = module_of(config_of(20, pretraining=8, ramp=6, Training__Losses__adv_loss_beta=0.01))
    recorder = fit(module, IMAGES)
    assert module.step == len(recorder.logged) == 20
    phases = [values["training/pretrain_phase"] for values in recorder.logged]
    assert phases == [1.0] * 8 + [0.0] * 12
    assert ["discriminator/adversarial_loss" in values for values in recorder.logged] == [False] * 8 + [True] * 12
    weights = [values["training/adv_loss_weight"] for values in recorder.logged]
    ramp = [0.01 * (1 - math.cos(math.pi * i / 6)) / 2 for i in range(6)]
    assert weights == pytest.approx([0.0] * 8 + ramp + [0.01] * 6, abs=1e-9)
    assert module.trainer.global_step == 20 + 12  # what counting optimiser steps would have said


def test_the_total_is_content_and_weighted_adversarial_loss():
    recorder = fit(module_of(config_of(6, pretraining=2, ramp=3, Training__Losses__sam_weight=0.3)), IMAGES)
    for values in recorder.logged:
        content = values["train_metrics/l1"] + 0.3 * values["train_metrics/sam"]
        assert values["generator/content_loss"] == pytest.approx(content, rel=1e-5)
        total = content + values["training/adv_loss_weight"] * values["generator/adversarial_loss"]
        assert values["generator/total_loss"] == pytest.approx(total, rel=1e-5)


def test_features_are_matched_from_the_adversarial_phase_on_and_rise_with_its_weight():
    weights = {"Training__Losses__adv_loss_beta": 0.01, "Training__Losses__feature_matching_weight": 0.1}
    recorder = fit(module_of(config_of(6, pretraining=2, ramp=3, **weights)), IMAGES)
    name = "generator/feature_matching_loss"
    assert [name in values for values in recorder.logged] == [False] * 2 + [True] * 4
    for values in recorder.logged[2:]:
        loss = values["generator/adversarial_loss"] + 10 * values[name]
        total = values["generator/content_loss"] + values["training/adv_loss_weight"] * loss
        assert values["generator/total_loss"] == pytest.approx(total, rel=1e-5)


def test_a_conditional_discriminator_trains_and_validates():
    images = smooth_image(2, 2, 54, 54)  # larger than a patch by an odd number of LR pixels
    module = module_of(config_of(3, pretraining=1, Discriminator__conditional=True))
    shown = []
    module.adversary.network.register_forward_pre_hook(lambda network, given: shown.append(given[0].detach()))
    recorder = fit(module, images, validate=[batch_of(images)])
    assert math.isfinite(recorder.validated[-1]["validation/DISC_adversarial_loss"])
    assert {len(image[0]) for image in shown} == {4}
    hr = shown[-2]  # of the last validation, and then SR
    assert hr.shape[-2:] == (32, 32)
    # LR lies where HR does: upsampled and moved by a pixel of its own, it fits worse.
    image, lr = hr[:, :2], hr[:, 2:]
    apart = [(image - lr.roll((y, x), (2, 3)))[..., 4:-4, 4:-4].abs().mean() for y in (-2, 0, 2) for x in (-2, 0, 2)]
    assert min(range(9), key=apart.__getitem__) == 4


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_logged_rate_follows_the_curve_and_then_the_plateau(shape):
    config = config_of(
        24, pretraining=4, Schedulers__name="plateau", Schedulers__g_warmup_steps=10, Schedulers__g_warmup_type=shape,
        Optimizers__optim_g_lr=2e-4, Optimizers__optim_d_lr=3e-4, Schedulers__patience=0, Schedulers__factor=0.5,
        Schedulers__metric="val_metrics/psnr", Schedulers__threshold=1e9, Schedulers__min_lr=3e-5,
        Schedulers__patience_d=2, Schedulers__factor_d=0.1, Schedulers__min_lr_d=0.0,
    )  # fmt: skip
    recorder = fit(module_of(config), IMAGES, validate=[batch_of(IMAGES[:1])], every=4)
    # After the warm-up come validations after 12, 16 and 20 updates. No loss is better by such a threshold, and no PSNR
    # but the first: the generator's rate falls after 16 and 20, the discriminator's, with more patience, after 20.
    rises = [(i + 1) / 10 for i in range(10)]
    expected = [2e-4 * (r if shape == "linear" else (1 - math.cos(math.pi * r)) / 2) for r in rises]
    expected += [2e-4] * 6 + [1e-4] * 4 + [5e-5] * 4
    assert [values["lr_generator"] for values in recorder.logged] == pytest.approx(expected, abs=1e-9)
    assert [rates[0] for rates in recorder.rates] == pytest.approx(expected, abs=1e-15)
    assert [rates[1] for rates in recorder.rates] == pytest.approx([3e-4] * 20 + [3e-5] * 4, abs=1e-15)


def test_cosine_and_multistep_rates():
    def rates(**settings):
        return [pair[0] for pair in fit(module_of(config_of(8, Optimizers__optim_g_lr=1.0, **settings)), IMAGES).rates]

    cosine = rates(Schedulers__name="cosine", Schedulers__g_warmup_steps=2, Schedulers__g_warmup_type="linear")
    assert cosine == pytest.approx([0.5, 1.0] + [(1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)])
    steps = rates(Schedulers__name="multistep", Schedulers__milestones=[3, 5], Schedulers__gamma=0.1)
    assert steps == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_pretraining_may_use_some_losses_only():
    config = config_of(4, pretraining=2, Training__Losses__tv_weight=0.5, Training__pretrain_losses=["l1"])
    logged = fit(module_of(config), IMAGES).logged
    for values in logged[:2]:
        assert values["generator/content_loss"] == pytest.approx(values["train_metrics/l1"], rel=1e-6)
    for values in logged[2:]:
        content = values["train_metrics/l1"] + 0.5 * values["train_metrics/tv"]
        assert values["generator/content_loss"] == pytest.approx(content, rel=1e-5)


def test_the_discriminator_rests_while_the_generator_is_pretrained():
    module = module_of(config_of(3, pretraining=2))
    before = [parameter.clone() for parameter in module.adversary.network.parameters()]
    fit(module, IMAGES, limit_train_batches=2)
    assert all(torch.equal(a, b) for a, b in zip(before, module.adversary.network.parameters(), strict=True))


def test_a_run_that_is_never_adversarial_needs_no_discriminator():
    module = module_of(config_of(3))
    recorder = fit(module, IMAGES)
    assert module.adversary is None
    assert len(recorder.rates[0]) == 1


def test_gradients_of_accumulated_batches_are_those_of_one():
    whole = fit(module_of(config_of(3, pretraining=0, batch=4)), IMAGES)
    parts = fit(module_of(config_of(3, pretraining=0, batch=2, Training__accumulate_grad_batches=2)), IMAGES)
    for ours, theirs in zip(parts.weights[-1], whole.weights[-1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-6)


def test_the_discriminator_may_be_updated_more_often():
    several = module_of(config_of(3, pretraining=1, Training__d_steps_per_g=3))
    fit(several, IMAGES)
    generator, discriminator = several.trainer.optimizers
    steps = [next(iter(optimizer.state.values()))["step"] for optimizer in (generator, discriminator)]
    assert [int(step) for step in steps] == [3, 6]


def test_a_discriminator_that_is_too_good_waits():
    settings = {"Training__d_accuracy_limit": 0.51, "Optimizers__optim_d_lr": 1e-2}
    module = module_of(config_of(12, pretraining=0, **settings))
    recorder = fit(module, IMAGES)
    accuracy = [values["discriminator/accuracy"] for values in recorder.logged]
    expected = 1 + sum(value <= 0.51 for value in accuracy[:-1])  # the first update, and each after a poor judgement
    steps = int(next(iter(module.trainer.optimizers[1].state.values()))["step"])
    assert steps == expected < 12


def test_r1_is_lazy_and_the_gradient_penalty_is_not():
    config = config_of(
        7, pretraining=1, Training__Losses__r1_gamma=2.0, Training__Losses__r1_every=3, Training__Losses__gp_weight=10.0
    )
    recorder = fit(module_of(config), IMAGES)
    assert [values["discriminator/r1_penalty"] > 0 for values in recorder.logged[1:]] == [True, False, False] * 2


def test_the_average_of_the_weights():
    config = config_of(
        8, Training__EMA__decay=0.7, Training__EMA__update_after_step=3, Training__EMA__use_num_updates=False
    )
    module = module_of(config)
    recorder = fit(module, IMAGES)
    expected = recorder.weights[3]
    for weights in recorder.weights[4:]:
        expected = [0.7 * average + 0.3 * new for average, new in zip(expected, weights, strict=True)]
    for ours, theirs, last in zip(module.best.parameters(), expected, recorder.weights[-1], strict=True):
        torch.testing.assert_close(ours.detach(), theirs)
        assert not torch.equal(theirs, last)
    names = [values["EMA/is_active"] for values in recorder.logged]
    assert names == [0.0] * 3 + [1.0] * 5
    assert [values["EMA/steps_until_activation"] for values in recorder.logged[:4]] == [2.0, 1.0, 0.0, 0.0]


def test_without_an_average_the_trained_weights_are_the_best():
    module = module_of(config_of(2, Training__EMA__enabled=False))
    fit(module, IMAGES)
    assert module.best is module.model
    assert not any(name.startswith("ema") for name in module.state_dict())


def test_training_learns_what_it_is_shown():
    config = config_of(150, batch=1, Optimizers__optim_g_lr=5e-3, Optimizers__gradient_clip_val=1.0)
    hr = smooth_image(1, 2, 48, 48)
    losses = [values["train_metrics/l1"] for values in fit(module_of(config), hr).logged]
    bicubic = float((F.interpolate(degrade(hr, PSF(2)), scale_factor=2, mode="bicubic") - hr).abs().mean())
    assert losses[-1] < 0.85 * losses[0]
    assert losses[-1] < 0.8 * bicubic


def test_the_loss_may_be_taken_to_a_sharpened_target():
    recorder = fit(module_of(config_of(1, batch=1, Training__Losses__l1_gt_usm=True)), IMAGES[:1])
    sr = module_of(config_of(1)).model(degrade(IMAGES[:1], PSF(2)))
    expected = (sr - usm_sharpen(IMAGES[:1])).abs().mean().item()
    assert recorder.logged[0]["generator/content_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [7.0, -1e6])
def test_values_of_invalid_pixels_change_nothing(value):
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    valid[:, 10:20, 5:25] = False

    def run(stored):
        settings = {"Training__Losses__sam_weight": 0.1, "Training__Losses__tv_weight": 0.1}
        config = config_of(
            3, pretraining=1, Training__Losses__gan_gt_usm=True, Training__Losses__r1_gamma=1.0, **settings
        )
        module, recorder = module_of(config), Recorder()
        batch = batch_of(IMAGES[:2], valid)
        batch["hr"] = torch.where(valid[:, None], batch["hr"], stored)
        loader = DataLoader([batch] * 3, batch_size=None)
        trainer_of(recorder).fit(module, loader, DataLoader([batch], batch_size=None))
        return recorder

    ours, theirs = run(0.1), run(value)
    assert ours.logged == theirs.logged
    assert ours.validated == theirs.validated
    assert all(torch.equal(a, b) for a, b in zip(ours.weights[-1], theirs.weights[-1], strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 13])
def test_any_number_of_bands_trains_and_validates_in_batches_of_one(count):
    bands = [f"B{number:02d}" for number in range(1, count + 1)]
    module = module_of(config_of(2, bands=bands, pretraining=1, batch=1, Training__Losses__sam_weight=0.1))
    images = smooth_image(3, count, 32, 32)
    validation = [batch_of(images[:2]), batch_of(images[2:])]  # the last batch is one of 1
    recorder = fit(module, images, validate=validation)
    assert recorder.validated
    assert all(math.isfinite(value) for values in recorder.logged + recorder.validated for value in values.values())


def test_figures_of_the_validation_are_those_of_the_best_weights_next_to_bicubic():
    module = module_of(config_of(2, Training__EMA__decay=0.0, Training__EMA__use_num_updates=False))
    images = smooth_image(2, 2, 64, 48)
    logged = fit(module, IMAGES, validate=[batch_of(images[:1]), batch_of(images[1:])]).validated[-1]
    lr = degrade(images, PSF(2))
    cut = (..., slice(8, -8), slice(8, -8))
    for ending, image in (("", module.best(lr)), ("_bicubic", F.interpolate(lr, scale_factor=2, mode="bicubic"))):
        apart = [(image[[i]][cut], images[[i]][cut]) for i in range(2)]
        figures = {
            "psnr": [psnr(*pair) for pair in apart],
            "ssim": [ssim(*pair) for pair in apart],
            "l1": [(sr - hr).abs().mean() for sr, hr in apart],
            "sam": [F.cosine_similarity(sr.double(), hr.double()).acos().mean() for sr, hr in apart],
            "consistency": [(degrade(image[[i]], PSF(2)) - lr[[i]]).abs().mean() for i in range(2)],
        }
        for name, values in figures.items():
            mean = float(torch.stack(values).mean())
            assert logged[f"val_metrics/{name}{ending}"] == pytest.approx(mean, rel=1e-3, abs=1e-7), name
    gain = logged["val_metrics/psnr"] - logged["val_metrics/psnr_bicubic"]
    assert logged["val_metrics/psnr_gain"] == pytest.approx(gain, abs=1e-4)


def test_a_loss_that_is_no_number_stops_the_run_with_its_batch(tmp_path):
    module = module_of(config_of(3, batch=1), tmp_path)
    images = IMAGES.clone()
    images[1, 0, 4, 4] = float("nan")
    with pytest.raises(TrainingError, match="not finite at step 1"):
        fit(module, images)
    assert (tmp_path / "bad_batch_step1.pt").is_file()
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_low_precision_trains_in_float32_weights(precision):
    module = module_of(config_of(3, pretraining=1), precision=precision)
    recorder = fit(module, IMAGES)
    assert module.scalers[0].is_enabled() == module.scalers[1].is_enabled() == (precision == "16-mixed")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    full = fit(module_of(config_of(3, pretraining=1)), IMAGES)
    assert recorder.logged[-1]["train_metrics/l1"] == pytest.approx(full.logged[-1]["train_metrics/l1"], rel=0.02)
    assert not torch.equal(recorder.weights[0][0], recorder.weights[-1][0])


def test_blocks_that_are_computed_again_give_the_same_weights():
    kept = fit(module_of(config_of(2)), IMAGES).weights[-1]
    again = fit(module_of(config_of(2, Training__gradient_checkpointing=True)), IMAGES).weights[-1]
    for ours, theirs in zip(again, kept, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("noise_field", [True, False])
def test_what_a_stochastic_generator_draws_depends_on_seed_and_step_alone(noise_field):
    def train(seed, before):
        config = config_of(3, pretraining=1, Training__seed=seed)
        schedule = Schedule.of(config, 3)
        arguments = {"channels": 8, "blocks": 1, "noise_channels": 2, "noise_field": noise_field}
        arguments |= {"mean": [0.3, 0.3], "std": [0.1, 0.1]}
        networks = networks_of(config, schedule)
        model = Model(ModelSpec("m", "stochastic", 2, BANDS, arguments))
        module = SuperResolution(replace(networks, model=model), config, schedule)
        torch.manual_seed(before)
        weights = fit(module, IMAGES).weights[-1]
        lr = degrade(IMAGES[:1], PSF(2))
        module.eval()
        assert torch.equal(module(lr), module(lr))  # validations see no noise
        return torch.cat([weight.flatten() for weight in weights])

    trained = train(1, 5)
    assert torch.equal(train(1, 6), trained)
    assert not torch.equal(train(2, 5), trained)


def test_a_batch_is_split_into_equal_parts():
    batch = batch_of(smooth_image(5, 2, 16, 16))
    assert [len(part["hr"]) for part in split(batch, 2)] == [2, 2, 1]
    assert torch.equal(torch.cat([part["lr"] for part in split(batch, 2)]), batch["lr"])


def test_prediction_uses_the_best_weights():
    module = module_of(config_of(2))
    fit(module, IMAGES)
    lr = degrade(IMAGES[:1], PSF(2))
    assert torch.equal(module.predict_step({"lr": lr}, 0), module.ema.model(lr))
    assert isinstance(module, SuperResolution)
    assert tuple(module.config.Data.bands) == BANDS


def test_every_loss_that_has_a_weight_is_logged_in_training_and_in_validation():
    losses = {f"Training__Losses__{name}_weight": 0.1 for name in CONTENT_LOSSES}
    small = {"perceptual_metric": "vgg", "perceptual_weights": "random", "perceptual_layers": {"conv1_1": 1.0}}
    losses |= {f"Training__Losses__{key}": value for key, value in small.items()}
    images = smooth_image(2, 4, 32, 32)
    config = config_of(1, bands=("B02", "B03", "B04", "B08"), **losses)
    recorder = fit(module_of(config), images, validate=[batch_of(images[:1])], every=1)
    logged, validated = recorder.logged[-1], recorder.validated[-1]
    for name in CONTENT_LOSSES:
        assert logged[f"train_metrics/{name}"] > 0
        assert validated[f"val_metrics/{name}"] > 0
    total = sum(0.1 * logged[f"train_metrics/{name}"] for name in CONTENT_LOSSES)
    assert logged["generator/content_loss"] == pytest.approx(total, rel=1e-5)
