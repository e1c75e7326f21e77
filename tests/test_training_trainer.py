import logging
import signal
import threading
import warnings
from datetime import timedelta
from types import SimpleNamespace

import pytest

from geosr.training.trainer import TimeOfThisRun, stoppable, without_noise


def test_silence_ends_with_the_run():
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)

    def fail():
        with without_noise():
            assert logger.level == logging.WARNING
            warnings.warn("Checkpoint directory x exists and is not empty.", stacklevel=1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert logger.level == level
    assert warnings.filters == filters


def test_a_warning_that_matters_is_still_heard():
    with without_noise(), pytest.warns(UserWarning, match="the loss is NaN"):
        warnings.warn("the loss is NaN", stacklevel=1)


def test_the_first_interrupt_asks_and_the_second_insists():
    before = signal.getsignal(signal.SIGINT)
    trainer = SimpleNamespace(should_stop=False)

    def interrupt_twice():
        with stoppable(trainer) as stop:
            assert not stop.is_set()
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
            assert trainer.should_stop
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_only_the_main_thread_can_listen():
    heard = []

    def elsewhere():
        with stoppable(SimpleNamespace(should_stop=False)) as stop:
            heard.append(stop.is_set())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [False]


def test_the_time_of_an_earlier_part_does_not_count():
    timer = TimeOfThisRun("00:00:00:10")
    assert timer.state_dict() == {}
    timer.load_state_dict({"time_elapsed": {"train": 3600.0}})
    assert timer.time_elapsed() == 0
    assert timer.time_remaining() == timedelta(seconds=10).total_seconds()
