"""Files appear complete or not at all."""

import errno
import hashlib
import os
from multiprocessing import get_context

import pytest

from geosr import files
from geosr.errors import OutputError


def test_a_file_is_written_under_its_name_with_ordinary_permissions(tmp_path):
    path = files.write(tmp_path / "a.json", "{}")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert (path.read_text(), path.stat().st_mode) == ("{}", plain.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "plain"]


def test_an_error_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def parts():
        yield b"ne"
        raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        files.write(target, parts())
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["a.txt"])


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "store.zarr"
    target.mkdir()
    (target / "old").touch()
    with files.replacing(target) as unfinished:
        (unfinished / "deep").mkdir(parents=True)
        (unfinished / "deep" / "new").write_text("new")
        assert (target / "old").exists()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "store.zarr",
        "store.zarr/deep",
        "store.zarr/deep/new",
    ]


def test_a_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="neither a file nor a folder"):
        files.write(tmp_path / "pipe", b"")


def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    (tmp_path / "photo").write_text("photo")
    (tmp_path / "link").symlink_to(tmp_path / "photo")
    files.write(tmp_path / "link", "new")
    assert ((tmp_path / "photo").read_text(), (tmp_path / "link").read_text()) == ("photo", "new")


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    assert files.write(tmp_path / ("n" * 251 + ".txt"), b"x").read_bytes() == b"x"


def test_what_is_written_reaches_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(os.readlink(f"/proc/self/fd/{handle}")))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.append("rename"), rename(*paths)))
    files.write(tmp_path / "a", b"x")
    assert [os.path.dirname(seen[0]), *seen[1:]] == [str(tmp_path), "rename", str(tmp_path)]


def test_a_lock_keeps_a_second_writer_out_and_lets_sharers_in(tmp_path):
    lock = tmp_path / "lock"
    with (
        files.locked(lock, what="the run"),
        pytest.raises(OutputError, match="another geosr process is writing the run"),
        files.locked(lock, what="the run"),
    ):
        pass
    with files.locked(lock, what="the run", shared=True), files.locked(lock, what="the run", shared=True):
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "photo").touch()
    (tmp_path / "lock").symlink_to(tmp_path / "photo")
    with pytest.raises(OutputError, match="symbolic link"), files.locked(tmp_path / "lock", what="the run"):
        pass


def test_paths_mean_one_file_through_links_and_dots(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "c")
    assert files.same_file(tmp_path / "b", tmp_path / "a")
    assert files.same_file(tmp_path / "c", tmp_path / "a")
    assert not files.same_file(tmp_path / "a", tmp_path / "absent")


def test_the_checksum_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"geosr")
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(b"geosr").hexdigest()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("inherited", [True, False])
def test_a_lock_is_that_of_forked_processes_only_where_they_inherit_it(tmp_path, inherited):
    path = tmp_path / "lock"
    fork = get_context("fork")
    begun, done = fork.Event(), fork.Event()

    def wait():
        begun.set()
        done.wait()

    with files.locked(path, what="it", inherited=inherited):
        child = fork.Process(target=wait)
        child.start()
        begun.wait()
        with pytest.raises(OutputError), files.locked(path, what="it"):
            pass
    try:
        if inherited:
            with pytest.raises(OutputError), files.locked(path, what="it"):
                pass
        else:
            with files.locked(path, what="it"):
                pass
    finally:
        done.set()
        child.join()


def test_what_exists_is_kept_where_it_is_not_to_be_replaced(tmp_path):
    for name, make in (("file", lambda p: p.write_text("mine")), ("link", lambda p: p.symlink_to("gone"))):
        make(tmp_path / name)
        with pytest.raises(FileExistsError):
            files.write(tmp_path / name, "new", overwrite=False)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError), files.replacing(tmp_path / "folder", overwrite=False) as unfinished:
        unfinished.mkdir()
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]
    files.write(tmp_path / "new", "new", overwrite=False)
    assert (tmp_path / "new").stat().st_nlink == 1


def test_a_file_system_without_links_keeps_what_exists_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files.write(tmp_path / "a", "first", overwrite=False)
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "a", "second", overwrite=False)
    assert ((tmp_path / "a").read_text(), os.listdir(tmp_path)) == ("first", ["a"])


def test_a_folder_that_cannot_be_replaced_is_back(tmp_path, monkeypatch):
    target, real = tmp_path / "store.zarr", os.rename
    target.mkdir()
    (target / "old").touch()

    def fail(source, place):
        if place == target and "replaced" not in str(source):
            raise OSError(errno.EIO, "Input/output error")
        real(source, place)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input"), files.replacing(target) as unfinished:
        unfinished.mkdir()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["store.zarr", "store.zarr/old"]


@pytest.mark.parametrize("name", ["\u5730" * 85, "a." + "x" * 253, "n" * 255])
def test_any_name_that_a_file_system_takes_can_be_written(tmp_path, name):
    assert len(os.fsencode(name)) == 255
    assert files.write(tmp_path / name, "x").read_text() == "x"
    assert os.listdir(tmp_path) == [name]
