import hashlib
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import nn

import geosr
from geosr.demo import demo_scene
from geosr.errors import ModelError, UsageError
from geosr.grid import finer
from geosr.inference.superresolver import SuperResolver, load_model
from geosr.io.raster import Raster
from geosr.io.scene import open_scene
from geosr.models import Model, ModelSpec, find_weights
from geosr.radiometry import Radiometry
from geosr.testing import block_model, impulse_model

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module", params=["s2-rgbn-x4", "s2-rgbn-x2"])
def shipped(request):
    return load_model(request.param, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def impulse():
    return SuperResolver(impulse_model(2, 3), device="cpu", precision="fp32")


def raster_of(array, valid=None, bands=BANDS):
    valid = np.ones(array.shape[1:], bool) if valid is None else valid
    geobox = GeoBox(array.shape[1:], Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
    return Raster(np.where(valid, array, np.float32(np.nan)), valid, geobox, bands, Radiometry(1e-4, nodata=0))


def reflectance(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.02, 0.4, shape).astype(np.float32)


class Limited(nn.Module):
    """A network on a device whose memory holds ``limit`` LR pixels."""

    def __init__(self, network, limit):
        super().__init__()
        self.network, self.limit, self.largest = network, limit, 0

    def forward(self, lr):
        pixels = lr.shape[0] * lr.shape[2] * lr.shape[3]
        if pixels > self.limit:
            raise torch.OutOfMemoryError(f"{pixels} pixels")
        self.largest = max(self.largest, pixels)
        return self.network(lr)


def limited(resolver, limit):
    model = Model(resolver.spec, Limited(resolver.model.network, limit))
    model.consistency = resolver.model.consistency
    return SuperResolver(model, device="cpu", precision="fp32")


def test_a_raster_becomes_a_finer_raster_of_the_same_place(shipped):
    raster = raster_of(reflectance(4, 19, 31))
    sr = shipped.superresolve(raster)
    scale = shipped.spec.scale
    assert sr.geobox == finer(raster.geobox, scale)
    assert sr.geobox.boundingbox == raster.geobox.boundingbox
    assert (sr.bands, sr.radiometry) == (BANDS, raster.radiometry)
    assert sr.array.shape == (4, 19 * scale, 31 * scale)
    assert sr.array.dtype == np.float32
    assert sr.valid.all()
    assert np.isfinite(sr.array).all()


def test_the_output_is_that_of_the_model(shipped):
    lr = torch.from_numpy(reflectance(2, 4, 17, 23))
    with torch.inference_mode():
        expected = shipped.model(lr)
    got = shipped(lr)
    assert got.device.type == "cpu"
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_the_output_is_a_measurement_seen_again_it_is_the_input(shipped):
    """Means of the SR pixels of an LR pixel follow the LR image: nothing is shifted, scaled or offset."""
    waves = 0.2 + 0.1 * np.sin(np.add.outer(np.arange(40), np.arange(40)) / 9)
    raster = raster_of(np.stack([waves, waves.T / 2, 1 - waves, waves**2]).astype(np.float32))
    sr = shipped.superresolve(raster).array
    scale = shipped.spec.scale
    means = sr.reshape(4, 40, scale, 40, scale).mean(axis=(2, 4))
    assert np.abs(means - raster.array)[:, 4:-4, 4:-4].max() < 5e-3


def test_bands_are_found_by_name_and_come_back_in_the_order_and_by_the_names_of_the_raster(impulse):
    array = reflectance(6, 9, 11)
    raster = raster_of(array, bands=("nir", "B11", "B02", "red", "B03", "B12"))
    got, expected = impulse.superresolve(raster), impulse.superresolve(raster_of(array[[2, 4, 3, 0]])).array
    assert got.bands == ("nir", "B02", "red", "B03")
    np.testing.assert_array_equal(got.array, expected[[3, 0, 2, 1]])


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((4, 8, 8), "float32"),
        [[[0.1]]],
        torch.zeros(4, 8, 8),
        "scene.tif",
        None,
        np.zeros((1, 4, 8, 8), "uint16"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_raster_is_told_what_is_taken(impulse, value):
    with pytest.raises(UsageError, match=r"superresolve takes a Raster .*not .*open_scene\(path\)\.read\(\)"):
        impulse.superresolve(value)
    with pytest.raises(UsageError, match=r"takes a float tensor \(batch, \d bands, y, x\): .*, not "):
        impulse(value)


def test_a_tensor_of_another_shape_or_kind_is_refused(impulse):
    count = len(impulse.spec.bands)
    for lr in (
        torch.zeros(1, count + 1, 8, 8),
        torch.zeros(1, count, 8, 8, dtype=torch.int32),
        torch.zeros(1, count, 0, 8),
    ):
        with pytest.raises(UsageError, match=f"takes a float tensor .*not torch.*{len(lr.shape) and lr.shape[1]}"):
            impulse(lr)
    lr = torch.rand(1, count, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(impulse(lr), impulse(lr.float()))


def test_a_raster_without_a_band_of_the_model_is_refused(impulse):
    with pytest.raises(ModelError, match=r"'impulse' needs B02 B03 B04 B08; the raster has B02 B03 B04 B11"):
        impulse.superresolve(raster_of(reflectance(4, 9, 9), bands=("B02", "B03", "B04", "B11")))


def test_invalid_pixels_are_nan_in_the_output_and_change_nothing_else(shipped):
    array = reflectance(4, 30, 26)
    valid = np.random.default_rng(1).random((30, 26)) > 0.1
    valid[:, :3] = False
    raster = raster_of(array, valid)
    scale = shipped.spec.scale
    mask = np.kron(valid, np.ones((scale, scale), bool))
    sr = shipped.superresolve(raster)
    np.testing.assert_array_equal(sr.valid, mask)
    np.testing.assert_array_equal(np.isnan(sr.array), np.broadcast_to(~mask, sr.array.shape))
    array[:, ~valid] = 1e6
    other = shipped.superresolve(Raster(array, valid, raster.geobox, BANDS, raster.radiometry))
    np.testing.assert_array_equal(other.array, sr.array)
    np.testing.assert_array_equal(array[:, ~valid], 1e6)  # the argument is not touched


def test_a_raster_without_a_valid_pixel_gives_none(impulse):
    sr = impulse.superresolve(raster_of(reflectance(4, 5, 7), np.zeros((5, 7), bool)))
    assert np.isnan(sr.array).all()
    assert not sr.valid.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 1), (2, 3)])
def test_tiny_rasters_work(shipped, shape):
    sr = shipped.superresolve(raster_of(reflectance(4, *shape))).array
    assert sr.shape == (4, *(n * shipped.spec.scale for n in shape))
    assert np.isfinite(sr).all()


@pytest.mark.parametrize("shape", [(64, 47), (31, 90), (33, 33)])
@pytest.mark.parametrize("limit", [700, 250, 100])
def test_out_of_memory_halves_the_image_and_changes_nothing(impulse, caplog, shape, limit):
    lr = torch.from_numpy(reflectance(1, 4, *shape))
    small = limited(impulse, limit)
    with caplog.at_level(logging.WARNING, "geosr"):
        torch.testing.assert_close(small(lr), impulse(lr), rtol=0, atol=1e-6)
    assert f"the tile of {shape[0]} x {shape[1]} pixels is halved" in caplog.text
    assert 0 < small.model.network.largest <= limit


@pytest.mark.parametrize("side", [3, 8])
@pytest.mark.parametrize("shape", [(64, 47), (31, 90), (33, 33)])
def test_out_of_memory_halves_the_image_between_blocks(shape, side):
    lr = torch.from_numpy(reflectance(1, 4, *shape))
    blocks = SuperResolver(block_model(2, side), device="cpu", precision="fp32")
    torch.testing.assert_close(limited(blocks, 1000)(lr), blocks(lr), rtol=0, atol=1e-6)


def test_out_of_memory_halves_the_batch_first(impulse, caplog):
    lr = torch.from_numpy(reflectance(5, 4, 20, 20))
    with caplog.at_level(logging.WARNING, "geosr"):
        torch.testing.assert_close(limited(impulse, 900)(lr), impulse(lr), rtol=0, atol=1e-6)
    assert "the batch of 5 is halved" in caplog.text
    assert "the tile" not in caplog.text


def test_halves_of_a_shipped_model_join_without_a_seam(shipped):
    height = 2 * shipped.halo + 20
    lr = torch.from_numpy(reflectance(1, 4, height, 58))
    halves = limited(shipped, (shipped.halo + 10 + shipped.halo) * 58)
    torch.testing.assert_close(halves(lr), shipped(lr), rtol=0, atol=1e-5)
    assert halves.model.network.largest < height * 58


def test_memory_too_small_for_the_halo_is_an_error_that_says_so(impulse):
    with pytest.raises(ModelError, match=r"cpu has too little memory for \(\d+, \d+\) pixels; try --device cpu"):
        limited(impulse, 10)(torch.from_numpy(reflectance(1, 4, 40, 40)))


def test_low_precision_stays_near_full_precision():
    full = load_model("s2-rgbn-x4", device="cpu", precision="fp32")
    low = load_model("s2-rgbn-x4", device="cpu", precision="bf16")
    with open_scene(demo_scene()) as scene:
        lr = torch.from_numpy(scene.read((slice(0, 64), slice(0, 64))).array)[None]
    difference = (full(lr) - low(lr)).abs().max()
    assert 0 < difference < 0.01
    assert low(lr).dtype == torch.float32


def test_a_device_that_gives_no_values_back_is_refused():
    with pytest.raises(UsageError, match=r"device 'meta' cannot be used here .*; try auto or cpu"):
        load_model("s2-rgbn-x4", device="meta")


def test_the_precision_that_is_picked_is_one_that_the_device_has():
    resolver = SuperResolver(impulse_model(2, 1), device="cpu")
    assert resolver.precision in {"fp32", "bf16"}
    assert resolver.precision in repr(resolver)
    assert str(resolver.device) == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "bf32"}, r"precision 'bf32' is unknown \(auto fp32 bf16 fp16\); did you mean 'fp32'\?"),
        ({"device": "cuda:99"}, r"device 'cuda:99' cannot be used here \(.+\); try auto or cpu"),
        ({"device": "gpu"}, r"device 'gpu' cannot be used here"),
    ],
)
def test_a_device_or_precision_that_does_not_exist_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        SuperResolver(impulse_model(2, 1), **arguments)


