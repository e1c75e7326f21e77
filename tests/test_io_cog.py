import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from geosr.errors import OutputError
from geosr.io import cog
from geosr.io.blocks import Block, BlockFile
from geosr.io.cog import Profile, add_overviews, block_grid, blocks_of, decode, encode, verify, write_cog
from geosr.radiometry import Radiometry

UTM = Affine(2.5, 0, 400_000, 0, -2.5, 5_000_000)
DTYPES = ["uint8", "uint16", "int16", "int32", "float32", "float64"]


def profile_of(array, radiometry=None, *, affine=UTM, crs="EPSG:32633", bands=None, tags=None):
    radiometry = radiometry or Radiometry(1e-4, dtype=array.dtype.name)
    bands = bands or tuple(f"B{i:02}" for i in range(1, len(array) + 1))
    return Profile(GeoBox(array.shape[1:], affine, crs), bands, radiometry, tags or {})


def fill_blocks(array, blocks):
    """Every block of an image, appended out of order, as tiles finish."""
    whole = tuple(slice(0, n) for n in array.shape[1:])
    places = list(blocks_of(whole, array.shape[1:]))
    found = {index: blocks.append(encode(array[:, rows, columns])) for index, (rows, columns) in reversed(places)}
    blocks.flush()
    return [found[index] for index in range(len(found))]


@pytest.fixture
def write(tmp_path):
    """A factory that writes an array as a COG, the way that a prediction does, and returns its path."""

    def write(array, *args, name="image.tif", **kwargs):
        profile = profile_of(array, *args, **kwargs)
        blocks = BlockFile(tmp_path / "blocks")
        with ThreadPoolExecutor(2) as executor:
            levels = add_overviews(blocks, dict(enumerate(fill_blocks(array, blocks))), profile, executor)
            write_cog(tmp_path / name, profile, levels, executor)
        blocks.close()
        verify(tmp_path / name, profile)
        return tmp_path / name

    return write


