"""YAML documents as plain values: bounded in size, and only references to other settings are resolved.

A configuration may come from a stranger. It never names an environment variable or a function to call, and a short
text never stands for a long one (aliases of aliases).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geosr.errors import ConfigError

BYTES = 300_000
"""Largest file."""
NODES = 50_000
"""Values at most, those that aliases and references repeat included."""
DEPTH = 32
"""Mappings and lists inside each other."""
LETTERS = 4096
"""Characters in one text, as in the path of a file."""
REFERENCE = re.compile(r"\$\{\s*([A-Za-z]\w*(?:\.[\w-]+)*)\s*\}")
"""``${Section.key}``: the value of another setting."""
NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of characters."""


def read_document(path: Path) -> Any:
    """What a YAML file says; None where it says nothing.

    Raises:
        ConfigError: It cannot be read, is too large, or is no YAML of plain values.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise ConfigError(f"{path.name} is not valid YAML: it is larger than {BYTES:,} bytes")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not valid YAML: {error}; write it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    return parse(text, path.name)


def parse(text: str, name: str) -> Any:
    """What a YAML text says, as lists, mappings with words as keys, texts, numbers, truth values and None.

    Args:
        text: The text.
        name: What the message calls it.

    Raises:
        ConfigError: It is no YAML, holds too much, or something else than such values.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader

    try:
        _require_shallow(text)
        loader = get_yaml_loader()(text)  # floats such as 1e-3, and no key twice
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        value = loader.construct_document(node)
    except ConfigError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        # PyYAML raises more than its own errors: of numbers, dates and tags that do not fit their value
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    require_plain(value, name)
    return value


def _require_shallow(text: str) -> None:
    """Count depth and values of the text itself, before anything recursive reads it."""
    import yaml

    depth = count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        count += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH or count > NODES:
            raise ConfigError(_too_much())


def _size(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Values and depth of a node with its aliases written out."""
    import yaml

    if id(node) in known:
        size, depth = known[id(node)]
        if not size:
            raise ConfigError("an alias stands inside what it is an alias of")
        return size, depth
    known[id(node)] = (0, 0)
    children = [] if isinstance(node, yaml.ScalarNode) else node.value
    parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
    sizes = [_size(part, known) for part in parts]
    size, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    if size > NODES or depth > DEPTH + 1:
        raise ConfigError(_too_much())
    known[id(node)] = (size, depth)
    return size, depth


def _too_much() -> str:
    return (
        f"it holds more than {NODES:,} values, those that aliases and references repeat included, or more than {DEPTH} "
        "levels"
    )


def require_plain(value: Any, name: str, key: str = "") -> None:
    """Refuse what no setting can be.

    Args:
        value: Nested values.
        name: What the message calls them.
        key: The dotted key of the value.

    Raises:
        ConfigError: Something is no text, number, truth value, list, mapping or None.
    """
    if isinstance(value, dict):
        for word, part in value.items():
            if not isinstance(word, str):
                raise ConfigError(f"{name}: the key {word!r}{_in(key)} is no word; put it in quotes")
            require_plain(word, name, key)
            require_plain(part, name, f"{key}.{word}" if key else word)
    elif isinstance(value, list):
        for part in value:
            require_plain(part, name, key)
    elif isinstance(value, str):
        if len(value) > LETTERS:
            raise ConfigError(f"{name}: a text of {len(value):,} characters{_in(key)}; {LETTERS:,} are allowed")
        if NO_TEXT.search(value):
            raise ConfigError(f"{name}: {value!r}{_in(key)} has characters that no text has")
        if value == "???":
            raise ConfigError(f"{name}: {key or 'a value'} is ???, which is to be filled in")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{name}: a whole number{_in(key)} does not fit into 64 bits")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ConfigError(f"{name}: {type(value).__name__}{_in(key)} is none of text, number, true, false, null")


def _in(key: str) -> str:
    return f" in {key}" if key else ""


def resolved(values: Any, name: str, *, root: Any = None) -> Any:
    """Values with their references to other settings, ``${Section.key}``, replaced by what those are.

    Args:
        values: What `parse` gives.
        name: What the message calls them.
        root: Where the references look; None: the values themselves.

    Raises:
        ConfigError: A reference leads nowhere or in a circle, or the text asks for something else to be resolved.
    """
    return _Resolver(name, values if root is None else root).resolve(values, "", ())


class _Resolver:
    """Replaces references, and counts what that makes."""

    def __init__(self, name: str, root: Any) -> None:
        self.name, self.root, self.count = name, root, 0

    def resolve(self, value: Any, key: str, through: tuple[str, ...]) -> Any:
        """The value without references; ``through`` are those that led here."""
        self.count += 1
        if self.count > NODES or len(through) > DEPTH:
            raise ConfigError(f"{self.name}: {_too_much()}")
        if isinstance(value, dict):
            return {word: self.resolve(part, f"{key}.{word}" if key else word, through) for word, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part, key, through) for part in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        return self._text(value, key, through)

    def _text(self, text: str, key: str, through: tuple[str, ...]) -> Any:
        if "${" in REFERENCE.sub("", text):
            raise ConfigError(
                f"{self.name}: {key or 'a value'} is {text!r}; of what ${{...}} may say, only the name of another "
                "setting, such as ${Model.name}, is resolved: no environment variables, and nothing that computes. "
                "Write the value, or give it on the command line, where the shell fills it in: "
                f'{key or "Section.key"}="$VARIABLE"'
            )
        if whole := REFERENCE.fullmatch(text):
            return self._follow(whole[1], key, through)
        filled = REFERENCE.sub(lambda found: self._word(found[1], key, through), text)
        if "${" in filled or len(filled) > LETTERS:
            raise ConfigError(f"{self.name}: {key or 'a value'} is {text!r}, whose references make no plain text")
        return filled

    def _word(self, reference: str, key: str, through: tuple[str, ...]) -> str:
        value = self._follow(reference, key, through)
        if isinstance(value, dict | list):
            raise ConfigError(
                f"{self.name}: {key or 'a value'} has ${{{reference}}} in a text, which is no text itself"
            )
        return str(value)

    def _follow(self, reference: str, key: str, through: tuple[str, ...]) -> Any:
        if reference in through:
            raise ConfigError(f"{self.name}: ${{{reference}}} leads back to itself")
        place = self.root
        for word in reference.split("."):
            if not isinstance(place, Mapping) or word not in place:
                raise ConfigError(
                    f"{self.name}: {key or 'a value'} refers to ${{{reference}}}, and there is no {reference} here"
                )
            place = place[word]
        return self.resolve(place, reference, (*through, reference))