def test_a_loaded_model_knows_the_hash_of_its_weights(shipped):
    path = find_weights(shipped.spec.name).path
    assert shipped.weights_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    by_path = load_model(path, device="cpu", precision="fp32")
    assert (by_path.spec, by_path.weights_hash) == (shipped.spec, shipped.weights_hash)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s2-rgbn-x3", r"model 's2-rgbn-x3' is unknown .*did you mean 's2-rgbn-x\d'"),
        ("nothing.safetensors", "does not exist"),
    ],
)
def test_a_model_that_does_not_exist_is_an_error(name, message):
    with pytest.raises(ModelError, match=message):
        load_model(name)


def test_a_declared_halo_is_taken_at_its_word(impulse):
    spec = replace(impulse.spec, halo=11)
    assert SuperResolver(Model(spec, impulse.model.network), device="cpu").halo == 11
    measured = ModelSpec(
        name="nearest",
        architecture="interpolation",
        scale=2,
        bands=("B02",),
        arguments={"mode": "nearest"},
        consistency_mtf=None,
    )
    assert SuperResolver(Model(measured), device="cpu").halo == 0


class Cracked(nn.Module):
    """Nearest-neighbour enlargement that divides by zero where reflectance is 0.25, as damaged weights might."""

    reach = 0

    def forward(self, lr):
        odd = torch.where(lr == 0.25, torch.nan, 1.0)
        return torch.nn.functional.interpolate(lr * odd, scale_factor=2)


