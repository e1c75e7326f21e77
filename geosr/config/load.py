"""A training configuration from YAML: found by path or by shipped name, checked against the schema."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import cast

from geosr.config.schema import Config
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
        raise ConfigError(f"config {str(name)!r} is no file and not shipped ({' '.join(shipped)})" + did_you_mean(str(name), shipped))
    return shipped[str(name)]


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, with ``Section.key=value`` overrides, checked against the schema.

    Raises:
        ConfigError: A key is unknown, a value has the wrong type, or the file is no YAML.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = find_config(name)
    schema = OmegaConf.structured(Config)
    try:
        merged = OmegaConf.merge(schema, OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        section, _, word = key.rpartition(".")
        known = OmegaConf.select(schema, section) if section else schema
        hint = did_you_mean(word, [str(k) for k in known]) if word and word not in known else ""
        raise ConfigError(f"{path.name}: {key or 'config'}: {str(error).splitlines()[0]}{hint}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not valid YAML: {error}") from error
