import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geosr.errors import OutputError
from geosr.inference.journal import Journal

JOB = {"scene": "a.tif", "scale": 4}
WORK = {tile: {2 * tile: bytes([tile]) * (50 + tile), 2 * tile + 1: os.urandom(40)} for tile in range(6)}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "sr.tif"


def finish(target, tiles=WORK, job=JOB, **kwargs):
    """Record these tiles and stop, as a run that was interrupted does."""
    journal = Journal(target, job, **kwargs)
    for tile in tiles:
        journal.record(tile, WORK[tile])
    journal.close()
    return journal


def contents(journal):
    return {index: journal.file.read(block) for index, block in journal.blocks.items()}


def expected(tiles):
    return {index: data for tile in tiles for index, data in WORK[tile].items()}


def test_finished_tiles_are_found_again(target):
    finish(target, [3, 0, 5])
    journal = Journal(target, JOB)
    assert journal.tiles == {0, 3, 5}
    assert contents(journal) == expected([0, 3, 5])
    journal.record(1, WORK[1])
    assert contents(journal) == expected([0, 1, 3, 5])
    journal.close()
    again = Journal(target, JOB)
    assert again.tiles == {0, 1, 3, 5}
    again.close()
    assert not target.exists()


def test_the_work_lies_hidden_beside_the_target(target):
    journal = finish(target)
    assert journal.folder == target.parent / ".sr.tif.geosr"
    assert [path.name for path in target.parent.iterdir()] == [".sr.tif.geosr"]


@pytest.mark.parametrize("kwargs", [{"job": JOB | {"scale": 2}}, {"restart": True}])
def test_work_of_another_job_or_before_a_restart_is_thrown_away(target, kwargs):
    finish(target)
    journal = Journal(target, kwargs.get("job", JOB), restart=kwargs.get("restart", False))
    assert not journal.tiles
    assert not journal.blocks
    assert (journal.folder / "blocks").stat().st_size == 0
    journal.close()


def test_the_order_of_facts_about_a_job_does_not_matter(target):
    finish(target, job={"a": 1, "b": [1.5, None]})
    journal = Journal(target, {"b": [1.5, None], "a": 1})
    assert journal.tiles == set(WORK)
    journal.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_crash_leaves_only_whole_tiles_count(target, data):
    """Either file may end anywhere: the operating system writes them back in any order."""
    order = data.draw(st.permutations(list(WORK)))
    finish(target, order, restart=True)
    folder = target.with_name(".sr.tif.geosr")
    lines = (folder / "journal.jsonl").read_bytes()
    sizes = np.cumsum([sum(map(len, WORK[tile].values())) for tile in order])
    cut_lines = data.draw(st.integers(0, len(lines)))
    cut_blocks = data.draw(st.integers(0, int(sizes[-1])))
    os.truncate(folder / "journal.jsonl", cut_lines)
    os.truncate(folder / "blocks", cut_blocks)
    ends = np.cumsum([len(line) for line in lines.splitlines()]) + np.arange(len(order) + 1)  # a line break may be lost
    whole = {
        tile for tile, end, size in zip(order, ends[1:], sizes, strict=True) if end <= cut_lines and size <= cut_blocks
    }
    journal = Journal(target, JOB)
    assert journal.tiles == whole
    assert contents(journal) == expected(whole)
    for tile in set(WORK) - whole:
        journal.record(tile, WORK[tile])
    assert contents(journal) == expected(WORK)
    journal.close()


@pytest.mark.parametrize("tile", list(WORK))
def test_a_corrupted_block_costs_its_tile_only(target, tile):
    journal = finish(target)
    block = journal.blocks[2 * tile + 1]
    with (journal.folder / "blocks").open("r+b") as file:
        file.seek(block.offset)
        file.write(b"\0" * block.length)
    again = Journal(target, JOB)
    assert again.tiles == set(WORK) - {tile}
    assert contents(again) == expected(again.tiles)
    again.record(tile, WORK[tile])
    assert contents(again) == expected(WORK)
    again.close()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"tile": 9}',
        '{"tile": 9, "blocks": 3}',
        '{"tile": 9, "blocks": [[0, 1]]}',
        '{"tile": 9, "blocks": [[0, -5, 10, 3]]}',
        '{"tile": 9, "blocks": [[0, 0, -10, 3]]}',
        '{"tile": 9, "blocks": [[0, 1e99, 10, 3]]}',
        '{"tile": 9, "blocks": [[0, 99999999999999999999, 10, 3]]}',
        '{"tile": 9, "blocks": [["a", "b", "c", "d"]]}',
        '{"tile": [9], "blocks": []}',
        "\udcff\x00",
    ],
)
def test_a_line_that_makes_no_sense_counts_for_nothing(target, line):
    journal = finish(target, [0, 1])
    with (journal.folder / "journal.jsonl").open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    again = Journal(target, JOB)
    assert again.tiles == {0, 1}
    again.close()


def test_a_lost_block_file_means_starting_over(target):
    journal = finish(target)
    (journal.folder / "blocks").unlink()
    again = Journal(target, JOB)
    assert not again.tiles
    again.close()


def test_only_one_may_work_on_a_target(target):
    first = Journal(target, JOB)
    first.record(0, WORK[0])
    for restart in (False, True):
        with pytest.raises(
            OutputError, match=r"another geosr is writing .*sr\.tif; wait for it, or choose another --out"
        ):
            Journal(target, JOB, restart=restart)
    first.record(1, WORK[1])
    first.close()
    second = Journal(target, JOB)
    assert contents(second) == expected([0, 1])
    second.close()


def test_another_process_is_kept_out(target):
    lock = finish(target).folder / "lock"
    code = f"import fcntl, sys; lock = open({str(lock)!r}); fcntl.flock(lock, 2); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OutputError, match="another geosr is writing"):
            Journal(target, JOB)
        other.kill()
    after = Journal(target, JOB)
    assert after.tiles == set(WORK), "a lock ends with its process"
    after.close()


def test_two_targets_in_one_folder_do_not_meet(tmp_path):
    one, other = Journal(tmp_path / "a.tif", JOB), Journal(tmp_path / "b.tif", JOB)
    one.record(0, WORK[0])
    assert not other.tiles
    one.close()
    other.close()


def test_removing_leaves_nothing(target):
    journal = Journal(target, JOB)
    journal.record(0, WORK[0])
    journal.remove()
    assert not list(target.parent.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write beside .*sr\.tif: Not a directory"):
        Journal(tmp_path / "file" / "sr.tif", JOB)
    with pytest.raises(OutputError, match="No such file or directory"):
        Journal(tmp_path / "missing" / "sr.tif", JOB)


def test_lines_are_on_disk_when_a_tile_is_recorded(target):
    """A killed process flushes nothing."""
    journal = Journal(target, JOB)
    journal.record(4, WORK[4])
    lines = (journal.folder / "journal.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["tile"] == 4
    assert (journal.folder / "blocks").stat().st_size == sum(map(len, WORK[4].values()))
    journal.close()
