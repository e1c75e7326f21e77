import json
import shutil

import numpy as np
import pytest
import zarr
from affine import Affine

from geosr.data.prepare import prepare
from geosr.data.splits import BlockSplit
from geosr.data.store import check_store, digest, open_store, scene_path
from geosr.errors import InputError

BANDS = ("B02", "B03")
GRID = Affine(10, 0, 400_000, 0, -10, 5_000_000)


@pytest.fixture
def make_scene(make_raster, tmp_path):
    def make(name, *, shape=(320, 320), seed=0, transform=GRID, **arguments):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        dn = np.random.default_rng(seed).integers(500, 5000, (2, *shape))
        arguments = {"dtype": "uint16", "nodata": 0, "scale": 1e-4, "descriptions": BANDS} | arguments
        return make_raster(dn, name=name, transform=transform, **arguments)

    return make


@pytest.fixture
def store(make_scene, tmp_path):
    """A sound store of two dates of one place, in three parts."""
    paths = [make_scene(f"date{n}.tif", seed=n) for n in range(2)]
    out = tmp_path / "train.zarr"
    prepare(paths, out, bands=BANDS, patch=16, split=BlockSplit((0.6, 0.2, 0.2), block=640))
    return out


@pytest.fixture
def pairs(make_scene, tmp_path):
    """A sound store of two pairs at x2."""
    for n, name in enumerate("ab"):
        make_scene(f"low/{name}_lr.tif", shape=(40, 40), seed=n, transform=GRID * Affine.scale(2))
        make_scene(f"high/{name}_hr.tif", shape=(80, 80), seed=n)
    out = tmp_path / "pairs.zarr"
    prepare([], out, bands=BANDS, patch=16, lr=tmp_path / "low", hr=tmp_path / "high", split=BlockSplit((1, 0, 0)))
    return out


