"""Quality for the same operations: ``plksr`` against ``rcab``, trained alike and judged on scenes that neither saw.

``python -m benchmarks.per_compute`` trains both with `s2-rgbn-x2.yaml` side by side, each on half of the cores, and
prints one line of JSON. It takes about half a second a step on two cores and is no part of ``make bench``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks import quality
from geosr.models import load_model
from geosr.models.costs import count_flop
from geosr.training import train

HERE = Path(__file__).resolve().parent
SIZES = {
    "0.12": {
        "rcab": {"n_channels": 16, "n_blocks": 4, "large_kernel_size": 9},
        "plksr": {"n_channels": 16, "n_blocks": 4, "large_kernel_size": 13},
    },
    "0.31": {
        "rcab": {"n_channels": 24, "n_blocks": 8, "large_kernel_size": 9},
        "plksr": {"n_channels": 24, "n_blocks": 4, "large_kernel_size": 17},
    },
}
"""Sizes of both by their operations for an LR pixel, 1e6; of plksr they are 0.1 % more, and 2 % less."""
TARGET = 0.2
"""Decibels that plksr should be ahead."""


def main() -> None:
    """Train and judge both, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="generator updates")
    parser.add_argument("--size", choices=SIZES, default="0.12", help="operations for an LR pixel, 1e6")
    parser.add_argument("--network", choices=SIZES["0.12"], help="this one alone")
    asked = parser.parse_args()
    networks = SIZES[asked.size]
    if asked.network:
        print(json.dumps(measured(asked.network, networks[asked.network], asked.steps)))
        return
    command = [sys.executable, "-m", "benchmarks.per_compute", "--steps", str(asked.steps), "--size", asked.size]
    running = {
        name: subprocess.Popen(
            [*command, "--network", name],
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": str(max((os.cpu_count() or 2) // len(networks), 1))},
            text=True,
        )
        for name in networks
    }
    found = {name: json.loads(process.communicate()[0].splitlines()[-1]) for name, process in running.items()}
    ahead = found["plksr"]["gain"] - found["rcab"]["gain"]
    print(json.dumps({"steps": asked.steps, **found, "ahead": ahead, "target": TARGET}))


def measured(name: str, size: Mapping[str, int], steps: int) -> dict[str, Any]:
    """Operations for an LR pixel, parameters, and PSNR over bicubic in dB on each held-out scene and on their mean."""
    with tempfile.TemporaryDirectory() as folder:
        network = [f"Generator.model_type={name}", *(f"Generator.{key}={value}" for key, value in size.items())]
        run = [f"Training.max_steps={steps}", f"Training.val_every={steps // 5}", "Training.EMA.decay=0.995"]
        logging = [f"Logging.dir={folder}", "Logging.num_val_images=0", "Logging.tensorboard=false"]
        path = train("s2-rgbn-x2.yaml", [*network, *run, *logging, "Data.cache=memory"], quiet=True)
        model = load_model(path)
    scenes = {figures.scene: figures.model_gain for figures in quality.measure(model)}
    return {
        "flop_per_pixel": count_flop(model.network, torch.rand(1, len(model.spec.bands), 64, 64)) / 64**2,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "gain": mean(scenes.values()),
        "scenes": scenes,
    }


if __name__ == "__main__":
    main()
