"""What a result keeps of its input: invalid pixels, the order, names and colours of bands, and the way its rows run."""

import json
import logging

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from calibration_kit import calibrated

import geosr as package
from geosr.inference import SuperResolver, load_model, predict
from geosr.io.inputs import open_input
from geosr.io.scene import open_scene
from geosr.models import Model, ModelSpec

BANDS = ("B02", "B03", "B04", "B08")
NAIP = ("red", "green", "blue", "nir")
SHAPE = (24, 20)


def resolver_of(model):
    return SuperResolver(model, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def nearest():
    spec = ModelSpec("nearest", "interpolation", 2, BANDS, {"mode": "nearest"}, consistency_mtf=None)
    return resolver_of(Model(spec))


@pytest.fixture(scope="module")
def network():
    """A network that treats each band, row and column in its own way, and knows its errors."""
    torch.manual_seed(1)
    spec = ModelSpec("small", "compact", 2, BANDS, {"channels": 8, "blocks": 2, "mean": [0.1] * 4, "std": [0.1] * 4})
    return resolver_of(calibrated(Model(spec)))


def numbers(dtype="uint16", shape=SHAPE):
    """Digital numbers of four bands; some valid ones are 0."""
    dn = np.random.default_rng(0).integers(30, 250, (4, *shape)).astype(dtype)
    dn[:, 3:5, 2:4] = 0
    return dn


VALID = np.ones(SHAPE, bool)
VALID[:, 13:] = VALID[10:12, 5] = False


def masked(make_raster, how, dn=None, **options):
    """A scene without nodata in which a mask of this kind leaves out all but `VALID`, and what to tell `predict`."""
    path = make_raster(numbers() if dn is None else dn, scale=1e-3, **{"descriptions": BANDS} | options)
    if how == "classification":
        make_raster(np.where(VALID, 4, 9)[None], name="scene_SCL.tif", dtype="uint8")
        return path, {"mask": ("clouds",)}
    internal = how == "internal"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(VALID)
    assert path.with_name("scene.tif.msk").exists() is not internal
    return path, {}


def finer(image):
    return image.repeat(2, -2).repeat(2, -1)


def digital(target):
    """All bands of a result, and their nodata."""
    if target.suffix:
        with open_scene(target) as scene:
            return scene.read_digital(), scene.radiometry.nodata
    planes = []
    for band in BANDS:
        with rasterio.open(target / f"{band}.tif") as file:
            planes.append(file.read(1))
            assert ((file.dataset_mask() > 0) == finer(VALID)).all()
    return np.stack(planes), file.nodata


@pytest.mark.parametrize("how", ["internal", "msk", "classification"])
@pytest.mark.parametrize("out", ["sr.tif", "sr.zarr", "bands"])
def test_what_a_mask_leaves_out_is_nodata_and_valid_zeros_are_one(make_raster, nearest, tmp_path, caplog, how, out):
    path, said = masked(make_raster, how)
    with caplog.at_level(logging.INFO):
        predict(path, tmp_path / out, model=nearest, **said)
    assert "marks invalid pixels without nodata: the output has nodata 0" in caplog.text
    dn, nodata = digital(tmp_path / out)
    assert nodata == 0
    np.testing.assert_array_equal(dn, finer(np.where(VALID, np.maximum(numbers(), 1), 0)))


@pytest.mark.parametrize("how", ["internal", "classification"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_mask_reaches_every_type(make_raster, nearest, tmp_path, how, dtype):
    path, said = masked(make_raster, how, numbers(dtype))
    with open_scene(predict(path, tmp_path / "sr.tif", model=nearest, **said).path) as sr:
        np.testing.assert_array_equal(sr.read().valid, finer(VALID))
        assert sr.dtype == dtype
        assert (sr.radiometry.nodata == 0) is (dtype != "float32")
    predict(path, tmp_path / "float.tif", model=nearest, dtype="float32", **said)
    with rasterio.open(tmp_path / "float.tif") as file:
        np.testing.assert_array_equal(np.isnan(file.read(1)), ~finer(VALID))


def test_a_scene_without_masks_keeps_its_zeros_and_has_no_nodata(make_raster, nearest, tmp_path):
    path = make_raster(numbers(), scale=1e-3, descriptions=BANDS)
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=nearest).path) as file:
        assert file.nodata is None
        np.testing.assert_array_equal(file.read(), finer(numbers()))


def test_errors_are_invalid_where_the_bands_are_and_no_valid_one_is_nodata(make_raster, network, tmp_path):
    path, _ = masked(make_raster, "internal")
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=network, confidence=True).path) as file:
        for number in file.indexes:
            np.testing.assert_array_equal(file.read(number) > 0, finer(VALID))


