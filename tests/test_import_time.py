"""What costs seconds to import is imported by what needs it, and not before."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "lightning", "torchgeo", "kornia", "xarray", "odc.geo"]

REPORT = f"""
import json, sys
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""

HELP = """
import contextlib, io, sys
from geosr.cli import main
sys.argv = ["geosr", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
    main()
assert "predict" in out.getvalue(), "the help says nothing of predict"
"""


def heavy_modules_after(code: str) -> list[str]:
    """Those of `HEAVY` that a fresh interpreter has imported after running ``code``."""
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("code", ["import geosr", "import geosr; dir(geosr)", HELP], ids=["import", "dir", "help"])
def test_nothing_heavy_is_imported(code):
    assert heavy_modules_after(code) == []


def test_a_heavy_import_would_be_seen():
    assert heavy_modules_after("import torch") == ["torch"]
