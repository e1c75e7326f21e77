"""Fixtures that every test may use."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import settings
from rasterio.errors import NotGeoreferencedWarning

from geosr.models import Model, ModelSpec, load_model, save_model
from geosr.models.export import export_model

settings.register_profile("geosr", deadline=None)  # how long an example takes says more about the machine
settings.load_profile("geosr")

NORTH_UP = Affine(10, 0, 400_000, 0, -10, 5_000_000)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real imagery is absent: {folder}")
    return folder


@pytest.fixture
def geosr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process; returns its exit code, standard output and standard error."""
    from geosr import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geosr", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a small model of four bands, x2, with its consistency layer."""
    torch.manual_seed(0)
    arguments = {"channels": 8, "blocks": 1, "mean": [0.1, 0.2, 0.3, 0.4], "std": [0.5, 0.4, 0.3, 0.2]}
    model = Model(ModelSpec("small", "compact", 2, ("B02", "B03", "B04", "B08"), arguments, gsd=10.0))
    return save_model(model, tmp_path_factory.mktemp("small") / "small.safetensors").path


@pytest.fixture(scope="session")
def small_onnx(small_weights: Path) -> Path:
    """The same model in an ONNX file; tests that need it are skipped where it cannot be made."""
    for library in ("onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason=f"{library} is absent: pip install 'geosr[onnx]'")
    return export_model(load_model(small_weights), small_weights.with_suffix(".onnx"), kind="onnx").path


@pytest.fixture
def serve_stac(tmp_path: Path) -> Iterator[Callable[[Path], tuple[str, Callable[[], list[list[object]]]]]]:
    """Starts the STAC API of ``stac_api.py`` on the files of a folder; its address, and what tells its requests.

    It runs in a process of its own: rasterio asks for some parts of a file without letting other threads run.
    """
    servers = []

    def serve(folder: Path) -> tuple[str, Callable[[], list[list[object]]]]:
        requests = tmp_path / f"requests{len(servers)}.jsonl"
        requests.touch()
        command = [sys.executable, str(Path(__file__).with_name("stac_api.py")), str(folder), str(requests)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        return address, lambda: [json.loads(line) for line in requests.read_text().splitlines()]

    yield serve
    for server in servers:
        server.kill()
        server.communicate()


@pytest.fixture
def make_raster(tmp_path: Path) -> Callable[..., Path]:
    """A factory that writes a small GeoTIFF of ``array`` (band, y, x) and returns its path."""

    def make(
        array: np.ndarray,
        *,
        name: str = "scene.tif",
        dtype: str | None = None,
        nodata: float | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        descriptions: Sequence[str] | None = None,
        crs: str | None = "EPSG:32633",
        transform: Affine | None = NORTH_UP,
    ) -> Path:
        array = np.asarray(array, dtype=dtype)
        count, height, width = array.shape
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=array.dtype,
                nodata=nodata,
                crs=crs,
                transform=transform,
            ) as file:
                file.write(array)
                if scale is not None:
                    file.scales = np.broadcast_to(scale, count).tolist()
                if offset is not None:
                    file.offsets = np.broadcast_to(offset, count).tolist()
                if descriptions is not None:
                    file.descriptions = tuple(descriptions)
        return path

    return make
