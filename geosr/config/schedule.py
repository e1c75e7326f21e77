"""What happens at which step of a run; a step is a generator update, whatever else was updated beside it."""

import math
from dataclasses import dataclass
from itertools import pairwise

from geosr.config.schema import Config


@dataclass(frozen=True)
class Schedule:
    """Phases, adversarial weight and learning rates as functions of the steps done before.

    Everything is a pure function of the step, so a resumed run is where it would have been.
    """

    total: int
    """Steps of the run."""
    pretraining: int
    """Steps of the generator alone, at the start."""
    ramp: int
    """Steps after them in which the adversarial weight rises."""
    beta: float
    """Adversarial weight after the ramp."""
    ramp_shape: str
    """linear or cosine; likewise ``warmup_shape``."""
    warmup: int
    """Steps in which the generator's learning rate rises."""
    warmup_shape: str
    decay: str
    """One of `geosr.config.names.SCHEDULES`."""
    milestones: tuple[int, ...] = ()
    gamma: float = 1.0

    @classmethod
    def of(cls, config: Config, total: int) -> "Schedule":
        """The schedule of a run of ``total`` steps."""
        training, schedulers = config.Training, config.Schedulers
        alone = 0
        if training.pretrain_g_only:
            alone = total if training.g_pretrain_steps == -1 else min(training.g_pretrain_steps, total)
        return cls(
            total=total,
            pretraining=alone,
            ramp=training.adv_loss_ramp_steps,
            beta=training.Losses.adv_loss_beta,
            ramp_shape=training.Losses.adv_loss_schedule,
            warmup=schedulers.g_warmup_steps,
            warmup_shape=schedulers.g_warmup_type,
            decay=schedulers.name,
            milestones=tuple(schedulers.milestones),
            gamma=schedulers.gamma,
        )

    @property
    def adversarial(self) -> bool:
        """Whether a discriminator is ever needed."""
        return self.pretraining < self.total and self.beta > 0

    def is_pretraining(self, step: int) -> bool:
        """Whether the generator is trained alone at this step."""
        return not self.adversarial or step < self.pretraining

    def adversarial_weight(self, step: int) -> float:
        """Weight of the adversarial loss: 0 while pretraining, ``beta`` once the ramp is over."""
        if self.is_pretraining(step):
            return 0.0
        done = step - self.pretraining
        return self.beta * _risen(done / self.ramp, self.ramp_shape) if done < self.ramp else self.beta

    def rate_factor(self, step: int, *, warm_up: bool) -> float:
        """What a learning rate is multiplied by at this step; the plateau's part comes on top.

        Args:
            step: Steps done before.
            warm_up: Whether the rate rises first, as the generator's does: to the target at its ``warmup``-th step.
        """
        if warm_up and step < self.warmup:
            return _risen((step + 1) / self.warmup, self.warmup_shape)
        if self.decay == "cosine":
            start = self.warmup if warm_up else 0
            return (1 + math.cos(math.pi * (step - start) / max(self.total - start, 1))) / 2
        if self.decay == "multistep":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        return 1.0

    def phases(self) -> list[tuple[str, int, int]]:
        """Name, first step and end of each phase that has steps, in order; the warm-up lies beside them."""
        turns = [0, self.pretraining, self.pretraining + self.ramp, self.total] if self.adversarial else [0, self.total]
        names = ("pretraining", "ramp", "adversarial") if self.adversarial else ("content losses",)
        phases = [
            (name, start, min(end, self.total))
            for name, (start, end) in zip(names, pairwise(turns), strict=True)
            if start < min(end, self.total)
        ]
        return ([("warm-up", 0, min(self.warmup, self.total))] if self.warmup else []) + phases


def _risen(share: float, shape: str) -> float:
    """How far a rise from 0 to 1 has come after this share of its time."""
    return share if shape == "linear" else (1 - math.cos(math.pi * share)) / 2
