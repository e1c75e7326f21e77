import multiprocessing
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.config import Config, load_config
from geosr.data.datamodule import SMALLEST_SCENE, GeoSRDataModule, Patches, WholeScenes, separate
from geosr.data.patches import PatchTable
from geosr.degrade import PSF, degrade
from geosr.errors import ConfigError
from geosr.io.scene import open_scene

BANDS = ["B02", "B03", "B04", "B08"]


@pytest.fixture
def scenes(make_raster, tmp_path) -> Path:
    """Folder of two scenes of 64 x 72 pixels, ``train.tif`` and ``val.tif``, a small ``tiny.tif`` and a large one."""
    generator = np.random.default_rng(0)
    for name, shape in (
        ("train.tif", (64, 72)),
        ("val.tif", (64, 72)),
        ("tiny.tif", (31, 72)),
        ("large.tif", (400, 400)),
    ):
        dn = generator.integers(1, 4000, (4, *shape))
        dn[:, :2, :3] = 0
        make_raster(dn, name=name, dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS)
    return tmp_path


@pytest.fixture
def make_config(scenes):
    """A factory of configurations on these scenes."""

    def make(**data):
        config = Config()
        facts = {"root": str(scenes), "train_scenes": ["train.tif"], "val_scenes": ["val.tif"]}
        sizes = {"patch_size": 8, "train_batch_size": 3}
        for key, value in (facts | sizes | data).items():
            setattr(config.Data, key, value)
        config.Training.max_steps = 5
        return config

    return make


@pytest.fixture
def pairs(make_raster, tmp_path) -> Path:
    """Folders ``hr`` and ``lr`` with one image of 96 x 96 and 48 x 48 pixels, LR the means of HR plus one."""
    hr = np.random.default_rng(1).integers(1, 4000, (4, 96, 96))
    lr = hr.reshape(4, 48, 2, 48, 2).mean(axis=(2, 4)).round() + 1
    for role, dn, pixel in (("hr", hr, 10), ("lr", lr, 20)):
        path = make_raster(dn, name=f"a_{role}.tif", dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS,
                           transform=_pixels(pixel))  # fmt: skip
        (tmp_path / role).mkdir()
        path.rename(tmp_path / role / path.name)
    return tmp_path


def _pixels(side):
    from affine import Affine

    return Affine(side, 0, 400_000, 0, -side, 5_000_000)


def drawn(data):
    return torch.cat([batch["hr"] for batch in data.train_dataloader()])


def test_training_has_as_many_batches_as_steps(make_config):
    batches = list(GeoSRDataModule(make_config()).train_dataloader())
    assert len(batches) == 5
    assert all(batch["hr"].shape == (3, 4, 16, 16) for batch in batches)
    assert all(batch["hr"].dtype == torch.float32 and batch["valid"].all() for batch in batches)


@pytest.mark.parametrize(
    "how", [{"num_workers": 2, "start_method": "fork"}, {"num_workers": 1, "start_method": "spawn"}]
)
def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(make_config, how):
    if how["start_method"] not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {how['start_method']} here")
    alone = drawn(GeoSRDataModule(make_config()))
    assert torch.equal(drawn(GeoSRDataModule(make_config(**how))), alone)
    config = make_config()
    config.Training.seed = 1
    assert not torch.equal(drawn(GeoSRDataModule(config)), alone)


