import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from product_kit import crafted_zip

from geosr.io import origins
from geosr.io.origins import local_files, stamp, stamps_of

VIRTUAL = """<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


@pytest.fixture
def raster(make_raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(make_raster(np.ones((1, 4, 4), "uint16"), name="in.tif"))


@pytest.mark.parametrize(
    "spelling",
    [
        "in.tif", "{here}/in.tif", "{here}/../{name}/in.tif", "file://{here}/in.tif", "GTIFF_DIR:1:in.tif",
        "GTIFF_DIR:off:8:{here}/in.tif", "/vsisubfile/0_500,in.tif", "/vsisubfile/0_500,{here}/in.tif",
        "/vsicached?file=in.tif", "/vsicached?chunk_size=9&file={here}/in%2Etif", "vrt://in.tif?bands=1",
        "link.tif", "one.vrt", "two.vrt", "subfile.vrt",
    ],
)  # fmt: skip
def test_a_file_is_found_by_all_its_spellings(raster, tmp_path, spelling):
    (tmp_path / "link.tif").symlink_to("in.tif")
    size = os.path.getsize(raster)
    for name, source in (("one", "in.tif"), ("two", "one.vrt"), ("subfile", f"/vsisubfile/0_{size},in.tif")):
        (tmp_path / f"{name}.vrt").write_text(VIRTUAL.format(source))
    assert os.path.realpath(raster) in local_files(spelling.format(here=tmp_path, name=tmp_path.name))


def test_archives_stores_masks_assets_and_metadata_count(raster, tmp_path, make_raster):
    archive = crafted_zip(tmp_path / "a.zip", [("b.jp2", b"1")])
    for spelling in (
        f"/vsizip/{archive}/b.jp2",
        "/vsizip/a.zip/b.jp2",
        f"/vsizip/{{{archive}}}/b.jp2",
        "zip://a.zip!b.jp2",
    ):
        assert local_files(spelling) == {str(archive)}
    (tmp_path / "s.zarr" / "a").mkdir(parents=True)
    assert local_files("s.zarr/a") == {f"{tmp_path}/s.zarr/a"}
    assert local_files('ZARR:"s.zarr":/a') == {f"{tmp_path}/s.zarr"}
    (tmp_path / "in.tif.msk").write_bytes((tmp_path / "in.tif").read_bytes())
    assert f"{tmp_path}/in.tif.msk" in local_files("in.tif")
    (tmp_path / "item.json").write_text(
        '{"assets": {"a": {"href": "./in.tif"}, "b": {"href": "https://x/y.tif"}, "c": 5}}'
    )
    assert local_files("item.json") == {f"{tmp_path}/item.json"}, "no item"
    (tmp_path / "item.json").write_text('{"assets": {"a": {"href": "./in.tif"}, "b": {"href": "https://x/y.tif"}}}')
    assert {f"{tmp_path}/item.json", f"{tmp_path}/in.tif"} <= local_files("item.json")
    image = tmp_path / "P.SAFE" / "GRANULE" / "L2A" / "IMG_DATA" / "B02.jp2"
    image.parent.mkdir(parents=True)
    for path in (image, tmp_path / "P.SAFE" / "MTD_MSIL2A.xml", image.parent.parent / "MTD_TL.xml"):
        path.touch()
    assert len(local_files(str(image))) == 3


@pytest.mark.parametrize("name", ["gone.tif", "https://example.org/in.tif", "s3://bucket/in.tif", "", "\0", "[" * 500])
def test_what_is_not_here_has_no_files(raster, name):
    assert local_files(name) - {os.path.realpath(raster)} == set()


def kept_times(path, change):
    """Change a file as rsync and cp -p do: its size and its time are those of before."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace(path):
    path.with_name("new").write_bytes(path.read_bytes()[::-1])
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [flip, replace])
@pytest.mark.parametrize(
    "spelling", ["in.tif", "one.vrt", "two.vrt", "/vsisubfile/0_500,in.tif", "file://{here}/in.tif"]
)
def test_a_change_that_keeps_size_and_time_is_seen_by_every_spelling(raster, tmp_path, spelling, change):
    (tmp_path / "one.vrt").write_text(VIRTUAL.format("in.tif"))
    (tmp_path / "two.vrt").write_text(VIRTUAL.format("one.vrt"))
    spelling = spelling.format(here=tmp_path)
    before = stamp(spelling)
    assert before == stamp(spelling) is not None
    time.sleep(0.01)
    kept_times(tmp_path / "in.tif", change)
    assert stamp(spelling) != before


