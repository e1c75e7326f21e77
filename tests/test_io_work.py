import os

import pytest

from geosr.errors import OutputError
from geosr.io.work import JOB, empty, locked_folder, remove_leftovers, remove_work, work_folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "sr.tif"


def test_one_process_at_a_time_has_the_folder_and_what_is_in_it_stays(target):
    with locked_folder(target) as folder:
        (folder / JOB).touch()
        assert folder.parent == target.parent
        with (
            pytest.raises(OutputError, match=r"another geosr process is writing .*sr\.tif"),
            locked_folder(target),
        ):
            pass
    with locked_folder(target) as again:
        assert again == folder
        assert (again / JOB).exists()


def test_who_waited_for_a_folder_that_was_removed_gets_a_new_one(target, monkeypatch):
    """Opened before, locked after another process has removed it: the lock of a file without a name is nobody's."""
    with locked_folder(target) as folder:
        pass
    real = os.open

    def late(path, *args, **kwargs):
        handle = real(path, *args, **kwargs)
        if str(path).endswith("lock"):
            monkeypatch.undo()
            remove_work(folder)
        return handle

    monkeypatch.setattr(os, "open", late)
    with locked_folder(target) as again:
        assert (again / "lock").exists()
    assert [path.name for path in target.parent.iterdir()] == [".sr.tif.geosr"]


def photos(tmp_path):
    (tmp_path / "photos" / "album").mkdir(parents=True)
    (tmp_path / "photos" / "1.jpg").write_text("x")
    return tmp_path / "photos"


def test_a_link_is_never_followed(target, tmp_path):
    work_folder(target).symlink_to(photos(tmp_path))
    with (
        pytest.raises(OutputError, match=r"\.sr\.tif\.geosr, where the work would be done, is a link or a file"),
        locked_folder(target),
    ):
        pass
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["1.jpg", "album"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: (folder / "mine.txt").touch(), r"holds what geosr did not put there \(mine\.txt\)"),
        (lambda folder: (folder / "album").mkdir(), r"did not put there \(album\)"),
        (lambda folder: (folder / "shards-1").symlink_to("/"), r"did not put there \(shards-1\)"),
        (lambda folder: (folder / "shards-1").touch(), r"did not put there \(shards-1\)"),
        (lambda folder: os.mkfifo(folder / "overviews"), r"did not put there \(overviews\)"),
        (lambda folder: (folder / JOB).mkdir(), r"did not put there \(job\.json\)"),
    ],
)
def test_what_geosr_did_not_put_there_is_kept_and_named(target, make, says):
    with locked_folder(target) as folder:
        (folder / JOB).touch()
    (folder / JOB).unlink()
    make(folder)
    if not (folder / JOB).exists():
        (folder / JOB).touch()
    before = sorted(folder.iterdir())
    with pytest.raises(OutputError, match=says), locked_folder(target):
        pass
    with pytest.raises(OutputError, match=says):
        empty(folder)
    assert sorted(folder.iterdir()) == before


def test_a_folder_without_a_job_is_somebody_elses(target):
    folder = work_folder(target)
    (folder / "finished").mkdir(parents=True)
    (folder / "finished" / "holiday.tif").touch()
    with pytest.raises(OutputError, match=r"holds files and no job\.json"), locked_folder(target):
        pass
    assert (folder / "finished" / "holiday.tif").exists()


def test_empty_leaves_the_lock(target):
    with locked_folder(target) as folder:
        (folder / JOB).touch()
        (folder / "shards-a").mkdir()
        (folder / "shards-a" / "0").touch()
        empty(folder)
        assert os.listdir(folder) == ["lock"]


def test_what_a_kill_left_of_a_removal_goes_and_nothing_else(target):
    own, other = (target.with_name(f".sr.tif.geosr-{digit * 32}") for digit in "ab")
    own.mkdir()
    (own / JOB).touch()
    other.mkdir()
    (other / "mine.txt").touch()
    remove_leftovers(target)
    assert list(target.parent.iterdir()) == [other]


def test_the_longest_names_have_a_folder_too(tmp_path):
    names = {"a" * 250 + ".tif", "a" * 249 + "b.tif", "\u5730" * 83 + ".tif"}
    folders = {work_folder(tmp_path / name) for name in names}
    assert len(folders) == 3
    for name in names:
        with locked_folder(tmp_path / name) as folder:
            remove_work(folder)