def test_what_is_done_on_the_device_depends_on_the_generator_alone(make_config):
    data = GeoSRDataModule(make_config(band_gain=1.1, noise=0.01, cutblur=0.5))
    batch = next(iter(data.train_dataloader()))
    first, again, other = (data.augmented(batch, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert set(first) == {"hr", "valid", "lr", "lr_valid"}
    assert first["lr"].shape == (3, 4, 8, 8)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lr"], other["lr"])


def test_the_point_spread_function_alone_is_what_validation_sees(make_config):
    config = make_config()
    config.Degradation.sensor.mtf = 0.3
    data = GeoSRDataModule(config)
    (batch,) = data.val_dataloader()
    complete = data.on_after_batch_transfer(batch, 0)
    hr, valid = batch["hr"][0], batch["valid"][0]
    assert not valid[:2, :3].any()
    assert valid.sum() == 64 * 72 - 6
    mean = torch.stack([band[valid].mean() for band in hr])
    whole = torch.where(valid, hr, mean[:, None, None])
    torch.testing.assert_close(complete["lr"][0], degrade(whole[None], PSF(2, 0.3))[0])
    assert complete["lr_valid"].sum() == 32 * 36 - 2


@pytest.mark.parametrize("scale", [2, 3])
def test_validation_sees_whole_scenes_cut_to_a_multiple_of_the_scale(make_config, scenes, scale):
    config = make_config()
    config.Generator.scaling_factor = scale
    (batch,) = GeoSRDataModule(config).val_dataloader()
    height, width = 64 // scale * scale, 72 // scale * scale
    with open_scene(scenes / "val.tif") as scene:
        raster = scene.read((slice(0, height), slice(0, width)), BANDS)
    np.testing.assert_array_equal(batch["valid"][0].numpy(), raster.valid)
    np.testing.assert_array_equal(batch["hr"][0].numpy(), np.nan_to_num(raster.array))


def test_without_validation_scenes_a_split_keeps_some_blocks(make_config):
    data = GeoSRDataModule(make_config(train_scenes=["large.tif"], val_scenes=[], split_block=500.0))
    assert isinstance(data.val, Patches)
    assert set(np.unique(data.table.split)) >= {0, 1, 2}
    pixels = np.zeros((2, 400, 400), bool)
    for seen, table in zip(pixels, (data.patches, data.val.table), strict=True):
        for row, column in zip(table.row, table.column, strict=True):
            seen[row : row + 16, column : column + 16] = True
    assert pixels[0].any()
    assert pixels[1].any()
    assert not pixels.all(axis=0).any()
    batch = next(iter(data.val_dataloader()))
    assert batch["hr"].shape[1:] == (4, 16, 16)


def test_pairs_come_as_they_are_stored(make_config, pairs):
    config = make_config(
        dataset_type="pairs", root=str(pairs / "hr"), lr_root=str(pairs / "lr"), train_scenes=[], val_scenes=[],
        split_block=200.0,
    )  # fmt: skip
    data = GeoSRDataModule(config)
    batch = next(iter(data.train_dataloader()))
    means = torch.nn.functional.avg_pool2d(batch["hr"], 2)
    torch.testing.assert_close(batch["lr"], ((means * 1e4).round() + 1) / 1e4, atol=1.01e-4, rtol=0)
    augmented = data.augmented(batch, torch.Generator().manual_seed(0))
    means = torch.nn.functional.avg_pool2d(augmented["hr"], 2)
    torch.testing.assert_close(augmented["lr"], means, atol=4e-4, rtol=0)
    assert data.on_after_batch_transfer(batch, 0)["lr"] is batch["lr"]


def test_pairs_need_both_folders(make_config):
    with pytest.raises(ConfigError, match=r"needs Data\.lr_root"):
        GeoSRDataModule(make_config(dataset_type="pairs"))


def test_normalisation_is_that_of_the_valid_training_pixels(make_config, scenes):
    data = GeoSRDataModule(make_config(exclude={"train.tif": [0, 0, 48, 72]}, stride=1))
    with open_scene(scenes / "train.tif") as scene:
        part = scene.read((slice(48, 64), slice(0, 72)), BANDS)
    mean, deviation = data.normalisation()
    np.testing.assert_allclose(mean, part.array.mean(axis=(1, 2)), atol=5e-3)
    np.testing.assert_allclose(deviation, part.array.std(axis=(1, 2)), atol=5e-3)


def test_a_constant_band_can_be_normalised(make_config, make_raster):
    make_raster(np.full((4, 64, 72), 700), name="flat.tif", dtype="uint16", scale=1e-4, descriptions=BANDS)
    mean, deviation = GeoSRDataModule(make_config(train_scenes=["flat.tif"])).normalisation()
    assert mean == [0.07] * 4
    assert min(deviation) > 0


def test_the_data_describe_themselves(make_config):
    data = GeoSRDataModule(make_config(train_scenes=["train.tif", "tiny.tif"]))
    first, second, third = data.describe().splitlines()
    assert first == "training data: 2 scenes, 0.7 km², B02 B03 B04 B08, LR made by sensor"
    assert second == f"  {len(data.table)} places for patches of 16 x 16 HR pixels, 100.0% of their pixels valid"
    assert third == f"  train {len(data.table)}, validation 1 whole scene (0.00 million valid pixels), test 0"
    assert data.sources() == {"train": ["train.tif", "tiny.tif"], "val": ["val.tif"]}


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ({"val_scenes": ["tiny.tif"]}, "tiny.tif has 30 x 72 pixels"),
        ({"val_windows": {"val.tif": [0, 0, 40, 20]}}, "val.tif has 40 x 20 pixels"),
    ],
)
def test_a_validation_scene_too_small_to_measure_is_named(make_config, data, size):
    with pytest.raises(ConfigError, match=rf"{size} to validate on.*it needs {SMALLEST_SCENE} x {SMALLEST_SCENE}"):
        GeoSRDataModule(make_config(**data))