def test_a_saturated_pixel_is_invalid_in_a_type_without_nodata(make_raster, nearest, tmp_path):
    from geosr.io.zarr import create_zarr
    from geosr.radiometry import Radiometry

    with open_scene(make_raster(numbers(), scale=1e-3, descriptions=BANDS)) as scene:
        geobox = scene.geobox
    radiometry = Radiometry(1e-3, saturated=249)
    writer = create_zarr(tmp_path / "lr.zarr", geobox=geobox, bands=BANDS, radiometry=radiometry)
    writer.write((slice(0, 24), slice(0, 20)), numbers())
    valid = (numbers() != 249).all(axis=0)
    with open_scene(predict(tmp_path / "lr.zarr", tmp_path / "sr.zarr", model=nearest).path) as sr:
        assert sr.radiometry.nodata == 0
        np.testing.assert_array_equal(sr.read().valid, finer(valid))
    made = package.open(tmp_path / "lr.zarr").geosr.superresolve(nearest)
    np.testing.assert_array_equal(made.B04 == 0, ~finer(valid))
    assert made.B04.attrs["_FillValue"] == 0


def test_the_accessor_leaves_out_what_predict_leaves_out(make_raster, network, tmp_path):
    path, said = masked(make_raster, "classification", np.maximum(numbers(), 1))
    made = package.open(path, **said).geosr.superresolve(network)
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=network, **said).path) as file:
        np.testing.assert_array_equal([made[band] for band in BANDS], file.read())
    assert made.B02.attrs["_FillValue"] == 0


@pytest.mark.parametrize("given", [False, True], ids=["described", "named by the user"])
@pytest.mark.parametrize(
    ("names", "order", "colours"),
    [
        (NAIP, (2, 1, 0, 3), ["red", "green", "blue", "nir"]),
        (("B08", "B4", "Band 3", "blue"), (3, 2, 1, 0), ["nir", "red", "green", "blue"]),
        (BANDS, (0, 1, 2, 3), ["blue", "green", "red", "nir"]),
    ],
)
def test_bands_keep_their_order_names_and_colours(make_raster, network, tmp_path, names, order, colours, given):
    expected = predict(
        make_raster(numbers(), nodata=0, scale=1e-3, descriptions=BANDS), tmp_path / "a.tif", model=network
    )
    with rasterio.open(expected.path) as file:
        sr = file.read()[list(order)]
    said = {"bands": names} if given else {}
    dn = numbers()[list(order)]
    path = make_raster(dn, name="other.tif", nodata=0, scale=1e-3, descriptions=None if given else names)
    for out in ("sr.tif", "sr.zarr", "bands/"):
        assert predict(path, f"{tmp_path}/{out}", model=network, **said).bands == names
    with rasterio.open(tmp_path / "sr.tif") as file:
        np.testing.assert_array_equal(file.read(), sr)
        assert file.descriptions == names
        assert [colour.name for colour in file.colorinterp] == colours
    with open_scene(tmp_path / "sr.zarr") as scene:
        assert scene.labels == names
        np.testing.assert_array_equal(scene.read_digital(), sr)
    for name, plane in zip(names, sr, strict=True):
        with rasterio.open(tmp_path / "bands" / f"{name}.tif") as file:
            np.testing.assert_array_equal(file.read(1), plane)
            assert (file.descriptions, file.colorinterp[0].name) == ((name,), "gray")


def test_bands_that_the_model_has_not_are_left_out_and_the_others_stay_in_order(make_raster, network, tmp_path, caplog):
    dn = numbers()[[3, 0, 2, 1, 0]]
    path = make_raster(dn, nodata=0, scale=1e-3, descriptions=["nir", "swir16", "red", "green", "blue"])
    with caplog.at_level(logging.INFO):
        made = predict(path, tmp_path / "sr.tif", model=network)
    assert made.bands == ("nir", "red", "green", "blue")
    assert "model small has no swir16: left out of the output" in caplog.text


def test_errors_follow_in_the_same_order_and_are_found_again_by_any_name(make_raster, network, tmp_path):
    options = {"nodata": 0, "scale": 1e-3}
    one = predict(
        make_raster(numbers(), descriptions=BANDS, **options), tmp_path / "a.tif", model=network, confidence=True
    )
    path = make_raster(numbers()[[2, 1, 0, 3]], name="b.tif", descriptions=NAIP, **options)
    other = predict(path, tmp_path / "c.tif", model=network, confidence=True)
    assert other.bands == (*NAIP, *(f"{name}_error" for name in NAIP))
    with open_scene(one.path) as first, open_scene(other.path) as second:
        assert second.bands[4] == "B04_error"
        for name in ("B04", "red_error", "B08_error"):
            np.testing.assert_array_equal(first.read_digital(bands=[name]), second.read_digital(bands=[name]))
    with rasterio.open(other.path) as file:
        assert [colour.name for colour in file.colorinterp] == ["red", "green", "blue", "nir", *["undefined"] * 4]


