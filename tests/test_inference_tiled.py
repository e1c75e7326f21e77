import json
import logging
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rio_cogeo import cog_validate
from torch import nn

from geosr.demo import demo_scene
from geosr.errors import (
    BandError,
    GeosrError,
    GridError,
    InputError,
    ModelError,
    OutputError,
    RadiometryError,
    UsageError,
)
from geosr.inference import SuperResolver, load_model, outputs, predict
from geosr.io.scene import open_scene
from geosr.io.zarr import create_zarr
from geosr.models import Model, ModelSpec, save_model
from geosr.testing import block_model, impulse_model

BANDS = ("B02", "B03", "B04", "B08")
NORTH_UP = Affine(10, 0, 400_000, 0, -10, 5_000_000)


@pytest.fixture(scope="module")
def resolvers():
    """Both shipped models, and a sum over neighbours that turns any wrong neighbour into a wrong number."""
    shipped = {name: load_model(name, device="cpu", precision="fp32") for name in ("s2-rgbn-x4", "s2-rgbn-x2")}
    tests = {"impulse": impulse_model(4, 5), "blocks": block_model(4, 7), "swinir": small_swinir()}
    return shipped | {name: SuperResolver(model, device="cpu", precision="fp32") for name, model in tests.items()}


def small_swinir():
    """One group of two layers, which reaches few enough pixels to be tiled exactly; all of the output is its own."""
    torch.manual_seed(0)
    size = {"channels": 8, "blocks": 1, "depth": 2, "heads": 2, "window_size": 4, "global_skip": False}
    spec = ModelSpec("small", "swinir", 4, BANDS, size | {"mean": [0.1] * 4, "std": [0.1] * 4}, consistency_mtf=None)
    return Model(spec)


def interpolation(scale, bands=BANDS, mode="bicubic"):
    spec = ModelSpec(mode, "interpolation", scale, bands, arguments={"mode": mode}, consistency_mtf=None)
    return SuperResolver(Model(spec), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def bicubic():
    return interpolation(4)


def crop(height, width):
    """A real scene of this size; larger ones repeat it."""
    with rasterio.open(demo_scene()) as file:
        return np.tile(file.read(), (1, -(-height // 512), -(-width // 512)))[:, :height, :width]


@pytest.fixture
def scene(make_raster):
    """A factory of scenes that say everything about themselves."""

    def make(array, **kwargs):
        return make_raster(array, **{"nodata": 0, "scale": 1e-4, "descriptions": BANDS[: len(array)], **kwargs})

    return make


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def holes(kind, shape):
    """Invalid pixels: none, scattered, along borders and corners, or beyond the edge of a swath."""
    invalid = np.zeros(shape, bool)
    rows, columns = np.indices(shape)
    if kind == "scattered":
        invalid |= np.random.default_rng(3).random(shape) < 0.03
        invalid[10:17, shape[1] // 2 :] = True
    if kind == "borders":
        invalid[[0, -1]] = invalid[:, :4] = invalid[-9:, -20:] = True
    if kind == "swath":
        invalid |= columns > 0.4 * shape[1] + rows * 0.3
    return invalid


@pytest.mark.parametrize("kind", ["none", "scattered", "borders", "swath"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("s2-rgbn-x4", (149, 137)), ("s2-rgbn-x2", (269, 41)), ("impulse", (261, 150)),
        ("blocks", (261, 150)), ("swinir", (149, 137)),
    ],
)  # fmt: skip
def test_tiles_do_not_show_in_reflectance(resolvers, scene, tmp_path, name, shape, kind):
    array = crop(*shape)
    array[:, holes(kind, shape)] = 0
    path, resolver = scene(array), resolvers[name]
    done = predict(path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32")
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS))
    assert done.tiles >= 2
    got = read(done.path)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(whole.array))
    assert np.nanmax(np.abs(got - whole.array)) <= 1e-5


@pytest.mark.parametrize("name", ["s2-rgbn-x4", "impulse"])
def test_tiles_do_not_show_in_digital_numbers(resolvers, scene, tmp_path, name):
    array = crop(135, 131)
    array[:, holes("scattered", (135, 131))] = 0
    path, resolver = scene(array), resolvers[name]
    got = read(predict(path, tmp_path / "sr.tif", model=resolver, tile=1).path)
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS)).to_digital()
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got == 0, whole == 0)
    assert np.abs(got.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("name", ["s2-rgbn-x4", "impulse"])
def test_tiles_do_not_show_in_batches(resolvers, scene, tmp_path, name):
    array = crop(33, 520)
    array[:, :, 200:300] = 0
    path, resolver = scene(array), resolvers[name]
    one = read(predict(path, tmp_path / "one.tif", model=resolver, tile=1, dtype="float32").path)
    three = read(predict(path, tmp_path / "three.tif", model=resolver, tile=1, dtype="float32", batch_size=3).path)
    np.testing.assert_allclose(three, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["impulse", "swinir"])
def test_tiles_do_not_show_where_memory_runs_out(resolvers, scene, tmp_path, caplog, name):
    """On a device that holds neither the batch nor one tile."""

    class Limited(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, lr):
            if lr.shape[0] * lr.shape[2] * lr.shape[3] > 6000:
                raise torch.OutOfMemoryError
            return self.network(lr)

    resolver = resolvers[name]
    limited = SuperResolver(Model(resolver.spec, Limited(resolver.model.network)), device="cpu", precision="fp32")
    path = scene(crop(90, 256))
    expected = read(predict(path, tmp_path / "a.tif", model=resolver, tile=1, dtype="float32").path)
    with caplog.at_level(logging.WARNING, "geosr"):
        got = read(predict(path, tmp_path / "b.tif", model=limited, tile=1, dtype="float32", batch_size=2).path)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert "the batch of 2 is halved" in caplog.text
    assert "pixels is halved" in caplog.text


@pytest.mark.parametrize("shape", [(1, 1), (1, 131), (137, 1), (7, 5), (131, 2)])
@pytest.mark.parametrize("name", ["s2-rgbn-x4", "s2-rgbn-x2", "impulse", "blocks", "swinir"])
def test_tiles_do_not_show_in_scenes_of_any_size(resolvers, scene, tmp_path, name, shape):
    path, resolver = scene(crop(*shape)), resolvers[name]
    done = predict(path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32")
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS))
    assert done.shape == tuple(n * resolver.spec.scale for n in shape)
    np.testing.assert_allclose(read(done.path), whole.array, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "scattered"])
