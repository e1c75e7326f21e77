"""Whether a run is well: values that are no numbers stop it, signs of trouble are told with the key to change."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from geosr.config.combinations import content_weights
from geosr.errors import OutputError, TrainingError
from geosr.training.checkpoints import save_state

log = logging.getLogger("geosr")

MANY = 200
"""Steps that a sign of trouble has to last."""
SURE = 0.95
"""The discriminator has won when it is this sure of HR, and of SR's being none."""
RISEN = 2.0
"""Times its lowest value that a content loss must not be."""
FLAT = 0.5
"""Times the standard deviation of bicubic interpolation that SR's must be: HR may hold much that no LR tells."""
DOMINANT = 0.95
"""Share of the generator's loss above which a term leaves the others without a say."""
SMOOTH = 0.1
"""Weight of a new value in the running mean of the content loss."""


class Health(Callback):
    """Warns, once for each sign, when the discriminator wins, the generator collapses, or one loss dominates.

    It looks at what the module logged whenever something is logged, and at the images of each validation.
    """

    def __init__(self) -> None:
        self.d_wins, self.rises, self.dominates = _Sign(), _Sign(), _Sign()
        self.was_flat = False
        self.pretraining: bool | None = None
        self.seen = 0
        """Content losses of this phase, of which ``mean`` is the running mean and ``best`` its lowest value."""
        self.mean = self.best = 0.0
        self.spread: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the values that were just logged."""
        if pl_module.step % trainer.log_every_n_steps or not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._watch_discriminator(values, pl_module.step)
        self._watch_content(values, pl_module.step)
        self._watch_shares(values, pl_module)

    def _watch_discriminator(self, values: Mapping[str, float], step: int) -> None:
        real, fake = values.get("discriminator/D(y)_prob", 0.5), values.get("discriminator/D(G(x))_prob", 0.5)
        if self.d_wins.lasts(real > SURE and fake < 1 - SURE, step):
            log.warning(
                "step %d: the discriminator has won: it takes HR for real with %.3f and SR with %.3f, and teaches the "
                "generator nothing. Lower Optimizers.optim_d_lr, set Training.d_accuracy_limit=0.9 or "
                "Training.label_smoothing=true, or raise Training.Losses.r1_gamma",
                step, real, fake,
            )  # fmt: skip

    def _watch_content(self, values: Mapping[str, float], step: int) -> None:
        loss, pretraining = values.get("generator/content_loss"), values.get("training/pretrain_phase", 0.0) > 0
        if loss is None:
            return
        if pretraining != self.pretraining:  # other losses may count in another phase
            self.pretraining, self.seen, self.mean, self.best = pretraining, 0, loss, math.inf
        self.seen += 1
        self.mean += SMOOTH * (loss - self.mean)
        if self.seen * SMOOTH > 1:  # before, it is the mean of too few
            self.best = min(self.best, self.mean)
        if self.rises.lasts(self.mean > RISEN * self.best, step):
            change = (
                "Optimizers.optim_g_lr" if pretraining else "Training.Losses.adv_loss_beta or Optimizers.optim_g_lr"
            )
            log.warning(
                "step %d: the content loss has risen to %.4g, from %.4g at its best: the generator falls apart. Lower "
                "%s, or set Optimizers.gradient_clip_val=1",
                step, self.mean, self.best, change,
            )  # fmt: skip

    def _watch_shares(self, values: Mapping[str, float], pl_module: Any) -> None:
        losses, schedule = pl_module.config.Training.Losses, pl_module.schedule
        weights = {
            f"{name}_weight": weight * values.get(f"train_metrics/{name}", 0.0)
            for name, weight in content_weights(losses).items()
        }
        if schedule.adversarial:
            weights["adv_loss_beta"] = losses.adv_loss_beta * values.get("generator/adversarial_loss", 0.0)
            matched = values.get("generator/feature_matching_loss", 0.0)
            weights["feature_matching_weight"] = losses.feature_matching_weight * matched
        shares = {key: abs(value) for key, value in weights.items() if getattr(losses, key) > 0}
        weight = values.get("training/adv_loss_weight", 0.0)
        full = not schedule.adversarial or math.isclose(weight, schedule.beta, rel_tol=1e-6)  # it was logged as float32
        total, key = sum(shares.values()), max(shares, key=lambda key: shares[key], default="")
        dominant = full and len(shares) > 1 and total > 0 and shares[key] > DOMINANT * total
        if self.dominates.lasts(dominant, pl_module.step):
            others = " and ".join(f"Training.Losses.{other}" for other in shares if other != key)
            log.warning(
                "step %d: one term makes %.0f %% of the generator's loss, so that the others hardly count. Lower "
                "Training.Losses.%s, or raise %s",
                pl_module.step, 100 * shares[key] / total, key, others,
            )  # fmt: skip

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin with nothing seen."""
        self.spread = dict.fromkeys(("sr", "bicubic"), 0.0)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure how much SR and bicubic interpolation vary."""
        for name in self.spread:
            self.spread[name] += float(spread(outputs[name], outputs["valid"]).sum())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare how much both vary, once there is a discriminator: before, a network that starts flat may be."""
        judged = not pl_module.schedule.is_pretraining(pl_module.step)
        flat = judged and self.spread["sr"] < FLAT * self.spread["bicubic"]
        if flat and not self.was_flat and not trainer.sanity_checking and trainer.is_global_zero:
            self.was_flat = True
            log.warning(
                "step %d: the generator has collapsed: SR varies %.2f times as much as bicubic. Lower "
                "Training.Losses.adv_loss_beta, or raise Training.adv_loss_ramp_steps, and continue from a checkpoint "
                "before it",
                pl_module.step, self.spread["sr"] / self.spread["bicubic"],
            )  # fmt: skip