def test_an_array_keeps_the_order_and_the_labels_of_its_bands(make_raster, network):
    import xarray as xr

    path = make_raster(numbers(), nodata=0, scale=1e-3, descriptions=BANDS)
    data = package.open(path).to_dataarray("band").assign_attrs(scale_factor=1e-3, add_offset=0.0, _FillValue=0)
    expected = data.geosr.superresolve(network)
    mixed = data.isel(band=[2, 1, 0, 3]).assign_coords(band=list(NAIP))
    made = mixed.geosr.superresolve(network)
    assert made.band.values.tolist() == list(NAIP)
    xr.testing.assert_equal(made.drop_vars("band"), expected.isel(band=[2, 1, 0, 3]).drop_vars("band"))
    sure = mixed.geosr.superresolve(network, confidence=True)
    assert sure.band.values.tolist() == [*NAIP, *(f"{name}_error" for name in NAIP)]
    counted = mixed.assign_coords(band=[1, 2, 3, 4]).assign_attrs(long_name=NAIP)
    assert counted.geosr.superresolve(network, confidence=True).band.values.tolist() == sure.band.values.tolist()


def turned_scenes(make_raster, dn, **options):
    """The same ground with rows from north or south, and columns from west or east, and how each is turned."""
    height, width = dn.shape[1:]
    for down, right in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        left, top = 400_000 + (10 * width if right < 0 else 0), 5_000_000 - (10 * height if down < 0 else 0)
        transform = Affine(10 * right, 0, left, 0, -10 * down, top)
        array = dn[:, ::down, ::right]
        path = make_raster(array, name=f"{down}{right}.tif", descriptions=BANDS, transform=transform, **options)
        yield path, (slice(None), slice(None, None, down), slice(None, None, right))


def test_the_same_ground_gives_the_same_pixels_however_its_rows_run(make_raster, network, tmp_path):
    (first, _), *others = turned_scenes(make_raster, numbers(shape=(33, 29)), nodata=0, scale=1e-3)
    options = {"model": network, "dtype": "float32", "confidence": True}
    with rasterio.open(predict(first, tmp_path / "sr.tif", **options).path) as file:
        expected = file.read()
    array = package.open(first).geosr.superresolve(network)
    for path, turn in others:
        with rasterio.open(predict(path, tmp_path / "sr.tif", overwrite=True, **options).path) as file:
            np.testing.assert_array_equal(file.read()[turn], expected)
            assert file.transform.e == rasterio.open(path).transform.e / 2
        for chunks in (None, 12):
            made = package.open(path, chunks=chunks).geosr.superresolve(network)
            np.testing.assert_allclose(made.B04.values.astype(int)[turn[1:]], array.B04, atol=1 if chunks else 0)


def test_real_ground_in_tiles_gives_the_same_pixels_however_its_rows_run(shared_data, make_raster, tmp_path):
    with rasterio.open(shared_data / "s2" / "danube_a_10m.tif") as file:
        dn = file.read(window=((200, 350), (300, 431)))
    dn[:, 60:70, :17] = 0
    resolver = load_model("s2-rgbn-x4-fast", device="cpu", precision="fp32")
    made = []
    for path, turn in list(turned_scenes(make_raster, dn, nodata=0, scale=1e-4))[::3]:
        done = predict(path, tmp_path / "sr.tif", model=resolver, dtype="float32", tile=128, overwrite=True)
        assert done.tiles == 4
        with rasterio.open(done.path) as file:
            made.append(file.read()[turn])
    np.testing.assert_allclose(made[1], made[0], rtol=0, atol=1e-6)


def test_a_description_that_is_no_file_name_becomes_one(make_raster, tmp_path):
    spec = ModelSpec("nearest", "interpolation", 2, ("pan/550:750",), {"mode": "nearest"}, consistency_mtf=None)
    path = make_raster(numbers()[:1], nodata=0, scale=1e-3, descriptions=["pan/550:750"])
    predict(path, tmp_path / "bands", model=resolver_of(Model(spec)))
    with rasterio.open(tmp_path / "bands" / "pan_550_750.tif") as file:
        assert file.descriptions == ("pan/550:750",)


def test_the_command_takes_a_factor(geosr, make_raster, tmp_path):
    path = make_raster(numbers(), nodata=0, scale=1e-3, descriptions=NAIP)
    code, said, _ = geosr("predict", path, "-o", tmp_path / "sr.tif", "--factor", 2, "--fast", "--json")
    assert (code, json.loads(said)["model"]) == (0, "s2-rgbn-x2-fast")
    code, _, said = geosr("predict", path, "-o", tmp_path / "x.tif", "--factor", 3)
    assert code == 2
    assert "has factor 3; there are models of factor 2 4" in said
    code, _, said = geosr("predict", path, "-o", tmp_path / "x.tif", "--factor", 4, "--model", "s2-rgbn-x2")
    assert code == 2
    assert "model 's2-rgbn-x2' makes pixels 2 times finer, and factor=4 is asked for" in said


def test_a_folder_of_bands_and_their_errors_is_a_scene_again(make_raster, network, tmp_path, caplog):
    path = make_raster(numbers(), nodata=0, scale=1e-3, descriptions=NAIP)
    predict(path, tmp_path / "sr", model=network, confidence=True, preview=tmp_path / "sr.png")
    assert "flag --bands" not in caplog.text
    with open_input(tmp_path / "sr") as scene, open_scene(tmp_path / "sr" / "red_error.tif") as error:
        assert sorted(scene.labels) == sorted(NAIP)
        assert (error.bands, error.labels) == (("B04_error",), ("red_error",))