def cracked(**options):
    spec = ModelSpec("cracked", "cracked", 2, BANDS, consistency_mtf=None)
    return SuperResolver(Model(spec, Cracked()), device="cpu", **{"precision": "fp32"} | options)


def digital(places):
    numbers = np.full((4, 70, 90), 1500, np.uint16)
    for band, row, column in places:
        numbers[band, row, column] = 2500
    return numbers


FIRST = (
    r"model 'cracked' makes values that are not finite of 2 valid pixels, the first in row 61, column 7 of the input"
)


def test_valid_input_that_becomes_nan_is_an_error_that_names_the_place_in_a_prediction(make_raster, tmp_path):
    scene = make_raster(digital([(2, 61, 7), (0, 65, 80)]), nodata=0, scale=1e-4, descriptions=BANDS)
    with pytest.raises(ModelError, match=FIRST + ".*reflectance is from 0.15 to 0.25.*take other weights"):
        geosr.predict(scene, tmp_path / "sr.tif", model=cracked())
    assert not (tmp_path / "sr.tif").exists()


def test_the_place_is_that_in_the_scene_whatever_the_tile(make_raster, tmp_path):
    scene = make_raster(np.pad(digital([(2, 61, 7)]), ((0, 0), (600, 0), (0, 0))) + 1, nodata=0, scale=1e-4,
                        offset=-1e-4, descriptions=BANDS)  # fmt: skip
    with pytest.raises(ModelError, match="the first in row 661, column 7 of the input"):
        geosr.predict(scene, tmp_path / "sr.tif", model=cracked(), tile=64)