class _Sign:
    """Something that is told once, when it has lasted for `MANY` steps."""

    def __init__(self) -> None:
        self.since: int | None = None
        self.told = False

    def lasts(self, holds: bool, step: int) -> bool:
        """Whether it is to be told now."""
        if not holds:
            self.since = None
            return False
        self.since = step if self.since is None else self.since
        if self.told or step - self.since < MANY:
            return False
        self.told = True
        return True


def spread(image: Tensor, valid: Tensor) -> Tensor:
    """Standard deviation over the valid pixels of each image and band (batch, band), reflectance; 0 where none is."""
    mask = valid.unsqueeze(1)
    count = mask.sum(dim=(2, 3)).clamp(min=1)
    mean = torch.where(mask, image, 0.0).sum(dim=(2, 3)) / count
    deviation = torch.where(mask, image - mean[..., None, None], 0.0)
    return (deviation.square().sum(dim=(2, 3)) / count).sqrt()


def require_finite(terms: Mapping[str, Tensor], batch: Mapping[str, Any], *, step: int, folder: Path) -> None:
    """Stop the run when a loss is NaN or infinite, with its batch saved as ``bad_batch_stepN.pt``.

    Args:
        terms: Losses, or anything else that has to be finite, by name.
        batch: What they were computed from; its tensors are saved.
        step: Steps done before.
        folder: The run's folder.

    Raises:
        TrainingError: Some terms are not finite; the message names them, and inputs that are not.
    """
    if not terms or torch.stack([term.detach().isfinite().all() for term in terms.values()]).all():
        return
    bad = [name for name, term in terms.items() if not term.detach().isfinite().all()]
    tensors = {name: value.detach().cpu() for name, value in batch.items() if isinstance(value, Tensor)}
    rank = rank_zero_only.rank or 0
    path = folder / f"bad_batch_step{step}{f'_rank{rank}' if rank else ''}.pt"
    state = {"batch": tensors, "terms": {name: term.detach().cpu() for name, term in terms.items()}}
    try:
        save_state(state, path)
        where = f"The batch is in {path}"
    except OutputError as error:  # the loss matters more
        where = f"The batch is lost: {error}"
    inputs = [name for name, value in tensors.items() if not value.isfinite().all()]
    cause = (
        f"{' and '.join(inputs)} of this batch held NaN or infinity already: look at the data"
        if inputs
        else "the batch was finite: lower Optimizers.optim_g_lr and optim_d_lr, set Optimizers.gradient_clip_val=1, or "
        "train with Training.precision=32-true"
    )
    raise TrainingError(f"{' and '.join(bad)} not finite at step {step}; {cause}. {where}")
