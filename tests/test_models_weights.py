import errno
import hashlib
import json
import math
import random
import resource
import struct
from dataclasses import replace
from time import perf_counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from geosr.errors import ModelError, OutputError, printable
from geosr.models import Model, ModelSpec, WeightsFile, find_weights, load_model, save_model, shipped_models
from geosr.models.weights import save_facts

SHIPPED = shipped_models()


def build(**facts):
    torch.manual_seed(1)
    spec = {"arguments": {"channels": 4, "blocks": 1, "mean": [0.1, 0.2], "std": [0.3, 0.4]}} | facts
    return Model(ModelSpec("tiny", "compact", 2, ("B02", "B03"), **spec)).eval()


def header_of(path):
    """The header of a safetensors file, from its bytes: a length of 8 bytes and JSON."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def rewrite(source, target, change):
    """A copy of a weights file whose specification is changed."""
    spec = json.loads(header_of(source)["__metadata__"]["geosr"])
    save_file(load_file(source), target, metadata={"geosr": json.dumps(change(spec))})
    return target


@pytest.fixture
def saved(tmp_path):
    return save_model(build(), tmp_path / "tiny.safetensors")


def test_other_facts_need_a_file_that_has_them_beside_its_weights(saved, tmp_path):
    other = replace(saved.spec, variant="fast")
    written = save_facts(saved, other, tmp_path / "other.safetensors")
    assert find_weights(written.path).spec == other
    assert written.sha256 != saved.sha256
    assert all(torch.equal(value, load_file(saved.path)[name]) for name, value in load_file(written.path).items())
    with pytest.raises(ModelError, match=r"tiny\.onnx keeps the facts.*give the \.safetensors file"):
        save_facts(WeightsFile(tmp_path / "tiny.onnx", other), other, tmp_path / "tiny.onnx")


def test_what_is_loaded_is_what_was_saved_bit_by_bit(saved):
    model, loaded = build(), load_model(saved.path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    lr = torch.rand(1, 2, 9, 8)
    assert torch.equal(model(lr), loaded(lr))
    assert loaded.spec == model.spec == saved.spec
    assert not loaded.training


def test_whoever_may_read_the_folder_s_other_files_may_read_the_weights(saved):
    other = saved.path.with_name("other.txt")
    other.touch()
    assert saved.path.stat().st_mode == other.stat().st_mode


def test_half_the_size_changes_the_weights_by_rounding_only(tmp_path):
    model = build()
    small = save_model(model, tmp_path / "half.safetensors", dtype=torch.bfloat16)
    loaded = load_model(small.path)
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=2**-8, atol=0)


def test_the_header_explains_the_file_to_any_reader(saved):
    told = json.loads(header_of(saved.path)["__metadata__"]["geosr"])
    assert told["name"] == "tiny"
    assert told["bands"] == ["B02", "B03"]
    assert told["scale"] == 2
    assert told["halo"] == 3 + 8


def test_a_weights_file_is_found_by_its_path_and_hashed(saved, monkeypatch):
    monkeypatch.chdir(saved.path.parent)
    found = find_weights("tiny.safetensors")
    assert found.spec == saved.spec
    assert found.sha256 == hashlib.sha256(saved.path.read_bytes()).hexdigest()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.safetensors does not exist"):
        load_model(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load_model(path)


def test_a_truncated_file_is_refused(saved):
    saved.path.write_bytes(saved.path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load_model(saved.path)


def test_weights_that_geosr_did_not_write_are_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="has no geosr specification in its header"):
        load_model(tmp_path / "other.safetensors")


def test_a_key_of_a_newer_version_is_refused(saved, tmp_path):
    newer = rewrite(saved.path, tmp_path / "newer.safetensors", lambda spec: spec | {"temperature": 3})
    with pytest.raises(ModelError, match=r"temperature.*a newer geosr wrote them"):
        load_model(newer)


@pytest.mark.parametrize("damage", [lambda spec: {"name": "tiny"}, lambda spec: 7])
def test_a_damaged_specification_is_refused(saved, tmp_path, damage):
    damaged = rewrite(saved.path, tmp_path / "damaged.safetensors", damage)
    with pytest.raises(ModelError, match="damaged geosr specification"):
        load_model(damaged)


def test_weights_of_another_architecture_are_refused(saved, tmp_path):
    other = rewrite(saved.path, tmp_path / "other.safetensors", lambda spec: spec | {"architecture": "comapct"})
    with pytest.raises(ModelError, match="did you mean 'compact'"):
        load_model(other)


@pytest.mark.parametrize("arguments", [{"channels": 5, "blocks": 1}, {"channels": 4, "blocks": 2}])
def test_weights_that_do_not_fit_their_specification_are_refused(saved, tmp_path, arguments):
    other = rewrite(saved.path, tmp_path / "other.safetensors", lambda spec: spec | {"arguments": arguments})
    with pytest.raises(ModelError, match="does not fit the architecture it names"):
        load_model(other)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ModelError, match=r"'s2-rgbn-x3' is unknown \(.*\); did you mean 's2-rgbn-x[24]'\?"):
        load_model("s2-rgbn-x3")


def test_models_are_shipped_and_small():
    assert {"s2-rgbn-x2", "s2-rgbn-x4"} <= {weights.spec.name for weights in SHIPPED}
    assert sum(weights.path.stat().st_size for weights in SHIPPED) < 20_000_000


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: weights.spec.name)
def test_a_shipped_model_loads_by_its_name(weights):
    assert weights.path.stem == weights.spec.name
    model = load_model(weights.spec.name)
    lr = 0.1 + 0.1 * torch.rand(1, len(weights.spec.bands), 8, 8)
    with torch.inference_mode():
        sr = model(lr)
    assert sr.shape[2:] == (8 * weights.spec.scale, 8 * weights.spec.scale)
    assert (sr.mean() - lr.mean()).abs() < 0.01


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: weights.spec.name)
def test_a_shipped_model_says_where_it_comes_from_and_how_good_it_is(weights):
    spec = weights.spec
    assert "Copernicus Sentinel data" in spec.provenance["attribution"]
    assert spec.provenance["step"] > 0
    assert not set(spec.provenance["scenes"]["train"]) & set(spec.provenance["scenes"]["val"])
    assert spec.provenance["config"]["Model"]["name"] == spec.name
    assert spec.quality["psnr_over_bicubic"] > 0 or spec.variant == "detail"  # which is for the eye
    assert spec.quality["consistency"] < 1e-4
    assert spec.halo == load_model(spec.name).spec.halo
    assert spec.licence == "Apache-2.0"


@pytest.fixture
def folder(tmp_path):
    """The folder of a run before its first validation."""
    path = tmp_path / "runs" / "geosr" / "tiny-v1.0"
    path.mkdir(parents=True)
    (path / "config.yaml").touch()
    return path


def checkpoint(path, **others):
    """A run's checkpoint whose averaged weights are all ones."""
    model = build()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {f"ema.average.module.{name}": torch.ones_like(value) for name, value in model.state_dict().items()}
    state["ema.average.n_averaged"] = torch.tensor(3)
    torch.save({"geosr": {"spec": model.spec.to_dict()}, "state_dict": state} | others, path)
    return path


