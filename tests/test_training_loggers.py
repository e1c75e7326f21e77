import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from geosr.config import Config
from geosr.errors import ConfigError
from geosr.training import loggers
from geosr.training.loggers import MetricsTable, make_loggers, read_metrics

VALUES = st.floats(allow_nan=False, width=32)
ROWS = st.lists(st.dictionaries(st.sampled_from(["a", "b/c", "D(y), x", 'q"']), VALUES), max_size=8)


def table_lines(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_a_row_is_there_as_soon_as_it_is_logged(tmp_path):
    table = MetricsTable(tmp_path)
    table.log_metrics({"a": 1.5}, step=10)
    assert table_lines(tmp_path) == ["step,a", "10,1.5"]
    table.log_metrics({"b": torch.tensor(0.25)}, step=20)
    assert table_lines(tmp_path) == ["step,a,b", "10,1.5,", "20,,0.25"]


@given(rows=ROWS)
def test_what_is_logged_is_read(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    table = MetricsTable(folder)
    for step, row in enumerate(rows):
        table.log_metrics(row, step)
    assert read_metrics(folder) == [{"step": step} | row for step, row in enumerate(rows)]


@given(rows=ROWS, at=st.integers(0, 8))
def test_a_run_that_continues_keeps_the_rows_before_and_drops_those_after(rows, at, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for row, step in zip(rows, range(len(rows)), strict=True):
        MetricsTable(folder, resumed_at=step).log_metrics(row, step)
    MetricsTable(folder, resumed_at=at).log_metrics({"new": 1.0}, at + 1)
    kept = [{"step": step} | row for step, row in enumerate(rows) if step <= at]
    assert read_metrics(folder) == [*kept, {"step": at + 1, "new": 1.0}]


def test_a_run_that_starts_anew_starts_an_empty_table(tmp_path):
    MetricsTable(tmp_path).log_metrics({"a": 1.0}, 1)
    MetricsTable(tmp_path)
    assert read_metrics(tmp_path) == []


def test_a_row_that_was_not_finished_is_left_out(tmp_path):
    table = MetricsTable(tmp_path)
    for step in (1, 2):
        table.log_metrics({"a": 0.125, "b": 0.5}, step)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text()[:-3])
    assert read_metrics(tmp_path) == [{"step": 1, "a": 0.125, "b": 0.5}]
    MetricsTable(tmp_path, resumed_at=5).log_metrics({"a": 2.0}, 3)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]


def test_values_that_are_no_numbers_are_kept_as_such(tmp_path):
    MetricsTable(tmp_path).log_metrics({"a": float("inf"), "b": float("nan")}, 1)
    (row,) = read_metrics(tmp_path)
    assert row["a"] == float("inf")
    assert row["b"] != row["b"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    MetricsTable(tmp_path).log_metrics({"a": 1.0}, 1)
    before = (tmp_path / "metrics.csv").read_bytes()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    config = Config()
    other = make_loggers(config, tmp_path, resumed_at=None)
    for logger in other:
        logger.log_metrics({"a": 2.0}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_table_can_be_handed_to_another_process(tmp_path):
    table = MetricsTable(tmp_path)
    table.log_metrics({"a": 1.0}, 1)
    pickle.loads(pickle.dumps(table)).log_metrics({"b": 2.0}, 2)
    assert len(read_metrics(tmp_path)) == 2


def test_tensorboard_can_be_switched_off(tmp_path):
    config = Config()
    assert [type(logger) for logger in make_loggers(config, tmp_path, resumed_at=None)] == [
        MetricsTable,
        TensorBoardLogger,
    ]
    config.Logging.tensorboard = False
    assert [type(logger) for logger in make_loggers(config, tmp_path, resumed_at=None)] == [MetricsTable]


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed_at, steps in ((None, (1, 2, 3)), (2, (3, 4))):
        _, logger = make_loggers(Config(), tmp_path, resumed_at=resumed_at)
        for step in steps:
            logger.log_metrics({"a": float(step) + (resumed_at or 0)}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(1, 1), (2, 2), (3, 5), (4, 6)]


def test_weights_and_biases_that_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    config = Config()
    config.Logging.wandb.enabled = True
    with pytest.raises(ConfigError, match=r"pip install 'geosr\[wandb\]'"):
        make_loggers(config, tmp_path, resumed_at=None)


@pytest.fixture
def wandb_arguments(monkeypatch):
    """What each Weights & Biases logger was made with."""
    made = []
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    monkeypatch.setattr(loggers, "WandbLogger", lambda **arguments: made.append(arguments))
    return made


def test_a_run_that_continues_is_the_same_to_weights_and_biases(tmp_path, wandb_arguments):
    config = Config()
    config.Logging.wandb.enabled, config.Logging.wandb.entity, config.Logging.project = True, "us", "p"
    for folder, resumed_at in (("a", None), ("a", 3), ("b", None)):
        (tmp_path / folder).mkdir(exist_ok=True)
        make_loggers(config, tmp_path / folder, resumed_at=resumed_at)
    first, again, other = wandb_arguments
    assert (first["project"], first["entity"], first["name"]) == ("p", "us", "a")
    assert first["config"]["Logging"]["wandb"]["entity"] == "us"
    assert first["version"] == again["version"]
    assert first["version"] != other["version"]


def test_weights_and_biases_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = Config()
    config.Logging.wandb.enabled = True
    logger = make_loggers(config, tmp_path, resumed_at=None)[-1]
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"a": 1.0}, 1)
    logger.experiment.finish()
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{(tmp_path / 'wandb_id.txt').read_text()}"))
