"""A training configuration from YAML: found by path or by shipped name, checked against the schema."""

import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from geosr.config import opensr
from geosr.config.checks import check
from geosr.config.document import parse, read_document, require_plain, resolved
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
    try:
        if Path(name).is_file():
            return Path(name)
    except (OSError, ValueError):  # a name that no file can have
        pass
    shipped = shipped_configs()
    if str(name) not in shipped:
        raise ConfigError(
            f"config {str(name)!r} is no file and not shipped ({' '.join(shipped)})" + did_you_mean(str(name), shipped)
        )
    return shipped[str(name)]


def load_config(name: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, with ``Section.key=value`` overrides, checked against schema and ranges.

    A file is data: ``${Section.key}`` is the value of another setting of it, and nothing else is resolved. A YAML of
    opensr-srgan is taken as it is; the log says what became of its settings.

    Args:
        name: The file, the name of a shipped configuration, or nested settings as a checkpoint holds them.
        overrides: Settings on top.

    Raises:
        ConfigError: A key is unknown, a value has the wrong type or is not allowed, or the file is no YAML.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    source, text = _read(name)
    given = _given(overrides)
    given = resolved(given, "the overrides", root=_together(text, given))
    file = _understood(source, resolved(text, source), given)
    try:
        merged = _merged(OmegaConf.create(dict(file)), OmegaConf.create(given), overrides)
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key, known = str(error.full_key or ""), settings()
        if isinstance(error, ConfigKeyError):
            problem = f"{_shown(key) or 'an empty key'} is no setting" + _instead(key)
        else:
            problem = f"{key or 'a section'}: {str(error).splitlines()[0]}"
            problem += f"; it takes {known[key]}" if key in known else ""
        raise ConfigError(f"{source}: {problem}") from error
    return check(config)


def _read(name: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What messages call a configuration, and what it says."""
    if isinstance(name, Mapping):
        source = "the settings of the checkpoint"
        try:
            values = resolved(dict(name), source)
            require_plain(values, source)
        except RecursionError as error:
            raise ConfigError(f"{source} are nested too deeply") from error
        return source, values
    path = find_config(name)
    text = read_document(path)
    if text is not None and not isinstance(text, dict):
        kind = "a list" if isinstance(text, list) else "not valid YAML: it is a single value"
        raise ConfigError(f"{path.name} is {kind}; a configuration has sections ({_sections()})")
    return path.name, text or {}


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    """What ``Section.key=value`` arguments say, nested."""
    given: dict[str, Any] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        *sections, word = key.split(".")
        if not all((*sections, word)):
            raise ConfigError(
                f"{_shown(override)} is not Section.key=value with a YAML value: a part of its name is empty"
            )
        place = given
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        try:
            place[word] = parse(value, word)
        except ConfigError as error:
            raise ConfigError(f"{_shown(override)} is not Section.key=value with a YAML value: {error}") from error
    return given


def _shown(text: str) -> str:
    return text if len(text) < 100 else f"{text[:80]} ..."


def _together(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both in one, ``above`` on top."""
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        both[key] = _together(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return both


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
    try:
        translated, notes = opensr.translate(file, given)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"{name} is a configuration of opensr-srgan, and one of its values is of another type than there: {error}"
        ) from error
    log.info("%s is a configuration of opensr-srgan", name)
    for note in notes:
        log.info("  %s", note)
    return translated


def _instead(key: str) -> str:
    """What to write instead of an unknown key."""
    if len(key) > 100:
        return f" ({_sections()})"
    if key in opensr.RENAMED:
        return f"; opensr-srgan's {key} is {opensr.RENAMED[key]} here"
    if key in opensr.NO_EFFECT:
        return f"; it is opensr-srgan's, and nothing here corresponds to it: {opensr.NO_EFFECT[key]}"
    return did_you_mean(key, settings()) or f" ({_sections()})"


def _sections() -> str:
    return " ".join(key for key in settings() if "." not in key)
