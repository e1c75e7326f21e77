"""Two processes train as one with twice the batch would."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.training_kit import QUIET, config_of, fit, module_of, smooth_image

pytestmark = QUIET

SETTINGS = {
    "Training__Losses__sam_weight": 0.1,
    "Optimizers__gradient_clip_val": 0.5,
    "Training__Losses__r1_gamma": 0.1,
    "Training__Losses__feature_matching_weight": 0.01,
    "Discriminator__model_type": "multiscale",
    "Discriminator__n_scales": 2,
    "Discriminator__conditional": True,
}
STEPS = 4

RANKS = """
import sys, warnings
import torch
from torch.utils.data import DataLoader
from tests.test_training_ddp import SETTINGS, STEPS
from tests.training_kit import batch_of, config_of, module_of, smooth_image, trainer_of

warnings.simplefilter("ignore")
images = smooth_image(6, 2, 32, 32)
module = module_of(config_of(STEPS, pretraining=1, batch=2, **SETTINGS))
trainer = trainer_of(
    devices=2, strategy="ddp_find_unused_parameters_true", limit_val_batches=0, use_distributed_sampler=False
)

class Mine(torch.utils.data.Dataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, step):
        # Of the four images of a step the first process has the first two.
        first = 4 * step + 2 * trainer.global_rank
        return batch_of(torch.stack([images[(first + i) % 6] for i in range(2)]))

trainer.fit(module, DataLoader(Mine(), batch_size=None))
torch.save(module.state_dict(), f"rank{trainer.global_rank}.pt")
"""


def test_two_processes_have_the_mean_gradients_of_one_with_twice_the_batch(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    package = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "ranks.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = module_of(config_of(STEPS, pretraining=1, batch=4, **SETTINGS))
    fit(alone, smooth_image(6, 2, 32, 32))
    fresh = module_of(config_of(STEPS, pretraining=1, batch=4, **SETTINGS)).state_dict()
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(
            first[name], value, rtol=1e-3, atol=1e-6, msg=lambda said, name=name: f"{name} {said}"
        )
    moved = [name for name, value in first.items() if not torch.equal(value, fresh[name])]
    assert any(name.startswith("adversary") for name in moved)
    assert any(name.startswith("model") for name in moved)
