import json
import os
from dataclasses import asdict

import numpy as np
import pytest
import rasterio

from geosr.errors import InputError, UsageError
from geosr.inference.batch import Listed, is_done, name_outputs, predict_batch, read_list


def write(path, text):
    path.write_text(text)
    return path


def test_a_list_names_scenes_by_their_files(tmp_path):
    listed = write(
        tmp_path / "scenes.txt",
        "# two scenes, and one elsewhere\n\na.tif\n'with space/T33_B02.jp2' 'with space/T33_B03.jp2'  # two bands\n"
        "/vsizip/b.zip/c.tif\nhttps://example.org/d.tif\n../e.SAFE\n",
    )
    assert read_list(listed) == [
        Listed("a", [f"{tmp_path}/a.tif"]),
        Listed("T33", [f"{tmp_path}/with space/T33_B02.jp2", f"{tmp_path}/with space/T33_B03.jp2"]),
        Listed("c", ["/vsizip/b.zip/c.tif"]),
        Listed("d", ["https://example.org/d.tif"]),
        Listed("e", [f"{tmp_path}/../e.SAFE"]),
    ]


def test_the_answer_to_a_search_is_a_list(tmp_path):
    items = [{"id": name, "links": [{"rel": "self", "href": f"https://example.org/{name}"}]} for name in ("a", "b")]
    listed = write(tmp_path / "search.json", json.dumps({"type": "FeatureCollection", "features": items}))
    assert read_list(listed) == [Listed(name, [f"https://example.org/{name}"]) for name in ("a", "b")]
    evil = {"id": "../../etc/a", "links": [{"rel": "self", "href": "x"}]}
    assert read_list(write(listed, json.dumps({"features": [evil]}))) == [Listed("_.._etc_a", ["x"])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "# nothing\n", "holds no scene"),
        ("a.txt", "'open.tif\n", r"line 1: No closing quotation; close the quotes"),
        ("a.json", "{}", "no answer to a STAC search"),
        ("a.json", '{"features": [{"id": "a"}]}', "no answer to a STAC search"),
        ("a.json", "[", "no answer to a STAC search"),
        ("a.json", '{"features": []}', "holds no scene"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        read_list(write(tmp_path / name, content))


def test_a_list_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"the list .*gone\.txt cannot be read"):
        read_list(tmp_path / "gone.txt")
    (tmp_path / "raster.tif").write_bytes(b"II*\0\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path / "raster.tif")


def test_outputs_have_the_names_of_their_scenes():
    scenes = [Listed("a", []), Listed("b", [])]
    assert name_outputs(scenes, "out") == {"a": "out/a.tif", "b": "out/b.tif"}
    assert name_outputs(scenes, "out/{name}/sr.zarr") == {"a": "out/a/sr.zarr", "b": "out/b/sr.zarr"}
    with pytest.raises(UsageError, match=r"one file for 2 scenes; give a folder, or out/\{name\}\.tif"):
        name_outputs(scenes, "sr.tif")


@pytest.mark.parametrize("out", ["sr", "sr/{name}/x.tif", "sr/{name}.zarr"])
def test_no_name_leads_out_of_the_folder(tmp_path, out):
    names = ["..", ".", "", "/", "../up", "a\\..\\b", "/etc/passwd", "...", "\u202eevil"]
    items = [{"id": name, "links": [{"rel": "self", "href": f"https://x/{n}"}]} for n, name in enumerate(names)]
    listed = write(tmp_path / "found.json", json.dumps({"features": items}))
    (tmp_path / "sr").mkdir()
    made = []
    batch = predict_batch(listed, str(tmp_path / out), lambda _, target: made.append(target))
    assert len(made) == 5
    for target in made:
        assert os.path.realpath(target) == os.path.normpath(target)
        assert os.path.normpath(target).startswith(f"{tmp_path}/sr/")
    assert set(batch.failed) == {f"https://x/{n}" for n in (0, 1, 2, 7)}
    assert "nothing of its name can be that of a file" in batch.failed["https://x/0"]
    assert os.listdir(tmp_path) in (["sr", "found.json"], ["found.json", "sr"])


def test_scenes_that_cannot_be_written_fail_alone(tmp_path):
    """Two of one name, a name of 300 letters, a file where a folder is to be, and a link to nowhere."""
    names = ["a b", "a/b", "n" * 300, "taken", "fine"]
    items = [{"id": name, "links": [{"rel": "self", "href": name}]} for name in names]
    listed = write(tmp_path / "found.json", json.dumps({"features": items}))
    (tmp_path / "sr").mkdir()
    (tmp_path / "sr" / "taken").write_text("mine")
    made = []
    batch = predict_batch(listed, str(tmp_path / "sr" / "{name}" / "x.tif"), lambda *told: made.append(told))
    assert made == [(["fine"], f"{tmp_path}/sr/fine/x.tif")]
    assert set(batch.failed) == {"a_b", "n" * 300, "taken"}
    assert "2 scenes of the list are called a_b" in batch.failed["a_b"]
    assert "file systems allow 255" in batch.failed["n" * 300]
    assert batch.failed["taken"] == f"folder {tmp_path}/sr/taken cannot be made: File exists"
    assert (tmp_path / "sr" / "taken").read_text() == "mine"


def test_a_scene_named_by_dots_alone_fails_alone(tmp_path):
    listed = write(tmp_path / "list.txt", "..tif\nb.tif\n")
    batch = predict_batch(listed, str(tmp_path / "sr"), lambda sources, _: sources)
    assert batch.done == [[f"{tmp_path}/b.tif"]]
    assert list(batch.failed) == [f"{tmp_path}/..tif"]


def test_an_output_never_replaces_what_another_scene_is_read_from(tmp_path, make_raster):
    for name in ("a.tif", "a_sr.tif"):
        make_raster(np.ones((1, 4, 4), "uint16"), name=name)
    listed = write(tmp_path / "list.txt", "a.tif\na_sr.tif\n")
    batch = predict_batch(listed, str(tmp_path / "{name}_sr.tif"), lambda *told: told, overwrite=True)
    assert [target for _, target in batch.done] == [f"{tmp_path}/a_sr_sr.tif"]
    assert batch.failed == {"a": f"{tmp_path}/a_sr.tif would replace what is read; choose another folder or name"}
    search = write(
        tmp_path / "found.json", json.dumps({"features": [{"id": "found", "links": [{"rel": "self", "href": "x"}]}]})
    )
    batch = predict_batch(search, str(tmp_path), lambda *told: told, overwrite=True, stac=True)
    assert "found.json would replace what is read" in batch.failed["found"]


def test_a_scene_is_done_when_all_of_its_files_are_there(tmp_path):
    for name in ("a.tif", "b.tif", "b.json"):
        (tmp_path / name).touch()
    (tmp_path / "bands").mkdir()
    assert [is_done(str(tmp_path / name), stac=True) for name in ("a.tif", "b.tif", "c.tif")] == [False, True, False]
    assert [is_done(str(tmp_path / name)) for name in ("a.tif", "bands/", "c" * 300)] == [True, False, False]
    (tmp_path / ".b.tif.geosr").mkdir()
    assert is_done(str(tmp_path / "b.tif"), stac=True)
    (tmp_path / ".b.tif.geosr" / "publishing.json").touch()
    assert not is_done(str(tmp_path / "b.tif"), stac=True), "a run was killed before all had their names"


def test_a_defect_costs_its_scene_only(tmp_path, caplog):
    listed = write(tmp_path / "scenes.txt", "a.tif\nb.tif\n")

    def broken(sources, out):
        if "a.tif" in sources[0]:
            raise ZeroDivisionError("a defect")
        return out

    batch = predict_batch(listed, str(tmp_path), broken)
    assert (batch.done, batch.failed) == ([f"{tmp_path}/b.tif"], {"a": "ZeroDivisionError: a defect"})
    assert "Traceback" in caplog.text


@pytest.fixture
def scenes(make_raster, tmp_path):
    """A list of three scenes, of which the second says nothing of its unit."""
    array = np.random.default_rng(0).integers(500, 4000, (4, 20, 30), dtype="uint16")
    for name, scale in (("a", 1e-4), ("b", None), ("c", 1e-4)):
        make_raster(array, name=f"{name}.tif", scale=scale, nodata=0, descriptions=("B02", "B03", "B04", "B08"))
    return write(tmp_path / "scenes.txt", "a.tif\nb.tif\nc.tif\n")


def test_a_scene_that_fails_is_told_at_the_end_and_the_rest_is_done(geosr, scenes, small_weights, tmp_path):
    command = ("predict", "--batch", scenes, "--out", tmp_path / "out", "--model", small_weights)
    code, said, error = geosr(*command)
    assert code == 1
    assert "2 scenes are done, 0 were, 1 failed" in said
    assert error.splitlines()[-4].startswith("b: b.tif holds uint16 values")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]
    code, said, error = geosr(*command)
    assert code == 1
    assert "2 of 3 outputs are there" in error
    made = (tmp_path / "out" / "a.tif").stat().st_mtime_ns
    code, said, _ = geosr(*command, "--resume", "--scale", "1e-4")
    assert (code, said) == (0, "1 scenes are done, 2 were, 0 failed\n")
    assert (tmp_path / "out" / "a.tif").stat().st_mtime_ns == made
    with rasterio.open(tmp_path / "out" / "b.tif") as file:
        assert file.shape == (40, 60)


def test_a_batch_speaks_json(geosr, scenes, small_weights, tmp_path):
    out = tmp_path / "out" / "{name}.zarr"
    code, said, _ = geosr("predict", "--batch", scenes, "--out", out, "--model", small_weights, "--json")
    told = json.loads(said)
    assert code == 1
    assert [one["path"] for one in told["done"]] == [str(tmp_path / "out" / f"{name}.zarr") for name in "ac"]
    assert list(told["failed"]) == ["b"]
    assert asdict(predict_batch(scenes, str(out), lambda *_: None, resume=True))["skipped"] == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scene.tif", "--batch", "list.txt"), "give the files of one scene, or many scenes with --batch LIST"),
        ((), "give the files of one scene, or many scenes with --batch LIST"),
        (("scene.tif", "--resume"), "--resume is for a batch"),
        (("--batch", "list.txt", "--shard", "1/2"), "--shard and --preview are for one scene"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(geosr, arguments, message):
    code, _, error = geosr("predict", *arguments, "--out", "sr.tif")
    assert code == 2
    assert message in " ".join(error.split())
