import shutil

import pytest
import torch

from geosr.config import load_config
from geosr.data.datamodule import GeoSRDataModule
from geosr.errors import ConfigError, ModelError
from geosr.models.checkpoint import FACTS, read_checkpoint
from geosr.training import train
from geosr.training.build import build_networks, read_start

TINY = [
    "Generator.n_channels=8", "Generator.n_blocks=1", "Discriminator.base_channels=4", "Discriminator.n_blocks=1",
    "Data.train_batch_size=2", "Data.patch_size=12", "Data.val_windows={virginia_coast.tif: [0, 0, 64, 80]}",
    "Training.max_steps=4", "Training.val_every=2", "Training.accelerator=cpu", "Training.g_pretrain_steps=1",
    "Training.adv_loss_ramp_steps=1", "Logging.tensorboard=false", "Logging.num_val_images=0", "Logging.name=run",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    return train("config_demo.yaml", [*TINY, f"Logging.dir={folder}"], quiet=True).parent


@pytest.fixture
def made_on_a_gpu(run, tmp_path, monkeypatch):
    """The run's checkpoint with every tensor said to lie on a GPU, as one that was made there says."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    checkpoint = torch.load(run / "best-2.ckpt", weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(checkpoint, folder / "last.ckpt")
    return folder


def test_a_checkpoint_of_a_gpu_is_read_and_continued_on_a_cpu(run, made_on_a_gpu):
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(made_on_a_gpu / "last.ckpt", weights_only=True)
    ours, theirs = read_checkpoint(made_on_a_gpu / "last.ckpt"), read_checkpoint(run / "best-2.ckpt")
    for name, value in ours.model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, theirs.model.state_dict()[name])
    overrides = [*TINY, f"Logging.dir={made_on_a_gpu.parent}", f"Model.continue_training={made_on_a_gpu}"]
    train("config_demo.yaml", overrides, quiet=True)
    again, whole = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (made_on_a_gpu, run))
    assert again[FACTS]["step"] == 4
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in whole["state_dict"].items())


def test_a_start_is_a_shipped_model_a_file_a_checkpoint_or_a_folder(run):
    assert read_start("s2-rgbn-x2").discriminator is None
    exported, kept = (read_start(str(run / name)) for name in ("demo-x2.safetensors", "last.ckpt"))
    assert exported.discriminator is None
    assert kept.discriminator
    for name, value in exported.model.state_dict().items():
        assert torch.equal(value, kept.model.state_dict()[name]), name
    assert read_start(str(run)).discriminator.keys() == kept.discriminator.keys()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"x\.ckpt is no checkpoint of geosr"):
        read_checkpoint(tmp_path / "x.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match="is no checkpoint of geosr"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match=r"holds no \.safetensors file and no last\.ckpt"):
        read_start(str(tmp_path / "empty"))


def test_a_graph_is_no_start_of_a_training(small_onnx):
    with pytest.raises(ConfigError, match=r"small\.onnx, whose weights are part of a graph and cannot be trained"):
        read_start(str(small_onnx))


def test_networks_are_told_with_their_size():
    config = load_config("config_demo.yaml", TINY)
    told = build_networks(config, GeoSRDataModule(config)).describe().splitlines()
    assert told[0].startswith("generator: compact, demo-x2 (x2, B02 B03 B04 B08, ")
    assert told[1].startswith("discriminator: PatchGAN, ")


def test_a_run_that_is_never_adversarial_has_no_discriminator():
    config = load_config("config_demo.yaml", [*TINY, "Training.g_pretrain_steps=-1"])
    assert build_networks(config, GeoSRDataModule(config)).discriminator is None
