"""What exists is kept, and a run is done when all of its files are there."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from jobs_kit import BANDS, save_interpolation, write_scene

from geosr import files
from geosr.errors import InputError, OutputError, UsageError
from geosr.inference import assemble, predict, tiled
from geosr.inference.job import Job
from geosr.inference.publish import RunFiles, forgetful, item_of


class Stop(Exception):
    """Ends a run from outside."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_interpolation(tmp_path_factory.mktemp("publish") / "bicubic.safetensors")


@pytest.fixture
def options(weights):
    return {"model": weights, "tile": 1, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Two shards, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_scene(tmp_path / "in.tif", 140, 100)


def tree(*paths):
    """Bytes of files, and of all files in folders."""
    found = {}
    for path in paths:
        found |= {str(p): p.read_bytes() for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()}
    return found


def after(shards):
    """A progress callback that ends the run when so many shards are stored."""
    calls = iter(range(shards + 1))

    def progress(*_):
        if next(calls) == shards:
            raise Stop

    return progress


def virtual(path, source):
    with rasterio.open(source) as file:
        height, width, count = file.height, file.width, file.count
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{n}"><Description>{BANDS[n - 1]}</Description><NoDataValue>0'
        f'</NoDataValue><Scale>0.0001</Scale><SimpleSource><SourceFilename relativeToVRT="1">{os.path.basename(source)}'
        f"</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n in range(1, count + 1)
    )
    transform = "<GeoTransform>400000, 10, 0, 5000000, 0, -10</GeoTransform><SRS>EPSG:32633</SRS>"
    path.write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{transform}{bands}</VRTDataset>')


@pytest.mark.parametrize(
    "spelling",
    ["scene.vrt", "file://{path}", "/vsisubfile/0_{size},{path}", "GTIFF_DIR:1:{path}", "/vsicached?file={path}"],
)
def test_the_input_is_kept_by_every_spelling(scene, tmp_path, options, spelling):
    virtual(tmp_path / "scene.vrt", scene)
    before = scene.read_bytes()
    source = spelling.format(path=scene, size=len(before))
    for kwargs in ({"out": "in.tif"}, {"out": "sr.tif", "preview": "in.tif"}):
        with pytest.raises(OutputError, match=r"in\.tif is another file of this run"):
            predict(source, **kwargs, overwrite=True, **options)
    assert scene.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["in.tif", "scene.vrt"]


def test_model_area_and_result_are_kept_too(scene, tmp_path, options):
    area = tmp_path / "area.json"
    area.write_text("{}")
    for preview in (options["model"], area, "sr.tif", "sr.json"):
        with pytest.raises(OutputError, match="is another file of this run"):
            predict(scene, "sr.tif", preview=preview, aoi=str(area), stac=True, overwrite=True, **options)


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr", "bands/"])
@pytest.mark.parametrize("beside", ["item", "preview"])
def test_files_beside_the_result_are_kept_unless_asked(scene, tmp_path, options, name, beside):
    pytest.importorskip("rio_stac", reason="rio-stac is absent: pip install 'geosr[stac]'")
    path = tmp_path / ("notes.txt" if beside == "preview" else item_of(name).name)
    path.write_text("mine")
    kwargs = {"preview": path} if beside == "preview" else {"stac": True, "datetime": "2025-06-01"}
    with pytest.raises(OutputError, match=rf"{path.name} exists; give --overwrite to replace it"):
        predict(scene, name, **kwargs, **options)
    assert (path.read_text(), sorted(os.listdir(tmp_path))) == ("mine", sorted([path.name, "in.tif"]))
    predict(scene, name, overwrite=True, **kwargs, **options)
    assert path.read_bytes() != b"mine"


def test_the_item_that_was_read_and_its_assets_are_kept(scene, tmp_path, options):
    pytest.importorskip("pystac", reason="pystac is absent: pip install 'geosr[stac]'")
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "geometry": None, "links": [],
        "properties": {"datetime": "2025-06-01T00:00:00Z"}, "stac_extensions": [],
        "assets": {
            "image": {"href": "./in.tif", "eo:bands": [{"name": band} for band in BANDS]},
            "other": {"href": "./other.tif", "eo:bands": [{"name": "B11"}]},
        },
    }  # fmt: skip
    (tmp_path / "scene.json").write_text(json.dumps(item))
    (tmp_path / "other.tif").write_bytes(b"asset")
    for out in ("scene.tif", "other.tif"):
        with pytest.raises(OutputError, match="is another file of this run"):
            predict("scene.json", out, stac=True, overwrite=True, **options)
    assert json.loads((tmp_path / "scene.json").read_text()) == item
    assert (tmp_path / "other.tif").read_bytes() == b"asset"


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr", "bands/"])
def test_of_two_runs_on_one_target_the_second_ends_in_exists(scene, tmp_path, options, name, monkeypatch):
    """The first is done between the second's first look and its lock."""
    plan, first = Job.plan, []

    def late(*args, **kwargs):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        first.append(predict(scene, name, **options))
        first.append(tree(tmp_path))
        return plan(*args, **kwargs)

    monkeypatch.setattr(Job, "plan", late)
    with pytest.raises(OutputError, match=r"exists; give --overwrite|holds B02\.tif B08\.tif already"):
        predict(scene, name, **options | {"tile": 256})
    assert tree(tmp_path) == first[1]
    assert not list(tmp_path.glob(".*"))


