import os
import pickle

import numpy as np
import pytest

from geosr.data import opened
from geosr.data.opened import OpenScenes, require_memory
from geosr.errors import ConfigError


@pytest.fixture
def paths(make_raster):
    """Files of three scenes."""
    return [
        (str(make_raster(np.ones((1, 8, 8)), name=f"{n}.tif", dtype="uint16", nodata=0, scale=1e-4)),) for n in range(3)
    ]


def test_the_least_used_scene_is_closed(paths, monkeypatch):
    monkeypatch.setattr(opened, "OPEN_SCENES", 2)
    scenes = OpenScenes()
    first = [scenes[path] for path in paths[:2]]
    assert scenes[paths[0]] is first[0]
    last = scenes[paths[2]]
    assert scenes[paths[0]] is first[0]
    assert scenes[paths[2]] is last
    assert scenes[paths[1]] is not first[1]


def test_handles_of_the_parent_are_left_alone(paths, monkeypatch):
    scenes = OpenScenes()
    first = scenes[paths[0]]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert scenes[paths[0]] is not first
    assert first.read().valid.all()


def test_no_handle_is_pickled(paths):
    scenes = OpenScenes()
    first = scenes[paths[0]]
    again = pickle.loads(pickle.dumps(scenes))
    assert again[paths[0]] is not first


def test_memory_that_does_not_suffice_is_refused_with_both_figures():
    require_memory(1000, 1)
    with pytest.raises(
        ConfigError, match=r"needs 1000000\.00 GB for 3 scenes; .* GB of .*memory.* is available, of which 80%"
    ):
        require_memory(10**15, 3)