@pytest.mark.parametrize("name", ["s2-rgbn-x4", "impulse", "blocks", "swinir"])
def test_an_area_has_the_pixels_of_the_whole_scene(resolvers, scene, tmp_path, name, kind):
    """Its tiles look around it and have the blocks of the scene; at the bottom it ends with the scene."""
    array = crop(170, 163)
    array[:, holes(kind, (170, 163))] = 0
    path, resolver = scene(array), resolvers[name]
    aoi = (400_130, 5_000_000 - 1700, 401_550, 5_000_000 - 290)
    done = predict(path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32", aoi=aoi)
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS)).array
    assert (done.tiles, done.tiling) == (4, "exact")
    np.testing.assert_allclose(read(done.path), whole[:, 29 * 4 :, 13 * 4 : 155 * 4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("blocks", [4, 6], ids=["light", "classic"])
def test_as_deep_as_published_swinir_is_approximate(scene, tmp_path, blocks):
    """The depth of the published sizes with fewer channels, which the reach does not depend on."""
    torch.manual_seed(0)
    size = {"channels": 4, "blocks": blocks, "heads": 1, "upsampler": "pixelshuffledirect"}
    resolver = SuperResolver(Model(ModelSpec("deep", "swinir", 2, BANDS[:1], size)), device="cpu", precision="fp32")
    path = scene(crop(40, 270)[:1])
    done = predict(path, tmp_path / "sr.tif", model=resolver, tile=1, dtype="float32")
    with open_scene(path) as opened:
        whole = resolver.superresolve(opened.read(bands=BANDS[:1])).array
    assert (done.tiles, done.tiling) == (2, "approximate")
    with rasterio.open(done.path) as file:
        assert file.tags()["GEOSR_TILING"].startswith("approximate: tiles of 256 x 256 input pixels")
        assert np.abs(file.read() - whole).max() < 1e-3


def test_tiles_do_not_show_at_the_size_of_a_tile_and_beside_it(resolvers, scene, tmp_path):
    """Cores of 256 pixels and more: the size is rounded to whole blocks, the last core is what is left."""
    path = scene(crop(260, 300))
    files = [
        predict(path, tmp_path / f"{tile}.tif", model=resolvers["impulse"], tile=tile, dtype="float32")
        for tile in (1, 250, 260, 5000)
    ]
    assert [done.tiles for done in files] == [9, 4, 4, 1]
    for done in files[1:]:
        np.testing.assert_allclose(read(done.path), read(files[0].path), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, "EPSG:32633"),
        (Affine(8, 6, 400_000, 6, -8, 5_000_000), "EPSG:32633"),
        (Affine(1 / 9000, 0, 14.1, 0, -1 / 9000, 50.3), "EPSG:4326"),
        (Affine(10, 0, 400_000, 0, 10, 5_000_000), "EPSG:32633"),
    ],
    ids=["utm", "rotated", "degrees", "south up"],
)
@pytest.mark.parametrize("part", ["whole", "aoi"])
def test_every_pixel_stays_where_it_was(make_raster, tmp_path, scale, transform, crs, part):
    """The pixels hold their own row and column, and the oracle asks rasterio where the output's pixels lie."""
    shape = (30, 530)
    path = make_raster(
        np.indices(shape).astype("uint16"), scale=1e-4, descriptions=["row", "column"], transform=transform, crs=crs
    )
    model = interpolation(scale, ("row", "column"), "nearest")
    x, y = zip(
        *(transform * (column, row) for column, row in ((100, 11), (360, 11), (100, 23), (360, 23))), strict=True
    )
    aoi = None if part == "whole" else (min(x), min(y), max(x), max(y))
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=model, tile=1, aoi=aoi).path) as file:
        assert file.crs == rasterio.open(path).crs
        rows, columns = np.indices(file.shape)
        east, north = file.transform * np.stack([columns + 0.5, rows + 0.5]).reshape(2, -1)
        column, row = ~transform * np.stack([east, north])
        np.testing.assert_array_equal(file.read(1).ravel(), np.floor(row))
        np.testing.assert_array_equal(file.read(2).ravel(), np.floor(column))
        if part == "whole":
            assert file.shape == tuple(n * scale for n in shape)
            assert GeoBox(file.shape, file.transform, crs).boundingbox == GeoBox(shape, transform, crs).boundingbox
        elif not transform.b:
            assert file.shape == (12 * scale, 260 * scale)
            np.testing.assert_allclose(file.bounds, sorted_bounds(x, y, transform), rtol=0, atol=1e-9)


