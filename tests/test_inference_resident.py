import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from jobs_kit import save_interpolation

from geosr.errors import ModelError
from geosr.inference import load_model, resident
from geosr.inference.resident import ModelKey, keep, locate

CPU = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    """No model of another test is in this process."""
    monkeypatch.setattr(resident, "_RESIDENT", type(resident._RESIDENT)())


@pytest.fixture
def weights(tmp_path):
    return save_interpolation(tmp_path / "bicubic.safetensors")


def count_reads(monkeypatch):
    reads = []
    real = resident.load_model

    def counting(*args, **kwargs):
        reads.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(resident, "load_model", counting)
    return reads


def test_a_model_is_read_once_however_many_ask_for_it(weights, monkeypatch):
    key = pickle.loads(pickle.dumps(locate(weights, **CPU)))
    resident._RESIDENT.clear()
    reads = count_reads(monkeypatch)
    together = threading.Barrier(4)

    def load(_):
        together.wait()
        return key.load()

    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(load, range(4)))
    assert len(reads) == 1
    assert all(model is models[0] for model in models)


def test_a_key_is_small_and_holds_no_weights(small_weights):
    key = locate(small_weights, **CPU)
    pickled = pickle.dumps(key)
    assert len(pickled) < 1000 < small_weights.stat().st_size
    assert pickle.loads(pickled) == key
    assert hash(pickle.loads(pickled)) == hash(key)


def test_a_key_means_the_same_in_another_folder_and_process(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(weights.parent)
    key = locate(weights.name, blend=(weights.name, 0.5), **CPU)
    (tmp_path / "key").write_bytes(pickle.dumps(key))
    (tmp_path / "elsewhere").mkdir()
    code = "import pickle; print(pickle.load(open('../key', 'rb')).load().weights_hash)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert told.stdout.strip() == key.sha256
    assert locate("s2-rgbn-x4", **CPU).name == "s2-rgbn-x4", "a shipped model lies elsewhere on other machines"


def test_other_weights_under_the_same_name_are_an_error(weights, tmp_path, small_weights):
    key = locate(weights, **CPU)
    resident._RESIDENT.clear()
    shutil.copy(small_weights, weights)
    with pytest.raises(ModelError, match=rf"bicubic\.safetensors has the hash \w+ here and {key.sha256[:12]} where"):
        key.load()
    weights.unlink()
    with pytest.raises(ModelError, match=r"bicubic\.safetensors does not exist"):
        key.load()


def test_a_model_in_memory_is_used_as_it_is_and_goes_nowhere(weights):
    resolver = load_model(weights, **CPU)
    key = keep(resolver)
    assert key.load() is resolver
    assert not resident._RESIDENT, "it would stay in memory for ever"
    with pytest.raises(
        ModelError, match=r"model 'bicubic' is in this process only.* save it with geosr\.models\.save_model and give"
    ):
        pickle.dumps(key)


def test_only_so_many_models_stay_and_one_that_went_is_read_again(weights, monkeypatch):
    key = locate(weights, **CPU)
    monkeypatch.setattr(resident, "MOST", 2)
    first = key.load()
    others = [replace(key, precision=precision) for precision in ("bf16", "fp16")]
    others[0].load()
    assert key.load() is first
    others[1].load()
    assert key.load() is first, "the one that was not asked for longest goes"
    assert list(resident._RESIDENT) == [others[1], key]
    reads = count_reads(monkeypatch)
    assert others[0].load().precision == "bf16"
    assert len(reads) == 1


def test_keys_differ_by_weights_device_and_precision_alone(weights):
    key = locate(weights, **CPU)
    assert key == ModelKey(key.sha256, "elsewhere.safetensors", None, "cpu", "fp32")
    for change in ({"sha256": "0"}, {"device": "cuda:1"}, {"precision": "bf16"}):
        assert key != replace(key, **change)