def test_the_folder_of_a_run_means_the_weights_that_it_exported(folder):
    exported = save_model(build(), folder / "tiny.safetensors")
    checkpoint(folder / "last.ckpt")
    assert find_weights(folder) == exported
    assert load_model(folder).spec == exported.spec


def test_the_folder_of_a_run_that_has_not_ended_means_its_last_averaged_weights(folder, caplog):
    last = checkpoint(folder / "last.ckpt")
    with caplog.at_level("INFO"):
        found = find_weights(str(folder))
    assert found.path == last
    assert "has not ended: the weights are those of its last.ckpt" in caplog.text
    assert found.spec == build().spec
    for model in (load_model(folder), load_model(last)):
        assert not model.training
        assert all(bool((value == 1).all()) for value in model.network.parameters())


def test_a_folder_with_no_weights_or_several_is_refused(folder):
    with pytest.raises(ModelError, match=r"tiny-v1\.0 holds no \.safetensors file and no last\.ckpt"):
        load_model(folder)
    for name in ("a.safetensors", "b.safetensors"):
        save_model(build(), folder / name)
    with pytest.raises(ModelError, match=r"holds several models \(a\.safetensors b\.safetensors\); name one"):
        load_model(folder)


class _Bomb:
    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl"])
def test_a_pickle_is_refused_unopened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save(_Bomb(), path)
    with pytest.raises(ModelError, match=rf"geosr models import .*model\{suffix} --out model\.safetensors"):
        load_model(path)