def sorted_bounds(x, y, transform):
    """Left, bottom, right, top the way that rasterio gives them, which for a south-up grid is upside down."""
    return (min(x), *((min(y), max(x), max(y)) if transform.e < 0 else (max(y), max(x), min(y))))


def test_an_area_from_geojson_selects_the_pixels_that_it_covers(scene, bicubic, tmp_path):
    from rasterio.warp import transform_geom

    corners = [
        NORTH_UP * (c + d, r + e)
        for c, r, d, e in ((20, 5, 0.3, 0.3), (50, 5, -0.3, 0.3), (50, 30, -0.3, -0.3), (20, 30, 0.3, -0.3))
    ]
    geometry = transform_geom("EPSG:32633", "EPSG:4326", {"type": "Polygon", "coordinates": [[*corners, corners[0]]]})
    (tmp_path / "field.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    done = predict(scene(crop(40, 60)), tmp_path / "sr.tif", model=bicubic, aoi=str(tmp_path / "field.geojson"))
    with rasterio.open(done.path) as file:
        assert file.shape == (100, 120)
        assert file.transform * (0, 0) == NORTH_UP * (20, 5)


@pytest.mark.parametrize(
    ("aoi", "error", "message"),
    [
        ("0,0,1,1", GridError, "lies outside the scene"),
        ("5,5,1,1", UsageError, "is empty"),
        ("here", UsageError, "is not minx"),
        ("gone.geojson", UsageError, "cannot be read"),
    ],
)
def test_an_area_that_selects_nothing_is_refused(scene, bicubic, tmp_path, aoi, error, message):
    with pytest.raises(error, match=message):
        predict(scene(crop(9, 9)), tmp_path / "sr.tif", model=bicubic, aoi=aoi)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("dtype", "encoding"),
    [
        ("uint16", {"nodata": 0, "scale": 1e-4, "offset": -0.1}),
        ("uint16", {"nodata": None, "scale": 1e-4}),
        ("int16", {"nodata": -9999, "scale": 2e-4, "offset": 0.01}),
        ("uint8", {"nodata": 255, "scale": 1 / 255}),
        ("float32", {"nodata": -1.0, "scale": 0.01}),
        ("float32", {"nodata": float("nan"), "scale": None}),
        ("float64", {"nodata": -9999, "scale": 1e-4}),
    ],
    ids=str,
)
def test_the_output_is_encoded_as_the_input_is(scene, tmp_path, dtype, encoding):
    rng = np.random.default_rng(0)
    array = (rng.uniform(0.05, 0.9, (4, 20, 30)) if dtype == "float32" else rng.integers(1, 200, (4, 20, 30))).astype(
        dtype
    )
    if encoding["nodata"] is not None:
        array[:, 4:8, 5:9] = encoding["nodata"]
    path = scene(array, **encoding)
    out = predict(path, tmp_path / "sr.tif", model=interpolation(2, mode="nearest")).path
    with rasterio.open(path) as before, rasterio.open(out) as after:
        assert after.dtypes == before.dtypes
        assert (after.scales, after.offsets) == (before.scales, before.offsets)
        np.testing.assert_equal(after.nodatavals, before.nodatavals)
        assert after.descriptions == before.descriptions == BANDS
        assert after.crs == before.crs
        np.testing.assert_allclose(after.read(), before.read().repeat(2, 1).repeat(2, 2), rtol=1e-6)
    assert cog_validate(out, strict=True, quiet=True)[0]


def test_the_file_says_what_made_it(scene, resolvers, tmp_path):
    with rasterio.open(predict(scene(crop(9, 9)), tmp_path / "sr.tif", model=resolvers["s2-rgbn-x4"]).path) as file:
        tags = file.tags()
    assert tags["GEOSR_MODEL"] == "s2-rgbn-x4"
    assert tags["GEOSR_WEIGHTS_SHA256"] == resolvers["s2-rgbn-x4"].weights_hash
    assert tags["GEOSR_SOURCE"] == "scene.tif"


