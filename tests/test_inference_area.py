import json
from pathlib import Path

import pytest
from odc.geo.geom import BoundingBox

from geosr.errors import UsageError
from geosr.inference.area import read_area

SQUARE = {"type": "Polygon", "coordinates": [[[14, 50], [15, 50], [15, 51], [14, 51], [14, 50]]]}
TRIANGLE = {"type": "Polygon", "coordinates": [[[16, 50.5], [17, 50.5], [17, 52], [16, 50.5]]]}


def feature(geometry):
    return {"type": "Feature", "properties": {"name": "field"}, "geometry": geometry}


@pytest.fixture
def write(tmp_path):
    def write(content, name="area.geojson"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.mark.parametrize("aoi", ["1,2.5,30,4e1", " 1, 2.5 ,30, 40", [1, 2.5, 30, 40], (1, "2.5", 30, 40)])
def test_four_numbers_are_bounds(aoi):
    area = read_area(aoi)
    assert isinstance(area, BoundingBox)
    assert tuple(area) == (1, 2.5, 30, 40)
    assert area.crs is None


@pytest.mark.parametrize(
    ("content", "bounds"),
    [
        (SQUARE, (14, 50, 15, 51)),
        (feature(SQUARE), (14, 50, 15, 51)),
        ({"type": "FeatureCollection", "features": [feature(SQUARE), feature(TRIANGLE)]}, (14, 50, 17, 52)),
        ({"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"], TRIANGLE["coordinates"]]}, (14, 50, 17, 52)),
    ],
    ids=["geometry", "feature", "collection", "multipolygon"],
)
def test_every_kind_of_geojson_is_degrees(write, content, bounds):
    area = read_area(write(content))
    assert area.crs == "EPSG:4326"
    assert tuple(area.boundingbox) == bounds


@pytest.mark.parametrize("name", ["area.geojson", "area.json", "AREA.GeoJSON"])
def test_a_path_may_be_text(write, name):
    assert read_area(str(write(SQUARE, name))) == read_area(write(SQUARE, name))


def test_the_crs_member_of_older_files_is_honoured(write):
    named = SQUARE | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}}
    assert read_area(write(named)).crs == "EPSG:32633"
    degrees = SQUARE | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}
    assert tuple(read_area(write(degrees)).boundingbox) == (14, 50, 15, 51)


def test_a_crs_member_that_says_nothing_means_degrees(write):
    assert read_area(write(SQUARE | {"crs": None})).crs == "EPSG:4326"


@pytest.mark.parametrize("aoi", ["here", "1,2,3", "1,2,3,4,5", "1;2;3;4", "", [1, 2, 3], ["a", 2, 3, 4]])
def test_what_is_no_area_is_refused(aoi):
    with pytest.raises(UsageError, match=r"is not minx,miny,maxx,maxy and not a \.geojson file"):
        read_area(aoi)


@pytest.mark.parametrize("aoi", ["3,2,1,4", "1,4,3,2", "1,2,1,4", "nan,2,3,4"])
def test_an_empty_area_is_refused(aoi):
    with pytest.raises(UsageError, match="is empty; give minx,miny,maxx,maxy with minx < maxx and miny < maxy"):
        read_area(aoi)


def test_a_missing_file_is_named():
    with pytest.raises(UsageError, match=r"aoi nowhere\.geojson cannot be read: No such file"):
        read_area("nowhere.geojson")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_area(Path("/"))


@pytest.mark.parametrize("content", ["", "{", "POLYGON ((0 0, 1 1, 1 0, 0 0))"])
def test_what_is_no_json_is_refused(write, content):
    with pytest.raises(UsageError, match="is not JSON"):
        read_area(write(content))


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "image.json").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UsageError, match="is not JSON"):
        read_area(tmp_path / "image.json")


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        3,
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[["a", 1]]]},
        {"type": "FeatureCollection", "features": []},
        feature(None),
        SQUARE | {"crs": {"properties": {"name": "EPSG:0"}}},
        SQUARE | {"crs": "EPSG:4326"},
    ],
    ids=str,
)
def test_json_without_a_geometry_is_refused(write, content):
    with pytest.raises(UsageError, match="holds no GeoJSON geometry"):
        read_area(write(content))
