"""Time opensr-srgan in turns with another process: training steps in its own Lightning trainer, or its generator alone.

Run by an interpreter that has opensr-srgan installed (``GEOSR_SRGAN_PYTHON`` names it for ``benchmarks.training`` and
``benchmarks.generator``); geosr itself is not needed there:

    $GEOSR_SRGAN_PYTHON benchmarks/peer_srgan.py '{"steps": 10, ...}'

The argument is a `Case`. A line on standard input starts a turn of ``steps`` steps, whose seconds come back as a
line of JSON; the end of the input ends the run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, TextIO

import torch


@dataclass(frozen=True)
class Case:
    """A step to time: of training, an RCAB generator or ESRGAN, PatchGAN, L1 + SAM + BCE without a perceptual loss; or
    the generator's forward pass.
    """

    task: str = "train"
    """train or run."""
    generator: str = "rcab"
    channels: int = 64
    blocks: int = 16
    scale: int = 4
    bands: int = 4
    batch: int = 8
    lr_size: int = 32
    precision: str = "32-true"
    accelerator: str = "cpu"
    steps: int = 10
    """Steps of one turn."""

    def to_json(self) -> str:
        """One line that ``Case(**json.loads(...))`` reads."""
        return json.dumps(asdict(self))


class Turns:
    """Batches in memory, given out in turns: a loader that waits for its turn, and says how long each took.

    A turn lasts from its first batch being asked for to the first one after it, so it holds whole steps with all that
    a trainer does between them.
    """

    def __init__(self, batches: list[Any], case: Case, replies: TextIO) -> None:
        self.batches, self.case, self.replies = batches, case, replies

    def __iter__(self) -> Iterator[Any]:
        for _ in sys.stdin:
            started = perf_counter()
            for step in range(self.case.steps):
                yield self.batches[step % len(self.batches)]
            if self.case.accelerator != "cpu":
                torch.cuda.synchronize()
            print(json.dumps({"seconds": perf_counter() - started}), file=self.replies, flush=True)


def take_turns(step: Callable[[], object], case: Case, replies: TextIO) -> None:
    """Do ``case.steps`` steps for every line on standard input, and say how long they took."""
    for _ in sys.stdin:
        started = perf_counter()
        for _ in range(case.steps):
            step()
        print(json.dumps({"seconds": perf_counter() - started}), file=replies, flush=True)


def images(case: Case, count: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of LR and HR reflectance: smooth random fields."""
    torch.manual_seed(0)
    batches = []
    for _ in range(count):
        coarse = torch.rand(case.batch, case.bands, case.lr_size // 4, case.lr_size // 4) * 0.3
        lr, hr = (
            torch.nn.functional.interpolate(coarse, scale_factor=factor, mode="bicubic").clamp(0.0, 1.0)
            for factor in (4, 4 * case.scale)
        )
        batches.append((lr + 0.01 * torch.rand_like(lr), hr + 0.01 * torch.rand_like(hr)))
    return batches


def settings(case: Case) -> dict[str, Any]:
    """The peer's config of this case: adversarial from the first step, nothing frozen, no averaging of weights."""
    family = (
        {"model_type": "esrgan"} if case.generator == "esrgan" else {"model_type": "SRResNet", "block_type": "rcab"}
    )
    return {
        "Data": {"normalization": "normalise_10k"},
        "Model": {"in_bands": case.bands},
        "Training": {
            "pretrain_g_only": False,
            "g_pretrain_steps": 0,
            "adv_loss_ramp_steps": 0,
            "EMA": {"enabled": False},
            "Losses": {"l1_weight": 1.0, "sam_weight": 0.05, "perceptual_weight": 0.0, "adv_loss_beta": 1e-3},
        },
        "Generator": family
        | {
            "n_channels": case.channels,
            "n_blocks": case.blocks,
            "large_kernel_size": 9,
            "small_kernel_size": 3,
            "scaling_factor": case.scale,
            "growth_channels": 32,
            "res_scale": 0.2,
        },
        "Discriminator": {"model_type": "patchgan", "n_blocks": 3},
        "Optimizers": {"optim_g_lr": 1e-4, "optim_d_lr": 1e-4},
        "Schedulers": {"metric_g": "val_metrics/l1", "metric_d": "validation/DISC_adversarial_loss"},
        "Logging": {"num_val_images": 0, "wandb": {"enabled": False}},
    }


def main() -> None:
    """Train, or run the generator, in turns until the input ends."""
    case = Case(**json.loads(sys.argv[1]))
    replies, sys.stdout = sys.stdout, sys.stderr  # the peer prints, replies belong to whoever started this
    (train if case.task == "train" else run)(case, replies)


@torch.inference_mode()
def run(case: Case, replies: TextIO) -> None:
    """The generator alone."""
    from opensr_srgan.model.generators.esrgan import ESRGANGenerator

    torch.manual_seed(0)
    generator = ESRGANGenerator(
        in_channels=case.bands, n_features=case.channels, n_blocks=case.blocks, scale=case.scale
    ).eval()
    ((lr, _),) = images(case, count=1)
    take_turns(lambda: generator(lr), case, replies)


def train(case: Case, replies: TextIO) -> None:
    """A training run that waits for its turns."""
    import pytorch_lightning as pl
    from omegaconf import OmegaConf
    from opensr_srgan.model.SRGAN import SRGAN_model
    from pytorch_lightning.loggers import CSVLogger

    torch.manual_seed(0)
    module = SRGAN_model(config=OmegaConf.create(settings(case)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator=case.accelerator,
            devices=1,
            precision=case.precision,
            max_epochs=1,
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, Turns(images(case), case, replies))


if __name__ == "__main__":
    main()