def test_float32_stores_reflectance_itself(scene, tmp_path):
    array = crop(12, 14)
    array[:, 3, 4] = 0
    path = scene(array, offset=-0.1)
    with rasterio.open(
        predict(path, tmp_path / "sr.tif", model=interpolation(2, mode="nearest"), dtype="float32").path
    ) as file:
        assert file.dtypes == ("float32",) * 4
        assert np.isnan(file.nodata)
        assert (file.scales[0], file.offsets[0]) == (1, 0)
        expected = np.where(array == 0, np.nan, array * 1e-4 - 0.1).repeat(2, 1).repeat(2, 2)
        np.testing.assert_allclose(file.read(), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "text"])
def test_an_integer_type_without_an_encoding_is_refused(scene, bicubic, tmp_path, dtype):
    with pytest.raises(UsageError, match=rf"--dtype {dtype} would need a new encoding; allowed are uint16 .* float32"):
        predict(scene(crop(9, 9)), tmp_path / "sr.tif", model=bicubic, dtype=dtype)


@pytest.mark.parametrize("name", ["s2-rgbn-x4", "impulse"])
def test_what_an_invalid_pixel_holds_changes_no_valid_pixel(resolvers, scene, tmp_path, name):
    """One band is nodata, so the pixel is invalid; its other bands may hold anything."""
    array = crop(30, 140)
    invalid = holes("scattered", array.shape[1:])
    array[1, invalid] = 0
    files = []
    for number, junk in enumerate((1, 9000, 65535)):
        array[0, invalid], array[2, invalid] = junk, 65535 - junk
        path = scene(array, name=f"{number}.tif")
        files.append(read(predict(path, tmp_path / f"{number}_sr.tif", model=resolvers[name], tile=1).path))
    np.testing.assert_array_equal(
        files[0] == 0, np.broadcast_to(np.kron(invalid, np.ones((4, 4), bool)), files[0].shape)
    )
    for other in files[1:]:
        np.testing.assert_array_equal(other, files[0])


def test_pixels_under_a_mask_change_no_valid_pixel(resolvers, scene, tmp_path):
    array = crop(20, 30)
    files = []
    for number, junk in enumerate((1, 60000)):
        array[:, 5:9, 7:] = junk
        path = scene(array, name=f"{number}.tif", nodata=None)
        with rasterio.open(path, "r+") as file:
            mask = np.full(file.shape, 255, "uint8")
            mask[5:9, 7:] = 0
            file.write_mask(mask)
        files.append(read(predict(path, tmp_path / f"{number}_sr.tif", model=resolvers["s2-rgbn-x4"]).path))
    np.testing.assert_array_equal(files[1], files[0])


def test_nan_and_infinity_in_a_float_scene_stay_where_they_are(resolvers, scene, tmp_path):
    array = (crop(30, 40) * 1e-4).astype("float32")
    clean = array.copy()
    array[0, 3, 5], array[:, 20:22, 8], array[2, 11, 30] = np.nan, np.inf, -np.inf
    clean[:, 3, 5] = clean[:, 20:22, 8] = clean[:, 11, 30] = -1
    got, expected = (
        read(
            predict(
                scene(a, name=f"{n}.tif", nodata=n, scale=None), tmp_path / f"{n}_sr.tif", model=resolvers["s2-rgbn-x4"]
            ).path
        )
        for a, n in ((array, np.nan), (clean, -1))
    )
    invalid = np.isnan(got[0])
    assert invalid.sum() == 4 * 16
    np.testing.assert_array_equal(got[:, ~invalid], expected[:, ~invalid])
    assert (expected[:, invalid] == -1).all()


@pytest.mark.parametrize("nodata", [1000, 0])
def test_a_valid_pixel_never_becomes_nodata(scene, tmp_path, nodata):
    """Steps around nodata, which bicubic interpolation crosses and rings about; overviews average across it."""
    array = np.full((4, 140, 136), nodata + 1, "int16")
    array[:, ::2] += 9
    array[:, :, ::3] -= 5
    array[array == nodata] += 1
    invalid = holes("swath", array.shape[1:])
    array[:, invalid] = nodata
    out = predict(scene(array, nodata=nodata), tmp_path / "sr.tif", model=interpolation(4), tile=1).path
    got = read(out)
    np.testing.assert_array_equal(got == nodata, np.broadcast_to(np.kron(invalid, np.ones((4, 4), bool)), got.shape))
    assert {nodata - 1, nodata + 1} <= set(np.unique(got)), "nothing came near nodata"
    with rasterio.open(out, overview_level=0) as file:
        mask = np.kron(invalid, np.ones((2, 2), bool))
        np.testing.assert_array_equal(file.read() == nodata, np.broadcast_to(mask, file.read().shape))


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_a_scene_without_a_valid_pixel_gives_one(resolvers, scene, tmp_path, dtype):
    done = predict(
        scene(np.zeros((4, 20, 140), "uint16")), tmp_path / "sr.tif", model=resolvers["s2-rgbn-x4"], tile=1, dtype=dtype
    )
    got = read(done.path)
    assert got.shape == (4, 80, 560)
    assert np.isnan(got).all() if dtype else not got.any()


