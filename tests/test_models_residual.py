import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, measure_halo
from geosr.models.residual import BLOCKS, Residual, shuffled_convolution
from geosr.testing import assert_model_contract

RGBN = ("B02", "B03", "B04", "B08")


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("bands", "scale", "arguments", "mtf"),
    [
        (RGBN, 4, {}, 0.3),
        (("B04",), 3, {"large_kernel_size": 5, "use_icnr": False}, None),
        (("B04", "B03"), 1, {"small_kernel_size": 5, "global_skip": False}, None),
        (("B04", "B03"), 2, {"blocks": 0, "large_kernel_size": 3}, None),
    ],
)
def test_it_keeps_the_contract_of_a_model(block, bands, scale, arguments, mtf):
    normal = {"mean": [0.2] * len(bands), "std": [0.06] * len(bands)}
    size = {"channels": 8, "blocks": 1}
    if block == "rcab":
        size["reduction"] = 2
    if block == "rrdb":
        size["growth_channels"] = 4
    assert_model_contract(ModelSpec("test", block, scale, bands, size | normal | arguments, consistency_mtf=mtf))


@pytest.mark.parametrize("scale", [2, 3, 4, 6])
@pytest.mark.parametrize("large_kernel_size", [1, 3, 9, 13])
def test_reach_is_what_is_measured(scale, large_kernel_size):
    network = Residual(
        bands=1, scale=scale, block="res", channels=2, blocks=2, large_kernel_size=large_kernel_size, use_icnr=False
    )
    facts = ModelSpec("m", "res", scale, ("B02",))
    assert measure_halo(network, facts) == network.reach


def test_attention_over_the_image_reaches_all_of_it():
    torch.manual_seed(0)
    network = Residual(bands=1, scale=1, block="rcab", channels=4, blocks=1, reduction=1)
    model = Model(ModelSpec("m", "rcab", 1, ("B02",), consistency_mtf=None), network)
    assert network.reach is None
    assert measure_halo(network, model.spec, largest=40) is None
    assert model.spec.tiling == "approximate"


@pytest.mark.parametrize(
    ("block", "arguments", "published"),
    [
        # Of 64 channels; in srresnet, less the biases of 33 convolutions that a batch normalisation takes away.
        ("srresnet", {"bands": 3, "scale": 4, "blocks": 16}, 1_549_462 - 33 * 64),
        ("res", {"bands": 4, "scale": 2, "blocks": 2}, 373_896),
        ("rcab", {"bands": 4, "scale": 2, "blocks": 2}, 375_056),
        ("rrdb", {"bands": 4, "scale": 2, "blocks": 2, "growth_channels": 21}, 1_171_746),
        ("lka", {"bands": 4, "scale": 2, "blocks": 2}, 391_944),
    ],
)
def test_it_has_as_many_parameters_as_others_count(block, arguments, published):
    network = Residual(block=block, **arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) == published


