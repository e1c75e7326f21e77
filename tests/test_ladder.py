"""Imports go down only: every module's imports are parsed, and an upward one fails."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "geosr"

WORDS = {"errors", "files", "hashing", "sensors", "radiometry", "grid", "footprint", "config", "page"}
MATHS = {"models", "losses", "metrics", "degrade"}
EVERYTHING = (
    WORDS
    | MATHS
    | {"io", "preview", "inference", "data", "demo", "training", "testing", "xr", "cli"}
    | {"compare", "evaluation", "_xarray_hook", "__main__"}
)

TRAINERS = {"lightning", "pytorch_lightning", "torchgeo", "torchmetrics", "kornia"}
READERS = {"rasterio", "xarray", "zarr"}


@dataclass(frozen=True)
class Part:
    """What one part of the package may import of geosr, and which libraries it never imports."""

    may: set[str]
    never: set[str]
    door: bool = False
    """A door opens on request: what its functions import while running does not count."""


WORD = Part(may=WORDS, never={"torch"} | READERS | TRAINERS)
MATH = Part(may=WORDS | MATHS, never={"lightning", "pytorch_lightning", "torchgeo"} | READERS)
DOOR = Part(may=EVERYTHING, never={"torch", "xarray"} | TRAINERS, door=True)

LADDER = {
    # rung 0: words and values
    **dict.fromkeys(WORDS, WORD),
    # rung 1: bytes
    "io": Part(may=WORDS | {"io"}, never={"torch"} | TRAINERS),
    # rung 1': mathematics
    **dict.fromkeys(MATHS, MATH),
    # rung 2: use
    "preview": Part(may=WORDS | {"io", "preview"}, never=TRAINERS),
    "compare": Part(may=WORDS | {"io", "preview", "compare"}, never={"torch"} | TRAINERS),
    "inference": Part(may=WORDS | {"io", "models", "preview", "inference"}, never=TRAINERS),
    "evaluation": Part(
        may=WORDS | MATHS | {"io", "inference", "preview", "evaluation"},
        never={"lightning", "pytorch_lightning", "torchgeo", "kornia"},
    ),
    "data": Part(may=WORDS | MATHS | {"io", "demo", "data"}, never=set()),
    "training": Part(may=WORDS | MATHS | {"io", "data", "training"}, never=set()),
    # oracles, for users' own tests as well
    "demo": WORD,
    "testing": Part(may=WORDS | {"io", "models", "testing"}, never=TRAINERS),
    # rung 3: doors; "" is geosr/__init__.py, whose public names load on first use
    "xr": Part(may=EVERYTHING, never={"torch"} | TRAINERS, door=True),
    "cli": DOOR,
    "": DOOR,
    "__main__": DOOR,
    "_xarray_hook": Part(may=EVERYTHING, never={"torch"} | READERS | TRAINERS, door=True),
}


def module_name(path: Path, package: Path = PACKAGE) -> str:
    """Dotted name of a module's file: ``geosr/io/cog.py`` is ``geosr.io.cog``, a package is its own name."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of geosr that a dotted name belongs to; empty for the package itself."""
    return [*module.split("."), ""][1]


