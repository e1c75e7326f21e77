"""Pairs at reduced resolution: what was measured becomes the target, and what is degraded stays where it was."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine

from geosr.config import load_config
from geosr.data.datamodule import GeoSRDataModule
from geosr.data.reduced import reduced
from geosr.degrade import PSF, degrade
from geosr.errors import ConfigError
from geosr.models import load_model
from geosr.models.guided import repeated
from geosr.training import train

GUIDE, COARSE = ["B02", "B08"], ["B05", "B11", "B12"]


def batch_of(side=16):
    generator = torch.Generator().manual_seed(0)
    guide, coarse = (
        torch.rand(2, 2, side, side, generator=generator),
        torch.rand(2, 3, side // 2, side // 2, generator=generator),
    )
    hr = torch.cat([guide, repeated(coarse, 2)], dim=1)
    return {"hr": hr, "valid": torch.ones(2, side, side, dtype=torch.bool)}, guide, coarse


def test_the_target_is_what_was_measured_and_both_are_degraded_by_their_own_sensor():
    batch, guide, coarse = batch_of()
    see, see_guide = partial(degrade, psf=PSF(2, 0.2)), partial(degrade, psf=PSF(2, 0.3))
    made = reduced(batch, guide=2, step=2, see=see, see_guide=see_guide)
    assert torch.equal(made["hr"], coarse)
    assert torch.equal(made["lr"][:, :2], see_guide(guide))
    assert torch.equal(made["lr"][:, 2:, ::2, ::2], see(coarse))
    assert torch.equal(made["lr"][:, 2:], repeated(see(coarse), 2))
    assert made["valid"].all()
    assert made["lr_valid"].shape == made["valid"].shape == (2, 8, 8)


def test_a_pixel_without_data_takes_the_coarse_ones_that_it_lies_in_with_it():
    batch, _, _ = batch_of()
    batch["valid"][0, 5, 6] = False
    see = partial(degrade, psf=PSF(2))
    made = reduced(batch, guide=2, step=2, see=see, see_guide=see)
    assert (~made["valid"]).nonzero().tolist() == [[0, 2, 3]]
    assert (~made["lr_valid"]).nonzero().tolist() == [[0, row, column] for row in (2, 3) for column in (2, 3)]
    changed = {**batch, "hr": batch["hr"].clone()}
    changed["hr"][0, :, 5, 6] = 7.0
    again = reduced(changed, guide=2, step=2, see=see, see_guide=see)
    assert all(torch.equal(made[name], again[name]) for name in made)


def test_bands_that_are_on_the_guides_grid_are_degraded_to_one_of_their_own_first():
    batch, _, coarse = batch_of()
    fine = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    batch["hr"][1, 2:] = fine
    see = partial(degrade, psf=PSF(2))
    made = reduced(batch, guide=2, step=2, see=see, see_guide=see)
    assert torch.equal(made["hr"][0], coarse[0])
    torch.testing.assert_close(made["hr"][1], see(fine[None])[0])
    torch.testing.assert_close(made["lr"][:, 2:], repeated(see(made["hr"]), 2))


@pytest.fixture
def scenes(make_raster, tmp_path):
    """The settings of a run: one scene of two files whose grids begin elsewhere, one with all bands on one grid."""
    random = np.random.default_rng(0)
    fine = random.integers(500, 3000, (2, 67, 66))
    coarse = random.integers(500, 3000, (3, 34, 33))
    facts = {"dtype": "uint16", "nodata": 0, "scale": 1e-4, "offset": 0}
    make_raster(fine, name="a_10m.tif", descriptions=GUIDE, transform=Affine(10, 0, 10, 0, -10, 0), **facts)
    make_raster(coarse, name="a_20m.tif", descriptions=COARSE, transform=Affine(20, 0, 0, 0, -20, 0), **facts)
    flat = random.integers(500, 3000, (5, 80, 72))
    make_raster(flat, name="b.tif", descriptions=[*GUIDE, *COARSE], **facts)
    return [
        f"Data.root={tmp_path}", "Data.train_scenes=[a_10m.tif]", "Data.val_scenes=[b.tif]", "Data.exclude={}",
        "Data.companions={_10m.tif: _20m.tif}", f"Data.guide=[{','.join(GUIDE)}]", f"Data.bands=[{','.join(COARSE)}]",
        "Generator.model_type=guided", "Generator.n_channels=4", "Generator.n_blocks=0", "Data.patch_size=8",
        "Data.train_batch_size=2", "Data.stride=5", "Data.gain=1", "Training.max_steps=3", "Training.val_every=3",
        "Training.accelerator=cpu", "Training.precision=32-true", "Training.EMA.enabled=false",
        f"Logging.dir={tmp_path / 'runs'}", "Logging.name=run", "Logging.tensorboard=false",
    ]  # fmt: skip


def test_patches_hold_whole_coarse_pixels_and_are_degraded_as_validation_is(scenes):
    data = GeoSRDataModule(load_config("s2-rgbn-x2.yaml", scenes))
    assert data.train.geoboxes[0].affine.c == 20.0
    assert set(data.patches.row % 2) == set(data.patches.column % 2) == {0}
    batch = next(iter(data.train_dataloader()))
    blocks = batch["hr"][:, 2:].unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    assert torch.equal(blocks.amax((-3, -1)), blocks.amin((-3, -1)))
    made = data.augmented(batch, torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape[1:]) for name, value in made.items()} == {
        "hr": (3, 16, 16), "lr": (5, 16, 16), "valid": (16, 16), "lr_valid": (16, 16),
    }  # fmt: skip
    torch.testing.assert_close(made["lr"][:, 2:], repeated(degrade(made["hr"], data.psf), 2), atol=1e-6, rtol=0)
    (whole,) = [data.with_lr(one) for one in data.val_dataloader()]
    assert tuple(whole["hr"].shape) == (1, 3, 40, 36)
    torch.testing.assert_close(whole["lr"][:, 2:], repeated(degrade(whole["hr"], data.psf), 2), atol=1e-6, rtol=0)
    means, _ = data.normalisation()
    assert len(means) == 5


def test_a_run_ends_with_a_model_that_knows_its_guide(scenes):
    model = load_model(train("s2-rgbn-x2.yaml", scenes, quiet=True))
    spec = model.spec
    assert (spec.guide, spec.outputs, spec.guide_scale, spec.scale) == (tuple(GUIDE), tuple(COARSE), 2, 1)
    assert len(spec.arguments["mean"]) == 5
    assert {"psnr_over_bicubic", "sam_bicubic", "consistency"} <= spec.quality.keys()
    assert spec.quality["consistency"] < 0.1 * spec.quality["consistency_bicubic"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("Data.companions={_10m.tif: _30m.tif}", r"a_10m\.tif ends in _10m\.tif, and its companion a_30m\.tif is not"),
        ("Generator.model_type=compact", r"Data\.guide names B02 B08, and 'compact' makes nothing of a guide"),
        ("Data.guide=[B02,B05]", r"both name B05"),
        ("Data.cutblur=0.5", r"Data\.cutblur is 0\.5, and a run with Data\.guide"),
        ("Generator.scaling_factor=1", r"a guide is finer"),
    ],
)
def test_what_does_not_go_with_a_guide_is_told(scenes, setting, message):
    with pytest.raises(ConfigError, match=message):
        GeoSRDataModule(load_config("s2-rgbn-x2.yaml", [*scenes, setting]))


def test_the_recipe_that_ships_keeps_the_demo_out_and_no_place_on_both_sides():
    config = load_config(Path(__file__).resolve().parents[1] / "configs/zoo/s2-20m-x2.yaml")
    row, column, height, width = config.Data.exclude["s2/virginia_coast_10m.tif"]
    # The demo scene, as its rows and columns are counted where the 20 m pixels begin, out to whole ones.
    assert row <= 240 <= 240 + 512 <= row + height
    assert column <= 575 <= 575 + 512 <= column + width
    assert not set(config.Data.train_scenes) & set(config.Data.val_scenes)
