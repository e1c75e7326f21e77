"""environment.yml asks conda for what pyproject.toml asks pip for: same names, same bounds."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent

CONDA_NAMES = {"torch": "pytorch"}
"""PyPI name -> conda-forge name, where they differ."""

CONDA_ONLY = {"pip"}
"""What the environment needs beyond the package's own requirements."""


def wanted(project: dict) -> dict[str, str]:
    """Bounds by conda-forge name that pyproject.toml's core and train requirements ask for."""
    lines = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    bounds = {CONDA_NAMES.get(line.name, line.name): str(line.specifier) for line in map(Requirement, lines)}
    return bounds | {"python": str(Requirement(f"python{project['requires-python']}").specifier)}


def offered(environment: dict) -> dict[str, str]:
    """Bounds by name that environment.yml lists."""
    lines = map(Requirement, environment["dependencies"])
    return {line.name: str(line.specifier) for line in lines if line.name not in CONDA_ONLY}


def differences(project: dict, environment: dict) -> list[str]:
    """One line for each name that only one of the two has, or that they bound differently."""
    pip, conda = wanted(project), offered(environment)
    return [
        f"{name}: pyproject.toml says {pip.get(name, 'nothing')!r}, environment.yml {conda.get(name, 'nothing')!r}"
        for name in sorted(pip.keys() | conda.keys())
        if pip.get(name) != conda.get(name)
    ]


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))


def test_the_two_agree(project, environment):
    assert differences(project, environment) == []


def test_every_requirement_has_a_lower_bound(project):
    assert [name for name, bound in wanted(project).items() if ">=" not in bound] == []


def test_the_environment_is_named_and_comes_from_conda_forge(environment):
    assert environment["name"] == "geosr"
    assert environment["channels"][0] == "conda-forge"


def test_any_change_to_the_environment_alone_is_noticed(project, environment):
    before = set(differences(project, environment))
    lines = environment["dependencies"]
    for i, line in enumerate(lines):
        name = Requirement(line).name
        if name in CONDA_ONLY:
            continue
        for changed in ([], [f"{name} >=99"], [name], [line.replace(name, "other")]):
            mutated = environment | {"dependencies": [*lines[:i], *changed, *lines[i + 1 :]]}
            assert set(differences(project, mutated)) - before, changed
    mutated = environment | {"dependencies": [*lines, "newcomer >=1"]}
    assert set(differences(project, mutated)) - before


@pytest.mark.parametrize("group", ["core", "train"])
def test_any_change_to_the_project_alone_is_noticed(project, environment, group):
    before = set(differences(project, environment))
    lines = project["dependencies"] if group == "core" else project["optional-dependencies"]["train"]
    original = list(lines)
    for i, line in enumerate(original):
        name = Requirement(line).name
        for changed in ([], [f"{name}>=99"], [f"{line},<99"], [line.replace(name, "other")]):
            lines[:] = [*original[:i], *changed, *original[i + 1 :]]
            assert set(differences(project, environment)) - before, changed
    lines[:] = [*original, "newcomer>=1"]
    assert set(differences(project, environment)) - before


def test_a_change_to_the_python_versions_is_noticed(project, environment):
    before = set(differences(project, environment))
    project["requires-python"] = ">=3.12,<3.14"
    assert set(differences(project, environment)) - before
