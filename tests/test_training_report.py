import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import yaml

from geosr.config import Config
from geosr.config.schedule import Schedule
from geosr.training.curves import TINTS
from geosr.training.loggers import MetricsTable
from geosr.training.report import CHARTS, PAUSE, Report, write_report

PIXEL = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture
def config():
    config = Config()
    config.Model.name = "m<1>"
    config.Training.max_steps, config.Training.g_pretrain_steps, config.Training.adv_loss_ramp_steps = 100, 20, 30
    config.Schedulers.g_warmup_steps = 10
    return config


def make_run(folder, config, *, steps=100, validations=(50, 100)):
    """A run's folder after so many steps."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    table, schedule = MetricsTable(folder), Schedule.of(config, 100)
    names = sorted({name for one in CHARTS for name in one.curves if not name.startswith("val")})
    for step in range(9, steps, 10):
        table.log_metrics(
            dict.fromkeys(names, 0.5) | {"training/adv_loss_weight": schedule.adversarial_weight(step)}, step
        )
    (folder / "panels").mkdir()
    for step in validations:
        figures = {"psnr": 30.25, "psnr_bicubic": 29.125, "psnr_gain": 1.125, "l1": 0.02, "l1_bicubic": 0.01}
        table.log_metrics({f"val_metrics/{name}": value for name, value in figures.items()}, step - 1)
        for index in (0, 1, 10):
            (folder / "panels" / f"step_{step:06d}_{index}.png").write_bytes(PIXEL)


class Page(HTMLParser):
    """What a page says and holds, with every element closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def page_of(folder, **arguments):
    return Page(write_report(folder, **arguments).read_text("utf-8"))


def test_a_finished_run_is_told_whole(tmp_path, config):
    make_run(tmp_path, config)
    summary = {"status": "finished", "step": 100, "steps": 100, "seconds": 3725, "weights": "m.safetensors"}
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"metrics": {"val_metrics/psnr": 31.5}}))
    page = page_of(tmp_path)
    assert page.words[1] != "m<1>: run"
    assert f"m<1>: {tmp_path.name}" in page.words
    assert "Status: finished; 100 of 100 steps; 1 h 2 min 5 s; weights: m.safetensors" in page.text
    assert "31.5" in page.words
    assert len(charts_of(page)) == len({one.title for one in CHARTS if set(one.curves) & set(logged(tmp_path))})
    assert page.seen.count("details") == 1
    assert "adv_loss_ramp_steps: 30" in page.text


def logged(folder):
    return (folder / "metrics.csv").read_text().splitlines()[0].split(",")


def test_every_metric_that_a_chart_shows_is_one_of_the_issue_s():
    groups = {"training", "generator", "discriminator", "train_metrics", "val_metrics", "validation", "EMA"}
    names = {name for one in CHARTS for name in one.curves}
    assert {name.split("/")[0] for name in names} <= groups | {
        "lr_generator", "lr_discriminator", "step_time", "data_time", "patches_per_second",
    }  # fmt: skip
    assert {"discriminator/D(y)_prob", "discriminator/D(G(x))_prob", "val_metrics/psnr_gain"} <= names


def charts_of(page):
    """The charts of a page, as SVG."""
    return [b64decode(value.split(",")[1]).decode() for _, value in page.attributes if "svg+xml" in (value or "")]


def test_all_phases_are_marked_in_every_chart(tmp_path, config):
    make_run(tmp_path, config)
    page = page_of(tmp_path)
    names = [name for name, _, _ in Schedule.of(config, 100).phases()]
    assert {"warm-up", "pretraining", "ramp", "adversarial"} == set(names)
    charts = charts_of(page)
    assert len(charts) > 5
    assert all(TINTS[name] in chart for name in names for chart in charts)
    assert "pretraining: 0 to 20" in page.words


def test_nothing_is_loaded_from_elsewhere(tmp_path, config):
    make_run(tmp_path, config)
    page = page_of(tmp_path)
    sources = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "data", "action")]
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert not {"script", "link", "iframe", "object"} & set(page.seen)
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "report.html").read_text())


def test_figures_stand_beside_those_of_bicubic(tmp_path, config):
    make_run(tmp_path, config)
    words = page_of(tmp_path).words
    for row in (["psnr", "30.25", "29.125", "better"], ["l1", "0.02", "0.01", "worse"], ["psnr_gain", "1.125"]):
        start = words.index(row[0])
        assert words[start : start + len(row)] == row


