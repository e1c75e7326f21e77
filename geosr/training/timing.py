"""How long an update takes, and how much of that is waiting for data."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from lightning.pytorch.callbacks import Callback


class Timing(Callback):
    """Logs ``data_time`` and ``step_time`` in seconds, the latter with the former, and ``patches_per_second``.

    They are means over the updates since values were last logged. An update counts unless a validation, or the writing
    of what was logged, came between it and the one before; the first one counts never, as things are set up in it.

    Args:
        patches_per_step: Patches of one update, of all processes together.
        arrived: When the last batch was there; what is done to it afterwards is part of the update.
        clock: Seconds since whenever, as ``arrived`` counts them.
    """

    def __init__(
        self, patches_per_step: int, *, arrived: Callable[[], float], clock: Callable[[], float] = perf_counter
    ) -> None:
        self.patches, self.arrived, self.clock = patches_per_step, arrived, clock
        self.ended: float | None = None
        """When the last update was over; None where the next one does not count."""
        self.waits: list[float] = []
        self.steps: list[float] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin with nothing measured."""
        self.ended, self.waits, self.steps = None, [], []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The update is done."""
        now, every = self.clock(), trainer.log_every_n_steps
        if self.ended is not None:
            self.waits.append(self.arrived() - self.ended)
            self.steps.append(now - self.ended)
        self.ended = now
        if pl_module.step % every == 0 and self.steps:
            data, step = (sum(times) / len(times) for times in (self.waits, self.steps))
            rate = self.patches / max(step, 1e-9)
            pl_module.log_dict({"data_time": data, "step_time": step, "patches_per_second": rate}, sync_dist=True)
            self.waits, self.steps = [], []
            if every > 1:  # else none would count
                self.ended = None

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """The next update does not count."""
        self.ended = None
