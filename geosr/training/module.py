"""The Lightning module: what one training step and one validation scene do."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from geosr import losses, metrics
from geosr.config.schema import Config
from geosr.degrade import PSF, degrade, nominal_mtf, usm_sharpen
from geosr.degrade.resample import bicubic
from geosr.models import Model

BORDER = 8
"""HR pixels at the edge of a validation scene that do not count: they are extrapolated rather than resolved."""


class SuperResolution(L.LightningModule):
    """A model that learns to undo a degradation, and the moving average of its weights that is kept."""

    def __init__(self, model: Model, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.psf = PSF(config.Generator.scaling_factor, nominal_mtf(config.Degradation.sensor.mtf, config.Data.bands))
        average = get_ema_multi_avg_fn(config.Training.EMA.decay)
        self.ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if config.Training.EMA.enabled else None
        if self.ema is not None:
            self.ema.requires_grad_(False)  # several devices would wait for its gradients

    @property
    def best(self) -> Model:
        """The weights to validate and to export."""
        return self.model if self.ema is None else self.ema.module  # type: ignore[return-value]

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch of LR and HR patches."""
        weights = self.config.Training.Losses
        sr = self.model(batch["lr"])
        target = usm_sharpen(batch["hr"]) if weights.l1_gt_usm else batch["hr"]
        loss = weights.l1_weight * losses.l1(sr, target, batch["valid"])
        self.log("train/l1", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Take the new weights into the average."""
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Figures of each image next to those of bicubic interpolation; the epoch's are the mean over images."""
        with torch.autocast(batch["lr"].device.type, enabled=False):
            sr = self.best(batch["lr"])
        for one in range(len(sr)):
            image = slice(one, one + 1)
            valid = inside(batch["valid"][image])
            if valid.any():
                figures = self._figures(sr[image], batch["lr"][image], inside(batch["hr"][image]), valid)
                self.log_dict(figures, batch_size=1)

    def _figures(self, sr: Tensor, lr: Tensor, hr: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Figures of one image and of bicubic interpolation; ``hr`` and ``valid`` come without their border."""
        interpolated = bicubic(lr, self.psf.scale)
        psnr = metrics.psnr(inside(sr), hr, valid)
        gain = psnr - metrics.psnr(inside(interpolated), hr, valid)
        figures = {"val/psnr": psnr, "val/psnr_over_bicubic": gain}
        for name, image in (("", sr), ("_bicubic", interpolated)):
            figures["val/sam" + name] = metrics.sam(inside(image), hr, valid)
            figures["val/ssim" + name] = metrics.ssim(inside(image), hr, valid)
            figures["val/consistency" + name] = (degrade(image, self.psf) - lr).abs().mean()
        return figures

    def configure_optimizers(self) -> Any:
        """Adam with a linear warm-up and a cosine to zero."""
        optimizers, steps = self.config.Optimizers, self.config.Training.max_steps
        warmup = max(min(self.config.Schedulers.g_warmup_steps, steps // 2), 1)
        beta1, beta2 = optimizers.betas
        optimizer = torch.optim.Adam(self.model.parameters(), lr=optimizers.optim_g_lr, betas=(beta1, beta2))
        schedule = SequentialLR(
            optimizer,
            [LinearLR(optimizer, 1 / warmup, total_iters=warmup), CosineAnnealingLR(optimizer, max(steps - warmup, 1))],
            milestones=[warmup],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def inside(image: Tensor) -> Tensor:
    """Image (..., y, x) without its border."""
    return image[..., BORDER:-BORDER, BORDER:-BORDER]
