import re
import shutil

import pytest

from geosr.config import Config, find_config, load_config
from geosr.config.load import shipped_configs
from geosr.errors import ConfigError

ZOO = ["s2-20m-x2", "s2-rgbn-x2", "s2-rgbn-x2-fast", "s2-rgbn-x4", "s2-rgbn-x4-fast", "s2-rgbn-x4-gan"]
"""Shipped models, each trained by the configuration of its name."""
SHIPPED = [
    "config_10m.yaml",
    "config_20m.yaml",
    "config_demo.yaml",
    "config_own.yaml",
    "finetune_pairs.yaml",
    "realesrgan_x4.yaml",
    "realesrnet_x4.yaml",
    *(f"{name}.yaml" for name in ZOO),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, text, name="mine.yaml"):
    (folder / name).write_text(text)
    return folder / name


def test_the_shipped_configs_are_known():
    assert set(SHIPPED) == set(shipped_configs())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_is_found_by_its_name_from_any_folder(folder, name):
    assert find_config(name).read_text().startswith("# ")
    assert isinstance(load_config(name), Config)


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_that_a_shipped_config_says_is_lost(name):
    from yaml import safe_load

    def compare(given, resolved):
        for key, value in given.items():
            if isinstance(value, dict) and key not in ("exclude", "val_windows"):
                compare(value, resolved[key])
            else:
                assert resolved[key] == value

    compare(safe_load(find_config(name).read_text()), load_config(name).to_dict())


def test_a_file_comes_before_the_shipped_config_of_its_name(folder):
    write(folder, "Model: {name: mine}", "config_20m.yaml")
    assert load_config("config_20m.yaml").Model.name == "mine"


def test_a_file_is_found_by_its_path(folder):
    (folder / "sub").mkdir()
    path = write(folder / "sub", "Model: {name: mine}")
    for name in (path, str(path), "sub/mine.yaml"):
        assert load_config(name).Model.name == "mine"


def test_a_folder_of_that_name_is_no_config(folder):
    (folder / "config_20m.yaml").mkdir()
    assert find_config("config_20m.yaml") == shipped_configs()["config_20m.yaml"]


def test_a_name_that_is_neither_is_refused_with_the_nearest_one(folder):
    with pytest.raises(ConfigError, match=r"'config_20\.yaml' is no file .*; did you mean 'config_20m\.yaml'\?"):
        load_config("config_20.yaml")


def test_what_a_file_does_not_say_is_the_default(folder):
    config = load_config(write(folder, "Training: {EMA: {decay: 0.9}}"))
    expected = Config()
    expected.Training.EMA.decay = 0.9
    assert config == expected
    assert load_config(write(folder, "")) == Config()


def test_what_a_run_writes_is_what_it_was_started_with(folder):
    import yaml

    config = load_config("config_demo.yaml", ["Training.seed=7"])
    assert load_config(write(folder, yaml.safe_dump(config.to_dict()))) == config


def test_overrides_win_over_the_file(folder):
    path = write(folder, "Data: {patch_size: 20, gain: 1.2}\nTraining: {EMA: {decay: 0.5}}")
    overrides = ["Data.patch_size=24", "Training.EMA.decay=0.9", "Data.val_scenes=[a.tif,b.tif]", "Data.gsd=null"]
    config = load_config(path, overrides)
    assert config.Data.patch_size == 24
    assert config.Data.gain == 1.2
    assert config.Training.EMA.decay == 0.9
    assert config.Data.val_scenes == ["a.tif", "b.tif"]


UNKNOWN = [
    ("Data.patch_siz", "3", "Data.patch_size"),
    ("Training.EMA.deca", "0.9", "Training.EMA.decay"),
    ("Generatr.n_blocks", "3", "Generator"),
    ("patch_size", "3", "Data.patch_size"),
]


@pytest.mark.parametrize(("key", "value", "meant"), UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_one(folder, key, value, meant):
    text = ""
    for depth, word in enumerate(key.split(".")):
        text += "  " * depth + word + (f": {value}\n" if word == key.split(".")[-1] else ":\n")
    told = rf"is no setting; did you mean '{re.escape(meant)}'\?"
    with pytest.raises(ConfigError, match=rf"mine.yaml: {key.split('.')[0]}.*{told}"):
        load_config(write(folder, text))
    with pytest.raises(ConfigError, match=told):
        load_config(write(folder, ""), [f"{key}={value}"])


def test_a_key_like_no_other_is_refused_with_the_sections(folder):
    with pytest.raises(ConfigError, match=r"zzz is no setting \(Data Degradation .*Logging\)"):
        load_config(write(folder, "zzz: 3"))


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("Data.patch_size", "large", "int"),
        ("Data.patch_size", "1.5", "int"),
        ("Data.patch_size", "null", "int"),
        ("Data.gain", "[1]", "float"),
        ("Data.bands", "B02", r"list\[str\]"),
        ("Data.gsd", "ten", r"float \| None"),
        ("Training.EMA.enabled", "maybe", "bool"),
        ("Optimizers.betas", "[a, b]", ""),
        ("Data.exclude", "{a.tif: 3}", ""),
        ("Training", "3", ""),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_key_and_type(folder, key, value, takes):
    with pytest.raises(ConfigError, match=rf"mine.yaml: (?s:.*){takes}$") as error:
        load_config(write(folder, ""), [f"{key}={value}"])
    assert key in str(error.value) or key == "Training"


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "7", "\x00", "'"])
def test_a_file_that_is_no_yaml_is_refused(folder, text):
    with pytest.raises(ConfigError, match=r"mine\.yaml is not valid YAML"):
        load_config(write(folder, text))


