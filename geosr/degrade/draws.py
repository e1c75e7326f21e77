"""Random numbers of a batch of images, drawn so that no image depends on its batch mates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """One stream of random numbers per image, all seeded from one generator.

    The first image of a batch gets the same numbers alone and among others. Numbers are drawn on the CPU and moved, so
    they are the same on every device.
    """

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        self.streams = list(streams)

    @classmethod
    def of(cls, generator: torch.Generator, batch: int) -> Draws:
        """Streams for ``batch`` images; the generator moves on by ``batch`` numbers."""
        seeds = torch.randint(2**32, (batch,), generator=generator)  # the Mersenne twister takes 32 bits
        return cls([torch.Generator().manual_seed(seed) for seed in seeds.tolist()])

    def __len__(self) -> int:
        return len(self.streams)

    def __getitem__(self, image: int) -> Draws:
        return Draws([self.streams[image]])

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers (batch, *shape) between two bounds, float64 on the CPU."""
        unit = [torch.rand(shape, generator=stream, dtype=torch.float64) for stream in self.streams]
        return low + (high - low) * torch.stack(unit)

    def choice(self, weights: Sequence[float]) -> Tensor:
        """A position (batch,) in ``weights``, each as probable as its weight says."""
        edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(edges, self.uniform(0, float(edges[-1])), right=True).clamp(max=len(weights) - 1)

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """Standard normal numbers (batch, *shape), in the type and on the device of ``like``."""
        numbers = torch.empty(len(self), *shape)
        for part, stream in zip(numbers, self.streams, strict=True):
            part.normal_(generator=stream)
        return numbers.to(like)
