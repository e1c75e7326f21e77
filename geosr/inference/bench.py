"""How fast models are on this machine, measured in turns so that their ratios hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from geosr.config.schema import DataSection, GeneratorSection
from geosr.inference.superresolver import SuperResolver
from geosr.models import Model, ModelSpec, load_model
from geosr.models.costs import count_flop
from geosr.models.hardware import PeakMemory
from geosr.models.onnx import OnnxNetwork
from geosr.models.registry import ARCHITECTURES, ARGUMENTS, build_network, generator_arguments

SIDE = 256
"""LR pixels along one side of the image that is timed."""
ROUNDS = 5
"""Times that each model has its turn."""
PRECISIONS = ("auto", "fp32")
"""What is measured unless asked otherwise."""
COUNTED = 64
"""LR pixels along one side of the image that operations are counted for."""


@dataclass(frozen=True)
class Timing:
    """What a model costs here, in one precision."""

    name: str
    runtime: str
    """``torch`` or ``onnx``."""
    device: str
    precision: str
    pixels_per_second: float
    """LR pixels, by the median of all turns."""
    memory: int | None
    """Bytes that the first image takes at its peak on top of the loaded models; None where it cannot be measured."""
    flop_per_pixel: float | None
    """Floating-point operations per LR pixel in the network; None where the architecture is not geosr's."""
    parameters: int | None
    """Weights of the network; None as above."""


@dataclass(frozen=True)
class Comparison:
    """How the two runtimes compare for one network."""

    name: str
    """The ONNX file."""
    precision: str
    """That of PyTorch."""
    ratio: float
    """Pixels per second of ONNX Runtime over those of PyTorch."""

    def __str__(self) -> str:
        times, how = (self.ratio, "fast") if self.ratio >= 1 else (1 / self.ratio, "slow")
        return f"{self.name}: ONNX Runtime is {times:.2f} times as {how} as PyTorch in {self.precision}"


@dataclass(frozen=True)
class Bench:
    """What was measured."""

    timings: list[Timing]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class _Entrant:
    name: str
    resolver: SuperResolver

    @property
    def runtime(self) -> str:
        return "onnx" if isinstance(self.resolver.model.network, OnnxNetwork) else "torch"

    @property
    def network(self) -> tuple[object, ...]:
        """What two files of one network have in common."""
        spec = self.resolver.spec
        return spec.architecture, spec.arguments, spec.scale, spec.bands


def bench(
    names: Sequence[str | Path],
    *,
    device: str = "auto",
    precisions: Sequence[str] = PRECISIONS,
    side: int = SIDE,
    rounds: int = ROUNDS,
    trust: str | Sequence[str] = (),
) -> Bench:
    """What the models cost on this machine, each in every precision, and ONNX Runtime next to PyTorch.

    All take their turn in every round, after one that does not count: what slows the machine for a while slows all.
    An ONNX file whose network is not among the others brings it along, with fresh weights, for they take as long.

    Args:
        names: As `find_weights` takes them, or architectures, which get fresh weights in the size that a config has by
            default.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        precisions: Precisions; those that mean the same here are measured once. ONNX files run in fp32.
        side: LR pixels along one side of the image.
        rounds: Number of turns.
        trust: As for `geosr.load_model`.

    Raises:
        ModelError: There is no model of a name.
        UsageError: Device or precision cannot be used here.
    """
    entrants = _entrants(names, device, precisions, trust)
    images = [torch.rand(1, len(entrant.resolver.spec.bands), side, side) for entrant in entrants]
    memory = [_warm_up(entrant.resolver, lr) for entrant, lr in zip(entrants, images, strict=True)]
    seconds: list[list[float]] = [[] for _ in entrants]
    for _ in range(rounds):
        for entrant, lr, taken in zip(entrants, images, seconds, strict=True):
            started = perf_counter()
            entrant.resolver(lr)  # its result is on the CPU: nothing is left to wait for
            taken.append(perf_counter() - started)
    rates = [side**2 / median(taken) for taken in seconds]
    timings = [
        Timing(
            entrant.name,
            entrant.runtime,
            str(entrant.resolver.device),
            entrant.resolver.precision,
            rate,
            peak,
            *_costs(entrant.resolver.spec),
        )
        for entrant, rate, peak in zip(entrants, rates, memory, strict=True)
    ]
    comparisons = [
        Comparison(onnx.name, other.resolver.precision, rate / other_rate)
        for onnx, rate in zip(entrants, rates, strict=True)
        for other, other_rate in zip(entrants, rates, strict=True)
        if (onnx.runtime, other.runtime) == ("onnx", "torch") and onnx.network == other.network
    ]
    return Bench(timings, comparisons)


def _entrants(
    names: Sequence[str | Path], device: str, precisions: Sequence[str], trust: str | Sequence[str]
) -> list[_Entrant]:
    models = [(str(name), _model(name, trust)) for name in names]
    entrants = [entrant for name, model in models for entrant in _in_precisions(name, model, device, precisions)]
    known = [entrant.network for entrant in entrants if entrant.runtime == "torch"]
    alone = [entrant for entrant in entrants if entrant.network not in known]
    for entrant in alone:
        spec = entrant.resolver.spec
        if spec.architecture in ARCHITECTURES:
            entrants += _in_precisions(f"{entrant.name} in torch", Model(spec), device, precisions)
    return entrants


def _in_precisions(name: str, model: Model, device: str, precisions: Sequence[str]) -> list[_Entrant]:
    """The model in every precision that is another one here."""
    if isinstance(model.network, OnnxNetwork):
        precisions = ("fp32",)
    resolvers = [SuperResolver(model, device=device, precision=precision) for precision in precisions]
    return [_Entrant(name, resolver) for resolver in {each.precision: each for each in resolvers}.values()]


def _model(name: str | Path, trust: str | Sequence[str]) -> Model:
    """The model that ``name`` means; of an architecture, one with fresh weights."""
    if str(name) not in ARGUMENTS:
        return load_model(name, trust=trust)
    section = GeneratorSection(model_type=str(name))
    bands = tuple(DataSection().bands)
    return Model(ModelSpec(str(name), str(name), section.scaling_factor, bands, generator_arguments(section)))


def _costs(spec: ModelSpec) -> tuple[float | None, int | None]:
    """Operations per LR pixel and number of weights of the network that ``spec`` describes, if it is one of geosr's."""
    if spec.architecture not in ARCHITECTURES:
        return None, None
    with torch.device("meta"):
        network = build_network(spec)
        flop = count_flop(network, torch.empty(1, len(spec.bands), COUNTED, COUNTED))
    return flop / COUNTED**2, sum(parameter.numel() for parameter in network.parameters())


def _warm_up(resolver: SuperResolver, lr: torch.Tensor) -> int | None:
    """Bytes that the first image takes at its peak; None where nobody counts them."""
    resolver(lr[..., :8, :8])  # whatever is loaded or set up once
    if resolver.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(resolver.device)
        before = torch.cuda.memory_allocated(resolver.device)
        resolver(lr)
        if isinstance(resolver.model.network, OnnxNetwork):
            return None  # PyTorch does not see what ONNX Runtime takes
        return torch.cuda.max_memory_allocated(resolver.device) - before
    with PeakMemory() as peak:
        resolver(lr)
    return peak.bytes
