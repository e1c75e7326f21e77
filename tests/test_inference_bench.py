import pytest
import torch

from geosr.errors import ModelError
from geosr.inference import bench as module
from geosr.inference.bench import Comparison, bench
from geosr.models import load_model
from geosr.models.costs import costs


def test_each_model_is_measured_in_each_precision_that_differs(small_weights):
    measured = bench(
        [small_weights, small_weights], device="cpu", precisions=("fp32", "bf16", "fp32"), side=16, rounds=2
    )
    assert [(timing.name, timing.precision) for timing in measured.timings] == [
        (str(small_weights), "fp32"),
        (str(small_weights), "bf16"),
    ] * 2
    for timing in measured.timings:
        assert timing.runtime == "torch"
        assert timing.device == "cpu"
        assert timing.pixels_per_second > 0
        assert timing.memory is None or timing.memory >= 0
    assert measured.comparisons == []


def test_operations_and_parameters_are_those_of_the_network(small_weights):
    (timing,) = bench([small_weights], device="cpu", precisions=["fp32"], side=16, rounds=1).timings
    bands, channels, out = 4, 8, 4 * 2**2  # one convolution in, one inside, one to the pixel shuffle
    weights = 9 * (bands * channels + channels**2 + channels * out)
    assert timing.flop_per_pixel == 2 * weights
    assert timing.parameters == sum(p.numel() for p in load_model(small_weights).parameters())
    assert timing.parameters == weights + (channels + channels + out) + 2 * channels


def test_an_architecture_is_measured_in_its_default_size():
    (timing,) = bench(["compact"], device="cpu", precisions=["fp32"], side=8, rounds=1).timings
    (cost,) = (cost for cost in costs() if cost.architecture == "compact")
    assert timing.parameters == cost.parameters
    assert timing.flop_per_pixel == pytest.approx(cost.gflop * 1e9 / 128**2)


def test_an_onnx_file_is_compared_with_its_own_weights_in_pytorch(small_weights, small_onnx):
    measured = bench([small_weights, small_onnx], device="cpu", precisions=["fp32", "bf16"], side=16, rounds=1)
    rates = {(timing.runtime, timing.precision): timing.pixels_per_second for timing in measured.timings}
    assert list(rates) == [("torch", "fp32"), ("torch", "bf16"), ("onnx", "fp32")]
    assert measured.comparisons == [
        Comparison(str(small_onnx), precision, rates["onnx", "fp32"] / rates["torch", precision])
        for precision in ("fp32", "bf16")
    ]


def test_an_onnx_file_alone_is_compared_with_fresh_weights(small_onnx):
    measured = bench([small_onnx], device="cpu", precisions=["fp32"], side=16, rounds=1)
    onnx, twin = measured.timings
    assert (onnx.runtime, twin.runtime) == ("onnx", "torch")
    assert twin.name == f"{small_onnx} in torch"
    assert (twin.parameters, twin.flop_per_pixel) == (onnx.parameters, onnx.flop_per_pixel)
    assert [comparison.name for comparison in measured.comparisons] == [str(small_onnx)]


def test_the_turns_alternate_and_the_median_counts(small_weights, monkeypatch):
    took = iter([1.0, 4.0, 2.0, 3.0, 100.0, 5.0])  # of two models in three rounds
    now, turns = [0.0], []

    def clock():
        return now[0]

    class Resolver(module.SuperResolver):
        def __call__(self, lr):
            if len(turns) >= 4:  # two images each to warm up
                now[0] += next(took)
            turns.append(self.precision)
            return torch.zeros(1)

    monkeypatch.setattr(module, "SuperResolver", Resolver)
    monkeypatch.setattr(module, "perf_counter", clock)
    timings = bench([small_weights], device="cpu", precisions=["fp32", "bf16"], side=10, rounds=3).timings
    assert turns[4:] == ["fp32", "bf16"] * 3
    assert [timing.pixels_per_second for timing in timings] == [100 / 2, 100 / 4]


@pytest.mark.parametrize(
    ("ratio", "words"), [(2.0, "2.00 times as fast"), (0.4, "2.50 times as slow"), (1, "1.00 times")]
)
def test_a_comparison_is_a_sentence(ratio, words):
    assert f"x.onnx: ONNX Runtime is {words}" in str(Comparison("x.onnx", "bf16", ratio))
    assert str(Comparison("x.onnx", "bf16", ratio)).endswith("as PyTorch in bf16")


def test_a_name_that_is_nothing_is_refused():
    with pytest.raises(ModelError, match="'compcat' is unknown"):
        bench(["compcat"])
