import json
import os
import shutil
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import rasterio
import xarray
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geosr.errors import BandError, GridError, InputError, OutputError, RadiometryError, UsageError
from geosr.io.scene import open_scene
from geosr.io.zarr import create_zarr
from geosr.radiometry import Radiometry

BANDS = ("B02", "B03", "B04", "B08")
UTM = Affine(10, 0, 400_000, 0, -10, 5_000_000)
ENCODING = Radiometry(1e-4, -0.1, nodata=0)
WHOLE = slice(0, 70), slice(0, 90)


def pixels(dtype="uint16"):
    """A scene of 70 x 90 pixels with a few invalid ones."""
    dn = np.random.default_rng(0).integers(1, 200, (4, 70, 90)).astype(dtype)
    dn[:, 3, 5] = 0
    return dn


def grid(transform=UTM, crs="EPSG:32633", shape=(70, 90)):
    return GeoBox(shape, transform, crs)


@pytest.fixture
def store(tmp_path):
    """A factory of stores in small chunks and shards that the edges of the scene cut."""

    def make(inside="", *, geobox=None, dn=None, radiometry=ENCODING, **settings):
        path = str(tmp_path / "scene.zarr") + inside
        settings = {"bands": BANDS, "chunk": 16, "shard": 32, **settings}
        writer = create_zarr(path, geobox=geobox or grid(), radiometry=radiometry, **settings)
        dn = pixels(radiometry.dtype) if dn is None else dn
        for rows, columns in writer.windows():
            writer.write((rows, columns), dn[:, rows, columns])
        return path

    return make


@pytest.mark.parametrize(
    "radiometry",
    [
        ENCODING,
        Radiometry(1e-4, nodata=0, saturated=65535),
        Radiometry(1 / 255, dtype="uint8"),
        Radiometry(1e-4, nodata=-9999, dtype="int16"),
        Radiometry(1.0, nodata=float("nan"), dtype="float32"),
        Radiometry(0.01, nodata=-1.5, dtype="float32"),
    ],
    ids=repr,
)
def test_a_scene_comes_back_with_all_that_it_means(store, radiometry):
    with open_scene(store(radiometry=radiometry)) as scene:
        assert scene.name == "scene.zarr"
        assert scene.bands == scene.descriptions == BANDS
        assert scene.geobox == grid()
        assert repr(scene.radiometry) == repr(radiometry)
        assert scene.facts["scale"] == "CF attributes"
        np.testing.assert_array_equal(scene.read_digital(), pixels(radiometry.dtype))


@pytest.mark.parametrize(
    "geobox",
    [
        grid(Affine(8, 6, 400_000, 6, -8, 5_000_000)),
        grid(Affine(0.1, 0, 12.3, 0, -0.1, 45.6), "EPSG:4326"),
        grid(Affine(10, 0, 400_000, 0, 10, 5_000_000)),
        grid(Affine(1 / 3, 0, 1 / 7, 0, -1 / 3, 1e6 / 7), "+proj=laea +lat_0=52 +lon_0=10 +ellps=WGS84"),
    ],
    ids=["rotated", "degrees", "south up", "no code"],
)
def test_every_grid_comes_back_exactly(store, geobox):
    with open_scene(store(geobox=geobox)) as scene:
        assert scene.geobox.affine == geobox.affine
        assert scene.geobox.crs == geobox.crs
        assert scene.read((slice(5, 9), slice(7, 20))).geobox == geobox[5:9, 7:20]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_crs_comes_back_without(store):
    with open_scene(store(geobox=grid(crs=None))) as scene:
        assert (scene.geobox.crs, scene.geobox.affine) == (None, UTM)


