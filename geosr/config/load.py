"""A training configuration from YAML: found by path or by shipped name, checked against the schema."""

import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from geosr.config import opensr
from geosr.config.checks import check
from geosr.config.schema import Config, settings
from geosr.errors import ConfigError, did_you_mean

log = logging.getLogger("geosr")


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with geosr, by file name."""
    package = Path(str(files("geosr")))
    folders = (package / "configs", package.parent / "configs")  # in the wheel; in a checkout
    return {path.name: path for folder in folders for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str | Path) -> Path:
    """Path of a configuration: the file itself, else the shipped one of that name.

    Raises:
        ConfigError: There is neither.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if str(name) not in shipped:
        raise ConfigError(
            f"config {str(name)!r} is no file and not shipped ({' '.join(shipped)})" + did_you_mean(str(name), shipped)
        )
    return shipped[str(name)]


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, with ``Section.key=value`` overrides, checked against schema and ranges.

    A YAML of opensr-srgan is taken as it is; the log tells what became of its settings.

    Raises:
        ConfigError: A key is unknown, a value has the wrong type or is not allowed, or the file is no YAML.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
    from yaml import YAMLError

    path = find_config(name)
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, UnicodeError, OSError) as error:
        raise ConfigError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path.name} is a list; a configuration has sections ({_sections()})")
    try:
        given = OmegaConf.from_dotlist(list(overrides))
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{' '.join(overrides)} is not Section.key=value with a YAML value: {error}") from error
    try:
        file: Any = _understood(path.name, OmegaConf.to_container(loaded, resolve=True), OmegaConf.to_container(given))
        merged = _merged(OmegaConf.create(file), given, overrides)
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key, known = str(error.full_key or ""), settings()
        if isinstance(error, ConfigKeyError):
            problem = f"{key or 'an empty key'} is no setting" + _instead(key)
        else:
            problem = f"{key or 'a section'}: {str(error).splitlines()[0]}"
            problem += f"; it takes {known[key]}" if key in known else ""
        raise ConfigError(f"{path.name}: {problem}") from error
    return check(config)


def _merged(file: Any, given: Any, overrides: Sequence[str]) -> Any:
    """Defaults, file and overrides in one; a setting that is a mapping replaces what is below it."""
    from omegaconf import OmegaConf

    base = OmegaConf.structured(Config)
    mappings = [key for key, kind in settings().items() if kind.startswith("dict")]
    for override in overrides:
        key, _, value = override.partition("=")
        if value.strip() == "{}" or (key in mappings and value.strip().startswith("{")):
            OmegaConf.update(file, key, {}, merge=False)
    for key in mappings:
        if OmegaConf.select(file, key) is not None:
            OmegaConf.update(base, key, {}, merge=False)
    return OmegaConf.merge(base, file, given)


def _understood(name: str, file: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file says in geosr's settings, also where it is opensr-srgan's."""
    if isinstance(file.get("defaults"), list):
        raise ConfigError(
            f"{name} is a part that Hydra composes a configuration from; give the composed one, which a run of "
            "opensr-srgan keeps in .hydra/config.yaml"
        )
    if not opensr.is_opensr(file):
        return file
    translated, notes = opensr.translate(file, given)
    log.info("%s is a configuration of opensr-srgan", name)
    for note in notes:
        log.info("  %s", note)
    return translated


def _instead(key: str) -> str:
    """What to write instead of an unknown key."""
    if key in opensr.RENAMED:
        return f"; opensr-srgan's {key} is {opensr.RENAMED[key]} here"
    if key in opensr.NO_EFFECT:
        return f"; it is opensr-srgan's, and nothing here corresponds to it: {opensr.NO_EFFECT[key]}"
    return did_you_mean(key, settings()) or f" ({_sections()})"


def _sections() -> str:
    return " ".join(key for key in settings() if "." not in key)
