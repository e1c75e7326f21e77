from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geosr.data.patches as patches
from geosr.data.patches import Patch, PatchTable, SceneFiles, patches_of, scan_patches
from geosr.errors import GridError, InputError


def table_of(*rows, size=16):
    """A table of (scene, row, column, valid, detail, split)."""
    return PatchTable(size, *(np.array(column) for column in zip(*rows, strict=True)))


def image_of(seed, height, width, *, share=0.9):
    generator = np.random.default_rng(seed)
    return generator.random((height, width)) < share, generator.random((height, width), np.float32)


def naive_detail(valid, image):
    """Mean change to the neighbours below and to the right, pixel by pixel."""
    changes = []
    for row in range(len(image) - 1):
        for column in range(image.shape[1] - 1):
            if valid[row, column] and valid[row + 1, column] and valid[row, column + 1]:
                here = image[row, column]
                changes += [abs(image[row + 1, column] - here), abs(image[row, column + 1] - here)]
    return np.mean(changes) if changes else 0.0


@given(
    seed=st.integers(0, 1000),
    height=st.integers(6, 20),
    width=st.integers(6, 20),
    size=st.integers(2, 6),
    stride=st.integers(1, 7),
    share=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_valid_share_and_detail_are_those_of_each_patch(seed, height, width, size, stride, share):
    valid, image = image_of(seed, height, width, share=share)
    table = patches_of(valid, np.where(valid, image, np.float32(np.nan)), scene=3, size=size, stride=stride)
    for patch, is_valid, detail in zip(table, table.valid, table.detail, strict=True):
        part = np.s_[patch.row : patch.row + size, patch.column : patch.column + size]
        assert is_valid == pytest.approx(valid[part].mean(), abs=1e-6)
        assert detail == pytest.approx(naive_detail(valid[part], image[part]), abs=1e-5)
    assert set(table.scene) == {3}
    assert not table.split.any()
    covered = np.zeros((height, width), bool)
    for patch in table:
        covered[patch.row : patch.row + size, patch.column : patch.column + size] = True
        for start, length in ((patch.row, height), (patch.column, width)):
            assert start % stride == 0 or start == length - size
    assert covered.all() or stride > size


def test_reading_in_strips_changes_nothing(monkeypatch):
    valid, image = image_of(1, 200, 37)
    whole = patches_of(valid, image, scene=0, size=16, stride=8)
    monkeypatch.setattr(patches, "STRIP", 37 * 40)
    heights = []

    def read(rows):
        heights.append(rows.stop - rows.start)
        return valid[rows], image[rows]

    strips = scan_patches(read, (200, 37), scene=0, size=16, stride=8)
    assert len(heights) > 4
    assert max(heights) <= 40
    for name in ("row", "column", "valid", "split"):
        np.testing.assert_array_equal(getattr(strips, name), getattr(whole, name))
    np.testing.assert_allclose(strips.detail, whole.detail, rtol=1e-5)


def test_a_table_is_a_sequence_of_patches():
    table = table_of((0, 8, 16, 1, 0.1, 0), (1, 0, 4, 0.5, 0.2, 1))
    assert list(table) == [Patch(0, 8, 16), Patch(1, 0, 4)]
    assert list(table.select(table.valid == 1)) == [Patch(0, 8, 16)]
    assert list(PatchTable.concatenate([table, table.select(np.array([1]))])) == [*table, Patch(1, 0, 4)]
    assert (table.scene.dtype, table.split.dtype, table.valid.dtype) == (np.int32, np.int8, np.float32)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(GridError, match=r"different lengths.*'row': 2"):
        PatchTable(8, *(np.zeros(2 if name == "row" else 1) for name in ("scene", "row", "c", "v", "d", "s")))


def test_tables_of_different_patches_do_not_mix():
    with pytest.raises(GridError, match=r"\[8, 16\] pixels have no table together"):
        PatchTable.concatenate([table_of((0, 0, 0, 1, 0, 0)), table_of((0, 0, 0, 1, 0, 0), size=8)])


def test_a_scene_needs_a_file_and_dates_in_order():
    with pytest.raises(InputError, match="a names no HR file"):
        SceneFiles("a", ())
    late, early = datetime(2024, 5, 2, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)
    for start, end in ((late, early), (None, early)):
        with pytest.raises(InputError, match=r"ends at .* and starts at .*; give both, in order"):
            SceneFiles("a", ("a.tif",), start=start, end=end)
    assert SceneFiles("a", ["a.tif"], start=early, end=late).hr == ("a.tif",)
