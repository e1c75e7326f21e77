"""A pool of training pairs, so that one batch holds degradations of many."""

from typing import Any

import torch
from torch import Tensor


class PairPool:
    """The last ``queue_size`` pairs or so; each batch that comes is exchanged for as many random ones.

    A batch shares what is drawn once per batch (the data loader's order, a scene); one from the pool does not. Until
    the pool is full, batches go into it and pass through. It lives on the device of the first batch.

    References:
        X. Wang et al., "Real-ESRGAN", ICCVW 2021, section 4.1, training pair pool.
    """

    def __init__(self, queue_size: int = 180) -> None:
        if queue_size < 0:
            raise ValueError(f"queue_size is {queue_size}; it must be at least 0, and 0 switches the pool off")
        self.queue_size = queue_size
        self.filled = 0
        self.pool: tuple[Tensor, ...] = ()

    def exchange(self, *pairs: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """As many pairs as were given, in tensors of the same shape.

        A batch larger than the pool is exchanged as far as the pool goes, and any batch size fits.

        Args:
            pairs: What belongs together, such as LR images, HR images and masks: tensors (batch, ...).
            generator: Generator of the CPU; it decides which pairs leave the pool.

        Raises:
            ValueError: The tensors are of another shape or type than those in the pool.
        """
        if self.queue_size == 0:
            return pairs
        if not self.pool:
            self.pool = tuple(part.new_empty(self.queue_size, *part.shape[1:]) for part in pairs)
        self._require_alike(pairs)
        batch = len(pairs[0])
        free = self.queue_size - self.filled
        if free:
            for kept, part in zip(self.pool, pairs, strict=True):
                kept[self.filled : self.filled + batch] = part[:free].detach()
            self.filled += min(batch, free)
            return pairs
        count = min(batch, self.queue_size)
        places = torch.randperm(self.queue_size, generator=generator)[:count]
        exchanged = []
        for kept, part in zip(self.pool, pairs, strict=True):
            where = places.to(kept.device)
            exchanged.append(torch.cat([kept[where], part[count:]]))
            kept[where] = part[:count].detach()
        return tuple(exchanged)

    def state_dict(self) -> dict[str, Any]:
        """What is in the pool."""
        return {"filled": self.filled, "pool": list(self.pool)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was in a pool."""
        self.filled, self.pool = state["filled"], tuple(state["pool"])

    def _require_alike(self, pairs: tuple[Tensor, ...]) -> None:
        told = [[f"{part.dtype} {tuple(part.shape[1:])}" for part in parts] for parts in (pairs, self.pool)]
        if told[0] != told[1]:
            raise ValueError(
                f"the pool holds {', '.join(told[1])} and was given {', '.join(told[0])}; use another pool"
            )
