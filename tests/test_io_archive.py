import stat
import struct
import zipfile

import pytest
from product_kit import crafted_zip

from geosr.errors import InputError
from geosr.io import archive
from geosr.io.archive import archive_of, names_in, read_from
from geosr.io.inputs import open_input


def test_names_and_small_files_of_real_products(shared_data):
    paths = sorted((shared_data / "safe").glob("*.zip"))
    assert len(paths) == 2
    for path in paths:
        names = names_in(str(path))
        with zipfile.ZipFile(path) as file:
            assert set(names) == {name for name in file.namelist() if not name.endswith("/")}
            xml = next(name for name in names if name.endswith("MTD_MSIL1C.xml"))
            assert read_from(str(path), xml, limit=2**20) == file.read(xml)
        assert read_from(str(path), "missing", limit=1) is None
        with pytest.raises(InputError, match=r"MTD_MSIL1C\.xml has more than"):
            read_from(str(path), xml, limit=100)


def test_paths_into_an_archive(tmp_path):
    path = crafted_zip(tmp_path / "a.zip", [("a/b.txt", b"1")])
    assert archive_of(f"/vsizip/{path}/a/b.txt") == (str(path), "a/b.txt")
    assert archive_of(f"/vsizip/{path}") == (str(path), "")
    assert archive_of(str(path)) is None
    assert archive_of(f"/vsizip/{tmp_path}/missing.zip/a") is None


@pytest.mark.parametrize("name", ["../a.xml", "a/../../b", "/etc/passwd", "..\\a.xml", "C:\\a.xml", "c:/a.xml"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path, name):
    path = crafted_zip(tmp_path / "evil.zip", [("X.SAFE/MTD_MSIL2A.xml", b"<a/>"), (name, b"")])
    with pytest.raises(InputError, match=r"evil\.zip is not read: entry .* would lie outside"):
        open_input(path)


def test_dots_in_a_name_are_no_way_out(tmp_path):
    assert names_in(str(crafted_zip(tmp_path / "a.zip", [("a..b/c...d", b"")]))) == ("a..b/c...d",)


def test_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("X.SAFE/MTD_MSIL2A.xml")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="is a symbolic link"):
        open_input(tmp_path / "evil.zip")


def test_an_entry_that_grows_without_measure_is_refused(tmp_path):
    path = crafted_zip(tmp_path / "bomb.zip", [("X.SAFE/MTD_MSIL2A.xml", bytes(archive.SMALL + 1))], deflated=True)
    assert path.stat().st_size < 2**15
    with pytest.raises(InputError, match=r"unpacks \d+ bytes to 16777217 \(at most 100 times"):
        open_input(path)


def test_a_small_entry_may_shrink_as_it_likes(tmp_path):
    names_in(str(crafted_zip(tmp_path / "a.zip", [("a.xml", bytes(2**20))], deflated=True)))


@pytest.mark.parametrize(("limit", "value", "told"), [("MAX_ENTRIES", 2, "has 3 entries"), ("MAX_BYTES", 5, "unpacks")])
def test_too_much_in_all_is_refused(tmp_path, monkeypatch, limit, value, told):
    path = str(crafted_zip(tmp_path / "a.zip", [(name, b"12") for name in "abc"]))
    assert len(names_in(path)) == 3
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(InputError, match=told):
        names_in(path)


def test_an_entry_that_lies_about_its_size_gives_no_more_than_the_limit(tmp_path):
    """The directory says 10 bytes; the stream holds a million."""
    path = crafted_zip(tmp_path / "lies.zip", [("a.xml", bytes(10**6))], deflated=True)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<L", 10**6), struct.pack("<L", 10)))
    assert len(names_in(str(path))) == 1
    with pytest.raises(InputError, match=r"a\.xml cannot be read"):  # its checksum is that of the million
        read_from(str(path), "a.xml", limit=100)


def test_entries_that_overlap_or_occur_twice_are_refused(tmp_path):
    path = crafted_zip(tmp_path / "twice.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(InputError, match="'a' occurs twice"):
        names_in(str(path))
    path = crafted_zip(tmp_path / "overlap.zip", [("a", bytes(5000)), ("b", bytes(5000))])
    content = bytearray(path.read_bytes())
    first, second = (content.rindex(b"PK\x01\x02", 0, end) for end in (content.rindex(b"PK\x01\x02"), len(content)))
    for entry in (first, second):  # both sizes in the directory: packed and unpacked
        content[entry + 20 : entry + 28] = struct.pack("<LL", 9000, 9000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="its entries overlap"):
        names_in(str(path))


def test_a_damaged_or_encrypted_file_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"a\.zip is no zip file that can be read"):
        names_in(str(tmp_path / "a.zip"))
    path = crafted_zip(tmp_path / "b.zip", [("a", b"12345678")])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        names_in(str(path))
    path = crafted_zip(tmp_path / "c.zip", [("a", b"12345678")])
    path.write_bytes(path.read_bytes().replace(b"12345678", b"12345679", 1))
    with pytest.raises(InputError, match=r"a cannot be read .*download the archive again"):
        read_from(str(path), "a", limit=100)
