import json
import logging
import warnings
from datetime import datetime

import dask
import dask.array as da
import numpy as np
import odc.geo.xr
import odc.stac
import pystac
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from calibration_kit import calibrated
from rasterio.windows import Window

import geosr
from geosr.demo import demo_scene
from geosr.errors import BandError, GeosrError, GridError, ModelError, RadiometryError, UsageError
from geosr.grid import finer
from geosr.inference import SuperResolver, predict
from geosr.io.scene import open_scene
from geosr.io.zarr import create_zarr
from geosr.models import Model, ModelSpec
from geosr.testing import impulse_model

BANDS = ("B02", "B03", "B04", "B08")
SCALE, OFFSET = 1e-4, -0.1


@pytest.fixture(autouse=True, scope="module")
def one_task_at_a_time():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def resolver():
    return SuperResolver(impulse_model(2, 3), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def noisy():
    torch.manual_seed(0)
    arguments = {"channels": 8, "blocks": 1, "mean": [0.2] * 4, "std": [0.1] * 4}
    spec = ModelSpec("noisy", "stochastic", 2, BANDS, arguments)
    return SuperResolver(Model(spec), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real scene with an offset and holes: as one file, a file for each band, a Zarr store, and a STAC item."""
    folder = tmp_path_factory.mktemp("scene")
    with rasterio.open(demo_scene()) as file:
        dn = file.read()[:, 100:161, 200:247] + np.uint16(1000)
        transform = rasterio.windows.transform(rasterio.windows.Window(200, 100, 47, 61), file.transform)
        profile = {**file.profile, "driver": "GTiff", "width": 47, "height": 61, "transform": transform}
    dn[:, 10:14, 20:] = dn[:, :, -1] = 0
    profile |= {"blockxsize": 16, "blockysize": 16}
    one_by_one = {folder / f"{band}.tif": [band] for band in BANDS}
    for path, bands in {folder / "scene.tif": BANDS, **one_by_one}.items():
        with rasterio.open(path, "w", **{**profile, "count": len(bands)}) as file:
            file.write(dn if len(bands) == 4 else dn[[BANDS.index(bands[0])]])
            file.descriptions, file.scales, file.offsets = bands, [SCALE] * len(bands), [OFFSET] * len(bands)
    with open_scene(folder / "scene.tif") as scene:
        store = create_zarr(
            folder / "scene.zarr", geobox=scene.geobox, bands=BANDS, radiometry=scene.radiometry, chunk=16, shard=32
        )
        for window in store.windows():
            store.write(window, scene.read_digital(window))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the specification of Zarr v3
        rioxarray.open_rasterio(folder / "scene.tif").to_dataset(name="cube").to_zarr(folder / "plain.zarr")
    footprint = scene.geobox.geographic_extent
    item = pystac.Item("scene", footprint.json, list(footprint.boundingbox), datetime(2024, 5, 1), {})
    for path, (band,) in one_by_one.items():
        raster = {"raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": SCALE, "offset": OFFSET}]}
        item.add_asset(
            band, pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=raster)
        )
    item.save_object(dest_href=str(folder / "item.json"), include_self_link=False)
    return folder


@pytest.fixture(scope="module")
def expected(folder, resolver):
    """Reflectance (band, y, x) that predict writes."""
    out = predict(folder / "scene.tif", folder / "sr.tif", model=resolver, dtype="float32").path
    with rasterio.open(out) as file:
        return file.read()


def open_zarr(path, **kwargs):
    return xr.open_zarr(path, consolidated=False, **kwargs)


def load_stac(folder, **kwargs):
    with open_scene(folder / "scene.tif") as scene:
        geobox = scene.geobox
    item = pystac.Item.from_dict(json.loads((folder / "item.json").read_text()))
    return odc.stac.load([item], bands=BANDS, geobox=geobox, chunks={"x": 20, "y": 30}, **kwargs)


def like_stackstac(folder, *, raw):
    """What stackstac.stack returns: coordinates are the corners of pixels, and facts of the item are coordinates."""
    with rasterio.open(folder / "scene.tif") as file:
        dn, transform, crs = file.read(), file.transform, file.crs
    values = dn[None] if raw else np.where(dn == 0, np.nan, dn * SCALE + OFFSET)[None]
    rows, columns = np.arange(dn.shape[1]), np.arange(dn.shape[2])
    described = np.empty(4, object)
    described[:] = [{"nodata": 0, "data_type": "uint16", "scale": SCALE, "offset": OFFSET}] * 4
    return xr.DataArray(
        da.from_array(values, chunks=(1, 1, 25, 30)),
        {
            "time": [np.datetime64("2024-05-01", "ns")], "id": ("time", ["scene"]),
            "band": ["blue", "green", "red", "nir"], "common_name": ("band", ["blue", "green", "red", "nir"]),
            "raster:bands": ("band", described), "epsg": crs.to_epsg(),
            "x": transform.c + transform.a * columns, "y": transform.f + transform.e * rows,
        },
        ("time", "band", "y", "x"), name="stackstac-1234",
        attrs={"spec": "RasterSpec(...)", "crs": f"epsg:{crs.to_epsg()}", "transform": transform, "resolution": 10.0},
    )  # fmt: skip


READERS = {
    "rioxarray": lambda f: rioxarray.open_rasterio(f / "scene.tif"),
    "rioxarray, masked": lambda f: rioxarray.open_rasterio(f / "scene.tif", masked=True),
    "rioxarray, scaled": lambda f: rioxarray.open_rasterio(f / "scene.tif", mask_and_scale=True),
    "rioxarray, chunks": lambda f: rioxarray.open_rasterio(f / "scene.tif", chunks={"x": 20, "y": 16, "band": 1}),
    "rioxarray, masked chunks": lambda f: rioxarray.open_rasterio(f / "scene.tif", chunks={"x": 32}, masked=True),
    "rioxarray, variables": lambda f: rioxarray.open_rasterio(f / "scene.tif", band_as_variable=True),
    "engine": lambda f: xr.open_dataset(f / "scene.tif", engine="rasterio"),
    "engine, raw chunks": lambda f: xr.open_dataset(
        f / "scene.tif", engine="rasterio", mask_and_scale=False, chunks={"y": 32}
    ),
    "geosr zarr": lambda f: open_zarr(f / "scene.zarr"),
    "geosr zarr, raw": lambda f: open_zarr(f / "scene.zarr", mask_and_scale=False),
    "plain zarr": lambda f: open_zarr(f / "plain.zarr"),
    "plain zarr, its array": lambda f: open_zarr(f / "plain.zarr")["cube"],
    "geosr.open": lambda f: geosr.open(f / "scene.tif", chunks=20),
    "geosr.open, files": lambda f: geosr.open([f / f"{band}.tif" for band in BANDS]),
    "stackstac": lambda f: like_stackstac(f, raw=False),
    "stackstac, raw": lambda f: like_stackstac(f, raw=True),
}


def stacked(obj):
    """The values of an object that holds one image, (band, y, x)."""
    if isinstance(obj, xr.Dataset):
        (*bands,) = (one for one in obj.data_vars.values() if one.ndim > 1)
        obj = bands[0] if len(bands) == 1 else xr.concat(bands, "band", coords="minimal", compat="override")
    return np.asarray(obj.squeeze())


@pytest.mark.filterwarnings("ignore:grid_mapping=spatial_ref is not pointing:UserWarning")  # odc-geo, of plain stores
@pytest.mark.parametrize("reader", READERS)
def test_what_readers_return_becomes_what_predict_writes(folder, resolver, expected, reader):
    obj = READERS[reader](folder)
    sr = obj.geosr.superresolve(resolver)
    assert type(sr) is type(obj)
    got = stacked(sr.geosr.reflectance())
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    exact = np.asarray(stacked(sr)).dtype.kind == "f"
    assert np.nanmax(np.abs(got - expected)) <= (1e-5 if exact else 0.5 * SCALE + 1e-5)
    with open_scene(folder / "scene.tif") as scene:
        fine = finer(scene.geobox, 2)
    placed = sr if isinstance(sr, xr.DataArray) else next(one for one in sr.data_vars.values() if one.ndim > 1)
    for axis, name in (("y", "y"), ("x", "x")):
        assert placed[name].dtype == np.float64
        np.testing.assert_array_equal(placed[name], fine.coordinates[axis].values)
    if reader != "plain zarr, its array":  # xarray leaves the CRS behind
        assert placed.odc.crs == fine.crs
        assert placed.odc.geobox.affine == fine.affine


@pytest.mark.parametrize("reader", READERS)
def test_names_dimensions_and_all_that_is_not_of_pixels_stay(folder, resolver, reader):
    obj = READERS[reader](folder)
    sr = obj.geosr.superresolve(resolver)
    assert dict(sr.sizes) == {**obj.sizes, "y": 122, "x": 94}
    pairs = [(obj, sr)] if isinstance(obj, xr.DataArray) else [(obj[name], sr[name]) for name in sr.data_vars]
    assert pairs
    for before, after in pairs:
        assert (before.name, before.dims, before.dtype) == (after.name, after.dims, after.dtype)
        assert before.attrs.keys() - after.attrs.keys() <= {"geosr:complete", "spec"}
        lost = before.encoding.keys() - after.encoding.keys()
        assert lost <= {"chunks", "preferred_chunks", "shards", "source", "original_shape"}
        assert not after.encoding.keys() & {"chunks", "preferred_chunks", "shards", "source"}
    promoted = ["spatial_ref"] if reader == "plain zarr" else []  # where readers of the CRS find it
    assert sorted(sr.coords) == sorted([*obj.coords, *promoted])
    for name in set(obj.coords) - {"x", "y", "spatial_ref", "raster:bands"}:
        xr.testing.assert_identical(
            obj[name].drop_vars(list(obj[name].coords)), sr[name].drop_vars(list(sr[name].coords))
        )
    if "spatial_ref" in obj.coords:
        with open_scene(folder / "scene.tif") as scene:
            gdal = finer(scene.geobox, 2).affine.to_gdal()
        assert tuple(map(float, sr.spatial_ref.attrs["GeoTransform"].split())) == gdal


@pytest.mark.parametrize("reader", ["rioxarray", "geosr zarr", "geosr.open"])
def test_the_input_is_left_as_it_was(folder, resolver, reader):
    obj = READERS[reader](folder)
    before = obj.copy(deep=True)
    attrs, encoding = dict(obj.attrs), dict(obj.encoding)
    obj.geosr.superresolve(resolver)
    xr.testing.assert_identical(obj, before)
    assert (obj.attrs, obj.encoding) == (attrs, encoding)


def test_odc_stac_is_silent_about_units_and_asks(folder, resolver, expected):
    cube = load_stac(folder)
    with pytest.raises(
        RadiometryError, match=r"the Dataset holds uint16 values and says nothing.*(?s:.*)scale=1e-4, off"
    ):
        cube.geosr.superresolve(resolver)
    sr = cube.geosr.superresolve(resolver, sensor="sentinel-2-l2a", baseline="05.09")
    assert sr.B08.dims == ("time", "y", "x")
    assert sr.B08.attrs["scale_factor"] == SCALE
    got = stacked(sr.geosr.reflectance())
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert np.nanmax(np.abs(got - expected)) <= 0.5 * SCALE + 1e-5
    xr.testing.assert_identical(sr.time.drop_vars("spatial_ref"), cube.time.drop_vars("spatial_ref"))


def test_the_shipped_model_that_fits_is_chosen(folder, caplog):
    scene = geosr.open(folder / "scene.tif").assign(SCL=(("y", "x"), np.zeros((61, 47), "uint8")))
    with caplog.at_level(logging.INFO, "geosr"):
        sr = scene.geosr.superresolve(device="cpu", precision="fp32")
    assert sr.sizes["x"] == 4 * 47
    assert list(sr) == list(BANDS)
    assert "model s2-rgbn-x4 has no SCL: left out" in caplog.text


def test_a_result_names_its_model_as_the_tags_of_a_file_do(folder, tmp_path):
    done = geosr.predict(folder / "scene.tif", tmp_path / "sr.tif", device="cpu", precision="fp32")
    sr = geosr.open(folder / "scene.tif").geosr.superresolve(device="cpu", precision="fp32")
    with rasterio.open(done.path) as file:
        tags = file.tags()
    assert {name: tags[name] for name in sr.attrs if name.startswith("GEOSR_")} == {
        "GEOSR_VERSION": geosr.__version__,
        "GEOSR_MODEL": "s2-rgbn-x4",
        "GEOSR_WEIGHTS_SHA256": done.weights_sha256,
    }
    assert sr.attrs["GEOSR_WEIGHTS_SHA256"] == done.weights_sha256


def test_a_series_in_any_order_of_dimensions_is_done_date_by_date(folder, resolver, expected):
    one = READERS["rioxarray"](folder)
    times = np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]")
    series = xr.concat([one, one.where(one.x > one.x[9], 0)], xr.DataArray(times, dims="time", name="time"))
    series = series.assign_coords(cloud=("time", [1, 2]), row=("y", np.arange(61))).astype("uint16")
    series.attrs = dict(one.attrs)
    odd = series.transpose("x", "band", "time", "y")
    for cube in (odd, odd.chunk({"x": 21, "y": 30, "band": 1, "time": 1})):
        sr = cube.geosr.superresolve(resolver)
        assert sr.dims == ("x", "band", "time", "y")
        assert "row" not in sr.coords
        xr.testing.assert_identical(sr.cloud.drop_vars("spatial_ref"), odd.cloud.drop_vars("spatial_ref"))
        got = sr.geosr.reflectance().transpose("time", "band", "y", "x")
        np.testing.assert_allclose(got[0], expected, atol=0.5 * SCALE + 1e-5)
        alone = series.isel(time=1).geosr.superresolve(resolver).geosr.reflectance()
        np.testing.assert_array_equal(got[1], alone)


def test_bands_keep_their_names_when_they_are_left_out_or_reordered(folder, resolver, expected):
    one = READERS["rioxarray"](folder)
    mixed = one.isel(band=[3, 0, 2, 1])
    sr = mixed.geosr.superresolve(resolver)
    np.testing.assert_array_equal(sr, one.geosr.superresolve(resolver).isel(band=[3, 0, 2, 1]))
    assert sr.band.values.tolist() == mixed.band.values.tolist() == [4, 1, 3, 2]
    with pytest.raises(ModelError, match=r"3 bands \(B08 B04 B03\); model"):
        one.isel(band=[3, 2, 1]).geosr.superresolve("s2-rgbn-x4")


def test_a_single_band_needs_no_dimension(folder):
    resolver = SuperResolver(impulse_model(2, 3, bands=("B08",)), device="cpu", precision="fp32")
    one = READERS["rioxarray"](folder).sel(band=4)
    sr = one.geosr.superresolve(resolver)
    assert sr.dims == ("y", "x")
    assert sr.band == 4
    assert sr.shape == (122, 94)


def test_bands_without_names_are_named_by_the_user(folder, resolver):
    one = READERS["rioxarray"](folder)
    del one.attrs["long_name"]
    with pytest.raises(ModelError, match=r'4 bands without names;.*(?s:.*)bands=\["B02"'):
        one.geosr.superresolve("s2-rgbn-x4")
    named = one.geosr.superresolve(resolver, bands=BANDS)
    np.testing.assert_array_equal(named, READERS["rioxarray"](folder).geosr.superresolve(resolver))
    with pytest.raises(BandError, match="names 2 bands"):
        one.geosr.superresolve(resolver, bands=("B02", "B03"))


def test_bands_on_another_grid_are_named(folder, resolver):
    scene = geosr.open(folder / "scene.tif")
    coarse = scene.B08.coarsen(y=2, x=2, boundary="trim").max().rename(y="y_20m", x="x_20m")
    mixed = scene.drop_vars("B08").assign(B08=coarse)
    with pytest.raises(GridError, match=r"different grids \(B02 B03 B04: x 47, y 61; B08: x_20m 23, y_20m 30\)"):
        mixed.geosr.superresolve(resolver)
    with pytest.raises(GridError, match="different grids"):
        mixed.geosr.reflectance()
    assert mixed.geosr.rgb(stretch=(0, 1)).shape == (61, 47, 3)  # needs none of the others


@pytest.mark.parametrize("reader", ["geosr.open", "rioxarray", "geosr zarr"])
def test_an_ensemble_brings_its_spread(folder, noisy, tmp_path, reader):
    out = predict(folder / "scene.tif", tmp_path / "sr.tif", model=noisy, samples=3, seed=5, dtype="float32").path
    with rasterio.open(out) as file:
        expected = file.read()
    obj = READERS[reader](folder)
    sr = obj.geosr.superresolve(noisy, ensemble=3, seed=5)
    if isinstance(obj, xr.Dataset) and "B02" in obj:
        assert list(sr) == [*BANDS, *(f"{band}_spread" for band in BANDS)]
        assert sr.B02_spread.dtype == np.uint16
        assert sr.B02_spread.attrs["add_offset"] == pytest.approx(-SCALE)  # DN 0 is nodata
        decoded = xr.decode_cf(sr)
        assert decoded.B02.encoding["add_offset"] == pytest.approx(OFFSET)
        got = np.stack([decoded[name] for name in sr])
        assert np.nanmax(np.abs(got - expected)) <= 0.5 * SCALE + 1e-5
    else:
        array = sr if isinstance(sr, xr.DataArray) else sr.reflectance
        assert array.band.values.tolist() == [*BANDS, *(f"{band}_spread" for band in BANDS)]
        np.testing.assert_allclose(array, expected, atol=1e-5)


@pytest.mark.parametrize("reader", ["geosr.open", "rioxarray"])
def test_errors_and_the_mean_of_orientations_are_those_of_predict(folder, tmp_path, reader):
    resolver = SuperResolver(calibrated(impulse_model(2, 3)), device="cpu", precision="fp32")
    both = {"tta": True, "confidence": True}
    out = predict(folder / "scene.tif", tmp_path / "sr.tif", model=resolver, dtype="float32", **both).path
    with rasterio.open(out) as file:
        expected = file.read()
    sr = READERS[reader](folder).geosr.superresolve(resolver, **both)
    assert (sr.attrs["GEOSR_TTA"], sr.attrs["GEOSR_CONFIDENCE"]) == (
        "mean of 8 orientations",
        "expected absolute error",
    )
    if isinstance(sr, xr.Dataset):
        assert list(sr) == [*BANDS, *(f"{band}_error" for band in BANDS)]
        assert sr.B02_error.attrs["add_offset"] == pytest.approx(-SCALE)  # DN 0 is nodata
        decoded = xr.decode_cf(sr)
        np.testing.assert_allclose(np.stack([decoded[name] for name in sr]), expected, atol=0.5 * SCALE + 1e-5)
    else:
        assert sr.band.values.tolist() == [*BANDS, *(f"{band}_error" for band in BANDS)]
        np.testing.assert_allclose(sr, expected, atol=1e-5)


def test_a_variant_is_of_the_shipped_models(folder):
    scene = geosr.open(folder / "scene.tif")
    with pytest.raises(UsageError, match="chosen among the shipped models; leave it out, or the model"):
        scene.geosr.superresolve("s2-rgbn-x4", variant="fast")
    assert scene.geosr.superresolve(variant="standard").attrs["GEOSR_MODEL"] == "s2-rgbn-x4"


def test_a_model_without_noise_has_no_ensemble(folder, resolver):
    with pytest.raises(UsageError, match="takes no noise"):
        READERS["rioxarray"](folder).geosr.superresolve(resolver, ensemble=3)


@pytest.mark.parametrize("reader", ["rioxarray, chunks", "geosr zarr", "geosr.open", "stackstac, raw"])
def test_lazy_calls_compute_nothing(folder, resolver, reader):
    obj = READERS[reader](folder)

    def fail(block):
        raise AssertionError("a chunk was computed")

    lazy = (
        obj.map(lambda one: one.copy(data=one.data.map_blocks(fail, dtype=one.dtype, meta=one.data._meta)))
        if (isinstance(obj, xr.Dataset))
        else obj.copy(data=obj.data.map_blocks(fail, dtype=obj.dtype, meta=obj.data._meta))
    )
    if isinstance(obj, xr.Dataset):
        for name in lazy.data_vars:
            lazy[name].encoding = obj[name].encoding
    sr = lazy.geosr.superresolve(resolver)
    lazy.geosr.reflectance()
    lazy.geosr.rgb(stretch=(0, 0.3))
    assert "uint16" in str(lazy.geosr.info()) or "float64" in str(lazy.geosr.info())
    with pytest.raises(AssertionError, match="a chunk was computed"):
        sr.compute()


def counted(obj):
    """The lazy DataArray, and a list that grows by each chunk of it that is computed."""
    seen = []

    def see(block):
        seen.append(block.shape)
        return block

    return obj.copy(data=obj.data.map_blocks(see, dtype=obj.dtype, meta=obj.data._meta)), seen


@pytest.mark.filterwarnings("ignore:The codec:UserWarning", "ignore:Consolidated metadata:UserWarning")
@pytest.mark.parametrize("writer", ["to_zarr", "rio.to_raster", "odc cog"])
def test_writers_compute_every_chunk_once(folder, resolver, tmp_path, writer):
    one = rioxarray.open_rasterio(folder / "scene.tif", chunks={"x": 23, "y": 20, "band": 1})  # slivers at the end
    lazy, seen = counted(one)
    sr = lazy.geosr.superresolve(resolver)
    if writer == "to_zarr":
        sr.to_dataset(name="sr").to_zarr(tmp_path / "sr.zarr", consolidated=False)
        back = xr.open_zarr(tmp_path / "sr.zarr", consolidated=False, mask_and_scale=False)["sr"].values
    elif writer == "rio.to_raster":
        sr.rio.to_raster(tmp_path / "sr.tif")
        with rasterio.open(tmp_path / "sr.tif") as file:
            back = file.read()
            assert (file.nodata, file.scales[0], file.offsets[0]) == (0, SCALE, OFFSET)
            assert file.transform.a == 5
    else:
        from odc.geo.cog import to_cog

        (tmp_path / "sr.tif").write_bytes(to_cog(sr))
        with rasterio.open(tmp_path / "sr.tif") as file:
            back = file.read()
            assert file.transform.a == 5
    assert len(seen) == one.data.npartitions
    np.testing.assert_array_equal(back, one.compute().geosr.superresolve(resolver))


@pytest.mark.parametrize("reader", ["rioxarray, scaled", "rioxarray, masked", "engine"])
def test_decoded_values_are_written_as_the_integers_that_predict_writes(folder, resolver, tmp_path, reader):
    with rasterio.open(predict(folder / "scene.tif", tmp_path / "predicted.tif", model=resolver).path) as file:
        expected = file.read()
    sr = READERS[reader](folder).geosr.superresolve(resolver)
    sr = sr if isinstance(sr, xr.DataArray) else sr.band_data
    assert sr.dtype.kind == "f"
    sr.rio.to_raster(tmp_path / "sr.tif")
    with rasterio.open(tmp_path / "sr.tif") as file:
        got = file.read()
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got == 0, expected == 0)
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_colours_are_stretched(folder):
    scene = geosr.open(folder / "scene.tif", chunks=20)
    values = scene.geosr.reflectance()
    lazy = scene.geosr.rgb(stretch=(0.05, 0.25))
    assert lazy.chunks is not None
    assert lazy.dims == ("y", "x", "rgb")
    expected = ((np.stack([values.B04, values.B03, values.B02], -1) - 0.05) / 0.2).clip(0, 1)
    np.testing.assert_allclose(lazy, expected, atol=1e-6)
    shown = scene.geosr.rgb().values
    assert np.nanmin(shown) == 0
    assert np.nanmax(shown) == 1
    assert 0.005 < np.mean(shown[np.isfinite(shown)] == 0) < 0.02
    with pytest.raises(UsageError, match="no range"):
        scene.geosr.rgb(stretch=(0.3, 0))


def test_facts_say_who_said_them(folder):
    text = repr(READERS["engine"](folder).geosr.info())
    assert "B02 B03 B04 B08" in text
    assert "0.0001 (encoding)" in text
    assert "-0.1 (encoding)" in text
    assert "s2-rgbn-x4" in text
    assert "<table>" in READERS["engine"](folder).geosr.info()._repr_html_()
    silent = xr.DataArray(np.ones((4, 5, 6), "uint16"), dims=("band", "y", "x"))
    text = repr(silent.geosr.info())
    assert "says nothing about their unit" in text
    assert "lies on no grid" in text


def test_real_imagery_goes_through_files_and_arrays_alike(shared_data, tmp_path):
    path = tmp_path / "sundarbans.tif"  # on a grid of degrees
    with rasterio.open(shared_data / "s2_more" / "sundarbans.tif") as whole:
        window = Window(20, 30, 190, 170)
        with rasterio.open(
            path, "w", **whole.profile | {"width": 190, "height": 170, "transform": whole.window_transform(window)}
        ) as crop:
            crop.write(whole.read(window=window))
            crop.descriptions, crop.scales, crop.offsets = whole.descriptions, whole.scales, whole.offsets
    resolver = geosr.load_model("s2-rgbn-x2", device="cpu", precision="fp32")
    with open_scene(path) as scene:
        silent = not _says_units(scene)
    encoding = {"scale": 1e-4, "nodata": 0} if silent else {}
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=resolver, **encoding).path) as file:
        expected, bounds = file.read(), file.bounds
    cube = rioxarray.open_rasterio(path, chunks={"x": 100, "y": 90})
    sr = cube.geosr.superresolve(resolver, **encoding)
    assert np.abs(sr.values.astype(float) - expected).max() <= 1
    assert sr.rio.bounds() == pytest.approx(tuple(bounds), abs=1e-12)


def _says_units(scene):
    try:
        return bool(scene.radiometry)
    except GeosrError:
        return False