def test_a_validation_scene_without_valid_pixels_is_named(make_config, make_raster):
    make_raster(np.zeros((4, 40, 40)), name="empty.tif", dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS)
    with pytest.raises(ConfigError, match=r"empty\.tif has 40 x 40 pixels to validate on, 0 of them valid"):
        GeoSRDataModule(make_config(val_scenes=["empty.tif"]))


def test_a_training_scene_smaller_than_a_patch_is_named(make_config):
    with pytest.raises(ConfigError, match=r"tiny\.tif has 31 x 72 HR pixels to use, less than a patch of 32 x 32"):
        GeoSRDataModule(make_config(train_scenes=["tiny.tif"], patch_size=16))


def test_two_ranks_draw_what_one_would(make_config):
    config = make_config(train_batch_size=2)
    config.Training.max_steps = 6

    class Rank:
        def __init__(self, number, of):
            self.global_rank, self.world_size, self.training = number, of, True

    def of(rank, several, steps):
        config.Training.max_steps = steps
        data = GeoSRDataModule(config)
        data.trainer = Rank(rank, several)
        return [patch for update in data.train_dataloader().batch_sampler for patch in update]

    alone = of(0, 1, 6)
    first, second = of(0, 2, 3), of(1, 2, 3)
    assert len(first) == len(second) == 6
    assert [patch for both in zip(first, second, strict=True) for patch in both] == alone


def test_a_run_goes_on_where_it_stopped(make_config):
    config = make_config()
    config.Degradation.type, config.Degradation.queue_size = "steps", 3
    config.Degradation.steps = [{"step": "downsample"}, {"step": "noise", "sigma": [0.01, 0.02]}]

    def batches(data, number):
        data.trainer = SimpleNamespace(training=True, global_rank=0, world_size=1)
        loaded = islice(data.train_dataloader(), number)
        return [data.on_after_batch_transfer(batch, 0) for batch in loaded]

    whole, first, later = (GeoSRDataModule(config) for _ in range(3))
    expected = batches(whole, 5)
    batches(first, 3)
    later.load_state_dict(first.state_dict())
    for ours, theirs in zip(batches(later, 2), expected[3:], strict=True):
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name
    assert len(later.train_dataloader()) == config.Training.max_steps


def test_an_update_has_patches_for_all_that_is_updated_in_it(make_config):
    config = make_config(train_batch_size=2)
    config.Training.max_steps, config.Training.g_pretrain_steps = 4, 2
    config.Training.accumulate_grad_batches, config.Training.d_steps_per_g = 3, 2
    data = GeoSRDataModule(config)
    assert [len(batch["hr"]) for batch in data.train_dataloader()] == [6, 6, 12, 12]
    data.load_state_dict(data.state_dict() | {"batches_made": 3})
    (last,) = data.train_dataloader()
    data.load_state_dict(data.state_dict() | {"batches_made": 0})
    assert torch.equal(last["hr"], list(data.train_dataloader())[3]["hr"])


