"""A configuration as text: YAML with what each setting means, and what two configurations differ in."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from geosr.config import degradation, schema
from geosr.config.schema import Config, flat

WIDTH = 100
"""Characters in a line of a comment."""


def to_yaml(config: Config, *, docs: bool = False) -> str:
    """YAML that `load_config` reads as the same configuration.

    Args:
        config: What to write.
        docs: Whether a comment before each section and setting says what it means.
    """
    return "\n".join(_lines(config, meanings() if docs else {}, depth=0)) + "\n"


def _lines(section: Any, told: Mapping[str, str], *, depth: int, path: str = "") -> Iterator[str]:
    indent = "  " * depth
    for entry in fields(section):
        value, key = getattr(section, entry.name), f"{path}{entry.name}"
        if key in told:
            yield from (f"{indent}# {line}" for line in wrap(told[key], WIDTH - len(indent), break_on_hyphens=False))
        if is_dataclass(value):
            yield f"{indent}{entry.name}:"
            yield from _lines(value, told, depth=depth + 1, path=f"{key}.")
        else:
            yield f"{indent}{entry.name}: {in_yaml(value)}"


def in_yaml(value: Any) -> str:
    """A setting's value in one line of YAML.

    >>> in_yaml(["B02", None, 1e-07])
    '[B02, null, 1.0e-07]'
    """
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def meanings() -> dict[str, str]:
    """What the docstrings of the schema say about each section and setting, by its dotted key."""
    written: dict[str, dict[str, str]] = {}
    for module in (schema, degradation):
        for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                written[node.name] = dict(_docstrings(node))
    return dict(_meanings(Config, written, ""))


def _docstrings(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Name and docstring of each field that has one; the class's own has no name."""
    if text := ast.get_docstring(node):
        yield "", _plain(text)
    name = ""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif name and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            yield name, _plain(str(statement.value.value))
            name = ""
        else:
            name = ""


def _meanings(section: type, written: Mapping[str, Mapping[str, str]], path: str) -> Iterator[tuple[str, str]]:
    texts = written[section.__name__]
    for entry in fields(section):
        key, kind = f"{path}{entry.name}", entry.type
        if isinstance(kind, type) and is_dataclass(kind):
            if "" in written[kind.__name__]:
                yield key, written[kind.__name__][""]
            yield from _meanings(kind, written, f"{key}.")
        elif entry.name in texts:
            yield key, texts[entry.name]


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "")


def differences(first: Config, second: Config) -> dict[str, tuple[Any, Any]]:
    """Settings whose values differ, by their dotted keys."""
    ours, theirs = (flat(config.to_dict()) for config in (first, second))
    return {key: (value, theirs[key]) for key, value in ours.items() if value != theirs[key]}
