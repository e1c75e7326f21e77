"""A training configuration from YAML: found by path or by shipped name, checked against the schema."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import cast

from geosr.config.checks import check
from geosr.config.schema import Config, settings
from geosr.errors import ConfigError, did_you_mean


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with geosr, by file name."""
    package = Path(str(files("geosr")))
    folders = (package / "configs", package.parent / "configs")  # in the wheel; in a checkout
    return {path.name: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


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
    for override in overrides:
        key, _, value = override.partition("=")
        if value.strip() == "{}":  # merging would keep what the file has in this mapping
            OmegaConf.update(loaded, key, {}, merge=False)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), loaded, given)
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key, known = str(error.full_key or ""), settings()
        if isinstance(error, ConfigKeyError):
            problem = f"{key or 'an empty key'} is no setting" + (did_you_mean(key, known) or f" ({_sections()})")
        else:
            problem = f"{key or 'a section'}: {str(error).splitlines()[0]}"
            problem += f"; it takes {known[key]}" if key in known else ""
        raise ConfigError(f"{path.name}: {problem}") from error
    return check(config)


def _sections() -> str:
    return " ".join(key for key in settings() if "." not in key)