def random_array(shape, dtype="uint16", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(1, 9000, shape).astype(dtype)
    return rng.integers(1, min(np.iinfo(dtype).max, 9000), shape).astype(dtype)


def read_levels(path):
    """The image and every overview, as rasterio reads them."""
    with rasterio.open(path) as file:
        levels = [file.read()]
        count = len(file.overviews(1))
    for level in range(count):
        with rasterio.open(path, overview_level=level) as file:
            levels.append(file.read())
    return levels


@settings(deadline=None, max_examples=40)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), bands=st.integers(1, 7))
def test_a_block_survives_the_round_trip(data, dtype, bands):
    shape = data.draw(st.tuples(st.just(bands), st.sampled_from([1, 2, 511, 512]), st.sampled_from([1, 3, 512])))
    small = data.draw(arrays(dtype, (bands, 3, 5)))
    block = np.tile(small, (1, 171, 103))[:, : shape[1], : shape[2]]
    back = decode(encode(block), bands, np.dtype(dtype))
    assert back.dtype == block.dtype
    assert back[:, : shape[1], : shape[2]].tobytes() == block.tobytes()  # to the bit, NaN and -0 included


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bands", [1, 4])
def test_gdal_reads_what_was_written(write, dtype, bands):
    array = random_array((bands, 523, 601), dtype)
    with rasterio.open(write(array)) as file:
        np.testing.assert_array_equal(file.read(), array)
        np.testing.assert_array_equal(file.read(window=((500, 523), (505, 520))), array[:, 500:523, 505:520])
        assert file.profile["interleave"] == ("pixel" if bands > 1 else "band")  # GDAL's word for one band
        assert file.profile["compress"] == "zstd"
        assert file.block_shapes == [(512, 512)] * bands


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 1300), (1300, 1), (13, 7), (512, 512), (513, 512), (1024, 520), (1031, 1033)]
)
def test_images_of_any_size_are_valid_cogs(write, shape):
    array = random_array((2, *shape))
    path = write(array)
    if shape not in {(1300, 1), (513, 512)}:  # rio-cogeo takes the first for undecimated, the second for not tiled
        valid, errors, notes = cog_validate(path, strict=True, quiet=True)
        assert valid, (errors, notes)
    levels = read_levels(path)
    np.testing.assert_array_equal(levels[0], array)
    assert max(levels[-1].shape[1:]) <= 512
    for finer, coarser in pairwise(levels):
        assert coarser.shape[1:] == tuple(-(-n // 2) for n in finer.shape[1:])


def test_a_file_of_many_blocks_is_a_valid_cog(write):
    array = np.zeros((1, 2100, 5200), "uint8")
    array[:, ::7, ::5] = 9
    path = write(array)
    assert cog_validate(path, strict=True, quiet=True)[0]
    np.testing.assert_array_equal(read_levels(path)[0], array)


@pytest.mark.parametrize("big", [False, True])
def test_tags_encoding_and_grid_are_what_gdal_reads(write, monkeypatch, big):
    if big:
        monkeypatch.setattr(cog, "_CLASSIC", cog._BIG)
    radiometry = Radiometry(1e-4, -0.1, nodata=0)
    path = write(
        random_array((4, 700, 530)),
        radiometry,
        bands=("B02", "B03", "B04", "B08"),
        tags={"GEOSR_MODEL": "x4 ✓", "A": ""},
    )
    assert path.read_bytes()[:4] == (b"II+\0" if big else b"II*\0")
    with rasterio.open(path) as file:
        assert file.scales == (1e-4,) * 4
        assert file.offsets == (-0.1,) * 4
        assert file.nodatavals == (0,) * 4
        assert file.descriptions == ("B02", "B03", "B04", "B08")
        assert file.crs == "EPSG:32633"
        assert file.transform == UTM
        assert file.tags()["GEOSR_MODEL"] == "x4 ✓"
        assert file.overviews(4) == [2]
        np.testing.assert_array_equal(file.read(), random_array((4, 700, 530)))
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path, overview_level=0) as file:
        assert file.nodata == 0


def test_the_layout_becomes_big_where_offsets_would_not_fit(tmp_path, monkeypatch):
    """The size is known from the lengths of the blocks, before one is written."""

    def never(*_):
        raise EOFError

    monkeypatch.setattr(Block, "read", never)
    for length, magic in ((2_000_000_000, b"II*\0"), (4_200_000_000, b"II+\0")):
        path = tmp_path / "huge.tif"
        with pytest.raises(EOFError), ThreadPoolExecutor(1) as executor:
            write_cog(path, profile_of(np.zeros((1, 9, 9), "uint8")), [[Block("blocks", 0, length, 0)]], executor)
        assert path.read_bytes()[:4] == magic


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", float("nan")),
        ("float32", -9999.0),
        ("int16", -32768),
        ("uint8", 255),
        ("uint16", None),
        ("float32", None),
    ],
)
def test_nodata_is_kept(write, dtype, nodata):
    array = random_array((1, 600, 40), dtype)
    if nodata is not None:
        array[:, 100:200] = nodata
    with rasterio.open(write(array, Radiometry(1e-4, nodata=nodata, dtype=dtype))) as file:
        np.testing.assert_equal(file.nodata, nodata)
        np.testing.assert_array_equal(file.read(), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("bands", "colours"),
    [
        (("red", "green", "blue", "nir"), ["red", "green", "blue", "nir"]),
        (("B02", "B03", "B04", "B08"), ["blue", "green", "red", "nir"]),
        (("B08", "B4", "B03", "Blue", "B08_error"), ["nir", "red", "green", "blue", "undefined"]),
        (("B04", "B03", "B02"), ["red", "green", "blue"]),
        (("B05", "B8A", "B11"), ["gray", "undefined", "undefined"]),
        (("red",), ["gray"]),
    ],
)
def test_known_bands_say_their_colour_and_none_is_alpha(write, bands, colours, dtype):
    if not hasattr(ColorInterp, "nir"):  # GDAL before 3.10
        colours = [colour.replace("nir", "undefined") for colour in colours]
    array = random_array((len(bands), 523, 601), dtype)
    path = write(array, bands=bands)
    for options in ({}, {"overview_level": 0}):
        with rasterio.open(path, **options) as file:
            assert [colour.name for colour in file.colorinterp] == colours
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as file:
        assert (file.dataset_mask() == 255).all()
        np.testing.assert_array_equal(file.read(), array)


