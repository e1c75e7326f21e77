import hashlib
import os
import pickle
import sys

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, save_model
from geosr.models.foreign import import_model
from geosr.models.foreign.files import read_config, read_foreign

WEIGHT, AVERAGE = torch.tensor([1.0]), torch.tensor([2.0])


class Danger:
    """What a stranger's pickle may be: reading it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def written(tmp_path):
    """Writes content as torch does; returns the path."""

    def write(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("content", "averaged"),
    [
        ({"layer.weight": WEIGHT}, False),
        ({"params": {"layer.weight": WEIGHT}}, False),
        ({"params": {"layer.weight": AVERAGE}, "params_ema": {"layer.weight": WEIGHT}}, True),
        ({"state_dict": {"generator.layer.weight": WEIGHT, "discriminator.layer.weight": AVERAGE}}, False),
        ({"state_dict": {"generator.module.layer.weight": WEIGHT}, "epoch": 3}, False),
        ({"model_state_dict": {"module._orig_mod.layer.weight": WEIGHT}}, False),
    ],
)
def test_weights_are_found_where_programs_keep_them(content, averaged, written):
    file = read_foreign(written(content))
    assert dict(file.state) == {"layer.weight": WEIGHT}
    assert file.averaged == averaged


def test_averages_of_opensr_srgan_replace_what_they_are_averages_of(written):
    average = {"num_updates": 4, "shadow_params": {"a": AVERAGE}, "shadow_buffers": {"b": AVERAGE}}
    content = {"state_dict": {f"generator.{name}": WEIGHT for name in "abc"}, "ema_state": average}
    file = read_foreign(written(content))
    assert dict(file.state) == {"a": AVERAGE, "b": AVERAGE, "c": WEIGHT}
    assert file.averaged


def test_averages_that_were_never_updated_are_left_alone(written):
    average = {"num_updates": 0, "shadow_params": {"a": AVERAGE}}
    file = read_foreign(written({"state_dict": {"generator.a": WEIGHT}, "ema_state": average}))
    assert dict(file.state) == {"a": WEIGHT}
    assert not file.averaged
    assert "never updated" in file.notes[0]


def test_half_precision_becomes_float32_and_counts_stay_counts(written):
    file = read_foreign(written({"a": WEIGHT.half(), "n": torch.tensor(3)}))
    assert file.state["a"].dtype == torch.float32
    assert file.state["n"].dtype == torch.int64


def test_safetensors_are_read(tmp_path):
    save_file({"module.layer.weight": WEIGHT}, tmp_path / "w.safetensors")
    assert dict(read_foreign(tmp_path / "w.safetensors").state) == {"layer.weight": WEIGHT}


def test_the_file_is_hashed(written):
    path = written({"a": WEIGHT})
    assert read_foreign(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


CONFIG = {"Model": {"in_bands": 4}, "Generator": {"res_scale": 0.1, "list": [1, 2.5, True, None, "x"]}}


@pytest.mark.parametrize(
    "hyper",
    [CONFIG, {"config": CONFIG, "mode": "train"}, OmegaConf.create(CONFIG), {"config": OmegaConf.create(CONFIG)}],
)
def test_hyperparameters_are_read_as_plain_values(hyper, written):
    assert read_foreign(written({"state_dict": {"a": WEIGHT}, "hyper_parameters": hyper})).config == CONFIG


def test_a_configuration_in_a_checkpoint_does_not_see_the_environment(written, monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    hyper = OmegaConf.create({"Model": {"name": "${oc.env:SECRET}"}})
    file = read_foreign(written({"state_dict": {"a": WEIGHT}, "hyper_parameters": hyper}))
    assert file.config == {"Model": {"name": "${oc.env:SECRET}"}}


def test_a_pickle_that_does_something_is_refused_and_does_nothing(written, tmp_path):
    path = written({"state_dict": {"a": WEIGHT}, "callback": Danger(tmp_path / "harm")}, "evil.ckpt")
    with pytest.raises(ModelError, match=r"(?s)could run a stranger's code: refused .*mkdir.*weights_only=False"):
        read_foreign(path)
    assert not (tmp_path / "harm").exists()


def test_the_way_out_that_the_refusal_names_works(written, tmp_path, monkeypatch):
    path = written({"state_dict": {"a": WEIGHT}, "callback": Danger(tmp_path / "harm")}, "mine.ckpt")
    with pytest.raises(ModelError) as refusal:
        read_foreign(path)
    program = [line for line in str(refusal.value).splitlines() if line.startswith("  ")]
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line.strip() for line in program), {})
    assert dict(read_foreign(tmp_path / "mine.pt").state) == {"a": WEIGHT}


def test_without_omegaconf_its_containers_are_refused_too(written, monkeypatch):
    path = written({"state_dict": {"a": WEIGHT}, "hyper_parameters": OmegaConf.create(CONFIG)})
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    with pytest.raises(ModelError, match=r"refused .*omegaconf"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "holds no weights"),
        ([WEIGHT], "holds a list; weights are tensors by name"),
        ({"a": WEIGHT, "epoch": 3}, "holds no state dictionary: epoch is of type int, no plain tensor"),
    ],
)
def test_what_holds_no_weights_is_refused(content, told, written):
    with pytest.raises(ModelError, match=told):
        read_foreign(written(content))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", pickle.dumps({"a": 1})])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_of_other_kinds_are_refused(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError):
        read_foreign(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.pth does not exist"):
        read_foreign(tmp_path / "nowhere.pth")


def test_geosr_s_own_files_need_no_import(tmp_path):
    path = save_model(Model(ModelSpec("m", "compact", 2, ("B02",))), tmp_path / "m.safetensors").path
    with pytest.raises(ModelError, match="is a weights file of geosr already"):
        read_foreign(path)


def test_a_yaml_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("Model: {in_bands: 4}\nGenerator: {n: '${Model.in_bands}'}\n")
    assert read_config(path) == {"Model": {"in_bands": 4}, "Generator": {"n": 4}}


@pytest.mark.parametrize(
    ("text", "told"), [("a: [", "cannot be read"), ("- 1\n", "is a list"), ("a: ${b}\n", "cannot be read")]
)
def test_a_yaml_that_is_none_is_refused(text, told, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ModelError, match=told):
        read_config(tmp_path / "config.yaml")


def test_a_yaml_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.yaml cannot be read"):
        read_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "text", ["a: ${oc.env:HOME}\n", "a: '${oc.decode:${oc.env:HOME}}'\n", "a: {b: '${ oc.env:HOME}'}\n"]
)
def test_a_yaml_does_not_ask_for_the_environment(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ModelError, match="which is not looked up; write its value"):
        read_config(tmp_path / "config.yaml")


def test_a_yaml_of_aliases_of_aliases_ends_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ModelError, match="more than 20 times by aliases"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {1: torch.zeros(2)}},
        {"state_dict": {"a": 1}, "ema_state": {"shadow_params": 7}},
        {"state_dict": {"a\x1b[31m": "x"}},
        {"params": {"a": torch.zeros(1).expand(1000)}},
        {"params": {"a": torch.zeros(2, 2).to_sparse()}},
    ],
)
def test_odd_contents_are_refused_without_a_traceback(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=r"^[^\x1b]*$"):
        import_model(tmp_path / "odd.pth", white=0.4)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"params": {"body.0.weight": torch.arange(100.0)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(100.0).numpy().tobytes()) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="differs from its checksum"):
        read_foreign(path)