def test_masks_count_and_statistics_of_a_viewer_do_not(raster, tmp_path):
    before = stamp("in.tif")
    (tmp_path / "in.tif.aux.xml").write_text("<PAMDataset/>")
    assert stamp("in.tif") == before
    (tmp_path / "in.tif.msk").write_bytes((tmp_path / "in.tif").read_bytes())
    assert stamp("in.tif") != before


def test_any_file_of_a_store_counts(tmp_path):
    shard = tmp_path / "scene.zarr" / "c" / "0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"12345")
    before = stamp(str(tmp_path / "scene.zarr"))
    time.sleep(0.01)
    kept_times(shard, flip)
    assert stamp(str(tmp_path / "scene.zarr")) not in (before, None)


def test_a_file_in_an_archive_is_stamped_as_the_archive(tmp_path):
    path = crafted_zip(tmp_path / "a.zip", [("b.jp2", b"1")])
    assert stamp(f"/vsizip/{path}/b.jp2") == stamp(str(path)) is not None


class Server(BaseHTTPRequestHandler):
    """A file whose headers a test chooses."""

    told: ClassVar[dict[str, str]] = {}
    refused: ClassVar[tuple[str, ...]] = ()

    def do_HEAD(self):
        self.send_response(403 if self.command in self.refused else 200)
        for name, value in self.told.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


@contextmanager
def served(**told):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Server,), told))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/in.tif"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("prefix", ["", "/vsicurl/", "/vsicurl?max_retry=1&url=", "/vsicached?file=/vsicurl/"])
def test_a_server_tells_the_version_of_a_file(prefix):
    seen = set()
    for told in (
        {"ETag": '"1"', "Content-Length": "9"},
        {"ETag": '"2"', "Content-Length": "9"},
        {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "Content-Length": "9"},
        {"Last-Modified": "Mon, 01 Jan 2024 00:00:01 GMT", "Content-Length": "9"},
        {"Last-Modified": "Mon, 01 Jan 2024 00:00:01 GMT", "Content-Length": "8"},
    ):
        with served(told=told) as address:
            assert stamp(prefix + address) == stamp(prefix + address)
            seen.add(stamp(prefix + address))
    assert len(seen) == 5
    assert None not in seen


def test_a_server_that_answers_no_head_is_asked_otherwise():
    with served(told={"ETag": '"1"', "Content-Range": "bytes 0-0/9"}, refused=("HEAD",)) as address:
        assert stamp(address) is not None


@pytest.mark.parametrize(
    ("told", "path"),
    [({"Content-Length": "9"}, ""), ({"ETag": '"1"'}, "/store.zarr"), ({"ETag": '"1"'}, "/x.vrt")],
    ids=["length alone", "a store", "a virtual raster"],
)
def test_nothing_is_known_where_a_server_tells_no_version(told, path):
    with served(told=told) as address:
        assert stamp(address + path) is None


def test_nothing_is_known_of_clouds_and_of_servers_that_are_silent(monkeypatch):
    monkeypatch.setattr(origins, "TIMEOUT", 0.3)
    import socket

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}/in.tif"
        names = ["s3://b/in.tif", "/vsis3/b/in.tif", "/vsigs/b/in.tif", "az://c/in.tif", silent]
        assert set(stamps_of(names).values()) == {None}
