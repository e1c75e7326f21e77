import os
import random
import time
from pathlib import Path

import pytest

from geosr.config import load_config
from geosr.config.document import parse, read_document, resolved
from geosr.config.load import shipped_configs
from geosr.errors import ConfigError


def loaded(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return load_config(path)


def chain(line, last):
    """Nine lists, each of nine times the one before, by aliases or references."""
    return "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([line.format(n - 1)] * 9)}]\n" for n in range(1, last))


@pytest.mark.parametrize("text", [chain("*a{}", 9), chain("'${{a{}}}'", 9), chain("*a{}", 40)])
def test_a_short_text_that_stands_for_a_long_one_is_refused_at_once(tmp_path, text):
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"it holds more than 50,000 values"):
        loaded(tmp_path, text)
    assert time.monotonic() - start < 5


def test_an_alias_and_a_merge_of_some_values_are_read():
    assert parse("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "c.yaml")["c"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [*a]", "an alias stands inside what it is an alias of"),
        ("a: " + "[" * 5000, "more than 32 levels"),
        ("Training: {max_steps: " + "9" * 5000 + "}", "limit"),
        ("Training: {max_steps: 0x" + "f" * 5000 + "}", r"Training\.max_steps does not fit into 64 bits"),
        ("Model: {name: '${'}", r"Model\.name is '\$\{'; of what"),
        ("Data: {~: 3}", r"the key None in Data is no word"),
        ("{[a]: 3}", "unhashable"),
        ("Data:\n\troot: x", "cannot start any token"),
        ("Model: {name: !!bool x}", "'x'"),
        ("Model: {name: !!binary aGk=}", r"bytes in Model\.name"),
        ("Model: {name: !!python/object/apply:os.system ['true']}", "could not determine a constructor"),
        ('Model: {name: "a\\0b"}', "characters that no text has"),
        ("Model: {name: '???'}", r"Model\.name is \?\?\?"),
        ("Model: {name: " + "x" * 5000 + "}", "a text of 5,000 characters"),
        (b"Model: {name: \xe9}", "write it as UTF-8"),
        ("a: b\n" * 100_000, "larger than 300,000 bytes"),
        ("Model: {name: '${Model.nam}'}", r"there is no Model\.nam here"),
        ("Model: {name: '${Data.root}'}\nData: {root: '${Model.name}'}", "leads back to itself"),
        ("Model: {in_bands: [4]}", "one of its values is of another type"),
        ("Model: {in_bands: 4}\nOptimizers: {optim_g_lr: fast}", "one of its values is of another type"),
    ],
)
def test_what_no_configuration_is_is_refused_with_its_reason(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, text)


def test_a_pipe_and_a_missing_file_are_no_configurations(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="is no file and not shipped"):
        load_config(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_document(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(ConfigError, match="is no file and not shipped"):
        load_config(name)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    assert loaded(tmp_path, "\ufeffModel: {name: bom}").Model.name == "bom"


# References


def test_a_reference_is_the_value_of_another_setting(tmp_path):
    config = loaded(
        tmp_path,
        "Model: {name: m}\nLogging: {name: '${Model.name}-1'}\nData: {stride: '${Data.patch_size}', patch_size: 32}",
    )
    assert (config.Logging.name, config.Data.stride) == ("m-1", 32)
    assert load_config("config_demo.yaml", ["Model.name=a", "Logging.name=${Model.name}-2"]).Logging.name == "a-2"


@pytest.mark.parametrize(
    "asked",
    [
        "${oc.env:SECRET}", "${oc.env:SECRET,x}", "a ${oc.env:SECRET}", "\\${oc.env:SECRET}", "${oc.decode:3}",
        "${oc.${x}:SECRET}", "${oc.select:Model.name}", "${ oc.env:SECRET }", "$${x}", "${oc.env:${x}}",
    ],
)  # fmt: skip
def test_nothing_but_settings_is_resolved(tmp_path, monkeypatch, asked):
    monkeypatch.setenv("SECRET", "s3cr3t")
    text = f"x: '{{oc.env:SECRET}}'\nModel: {{name: '{asked}'}}"
    for attempt in (lambda: loaded(tmp_path, text), lambda: load_config("config_demo.yaml", [f"Model.name={asked}"])):
        with pytest.raises(ConfigError) as error:
            attempt()
        assert "s3cr3t" not in str(error.value), asked
    with pytest.raises(ConfigError):
        loaded(tmp_path, f"Model: {{in_bands: 4}}\nData: {{root_dir: '{asked}'}}")


def test_references_end_where_they_would_make_too_much():
    double = {f"a{n}": f"${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 40)} | {"a0": "xx"}
    with pytest.raises(ConfigError, match="make no plain text"):
        resolved(double, "c.yaml")


# Sizes


@pytest.mark.parametrize(
    "setting",
    [
        "Generator.n_channels=1000000000", "Generator.n_blocks=1000000", "Data.train_batch_size=1000000000000",
        "Data.patch_size=1000000", "Generator.scaling_factor=1000", "Training.max_steps=1000000000000",
        "Generator.large_kernel_size=1001", "Discriminator.base_channels=100000", "Data.num_workers=100000",
        "Training.devices=100000", "Data.exclude={a.tif: [0, 0, 4, 9000000000000000000]}",
        "Training.max_time=999999999999:00:00:00", "Training.max_time=00:00:00:00", "Degradation.queue_size=100000000",
    ],
)  # fmt: skip
def test_a_size_that_no_machine_has_room_or_time_for_is_refused(setting):
    with pytest.raises(ConfigError, match=rf"{setting.partition('=')[0]} is .*; allowed is "):
        load_config("config_demo.yaml", [setting])


def test_layers_that_multiply_are_refused():
    with pytest.raises(ConfigError, match=r"makes 10,000 layers of attention"):
        load_config(
            "config_demo.yaml", ["Generator.model_type=swinir", "Generator.n_blocks=100", "Generator.depth=100"]
        )


# Whatever else

BITS = ["${", "&a ", "*a", "<<: ", "[", "]", "{", "}", "\t", "- ", "? ", "!!set ", "|", "'", '"', "\0", "9" * 5000]
BITS += ["null", ": ", "${oc.env:SECRET}", "%", "@", "`", "\ud800", "1e999", ".nan", "#", "!!float ", "!!omap "]


def test_a_text_with_errors_is_read_or_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cr3t")
    texts = [Path(path).read_text() for _, path in sorted(shipped_configs().items())]
    texts = [text for text in texts if len(text) < 1500] or [min(texts, key=len)]
    draw, said = random.Random(26), []
    for _ in range(40):
        text = list(draw.choice(texts))
        for _ in range(draw.randint(1, 5)):
            place, kind = draw.randrange(len(text)), draw.random()
            if kind < 0.3:
                text[place] = chr(draw.randrange(256))
            elif kind < 0.5:
                del text[place : place + draw.randint(1, 30)]
            else:
                text.insert(place, draw.choice(BITS))
        try:
            loaded(tmp_path, "".join(text))
        except ConfigError as error:
            said.append(str(error))
    assert len(said) > 20
    assert "s3cr3t" not in "".join(said)
