import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

import geosr
from geosr.errors import GeosrError, GridError, InputError, RadiometryError, UsageError
from geosr.io.inputs import open_input
from geosr.io.scene import open_scene
from geosr.io.zarr import create_zarr
from geosr.radiometry import Radiometry

GRID = GeoBox((40, 50), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
BANDS = ("B02", "B03", "B04", "B08")
NAMELESS = (
    GRID.crs.to_wkt().replace("Longitude of natural origin", "Longitude of natural orgin").replace("8802", "8899")
)
PIXELS = np.random.default_rng(0).integers(300, 4000, (4, 40, 50)).astype("uint16")


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "scene.zarr"
    encoding = Radiometry(1e-4, -0.1, nodata=0)
    writer = create_zarr(path, geobox=GRID, bands=BANDS, radiometry=encoding, chunk=16, shard=32)
    for rows, columns in writer.windows():
        writer.write((rows, columns), PIXELS[:, rows, columns])
    return path


def edit(member, key, value):
    """What sets a key in the metadata of a member."""

    def change(store):
        path = store / member / "zarr.json"
        held = inner = json.loads(path.read_text())
        *way, last = key.split(".")
        for step in way:
            inner = inner[step]
        inner[last] = value
        path.write_text(json.dumps(held))

    return change


def replace(path, content):
    def change(store):
        (store / path).write_bytes(content)

    return change


def damage_chunks(store):
    for folder, _, names in os.walk(store / "x" / "c"):
        for name in names:
            Path(folder, name).write_bytes(b"damaged")


def link(path, target):
    def change(store):
        (store / path).unlink(missing_ok=True)
        (store / path).symlink_to(target)

    return change


DAMAGE = {
    "empty": (replace("zarr.json", b""), r"scene\.zarr/zarr\.json \(empty\)"),
    "empty member": (replace("x/zarr.json", b""), r"scene\.zarr/x/zarr\.json \(empty\)"),
    "bytes": (replace("reflectance/zarr.json", b'{"\xff'), r"reflectance/zarr\.json \('utf-8' codec can't decode"),
    "list": (replace("reflectance/zarr.json", b"[]"), r"reflectance/zarr\.json \(no JSON object\)"),
    "deep": (replace("reflectance/zarr.json", b"[" * 100_000), r"reflectance/zarr\.json \(maximum recursion"),
    "codec": (edit("x", "codecs", [{"name": "no_codec", "configuration": {}}]), r"scene\.zarr/x \(.*codec"),
    "negative": (edit("reflectance", "shape", [4, -40, 50]), r"scene\.zarr/reflectance \("),
    "none": (edit("reflectance", "shape", [4, 0, 50]), r"reflectance holds no pixels \(4 x 0 x 50\)"),
    "absurd": (edit("reflectance", "shape", [4, 10**9, 10**9]), r"reflectance is 4 x 1000000000 x 1000000000"),
    "bands": (edit("reflectance", "shape", [10**9, 40, 50]), "reflectance is 1000000000 x 40 x 50"),
    "coordinate": (damage_chunks, r"scene\.zarr/x cannot be read \("),
    "dimensions": (edit("reflectance", "dimension_names", [1, 2, 3]), r"scene\.zarr is damaged|holds no raster"),
    "attributes": (edit("reflectance", "attributes", [1]), r"scene\.zarr is damaged"),
    "link to itself": (link("zarr.json", "zarr.json"), r"scene\.zarr/zarr\.json \(.*symbolic links"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_names_its_member_and_the_reason(store, damage):
    change, message = DAMAGE[damage]
    change(store)
    for door in (open_input, geosr.open):
        with pytest.raises(InputError, match=message) as caught:
            door(store)
        assert "scene.zarr" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (edit("reflectance", "attributes.scale_factor", "x"), RadiometryError, "reflectance has scale_factor 'x'"),
        (edit("spatial_ref", "attributes.GeoTransform", "a b"), GridError, "has GeoTransform 'a b'"),
        (edit("spatial_ref", "attributes.GeoTransform", {"a": 1}), GridError, "has GeoTransform {'a': 1}"),
        (edit("spatial_ref", "attributes.crs_wkt", [1]), GridError, "has a CRS that cannot be understood"),
        (edit("spatial_ref", "attributes.crs_wkt", NAMELESS), GridError, "has a CRS that CF has no words for"),
    ],
)
def test_attributes_of_another_kind_are_named(store, change, error, message):
    change(store)
    with pytest.raises(error, match=message):
        geosr.open(store)


def test_links_that_lead_round_in_circles_are_not_followed(store, tmp_path):
    outer = zarr.create_group(tmp_path / "outer.zarr")
    shutil.move(store, tmp_path / "outer.zarr" / "scene")
    for name, target in {"a": ".", "b": ".", "scene/up": ".."}.items():
        (tmp_path / "outer.zarr" / name).symlink_to(target)
    assert outer.store is not None
    with open_scene(tmp_path / "outer.zarr") as scene:
        np.testing.assert_array_equal(scene.read_digital(), PIXELS)


@pytest.mark.parametrize("floats", [False, True])
def test_a_large_store_is_described_at_once(tmp_path, floats):
    group = zarr.create_group(tmp_path / "large.zarr")
    attributes = {"spatial:transform": [10, 0, 0, 0, -10, 0], "scale_factor": 1.0, "add_offset": 0.0}
    array = group.create_array(
        "B02", shape=(2_000_000, 2_000_000), chunks=(256, 256), dtype="float32" if floats else "uint16",
        dimension_names=("y", "x"), attributes=attributes, fill_value=0.25 if floats else 7,
    )  # fmt: skip
    array[:256, :256] = 0.5 if floats else 9
    start = time.perf_counter()
    with open_input(tmp_path / "large.zarr") as scene:
        assert scene.describe_values() == ((0.25, 0.5) if floats else (7, 9))
    assert time.perf_counter() - start < 5
    with pytest.raises(UsageError, match=r"chunks=10 cuts large\.zarr into 40,000,000,000 chunks"):
        geosr.open(tmp_path / "large.zarr", scale=1e-4 if not floats else None, chunks=10)


def stores(folder):
    """The same scene as xarray writes it for both versions of Zarr."""
    variables = {band: (("y", "x"), PIXELS[place, :8, :9], {"scale_factor": 1e-4}) for place, band in enumerate(BANDS)}
    axes = {"y": 4_999_995 - 10.0 * np.arange(8), "x": 400_005 + 10.0 * np.arange(9)}
    for version in (2, 3):
        for consolidated in (False, True):
            path = folder / f"{version}{consolidated}.zarr"
            xarray.Dataset(variables, axes).to_zarr(path, zarr_format=version, consolidated=consolidated)
            yield path


@pytest.mark.filterwarnings("ignore")
def test_no_change_of_metadata_ends_in_anything_but_a_sentence(store, tmp_path):
    rng = random.Random(0)
    members = [
        path
        for root in (store, *stores(tmp_path))
        for path in sorted(root.rglob("*"))
        if path.name in ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
    ]
    ends = set()
    for _ in range(120):
        path = rng.choice(members)
        good = path.read_bytes()
        changed = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(changed))
            changed[place : place + rng.randint(0, 2)] = bytes(rng.choices(b'0123456789-"{}[],:.enul \xff', k=1))
        path.write_bytes(changed)
        root = next(parent for parent in path.parents if parent.suffix == ".zarr")
        try:
            geosr.open(root, chunks=None).geosr.info()
            ends.add("read")
        except GeosrError as error:
            ends.add(type(error).__name__)
        path.write_bytes(good)
    assert {"read", "InputError"} <= ends