@pytest.mark.parametrize(("steps", "epochs"), [(7, None), (None, 2), (3, 2), (10_000, 2)])
def test_the_shorter_of_steps_and_epochs_counts(make_config, steps, epochs):
    config = make_config(train_batch_size=2)
    config.Training.max_steps, config.Training.max_epochs = steps, epochs
    data = GeoSRDataModule(config)
    assert data.updates_per_epoch == -(-len(data.patches) // 2)
    limit = [value for value in (steps, None if epochs is None else epochs * data.updates_per_epoch) if value]
    assert data.schedule.total == min(limit)


def test_memory_gives_the_same_batches_as_files(make_config):
    assert torch.equal(drawn(GeoSRDataModule(make_config(cache="memory"))), drawn(GeoSRDataModule(make_config())))


@settings(max_examples=30, deadline=None)
@given(limit=st.integers(1, 60), stride=st.sampled_from([4, 8, 16]))
def test_patches_to_validate_on_come_once_for_each_cell(limit, stride):
    rows, columns = (grid.ravel() for grid in np.meshgrid(np.arange(0, 100, stride), np.arange(0, 80, stride)))
    ones = np.ones(len(rows))
    chosen = separate(PatchTable(16, 0 * ones, rows, columns, ones, ones, ones), limit)
    cells = {(row // 16, column // 16) for row, column in zip(chosen.row, chosen.column, strict=True)}
    assert len(chosen) == len(cells) == min(limit, 7 * 5)


def test_whole_scenes_count_their_valid_pixels(scenes):
    from geosr.data.patches import SceneFiles

    whole = WholeScenes([SceneFiles("val.tif", (str(scenes / "val.tif"),))], BANDS, 2)
    assert whole.pixels == 64 * 72 - 6


RANKS = """
import sys, warnings
import lightning as L
from geosr.config import load_config
from geosr.data.datamodule import GeoSRDataModule
from geosr.training.module import SuperResolution
from geosr.training.build import build_networks

warnings.simplefilter("ignore")

class Told(SuperResolution):
    def training_step(self, batch, index):
        for mean in batch["hr"].mean(dim=(1, 2, 3)).tolist():
            sys.stdout.write(f"mean {mean:.9f}\\n")
        return super().training_step(batch, index)

config = load_config(
    "config_demo.yaml",
    [
        "Training.max_steps=2", "Generator.n_channels=8", "Generator.n_blocks=1", "Data.gain=1",
        "Data.train_batch_size=4", "Training.g_pretrain_steps=-1",
    ],
)
data = GeoSRDataModule(config)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, max_epochs=1, limit_val_batches=0,
    **quiet
)
trainer.fit(Told(build_networks(config, data), config, data.schedule), data)
"""
"""Two processes train together on the CPU and tell the mean of each patch that they see."""


def test_two_processes_train_on_patches_of_their_own(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "ranks.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    means = sorted(map(float, re.findall(r"mean (\d\.\d{9})", done.stdout)))
    data = GeoSRDataModule(load_config("config_demo.yaml", ["Training.max_steps=4", "Data.train_batch_size=4"]))
    alone = [batch["hr"].mean(dim=(1, 2, 3)).tolist() for batch in data.train_dataloader()]
    np.testing.assert_allclose(means, sorted(mean for batch in alone for mean in batch), atol=1e-6)


def test_patches_of_another_size_share_the_decoded_scenes(make_config):
    data = GeoSRDataModule(make_config(cache="memory"))
    larger = data.train.resized(32)
    assert larger[data.patches[0]]["hr"].shape == (4, 32, 32)
    assert data.train[data.patches[0]]["hr"].shape == (4, 16, 16)
    assert larger._memory is data.train._memory
