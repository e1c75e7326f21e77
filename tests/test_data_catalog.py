"""The data catalogue: valid STAC, true to its own promises, and each kind of broken entry has its error."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from geosr import open_scene
from geosr.data.catalog import (
    STAC_READER,
    catalog_file,
    collections,
    describe,
    get_collection,
    rows,
    scenes_of,
    stac_source,
)
from geosr.data.readers import LAYOUTS, READERS
from geosr.demo import demo_scene
from geosr.errors import InputError, UsageError

DATA_SETS = ["geosr-demo", "example", "sen2naip", "sen2naipv2", "sen2venus", "worldstrat", "s2-naip", "opensr-test"]
SOURCES = ["earth-search-sentinel-2-c1-l2a", "planetary-computer-sentinel-2-l2a", "eopf-sentinel-2-l2a"]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("tests reach no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def broken(tmp_path):
    """A copy of the catalogue, one of whose entries ``change`` alters."""

    def make(change, id="sen2naip"):
        catalog = Path(shutil.copytree(catalog_file().parent, tmp_path / "data_catalog")) / "catalog.json"
        path = catalog.parent / id / "collection.json"
        stac = json.loads(path.read_text("utf-8"))
        change(stac)
        path.write_text(json.dumps(stac), encoding="utf-8")
        return catalog

    return make


def test_every_data_set_and_source_has_an_entry():
    assert [entry.id for entry in collections()] == DATA_SETS + SOURCES


def test_the_catalogue_is_valid_stac(no_network):
    # What can be validated offline: the core schemas of STAC 1.1, which pystac ships. The schemas of the extensions
    # (eo, raster, scientific) are on the network only; the catalogue's own checks cover what geosr uses of them.
    pytest.importorskip("jsonschema")
    import pystac
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    catalog = pystac.Catalog.from_file(str(catalog_file()))
    objects = [catalog, *catalog.get_children()]
    assert len(objects) == 1 + len(DATA_SETS + SOURCES)
    for one in objects:
        checked = JsonSchemaSTACValidator().validate_core(
            one.to_dict(include_self_link=False), one.STAC_OBJECT_TYPE, "1.1.0"
        )
        assert checked
        assert one.get_root() is catalog


def test_the_validation_above_can_fail(no_network):
    pytest.importorskip("jsonschema")
    import pystac
    from pystac.errors import STACValidationError
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    stac = json.loads((catalog_file().parent / "sen2naip" / "collection.json").read_text("utf-8"))
    stac["license"] = ["CC-BY-4.0"]
    with pytest.raises(STACValidationError):
        JsonSchemaSTACValidator().validate_core(stac, pystac.STACObjectType.COLLECTION, "1.1.0")


@pytest.mark.parametrize("id", DATA_SETS + SOURCES)
def test_an_entry_declares_the_extensions_that_it_uses(id):
    stac = get_collection(id).stac
    declared = {url.split("/")[3] for url in stac["stac_extensions"]}
    prefixes = set(re.findall(r'"(\w+):\w+":', json.dumps(dict(stac)))) - {"geosr"}
    assert {"scientific" if prefix == "sci" else prefix for prefix in prefixes} == declared


def test_links_inside_the_catalogue_are_relative():
    for path in catalog_file().parent.rglob("*.json"):
        links = json.loads(path.read_text("utf-8"))["links"]
        inside = [link["href"] for link in links if link["rel"] in ("root", "parent", "child")]
        assert inside
        assert all(href.startswith((".", "..")) for href in inside)


def test_every_reader_says_its_layout():
    assert set(LAYOUTS) == set(READERS)
    assert {entry.reader for entry in collections()} == {*READERS, STAC_READER, None}


def test_the_demo_entry_is_true_to_the_demo_scene():
    entry = get_collection("geosr-demo")
    (scene,) = scenes_of("geosr-demo", "anywhere")
    assert scene.hr == (str(demo_scene()),)
    with open_scene(scene.hr[0]) as opened:
        asset = entry.stac["item_assets"]["hr"]
        assert opened.bands == entry.bands
        assert opened.dtype == asset["data_type"]
        assert opened.radiometry.scale == pytest.approx(asset["raster:scale"])
        assert opened.radiometry.nodata == asset["nodata"]
        assert abs(opened.geobox.affine.a) == entry.gsd[0]
        west, south, east, north = opened.geobox.geographic_extent.boundingbox
        np.testing.assert_allclose(entry.stac["extent"]["spatial"]["bbox"][0], [west, south, east, north], atol=1e-3)


def test_an_id_is_found_whatever_its_case():
    assert get_collection("WorldStrat").id == "worldstrat"


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'sen2venus'"):
        get_collection("SEN2VENUZ")


@pytest.mark.parametrize("id", ["sen2naip", "sen2venus", "worldstrat"])
def test_a_folder_without_the_layout_says_what_is_expected_and_how_to_get_it(tmp_path, id):
    entry = get_collection(id)
    for folder, state in ((tmp_path, "holds no"), (tmp_path / "absent", "does not exist")):
        with pytest.raises(InputError) as error:
            scenes_of(id, folder)
        for told in (str(folder), state, LAYOUTS[id], entry.stac["geosr:get"]):
            assert told in str(error.value)


@pytest.mark.parametrize("id", SOURCES)
def test_a_source_of_scenes_gives_the_command_that_searches_it(id):
    source = stac_source(id)
    assert source.url.startswith("https://")
    with pytest.raises(UsageError, match=rf"geosr prepare --stac {source.url} --collection {source.collection} "):
        scenes_of(id, "anywhere")


def test_a_data_set_is_no_source_to_search():
    with pytest.raises(UsageError, match="sen2naip is no source that can be searched"):
        stac_source("sen2naip")


def test_a_data_set_without_a_reader_says_the_way_round():
    with pytest.raises(UsageError, match=r"no reader for sen2naipv2.*tacoreader"):
        scenes_of("sen2naipv2", "anywhere")


def test_rows_are_one_shape_of_text():
    table = rows(collections())
    assert len({tuple(row) for row in table}) == 1
    assert all(isinstance(cell, str) for row in table for cell in row.values())
    assert next(row for row in table if row["id"] == "sen2naip")["resolution"] == "2.5 / 10 m"


@pytest.mark.parametrize("id", DATA_SETS + SOURCES)
def test_description_marks_what_nobody_checked(id):
    entry = get_collection(id)
    told = describe(entry)
    assert all(isinstance(text, str) and text for text in told.values())
    assert ("not verified" in " ".join(told.values())) == bool(entry.unverified)
    assert {"licence", "get it", "cite", "reader", "providers"} <= set(told)


def _without(field):
    return lambda stac: stac.pop(field)


def _with(**fields):
    return lambda stac: stac.update({name.replace("__", ":"): value for name, value in fields.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("license"), "has no license; an entry needs"),
        (_without("geosr:reader"), "has no geosr:reader"),
        (_without("geosr:scale"), "pairs need geosr:scale"),
        (_with(type="Feature"), "type is 'Feature'"),
        (_with(id="other"), "id is 'other'; it should be that of its folder, 'sen2naip'"),
        (_with(geosr__kind="triples"), "geosr:kind is 'triples'; it is one of pairs images scenes"),
        (_with(license=""), "license is empty"),
        (_with(license="other", links=[]), "license is 'other' and no link has rel 'license'"),
        (_with(providers=[]), "providers and sci:citation must not be empty"),
        (_with(sci__doi="https://doi.org/10.5281/zenodo.1"), "is no DOI"),
        (_with(geosr__reader="sen2nap"), "reader 'sen2nap' is unknown .*did you mean 'sen2naip'"),
        (_with(geosr__reader=None), "say in geosr:route"),
        (_with(geosr__reader="stac", geosr__api={"url": "https://example.org"}), "give geosr:api with url and coll"),
        (_with(item_assets={}), "item_assets is empty"),
        (_with(item_assets={"hr": {"gsd": 1, "bands": []}}), "item_assets.hr names no bands"),
        (_with(item_assets={"hr": {"bands": [{"name": "B02"}]}}), "item_assets.hr has no gsd"),
        (_with(item_assets={"x": {"gsd": 1, "bands": [{"name": "B02"}]}}), "item_assets.x has no raster:scale"),
        (_with(links=[{"rel": "parent", "href": "../gone.json"}]), "link 'parent' leads to ../gone.json"),
        (_with(geosr__unverified=["licence"]), "names 'licence', which is no field"),
        (_with(geosr__unverified=["item_assets.sr.nodata"]), "names 'item_assets.sr.nodata', which is no field"),
    ],
)
def test_a_bad_entry_gives_its_error(broken, change, message):
    with pytest.raises(InputError, match=message):
        collections(broken(change))


def test_a_link_to_no_entry_is_named(broken):
    catalog = broken(lambda stac: None)
    (catalog.parent / "worldstrat" / "collection.json").unlink()
    with pytest.raises(InputError, match=r"worldstrat.*cannot be read.*link of the catalogue is broken"):
        collections(catalog)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "holds a list")])
def test_a_file_that_is_no_json_object_is_named(broken, text, message):
    catalog = broken(lambda stac: None)
    (catalog.parent / "worldstrat" / "collection.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        collections(catalog)


@pytest.mark.parametrize(
    ("links", "message"),
    [([], "lists no collection"), ([{"rel": "child", "href": "./sen2naip/collection.json"}] * 2, "more than once")],
)
def test_a_catalogue_lists_each_collection_once(broken, links, message):
    catalog = broken(lambda stac: None)
    catalog.write_text(json.dumps({"links": links}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        collections(catalog)
