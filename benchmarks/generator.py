"""ESRGAN's generator against opensr-srgan's of the same size, and what the default precision changes.

``python -m benchmarks.generator`` prints one line of JSON. Both run in processes that take turns, so that what else the
machine does at the time slows both. The peer needs an interpreter that has opensr-srgan, named by
``GEOSR_SRGAN_PYTHON``; without it that row is missing.
"""

import json
import statistics
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks.peer_srgan import Case, images, take_turns
from benchmarks.training import HERE, PEER, Side, in_turns

CASE = Case(generator="esrgan", channels=64, blocks=16, scale=4, batch=1, lr_size=128, steps=2)
TARGET, TARGET_PSNR = 2.3, 60.0
"""How many times as fast as the peer in float32, and how near to geosr's own float32 output in dB."""


def main() -> None:
    """Measure everything, or geosr's side of it where a case is given."""
    if len(sys.argv) > 1:
        run_in_turns(Case(**json.loads(sys.argv[1])))
        return
    print(json.dumps({"speed": speed(), "psnr": agreement(), "target": TARGET, "target_psnr": TARGET_PSNR}))


def speed(*, rounds: int = 7) -> list[dict[str, Any]]:
    """Median seconds of an image, LR pixels per second, and how many times as fast as the peer in float32 that is."""
    ours = [sys.executable, "-m", "benchmarks.generator"]
    sides = {("geosr", precision): ours for precision in ("auto", "fp32")}
    if PEER is not None:
        sides["opensr-srgan", "fp32"] = [PEER, str(HERE / "peer_srgan.py")]
    cases = {name: replace(CASE, task="run", precision=name[1]) for name in sides}
    turns = in_turns({name: Side(command, cases[name]) for name, command in sides.items()}, rounds)
    theirs = turns.get(("opensr-srgan", "fp32"))
    return [
        {
            "tool": tool,
            "precision": precision,
            "seconds": statistics.median(seconds),
            "pixels_per_second": CASE.lr_size**2 / statistics.median(seconds),
            "ratio": theirs and statistics.median(b / a for a, b in zip(seconds, theirs, strict=True)),
        }
        for (tool, precision), seconds in turns.items()
    ]


def resolver(precision: str) -> Any:
    """The generator as ``geosr predict`` runs it: on top of bicubic interpolation, without a consistency layer."""
    from geosr import SuperResolver
    from geosr.models import Model, ModelSpec

    torch.manual_seed(0)
    arguments = {"channels": CASE.channels, "blocks": CASE.blocks, "mean": [0.15] * CASE.bands}
    bands = ("B02", "B03", "B04", "B08")
    spec = ModelSpec("esrgan", "esrgan", CASE.scale, bands, arguments, consistency_mtf=None)
    return SuperResolver(Model(spec), precision=precision)


def run_in_turns(case: Case) -> None:
    """Super-resolve images when a line on standard input says so."""
    model, ((lr, _),) = resolver(case.precision), images(case, count=1)
    take_turns(lambda: model(lr), case, sys.stdout)


def agreement() -> float:
    """PSNR in dB, peak 1.0 in reflectance, between the outputs in the default precision and in float32."""
    ((lr, _),) = images(CASE, count=1)
    auto, full = (resolver(precision)(lr) for precision in ("auto", "fp32"))
    return float(-10 * (auto - full).square().mean().log10())


if __name__ == "__main__":
    main()
