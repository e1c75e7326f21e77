"""The Lightning module: what one update of the generator, and of the discriminator beside it, does."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.amp import GradScaler

from geosr import __version__, metrics
from geosr.config.schedule import Schedule
from geosr.config.schema import Config
from geosr.data.splits import hashed
from geosr.degrade import PSF, nominal_mtf
from geosr.degrade.resample import bicubic
from geosr.losses import ContentLoss
from geosr.models import Model
from geosr.models.blocks import Trunk
from geosr.models.checkpoint import FACTS
from geosr.models.hardware import subnormals_flushed
from geosr.training.adversary import Adversary, Scores
from geosr.training.build import Networks
from geosr.training.ema import EMA
from geosr.training.figures import central, figures, inside, is_measured
from geosr.training.health import require_finite
from geosr.training.optim import NETWORKS, Plateau, build_optimizer, clip, set_rate
from geosr.training.resume import reopen

Batch = dict[str, Tensor]

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What both networks compute in, by ``Training.precision``."""


class Made(NamedTuple):
    """An image that the generator made, and the discriminator's scores of it where they are known."""

    sr: Tensor
    scores: Scores | None = None


class SuperResolution(L.LightningModule):
    """A generator, the discriminator that it is trained against, and the moving average that is kept.

    One batch holds all the patches of one generator update, so ``step``, the updates done, is also Lightning's count of
    batches: its ``global_step`` counts both optimisers. The generator is updated first, and the discriminator then sees
    the images that it made, as in BasicSR's ESRGAN. What is random in an update depends on seed and step alone.

    Args:
        networks: The generator, and the discriminator where one is needed.
        config: The whole configuration.
        schedule: What happens at which step.
        precision: 32-true, bf16-mixed or 16-mixed; losses and penalties are always computed in float32.
    """

    def __init__(
        self,
        networks: Networks,
        config: Config,
        schedule: Schedule,
        *,
        precision: str = "32-true",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.schedule = config, schedule
        self.folder = Path()
        """Where a batch that breaks the training is saved."""
        self.networks, self.model = networks, networks.model
        training = config.Training
        self.psf = PSF(config.Generator.scaling_factor, nominal_mtf(config.Degradation.sensor.mtf, config.Data.bands))
        self.content = ContentLoss(training.Losses, config.Data.bands, self.psf)
        self.adversary = None
        if networks.discriminator is not None:
            guide = len(self.model.spec.guide)
            normalisation = {name: self.model.spec.arguments[name][guide:] for name in ("mean", "std")}
            critic = config.Discriminator
            self.adversary = Adversary(
                networks.discriminator, training, **normalisation, conditional=critic.conditional, detail=critic.detail
            )
        for network in self._networks():
            if training.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for trunk in (part for part in network.modules() if isinstance(part, Trunk)):
                trunk.gradient_checkpointing = training.gradient_checkpointing
        self.ema = EMA(self.model, training.EMA) if training.EMA.enabled else None
        if training.compile:
            self._compile()
        self.every = min(config.Logging.every, schedule.total)
        """Steps from one logged value to the next."""
        self.judged: Model | None = None
        self.precision = precision
        self.scalers: list[GradScaler] = []
        rates = config.Optimizers.optim_g_lr, config.Optimizers.optim_d_lr
        self.plateaus = [
            Plateau(config.Schedulers, rate, which)
            for _, rate, which in zip(self._networks(), rates, NETWORKS, strict=False)
        ]
        self.step = 0
        self.accuracy = 0.0
        """Share of the scores that the discriminator was right about, where a limit watches it."""

    def _networks(self) -> list[nn.Module]:
        return [self.model] if self.adversary is None else [self.model, self.adversary.network]

    def _compile(self) -> None:
        """Have both networks compiled when they are first run; not one that a penalty derives twice."""
        self.model.network.compile()
        losses = self.config.Training.Losses
        if self.adversary is not None and not (losses.r1_gamma or losses.gp_weight):
            self.adversary.network.compile()

    def setup(self, stage: str) -> None:
        """Make the scalers of float16 gradients, one for each optimiser, for the device that is now known."""
        self.scalers = [GradScaler(self.device.type, enabled=self.precision == "16-mixed") for _ in self._networks()]

    # Which weights

    @property
    def best(self) -> Model:
        """The weights to validate and to export: the average, once there is one."""
        return self.ema.model if self.ema is not None and self.ema.is_active else self.model

    def on_validation_start(self) -> None:
        """Have the best weights on the device, where the average is kept elsewhere."""
        best = self.best
        elsewhere = next(best.parameters()).device != self.device
        self.judged = deepcopy(best).to(self.device) if elsewhere else None

    def on_validation_end(self) -> None:
        """Let go of them."""
        self.judged = None

    def forward(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale) by the best weights."""
        return (self.judged or self.best)(lr)

    def compared(self, batch: Batch) -> Batch:
        """The batch as losses and figures take it: of LR the bands that come out, without repeated pixels."""
        return {**batch, "lr": self.model.observed(batch["lr"])}

    # One update

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Count as Lightning's loggers do: of a run that is continued from a validation they would be one behind."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.step

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Update the generator and, after its pretraining, the discriminator; the generator's loss."""
        with subnormals_flushed():
            return self._update(batch)

    def _update(self, batch: Batch) -> Tensor:
        training = self.config.Training
        torch.manual_seed(int(hashed(training.seed, self.step, self.global_rank, 1)))
        self._set_rates()
        parts = split(batch, self.config.Data.train_batch_size)
        at_once = training.accumulate_grad_batches
        values, made = self._update_generator(parts[:at_once])
        first_image = made[0].sr
        if self.adversary is not None and not self.schedule.is_pretraining(self.step):
            several = training.d_steps_per_g
            first = (self.step - self.schedule.pretraining) * several
            for turn in range(several):
                seen = parts[turn * at_once : (turn + 1) * at_once]
                if turn > 0:
                    made = [Made(self._without_gradient(part["lr"])) for part in seen]
                values |= self._update_discriminator(self.adversary, seen, made, number=first + turn)
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)
        if self._is_logged:
            self._log(values, parts[0], first_image)
        self.step += 1
        return values["generator/total_loss"]

    def _update_generator(self, parts: Sequence[Batch]) -> tuple[dict[str, Tensor], list[Made]]:
        """One step of its optimiser: what is logged, and the images that it made."""
        pretraining = self.schedule.is_pretraining(self.step)
        weight = self.schedule.adversarial_weight(self.step)
        only = self.config.Training.pretrain_losses if pretraining else ()
        made: list[Made] = []
        several: list[dict[str, Tensor]] = []
        for part in parts:
            with self._autocast():
                sr = self.model(part["lr"])
                part = self.compared(part)
                content, terms = self.content(sr, part["hr"], part["valid"], part["lr"], only=only)
                fooled = None
                if self.adversary is not None and not pretraining:
                    fooled = self.adversary.fooled(sr, part, scale=float(self.scalers[0].get_scale()))
            values = {f"train_metrics/{name}": value for name, value in terms.items()}
            values |= {
                "generator/content_loss": content.detach(),
                "generator/adversarial_loss": torch.zeros_like(content),
                "generator/total_loss": content.detach() + (weight * fooled.loss if fooled else 0.0),
            }
            if fooled:
                values |= {f"generator/{name}": value for name, value in fooled.terms.items()}
            require_finite(values, part, step=self.step, folder=self.folder)
            # The sum has the gradient of the discriminator's part, which is known already.
            total = content if fooled is None else content + weight * (fooled.pull * sr).sum()
            self.manual_backward(self.scalers[0].scale(total / len(parts)))
            # Scores keep the discriminator's memory until its own update: not of several batches at once.
            made.append(Made(sr.detach(), fooled.scores if fooled and len(parts) == 1 else None))
            several.append(values)
        self._apply_gradients(0)
        return _mean(several), made

    def _update_discriminator(
        self, adversary: Adversary, parts: Sequence[Batch], made: Sequence[Made], *, number: int
    ) -> dict[str, Tensor]:
        """One step of its optimiser, its ``number``-th of the run, unless it waits: what is logged."""
        limit = self.config.Training.d_accuracy_limit
        waits = limit is not None and self.accuracy > limit
        several = []
        for part, (sr, scores) in zip(parts, made, strict=True):
            part = self.compared(part)
            with self._autocast(), torch.set_grad_enabled(not waits):
                total, values = adversary.loss(sr, part, fake=scores)
                if not waits:
                    values["r1_penalty"] = adversary.r1(part, number=number)
                    total = total + values["r1_penalty"] + adversary.gradient_penalty(sr, part)
            require_finite({"discriminator's loss": total}, part, step=self.step, folder=self.folder)
            if not waits:
                self.manual_backward(self.scalers[1].scale(total / len(parts)))
            several.append({f"discriminator/{name}": value.detach() for name, value in values.items()})
        if not waits:
            self._apply_gradients(1)
        values = _mean(several)
        if limit is not None:  # all processes decide alike
            self.accuracy = float(self.trainer.strategy.reduce(values["discriminator/accuracy"], reduce_op="mean"))
        return values

    def _apply_gradients(self, which: int) -> None:
        """Step an optimiser, 0 the generator's and 1 the discriminator's, with the gradients that are there."""
        optimizer, scaler, network = self._optimizers[which], self.scalers[which], self._networks()[which]
        if scaler.is_enabled():
            scaler.unscale_(optimizer)
        clip(network.parameters(), self.config.Optimizers.gradient_clip_val)
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()

    def _without_gradient(self, lr: Tensor) -> Tensor:
        with torch.no_grad(), self._autocast():
            return self.model(lr)

    def _autocast(self) -> torch.autocast:
        kind = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)

    # Validation

    def validation_step(self, batch: Batch, batch_index: int) -> Batch:
        """Figures of each image next to bicubic interpolation's; the epoch's are the mean over images."""
        return self._evaluate(batch, "val_metrics")

    def test_step(self, batch: Batch, batch_index: int) -> Batch:
        """The same as in validation."""
        return self._evaluate(batch, "test_metrics")

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """SR reflectance of the batch, by the best weights."""
        return self(batch["lr"])

    def _evaluate(self, batch: Batch, group: str) -> Batch:
        sr = self(batch["lr"])
        batch = self.compared(batch)
        batch = {**batch, "sr": sr, "bicubic": bicubic(batch["lr"], self.psf.scale)}
        for one in range(len(sr)):
            image = {name: value[one : one + 1] for name, value in batch.items()}
            if inside(image["valid"]).any():
                values = figures(image, self.psf, self.content)
                for name, value in values.items():
                    self.log(f"{group}/{name}", value, batch_size=1, prog_bar=name == "psnr_gain")
        if self.adversary is not None and not self.schedule.is_pretraining(self.step):
            patch, scale = self.config.Data.patch_size, self.psf.scale
            seen = {name: central(batch[name], patch * scale, step=scale) for name in ("sr", "hr", "valid")}
            with self._autocast():
                loss, _ = self.adversary.loss(seen["sr"], {**seen, "lr": central(batch["lr"], patch)})
            self.log("validation/DISC_adversarial_loss", loss, batch_size=len(sr))
        self.log("updates", float(self.step), logger=False, batch_size=1)
        return batch

    # Logging

    @property
    def _is_logged(self) -> bool:
        """Whether Lightning's loggers take the values of this update."""
        return (self.step + 1) % self.every == 0

    def _log(self, values: dict[str, Tensor], part: Batch, sr: Tensor) -> None:
        """Log an update and what only matters when someone looks."""
        part = self.compared(part)
        hr, valid = part["hr"], part["valid"]
        self.log_dict({name: value for name, value in values.items() if self._is_measured(name, valid)})
        known = [name.removeprefix("train_metrics/") for name in values]
        with self._autocast():
            terms = self.content.terms(sr, hr, valid, part["lr"], skip=known)
        quality = {f"train_metrics/{name}": value for name, value in terms.items()}
        if valid.any():
            quality |= {
                "train_metrics/psnr": metrics.psnr(sr, hr, valid),
                "train_metrics/ssim": metrics.ssim(sr, hr, valid),
            }
        for name, value in quality.items():
            if self._is_measured(name, valid) and not value.isnan():
                self.log(name, value, prog_bar=name.endswith("/psnr"))
        self.log_dict(
            {
                "training/pretrain_phase": float(self.schedule.is_pretraining(self.step)),
                "training/adv_loss_weight": self.schedule.adversarial_weight(self.step),
            }
        )
        self.log_dict({"EMA/enabled": 0.0} if self.ema is None else self.ema.figures(self.step))
        for name, optimizer in zip(("generator", "discriminator"), self._optimizers, strict=False):
            self.log(f"lr_{name}", optimizer.param_groups[0]["lr"])

    def _is_measured(self, name: str, valid: Tensor) -> bool:
        group, _, loss = name.rpartition("/")
        return group != "train_metrics" or is_measured(loss, valid, self.psf)

    # Optimisers

    def configure_optimizers(self) -> list[Any]:
        """The generator's, and the discriminator's where there is one."""
        section = self.config.Optimizers
        return [
            build_optimizer(section, network, which) for network, which in zip(self._networks(), NETWORKS, strict=False)
        ]

    @property
    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _set_rates(self) -> None:
        """Give both optimisers the learning rate of this step."""
        for which, optimizer, plateau in zip(NETWORKS, self._optimizers, self.plateaus, strict=False):
            set_rate(optimizer, plateau.rate * self.schedule.rate_factor(self.step, warm_up=which == "g"))

    def configure_callbacks(self) -> list[L.Callback]:
        """What lowers the learning rates on a plateau."""
        return [WatchPlateaus()] if self.schedule.decay == "plateau" else []

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know: the step, plateaus, scalers; the model's specification and the config."""
        checkpoint[FACTS] = {
            "geosr": __version__,
            "config": self.config.to_dict(),
            "spec": self.model.spec.to_dict(),
            "step": self.step,
            "steps": self.schedule.total,
            "accuracy": self.accuracy,
            "plateaus": [plateau.state_dict() for plateau in self.plateaus],
            "scalers": [scaler.state_dict() for scaler in self.scalers],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was made, with as many steps as the run has now."""
        facts = checkpoint[FACTS]
        reopen(checkpoint["loops"], step=facts["step"], total=self.schedule.total)
        self.step, self.accuracy = facts["step"], facts["accuracy"]
        for plateau, state in zip(self.plateaus, facts["plateaus"], strict=True):
            plateau.load_state_dict(state)
        for scaler, state in zip(self.scalers, facts["scalers"], strict=True):
            if state:  # a scaler that is switched off has none
                scaler.load_state_dict(state)


class WatchPlateaus(L.Callback):
    """Shows validations to the plateaus before a checkpoint is made; the module's own hook would come after it."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Lower the learning rates where a plateau has lasted too long."""
        if trainer.state.fn == TrainerFn.FITTING and module.step >= module.schedule.warmup:
            for plateau in module.plateaus:
                plateau.validated(trainer.callback_metrics)


def split(batch: Batch, size: int) -> list[Batch]:
    """The batch in parts of at most ``size`` patches."""
    return [
        {name: value[start : start + size] for name, value in batch.items()}
        for start in range(0, len(batch["lr"]), size)
    ]


def _mean(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of values of the same names."""
    return {name: torch.stack([values[name] for values in several]).mean() for name in several[0]}