def test_a_file_that_is_no_text_is_refused(folder, shared_data):
    shutil.copy(shared_data / "s2" / "danube_a_10m.tif", folder / "mine.yaml")
    with pytest.raises(ConfigError, match=r"mine\.yaml is not valid YAML"):
        load_config("mine.yaml")


def test_a_list_is_refused_with_the_sections(folder):
    with pytest.raises(ConfigError, match=r"mine\.yaml is a list; a configuration has sections \(Data "):
        load_config(write(folder, "- a\n- b"))


@pytest.mark.parametrize("override", ["Data.val_scenes=[a", "Data.gain=a: b: c"])
def test_an_override_that_is_no_yaml_is_refused(folder, override):
    with pytest.raises(ConfigError, match=re.escape(override) + " is not Section.key=value"):
        load_config(write(folder, ""), [override])


def test_what_is_not_allowed_is_refused_wherever_it_comes_from(folder):
    with pytest.raises(ConfigError, match=r"Training\.max_steps is 0; allowed is at least 1"):
        load_config(write(folder, "Training: {max_steps: 0}"))
    with pytest.raises(ConfigError, match=r"Training\.max_steps is -3; allowed is at least 1"):
        load_config("config_demo.yaml", ["Training.max_steps=-3"])


def test_an_empty_mapping_clears_what_the_file_has():
    assert load_config("config_demo.yaml").Data.exclude
    assert load_config("config_demo.yaml", ["Data.exclude={}"]).Data.exclude == {}
    with pytest.raises(ConfigError, match=r"Data\.excluded"):
        load_config("config_20m.yaml", ["Data.excluded={}"])


def test_a_setting_that_is_a_mapping_replaces_the_default_and_the_file(folder):
    path = write(folder, "Training: {Losses: {perceptual_layers: {conv5_4: 1.0}}}\nData: {exclude: {a: [0, 0, 1, 1]}}")
    assert load_config(path).Training.Losses.perceptual_layers == {"conv5_4": 1.0}
    overrides = ["Training.Losses.perceptual_layers={conv1_1: 2}", "Data.exclude={b: [0, 0, 2, 2]}"]
    config = load_config(path, overrides)
    assert config.Training.Losses.perceptual_layers == {"conv1_1": 2.0}
    assert config.Data.exclude == {"b": [0, 0, 2, 2]}


def test_one_entry_of_a_mapping_is_set_by_its_key(folder):
    config = load_config(write(folder, ""), ["Training.Losses.perceptual_layers.conv1_2=0.5"])
    expected = dict(Config().Training.Losses.perceptual_layers, conv1_2=0.5)
    assert config.Training.Losses.perceptual_layers == expected


@pytest.mark.parametrize("name", ["realesrnet_x4.yaml", "realesrgan_x4.yaml"])
def test_the_two_stages_share_what_their_weights_depend_on(name):
    config, other = load_config(name), load_config("realesrnet_x4.yaml")
    assert (config.Generator, config.Data.bands) == (other.Generator, other.Data.bands)
    assert config.Degradation == other.Degradation


SPEC = {f"{name}.yaml": name for name in ZOO}


@pytest.mark.parametrize(("name", "weights"), [*SPEC.items(), ("finetune_pairs.yaml", "s2-rgbn-x2")])
def test_a_config_fits_the_shipped_weights_that_it_trains_or_starts_from(name, weights):
    from geosr.models import load_model

    config, spec = load_config(name), load_model(weights).spec
    finer = spec.guide_scale if spec.guide else spec.scale
    assert (config.Generator.model_type, config.Generator.scaling_factor) == (spec.architecture, finer)
    assert tuple(config.Data.bands) == spec.outputs
    assert config.Generator.n_channels == spec.arguments["channels"]
    assert config.Generator.n_blocks == spec.arguments["blocks"]


@pytest.mark.parametrize("name", SPEC)
def test_the_shipped_weights_were_trained_with_these_settings(name):
    """The settings that the weights file itself carries, but for the scenes, which were corrected since."""
    from geosr.models import load_model

    spec = load_model(SPEC[name]).spec
    then, now = spec.provenance["config"], load_config(name).to_dict()
    for data in (then["Data"], now["Data"]):
        for corrected in ("root", "train_scenes", "val_scenes", "exclude", "stand_ins"):
            data.pop(corrected, None)
    for section in ("Data", "Degradation", "Generator", "Discriminator", "Training", "Optimizers", "Schedulers"):
        assert now[section] == completed(then[section], now[section]), section


def completed(then, now):
    """Settings of then, and of now those that there were not yet."""
    both = {name: completed(then[name], now[name]) for name in then.keys() & now.keys() if isinstance(now[name], dict)}
    return now | then | both
