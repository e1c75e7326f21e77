"""Batches that are written once: samples that are parts of the batch which a DataLoader makes of them."""

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info


class Samples(list[dict[str, Tensor]]):
    """The samples of a batch, which are parts of one tensor each in `stacked`."""

    def __init__(self, stacked: dict[str, Tensor]) -> None:
        self.stacked = stacked
        names, values = stacked.keys(), zip(*stacked.values(), strict=True)
        super().__init__(dict(zip(names, value, strict=True)) for value in values)


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The batch that a DataLoader makes of samples by default, without a copy where they are `Samples`."""
    return samples.stacked if isinstance(samples, Samples) else default_collate(samples)


def empty_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor to be filled; a worker's is in shared memory, as it would be copied there anyway."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype).share_memory_()
