import json
import os
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry

from geosr.errors import GridError, UsageError
from geosr.grid import window_of_bounds
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


# What is no area, in words

UTM = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "Point", "coordinates": [14, 50]}, "a Point has no area; give a polygon"),
        ({"type": "LineString", "coordinates": [[14, 50], [15, 51]]}, "a LineString has no area; give a polygon"),
        ({"type": "GeometryCollection", "geometries": [SQUARE, {"type": "Point", "coordinates": [1, 2]}]},
         "a Point has no area"),
        (feature(None), "its geometry is null; give a polygon"),
        ({"type": "FeatureCollection", "features": [feature(None)]}, "its geometry is null"),
        ({"type": "FeatureCollection", "features": []}, "it has no features; give a polygon"),
        ({"type": "FeatureCollection", "features": 3}, "features of its FeatureCollection is no list"),
        ({"type": "FeatureCollection", "features": [5]}, "it has no type, such as Polygon or FeatureCollection"),
        ({"type": "Polygon", "coordinates": [[[14, 50], [15, 51], [16, 52], [14, 50]]]}, "its polygon has no area"),
        ({"type": "Polygon", "coordinates": [[["14", "50"], ["15", "51"], ["16", "50"]]]}, "which are two numbers"),
        ({"type": "Polygon", "coordinates": [[[14, 50], [15, float("nan")], [16, 50]]]}, "numbers that are not finite"),
        ({"type": "Topology"}, "its type is 'Topology'"),
        (SQUARE | {"crs": {"type": "link", "properties": {"href": "http://127.0.0.1/crs"}}}, "names no CRS"),
        (json.loads("[" * 60 + "]" * 60), "it has no type"),
    ],
)  # fmt: skip
def test_what_has_no_area_is_named(write, content, said):
    with pytest.raises(UsageError, match=f"holds no GeoJSON geometry: .*{said}"):
        read_area(write(content))


def test_json_that_is_nested_too_deeply_is_refused(write):
    for deep in ("[" * 100_000, '{"type":"Feature","geometry":' * 100 + "null" + "}" * 100):
        with pytest.raises(UsageError, match="is not JSON: its lists and objects are nested more than 64 levels deep"):
            read_area(write(deep))


def test_metres_without_a_crs_are_no_degrees(write):
    metres = {"type": "Polygon", "coordinates": [[[500_100, 4_999_500], [500_300, 4_999_500], [500_300, 4_999_800]]]}
    with pytest.raises(UsageError, match=r"500100, 4999500, which is no longitude and latitude .*EPSG:32633.*minx"):
        read_area(write(metres))
    named = metres | {"crs": {"type": "name", "properties": {"name": "EPSG:32633"}}}
    assert window_of_bounds(UTM, read_area(write(named))) == (slice(20, 50), slice(10, 30))


def test_degrees_as_numbers_are_answered_with_what_the_scene_counts_in():
    with pytest.raises(GridError, match="numbers count in EPSG:32633: give longitudes and latitudes in a GeoJSON"):
        window_of_bounds(UTM, read_area("15.001,45.148,15.004,45.151"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path, encoding):
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(SQUARE), encoding=encoding)
    assert tuple(read_area(path).boundingbox) == (14, 50, 15, 51)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "area.geojson")
    with pytest.raises(UsageError, match="cannot be read: it is a pipe"):
        read_area(tmp_path / "area.geojson")


# The antimeridian and the poles


def ring(*points):
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


ACROSS = ring([179.995, 66.998], [-179.995, 66.998], [-179.995, 67.002], [179.995, 67.002])
SPLIT = {
    "type": "MultiPolygon",
    "coordinates": [
        ring([179.995, 66.998], [180, 66.998], [180, 67.002], [179.995, 67.002])["coordinates"],
        ring([-180, 66.998], [-179.995, 66.998], [-179.995, 67.002], [-180, 67.002])["coordinates"],
    ],
}
BEYOND = ring([179.995, 66.998], [180.005, 66.998], [180.005, 67.002], [179.995, 67.002])


@pytest.mark.parametrize("area", [ACROSS, SPLIT, BEYOND], ids=["both signs", "split", "beyond"])
@pytest.mark.parametrize(
    ("grid", "window"),
    [
        # 0.01 of 0.02 degrees of longitude and 0.004 of 0.01 of latitude
        (GeoBox((100, 200), Affine(1e-4, 0, 179.99, 0, -1e-4, 67.005), "EPSG:4326"), (slice(30, 70), slice(50, 150))),
        (GeoBox((100, 200), Affine(1e-4, 0, -180.01, 0, -1e-4, 67.005), "EPSG:4326"), (slice(30, 70), slice(50, 150))),
        # 435 m by 446 m, about the middle of 640 m; UTM turns by 2.76 degrees there
        (GeoBox((64, 64), Affine(10, 0, 368_910, 0, -10, 7_434_850), "EPSG:32601"), (slice(8, 56), slice(9, 56))),
    ],
    ids=["east", "west", "UTM"],
)
def test_an_area_over_180_degrees_is_found_on_either_side(write, area, grid, window):
    found = window_of_bounds(grid, read_area(write(area)))
    for part, expected in zip(found, window, strict=True):
        assert abs(part.start - expected.start) <= 1
        assert abs(part.stop - expected.stop) <= 1


def test_an_area_over_180_degrees_is_not_the_rest_of_the_globe(write):
    with pytest.raises(GridError, match=r"outside the scene, which covers \(500000.*EPSG:32633 and \(15\.0, 45\.14"):
        window_of_bounds(UTM, read_area(write(ring([170, -60], [-170, -60], [-170, 60], [170, 60]))))
    whole = ring([-180, -90], [180, -90], [180, 90], [-180, 90])
    grid = GeoBox((10, 10), Affine(1, 0, 10, 0, -1, 50), "EPSG:4326")
    assert window_of_bounds(grid, read_area(write(whole))) == (slice(0, 10), slice(0, 10))


@pytest.mark.parametrize("area", [ACROSS, SPLIT], ids=["both signs", "split"])
def test_an_area_at_both_ends_of_the_globe_is_no_window(write, area):
    globe = GeoBox((1800, 3600), Affine(0.1, 0, -180, 0, -0.1, 90), "EPSG:4326")
    with pytest.raises(GridError, match="crosses the longitude where the scene begins and ends"):
        window_of_bounds(globe, read_area(write(area)))


def test_an_area_around_a_pole_holds_it(write):
    polar = GeoBox((64, 64), Affine(10_000, 0, -320_000, 0, -10_000, 320_000), "EPSG:3413")
    around = ring(*([longitude, 89] for longitude in range(-180, 180, 30)))
    rows, columns = window_of_bounds(polar, read_area(write(around)))
    radius = 10.87  # pixels of one degree, at the scale of the pole
    for part in (rows, columns):
        assert (part.start, part.stop) == (int(32 - radius), int(np.ceil(32 + radius)))


def test_a_ring_of_many_points_takes_no_time():
    angle = np.linspace(0, 2 * np.pi, 200_001)
    points = np.stack([15.004 + 0.002 * np.cos(angle), 45.15 + 0.002 * np.sin(angle)], axis=-1)
    area = Geometry(shapely.Polygon(points), "EPSG:4326")
    start = perf_counter()
    window = window_of_bounds(UTM, area)
    assert perf_counter() - start < 3
    assert [part.stop - part.start for part in window] == pytest.approx([44.5, 31.5], abs=2)  # 444 m by 314 m
