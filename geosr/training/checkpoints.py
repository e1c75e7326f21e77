"""Checkpoint files of a run: written whole or not at all, the best ones and the last kept, found where the run is."""

import io
import logging
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from geosr import files
from geosr.errors import ModelError, TrainingError
from geosr.models.checkpoint import require_intact
from geosr.training.folder import writing
from geosr.training.optim import is_better_higher

log = logging.getLogger("geosr")


def save_state(state: Any, path: Path) -> None:
    """Write tensors and plain values as PyTorch does, in one step: the file before it stays until the new one is whole.

    Raises:
        OutputError: The disk is full, or the file cannot be written for another reason.
    """
    content = io.BytesIO()  # PyTorch's own writer says of a full disk that an assertion failed
    torch.save(state, content)
    with writing(path), files.replacing(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and removes checkpoints."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], *_: Any, **__: Any) -> None:
        """Write a checkpoint in one step."""
        save_state(checkpoint, Path(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint that is no longer among the best."""
        files.remove(Path(path))


class KeepBest(ModelCheckpoint):
    """Keeps the two best checkpoints of a run.

    A run that goes on knows the best checkpoints by the names that they have in its folder, wherever that was before.

    Args:
        folder: The run's folder.
        metric: What the best has the best value of.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        super().__init__(
            folder,
            "best-{updates:.0f}",
            monitor=metric,
            mode="max" if is_better_higher(metric) else "min",
            save_top_k=2,
            save_on_train_epoch_end=False,  # but after each validation, also where there is one a step
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, that of the class which wrote it in earlier versions, too."""
        return str(super().state_key).replace("KeepBest", "ModelCheckpoint")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep it, if it is one of the best.

        Raises:
            TrainingError: No validation image allows to measure what the best has the best value of.
        """
        if trainer.state.fn == TrainerFn.FITTING and self.monitor not in trainer.callback_metrics:
            raise TrainingError(
                f"Schedulers.metric is {self.monitor}, and no validation image has enough valid pixels to measure it; "
                "take another, such as val_metrics/l1, or other scenes (Data.val_scenes, Data.min_valid)"
            )
        super().on_validation_end(trainer, module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoints that are in the run's own folder: another copy of the run is another run."""
        folder = str(self.dirpath)
        models = {}
        for path, score in state_dict["best_k_models"].items():
            here = os.path.join(folder, os.path.basename(path))
            if is_there(Path(here)):
                models[here] = score
        self.best_k_models = models
        if models:
            ranked = sorted(models, key=lambda path: float(models[path]), reverse=self.mode == "max")
            self.best_model_path, self.kth_best_model_path = ranked[0], ranked[-1]
            self.best_model_score, self.kth_value = models[ranked[0]], models[ranked[-1]]


class KeepLast(Checkpoint):
    """Saves the run after each validation and after its last step, however that came to be the last.

    Lightning's ``save_last`` leaves out validations that are none of the best.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *batch: Any) -> None:
        """Save before the validation of the last step, which may take long."""
        if trainer.should_stop or module.step == module.schedule.total:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save what all other callbacks know of the validation, too."""
        if trainer.state.fn == TrainerFn.FITTING:
            trainer.save_checkpoint(self.path)


def is_there(path: Path) -> bool:
    """Whether a checkpoint exists and is whole; the log says where it is not."""
    if not path.is_file():
        log.warning("%s is not there any more, and is left out of the best checkpoints", path)
        return False
    try:
        require_intact(path)
    except ModelError as error:
        log.warning("%s; it is left out of the best checkpoints", error)
        return False
    return True
