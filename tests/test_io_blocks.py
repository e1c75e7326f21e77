import os
from multiprocessing import get_context

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geosr.errors import OutputError
from geosr.io.blocks import BlockFile, store_blocks, stored_blocks

BLOCKS = {"0": b"first", "B02.tif:7": os.urandom(500), ":2": b"", "last": b"\n\0\n"}


def test_blocks_of_a_file_come_back_by_key(tmp_path):
    store_blocks(tmp_path / "7", BLOCKS)
    stored = stored_blocks(tmp_path / "7")
    assert {key: block.read() for key, block in stored.items()} == BLOCKS
    assert all(block.intact for block in stored.values())
    assert list(tmp_path.iterdir()) == [tmp_path / "7"]


def test_appended_blocks_can_be_read_once_they_are_flushed(tmp_path):
    file = BlockFile(tmp_path / "blocks")
    blocks = [file.append(data) for data in BLOCKS.values()]
    file.flush()
    assert [block.read() for block in reversed(blocks)] == list(reversed(BLOCKS.values()))
    file.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.data())
def test_no_damage_goes_unnoticed(tmp_path, data):
    path = tmp_path / "shard"
    store_blocks(path, BLOCKS)
    size = path.stat().st_size
    if data.draw(st.booleans(), "truncate"):
        os.truncate(path, data.draw(st.integers(0, size - 1)))
    else:
        with path.open("r+b") as file:
            at = data.draw(st.integers(0, size - 1))
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ data.draw(st.integers(1, 255))]))
    try:
        whole = all(block.intact for block in stored_blocks(path).values())
    except ValueError:
        return
    assert not whole


def test_a_damaged_block_cannot_be_read(tmp_path):
    store_blocks(tmp_path / "shard", {"a": b"12345", "b": b"67890"})
    content = (tmp_path / "shard").read_bytes()
    (tmp_path / "shard").write_bytes(content.replace(b"345", b"3x5"))
    blocks = stored_blocks(tmp_path / "shard")
    assert (blocks["a"].intact, blocks["b"].intact) == (False, True)
    with pytest.raises(OutputError, match="not as it was written; run again with --restart"):
        blocks["a"].read()


def test_a_file_of_blocks_says_what_it_is(tmp_path):
    store_blocks(tmp_path / "3", BLOCKS, label="shard 3 of a")
    os.link(tmp_path / "3", tmp_path / "5")
    assert {key: block.read() for key, block in stored_blocks(tmp_path / "3", label="shard 3 of a").items()} == BLOCKS
    with pytest.raises(ValueError, match="holds the blocks of shard 3 of a, not of shard 5 of a"):
        stored_blocks(tmp_path / "5", label="shard 5 of a")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("there", path)])
def test_what_is_no_file_is_never_opened(tmp_path, make):
    store_blocks(tmp_path / "there", BLOCKS)
    make(tmp_path / "shard")
    with pytest.raises(ValueError, match="is no plain file"):
        stored_blocks(tmp_path / "shard")


def _store(path, byte):
    for _ in range(50):
        store_blocks(path, {"a": byte * 5000, "b": byte * 5000})


def test_two_processes_that_write_one_file_leave_it_whole(tmp_path):
    path = tmp_path / "shard"
    _store(path, b"a")
    processes = [get_context("spawn").Process(target=_store, args=(path, byte)) for byte in (b"a", b"b")]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        assert path.read_bytes()[-10_000:] in (b"a" * 10_000, b"b" * 10_000)
    assert [process.exitcode for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]