@pytest.mark.parametrize("block", BLOCKS)
def test_it_is_what_its_blocks_say(block):
    """The whole forward pass, written out with functions."""
    torch.manual_seed(1)
    mean, std = torch.tensor([0.1, 0.3]), torch.tensor([0.05, 0.2])
    network = Residual(
        bands=2, scale=2, block=block, channels=4, blocks=1, large_kernel_size=5, growth_channels=3, reduction=2,
        res_scale=0.3, mean=mean.tolist(), std=std.tolist(),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, value in network.state_dict().items():  # which shares the memory
            if "bias" in name or "running" in name:
                value.copy_(0.5 + torch.rand(value.shape))
    weights = network.state_dict()

    def conv(features, name, groups=1, dilation=1):
        weight = weights[f"{name}.weight"]
        padding = (weight.shape[-1] // 2) * dilation
        bias = weights.get(f"{name}.bias")
        return F.conv2d(features, weight, bias, padding=padding, groups=groups, dilation=dilation)

    def prelu(features, name):
        return torch.where(features > 0, features, weights[f"{name}.weight"] * features)

    def norm(features, name):
        shown = {
            key: weights[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("weight", "bias", "running_mean", "running_var")
        }
        return (features - shown["running_mean"]) / (shown["running_var"] + 1e-5).sqrt() * shown["weight"] + shown[
            "bias"
        ]

    def two(features, name):
        return conv(prelu(conv(features, f"{name}.0"), f"{name}.1"), f"{name}.2")

    def run_block(features):
        name = "body.0"
        if block == "srresnet":
            inner = prelu(norm(conv(features, f"{name}.body.0"), f"{name}.body.1"), f"{name}.body.2")
            return features + norm(conv(inner, f"{name}.body.3"), f"{name}.body.4")
        if block == "res":
            return features + 0.3 * two(features, f"{name}.body")
        if block == "rcab":
            detail = two(features, f"{name}.body")
            pooled = detail.mean((2, 3), keepdim=True)
            weight = torch.sigmoid(conv(conv(pooled, f"{name}.attention.0").clamp(min=0), f"{name}.attention.2"))
            return features + 0.3 * detail * weight
        if block == "lka":
            inner = prelu(conv(features, f"{name}.first"), f"{name}.act")
            far = conv(conv(inner, f"{name}.attention.0", groups=4), f"{name}.attention.1", groups=4, dilation=3)
            return features + 0.3 * conv(inner * torch.sigmoid(conv(far, f"{name}.attention.2")), f"{name}.last")
        inner = features
        for dense in range(3):
            outputs = [inner]
            for layer in range(5):
                out = conv(torch.cat(outputs, 1), f"{name}.body.{dense}.layers.{layer}")
                outputs.append(torch.where(out > 0, out, 0.2 * out) if layer < 4 else out)
            inner = inner + 0.3 * outputs[-1]
        return features + 0.3 * inner

    lr = random_image(2, 2, 7, 6)
    first = prelu(conv((lr - mean[:, None, None]) / std[:, None, None], "head.0"), "head.1")
    fused = conv(run_block(first), "fuse.0")
    features = conv(first + (norm(fused, "fuse.1") if block == "srresnet" else fused), "upsample.0.0")
    fine = torch.zeros(2, 4, 14, 12)
    for row in range(2):
        for column in range(2):
            fine[:, :, row::2, column::2] = features[:, 2 * row + column :: 4]
    detail = conv(prelu(fine, "upsample.0.1"), "tail")
    expected = F.interpolate(lr, scale_factor=2, mode="bicubic", align_corners=False) + detail * std[:, None, None]
    torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=1e-5)


def test_without_the_skip_and_the_normalisation_it_is_the_bare_network():
    network = Residual(bands=2, scale=2, block="res", channels=4, blocks=1, global_skip=False)
    lr = random_image(1, 2, 6, 5)
    torch.testing.assert_close(network(lr), network.resolve(lr), atol=0, rtol=0)


def test_without_the_skip_the_mean_is_given_back():
    network = Residual(
        bands=2, scale=2, block="res", channels=4, blocks=1, global_skip=False, mean=[0.1, 0.4], std=[0.2, 0.3]
    )
    torch.nn.init.zeros_(network.tail.weight)
    sr = network(random_image(1, 2, 4, 4))
    torch.testing.assert_close(sr, torch.tensor([0.1, 0.4]).view(1, 2, 1, 1).expand(1, 2, 8, 8))


@pytest.mark.parametrize("use_icnr", [False, True])
@pytest.mark.parametrize("scale", [2, 3])
def test_icnr_starts_without_a_grid(use_icnr, scale):
    torch.manual_seed(0)
    network = Residual(bands=1, scale=scale, block="res", channels=4, blocks=1, use_icnr=use_icnr)
    fine = F.pixel_shuffle(network.upsample[0](random_image(1, 4, 6, 6)), scale)
    coarse = F.interpolate(fine[..., ::scale, ::scale], scale_factor=scale, mode="nearest")
    assert torch.equal(fine, coarse) == use_icnr


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 11, 21])
def test_behind_a_shuffle_a_convolution_is_one_before_it(size, factor):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 2, size, padding=size // 2).double()
    features = random_image(1, 3 * factor**2, 6, 5).double()
    expected = convolution(F.pixel_shuffle(features, factor))
    torch.testing.assert_close(shuffled_convolution(features, convolution, factor), expected)


def test_a_large_kernel_behind_a_shuffle_is_computed_on_the_coarse_grid(monkeypatch):
    sizes = []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args, **options: sizes.append(args[1].shape) or convolve(*args, **options))
    shuffled_convolution(random_image(1, 8, 6, 5), nn.Conv2d(2, 3, 9, padding=4), 2)
    assert sizes == [(3 * 4, 2 * 4, 5, 5)]


def test_a_hyperbolic_tangent_at_the_end_is_asked_for():
    lr = torch.rand(1, 2, 6, 5)
    outputs = []
    for tanh in (False, True):
        torch.manual_seed(0)
        network = Residual(bands=2, scale=2, block="srresnet", channels=4, blocks=1, global_skip=False, tanh=tanh)
        outputs.append(network.eval()(lr))
    torch.testing.assert_close(outputs[1], outputs[0].tanh())


def test_dense_blocks_do_without_their_skip_where_asked():
    torch.manual_seed(0)
    network = Residual(bands=1, scale=2, block="rrdb", channels=4, blocks=1, growth_channels=2, dense_skip=False)
    (block,) = network.body
    for dense in block.body:  # what they add is nothing
        nn.init.zeros_(dense.layers[-1].weight)
    features = torch.rand(1, 4, 6, 5)
    assert torch.equal(block(features), features)
    assert not block.body[0](features).any()


def test_an_unknown_block_is_refused_with_the_nearest_one():
    with pytest.raises(ModelError, match=r"block 'rcba' is unknown .*did you mean 'rcab'\?"):
        Residual(bands=1, scale=2, block="rcba")


@pytest.mark.parametrize("kernels", [{"large_kernel_size": 8}, {"small_kernel_size": 4}])
def test_an_even_kernel_is_refused(kernels):
    with pytest.raises(ModelError, match="must be odd"):
        Residual(bands=1, scale=2, block="res", **kernels)
