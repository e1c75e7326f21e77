from types import SimpleNamespace

import pytest

from geosr.training.timing import Timing


class Run:
    """A trainer and its module, driven by hand on a clock of its own."""

    def __init__(self, every, patches=8):
        self.now, self.logged = 0.0, []
        self.trainer = SimpleNamespace(log_every_n_steps=every)
        self.module = SimpleNamespace(step=0, log_dict=lambda values, **_: self.logged.append(values))
        self.arrived = 0.0
        self.timing = Timing(patches, arrived=lambda: self.arrived, clock=lambda: self.now)
        self.timing.on_train_start(self.trainer, self.module)

    def step(self, wait, work):
        self.arrived = self.now = self.now + wait
        self.now += work
        self.module.step += 1
        self.timing.on_train_batch_end(self.trainer, self.module, None, None, 0)

    def validate(self, seconds):
        self.timing.on_validation_start(self.trainer, self.module)
        self.now += seconds


def test_means_over_the_interval_are_logged():
    run = Run(every=4)
    for wait, work in ((9, 9), (1, 2), (2, 3), (3, 7)):
        run.step(wait, work)
    (values,) = run.logged
    assert values == {"data_time": 2, "step_time": 6, "patches_per_second": pytest.approx(8 / 6)}


def test_validation_and_logging_do_not_count():
    run = Run(every=3)
    for wait, work in ((9, 9), (1, 2), (1, 2)):
        run.step(wait, work)
    run.now += 50  # values are written
    for wait, work in ((1, 2), (2, 2)):
        run.step(wait, work)
    run.validate(100)
    run.step(1, 2)
    assert [values["step_time"] for values in run.logged] == [3, 4]
    assert [values["data_time"] for values in run.logged] == [1, 2]


def test_each_step_can_be_logged():
    run = Run(every=1)
    for wait, work in ((9, 9), (1, 2), (3, 4)):
        run.step(wait, work)
    assert [(values["data_time"], values["step_time"]) for values in run.logged] == [(1, 3), (3, 7)]


def test_an_interval_in_which_no_step_counts_logs_nothing():
    run = Run(every=2)
    run.step(1, 1)
    run.validate(5)
    run.step(1, 1)
    assert run.logged == []
