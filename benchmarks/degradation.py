"""Time of each degradation against a training step of the default generator: ``python -m benchmarks.degradation``.

All are measured in turns in one process, so that whatever else the machine does hits them alike; the figures are
medians. A step is forward, L1, backward and Adam, in the precision that training picks on this machine.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from geosr import losses
from geosr.config import Config
from geosr.config.degradation import DegradationSection, HighOrderSection
from geosr.degrade import PSF, Degradation, PairPool, build_degradation, degrade, usm_sharpen
from geosr.models import Model, ModelSpec
from geosr.models.hardware import native_bf16

BANDS = ("B02", "B03", "B04", "B08")
TARGETS = {"sensor": 10, "high_order": 50}
"""Largest share of a training step, in per cent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--hr", type=int, default=256, help="HR pixels along a side")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"batch {arguments.batch}, HR {arguments.hr}, {arguments.threads} threads, medians of {arguments.rounds}\n")
    print("| scale | what | ms | share of a step | target |\n| --- | --- | --- | --- | --- |")
    for scale in (4, 2):
        report(scale, measure(scale, arguments.batch, arguments.hr, arguments.rounds))


def report(scale: int, times: dict[str, float]) -> None:
    """One line of Markdown for each figure."""
    for name, seconds in times.items():
        target = next((f"{share} %" for kind, share in TARGETS.items() if name.startswith(kind)), "")
        print(f"| {scale} | {name} | {seconds * 1e3:.1f} | {seconds / times['training step']:.1%} | {target} |")


def measure(scale: int, batch: int, side: int, rounds: int) -> dict[str, float]:
    """Median seconds of each candidate; the first round does not count."""
    hr = torch.rand(batch, len(BANDS), side, side) * 0.4
    times: dict[str, list[float]] = {}
    candidates = {"training step": training_step(scale, hr), **degradations(scale, hr)}
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            start = perf_counter()
            run()
            times.setdefault(name, []).append(perf_counter() - start)
    return {name: median(seconds[1:]) for name, seconds in times.items()}


def degradations(scale: int, hr: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The kinds of degradation, and what goes with them."""
    generator, psf = torch.Generator().manual_seed(0), PSF(scale, 0.3)

    def run(section: DegradationSection) -> Callable[[], object]:
        degradation: Degradation = build_degradation(section, scale=scale, bands=BANDS)
        return lambda: degradation(hr, generator=generator)

    def high_order(**settings: object) -> Callable[[], object]:
        return run(DegradationSection(type="high_order", high_order=HighOrderSection(**settings)))  # type: ignore[arg-type]

    pool, lr = PairPool(180), degrade(hr, psf)
    while pool.filled < pool.queue_size:
        pool.exchange(lr, hr, generator=generator)
    return {
        "PSF alone (`degrade`)": lambda: degrade(hr, psf),
        "sensor": run(DegradationSection()),
        "high_order, satellite": high_order(),
        "high_order, real-esrgan": high_order(preset="real-esrgan"),
        "high_order, satellite, LR as JPEG2000": high_order(compression="none", compression2="jpeg2000"),
        "pair pool of 180": lambda: pool.exchange(lr, hr, generator=generator),
        "USM sharpening of HR": lambda: usm_sharpen(hr),
    }


def training_step(scale: int, hr: torch.Tensor) -> Callable[[], None]:
    """One update of the default generator with its consistency layer."""
    default = Config().Generator
    arguments = {"channels": default.n_channels, "blocks": default.n_blocks, "mean": [0.1] * 4, "std": [0.05] * 4}
    spec = ModelSpec(
        name="benchmark",
        architecture=default.model_type,
        scale=scale,
        bands=BANDS,
        arguments=arguments,
        consistency_mtf=0.3 if default.consistency else None,
    )
    model = Model(spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    lr, valid = degrade(hr, PSF(scale, 0.3)), torch.ones_like(hr[:, 0], dtype=torch.bool)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16("cpu")):
            sr = model(lr)
        losses.l1(sr, hr, valid).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
