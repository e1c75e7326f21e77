import json
import os
import subprocess
import sys
from contextlib import closing

import pytest

from geosr import files
from geosr.errors import OutputError
from geosr.inference.journal import Journal, Staged, published_targets, stored_call

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
            OutputError, match=r"another geosr process is writing .*sr\.tif; wait for it, or choose another name"
        ):
            Journal(target, JOB, **kwargs)
    first.close()
    Journal(target, JOB).close()


def test_several_may_share_a_job_and_no_other(target):
    first, second = (Journal(target, JOB, shared=True) for _ in range(2))
    with pytest.raises(OutputError, match="another geosr process is writing"):
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
        with pytest.raises(OutputError, match="another geosr process is writing"):
            Journal(target, JOB)
        other.kill()
    assert left(Journal(target, JOB)), "a lock ends with its process"


def test_the_call_can_be_made_again_by_the_target_alone(target):
    begin(target, call={"sources": ["a.tif"], "tile": 512})
    assert stored_call(target) == {"sources": ["a.tif"], "tile": 512}
    with pytest.raises(OutputError, match=r"no unfinished work beside .*b\.tif; geosr predict .* --shard 1/N"):
        stored_call(target.with_name("b.tif"))


def stage(journal, target, *, fresh=False):
    """A result and a sidecar, as a run leaves them in the work folder."""
    (journal.folder / "sidecars").mkdir(exist_ok=True)
    (journal.folder / "sidecars" / "item.json").write_text("{}")
    (journal.folder / "finished").mkdir(exist_ok=True)
    (journal.folder / "finished" / "sr").write_text("pixels")
    item = target.with_suffix(".json")
    return [
        Staged(journal.folder / "sidecars" / "item.json", item, copied=True),
        Staged(journal.folder / "finished" / ("" if fresh else "sr"), target, fresh=fresh),
    ]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def publishing(target, **kwargs):
    return Journal(target, kwargs.pop("job", JOB), writes=[target.with_suffix(".json"), target], **kwargs)


def test_everything_has_its_name_and_the_folder_is_gone(target):
    journal = publishing(target)
    journal.publish(stage(journal, target), overwrite=False)
    assert contents(target.parent) == {"sr.tif": "pixels", "sr.json": "{}"}
    assert len(list(target.parent.iterdir())) == 2


SYSTEM = [(os, name) for name in ("link", "replace", "rename", "unlink", "rmdir", "mkdir")]


@pytest.mark.parametrize(("fresh", "overwrite"), [(False, False), (False, True), (True, False)])
def test_a_kill_at_any_call_of_the_system_is_completed_by_the_same_run(tmp_path, monkeypatch, fresh, overwrite):
    """Killed at every call in turn that changes the disk: before it happens, and after."""
    undisturbed = {"sr.tif/sr" if fresh else "sr.tif": "pixels", "sr.json": "{}"}
    for number in range(1000):
        target = tmp_path / str(number) / "sr.tif"
        target.parent.mkdir()
        if overwrite:
            target.with_suffix(".json").write_text("old")
            if not fresh:
                target.write_text("old")
        before = contents(target.parent)
        journal = publishing(target)
        staged = stage(journal, target, fresh=fresh)
        calls = iter(range(1000))

        def killing(real, calls=calls, number=number):
            def call(*args, **kwargs):
                now = next(calls)
                if 2 * now == number:
                    raise KeyboardInterrupt
                result = real(*args, **kwargs)
                if 2 * now + 1 == number:
                    raise KeyboardInterrupt
                return result

            return call

        monkeypatch.setattr(os, "fsync", lambda _: None)
        for module, name in SYSTEM:
            monkeypatch.setattr(module, name, killing(getattr(module, name)))
        try:
            journal.publish(staged, overwrite=overwrite)
        except KeyboardInterrupt:
            monkeypatch.undo()
            journal.close()
        else:
            monkeypatch.undo()
            assert contents(target.parent) == undisturbed
            break
        done = published_targets(target)
        for path, text in before.items():  # nothing that was there is lost, or half
            assert (target.parent / path).read_text() in (text, undisturbed[path])
        if not (target.parent / ".sr.tif.geosr").exists():
            assert contents(target.parent) == undisturbed, "the run was at its end"
            continue
        refused = []
        again = publishing(target, require=refused.append)
        assert refused == [done]
        if again.complete:
            again.finish(overwrite=overwrite)
        else:
            assert not done
            again.publish(stage(again, target, fresh=fresh), overwrite=overwrite)
        assert contents(target.parent) == undisturbed
        assert not list(target.parent.glob(".*")), number
    assert number > 20


def killed_before(target, monkeypatch, path):
    """Publish, killed before this path has its name."""
    journal = publishing(target)
    staged = stage(journal, target)
    real = files.publish

    def kill(unfinished, target, **kwargs):
        if target == path:
            raise KeyboardInterrupt
        real(unfinished, target, **kwargs)

    monkeypatch.setattr(files, "publish", kill)
    with pytest.raises(KeyboardInterrupt):
        journal.publish(staged, overwrite=False)
    monkeypatch.undo()
    journal.close()


def test_a_file_that_another_made_meanwhile_is_not_taken_for_the_runs_own(target, monkeypatch):
    killed_before(target, monkeypatch, target)
    target.write_text("mine")
    assert published_targets(target) == {target.with_suffix(".json")}
    journal = publishing(target)
    assert journal.complete
    with pytest.raises(OutputError, match=r"sr\.tif exists, and did not when the work began; give --overwrite"):
        journal.finish(overwrite=False)
    journal.close()
    assert target.read_text() == "mine"


@pytest.mark.parametrize("kwargs", [{"job": JOB | {"scale": 2}}, {"restart": True}, {"shared": True}])
def test_only_the_same_run_finishes_what_a_killed_one_published(target, monkeypatch, kwargs):
    killed_before(target, monkeypatch, target)
    asked = []
    with closing(publishing(target, require=asked.append, **kwargs)) as journal:
        assert not journal.complete
    assert asked == [set()], "its sidecar is not this run's"


def test_what_is_finished_of_inputs_that_nothing_is_known_of_is_published_and_their_work_not_continued(
    target, monkeypatch
):
    killed_before(target, monkeypatch, target)
    header = json.loads((target.with_name(".sr.tif.geosr") / "job.json").read_text())
    assert publishing(target, job=header["job"] | {"once": "now"}).complete


def test_a_refusal_leaves_no_folder_and_throws_no_work_away(target):
    def refuse(_):
        raise OutputError("exists")

    with pytest.raises(OutputError, match="exists"):
        Journal(target, JOB, require=refuse)
    assert not list(target.parent.iterdir())
    begin(target)
    with pytest.raises(OutputError, match="exists"):
        Journal(target, JOB | {"scale": 2}, require=refuse)
    assert left(Journal(target, JOB))


@pytest.mark.parametrize(
    "text", ["null", "[]", '{"call": {}}', '{"job": {}, "call": {"x": 1}, "sha256": "0"}', "[" * 9999]
)
def test_a_job_that_geosr_did_not_write_is_not_called(target, text):
    (begin(target, call={"sources": ["a.tif"]}) / "job.json").write_text(text)
    with pytest.raises(OutputError, match=r"job\.json is not as geosr wrote it"):
        stored_call(target)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write beside .*sr\.tif: Not a directory"):
        Journal(tmp_path / "file" / "sr.tif", JOB)
    with pytest.raises(OutputError, match="No such file or directory"):
        Journal(tmp_path / "missing" / "sr.tif", JOB)