def test_reflectance_itself_has_no_scale_tag(write):
    with rasterio.open(write(random_array((1, 5, 5), "float32"), Radiometry(1.0, dtype="float32"))) as file:
        assert (file.scales, file.offsets) == ((1.0,), (0.0,))


@pytest.mark.parametrize(
    "affine",
    [
        Affine(8, 6, 400_000, 6, -8, 5_000_000),
        Affine(10, 0, 400_000, 0, 10, 5_000_000),
        Affine(-10, 0, 400_000, 0, -5, 5_000_000),
        Affine.scale(0.25),
    ],
    ids=["rotated", "south up", "mirrored", "pixels"],
)
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None, "+proj=laea +lat_0=45 +lon_0=9"])
def test_grids_of_every_attitude_are_kept(write, affine, crs):
    with rasterio.open(write(random_array((1, 20, 30)), affine=affine, crs=crs)) as file:
        assert file.transform == affine
        assert file.crs == (None if crs is None else rasterio.crs.CRS.from_user_input(crs))


def test_a_grid_that_is_only_pixels_is_kept(write):
    """Without CRS and with unit pixels GDAL stores no transform, and rasterio says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(write(random_array((1, 20, 30)), affine=Affine.identity(), crs=None)) as file:
            assert file.transform == Affine.identity()


def mean_of_valid(digital, nodata):
    """Mean of 2 x 2 in float64, NaN where none is valid; written with loops over nothing but numpy's nanmean."""
    values = digital.astype(float)
    if nodata is not None:
        values[digital == nodata] = np.nan
    bands, height, width = values.shape
    values = np.pad(values, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan)
    cells = values.reshape(bands, values.shape[1] // 2, 2, values.shape[2] // 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(cells, axis=(2, 4))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        *[("uint8", nodata) for nodata in (0, 255, None)],
        *[("uint16", nodata) for nodata in (0, 5000, None)],
        *[("int16", nodata) for nodata in (0, -9999)],
        *[("float32", nodata) for nodata in (0, -9999, float("nan"), None)],
    ],
)
@pytest.mark.parametrize("shape", [(1031, 521), (514, 1), (1, 1027)])
def test_overviews_are_the_mean_of_the_valid_pixels(write, dtype, nodata, shape):
    """At odd edges, too, and through every level."""
    radiometry = Radiometry(1e-4, -0.1, nodata=nodata, dtype=dtype)
    array = random_array((2, *shape), dtype)
    array[array == nodata] = 1
    if nodata is not None:
        invalid = np.random.default_rng(1).random(shape) < 0.4
        invalid[: shape[0] // 3, : shape[1] // 2 + 1] = True
        array[:, invalid] = nodata
    for finer, coarser in pairwise(read_levels(write(array, radiometry))):
        expected = mean_of_valid(finer, nodata)
        empty = np.isnan(expected)
        if nodata is not None:
            np.testing.assert_array_equal(np.isnan(coarser) if np.isnan(nodata) else coarser == nodata, empty)
        difference = np.abs(coarser - expected)[~empty]
        rounding = 0.01 if dtype == "float32" else 0.51  # DN
        at_nodata = np.zeros_like(difference, bool) if nodata is None else np.abs(expected[~empty] - nodata) <= rounding
        assert difference[~at_nodata].max() <= rounding
        assert difference[at_nodata].max(initial=0) <= 1.51


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_valid_overview_pixel_never_equals_nodata(write, dtype):
    """Valid neighbours on both sides of nodata have it as their mean."""
    array = np.full((1, 600, 600), 10, dtype)
    array[:, ::2] = -10
    array[:, 300:, 300:] = 0
    overview = read_levels(write(array, Radiometry(1e-4, nodata=0, dtype=dtype)))[1]
    assert (overview[:, 150:, 150:] == 0).all()
    assert (overview[:, :150] != 0).all()
    assert np.abs(overview).max() <= 1


def test_an_overview_is_not_made_of_a_block_that_changed_on_disk(tmp_path):
    array = random_array((1, 300, 700))
    with closing(BlockFile(tmp_path / "blocks")) as blocks:
        good, bad = fill_blocks(array, blocks)
        with (tmp_path / "blocks").open("r+b") as file:
            file.seek(bad.offset + bad.length // 2)
            file.write(b"\x9e\x9e")
        with ThreadPoolExecutor(1) as executor, pytest.raises(OutputError, match="not as it was written"):
            add_overviews(blocks, {0: good, 1: bad}, profile_of(array), executor)


@settings(deadline=None)
@given(shape=st.tuples(st.integers(1, 2100), st.integers(1, 2100)))
def test_blocks_of_the_whole_image_are_all_blocks_in_row_order(shape):
    rows, columns = block_grid(shape)
    found = list(blocks_of((slice(0, shape[0]), slice(0, shape[1])), shape))
    assert [index for index, _ in found] == list(range(rows * columns))
    assert sum((r.stop - r.start) * (c.stop - c.start) for _, (r, c) in found) == shape[0] * shape[1]
    for index, (r, c) in found:
        assert (r.start // 512, c.start // 512) == divmod(index, columns)


def test_blocks_of_a_core_are_counted_in_the_image():
    found = list(blocks_of((slice(512, 1100), slice(1024, 1536)), (1100, 2000)))
    assert found == [(6, (slice(0, 512), slice(0, 512))), (10, (slice(512, 588), slice(0, 512)))]


@pytest.mark.parametrize(
    "other",
    [
        {"affine": Affine(10, 0, 0, 0, -10, 0)},
        {"radiometry": Radiometry(1e-4, nodata=7)},
        {"radiometry": Radiometry(1e-4, dtype="int16")},
    ],
)
def test_a_file_that_says_something_else_is_not_published(write, other):
    array = random_array((1, 20, 30))
    path = write(array)
    with pytest.raises(OutputError, match=r"(?s)was written as .* meant as"):
        verify(path, profile_of(array, **other))


def test_a_truncated_file_is_not_published(write):
    array = random_array((3, 1000, 700))
    path = write(array)
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises((OutputError, rasterio.errors.RasterioIOError)):
        verify(path, profile_of(array))


def test_directories_come_before_the_blocks(write):
    """What makes it cloud-optimised: one read of the beginning tells where everything is."""
    path = write(random_array((1, 1100, 1100)))
    data = path.read_bytes()
    (at,) = struct.unpack_from("<I", data, 4)
    assert b"LAYOUT=IFDS_BEFORE_DATA" in data[:at]
    ends, starts = [], []
    while at:
        (count,) = struct.unpack_from("<H", data, at)
        for entry in range(count):
            tag, _, number, value = struct.unpack_from("<HHII", data, at + 2 + 12 * entry)
            if tag == 324:
                starts.append(value if number == 1 else struct.unpack_from(f"<{number}I", data, value)[0])
        ends.append(at + 2 + 12 * count + 4)
        (at,) = struct.unpack_from("<I", data, ends[-1] - 4)
    assert len(starts) == 3
    assert starts == sorted(starts, reverse=True), "the smallest overview comes first"
    assert max(ends) <= min(starts)


def test_a_block_that_is_missing_is_an_error(tmp_path):
    """It was filled with zeros in overviews, and the next one stood in its place in the image."""
    array = random_array((2, 700, 1100))
    profile = profile_of(array)
    file = BlockFile(tmp_path / "blocks")
    made = dict(enumerate(fill_blocks(array, file)))
    with ThreadPoolExecutor(2) as executor:
        levels = add_overviews(file, made, profile, executor)
        with pytest.raises(OutputError, match="would have 5 blocks for an image that takes 6"):
            write_cog(tmp_path / "a.tif", profile, [levels[0][:-1], *levels[1:]], executor)
        del made[4]
        with pytest.raises(
            OutputError, match="1 of the 6 blocks of the image are missing, first that in row 1 and column 1"
        ):
            add_overviews(file, made, profile, executor)
    file.close()
    assert not (tmp_path / "a.tif").exists()
