"""The moving average of the generator's weights."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from geosr.config.schema import EMASection
from geosr.models import Model


class EMA(nn.Module):
    """Exponential moving average of a model's weights and running statistics, by generator updates.

    PyTorch's `AveragedModel` keeps it. Lightning's ``EMAWeightAveraging`` was not enough: it averages the discriminator
    too, counts both optimisers' steps, and knows no smaller decay for the start.

    Args:
        model: The model that is trained. The first update copies its weights.
        section: Decay, when it starts, and where it is kept.
    """

    def __init__(self, model: Model, section: EMASection) -> None:
        super().__init__()
        self.section = section
        self.average = AveragedModel(model, device=section.device, multi_avg_fn=Fold(self.decay), use_buffers=True)  # type: ignore[arg-type]
        self.average.requires_grad_(False)  # several devices would wait for its gradients

    @property
    def model(self) -> Model:
        """The model with the averaged weights."""
        return self.average.module  # type: ignore[return-value]

    @property
    def updates(self) -> int:
        """Updates of the average so far."""
        return int(self.average.n_averaged)

    @property
    def is_active(self) -> bool:
        """Whether there is an average yet."""
        return self.updates > 0

    def decay(self, updates: int) -> float:
        """Share of the old average that stays after so many updates of it.

        References:
            TensorFlow's ``ExponentialMovingAverage``, ``num_updates``: ``min(decay, (1 + n) / (10 + n))``.
        """
        limit = self.section.decay
        return min(limit, (1 + updates) / (10 + updates)) if self.section.use_num_updates else limit

    def update(self, model: Model, *, step: int) -> None:
        """Take the weights after update number ``step`` into the average, once it has started."""
        if step >= self.section.update_after_step:
            self.average.update_parameters(model)

    def figures(self, step: int) -> dict[str, float]:
        """What is logged about the average after update number ``step``."""
        return {
            "EMA/enabled": 1.0,
            "EMA/decay": self.section.decay,
            "EMA/update_after_step": float(self.section.update_after_step),
            "EMA/use_num_updates": float(self.section.use_num_updates),
            "EMA/is_active": float(self.is_active),
            "EMA/steps_until_activation": float(max(self.section.update_after_step - step - 1, 0)),
            "EMA/last_decay": self.decay(self.updates - 1) if self.updates > 1 else 0.0,
            "EMA/num_updates": float(self.updates),
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Stay on the device that was asked for when the rest of the training moves to another."""
        return self if self.section.device is not None else super()._apply(fn, recurse)


class Fold:
    """Moves averages towards new values, all tensors of a kind at once; a class, so that a process can be given it."""

    def __init__(self, decay: Callable[[int], float]) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averages: Any, values: Any, updates: Any) -> None:
        """Fold ``values`` into ``averages``, both lists of tensors; whole numbers are taken over as they are."""
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - self.decay(int(updates)))
        else:
            torch._foreach_copy_(averages, values)