def test_the_panels_of_the_last_and_the_first_validation_are_shown_in_order(tmp_path, config):
    make_run(tmp_path, config, validations=(50, 75, 100))
    page = page_of(tmp_path)
    shown = [value for name, value in page.attributes if name == "alt" and value.startswith("step_")]
    assert shown == [f"step_{step:06d}_{index}" for step in (100, 50) for index in (0, 1, 10)]
    assert "Last validation, step 100" in page.words


def test_one_validation_is_shown_once(tmp_path, config):
    make_run(tmp_path, config, validations=(50,))
    page = page_of(tmp_path)
    assert page.seen.count("img") - len(charts_of(page)) == 3


def test_a_run_that_was_broken_off_is_told_as_far_as_it_came(tmp_path, config):
    make_run(tmp_path, config, steps=40, validations=())
    page = page_of(tmp_path, status="interrupted")
    assert "Status: interrupted; 40 of 100 steps" in page.text
    assert "There was no validation yet." in page.words
    assert charts_of(page)


def test_a_run_that_goes_on_is_not_told_as_it_was_when_it_stopped(tmp_path, config):
    make_run(tmp_path, config, steps=60, validations=(50,))
    summary = {"status": "interrupted", "step": 20, "steps": 100, "seconds": 9, "metrics": {"val_metrics/psnr": 1.0}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = page_of(tmp_path, status="running")
    assert "Status: running; 60 of 100 steps" in page.words
    assert "30.25" in page.words


def test_any_part_of_a_run_may_be_missing_or_damaged(tmp_path, config):
    assert "Status: not finished; 0 steps" in page_of(tmp_path).text
    (tmp_path / "config.yaml").write_text("Nothing: known <b>")
    (tmp_path / "summary.json").write_text('{"status": "fin')
    (tmp_path / "bad_batch_step7.pt").write_bytes(b"")
    page = page_of(tmp_path)
    assert "Nothing: known <b>" in page.text
    assert "the batch is in bad_batch_step7.pt" in page.text
    make_run(tmp_path, config, steps=10, validations=())
    (tmp_path / "config.yaml").unlink()
    page = page_of(tmp_path)
    assert charts_of(page)
    assert "details" not in page.seen


def test_a_run_in_epochs_ends_where_its_summary_says(tmp_path, config):
    config.Training.max_steps = None
    config.Training.max_epochs = 3
    make_run(tmp_path, config)
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 400, "step": 100, "status": "interrupted"}))
    page = page_of(tmp_path)
    assert "100 of 400 steps" in page.text
    assert "adversarial: 50 to 400" in page.words


def test_values_that_are_no_numbers_do_not_break_it(tmp_path, config):
    make_run(tmp_path, config)
    table = MetricsTable(tmp_path, resumed_at=99)
    table.log_metrics({"generator/content_loss": float("nan"), "generator/total_loss": float("inf")}, 99)
    assert charts_of(page_of(tmp_path))


@pytest.fixture
def reported(tmp_path):
    """A callback with a clock that is set by hand, and the status of the report that it writes."""
    trainer = SimpleNamespace(is_global_zero=True, sanity_checking=False)

    class Reported:
        def __init__(self):
            self.now, self.trainer = 0.0, trainer
            self.callback = Report(tmp_path, clock=lambda: self.now)

        def after(self, hook, *arguments):
            (tmp_path / "report.html").unlink(missing_ok=True)
            getattr(self.callback, hook)(trainer, None, *arguments)
            path = tmp_path / "report.html"
            return re.search(r"Status: ([\w ]+)", path.read_text())[1] if path.is_file() else None

    return Reported()


def test_a_report_is_written_after_validations_at_most_once_a_minute(reported):
    assert reported.after("on_validation_end") == "running"
    reported.now += PAUSE / 2
    assert reported.after("on_validation_end") is None
    assert reported.after("on_fit_end") == "finished"
    reported.now += PAUSE
    assert reported.after("on_validation_end") == "running"


@pytest.mark.parametrize(
    ("exception", "status"),
    [(KeyboardInterrupt(), "interrupted"), (SystemExit(), "interrupted"), (OSError(), "failed")],
)
def test_a_report_is_written_when_a_run_breaks(reported, exception, status):
    assert reported.after("on_exception", exception) == status


def test_only_the_first_process_reports_and_no_rehearsal(reported):
    reported.trainer.sanity_checking = True
    assert reported.after("on_validation_end") is None
    reported.trainer.is_global_zero, reported.trainer.sanity_checking = False, False
    for hook, arguments in (("on_validation_end", ()), ("on_fit_end", ()), ("on_exception", (OSError(),))):
        assert reported.after(hook, *arguments) is None
