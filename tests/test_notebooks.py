"""Notebooks run from the first cell to the last, have nothing to complain about, and their pictures show something."""

import os
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

IMAGE, CURVES = 0.25, 0.004
"""Share of a picture's pixels that have a colour, at least: where images are drawn, and where lines are."""
LIVELY = 20.0
"""Standard deviation of its 8-bit values, at least."""
PICTURES = {
    "1_predict_and_inspect": [IMAGE, IMAGE, CURVES, IMAGE, IMAGE],
    "2_time_series_with_dask": [IMAGE, IMAGE, CURVES],
    "3_train_your_own": [CURVES, IMAGE, IMAGE, IMAGE],
    "4_what_the_model_invents": [IMAGE, IMAGE, CURVES, IMAGE, IMAGE, IMAGE],
}


def coloured(picture: NDArray[np.uint8]) -> float:
    """Share of the pixels that are neither white nor grey nor black."""
    return float((np.ptp(picture.astype(int), axis=-1) > 40).mean())


@pytest.fixture
def executed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """The notebook with its outputs, from a kernel of the Python that runs the tests, on this checkout."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))  # not the kernels and settings of whoever runs this
    notebook = nbformat.read(request.param, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    return NotebookClient(notebook, kernel_name="python3", timeout=600, resources=resources).execute()


@pytest.mark.parametrize("executed", NOTEBOOKS, indirect=True, ids=lambda path: path.stem)
def test_a_notebook_runs_without_complaint_and_its_pictures_show_something(
    executed: nbformat.NotebookNode, request: pytest.FixtureRequest
):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]

    complaints = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert complaints == []

    drawn = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    pictures = [np.asarray(Image.open(BytesIO(b64decode(data))).convert("RGB")) for data in drawn]
    colour = [coloured(picture) for picture in pictures]
    wanted = PICTURES[request.node.callspec.id]
    assert len(pictures) == len(wanted)
    assert all(share > least for share, least in zip(colour, wanted, strict=True)), colour
    assert min(picture.std() for picture in pictures) > LIVELY


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_its_links_lead_somewhere(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        else:
            for link in re.findall(r"\]\(([^):]+)\)", cell.source):
                assert (path.parent / link).is_file(), link