@settings(max_examples=20)
@given(data=st.data())
def test_windows_may_come_in_any_order(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("order") / "scene.zarr"
    writer = create_zarr(path, geobox=grid(), bands=BANDS, radiometry=ENCODING, chunk=16, shard=32)
    dn = pixels()
    edges = sorted({0, 70, *data.draw(st.lists(st.integers(1, 69), max_size=3))})
    windows = [(slice(*rows), slice(*x)) for rows in pairwise(edges) for x in ((0, 41), (41, 90))]
    for rows, columns in data.draw(st.permutations(windows)):
        writer.write((rows, columns), dn[:, rows, columns])
    with open_scene(path) as scene:
        np.testing.assert_array_equal(scene.read_digital(), dn)


def test_shards_partition_the_scene(tmp_path):
    writer = create_zarr(tmp_path / "a.zarr", geobox=grid(), bands=BANDS, radiometry=ENCODING, chunk=16, shard=32)
    count = np.zeros((70, 90), int)
    for window in writer.windows():
        count[window] += 1
    assert (count == 1).all()
    writer = create_zarr(tmp_path / "b.zarr", geobox=grid(), bands=BANDS, radiometry=ENCODING)
    assert (writer.shard, list(writer.windows())) == ((256, 256), [WHOLE])


@pytest.mark.parametrize("radiometry", [ENCODING, Radiometry(1.0, nodata=float("nan"), dtype="float32")], ids=repr)
@pytest.mark.parametrize("transform", [UTM, Affine(8, 6, 400_000, 6, -8, 5_000_000)], ids=["north up", "rotated"])
def test_xarray_and_rioxarray_see_what_geosr_sees(store, radiometry, transform):
    pytest.importorskip("rioxarray")
    dn = pixels(radiometry.dtype)
    if radiometry.dtype == "float32":
        dn *= 1e-4
        dn[:, 3, 5] = np.nan
    path = store(geobox=grid(transform), radiometry=radiometry, dn=dn)
    with open_scene(path) as scene:
        raster = scene.read()
    for decoding in ({}, {"decode_coords": "all"}):
        with xarray.open_zarr(path, consolidated=False, **decoding) as dataset:
            array = dataset["reflectance"]
            assert array.dims == ("band", "y", "x")
            assert array.rio.crs.to_epsg() == 32633
            assert array.rio.transform() == transform
            assert array.attrs["long_name"] == list(BANDS)
            np.testing.assert_equal(array.rio.encoded_nodata, radiometry.nodata)
            np.testing.assert_allclose(array.values, raster.array, rtol=1e-6, atol=1e-7)
    with xarray.open_zarr(path, consolidated=False, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset["reflectance"].values, dn)


def test_coordinates_are_pixel_centres_with_their_meaning(store):
    with xarray.open_zarr(store(), consolidated=False) as dataset:
        np.testing.assert_array_equal(dataset.x, 400_005 + 10 * np.arange(90))
        np.testing.assert_array_equal(dataset.y, 4_999_995 - 10 * np.arange(70))
        assert (dataset.x.standard_name, dataset.x.units) == ("projection_x_coordinate", "metre")
        assert (dataset.y.standard_name, dataset.y.axis) == ("projection_y_coordinate", "Y")


def test_a_group_says_its_grid_in_the_words_of_geozarr(store):
    attributes = zarr.open_group(store(attributes={"title": "a scene"}), mode="r").attrs
    assert attributes["title"] == "a scene"
    assert attributes["proj:code"] == "EPSG:32633"
    assert attributes["spatial:transform"] == list(UTM[:6])
    assert attributes["spatial:bbox"] == [400_000, 4_999_300, 400_900, 5_000_000]
    assert [one["name"] for one in attributes["zarr_conventions"]] == ["spatial", "proj"]


@pytest.mark.parametrize(("shard", "since"), [(32, (3, 13)), (16, (3, 11))], ids=["shards", "no shards"])
def test_gdal_reads_it(store, shard, since):
    if tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) < since:
        pytest.skip(f"GDAL {rasterio.__gdal_version__} reads no such store; {since[0]}.{since[1]} does")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        file = rasterio.open(f'ZARR:"{store(shard=shard)}":/reflectance:2')
    with file:
        assert (file.crs.to_epsg(), file.transform) == (32633, UTM)
        assert (file.nodata, file.scales, file.offsets) == (0, (1e-4,), (-0.1,))
        np.testing.assert_array_equal(file.read(1), pixels()[2])


def test_a_group_may_lie_anywhere_in_a_store(store):
    store("/scenes/a/hr")
    store("/scenes/b/hr", bands=("B02", "B03"), dn=pixels()[:2])
    root = store("/scenes/b/hr", overwrite=True).split("/scenes")[0]
    with open_scene(f"{root}/scenes/b/hr/") as scene:
        assert (scene.name, scene.bands) == ("scene.zarr/scenes/b/hr", BANDS)
    with open_scene(f"{root}/scenes/a") as scene:  # it holds exactly one
        assert scene.name == "scene.zarr/scenes/a/hr"
    with pytest.raises(InputError, match=r"holds 2 rasters; open one of\n  .*scenes/a/hr\n  .*scenes/b/hr$"):
        open_scene(root)


def test_a_store_is_a_folder_of_any_name(store, tmp_path):
    os.rename(store(), tmp_path / "scene")
    with open_scene(tmp_path / "scene") as scene:
        assert scene.bands == BANDS


