"""Training: seconds of a GAN step against opensr-srgan, waiting for data, and the time to the first step.

``python -m benchmarks.training`` prints one line of JSON. The step is measured in processes that take turns, geosr's
module in its Lightning trainer and the peer's in its own, so that what else the machine does at the time slows both.
The peer needs an interpreter that has opensr-srgan, named by ``GEOSR_SRGAN_PYTHON``; without it, or on a machine
without a GPU, those rows are missing.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.peer_srgan import Case, Turns, images

HERE = Path(__file__).resolve().parent
PEER = os.environ.get("GEOSR_SRGAN_PYTHON")
CPU = Case()
GPU = Case(generator="esrgan", batch=32, lr_size=64, accelerator="cuda", steps=20)
PRECISIONS = ("32-true", "bf16-mixed")
TARGETS = {("cpu", "32-true"): 1.5, ("cpu", "bf16-mixed"): 2.5, ("cuda", "bf16-mixed"): 3.0}
"""How many times as fast as the peer in its only precision, float32."""


def main() -> None:
    """Measure everything, or one side of a comparison where a case is given."""
    if len(sys.argv) > 1:
        train_in_turns(Case(**json.loads(sys.argv[1])))
        return
    cases = [CPU, GPU] if torch.cuda.is_available() else [CPU]
    rows = [row for case in cases for row in steps(case)]
    print(json.dumps({"steps": rows, "data": waiting_for_data(), "start": first_step()}))


# The step


def steps(case: Case, *, rounds: int = 7) -> list[dict[str, Any]]:
    """Median seconds per step of each tool and precision, and how many times as fast as the peer in float32 that is."""
    sides = {("geosr", precision): [sys.executable, "-m", "benchmarks.training"] for precision in PRECISIONS}
    if PEER is not None:
        sides |= {("opensr-srgan", precision): [PEER, str(HERE / "peer_srgan.py")] for precision in PRECISIONS}
    turns = in_turns({name: Side(command, replace(case, precision=name[1])) for name, command in sides.items()}, rounds)
    theirs = turns.get(("opensr-srgan", "32-true"))
    return [
        {
            "tool": tool,
            "device": case.accelerator,
            "precision": precision,
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "ratio": theirs and statistics.median(b / a for a, b in zip(seconds, theirs, strict=True)),
            "target": TARGETS.get((case.accelerator, precision)) if tool == "geosr" else None,
        }
        for (tool, precision), seconds in turns.items()
    ]


class Side:
    """A process that trains when it is told to."""

    def __init__(self, command: list[str], case: Case) -> None:
        self.case = case
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            [*command, case.to_json()],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.said.close()

    def turn(self) -> float:
        """Seconds per step."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            self.said.seek(0)
            raise SystemExit(self.said.read())
        seconds: float = json.loads(reply)["seconds"]
        return seconds / self.case.steps


def in_turns(sides: Mapping[tuple[str, str], Side], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Seconds per step of each side in each round, after one that does not count: memory is touched, kernels chosen."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(side) for name, side in sides.items()}
        found = [{name: side.turn() for name, side in running.items()} for _ in range(rounds + 1)]
    return {name: [seconds[name] for seconds in found[1:]] for name in sides}


def train_in_turns(case: Case) -> None:
    """Train as geosr does, when a line on standard input says so."""
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger

    from geosr.config import Config
    from geosr.config.schedule import Schedule
    from geosr.models import Model, ModelSpec
    from geosr.models.discriminators import build_discriminator
    from geosr.models.hardware import keep_freed_memory
    from geosr.models.registry import generator_arguments
    from geosr.training.build import Networks
    from geosr.training.module import SuperResolution

    keep_freed_memory()
    config = configure(Config(), case)
    generator = config.Generator
    spec = ModelSpec(
        name="benchmark",
        architecture=generator.model_type,
        scale=case.scale,
        bands=tuple(config.Data.bands),
        arguments=generator_arguments(generator) | {"mean": [0.0] * case.bands, "std": [1.0] * case.bands},
    )
    torch.manual_seed(0)
    networks = Networks(Model(spec), build_discriminator(config.Discriminator, bands=case.bands))
    batches = []
    for lr, hr in images(case):
        valid = torch.ones(hr.shape[0], *hr.shape[-2:], dtype=torch.bool)
        batches.append({"lr": lr, "hr": hr, "valid": valid})
    with tempfile.TemporaryDirectory() as folder:
        module = SuperResolution(networks, config, Schedule.of(config, 10**6), precision=case.precision)
        trainer = L.Trainer(
            accelerator=case.accelerator,
            devices=1,
            max_epochs=1,
            logger=CSVLogger(folder),
            log_every_n_steps=module.every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=True,
        )
        trainer.fit(module, Turns(batches, case, sys.stdout))


def configure(config: Any, case: Case) -> Any:
    """The configuration of the same case as `benchmarks.peer_srgan.settings`: no skip, projection or averaging."""
    config.Data.bands = ["B02", "B03", "B04", "B08"][: case.bands]
    config.Data.patch_size, config.Data.train_batch_size = case.lr_size, case.batch
    generator, training, schedulers = config.Generator, config.Training, config.Schedulers
    generator.model_type, generator.scaling_factor = case.generator, case.scale
    generator.n_channels, generator.n_blocks = case.channels, case.blocks
    generator.global_skip = generator.consistency = False
    config.Discriminator.model_type = "patchgan"
    training.pretrain_g_only = training.EMA.enabled = False
    training.Losses.l1_weight, training.Losses.sam_weight, training.Losses.adv_loss_beta = 1.0, 0.05, 1e-3
    schedulers.name = "constant"
    return config


# Data, and the start


def waiting_for_data(steps: int = 60) -> dict[str, float]:
    """Share of an adversarial step of ``config_20m.yaml`` that waits for patches of COGs, which one worker reads."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "Data.num_workers=1",
            "Data.cache=none",
            "Training.pretrain_g_only=false",
            "Training.limit_val_batches=1",
            f"Training.max_steps={steps}",
            "Logging.num_val_images=0",
            "Logging.name=run",
            f"Logging.dir={folder}",
        ]
        command = [sys.executable, "-m", "geosr", "train", "-c", "config_20m.yaml", *overrides]
        subprocess.run(command, cwd=HERE.parent, capture_output=True, check=True)
        (table,) = Path(folder).rglob("metrics.csv")
        with table.open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("step_time")]
    rows = rows[1:] or rows  # the worker has started, and reads ahead
    data, step = (statistics.mean(float(row[name]) for row in rows) for name in ("data_time", "step_time"))
    return {"data_time": data, "step_time": step, "share": data / step, "target": 0.05}


TO_FIRST_STEP = """
import os, sys
from geosr.training.timing import Timing
Timing.on_train_batch_end = lambda *arguments: os._exit(77)
from geosr.cli.app import main
sys.argv = ["geosr", *sys.argv[1:]]
main()
"""


def first_step(rounds: int = 3) -> dict[str, float]:
    """Seconds from the command to the end of the first step of ``config_demo.yaml``, the median of some."""
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", TO_FIRST_STEP, "train", "-c", "config_demo.yaml", f"Logging.dir={folder}"]
            started = perf_counter()
            done = subprocess.run(command, cwd=HERE.parent, capture_output=True, check=False)
            if done.returncode != 77:
                raise SystemExit(done.stderr.decode())
            seconds.append(perf_counter() - started)
    return {"seconds": statistics.median(seconds), "target": 15.0}


if __name__ == "__main__":
    main()
