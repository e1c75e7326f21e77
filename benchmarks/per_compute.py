"""Quality for the same operations: ``plksr`` against ``rcab``, trained alike and judged on scenes that neither saw.

``python -m benchmarks.per_compute [STEPS]`` trains both with `psnr_x2.yaml` side by side, each on half of the cores,
and prints one line of JSON. It takes about ``STEPS`` seconds on two slow cores and is no part of ``make bench``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks import quality
from geosr.models import load_model
from geosr.models.costs import count_flop
from geosr.training import train

HERE = Path(__file__).resolve().parent
STEPS = 2000
SIZES = {
    "rcab": {"n_channels": 16, "n_blocks": 4, "large_kernel_size": 9},
    "plksr": {"n_channels": 16, "n_blocks": 4, "large_kernel_size": 13},
}
"""Sizes that cost the same, to 0.1 %."""
TARGET = 0.2
"""Decibels that plksr should be ahead."""


def main() -> None:
    """Train and judge both, or the one that is named."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    if len(sys.argv) > 2:
        print(json.dumps(measured(sys.argv[2], steps)))
        return
    threads = str(max((os.cpu_count() or 2) // len(SIZES), 1))
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.per_compute", str(steps), name],
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": threads},
            text=True,
        )
        for name in SIZES
    }
    found = {name: json.loads(process.communicate()[0].splitlines()[-1]) for name, process in running.items()}
    ahead = found["plksr"]["gain"] - found["rcab"]["gain"]
    print(json.dumps({"steps": steps, **found, "ahead": ahead, "target": TARGET}))


def measured(name: str, steps: int) -> dict[str, Any]:
    """Operations for an LR pixel, parameters, and PSNR over bicubic in dB on each held-out scene and on their mean."""
    with tempfile.TemporaryDirectory() as folder:
        size = [f"Generator.{key}={value}" for key, value in SIZES[name].items()]
        run = [f"Training.max_steps={steps}", f"Training.val_every={steps // 5}", "Training.EMA.decay=0.995"]
        logging = [f"Logging.dir={folder}", "Logging.num_val_images=0", "Logging.tensorboard=false"]
        path = train(
            "psnr_x2.yaml", [f"Generator.model_type={name}", *size, *run, *logging, "Data.cache=memory"], quiet=True
        )
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