def test_bands_are_found_by_any_name_and_the_result_keeps_their_order_and_names(scene, tmp_path):
    array = crop(9, 12)
    path = scene(array[[3, 1, 0, 2]], descriptions=["nir", "B3", "blue", "B04"])
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=interpolation(2, mode="nearest")).path) as file:
        np.testing.assert_array_equal(file.read()[:, ::2, ::2], array[[3, 1, 0, 2]])
        assert file.descriptions == ("nir", "B3", "blue", "B04")
        assert [colour.name for colour in file.colorinterp] == ["nir", "green", "blue", "red"]


def test_single_band_files_are_one_scene(scene, resolvers, tmp_path):
    array = crop(40, 50)
    whole = predict(scene(array), tmp_path / "whole.tif", model=resolvers["s2-rgbn-x4"])
    paths = [scene(array[i : i + 1], name=f"T18STG_{BANDS[i]}_10m.tif", descriptions=None) for i in (2, 0, 3, 1)]
    parts = predict(paths, tmp_path / "parts.tif", model=resolvers["s2-rgbn-x4"])
    np.testing.assert_array_equal(read(parts.path), read(whole.path)[[2, 0, 3, 1]])
    assert parts.bands == ("B04", "B02", "B08", "B03")
    with pytest.raises(OutputError, match="choose another"):
        predict(paths, paths[2], model=resolvers["s2-rgbn-x4"], overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bands": ["B02", "B03", "B04"]}, BandError, r"--bands names 3 bands \(B02 B03 B04\) and scene\.tif has 4"),
        (
            {"bands": ["B02", "B03", "B04", "B09"]},
            BandError,
            r"'B08' is not in scene\.tif \(B02 B03 B04 B09\); did you mean 'B09'",
        ),
        ({"bands": ["B02", "B03", "B02", "B08"]}, BandError, "band B02 more than once"),
        ({"model": "s2-rgbn-x5"}, ModelError, r"'s2-rgbn-x5' is unknown .*did you mean 's2-rgbn-x"),
        ({"model": None, "bands": ["a", "b", "c", "d"]}, ModelError, "no shipped model fits"),
        ({"scale": 1e-3}, RadiometryError, "flag --scale says 0.001"),
        ({"baseline": "04.00"}, UsageError, "--sensor"),
        ({"batch_size": 0}, UsageError, "batch size 0"),
        ({"tile": 0}, UsageError, "tile 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_anything_is_written(
    scene, bicubic, tmp_path, arguments, error, message
):
    with pytest.raises(error, match=message):
        predict(scene(crop(9, 9)), tmp_path / "sr.tif", **({"model": bicubic} | arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize("bands", [3, 5])
def test_a_scene_with_another_number_of_bands(scene, bicubic, tmp_path, bands):
    array = np.full((bands, 9, 9), 800, "uint16")
    path = scene(array, descriptions=["B02", "B03", "B04", "B08", "B11"][:bands])
    if bands == 5:
        assert read(predict(path, tmp_path / "sr.tif", model=bicubic).path).shape == (4, 36, 36)
    else:
        with pytest.raises(BandError, match=r"'B08' is not in scene\.tif \(B02 B03 B04\)"):
            predict(path, tmp_path / "sr.tif", model=bicubic)


def test_a_silent_scene_is_refused(scene, bicubic, tmp_path):
    with pytest.raises(RadiometryError, match="says nothing about their unit"):
        predict(scene(crop(9, 9), scale=None), tmp_path / "sr.tif", model=bicubic)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_scene_of_whole_reflectance_needs_no_tag_in_the_output_either(scene, bicubic, tmp_path):
    """--scale 1: nothing in the file says so, before and after."""
    path = scene(np.full((4, 9, 9), 3, "uint8"), scale=None)
    out = predict(path, tmp_path / "sr.tif", model=bicubic, scale=1, preview=tmp_path / "sr.png").path
    assert (read(out) == 3).all()


def test_a_truncated_scene_names_the_rows_that_are_missing(scene, bicubic, tmp_path):
    whole = scene(np.random.default_rng(0).integers(1, 9000, (4, 300, 140), dtype="uint16"), name="whole.tif")
    path = tmp_path / "scene.tif"
    rasterio.shutil.copy(whole, path, driver="COG")  # its directory comes first, so that the file still opens
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(
        InputError, match=r"scene\.tif: rows \d+\.\.\d+, columns \d+\.\.\d+ cannot be read .*may be truncated"
    ):
        predict(path, tmp_path / "sr.tif", model=bicubic, tile=1)
    assert not (tmp_path / "sr.tif").exists()


@pytest.mark.parametrize("transform", [None, NORTH_UP])
def test_a_scene_without_crs_works_and_says_so(scene, bicubic, tmp_path, caplog, transform):
    path = scene(crop(9, 12), crs=None, transform=transform)
    with caplog.at_level(logging.WARNING, "geosr"):
        done = predict(path, tmp_path / "sr.tif", model=bicubic, preview=tmp_path / "sr.png")
    assert caplog.text.count("scene.tif has no coordinate reference system; its output will have none") == 1
    with rasterio.open(done.path) as file:
        assert file.crs is None
        assert file.transform == (transform or Affine.identity()) * Affine.scale(0.25)


def test_an_existing_file_is_kept_unless_asked(scene, bicubic, tmp_path):
    path, out = scene(crop(9, 9)), tmp_path / "sr.tif"
    out.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"sr\.tif exists; give --overwrite to replace it"):
        predict(path, out, model=bicubic)
    assert out.read_bytes() == b"precious"
    with out.open("rb") as before:
        predict(path, out, model=bicubic, overwrite=True)
        assert before.read() == b"precious", "the file was replaced, not written to"
    assert read(out).shape == (4, 36, 36)


def test_an_overwritten_file_stays_until_the_new_one_is_complete(scene, bicubic, tmp_path):
    path, out = scene(crop(9, 9)), tmp_path / "sr.tif"
    out.write_bytes(b"precious")

    def stop(now, done, total):
        assert out.read_bytes() == b"precious"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(path, out, model=bicubic, overwrite=True, progress=stop)
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symlink", "hard link"])
def test_the_input_is_never_overwritten(scene, bicubic, tmp_path, link):
    path = scene(crop(9, 9))
    before, out = path.read_bytes(), path
    if link is not None:
        out = tmp_path / "link.tif"
        link(path, out)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="choose another"):
            predict(path, out, model=bicubic, overwrite=overwrite)
    assert path.read_bytes() == before


@pytest.fixture
def store(tmp_path):
    """The demo scene as a Zarr store."""
    path = tmp_path / "scene.zarr"
    with open_scene(demo_scene()) as opened:
        writer = create_zarr(path, geobox=opened.geobox, bands=opened.bands, radiometry=opened.radiometry, shard=256)
        for window in writer.windows():
            writer.write(window, opened.read_digital(window))
    return path


def test_a_store_gives_what_the_same_file_gives(store, bicubic, tmp_path):
    from_file = predict(demo_scene(), tmp_path / "file.tif", model=bicubic, tile=128, preview=tmp_path / "file.png")
    from_store = predict(store, tmp_path / "store.tif", model=bicubic, tile=128, preview=tmp_path / "store.png")
    np.testing.assert_array_equal(read(from_store.path), read(from_file.path))
    with rasterio.open(from_file.path) as file, rasterio.open(from_store.path) as other:
        assert file.profile == other.profile
        assert (file.scales, file.offsets, file.descriptions) == (other.scales, other.offsets, other.descriptions)
    assert from_store.preview.exists()


def test_the_input_store_is_never_written_to(store, bicubic):
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"is another file of this run"):
            predict(store, store, model=bicubic, overwrite=overwrite)
        with pytest.raises(OutputError, match=r"sr\.tif lies inside the input .*scene\.zarr; choose another folder"):
            predict(store, store / "sr.tif", model=bicubic, overwrite=overwrite)
        with pytest.raises(OutputError, match=r"sr\.png lies inside the input"):
            predict(store, store.parent / "sr.tif", model=bicubic, overwrite=overwrite, preview=store / "sr.png")


