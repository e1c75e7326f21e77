import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosr.config import Config
from geosr.config.schedule import Schedule


def schedule_of(total=100, **settings):
    values = {"pretraining": 20, "ramp": 10, "beta": 0.5, "ramp_shape": "linear", "warmup": 0, "warmup_shape": "linear"}
    return Schedule(total=total, **(values | {"decay": "constant"} | settings))


def test_phases_follow_each_other_and_end_with_the_run():
    assert schedule_of(warmup=5).phases() == [
        ("warm-up", 0, 5), ("pretraining", 0, 20), ("ramp", 20, 30), ("adversarial", 30, 100),
    ]  # fmt: skip
    assert schedule_of(25).phases() == [("pretraining", 0, 20), ("ramp", 20, 25)]
    assert schedule_of(15).phases() == [("content losses", 0, 15)]
    assert schedule_of(pretraining=0, ramp=0).phases() == [("adversarial", 0, 100)]
    assert schedule_of(beta=0.0).phases() == [("content losses", 0, 100)]


@given(
    total=st.integers(1, 60),
    pretraining=st.integers(0, 60),
    ramp=st.integers(0, 60),
    shape=st.sampled_from(["linear", "cosine"]),
)
def test_the_weight_is_zero_then_rises_then_stays(total, pretraining, ramp, shape):
    schedule = schedule_of(total, pretraining=min(pretraining, total), ramp=ramp, ramp_shape=shape)
    weights = [schedule.adversarial_weight(step) for step in range(total)]
    for step, weight in enumerate(weights):
        done = step - pretraining
        if done < 0:
            assert weight == 0
            assert schedule.is_pretraining(step)
        elif done >= ramp:
            assert weight == 0.5
        else:
            share = done / ramp if shape == "linear" else math.sin(math.pi * done / ramp / 2) ** 2
            assert weight == pytest.approx(0.5 * share, abs=1e-12)
    covered = [step for name, start, end in schedule.phases() if name != "warm-up" for step in range(start, end)]
    assert covered == list(range(total))


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.5), ("cosine", 0.5)])
def test_the_rate_rises_to_its_target_at_the_last_step_of_the_warm_up(shape, halfway):
    schedule = schedule_of(warmup=10, warmup_shape=shape)
    factors = [schedule.rate_factor(step, warm_up=True) for step in range(12)]
    assert factors[4] == pytest.approx(halfway)
    assert factors[9:] == [1.0, 1.0, 1.0]
    assert 0 < factors[0] < factors[1]
    assert schedule.rate_factor(0, warm_up=False) == 1.0


def test_a_cosine_starts_after_the_warm_up_and_ends_at_zero():
    schedule = schedule_of(warmup=10, decay="cosine")
    assert schedule.rate_factor(10, warm_up=True) == 1.0
    assert schedule.rate_factor(55, warm_up=True) == pytest.approx(0.5)
    assert schedule.rate_factor(99, warm_up=True) < 1e-3
    assert schedule.rate_factor(50, warm_up=False) == pytest.approx(0.5)


def test_milestones_lower_the_rate_from_their_step_on():
    schedule = schedule_of(decay="multistep", milestones=(3, 7), gamma=0.1)
    factors = [schedule.rate_factor(step, warm_up=True) for step in (2, 3, 6, 7)]
    assert factors == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("alone", "steps", "expected"), [(True, -1, 50), (True, 20, 20), (True, 80, 50), (False, 20, 0), (False, -1, 0)]
)
def test_the_config_says_how_long_the_generator_is_alone(alone, steps, expected):
    config = Config()
    config.Training.pretrain_g_only, config.Training.g_pretrain_steps = alone, steps
    schedule = Schedule.of(config, 50)
    assert schedule.pretraining == expected
    assert schedule.adversarial == (expected < 50)