def edit_manifest(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def seal(path):
    """Make the checksums fit what is stored, so that only the damage itself can tell."""

    def change(manifest):
        manifest["index_sha256"] = digest(path / "index")
        for scene in manifest["scenes"]:
            scene["checksums"] = {role: digest(scene_path(path, scene["slug"], role)) for role in scene["checksums"]}

    edit_manifest(path, change)


def rewrite(path, name, change):
    """Change a column of the index."""
    array = zarr.open_group(path / "index", mode="a")[name]
    array[:] = change(np.asarray(array[:]))


def violations(path):
    found = check_store(path).violations
    assert all("\n" not in one for one in found)
    return found


# Open


def test_a_store_tells_its_scenes_patches_and_bands(store):
    opened = open_store(store)
    assert [scene.name for scene in opened.scenes] == ["date0.tif", "date1.tif"]
    assert opened.scenes[1].hr == (str(store / "scenes" / "date1" / "hr"),)
    assert (opened.bands, opened.scale, opened.table.size) == (BANDS, None, 16)
    assert len(opened.table) == sum(opened.manifest["patches"].values()) == 800


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: shutil.rmtree(path), "does not exist; make it with geosr prepare"),
        (lambda path: (path / "manifest.json").unlink(), r"is no training store \(it holds no manifest.json\)"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text('{"store": 1}'), "manifest.json is damaged"),
        (lambda path: edit_manifest(path, lambda told: told.update(store=99)), "of version 99 .* reads version 1"),
        (lambda path: shutil.rmtree(path / "index" / "row"), "index of .* is damaged"),
        (lambda path: (path / "index" / "row" / "c" / "0").write_bytes(b"no"), "index of .* is damaged"),
        (lambda path: rewrite(path, "row", lambda values: values + 1), "index of .* is damaged .it has checksum"),
        (lambda path: edit_manifest(path, lambda told: told["scenes"].pop()), "names scenes that it does not hold"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(store, damage, told):
    damage(store)
    with pytest.raises(InputError, match=told):
        open_store(store)


# Check


def test_sound_stores_have_no_violations(store, pairs):
    report = check_store(store)
    assert (report.scenes, report.patches, report.violations) == (2, 800, ())
    assert violations(pairs) == ()


def test_a_changed_byte_is_found(store):
    chunk = store / "scenes" / "date1" / "hr" / "reflectance" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[1000] ^= 1
    chunk.write_bytes(content)
    found = violations(store)
    assert any("date1.tif: its hr image has checksum" in one for one in found)


def test_a_missing_image_is_found(pairs):
    shutil.rmtree(pairs / "scenes" / "a" / "lr")
    assert any(one == "a: its lr image is missing" for one in violations(pairs))


def test_a_changed_index_is_found(store):
    rewrite(store, "detail", lambda values: values + 1)
    assert [one.split(",")[0][:28] for one in violations(store)] == [
        "index: it has checksum " + digest(store / "index")[:5]
    ]


def test_patches_beyond_their_scene_are_found(store):
    rewrite(store, "row", lambda values: np.where(np.arange(len(values)) == 3, 310, values))
    seal(store)
    found = violations(store)[0]
    assert found.startswith("date0.tif: 1 patches of 16 pixels reach beyond its 320 x 320, such as row 310")


def test_a_part_that_does_not_exist_is_found(store):
    rewrite(store, "split", lambda values: np.where(np.arange(len(values)) == 3, 7, values))
    seal(store)
    assert "index: column split holds [7]" in violations(store)[0]


def test_ground_that_two_parts_share_is_found_across_dates(store):
    table = open_store(store).table
    moved = np.flatnonzero((table.scene == 1) & (table.split == 0))[0]
    rewrite(store, "split", lambda values: np.where(np.arange(len(values)) == moved, 1, values))
    seal(store)
    (found,) = violations(store)
    assert found.startswith("split: 1 pairs of patches in train and val show one place, such as date")


def test_ground_that_copies_without_a_crs_share_is_found(make_scene, tmp_path):
    out = tmp_path / "train.zarr"
    path = make_scene("nowhere.tif", crs=None, transform=Affine.identity())
    prepare([path], out, bands=BANDS, patch=16, scales=[1, 0.5], split=BlockSplit((0.6, 0.2, 0.2), block=640))
    assert violations(out) == ()
    table = open_store(out).table
    moved = np.flatnonzero((table.scene == 1) & (table.split == 0))
    rewrite(out, "split", lambda values: np.where(np.isin(np.arange(len(values)), moved), 2, values))
    seal(out)
    assert any("patches in train and test show one place" in one for one in violations(out))


def test_another_valid_share_than_the_index_says_is_found(store):
    rewrite(store, "valid", lambda values: np.where(np.arange(len(values)) < 2, 0.95, values))
    seal(store)
    assert violations(store) == ("date0.tif: 2 patches have another share of valid pixels than the index says",)


def edit_array(path, slug, role, change):
    array = zarr.open_group(scene_path(path, slug, role), mode="a")["reflectance"]
    change(array)


def test_values_that_are_no_reflectance_are_found(store):
    edit_array(store, "date0", "hr", lambda array: array.attrs.update({"scale_factor": 0.01}))
    seal(store)
    (found,) = violations(store)
    assert "of its values are outside reflectance -0.2 to 2; its scale or offset is wrong" in found


def test_a_scene_without_a_valid_pixel_is_found(store):
    with zarr.config.set({"array.write_empty_chunks": True}):
        edit_array(store, "date0", "hr", lambda array: array.__setitem__(..., 0))
    seal(store)
    assert "date0.tif: it has no valid pixel" in violations(store)


def copy_image(path, source, target):
    shutil.rmtree(scene_path(path, *target))
    shutil.copytree(scene_path(path, *source), scene_path(path, *target))


def test_an_lr_image_of_another_size_is_found(pairs):
    copy_image(pairs, ("a", "hr"), ("a", "lr"))
    seal(pairs)
    assert any(
        "a: its HR image has 80 x 80 pixels and 2 times its LR image has 160 x 160" in one for one in violations(pairs)
    )


def test_a_pair_of_two_places_is_found(pairs):
    group = zarr.open_group(scene_path(pairs, "b", "lr"), mode="a")
    group["x"][:] = np.asarray(group["x"][:]) + 10
    told = group["spatial_ref"].attrs["GeoTransform"].split()
    group["spatial_ref"].attrs["GeoTransform"] = " ".join([str(float(told[0]) + 10), *told[1:]])
    seal(pairs)
    assert violations(pairs) == ("b: its HR grid is up to 1 HR pixels away from its LR grid divided by 2",)


def test_a_pair_of_two_projections_is_found(pairs, make_scene, tmp_path):
    for role, folder in (("lr", "low"), ("hr", "high")):
        step = Affine.scale(2) if role == "lr" else Affine.identity()
        make_scene(
            f"far/{folder}/b_{role}.tif",
            shape=(40, 40) if role == "lr" else (80, 80),
            transform=GRID * step,
            crs="EPSG:32634",
        )
    other = tmp_path / "other.zarr"
    far = tmp_path / "far"
    prepare([], other, bands=BANDS, patch=16, lr=far / "low", hr=far / "high", split=BlockSplit((1, 0, 0)))
    shutil.rmtree(scene_path(pairs, "b", "lr"))
    shutil.copytree(scene_path(other, "b", "lr"), scene_path(pairs, "b", "lr"))
    seal(pairs)
    assert violations(pairs) == ("b: its LR image is in EPSG:32634 and its HR image in EPSG:32633",)


def test_images_of_different_names_are_found(pairs):
    def swap(manifest):
        first, second = manifest["scenes"]
        first["lr_files"], second["lr_files"] = second["lr_files"], first["lr_files"]

    edit_manifest(pairs, swap)
    assert violations(pairs) == tuple(f"{name}: it was made of images with different names (a b)" for name in "ab")


def test_a_scene_without_its_lr_image_is_found(pairs):
    edit_manifest(pairs, lambda manifest: manifest["scenes"][0]["checksums"].pop("lr"))
    assert "a: the store's scale is 2 and the scene has 0 LR images" in violations(pairs)


def test_missing_cloud_shares_are_found(make_scene, make_raster, tmp_path):
    path = make_scene("x.tif", shape=(64, 64))
    mask = make_raster(np.zeros((1, 64, 64)), name="mask.tif", dtype="uint8", transform=GRID)
    out = tmp_path / "train.zarr"
    prepare([path], out, bands=BANDS, patch=16, cloud_mask=mask, max_cloud=5, split=BlockSplit((1, 0, 0)))
    shutil.rmtree(out / "index" / "cloud")
    seal(out)
    assert "column cloud is missing" in violations(out)[0]