def test_a_folder_that_is_missing_or_a_file_is_refused(scene, bicubic, tmp_path):
    path = scene(crop(9, 9))
    with pytest.raises(OutputError, match=r"folder .*deep does not exist; make it first"):
        predict(path, tmp_path / "deep" / "sr.tif", model=bicubic)
    with pytest.raises(OutputError, match=r"folder .*scene\.tif does not exist"):
        predict(path, path / "sr.tif", model=bicubic)
    with pytest.raises(OutputError, match=r"is a folder; give the name of a file in it"):
        predict(path, tmp_path / "sr.tif", model=bicubic, preview=tmp_path)


def test_a_folder_that_is_not_writable_is_refused(scene, bicubic, tmp_path, monkeypatch):
    """Root may write anywhere, so the answer of the operating system is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(OutputError, match="is not writable"):
        predict(scene(crop(9, 9)), tmp_path / "sr.tif", model=bicubic)


def test_a_relative_path_works(scene, bicubic, tmp_path, monkeypatch):
    path = scene(crop(9, 9))
    monkeypatch.chdir(tmp_path)
    assert read(predict(path.name, "sr.tif", model=bicubic).path).shape == (4, 36, 36)


def test_nothing_but_the_target_is_left(scene, bicubic, tmp_path):
    predict(scene(crop(9, 9)), tmp_path / "sr.tif", model=bicubic)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "sr.tif"]


def test_a_second_run_on_the_same_target_is_kept_out(scene, bicubic, tmp_path):
    path = scene(crop(9, 9))
    refused = []

    def again(*_):
        with pytest.raises(OutputError, match=r"another geosr process is writing .*sr\.tif; wait for it") as caught:
            predict(path, tmp_path / "sr.tif", model=bicubic)
        refused.append(caught)

    predict(path, tmp_path / "sr.tif", model=bicubic, progress=again)
    assert len(refused) == 2
    assert read(tmp_path / "sr.tif").shape == (4, 36, 36)


def test_a_preview_that_cannot_be_written_is_said_before_the_work(scene, bicubic, tmp_path):
    with pytest.raises(GeosrError, match="does not exist"):
        predict(scene(crop(9, 9)), tmp_path / "sr.tif", model=bicubic, preview=tmp_path / "deep" / "sr.png")
    assert not (tmp_path / "sr.tif").exists()


def test_a_preview_never_replaces_the_scene(scene, bicubic, tmp_path):
    path = scene(crop(9, 9))
    before = path.read_bytes()
    for preview in (path, tmp_path / "sr.tif"):
        with pytest.raises(GeosrError, match="choose another"):
            predict(path, tmp_path / "sr.tif", model=bicubic, preview=preview)
    assert path.read_bytes() == before


def test_the_result_says_what_was_done(scene, resolvers, tmp_path):
    calls = []
    done = predict(
        scene(crop(30, 260)),
        tmp_path / "sr.tif",
        model=resolvers["impulse"],
        tile=1,
        preview=tmp_path / "sr.png",
        progress=lambda *call: calls.append(call),
    )
    assert (done.path, done.model, done.scale, done.bands) == (tmp_path / "sr.tif", "impulse", 4, BANDS)
    assert (done.shape, done.tiles, done.resumed, done.device, done.precision) == ((120, 1040), 3, 0, "cpu", "fp32")
    assert done.bytes == done.path.stat().st_size
    assert done.seconds > 0
    assert done.megapixels_per_second > 0
    assert done.preview == tmp_path / "sr.png"
    assert done.preview.read_bytes().startswith(b"\x89PNG")
    total = 30 * 260
    assert calls[0] == (0, 0, total)
    assert calls[-1][1:] == (total, total)
    assert sum(now for now, _, _ in calls) == total


class Stop(Exception):
    """Ends a run from outside."""


def stopping(after):
    """A progress callback that ends the run when so many tiles are finished."""
    finished = -1

    def progress(now, done, total):
        nonlocal finished
        finished += 1
        if finished == after:
            raise Stop

    return progress


@pytest.fixture
def long_scene(scene):
    """Six tiles of noise at x4, with a hole."""
    array = np.random.default_rng(0).integers(1, 9000, (4, 258, 131), dtype="uint16")
    array[:, 100:160, 90:] = 0
    return scene(array)


@pytest.fixture
def job(bicubic, tmp_path):
    """Arguments of a run over ``long_scene``."""
    weights = save_model(bicubic.model, tmp_path / "bicubic.safetensors").path
    return {"model": weights, "tile": 1, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def undisturbed(long_scene, job, tmp_path):
    """Bytes of the file when nothing stops the run."""
    done = predict(long_scene, tmp_path / "undisturbed.tif", **job)
    assert done.tiles == 6
    return done.path.read_bytes()


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_stopped_run_continues_to_the_same_bytes(long_scene, job, tmp_path, undisturbed, after):
    out = tmp_path / "sr.tif"
    with pytest.raises(Stop):
        predict(long_scene, out, **job, progress=stopping(after))
    assert not out.exists()
    calls = []
    done = predict(long_scene, out, **job, progress=lambda *call: calls.append(call))
    assert done.resumed == after
    assert out.read_bytes() == undisturbed
    assert calls[0][0] == calls[0][1], "the first call tells what an earlier run did"
    assert len(calls) == 1 + 6 - after


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_crash_leaves_on_disk_the_bytes_are_the_same(long_scene, job, tmp_path, undisturbed, data):
    out, work = tmp_path / "sr.tif", tmp_path / ".sr.tif.geosr"
    with pytest.raises(Stop):
        predict(long_scene, out, **job, overwrite=True, restart=True, progress=stopping(5))
    for path in [work / "job.json", *sorted(work.glob("shards-*/*"))]:
        size = path.stat().st_size
        if data.draw(st.booleans(), "truncate"):
            os.truncate(path, data.draw(st.integers(0, size)))
        size = path.stat().st_size
        if size and data.draw(st.booleans(), "corrupt"):
            with path.open("r+b") as file:
                file.seek(data.draw(st.integers(0, size - 1)))
                file.write(b"\x9e")
    done = predict(long_scene, out, **job, overwrite=True)
    assert done.resumed <= 5
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize("step", ["add_overviews", "write_cog", "verify"])
def test_a_crash_while_the_file_is_assembled_costs_no_tile(long_scene, job, tmp_path, undisturbed, monkeypatch, step):
    out = tmp_path / "sr.tif"
    real = getattr(outputs, step)

    def crash(*args, **kwargs):
        real(*args, **kwargs)
        raise Stop

    monkeypatch.setattr(outputs, step, crash)
    with pytest.raises(Stop):
        predict(long_scene, out, **job)
    assert not out.exists()
    monkeypatch.setattr(outputs, step, real)
    assert predict(long_scene, out, **job).resumed == 6
    assert out.read_bytes() == undisturbed


def test_a_corrupted_block_is_made_again(long_scene, job, tmp_path, undisturbed):
    out = tmp_path / "sr.tif"
    with pytest.raises(Stop):
        predict(long_scene, out, **job, progress=stopping(4))
    with next((tmp_path / ".sr.tif.geosr").glob("shards-*/*")).open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 100)
    assert predict(long_scene, out, **job).resumed == 3
    assert out.read_bytes() == undisturbed


def test_a_restart_begins_anew(long_scene, job, tmp_path, undisturbed):
    out = tmp_path / "sr.tif"
    with pytest.raises(Stop):
        predict(long_scene, out, **job, progress=stopping(4))
    assert predict(long_scene, out, **job, restart=True).resumed == 0
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize(
    "change",
    [
        {"tile": 256},
        {"aoi": (400_000, 4_999_000, 402_000, 5_000_000)},
        {"dtype": "float32"},
        {"model": interpolation(4, mode="nearest")},
        {"model": interpolation(2)},
    ],
    ids=["tile", "aoi", "dtype", "model", "scale"],
)
def test_work_of_another_job_does_not_count(long_scene, job, tmp_path, change):
    out = tmp_path / "sr.tif"
    with pytest.raises(Stop):
        predict(long_scene, out, **job, progress=stopping(4))
    assert predict(long_scene, out, **job | change).resumed == 0
    assert out.read_bytes() == predict(long_scene, tmp_path / "fresh.tif", **job | change).path.read_bytes()


def test_work_of_another_scene_of_the_same_name_does_not_count(long_scene, job, tmp_path, undisturbed):
    out = tmp_path / "sr.tif"
    with pytest.raises(Stop):
        predict(long_scene, out, **job, progress=stopping(4))
    with rasterio.open(long_scene, "r+") as file:
        file.write(file.read()[:, ::-1])
    os.utime(long_scene, (1, 1))
    assert predict(long_scene, out, **job).resumed == 0
    np.testing.assert_array_equal(read(out)[:, ::-1] == 0, read(tmp_path / "undisturbed.tif") == 0)


def test_work_of_other_weights_with_the_same_specification_does_not_count(long_scene, tmp_path):
    """A model in memory has no file whose hash could tell."""
    out = tmp_path / "sr.tif"
    models = [impulse_model(4, 3), impulse_model(4, 3)]
    models[1].network.weight.mul_(0.5)
    one, other = (SuperResolver(model, device="cpu", precision="fp32") for model in models)
    with pytest.raises(Stop):
        predict(long_scene, out, model=one, tile=1, progress=stopping(4))
    assert predict(long_scene, out, model=other, tile=1).resumed == 0


@contextmanager
def full_disk(limit):
    """No file may become larger than this: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99])
