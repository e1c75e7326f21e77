"""Runs on scenes whose valid pixels do not allow to measure every figure."""

import json
import logging

import numpy as np
import pytest
import rasterio
from affine import Affine
from safetensors import safe_open
from scipy.ndimage import gaussian_filter

from geosr.errors import TrainingError
from geosr.models import load_model
from geosr.training import train
from geosr.training.loggers import read_metrics


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("geosr.training.report._curves", lambda series, **how: "")
    return tmp_path


def stripes(path):
    """A scene of which every third column is nodata."""
    draw = np.random.default_rng(0)
    image = np.stack([gaussian_filter(draw.normal(size=(160, 160)), 2) for _ in range(4)])
    image = (300 + (image - image.min()) / np.ptp(image) * 3700).astype("uint16")
    image[:, :, ::3] = 0
    with rasterio.open(
        path, "w", driver="GTiff", height=160, width=160, count=4, dtype="uint16", nodata=0, crs="EPSG:32633",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
        file.write(image)
        file.scales, file.descriptions = [1e-4] * 4, ("B02", "B03", "B04", "B08")


STRIPED = [
    "Data.root=scenes", "Data.min_valid=0.3", "Data.patch_size=16", "Data.train_batch_size=2", "Data.val_batch_size=2",
    "Data.val_patches=4", "Data.split_block=320", "Data.stride=8", "Data.cache=none", "Generator.n_channels=8",
    "Generator.n_blocks=1", "Training.max_steps=4", "Training.val_every=2", "Training.accelerator=cpu",
    "Logging.tensorboard=false", "Logging.every=1", "Logging.name=holes", "Logging.num_val_images=0",
]  # fmt: skip


def test_figures_that_cannot_be_measured_are_absent_everywhere(here, caplog):
    (here / "scenes").mkdir()
    stripes(here / "scenes" / "a.tif")
    with caplog.at_level(logging.INFO, "geosr"):
        weights = train("config_own.yaml", STRIPED, quiet=True)
    assert "too few valid pixels lie together to measure SSIM and consistency" in caplog.text
    found = {"psnr", "psnr_over_bicubic", "sam", "sam_bicubic"}
    assert set(load_model(weights).spec.quality) == found
    summary = json.loads((weights.parent / "summary.json").read_text())["metrics"]
    logged = {name for row in read_metrics(weights.parent) for name in row}
    assert "val_metrics/psnr" in summary
    for names in (summary, logged):
        assert not [name for name in names if "ssim" in name or "consistency" in name]
    assert "nan" not in (weights.parent / "metrics.csv").read_text()
    with safe_open(weights, framework="pt") as file:
        assert "consistency_bicubic" not in str(file.metadata())


def test_a_metric_that_decides_and_cannot_be_measured_is_refused(here):
    (here / "scenes").mkdir()
    stripes(here / "scenes" / "a.tif")
    with pytest.raises(
        TrainingError, match=r"Schedulers\.metric is val_metrics/ssim, and no validation image has enough"
    ):
        train("config_own.yaml", [*STRIPED, "Schedulers.metric=val_metrics/ssim"], quiet=True)
