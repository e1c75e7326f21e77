"""The Lightning module: what one training step and one validation scene do."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from geosr import losses, metrics
from geosr.config.schema import Config
from geosr.degrade import PSF, degrade
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
        self.psf = PSF(config.Generator.scaling_factor, config.Degradation.mtf)
        average = get_ema_multi_avg_fn(config.Training.EMA.decay)
        self.ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if config.Training.EMA.enabled else None

    @property
    def best(self) -> Model:
        """The weights to validate and to export."""
        return self.model if self.ema is None else self.ema.module  # type: ignore[return-value]

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch of HR patches whose LR counterparts are made here, on the device."""
        hr = batch["hr"]
        lr = degrade(hr, self.psf)
        sr = self.model(lr)
        valid = torch.ones_like(hr[:, 0], dtype=torch.bool)
        loss = self.config.Training.Losses.l1_weight * losses.l1(sr, hr, valid)
        self.log("train/l1", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Take the new weights into the average."""
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Figures of one whole scene next to those of bicubic interpolation; the epoch's are the mean over scenes."""
        hr, valid = inside(batch["hr"]), inside(batch["valid"])
        lr = degrade(batch["hr"], self.psf)
        with torch.autocast(hr.device.type, enabled=False):
            sr = self.best(lr)
        interpolated = bicubic(lr, self.psf.scale)
        psnr = metrics.psnr(inside(sr), hr, valid)
        gain = psnr - metrics.psnr(inside(interpolated), hr, valid)
        figures = {"val/psnr": psnr, "val/psnr_over_bicubic": gain}
        for name, image in (("", sr), ("_bicubic", interpolated)):
            figures["val/sam" + name] = metrics.sam(inside(image), hr, valid)
            figures["val/ssim" + name] = metrics.ssim(inside(image), hr, valid)
            figures["val/consistency" + name] = (degrade(image, self.psf) - lr).abs().mean()
        self.log_dict(figures, batch_size=1)

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