def test_stores_of_one_grid_make_one_scene(store, tmp_path):
    first, second = (
        store("/visible", bands=BANDS[:3], dn=pixels()[:3]),
        store("/infrared", bands=BANDS[3:], dn=pixels()[3:]),
    )
    with open_scene([first, second]) as scene:
        assert scene.bands == BANDS
        np.testing.assert_array_equal(scene.read_digital(bands=["B08", "B02"]), pixels()[[3, 0]])


def test_what_is_no_raster_is_refused(store, tmp_path):
    path = store("/scenes/a")
    group = zarr.open_group(path.removesuffix("/scenes/a"), mode="a").create_group("index")
    group.create_array("row", data=np.arange(5))
    with pytest.raises(
        InputError, match=r"scene\.zarr/index holds no raster but row \(5,\); a raster group has an array"
    ):
        open_scene(group.store_path.store.root / "index")
    with pytest.raises(InputError, match=r"scene\.zarr/scenes/b does not exist: /scenes has no 'b'; it holds a$"):
        open_scene(path.removesuffix("a") + "b")
    with pytest.raises(InputError, match=r"missing\.zarr does not exist"):
        open_scene(tmp_path / "missing.zarr/scenes")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"empty\.zarr is no Zarr store"):
        open_scene(tmp_path / "empty.zarr")


def test_what_cannot_be_written_is_refused(store, tmp_path):
    path = store("/a")
    arguments = {"geobox": grid(), "bands": BANDS, "radiometry": ENCODING}
    for taken in (path, path.removesuffix("/a")):
        with pytest.raises(OutputError, match="exists; choose another name, or overwrite it"):
            create_zarr(taken, **arguments)
    with pytest.raises(UsageError, match="shard 100 is not a multiple of chunk 16"):
        create_zarr(tmp_path / "b.zarr", chunk=16, shard=100, **arguments)
    writer = create_zarr(tmp_path / "b.zarr", **arguments)
    with pytest.raises(GridError, match=r"dn is uint16 \(4, 70, 89\); the window needs uint16 \(4, 70, 90\)"):
        writer.write(WHOLE, pixels()[:, :, :89])
    with pytest.raises(GridError, match="dn is float64"):
        writer.write(WHOLE, pixels().astype(float))
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr/holiday.jpg").touch()
    with pytest.raises(OutputError, match=r"photos\.zarr exists"):
        create_zarr(tmp_path / "photos.zarr", overwrite=True, **arguments)
    assert (tmp_path / "photos.zarr/holiday.jpg").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written"):
        create_zarr(tmp_path / "file" / "c.zarr", **arguments)


@pytest.mark.parametrize("shard", [32, 16], ids=["shards", "no shards"])
@pytest.mark.parametrize("damage", ["missing", "short", "empty", "flipped"])
def test_a_damaged_store_names_the_window(store, shard, damage):
    path = store(shard=shard)
    file = Path(path, "reflectance/c/0/1/2")
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        changed = {"short": content[:-200], "empty": b"", "flipped": bytes(byte ^ 255 for byte in content)}
        file.write_bytes(changed[damage])
    row, column = shard, 2 * shard
    with open_scene(path) as scene:
        scene.read((slice(0, row), slice(0, column)))
        message = rf"scene\.zarr: rows 0\.\.70, columns {column - 3}\.\.{column + 1} cannot be read \(.*damaged\)"
        with pytest.raises(InputError, match=message) as caught:
            scene.read((slice(0, 70), slice(column - 3, column + 1)))
    assert caught.value.__cause__ is not None


def dataset(names=BANDS, *, step=1):
    """What xarray users have: reflectance in variables or along a dimension, encoded when it is written."""
    reflectance = np.where(pixels() == 0, np.nan, pixels() * 1e-4 - 0.1)[:, ::step, ::step]
    coordinates = {"y": 4_999_995 - 10.0 * np.arange(0, 70, step), "x": 400_005 + 10.0 * np.arange(0, 90, step)}
    variables = {name: (("y", "x"), one, {"grid_mapping": "crs"}) for name, one in zip(names, reflectance, strict=True)}
    mapping = {"crs": ((), 0, {"crs_wkt": rasterio.crs.CRS.from_epsg(32633).to_wkt()})}
    return xarray.Dataset(variables | mapping, coordinates)


CODED = {"dtype": "uint16", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}


