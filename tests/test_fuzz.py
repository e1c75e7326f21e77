"""Damaged files of every kind: a message and an exit code of 0 to 2, never a traceback, never a hang."""

import copy
import json
import random
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geosr.config import load_config
from geosr.config.show import to_yaml
from geosr.io.scene import open_scene
from geosr.io.zarr import create_zarr

PATIENCE = 10
"""Seconds after which a command counts as hanging; each takes a fraction of one."""

ODD: list[Any] = [
    None, True, 0, -1, 1e308, -5e-324, float("nan"), 10**30, 2**31, "", "x", "nan", "..", "/absent/x", "\x1b[31m",
    "\ud800", "é" * 300, [], {}, [[]], [None], {"a": 1}, ["x"] * 50,
]  # fmt: skip
"""What replaces a value of a JSON document."""


def damaged(content: bytes, dice: random.Random) -> bytes:
    """The content with one to three bytes changed, cut off, or with a piece repeated."""
    new = bytearray(content)
    match dice.randrange(6):
        case 0:
            return bytes(new[: dice.randrange(len(new) + 1)])
        case 1:
            start = dice.randrange(len(new))
            return bytes(new[:start] + new[start : start + 20] * dice.randrange(2, 9) + new[start:])
        case _:
            for _ in range(dice.randint(1, 3)):
                new[dice.randrange(len(new))] = dice.randrange(256)
            return bytes(new)


def nodes(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below the root of a JSON document."""
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield (*path, key)
        yield from nodes(document[key], (*path, key))


def altered(document: Any, dice: random.Random) -> Any:
    """The JSON document with one value replaced, removed or nested a thousand levels deep."""
    new = copy.deepcopy(document)
    *parents, last = dice.choice(list(nodes(new)))
    parent = new
    for key in parents:
        parent = parent[key]
    if dice.random() < 0.1:
        del parent[last]
    elif dice.random() < 0.05:
        for _ in range(500):
            parent[last] = [parent[last]]
    else:
        parent[last] = dice.choice(ODD)
    return new


def broken_json(document: Any, dice: random.Random) -> bytes:
    """The document as JSON, with an odd value in it or with damaged bytes."""
    if dice.random() < 0.6:
        return json.dumps(altered(document, dice)).encode("utf-8", "surrogatepass")
    return damaged(json.dumps(document).encode(), dice)


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"it did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(geosr, tmp_path, monkeypatch) -> Callable[..., int]:
    """Runs a command in an empty folder; any end but an exit code of 0 to 2 fails."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> int:
        with no_longer_than(PATIENCE):
            code, _, said = geosr(*arguments)
        assert code in (0, 1, 2), said
        assert "Traceback" not in said
        return code

    return command


@pytest.fixture
def scene(make_raster) -> Path:
    dn = np.random.default_rng(0).integers(500, 4000, (4, 24, 24))
    return make_raster(dn, dtype="uint16", nodata=0, scale=1e-4, descriptions=("B02", "B03", "B04", "B08"))


def test_damaged_geotiffs(run, scene, small_weights, tmp_path):
    whole, dice, target = scene.read_bytes(), random.Random(1), tmp_path / "damaged.tif"
    for _ in range(60):
        target.write_bytes(damaged(whole, dice))
        run("info", target)
        run("predict", target, "-o", "sr.tif", "-m", small_weights, "--overwrite", "-q")


def test_damaged_zarr_metadata(run, scene, tmp_path):
    store = tmp_path / "scene.zarr"
    with open_scene(scene) as source:
        writer = create_zarr(store, geobox=source.geobox, bands=source.bands, radiometry=source.radiometry)
        writer.write(tuple(slice(0, side) for side in source.geobox.shape), source.read_digital())
    dice = random.Random(2)
    documents = [path for path in sorted(store.rglob("zarr.json"))]
    for _ in range(90):
        path = dice.choice(documents)
        whole = path.read_bytes()
        path.write_bytes(broken_json(json.loads(whole), dice))
        run("info", store)
        path.write_bytes(whole)
    assert run("info", store) == 0


def test_damaged_weights(run, scene, small_weights, tmp_path):
    whole, dice, target = small_weights.read_bytes(), random.Random(3), tmp_path / "damaged.safetensors"
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    metadata = {
        key: json.loads(value) if value[:1] in '{["' else value for key, value in header["__metadata__"].items()
    }
    for _ in range(90):
        if dice.random() < 0.7:
            spoiled = altered(metadata, dice)
            spoiled = {key: value if isinstance(value, str) else json.dumps(value) for key, value in spoiled.items()}
            new = json.dumps(header | {"__metadata__": spoiled}).encode("utf-8", "surrogatepass")
        else:
            new = damaged(whole[8 : 8 + length], dice)
        target.write_bytes(struct.pack("<Q", len(new)) + new + whole[8 + length :])
        run("models", "show", target)
        run("predict", scene, "-o", "sr.tif", "-m", target, "--overwrite", "-q")


def test_damaged_stac_items(run, scene, tmp_path):
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "S2B_T33UUB", "geometry": None, "links": [],
        "properties": {"datetime": "2025-06-01T10:15:59Z", "s2:processing_baseline": "05.11"},
        "stac_extensions": ["https://stac-extensions.github.io/raster/v1.1.0/schema.json"],
        "assets": {
            "image": {
                "href": scene.name, "roles": ["data"], "gsd": 10,
                "eo:bands": [{"name": band} for band in ("B02", "B03", "B04", "B08")],
                "raster:bands": [{"scale": 1e-4, "offset": 0, "nodata": 0}] * 4,
            }
        },
    }  # fmt: skip
    target, dice = tmp_path / "item.json", random.Random(4)
    for _ in range(90):
        target.write_bytes(broken_json(item, dice))
        run("info", target)


def test_damaged_configs(run, tmp_path):
    text, target, dice = to_yaml(load_config("config_demo.yaml")), tmp_path / "damaged.yaml", random.Random(5)
    for _ in range(60):
        lines = text.splitlines()
        lines[dice.randrange(len(lines))] += dice.choice(
            [" ${", " &a [*a]", " *b", ": x", " !!python/name:os.system", '"', " {"]
        )
        target.write_bytes("\n".join(lines).encode() if dice.random() < 0.5 else damaged(text.encode(), dice))
        run("config", "validate", target)


def test_damaged_areas(run, scene, small_weights, tmp_path):
    ring = [[13.728, 45.152], [13.731, 45.152], [13.731, 45.15], [13.728, 45.15], [13.728, 45.152]]
    area = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}],
    }
    target, dice = tmp_path / "area.geojson", random.Random(6)
    for _ in range(60):
        target.write_bytes(broken_json(area, dice))
        run("predict", scene, "-o", "sr.tif", "-m", small_weights, "--aoi", target, "--overwrite", "-q")


def test_damaged_jobs(run, scene, small_weights, tmp_path):
    begin = ("predict", scene, "-o", "sr.tif", "-m", small_weights, "-q")
    assert run(*begin, "--shard", "1/1") == 0
    job, dice = tmp_path / ".sr.tif.geosr" / "job.json", random.Random(7)
    whole = job.read_bytes()
    for _ in range(60):
        job.write_bytes(broken_json(json.loads(whole), dice))
        if run("assemble", "sr.tif") == 0:
            assert run(*begin, "--shard", "1/1", "--overwrite") == 0
    job.write_bytes(b"[]")
    assert run("assemble", "sr.tif") == 1
    assert run(*begin, "--overwrite") == 0, "the same command begins anew"
