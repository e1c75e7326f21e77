import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from geosr.config import Config
from geosr.config.schedule import Schedule
from geosr.config.schema import settings
from geosr.errors import TrainingError
from geosr.training.health import MANY, Health, require_finite, spread


def batch_of(value=0.5):
    return {"lr": torch.full((1, 2, 4, 4), value), "valid": torch.ones(1, 8, 8, dtype=torch.bool), "name": "a"}


def test_finite_losses_pass_and_leave_nothing(tmp_path):
    require_finite({"l1": torch.tensor(1.0), "sam": torch.zeros(3)}, batch_of(), step=3, folder=tmp_path)
    require_finite({}, batch_of(), step=3, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(tmp_path, value):
    terms = {"l1": torch.tensor(1.0, requires_grad=True) * 1, "sam": torch.tensor(value), "tv": torch.tensor(value)}
    with pytest.raises(TrainingError, match=r"^sam and tv not finite at step 7; the batch was finite.*optim_g_lr"):
        require_finite(terms, batch_of(), step=7, folder=tmp_path)
    saved = torch.load(tmp_path / "bad_batch_step7.pt", weights_only=True)
    assert torch.equal(saved["batch"]["lr"], batch_of()["lr"])
    assert saved["batch"]["valid"].all()
    assert saved["terms"]["l1"] == 1
    assert not saved["terms"]["l1"].requires_grad


def test_an_input_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(TrainingError, match="lr of this batch held NaN or infinity already"):
        require_finite({"l1": torch.tensor(torch.nan)}, batch_of(torch.nan), step=0, folder=tmp_path)


def test_each_process_saves_its_own_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(TrainingError, match=r"bad_batch_step7_rank1\.pt"):
        require_finite({"l1": torch.tensor(torch.nan)}, batch_of(), step=7, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bad_batch_step7_rank1.pt"]


WELL = {
    "training/pretrain_phase": 0.0,
    "training/adv_loss_weight": 1e-3,
    "generator/content_loss": 0.01,
    "generator/adversarial_loss": 0.7,
    "discriminator/D(y)_prob": 0.7,
    "discriminator/D(G(x))_prob": 0.3,
    "train_metrics/l1": 0.01,
}
WON = {"discriminator/D(y)_prob": 0.97, "discriminator/D(G(x))_prob": 0.02}


class Run:
    """A trainer and its module that log by hand."""

    def __init__(self, *, every=10, total=10_000, first=True, **losses):
        config = Config()
        config.Training.g_pretrain_steps = 100
        for name, value in losses.items():
            setattr(config.Training.Losses, name, value)
        self.module = SimpleNamespace(step=0, config=config, schedule=Schedule.of(config, total))
        self.trainer = SimpleNamespace(
            log_every_n_steps=every, is_global_zero=first, sanity_checking=False, callback_metrics={}
        )
        self.health = Health()

    def steps(self, count, **values):
        for _ in range(count):
            self.module.step += 1
            self.trainer.callback_metrics = {k: torch.tensor(v) for k, v in (WELL | values).items()}
            self.health.on_train_batch_end(self.trainer, self.module, None, None, 0)

    def validate(self, sr, bicubic, valid):
        self.health.on_validation_start(self.trainer, self.module)
        for one in range(len(sr)):
            outputs = {"sr": sr[[one]], "bicubic": bicubic[[one]], "valid": valid[[one]]}
            self.health.on_validation_batch_end(self.trainer, self.module, outputs, None, one)
        self.health.on_validation_end(self.trainer, self.module)


@pytest.fixture
def told():
    """What was said so far."""
    messages, handler, logger = [], logging.Handler(logging.WARNING), logging.getLogger("geosr")
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def keys_in(message):
    """The settings that a message names."""
    words = {word.strip(".,;").split("=")[0] for word in message.split()}
    return {word for word in words if word.split(".")[0] in Config.__dataclass_fields__}


def test_a_run_that_is_well_is_told_nothing(told):
    run = Run()
    run.steps(2000)
    assert told == []


def test_a_discriminator_that_wins_for_long_is_told_once(told):
    run = Run()
    run.steps(MANY, **WON)
    assert told == []  # it was first seen at step 10
    run.steps(1000, **WON)
    (message,) = told
    assert message.startswith(f"step {MANY + 10}: the discriminator has won")
    assert {"Optimizers.optim_d_lr", "Training.d_accuracy_limit"} <= keys_in(message)


@pytest.mark.parametrize("lets_up", [{"discriminator/D(y)_prob": 0.9}, {"discriminator/D(G(x))_prob": 0.1}])
def test_a_discriminator_that_lets_up_in_between_has_not_won(told, lets_up):
    run = Run()
    for _ in range(10):
        run.steps(MANY - 10, **WON)
        run.steps(10, **WON | lets_up)
    assert told == []


def test_only_the_first_process_tells(told):
    Run(first=False).steps(2 * MANY, **WON)
    assert told == []


def test_a_content_loss_that_rises_far_above_its_best_is_told(told):
    run = Run()
    run.steps(500)
    run.steps(500, **{"generator/content_loss": 0.015})
    assert told == []
    run.steps(1000, **{"generator/content_loss": 0.03})
    (message,) = told
    assert "the content loss has risen" in message
    assert "Training.Losses.adv_loss_beta" in keys_in(message)


def test_a_content_loss_of_other_terms_is_no_rise(told):
    run = Run()
    run.steps(500, **{"training/pretrain_phase": 1.0})
    run.steps(1000, **{"generator/content_loss": 0.05})
    assert told == []


def test_single_high_content_losses_are_no_rise(told):
    run = Run()
    run.steps(300)
    for _ in range(20):
        run.steps(10, **{"generator/content_loss": 0.05})
        run.steps(90)
    assert told == []


@pytest.mark.parametrize(
    ("losses", "values", "key"),
    [
        ({"adv_loss_beta": 1.0}, {"training/adv_loss_weight": 1.0}, "adv_loss_beta"),
        (
            {"adv_loss_beta": 1.0},
            {"training/adv_loss_weight": 1.0, "generator/adversarial_loss": -0.7},
            "adv_loss_beta",
        ),
        ({"feature_matching_weight": 1.0}, {"generator/feature_matching_loss": 0.5}, "feature_matching_weight"),
        ({"sam_weight": 1.0, "adv_loss_beta": 0.0}, {"train_metrics/sam": 0.5}, "sam_weight"),
        ({"l1_weight": 100.0}, {}, "l1_weight"),
    ],
)
def test_a_term_that_makes_nearly_all_of_the_loss_is_told(told, losses, values, key):
    run = Run(**losses)
    run.steps(2 * MANY, **values)
    (message,) = told
    assert "one term makes" in message
    assert f"Lower Training.Losses.{key}, or raise" in message


@pytest.mark.parametrize(
    ("losses", "values"),
    [
        ({"adv_loss_beta": 0.0}, {}),  # l1 alone
        ({"l1_weight": 100.0}, {"training/adv_loss_weight": 0.5e-3}),  # in the ramp
        ({"sam_weight": 0.0}, {"train_metrics/sam": 100.0}),  # logged, without weight
    ],
)
def test_a_term_that_has_to_make_all_of_the_loss_does_not_dominate(told, losses, values):
    run = Run(**losses)
    run.steps(5 * MANY, **values)
    assert told == []


def test_a_generator_that_makes_flat_images_has_collapsed(told):
    run = Run()
    hr = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(3, 16, 16, dtype=torch.bool)
    run.validate(hr * 0.1, hr, valid)
    assert told == []  # a new network that is pretrained may start so
    run.module.step = 200
    run.validate(hr * 0.6, hr, valid)
    assert told == []
    valid[:, :4] = False
    sr = hr * 0.1
    sr[:, :, :4] = torch.nan
    for _ in range(2):
        run.validate(sr, hr, valid)
    (message,) = told
    assert message.startswith("step 200: the generator has collapsed: SR varies 0.10 times")
    assert {"Training.Losses.adv_loss_beta", "Training.adv_loss_ramp_steps"} <= keys_in(message)


def test_every_key_that_a_warning_names_is_a_setting(told):
    hr, valid = torch.rand(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    for pretraining in (0.0, 1.0):
        run = Run(l1_weight=100.0)
        run.steps(200, **WON | {"training/pretrain_phase": pretraining})
        run.steps(1000, **WON | {"training/pretrain_phase": pretraining, "generator/content_loss": 1.0})
        run.validate(hr * 0, hr, valid)
    assert len(told) == 8
    for message in told:
        assert keys_in(message)
        assert keys_in(message) <= settings().keys()


def test_the_spread_is_the_standard_deviation_of_valid_pixels():
    draws = np.random.default_rng(0)
    image, valid = draws.normal(size=(2, 3, 9, 7)).astype(np.float32), draws.random((2, 9, 7)) > 0.3
    expected = [[image[n, b][valid[n]].std() for b in range(3)] for n in range(2)]
    image[np.broadcast_to(~valid[:, None], image.shape)] = np.nan
    np.testing.assert_allclose(spread(torch.from_numpy(image), torch.from_numpy(valid)), expected, rtol=1e-5)
    assert (spread(torch.ones(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)) == 0).all()
