import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.io.shards import ShardedArray, compression

SHAPE = (3, 45, 70)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """An array in shards that the scene's edges cut, and its pixels."""
    values = np.random.default_rng(0).integers(0, 60_000, SHAPE, dtype="uint16")
    array = zarr.create_array(
        tmp_path_factory.mktemp("shards") / "a.zarr",
        shape=SHAPE,
        dtype="uint16",
        chunks=(3, 8, 8),
        shards=(3, 24, 32),
        compressors=compression("uint16"),
        config={"write_empty_chunks": True},
    )
    array[:] = values
    return array, values


@settings(max_examples=60)
@given(data=st.data())
def test_every_window_is_what_zarr_reads(stored, data):
    array, values = stored
    rows, columns = (
        sorted(data.draw(st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True))) for length in SHAPE[1:]
    )
    window = slice(*rows), slice(*columns)
    np.testing.assert_array_equal(ShardedArray.of(array).read(window), values[:, *window])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_every_type_is_read(tmp_path, dtype):
    values = np.random.default_rng(1).integers(0, 100, (2, 20, 20)).astype(dtype)
    path, chunks = tmp_path / "a.zarr", {"chunks": (2, 8, 8), "shards": (2, 16, 16)}
    array = zarr.create_array(path, data=values, compressors=compression(dtype), **chunks)
    read = ShardedArray.of(array).read((slice(1, 20), slice(0, 19)))
    np.testing.assert_array_equal(read, values[:, 1:, :19])
    assert read.dtype == values.dtype


@pytest.mark.parametrize(
    "settings",
    [
        {"shards": None},
        {"chunks": (1, 8, 8)},
        {"compressors": zarr.codecs.GzipCodec()},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
    ],
)
def test_what_is_stored_in_another_way_is_left_to_zarr(tmp_path, settings):
    settings = {"chunks": (2, 8, 8), "shards": (2, 16, 16), "compressors": compression("float64"), **settings}
    assert ShardedArray.of(zarr.create_array(tmp_path / "a.zarr", data=np.zeros((2, 20, 20)), **settings)) is None


def test_a_chunk_that_is_not_stored_is_an_error(tmp_path):
    chunks = {"chunks": (1, 8, 8), "shards": (1, 16, 16), "compressors": compression("u2")}
    array = zarr.create_array(tmp_path / "a.zarr", shape=(1, 32, 32), dtype="u2", **chunks)
    array[0, :8, :8] = 7
    sharded = ShardedArray.of(array)
    assert (sharded.read((slice(0, 8), slice(0, 8))) == 7).all()
    with pytest.raises(ValueError, match="shard 0/0 lacks a chunk"):
        sharded.read((slice(0, 9), slice(0, 8)))
    with pytest.raises(FileNotFoundError):
        sharded.read((slice(0, 8), slice(16, 20)))