def test_of_a_checkpoint_nothing_but_tensors_and_plain_values_is_unpickled(tmp_path):
    with pytest.raises(
        ModelError, match=r"is no checkpoint of geosr .*; for one that another program made: geosr models"
    ):
        load_model(checkpoint(tmp_path / "bomb.ckpt", other=_Bomb()))


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
def test_a_program_is_refused_unopened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save(_Bomb(), path)
    with pytest.raises(ModelError, match=r"a program for other runtimes.*export that with --onnx"):
        load_model(path)


def test_a_file_on_the_hub_is_found_by_its_address(saved, monkeypatch):
    asked = []
    monkeypatch.setattr("geosr.models.weights.download", lambda address: asked.append(address) or saved.path)
    assert find_weights("hf://owner/repo/tiny.safetensors@v1#sha256=0") == saved
    assert load_model("hf://x").spec == saved.spec
    assert asked == ["hf://owner/repo/tiny.safetensors@v1#sha256=0", "hf://x"]


def test_an_onnx_file_is_found_but_not_trained(small_onnx, small_weights):
    assert not find_weights(small_onnx).trainable
    assert find_weights(small_weights).trainable
    assert find_weights(small_onnx).spec == find_weights(small_weights).spec


@pytest.fixture
def full_disk(monkeypatch):
    def sync(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("geosr.files.sync_to_disk", sync)


def test_on_a_full_disk_the_weights_that_are_there_are_kept(saved, full_disk):
    before = saved.path.read_bytes()
    for write in (
        lambda: save_model(build(), saved.path),
        lambda: save_facts(saved, replace(saved.spec, variant="fast"), saved.path),
        lambda: save_model(build(), saved.path.with_name("new.safetensors")),
    ):
        with pytest.raises(OutputError, match=r"\.safetensors could not be written: No space left on device"):
            write()
    assert saved.path.read_bytes() == before
    assert [path.name for path in saved.path.parent.iterdir()] == ["tiny.safetensors"]


def with_tensors(source, target, **changes):
    """A copy of a weights file with other tensors."""
    metadata = header_of(source)["__metadata__"]
    tensors = {name: value for name, value in (load_file(source) | changes).items() if value is not None}
    save_file(tensors, target, metadata=metadata)
    return target


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_weights_that_are_not_finite_are_refused_by_their_tensor(saved, tmp_path, value, dtype):
    bias = torch.zeros(4, dtype=dtype)
    bias[2] = value
    path = with_tensors(saved.path, tmp_path / "odd.safetensors", **{"body.0.bias": bias})
    with pytest.raises(ModelError, match=r"odd\.safetensors has 1 weights that are not finite, in body\.0\.bias"):
        load_model(path)


def test_weights_beyond_float32_are_not_finite(saved, tmp_path):
    bias = torch.full((4,), 1e300, dtype=torch.float64)
    path = with_tensors(saved.path, tmp_path / "odd.safetensors", **{"body.0.bias": bias})
    with pytest.raises(ModelError, match=r"4 weights that are not finite, in body\.0\.bias"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"body.0.bias": None}, r"body\.0\.bias is missing"),
        ({"body.9.bias": torch.zeros(3)}, r"body\.9\.bias is unexpected"),
        ({"body.0.bias": torch.zeros(5)}, r"body\.0\.bias is 5 float32 and not 4 float32"),
        ({"body.0.bias": torch.zeros(4, dtype=torch.int32)}, r"body\.0\.bias is 4 int32 and not 4 float32"),
        ({"body.0.bias": torch.zeros(4, dtype=torch.complex64)}, r"body\.0\.bias of type C64; weights are F64 F32"),
        ({"a\x1b[2J": torch.zeros(4)}, "a\ufffd\\[2J is unexpected"),
    ],
)
def test_tensors_of_another_network_are_named(saved, tmp_path, changes, told):
    path = with_tensors(saved.path, tmp_path / "odd.safetensors", **changes)
    with pytest.raises(ModelError, match=told):
        load_model(path)