@pytest.mark.parametrize("version", [2, 3])
def test_a_variable_for_each_band_written_by_xarray_is_read(tmp_path, version):
    names = ["red", "blue", "b8a", "swir16"]
    encoding = dict.fromkeys(names, CODED)
    dataset(names).to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding=encoding)
    with open_scene(tmp_path / "a.zarr") as scene:
        assert scene.bands == ("B8A", "B02", "B04", "B11")
        assert scene.geobox == grid()
        assert scene.radiometry == ENCODING
        np.testing.assert_array_equal(scene.read_digital(bands=["B04", "B02"]), pixels()[:2])
        assert np.argwhere(~scene.read().valid).tolist() == [[3, 5]]
    with open_scene(tmp_path / "a.zarr/b8a") as scene:
        assert (scene.name, scene.bands) == ("a.zarr/b8a", ("B8A",))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_a_dimension_of_bands_written_by_xarray_is_read(tmp_path, version):
    array = dataset().drop_vars("crs").to_dataarray("band", name="image")
    encoding = {"image": CODED | {"chunks": (1, 70, 90)}}
    array.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding=encoding)
    with open_scene(tmp_path / "a.zarr") as scene:
        assert (scene.bands, scene.radiometry, scene.geobox) == (BANDS, ENCODING, grid(crs=None))
        np.testing.assert_array_equal(scene.read_digital(bands=["B08", "B03"]), pixels()[[3, 1]])


def test_a_part_that_xarray_cut_out_lies_where_its_coordinates_say(store, tmp_path):
    with xarray.open_zarr(store(), consolidated=False) as whole:
        part = whole.isel(y=slice(10, 30), x=slice(20, 60)).load()
    for variable in part.variables.values():
        variable.encoding = {key: variable.encoding[key] for key in CODED if key in variable.encoding}
    part.to_zarr(tmp_path / "part.zarr", consolidated=False)
    with open_scene(tmp_path / "part.zarr") as scene:
        assert scene.geobox == grid()[10:30, 20:60]
        np.testing.assert_array_equal(scene.read_digital(), pixels()[:, 10:30, 20:60])


def test_an_empty_chunk_of_another_writer_is_no_damage(tmp_path):
    values = np.zeros((40, 40), "uint16")
    values[20:, 20:] = 7
    encoding = {"B04": {"chunks": (20, 20), "_FillValue": 0, "dtype": "uint16"}}
    xarray.Dataset({"B04": (("y", "x"), values)}, {axis: 10.0 * np.arange(40) for axis in "yx"}).to_zarr(
        tmp_path / "a.zarr", encoding=encoding, consolidated=False
    )
    with open_scene(tmp_path / "a.zarr", scale=1e-4) as scene:
        assert scene.read().valid.sum() == 400


def test_uneven_coordinates_and_odd_shapes_are_refused(tmp_path):
    uneven = dataset().isel(x=[0, 1, 2, 5, 6])
    uneven.to_zarr(tmp_path / "uneven.zarr", consolidated=False)
    with pytest.raises(GridError, match=r"uneven\.zarr lies on no grid: its coordinates are not evenly spaced"):
        open_scene(tmp_path / "uneven.zarr")
    dataset().drop_vars(["x", "y"]).to_zarr(tmp_path / "nowhere.zarr", consolidated=False)
    with pytest.raises(GridError, match="neither coordinates nor GeoTransform"):
        open_scene(tmp_path / "nowhere.zarr")
    group = zarr.open_group(tmp_path / "nowhere.zarr", mode="a")
    group.create_array("B11", shape=(35, 45), dtype="u2", dimension_names=("y", "x"))
    with pytest.raises(InputError, match=r"different shapes.*B08 \(70, 90\), B11 \(35, 45\)|B11 \(35, 45\), B08"):
        open_scene(tmp_path / "nowhere.zarr")


