"""A model with a guide: scenes of two resolutions in, the coarser bands on the finer grid out."""

import json

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geosr import load_model, open_scene, predict
from geosr.errors import GridError, InputError, ModelError
from geosr.inference.choose import fitting_models
from geosr.inference.coarse import require_blocks
from geosr.io.inputs import open_input
from geosr.io.xarray_scene import scene_to_xarray
from geosr.models import Model, ModelSpec, save_model
from tests.product_kit import L2A, write_jp2, write_l2a

GUIDE, COARSE = ("B02", "B03", "B04", "B08"), ("B05", "B11")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file of a small model whose guide matters, though nobody trained it."""
    torch.manual_seed(0)
    arguments = {"channels": 6, "blocks": 0, "mean": [0.2] * 6, "std": [0.1] * 6}
    spec = ModelSpec("small-20m", "guided", 1, (*GUIDE, *COARSE), arguments, gsd=10.0, guide=GUIDE, guide_scale=2)
    model = Model(spec)
    model.network.body[-1].weight.data.mul_(10)
    return save_model(model, tmp_path_factory.mktemp("guided") / "small.safetensors").path


def write(make_raster, name, array, bands, pixel, *, left=0.0):
    return make_raster(
        array, name=name, dtype="uint16", nodata=0, scale=1e-4, offset=0, descriptions=bands,
        transform=Affine(pixel, 0, 400_000 + left, 0, -pixel, 5_000_000),
    )  # fmt: skip


@pytest.fixture
def files(make_raster):
    """A scene of 90 x 80 pixels of 10 m with the 20 m pixels that cover it, and some without data."""
    random = np.random.default_rng(0)
    fine, coarse = random.integers(500, 3000, (4, 90, 80)), random.integers(500, 3000, (2, 45, 40))
    fine[:, 30:33, 20:24] = 0
    coarse[1, 0, 0] = 0
    return write(make_raster, "x_10m.tif", fine, GUIDE, 10), write(make_raster, "x_20m.tif", coarse, COARSE, 20)


def pixels(path):
    with rasterio.open(path) as file:
        return file.read()


def assert_close(made, expected):
    """The same but for the last digit, which arithmetic on another size of image may round otherwise."""
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_two_files_become_the_coarse_bands_on_the_fine_grid(files, weights, tmp_path):
    done = predict(
        files, tmp_path / "sr.tif", model=weights, device="cpu", precision="fp32", preview=tmp_path / "p.png"
    )
    assert (done.bands, done.shape, done.tiling) == (COARSE, (90, 80), "exact")
    with rasterio.open(done.path) as sr, rasterio.open(files[0]) as fine:
        assert (sr.transform, sr.crs, sr.nodata, sr.dtypes) == (fine.transform, fine.crs, 0, ("uint16",) * 2)
        assert (sr.scales, sr.descriptions) == ((1e-4, 1e-4), COARSE)
        made = sr.read()
    with open_scene(files) as scene:
        raster = scene.read()
        expected = load_model(weights, device="cpu", precision="fp32").superresolve(raster)
    assert expected.bands == COARSE
    np.testing.assert_array_equal(made, expected.to_digital())
    assert ((made == 0).any(axis=0) == ~raster.valid).all()
    # What comes out is no interpolation of what came in: the guide had a say, and the 20 m pixels are kept.
    blocks = made.reshape(2, 45, 2, 40, 2)
    assert (blocks.max((2, 4)) - blocks.min((2, 4)))[:, raster.valid[::2, ::2]].mean() > 20

    # A part whose edges lie inside 20 m pixels is the same pixels.
    aoi = (400_000 + 70, 5_000_000 - 890, 400_000 + 610, 5_000_000 - 130)
    part = predict(files[::-1], tmp_path / "part.zarr", model=weights, device="cpu", precision="fp32", aoi=aoi)
    with open_scene(part.path) as scene:
        assert_close(scene.read_digital(), made[:, 13:89, 7:61])


def test_an_array_of_repeated_pixels_becomes_the_same_whatever_its_chunks(files, weights):
    resolver = load_model(weights, device="cpu", precision="fp32")
    with open_scene(files) as scene:
        expected = resolver.superresolve(scene.read()).to_digital()
        for chunks in (None, 35):
            sr = scene_to_xarray(scene, chunks=chunks).geosr.superresolve(resolver)
            assert list(sr.data_vars) == list(COARSE)
            assert_close(np.stack([sr[band].values for band in COARSE]), expected)


def test_a_product_is_opened_at_two_resolutions(shared_data, weights, tmp_path):
    xml = shared_data / "safe_metadata" / L2A / "MTD_MSIL2A.xml"
    dn = np.random.default_rng(0).integers(1500, 4000, (4, 32, 32)).astype("uint16")
    product = write_l2a(tmp_path, xml, dn, np.full((16, 16), 4, "uint8"))
    done = predict(product, tmp_path / "sr.tif", model=weights, device="cpu")
    assert (done.bands, done.shape) == (COARSE, (32, 32))
    with open_input(product, wanted=(*GUIDE, *COARSE), guide=GUIDE) as scene:
        assert scene.steps == (1, 1, 1, 1, 2, 2)
        np.testing.assert_array_equal(scene.read_digital()[:4], dn)
    with pytest.raises(InputError, match="at one resolution"):
        open_input(product, wanted=(*GUIDE, *COARSE))


def test_a_file_with_all_bands_is_taken_where_pixels_are_repeated_and_refused_where_not(
    files, weights, tmp_path, make_raster
):
    with open_scene(files) as scene:
        stacked = scene.read_digital()
    path = write(make_raster, "repeated.tif", stacked, (*GUIDE, *COARSE), 10)
    together, apart = (
        pixels(predict(source, tmp_path / f"{name}.tif", model=weights, device="cpu").path)
        for name, source in (("together", path), ("apart", files))
    )
    np.testing.assert_array_equal(together, apart)
    for name, array in {"cut": stacked[:, 1:], "changed": stacked + np.eye(90, 80, dtype="uint16")}.items():
        path = write(make_raster, f"{name}.tif", array, (*GUIDE, *COARSE), 10)
        with pytest.raises(GridError, match=r"B05 B11 should hold pixels .* 2 x 2 .* scene_10m\.tif scene_20m\.tif"):
            predict(path, tmp_path / f"{name}_sr.tif", model=weights, device="cpu")


def test_pixels_without_data_may_differ():
    spec = ModelSpec("m", "guided", 1, ("B02", "B05"), guide=("B02",), guide_scale=2)
    lr, valid = np.zeros((2, 4, 5), np.float32), np.ones((4, 5), bool)
    lr[0] = np.arange(20).reshape(4, 5)
    lr[1, :, 4] = np.arange(4)  # a last column, cut inside its pixel
    require_blocks(lr, valid, spec)
    lr[1, 3, 3], valid[3, 3] = np.nan, False
    require_blocks(lr, valid, spec)
    with pytest.raises(GridError, match="B05 should hold"):
        require_blocks(lr, np.ones((4, 5), bool), spec)


def test_other_models_do_not_take_bands_that_are_repeated(files, weights, tmp_path):
    other = Model(ModelSpec("all", "interpolation", 2, ("B02", "B05"), consistency_mtf=None))
    path = save_model(other, tmp_path / "all.safetensors").path
    with pytest.raises(
        ModelError, match=r"B05 in pixels 2 times as large as B02 B03 B04 B08, .*'all' takes it as fine"
    ):
        predict(files, tmp_path / "sr.tif", model=path)
    with open_scene(files) as scene:  # those of the fine bands do not mind
        assert {weights.spec.name for weights in fitting_models(scene)} >= {"s2-rgbn-x2", "s2-rgbn-x4"}


def test_info_tells_which_bands_are_repeated(files, geosr):
    code, out, _ = geosr("info", *files, "--json")
    assert not code
    assert json.loads(out)["repeated"] == ["B05 2 x 2", "B11 2 x 2"]
    assert "repeated" not in json.loads(geosr("info", files[0], "--json")[1])


def test_a_folder_with_the_bands_of_a_scene_is_opened_at_two_resolutions(tmp_path):
    random = np.random.default_rng(0)
    for band in (*GUIDE, *COARSE):
        step = 2 if band in COARSE else 1
        side = 32 // step
        write_jp2(
            tmp_path / f"T01WCP_{band}_{10 * step}m.jp2", random.integers(1, 999, (side, side), "uint16"), 10 * step
        )
    with open_input(tmp_path, wanted=(*GUIDE, *COARSE), guide=GUIDE, scale=1e-4, offset=0) as scene:
        assert (scene.bands, scene.steps) == ((*GUIDE, *COARSE), (1, 1, 1, 1, 2, 2))