def test_valid_input_that_becomes_nan_is_an_error_of_the_accessor_too(make_raster):
    scene = make_raster(digital([(2, 61, 7), (0, 65, 80)]), nodata=0, scale=1e-4, descriptions=BANDS)
    for chunks in (None, 40):
        lazy = geosr.open(scene, chunks=chunks)
        with pytest.raises(ModelError, match="not finite of"):
            lazy.geosr.superresolve(cracked()).compute()


def test_valid_input_that_becomes_nan_is_an_error_of_a_raster_and_every_answer():
    array = np.full((4, 70, 90), 0.15, np.float32)
    array[2, 61, 7] = array[0, 65, 80] = 0.25
    for tta in (False, True):
        with pytest.raises(ModelError, match=FIRST):
            cracked().superresolve(raster_of(array), tta=tta)
    with pytest.raises(ModelError, match="in row 161, column 1007"):
        cracked().superresolve(raster_of(array), origin=(100, 1000))


def test_what_becomes_of_invalid_pixels_does_not_matter():
    array = np.full((4, 8, 9), 0.15, np.float32)
    valid = np.ones((8, 9), bool)
    valid[3, 4] = False
    array[:, 3, 4] = 0.25
    resolver = cracked()
    sr = resolver(torch.from_numpy(array)[None])[0].numpy()
    assert np.isnan(sr).any()
    resolver.require_finite(sr, array, valid)
    with pytest.raises(ModelError, match="of 1 valid pixels, the first in row 3, column 4"):
        resolver.require_finite(sr, array, np.ones_like(valid))


def test_a_narrow_precision_or_huge_values_are_named_as_the_reason():
    array = np.full((4, 8, 9), 0.25, np.float32)
    with pytest.raises(ModelError, match="computed in bf16, whose range may be too small: try precision fp32"):
        cracked(precision="bf16").superresolve(raster_of(array))
    resolver = cracked()
    array[:] = 1e38
    with pytest.raises(ModelError, match="no reflectance is so large: say which value is nodata"):
        resolver.require_finite(np.full((4, 16, 18), np.inf, np.float32), array, np.ones((8, 9), bool))


def test_large_finite_values_whose_sum_overflows_are_no_error():
    resolver = cracked()
    resolver.require_finite(
        np.full((4, 16, 18), 3e38, np.float32), np.zeros((4, 8, 9), np.float32), np.ones((8, 9), bool)
    )