def test_of_two_runs_with_one_preview_neither_replaces_the_others(scene, tmp_path, options):
    def other(*_):
        if not (tmp_path / "b.tif").exists():
            predict(scene, "b.tif", preview="p.png", **options)

    with pytest.raises(OutputError, match=r"p\.png exists, and did not when the work began"):
        predict(scene, "a.tif", preview="p.png", aoi=(400_000, 4_999_500, 400_500, 5e6), progress=other, **options)
    assert not (tmp_path / "a.tif").exists()


KWARGS = {"preview": "p.png", "stac": True, "datetime": "2025-06-01"}


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr", "bands/"])
@pytest.mark.parametrize("step", range(4))
def test_a_run_that_is_killed_while_it_publishes_is_completed_by_the_same_command(
    scene, tmp_path, options, name, step, monkeypatch
):
    """Before the first of its files has its name, before each further one, and before the work folder goes."""
    pytest.importorskip("rio_stac", reason="rio-stac is absent: pip install 'geosr[stac]'")
    written = [tmp_path / "p.png", item_of(name), tmp_path / name]
    predict(scene, name, **KWARGS, **options)
    undisturbed = tree(*written)
    for path in written:
        files.remove(path)
    real, calls = files.publish, iter(range(9))

    def kill(unfinished, target, **kwargs):
        if target in written and next(calls) == step:
            raise Stop
        real(unfinished, target, **kwargs)

    monkeypatch.setattr(files, "publish", kill)
    if step == 3:
        monkeypatch.setattr("geosr.inference.journal.remove_work", lambda _: next(x for x in [] if x))
    with pytest.raises((Stop, StopIteration)):
        predict(scene, name, **KWARGS, **options)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert [path.exists() for path in written] == [number < step for number in range(3)]
    done = predict(scene, name, **KWARGS, **options)
    assert (done.resumed, done.tiles, done.preview, done.stac) == (2, 2, written[0], written[1])
    assert tree(*written) == undisturbed
    assert sorted(os.listdir(tmp_path)) == sorted(["in.tif", *(path.name for path in written)])
    with pytest.raises(OutputError, match=r"exists|holds"):
        predict(scene, name, **KWARGS, **options)


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr"])
def test_an_input_that_changes_while_the_run_works_is_an_error_and_nothing_is_written(scene, tmp_path, options, name):
    calls = iter(range(9))

    def change(*_):
        if next(calls) == 1:
            status = scene.stat()
            with rasterio.open(scene, "r+") as file:
                file.write(file.read()[:, ::-1])
            os.utime(scene, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(InputError, match=r"in\.tif changed while the run worked"):
        predict(scene, name, progress=change, preview="p.png", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{name}.geosr", "in.tif"]
    assert predict(scene, name, preview="p.png", **options).resumed == 0
    with rasterio.open(predict(scene, "fresh.tif", **options).path) as fresh:
        expected = fresh.read()
    with tiled.open_scene(tmp_path / name) as got:
        np.testing.assert_array_equal(got.read_digital(), expected)


def test_a_change_that_keeps_size_and_time_is_not_continued(scene, tmp_path, options):
    virtual(tmp_path / "scene.vrt", scene)
    for source in (scene, "scene.vrt", f"file://{scene}"):
        with pytest.raises(Stop):
            predict(source, "sr.tif", progress=after(1), **options)
        time.sleep(0.01)
        status = scene.stat()
        with rasterio.open(scene, "r+") as file:
            file.write(file.read()[:, :, ::-1])
        os.utime(scene, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert predict(source, "sr.tif", **options).resumed == 0
        os.remove("sr.tif")
        with pytest.raises(Stop):
            predict(source, "sr.tif", progress=after(1), **options)
        assert predict(source, "sr.tif", **options).resumed == 1
        os.remove("sr.tif")


SERVER = """
import pathlib, re, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Served(BaseHTTPRequestHandler):
    def do_GET(self):
        content, etag = (pathlib.Path(name).read_bytes() for name in ("in.tif", "etag"))
        match = re.fullmatch(r"bytes=(\\d+)-(\\d*)", self.headers.get("Range", ""))
        first, last = (int(match[1]), int(match[2] or len(content) - 1)) if match else (0, len(content) - 1)
        part = content[first : last + 1]
        self.send_response(206 if match else 200)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        if etag:
            self.send_header("ETag", etag.decode())
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""The scene, and of its version what stands in a file; in a process of its own, as GDAL holds Python while it opens."""


@pytest.fixture
def address(scene, tmp_path):
    """The scene on a server, at another path each time: GDAL remembers what it has read."""
    (tmp_path / "etag").write_text('"1"')
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/{time.time_ns()}.tif"
        server.kill()


@pytest.mark.parametrize(("etags", "resumed"), [(('"1"', '"1"'), 1), (('"1"', '"2"'), 0), (("", ""), 0)])
def test_work_on_an_address_is_continued_where_the_server_tells_the_same_version(
    address, tmp_path, options, etags, resumed, caplog
):
    caplog.set_level("INFO")
    (tmp_path / "etag").write_text(etags[0])
    with pytest.raises(Stop):
        predict(address, "sr.tif", progress=after(1), **options)
    (tmp_path / "etag").write_text(etags[1])
    assert predict(address, "sr.tif", **options).resumed == resumed
    assert ("nothing tells whether" in caplog.text) == (not etags[0])


def test_an_address_that_changes_while_the_run_works_is_an_error(address, tmp_path, options):
    def change(*_):
        (tmp_path / "etag").write_text('"2"')

    with pytest.raises(InputError, match="changed while the run worked"):
        predict(address, "sr.tif", progress=change, **options)
    assert not (tmp_path / "sr.tif").exists()


@pytest.fixture
def half(tmp_path, monkeypatch, options):
    """A run of six shards that was stopped after five; gives the output's name, and says what the result should be."""
    monkeypatch.chdir(tmp_path)
    scene = write_scene(tmp_path / "in.tif", 300, 200)

    def stop(name):
        kept = []
        monkeypatch.setattr(
            tiled, "plan_output", lambda *a, _plan=tiled.plan_output, **k: kept.append(_plan(*a, **k)) or kept[-1]
        )
        expected = tree(predict(scene, f"whole.{name.partition('.')[2]}", **options).path)
        with pytest.raises(Stop):
            predict(scene, name, progress=after(5), **options)
        output = kept[-1]
        there = [output.shard_path(n) for n in range(6) if output.shard_path(n).exists()]
        return output, there, list(expected.values())

    return scene, stop


def finish(scene, name, options, expected, *, resumed):
    done = predict(scene, name, **options)
    assert done.resumed in resumed
    assert list(tree(done.path).values()) == expected
    assert not list(scene.parent.glob(f".{name}*"))


@pytest.mark.parametrize("name", ["sr.tif", "sr.zarr"])
@pytest.mark.parametrize("damage", ["copy", "folder", "pipe", "link"])
def test_only_a_shard_of_this_place_counts(half, options, name, damage):
    """A copy of another shard, a folder, a pipe and a link in the place of one."""
    scene, stop = half
    _, there, expected = stop(name)
    there[1].unlink()
    {
        "copy": lambda: shutil.copy2(there[2], there[1]),
        "folder": lambda: (there[1] / "album").mkdir(parents=True),
        "pipe": lambda: os.mkfifo(there[1]),
        "link": lambda: there[1].symlink_to(there[2]),
    }[damage]()
    finish(scene, name, options, expected, resumed=[4])


@pytest.mark.parametrize(
    "damage",
    ["empty zarr.json", "cut zarr.json", "scale_factor", "x", "no x", "folder zarr.json", "link", "no c", "file c"],
)
def test_a_group_in_a_work_folder_is_mended_with_whatever_damage(half, options, damage):
    scene, stop = half
    output, _, expected = stop("sr.zarr")
    group = output.finished[0]
    meta, array, x = group / "zarr.json", group / "reflectance" / "zarr.json", next((group / "x").rglob("c/*"))
    kept = 5
    if damage == "empty zarr.json":
        meta.write_bytes(b"")
        array.write_bytes(b"")
    elif damage == "cut zarr.json":
        os.truncate(array, 100)
    elif damage == "scale_factor":
        text = array.read_text()
        assert "0.0001" in text
        array.write_text(text.replace("0.0001", "0.0002"))
    elif damage == "x":
        content = bytearray(x.read_bytes())
        content[len(content) // 2] ^= 4
        x.write_bytes(content)
    elif damage == "no x":
        shutil.rmtree(group / "x")
    elif damage == "folder zarr.json":
        array.unlink()
        array.mkdir()
    elif damage == "link":
        array.unlink()
        array.symlink_to(scene)
    else:
        shutil.rmtree(group / "reflectance" / "c")
        kept = 0
        if damage == "file c":
            (group / "reflectance" / "c").write_text("")
    before = scene.read_bytes()
    finish(scene, "sr.zarr", options, expected, resumed=[kept])
    assert scene.read_bytes() == before


def test_a_file_that_is_no_shard_is_not_published(half, options):
    scene, stop = half
    _, there, _ = stop("sr.zarr")
    shutil.copy(there[0], there[0].with_name("77"))
    with pytest.raises(OutputError, match="is no shard of"):
        predict(scene, "sr.zarr", **options)


@pytest.mark.parametrize("kind", ["link", "foreign"])
def test_a_work_folder_of_somebody_else_is_left_alone(scene, tmp_path, options, kind):
    photos = tmp_path / "photos"
    (photos / "album").mkdir(parents=True)
    (photos / "1.jpg").write_text("x")
    if kind == "link":
        (tmp_path / ".sr.tif.geosr").symlink_to(photos)
    else:
        shutil.copytree(photos, tmp_path / ".sr.tif.geosr")
    before = tree(tmp_path)
    for kwargs in ({}, {"overwrite": True}, {"restart": True}, {"shard": (1, 2)}):
        with pytest.raises(OutputError, match=r"\.sr\.tif\.geosr.* geosr leaves it as it is"):
            predict(scene, "sr.tif", **kwargs, **options)
    with pytest.raises(OutputError, match="geosr leaves it as it is"):
        assemble("sr.tif")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", [b"null", b"[]", b"{}", b'{"call": {"tile": "x"}, "job": 1}', b"\xff", b""])
def test_a_job_of_another_kind_is_not_assembled_and_done_anew(scene, tmp_path, options, text):
    predict(scene, "sr.tif", shard=(1, 1), **options)
    job = tmp_path / ".sr.tif.geosr" / "job.json"
    job.write_bytes(text)
    with pytest.raises(OutputError, match=r"job\.json is not as geosr wrote it, or of another version"):
        assemble("sr.tif")
    assert predict(scene, "sr.tif", **options).resumed == 0


def test_work_that_was_moved_is_not_assembled_elsewhere(scene, tmp_path, options):
    predict(scene, "sr.tif", shard=(1, 1), **options)
    os.rename(".sr.tif.geosr", ".other.tif.geosr")
    with pytest.raises(OutputError, match=r"was begun for .*sr\.tif; move it back"):
        assemble("other.tif")


@pytest.mark.parametrize("out", ["", "/", "a\0.tif", "n" * 300 + ".tif"])
def test_names_that_are_none_are_refused_before_anything_happens(scene, tmp_path, options, out):
    with pytest.raises(UsageError):
        predict(scene, out, **options)
    assert os.listdir(tmp_path) == ["in.tif"]


def test_the_longest_name_works(scene, tmp_path, options):
    name = "n" * 251 + ".tif"
    with pytest.raises(Stop):
        predict(scene, name, progress=after(1), **options)
    assert predict(scene, name, **options).resumed == 1
    assert sorted(os.listdir(tmp_path)) == ["in.tif", name]


def test_everything_is_on_disk_before_it_has_its_name(scene, tmp_path, options, monkeypatch):
    """A power cut after the rename finds whole files: of a Zarr group too."""
    synced, real = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), real(handle)))
    for name in ("sr.zarr", "sr.tif", "bands/"):
        synced.clear()
        predict(scene, name, **options)
        written = [tmp_path / name, *(tmp_path / name).rglob("*")] if name != "sr.tif" else [tmp_path / name]
        assert {path.stat().st_ino for path in (*written, tmp_path)} <= synced


def test_folders_with_versions_in_their_names_have_items_of_their_own(tmp_path):
    (tmp_path / "v1.2").mkdir()
    names = [item_of(f"{tmp_path}/{name}").name for name in ("sr.tif", "sr.zarr", "v1.1/", "v1.2")]
    assert names == ["sr.json", "sr.json", "v1.1.json", "v1.2.json"]


def test_jobs_of_inputs_of_which_nothing_is_known_are_never_the_same(caplog):
    stamps = {"a.tif": "1", "s3://b/c.tif": None}
    first, second = (forgetful({"window": 1}, stamps, shared=False) for _ in range(2))
    assert first != second
    assert forgetful({"window": 1}, stamps, shared=True) == {"window": 1}
    assert forgetful({"window": 1}, {"a.tif": "1"}, shared=False) == {"window": 1}
    assert "nothing tells whether s3://b/c.tif changes" in caplog.text


def test_every_file_of_a_run_is_known_before_it_begins(tmp_path):
    run = RunFiles.of(
        tmp_path / "sr.tif", preview=tmp_path / "p.png", stac=True, inputs=[None, (1, 2)], overwrite=False
    )
    assert run.sidecars == [tmp_path / "p.png", tmp_path / "sr.json"]
    run.require_free()
    (tmp_path / "sr.json").touch()
    with pytest.raises(OutputError, match="exists"):
        run.require_free()
    run.require_free({tmp_path / "sr.json"})