HUGE = [
    {"arguments": {"channels": 100_000, "blocks": 1}},
    {"arguments": {"channels": 1000, "blocks": 1000}},
    {"arguments": {"channels": 4, "blocks": 10**6}},
    {"scale": 64},
    {"scale": 100_000},
    {"bands": [f"B{number}" for number in range(10**5)]},
    {"bands": [f"B{number}" for number in range(1000)], "arguments": {}},
    {"architecture": "swinir", "arguments": {"window_size": 1000, "depth": 1000, "blocks": 1000, "channels": 4}},
    {"architecture": "esrgan", "arguments": {"growth_channels": 1000, "unshuffle": 1000}},
    {"architecture": "plksr", "arguments": {"kernel": 1023}},
    {"architecture": "rcab", "arguments": {"reduction": 0}},
    {"architecture": "lka", "arguments": {"large_kernel_size": 10**30}},
    {"architecture": "stochastic", "arguments": {"noise_channels": -1}},
    {"architecture": "compact", "arguments": {"channels": "x"}},
    {"architecture": "compact", "arguments": {"channels": 4.0}},
    {"architecture": "compact", "arguments": {"bands": 4}},
    {"architecture": "srresnet", "arguments": {"use_icnr": "yes"}},
    {"architecture": "interpolation", "arguments": {"mode": "cubic"}},
]


@pytest.mark.parametrize("change", HUGE, ids=range(len(HUGE)))
def test_no_size_in_a_specification_is_believed_before_the_tensors_show_it(saved, tmp_path, change):
    other = rewrite(saved.path, tmp_path / "huge.safetensors", lambda spec: spec | change)
    started, before = perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=r"huge\.safetensors"):
        load_model(other)
    assert perf_counter() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_the_halo_is_the_network_s_whatever_the_file_says(saved, tmp_path):
    for halo in (0, 900, None):
        other = rewrite(saved.path, tmp_path / "halo.safetensors", lambda spec, halo=halo: spec | {"halo": halo})
        assert load_model(other).spec.halo == saved.spec.halo


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "a" * 300 + ".safetensors"])
def test_a_name_that_no_file_can_have_is_no_model(name):
    with pytest.raises(ModelError, match=r"cannot be read|is unknown|does not exist"):
        find_weights(name)


def test_a_header_beyond_any_use_is_refused(saved, tmp_path):
    path = tmp_path / "long.safetensors"
    with path.open("wb") as file:
        file.write((40 * 2**20).to_bytes(8, "little"))
        file.truncate(50 * 2**20)
    with pytest.raises(ModelError, match="header of 41,943,040 bytes"):
        find_weights(path)


ODD = [
    *(None, True, 0, -1, 2, 7, 10**6, 10**30, 0.5, 1e308, math.nan, math.inf, "", "x", ".x", "this.x", "\x1b[31m"),
    *([], [1], [[]], {}, {"a": 1}, ["B02"] * 3, "swinir", "guided", "spandrel", "interpolation", "\ud800"),
]


def mutated(content, dice):
    """Bytes of a weights file with one thing changed: in its specification, its header, or anywhere."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    spec = json.loads(header["__metadata__"]["geosr"])
    tensors = [name for name in header if name != "__metadata__"]
    what = dice.choice(["fact", "fact", "argument", "header", "bytes", "cut"])
    if what == "fact":
        spec[dice.choice(list(spec))] = dice.choice(ODD)
    elif what == "argument":
        spec["arguments"][dice.choice(["channels", "blocks", "mean", "std", "base", "depth"])] = dice.choice(ODD)
    elif what == "header":
        fact = dice.choice(["dtype", "shape", "data_offsets"])
        header[dice.choice(tensors)][fact] = dice.choice([*ODD, "I32", "F16", [0, 10**12], [2**40, 2**40]])
    header["__metadata__"]["geosr"] = json.dumps(spec)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    content = bytearray(struct.pack("<Q", len(text)) + text + data)
    if what == "bytes":
        for _ in range(3):
            content[dice.randrange(len(content))] = dice.randrange(256)
    return bytes(content[: dice.randrange(len(content))] if what == "cut" else content)


def test_a_mutated_file_is_loaded_or_refused_in_a_sentence(saved, tmp_path):
    content, path = saved.path.read_bytes(), tmp_path / "mutated.safetensors"
    refusals = []
    for seed in range(100):
        path.write_bytes(mutated(content, random.Random(seed)))
        try:
            load_model(path)
        except ModelError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert [printable(refusal) for refusal in refusals] == refusals
