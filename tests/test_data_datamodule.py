import numpy as np
import pytest
import torch

from geosr.config import Config
from geosr.data import ScenesDataModule
from geosr.data.datamodule import SMALLEST_SCENE, whole_scene
from geosr.errors import ConfigError
from geosr.testing import coordinate_raster

BANDS = ["B02", "B03", "B04", "B08"]


@pytest.fixture
def make_config(make_raster, tmp_path):
    """A configuration on two scenes of 64 x 72 pixels, ``train.tif`` and ``val.tif``, and a small ``tiny.tif``."""
    generator = np.random.default_rng(0)
    for name, shape in (("train.tif", (64, 72)), ("val.tif", (64, 72)), ("tiny.tif", (31, 72))):
        dn = generator.integers(1, 4000, (4, *shape))
        dn[:, :2, :3] = 0
        make_raster(dn, name=name, dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS)

    def make(**data):
        config = Config()
        facts = {"root": str(tmp_path), "train_scenes": ["train.tif"], "val_scenes": ["val.tif"]}
        sizes = {"patch_size": 8, "train_batch_size": 3}
        for key, value in (facts | sizes | data).items():
            setattr(config.Data, key, value)
        config.Training.max_steps = 5
        return config

    return make


def test_training_has_as_many_batches_as_steps(make_config):
    batches = list(ScenesDataModule(make_config()).train_dataloader())
    assert len(batches) == 5
    assert all(batch["hr"].shape == (3, 4, 16, 16) for batch in batches)
    assert all(batch["hr"].dtype == torch.float32 for batch in batches)


def test_the_same_seed_gives_the_same_batches(make_config):
    config = make_config()
    first, second = (torch.cat([b["hr"] for b in ScenesDataModule(config).train_dataloader()]) for _ in range(2))
    assert torch.equal(first, second)
    config.Training.seed = 1
    other = torch.cat([b["hr"] for b in ScenesDataModule(config).train_dataloader()])
    assert not torch.equal(first, other)


@pytest.mark.parametrize("scale", [2, 3])
def test_validation_sees_whole_scenes_cut_to_a_multiple_of_the_scale(make_config, scale):
    config = make_config()
    config.Generator.scaling_factor = scale
    data = ScenesDataModule(config)
    (batch,) = data.val_dataloader()
    height, width = 64 // scale * scale, 72 // scale * scale
    assert batch["hr"].shape == (1, 4, height, width)
    raster, hr = data.val["val.tif"], batch["hr"][0].numpy()
    valid = raster.valid[:height, :width]
    np.testing.assert_array_equal(batch["valid"][0].numpy(), valid)
    np.testing.assert_array_equal(hr[:, valid], raster.array[:, :height, :width][:, valid])
    assert not hr[:, ~valid].any()


def test_normalisation_is_that_of_the_valid_training_pixels(make_config):
    data = ScenesDataModule(make_config(exclude={"train.tif": [10, 0, 20, 72]}))
    raster = data.train["train.tif"]
    assert 0 < raster.valid.sum() < 64 * 72 - 20 * 72 + 1
    for band in range(4):
        pixels = [float(raster.array[band, y, x]) for y, x in np.argwhere(raster.valid)]
        assert data.normalisation()[0][band] == pytest.approx(np.mean(pixels), abs=1e-4)
        assert data.normalisation()[1][band] == pytest.approx(np.std(pixels), abs=1e-4)


def test_a_constant_band_can_be_normalised(make_config, make_raster):
    make_raster(np.full((4, 64, 72), 700), name="flat.tif", dtype="uint16", scale=1e-4, descriptions=BANDS)
    mean, deviation = ScenesDataModule(make_config(train_scenes=["flat.tif"])).normalisation()
    assert mean == [0.07] * 4
    assert min(deviation) > 0


def test_the_data_describe_themselves_in_a_sentence(make_config):
    data = ScenesDataModule(make_config(train_scenes=["train.tif", "tiny.tif"]))
    assert data.describe() == (
        "0.01 million valid pixels to train on (scenes: 2), 0.00 million to validate on (scenes: 1)"
    )
    assert data.sources() == {"train": ["train.tif", "tiny.tif"], "val": ["val.tif"]}


@pytest.mark.parametrize("missing", ["train_scenes", "val_scenes"])
def test_a_part_without_scenes_is_refused(make_config, missing):
    with pytest.raises(ConfigError, match="must each name a scene"):
        ScenesDataModule(make_config(**{missing: []}))


@pytest.mark.parametrize(
    "data",
    [
        {"val_scenes": ["train.tif"]},
        {"train_scenes": ["*.tif"]},
        {"val_scenes": ["train.tif"], "val_windows": {"train.tif": [0, 0, 32, 72]}},
        {"val_scenes": ["train.tif"], "exclude": {"train.tif": [0, 0, 32, 72]}},
        {
            "val_scenes": ["train.tif"],
            "exclude": {"train.tif": [0, 0, 31, 72]},
            "val_windows": {"train.tif": [0, 0, 32, 72]},
        },
    ],
)
def test_a_pixel_that_is_trained_and_validated_on_is_refused(make_config, data):
    with pytest.raises(ConfigError, match=r"in Data\.train_scenes and in Data\.val_scenes, so validation"):
        ScenesDataModule(make_config(**data))


def test_one_scene_can_be_divided(make_config):
    window = {"train.tif": [0, 0, 32, 72]}
    data = ScenesDataModule(make_config(val_scenes=["train.tif"], exclude=window, val_windows=window))
    assert data.val["train.tif"].valid.shape == (32, 72)
    assert not data.train["train.tif"].valid[:32].any()
    assert data.train["train.tif"].valid[32:].all()
    assert all(patch.row >= 32 for patch in data.train_dataloader().dataset.patches)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ({"val_scenes": ["tiny.tif"]}, "tiny.tif has 31 x 72 pixels"),
        ({"val_windows": {"val.tif": [0, 0, 40, 20]}}, "val.tif has 40 x 20 pixels"),
    ],
)
def test_a_validation_scene_too_small_to_measure_is_named(make_config, data, size):
    with pytest.raises(ConfigError, match=rf"{size} to validate on.*it needs {SMALLEST_SCENE} x {SMALLEST_SCENE}"):
        ScenesDataModule(make_config(**data))


def test_a_validation_scene_without_valid_pixels_is_named(make_config, make_raster):
    make_raster(np.zeros((4, 40, 40)), name="empty.tif", dtype="uint16", nodata=0, scale=1e-4, descriptions=BANDS)
    with pytest.raises(ConfigError, match=r"empty\.tif has 40 x 40 pixels to validate on, 0 of them valid"):
        ScenesDataModule(make_config(val_scenes=["empty.tif"]))


def test_a_training_scene_smaller_than_a_patch_is_named(make_config):
    with pytest.raises(ConfigError, match=r"tiny\.tif has 31 x 72 pixels, less than a patch of 32 x 32"):
        ScenesDataModule(make_config(train_scenes=["tiny.tif"], patch_size=16))


def test_a_whole_scene_stays_registered():
    scene = whole_scene(coordinate_raster(9, 8), 4)
    row, column = np.indices((8, 8))
    np.testing.assert_array_equal(scene["hr"].numpy(), np.stack([row, column]))
    assert scene["valid"].all()
