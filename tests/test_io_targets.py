import os

import pytest

from geosr.errors import OutputError, UsageError
from geosr.io.targets import Target, require_free, require_name


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.tif").write_text("input")
    return tmp_path


def refuse(targets, inputs=(), *, overwrite=True, match, error=OutputError, **kwargs):
    with pytest.raises(error, match=match):
        require_free(targets, {str(one) for one in inputs}, overwrite=overwrite, **kwargs)


@pytest.mark.parametrize(
    "make", [lambda p: p.write_text("x"), lambda p: p.symlink_to("gone"), lambda p: p.symlink_to("in.tif")]
)
def test_what_exists_is_kept_unless_asked(here, make):
    make(here / "sr.png")
    refuse(
        [Target(here / "sr.tif"), Target(here / "sr.png")], overwrite=False, match=r"sr\.png exists; give --overwrite"
    )
    require_free([Target(here / "sr.tif"), Target(here / "sr.png")], set(), overwrite=True)
    require_free([Target(here / "sr.png")], set(), overwrite=False, done={here / "sr.png"})


def test_an_input_is_never_replaced(here):
    os.link(here / "in.tif", here / "hard.tif")
    (here / "soft.tif").symlink_to("in.tif")
    for name in ("in.tif", "hard.tif", "soft.tif", "./in.tif", f"../{here.name}/in.tif"):
        refuse([Target(here / name)], [here / "in.tif"], match="is another file of this run, .*in.tif; choose another")
    store = here / "s.zarr" / "scenes" / "a"
    store.mkdir(parents=True)
    (here / "s.zarr" / "zarr.json").touch()
    refuse([Target(store / "sr.tif")], [store], match="lies inside the input")
    refuse([Target(here / "s.zarr", "zarr")], [store], match="the input .* lies inside .*s.zarr, which is replaced")
    (here / ".sr.tif.geosr").mkdir()
    refuse([Target(here / "sr.tif")], [here / ".sr.tif.geosr" / "old.tif"], match="which is replaced")
    bands = here / "bands"
    bands.mkdir()
    refuse([Target(bands, "folder", ("B02.tif",))], [bands / "B02.tif"], match="another file of this run")
    require_free([Target(bands, "folder", ("B02.tif",))], {str(bands / "B02.jp2")}, overwrite=False)


def test_targets_are_different_files(here):
    (here / "bands").mkdir()
    (here / "s.zarr").mkdir()
    (here / "s.zarr" / "zarr.json").touch()
    (here / ".sr.tif.geosr").mkdir()
    for first, second in (
        (Target(here / "sr.json"), Target(here / "sr.json")),
        (Target(here / "bands", "folder", ("B02.tif",)), Target(here / "bands" / "B02.tif")),
        (Target(here / "s.zarr", "zarr"), Target(here / "s.zarr" / "sr.png")),
        (Target(here / "sr.tif"), Target(here / ".sr.tif.geosr" / "sr.png")),
    ):
        refuse([first, second], match="choose another name")


@pytest.mark.parametrize("overwrite", [False, True])
def test_devices_and_pipes_are_refused(here, overwrite):
    os.mkfifo(here / "pipe.tif")
    (here / "null.tif").symlink_to("/dev/null")
    for name in ("pipe.tif", "null.tif"):
        refuse([Target(here / name)], overwrite=overwrite, match="neither a file nor a folder")


@pytest.mark.parametrize("name", ["", "/", "//", "a\0b.tif", "\ud800.tif", "n" * 300 + ".tif", "d" * 256 + "/a.tif"])
def test_what_no_file_can_be_called_is_refused(here, name):
    with pytest.raises(UsageError) as caught:
        require_name(name)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_ordinary_names_are_fine(here):
    for name in ("sr.tif", "bands/", ".", "n" * 251 + ".tif", "Öl/地.tif"):
        require_name(name)


def test_a_folder_holds_what_it_holds(here):
    bands = Target(here / "bands", "folder", ("B02.tif", "B08.tif"))
    require_free([bands], set(), overwrite=False)
    bands.path.mkdir()
    (bands.path / "B08.tif").touch()
    refuse([bands], overwrite=False, match=r"bands holds B08\.tif already; give --overwrite")
    require_free([bands], set(), overwrite=False, done={bands.path})
