import subprocess
import sys

import pytest

from geosr.errors import OutputError
from geosr.inference.journal import Journal, stored_call

JOB = {"scene": "a.tif", "scale": 4}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "sr.tif"


def begin(target, job=JOB, **kwargs):
    """Begin a job, leave a shard, and stop, as a run that was interrupted does."""
    journal = Journal(target, job, **kwargs)
    (journal.folder / "shards").mkdir(exist_ok=True)
    (journal.folder / "shards" / "0").write_bytes(b"work")
    journal.close()
    return journal.folder


def left(journal):
    """Whether the shard of the earlier run is still there."""
    there = (journal.folder / "shards" / "0").exists()
    journal.close()
    return there


def test_work_of_the_same_job_is_kept(target):
    folder = begin(target, job={"a": 1, "b": [1.5, None]})
    assert folder == target.parent / ".sr.tif.geosr"
    assert left(Journal(target, {"b": [1.5, None], "a": 1}))
    assert not target.exists()


@pytest.mark.parametrize("kwargs", [{"job": JOB | {"scale": 2}}, {"job": JOB, "restart": True}])
def test_work_of_another_job_or_before_a_restart_is_thrown_away(target, kwargs):
    begin(target)
    assert not left(Journal(target, **kwargs))
    assert left(Journal(target, **kwargs)) is False


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"job": {"scene": "a.tif", "sc', b"\xff\0"])
def test_work_whose_job_cannot_be_read_is_thrown_away(target, content):
    (begin(target) / "job.json").write_bytes(content)
    assert not left(Journal(target, JOB))
    begin(target)
    assert left(Journal(target, JOB))


def test_only_one_may_work_on_a_target_alone(target):
    first = Journal(target, JOB)
    for kwargs in ({}, {"restart": True}, {"shared": True}):
        with pytest.raises(
            OutputError, match=r"another geosr is writing .*sr\.tif; wait for it, or choose another --out"
        ):
            Journal(target, JOB, **kwargs)
    first.close()
    Journal(target, JOB).close()


def test_several_may_share_a_job_and_no_other(target):
    first, second = (Journal(target, JOB, shared=True) for _ in range(2))
    with pytest.raises(OutputError, match="another geosr is writing"):
        Journal(target, JOB)
    with pytest.raises(OutputError, match="holds the work of another job; give every share the same options"):
        Journal(target, JOB | {"scale": 2}, shared=True)
    begin(target, shared=True)
    first.close()
    second.close()
    with pytest.raises(OutputError, match="another job"):
        Journal(target, JOB | {"scale": 2}, shared=True)
    assert left(Journal(target, JOB))


def test_of_many_that_begin_a_job_together_all_succeed(target):
    code = (
        "import sys; from pathlib import Path; from geosr.inference.journal import Journal; sys.stdin.read(1);"
        f"Journal(Path({str(target)!r}), {JOB!r}, shared=True).close()"
    )
    others = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(3)]
    for other in others:
        other.communicate(b"x")
    assert [other.returncode for other in others] == [0, 0, 0]
    assert sorted(path.name for path in target.with_name(".sr.tif.geosr").iterdir()) == ["job.json", "lock"]


def test_another_process_is_kept_out_until_it_ends(target):
    lock = begin(target) / "lock"
    code = f"import fcntl, sys; lock = open({str(lock)!r}); fcntl.flock(lock, 2); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OutputError, match="another geosr is writing"):
            Journal(target, JOB)
        other.kill()
    assert left(Journal(target, JOB)), "a lock ends with its process"


def test_the_call_can_be_made_again_by_the_target_alone(target):
    begin(target, call={"sources": ["a.tif"], "tile": 512})
    assert stored_call(target) == {"sources": ["a.tif"], "tile": 512}
    with pytest.raises(OutputError, match=r"no unfinished work beside .*b\.tif; geosr predict .* --shard 1/N"):
        stored_call(target.with_name("b.tif"))


def test_removing_leaves_nothing(target):
    begin(target)
    Journal(target, JOB).remove()
    assert not list(target.parent.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write beside .*sr\.tif: Not a directory"):
        Journal(tmp_path / "file" / "sr.tif", JOB)
    with pytest.raises(OutputError, match="No such file or directory"):
        Journal(tmp_path / "missing" / "sr.tif", JOB)