def eopf_product(path, version, *, dn):
    """A Sentinel-2 product in the layout of the EOPF Sentinel Zarr Samples Service, built here, not by its processors.

    Version 2 as processed until 2025 (packing in `_eopf_attrs`, CRS beside each band), version 3 as since 2026 (packing
    in plain attributes, `fill_value` instead of `_FillValue`, coordinates in float32, CRS only at the top).
    """
    root = zarr.create_group(path, zarr_format=version)
    code = "horizontal_CRS_code" if version == 2 else "horizontal_crs_code"
    root.attrs.update({"stac_discovery": {"properties": {}}, "other_metadata": {code: "EPSG:32633"}})
    for name, size, bands in (("r10m", 10, ("b02", "b03", "b04", "b08")), ("r20m", 20, ("b05", "b11", "b8a"))):
        group = root.create_group(f"measurements/reflectance/{name}")
        step = size // 10
        packing = {"scale_factor": 0.0001, "add_offset": -0.1, "fill_value": 0, "units": "digital_counts"}
        placed = {"proj:epsg": 32633, "proj:transform": [size, 0, 400_000, 0, -size, 5_000_000, 0, 0, 1]}
        kept = {"_eopf_attrs": packing, **placed} if version == 2 else packing
        arrays = {band: (("y", "x"), layer[::step, ::step], kept) for band, layer in zip(bands, dn, strict=False)}
        height, width = dn[0, ::step, ::step].shape
        coordinate = "float64" if version == 2 else "float32"
        arrays["y"] = (("y",), (5_000_000 - size * (np.arange(height) + 0.5)).astype(coordinate), {})
        arrays["x"] = (("x",), (400_000 + size * (np.arange(width) + 0.5)).astype(coordinate), {})
        for band, (dimensions, values, attributes) in arrays.items():
            named = {"dimension_names": dimensions} if version == 3 else {}
            attributes = {**attributes, "_ARRAY_DIMENSIONS": list(dimensions)} if version == 2 else attributes
            group.create_array(band, data=values, chunks=(32,) * values.ndim, attributes=attributes, **named)
    mask = root.create_group("conditions/mask/l2a_classification/r20m")
    mask.create_array("scl", data=np.zeros((35, 45), "uint8"))
    return str(path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_sentinel_2_product_of_the_eopf_opens_as_its_10_m_bands(tmp_path, version):
    path = eopf_product(tmp_path / "S2B_MSIL2A_20260721T100559.zarr", version, dn=pixels())
    with open_scene(path) as scene:
        assert scene.name == "S2B_MSIL2A_20260721T100559.zarr/measurements/reflectance/r10m"
        assert (scene.bands, scene.geobox, scene.radiometry) == (BANDS, grid(), ENCODING)
        np.testing.assert_array_equal(scene.read_digital(), pixels())
        assert np.argwhere(~scene.read(bands=["B04"]).valid).tolist() == [[3, 5]]
    with open_scene(f"{path}/measurements/reflectance/r20m") as scene:
        assert (scene.bands, scene.geobox.resolution.x) == (("B05", "B11", "B8A"), 20)
        np.testing.assert_array_equal(scene.read_digital(bands=["B8A"])[0], pixels()[2, ::2, ::2])
    with open_scene(f"{path}/measurements/reflectance/r10m/b04") as scene:
        assert (scene.bands, scene.radiometry) == (("B04",), ENCODING)
    with pytest.raises(InputError, match=r"holds 2 rasters; open one of\n  .*/r10m\n  .*/r20m$"):
        open_scene(f"{path}/measurements/reflectance")


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A web server of ``tmp_path`` on this machine that lists no folders; its address."""
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "list_directory", lambda self, _: self.send_error(403))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")
def test_a_product_on_a_web_server_is_read(tmp_path, serve, version):
    pytest.importorskip("aiohttp")
    zarr.consolidate_metadata(eopf_product(tmp_path / "a.zarr", version, dn=pixels()))
    with open_scene(f"{serve}/a.zarr") as scene:
        assert (scene.name, scene.geobox) == ("a.zarr/measurements/reflectance/r10m", grid())
        np.testing.assert_array_equal(scene.read_digital(), pixels())
    with open_scene(f"{serve}/a.zarr/measurements/reflectance/r20m") as scene:
        assert scene.bands == ("B05", "B11", "B8A")
    with pytest.raises(InputError, match=r"missing\.zarr cannot be opened"):
        open_scene(f"{serve}/missing.zarr")


def test_a_store_that_says_nothing_about_its_numbers_is_refused_until_told(tmp_path):
    values = xarray.DataArray(pixels()[0], dims=("y", "x"), name="B04", coords=dataset().coords)
    values.to_dataset().to_zarr(tmp_path / "a.zarr", consolidated=False)
    with open_scene(tmp_path / "a.zarr") as scene, pytest.raises(RadiometryError, match=r"a\.zarr holds uint16 values"):
        scene.read()
    with open_scene(tmp_path / "a.zarr", scale=1e-4, offset=-0.1, nodata=0) as scene:
        assert scene.radiometry == ENCODING
        with pytest.raises(BandError, match=r"band 'nir' is not in a\.zarr \(B04\)"):
            scene.select(["nir"])


def test_a_flag_that_contradicts_the_store_is_refused(store):
    with pytest.raises(
        RadiometryError, match=r"scene\.zarr has scale 0\.0001 \(CF attributes\) and flag --scale says 1"
    ):
        open_scene(store(), scale=1)


def test_a_store_can_be_moved(store, tmp_path):
    """Nothing in it names its place."""
    path = store()
    shutil.copytree(path, tmp_path / "copy.zarr")
    assert str(tmp_path) not in json.dumps(zarr.open_group(path, mode="r").metadata.to_dict())
    with open_scene(tmp_path / "copy.zarr") as scene:
        np.testing.assert_array_equal(scene.read_digital(), pixels())