def test_a_full_disk_is_an_error_and_space_is_all_that_it_takes(long_scene, job, tmp_path, undisturbed, share):
    out = tmp_path / "sr.tif"
    with (
        full_disk(int(share * len(undisturbed))),
        pytest.raises(OutputError, match=r"sr\.tif could not be written: File too large"),
    ):
        predict(long_scene, out, **job)
    assert not out.exists()
    assert predict(long_scene, out, **job).resumed >= (6 if share > 0.9 else 1)
    assert out.read_bytes() == undisturbed


@pytest.mark.parametrize("limit", [100, 900, 1500, 2500, 4000])
def test_a_disk_that_fills_up_with_a_few_bytes_is_the_same_error(scene, job, tmp_path, limit):
    """Blocks and lines this small wait in buffers, whose last attempt is made while the files are closed."""
    path, out = scene(np.full((4, 130, 260), 700, "uint16")), tmp_path / "sr.tif"
    with full_disk(limit), pytest.raises(OutputError, match=r"write|written"):
        predict(path, out, **job)
    assert not out.exists()
    predict(path, out, **job)
    assert (read(out) == 700).all()


COMMAND = """
import os, resource, signal, sys
from contextlib import contextmanager
from geosr import cli
from geosr.cli import scenes

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
how, *arguments = sys.argv[1:]
finished = -1

def progress(now, done, total):
    global finished
    finished += 1
    if finished == 3:
        os.kill(os.getpid(), {"int": signal.SIGINT, "kill": signal.SIGKILL}[how])

@contextmanager
def watched(*_, **__):
    yield progress

if how.isdigit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(how), int(how)))
else:
    scenes.progress_bar = watched
sys.argv = ["geosr", "predict", *arguments]
cli.main()
"""
"""The command in a process that the system ends after three tiles, or that may not write larger files than so."""


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("int", 130, "interrupted; the same command continues\n"),
        ("kill", -signal.SIGKILL, ""),
        (
            "full",
            1,
            "sr.tif could not be written: File too large. What is finished is kept; the same command continues\n",
        ),
    ],
    ids=["ctrl-c", "kill -9", "full disk"],
)
def test_a_killed_command_continues_to_the_same_bytes(long_scene, job, tmp_path, undisturbed, how, code, says):
    out = tmp_path / "sr.tif"
    how = str(6 * len(undisturbed) // 10) if how == "full" else how
    options = [text for name, value in job.items() for text in (f"--{name}", str(value))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, how, long_scene, "--out", out, *options],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr.endswith(says)
    assert "Traceback" not in done.stderr
    assert not out.exists(), "a file of the target's name is complete"
    assert predict(long_scene, out, **job).resumed >= (1 if how.isdigit() else 3)
    assert out.read_bytes() == undisturbed