def imported(tree: ast.AST, module: str, *, is_package: bool, into_functions: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module imports."""
    if not into_functions and isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    if not into_functions and isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    match tree:
        case ast.Import(names=names):
            yield from ((tree.lineno, alias.name) for alias in names)
        case ast.ImportFrom(module=source, names=names, level=level):
            origin = source or ""
            if level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - level + 1]
                origin = ".".join([*package, *([source] if source else [])])
            if origin == "geosr":  # `from geosr import x`: a part when x is one, else a public name of the package
                yield from ((tree.lineno, f"geosr.{alias.name}") for alias in names if alias.name != "__version__")
            else:
                yield tree.lineno, origin
        case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=args):
            if args and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
                yield tree.lineno, args[0].value
    for child in ast.iter_child_nodes(tree):
        yield from imported(child, module, is_package=is_package, into_functions=into_functions)


def upward_imports(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """One line for each import in ``source`` that the ladder forbids to ``module``."""
    name = part_of(module)
    if name not in LADDER:
        return [f"{module}: part {name!r} is not in LADDER; say there what it may import"]
    part = LADDER[name]
    found = []
    for line, target in imported(ast.parse(source), module, is_package=is_package, into_functions=not part.door):
        root = target.split(".")[0]
        if root == "geosr":
            other = part_of(target)
            if other not in EVERYTHING:
                found.append(f"{module}:{line} imports {target!r} through the package; import it where it is defined")
            elif other not in part.may:
                found.append(f"{module}:{line} imports {target!r}; {name!r} may import {' '.join(sorted(part.may))}")
        elif root in part.never:
            found.append(f"{module}:{line} imports {target!r}; {name or 'geosr'!r} never imports {root!r}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_go_down_only(path):
    upward = upward_imports(path.read_text("utf-8"), module_name(path), is_package=path.name == "__init__.py")
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geosr.errors", "import torch"),
        ("geosr.grid", "def f():\n    import rasterio.windows"),
        ("geosr.grid", "from geosr import predict"),
        ("geosr.radiometry", "import geosr.io.raster as raster"),
        ("geosr.config.load", "from ..models import ModelSpec"),
        ("geosr.io.cog", "from .. import inference"),
        ("geosr.io.cog", "import torch"),
        ("geosr.models.compact", "from geosr.io import open_scene"),
        ("geosr.models.compact", "import lightning.pytorch as pl"),
        ("geosr.metrics", "from geosr.training import train"),
        ("geosr.inference.tiled", "def f():\n    from geosr.data import GeoSRDataModule"),
        ("geosr.inference.tiled", "from geosr import losses, models"),
        ("geosr.inference.tiled", "from geosr.training.module import SuperResolution"),
        ("geosr.inference.tiled", "if TYPE_CHECKING:\n    import lightning"),
        ("geosr.inference.tiled", "import_module('geosr.training')"),
        ("geosr.inference", "from torchgeo.datasets import GeoDataset"),
        ("geosr.data.scenes", "from geosr.inference import predict"),
        ("geosr.training.module", "from geosr.cli import main"),
        ("geosr.testing", "from geosr.training import train"),
        ("geosr.cli", "import torch"),
        ("geosr", "from kornia import filters"),
        ("geosr.newcomer", "import numpy"),
    ],
)
def test_an_upward_import_is_caught(module, source):
    assert len(upward_imports(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geosr.grid", "import numpy as np\nfrom geosr.errors import GridError\nfrom odc.geo.geobox import GeoBox"),
        ("geosr.io.cog", "import rasterio\nfrom .raster import Raster\nfrom ..grid import TilePlan"),
        ("geosr.io.cog", "from geosr import __version__"),
        ("geosr.models.model", "import torch\nfrom geosr.degrade.psf import PSF"),
        ("geosr.inference.tiled", "import rasterio, torch\nfrom geosr import grid, io, models"),
        ("geosr.training.module", "import lightning\nfrom geosr import losses\nfrom geosr.data import scenes"),
        ("geosr.cli", "def train():\n    import torch\n    from geosr.training import train"),
        ("geosr", "if TYPE_CHECKING:\n    import torch"),
    ],
)
def test_a_downward_import_is_not(module, source):
    assert upward_imports(source, module) == []


def test_a_relative_import_in_a_package_starts_at_the_package():
    assert upward_imports("from .functional import psnr", "geosr.metrics", is_package=True) == []
    assert upward_imports("from ..io import raster", "geosr.metrics", is_package=True) != []


def test_no_two_rungs_import_each_other():
    # Parts of one rung may know each other; anything else that goes both ways would be no ladder.
    for name, part in LADDER.items():
        for other in part.may - {name}:
            if name in LADDER[other].may and not LADDER[other].door:
                assert {name, other} <= WORDS or {name, other} <= MATHS, f"{name!r} and {other!r} import each other"
