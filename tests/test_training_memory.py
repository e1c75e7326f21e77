import pytest
import torch
from torch import nn
from training_kit import config_of

from geosr.errors import ConfigError
from geosr.training import measure_run
from geosr.training.memory import memory_of, require_memory_for_batches, require_memory_for_networks

SETTINGS = ["Training.accelerator=cpu", "Data.train_batch_size=2", "Data.patch_size=12"]


def test_networks_larger_than_the_memory_are_refused_before_they_are_made():
    settings = [*SETTINGS, "Generator.n_channels=1024", "Generator.n_blocks=1000"]
    with pytest.raises(ConfigError, match=r"networks of 9,4\d\d,\d{3},\d{3} parameters .* need at least 15\d\.\d GB"):
        measure_run("config_demo.yaml", settings)


def test_batches_larger_than_the_memory_are_refused_before_a_scene_is_opened():
    settings = ["Training.accelerator=cpu", "Data.train_batch_size=65536", "Data.patch_size=2048", "Data.root=nowhere"]
    with pytest.raises(ConfigError, match=r"65,536 patches of 4096 x 4096 HR pixels\) need at least 21,99\d\.\d GB"):
        measure_run("config_demo.yaml", settings)


def test_the_memory_of_a_batch_is_that_of_its_images(monkeypatch):
    config = config_of(batch=3)  # two bands, patches of 16 LR and 32 HR pixels
    needed = 3 * 2 * (16**2 + 32**2) * 4
    monkeypatch.setattr("geosr.training.memory.memory_of", lambda device: needed)
    require_memory_for_batches(config, device="cpu")
    monkeypatch.setattr("geosr.training.memory.memory_of", lambda device: needed - 1)
    with pytest.raises(ConfigError, match=r"lower Data\.train_batch_size"):
        require_memory_for_batches(config, device="cpu")


def test_the_memory_of_a_network_is_four_times_its_weights(monkeypatch):
    with torch.device("meta"):
        network = nn.Linear(9, 10)
    for spare, refused in ((0, False), (-1, True)):
        monkeypatch.setattr("geosr.training.memory.memory_of", lambda device, spare=spare: 100 * 16 + spare)
        if refused:
            with pytest.raises(ConfigError, match="networks of 100 parameters"):
                require_memory_for_networks(network, device="cpu")
        else:
            require_memory_for_networks(network, device="cpu")


def test_the_memory_of_this_machine_is_known():
    assert memory_of("cpu") > 2**28
