import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.config import names
from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, measure_halo
from geosr.models.costs import count_flop
from geosr.models.model import LARGEST_HALO
from geosr.models.swinir import UPSAMPLERS, SwinIR, WindowAttention
from geosr.testing import assert_model_contract, assert_tiling_exact

RGBN = ("B02", "B03", "B04", "B08")
SMALL = {"channels": 8, "blocks": 1, "depth": 2, "heads": 2, "window_size": 4, "upsampler": "pixelshuffledirect"}
LIGHT = {"channels": 60, "blocks": 4, "depth": 6, "heads": 6, "window_size": 8, "upsampler": "pixelshuffledirect"}
CLASSIC = {"channels": 180, "blocks": 6, "depth": 6, "heads": 6, "window_size": 8, "upsampler": "pixelshuffle"}


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("bands", "scale", "changes", "mtf"),
    [
        (RGBN, 2, {}, 0.3),
        (RGBN, 4, {"upsampler": "pixelshuffle"}, None),
        (("B04",), 3, {"window_size": 3, "depth": 1, "blocks": 2}, None),
        (("B02", "B03"), 1, {"window_size": 5, "heads": 4, "upsampler": "pixelshuffle"}, 0.2),
        (RGBN[:2], 2, {"depth": 3, "window_size": 2, "blocks": 3}, None),
    ],
)
def test_it_keeps_the_contract_of_a_model(bands, scale, changes, mtf):
    arguments = SMALL | changes | {"mean": [0.12] * len(bands), "std": [0.05] * len(bands)}
    assert_model_contract(ModelSpec("test", "swinir", scale, bands, arguments, consistency_mtf=mtf))


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
@pytest.mark.parametrize("scale", range(1, 9))
def test_every_scale_and_size_is_possible(scale, upsampler):
    network = SwinIR(bands=2, scale=scale, **SMALL | {"upsampler": upsampler}).eval()
    for height, width in ((1, 1), (3, 2), (4, 9), (13, 8)):
        sr = network(random_image(1, 2, height, width))
        assert sr.shape == (1, 2, height * scale, width * scale)
        assert torch.isfinite(sr).all()


def attention_by_hand(layer, pixels):
    """Each pixel looks at each other pixel of the image, and sees those in its window only."""
    height, width, channels = pixels.shape
    weights = {name: value.detach().numpy().astype(np.float64) for name, value in layer.named_parameters()}
    qkv = pixels @ weights["qkv.weight"].T + weights["qkv.bias"]
    queries, keys, values = qkv[..., :channels], qkv[..., channels : 2 * channels], qkv[..., 2 * channels :]
    side, shift, size = layer.window_size, layer.shift, channels // layer.heads
    seen = np.zeros((height, width, channels))
    for row, column, head in product(range(height), range(width), range(layer.heads)):
        part = slice(head * size, (head + 1) * size)
        total, average = 0.0, np.zeros(size)
        for y, x in product(range(height), range(width)):
            same = math.floor((y - shift) / side) == math.floor((row - shift) / side)
            if same and math.floor((x - shift) / side) == math.floor((column - shift) / side):
                offset = (row - y + side - 1) * (2 * side - 1) + column - x + side - 1
                product_ = queries[row, column, part] @ keys[y, x, part] / math.sqrt(size)
                weight = math.exp(product_ + weights["biases"][offset, head])
                total += weight
                average += weight * values[y, x, part]
        seen[row, column, part] = average / total
    return seen @ weights["project.weight"].T + weights["project.bias"]


@pytest.mark.parametrize("shape", [(4, 4), (8, 4), (12, 8)])
@pytest.mark.parametrize("shift", [0, 2, 1])
def test_attention_is_what_each_pixel_sees_in_its_window(shape, shift):
    torch.manual_seed(0)
    layer = WindowAttention(6, heads=2, window_size=4, shift=shift).double()
    for value in layer.parameters():
        nn.init.normal_(value)
    pixels = random_image(1, *shape, 6).double()
    expected = attention_by_hand(layer, pixels[0].numpy())
    np.testing.assert_allclose(layer(pixels)[0].detach().numpy(), expected, atol=1e-9)


def test_attention_of_odd_windows_is_shifted_by_less_than_half():
    torch.manual_seed(0)
    layer = WindowAttention(4, heads=1, window_size=3, shift=1).double()
    pixels = random_image(2, 9, 6, 4).double()
    for one, seen in zip(pixels, layer(pixels), strict=True):
        np.testing.assert_allclose(seen.detach().numpy(), attention_by_hand(layer, one.numpy()), atol=1e-9)


def test_a_layer_is_attention_and_an_mlp_each_normalised_before_and_added():
    torch.manual_seed(0)
    network = SwinIR(bands=1, scale=1, **SMALL).double()
    layer = network.body[0].layers[1]
    pixels = random_image(1, 8, 8, 8).double()
    with torch.no_grad():
        middle = pixels + layer.attention(F.layer_norm(pixels, (8,)))
        first, _, second = layer.mlp
        hidden = F.layer_norm(middle, (8,)) @ first.weight.T + first.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        expected = middle + hidden @ second.weight.T + second.bias
        torch.testing.assert_close(layer(pixels), expected)


def test_every_second_layer_is_shifted_by_half_a_window():
    network = SwinIR(bands=1, scale=1, **SMALL | {"depth": 5, "window_size": 7})
    assert [layer.attention.shift for layer in network.body[0].layers] == [0, 3, 0, 3, 0]


@pytest.mark.parametrize(
    ("scale", "changes"),
    [
        (1, {"depth": 0}),
        (1, {"depth": 1}),
        (2, {"depth": 2}),
        (3, {"depth": 3, "window_size": 3}),
        (2, {"depth": 2, "blocks": 2}),
        (4, {"depth": 2, "upsampler": "pixelshuffle"}),
        (6, {"depth": 1, "window_size": 5, "upsampler": "pixelshuffle"}),
        (2, {"blocks": 0}),
    ],
)
def test_the_reach_is_what_the_gradient_says(scale, changes):
    torch.manual_seed(0)
    network = SwinIR(bands=1, scale=scale, **SMALL | changes)
    spec = ModelSpec("m", "swinir", scale, RGBN[:1], multiple_of=network.multiple_of)
    assert measure_halo(network, spec) == network.reach


def test_the_reach_is_that_of_the_pixel_from_which_it_is_farthest():
    """Behind the attention are three convolutions: of the group, of the body, and before the shuffle. The second row of
    a window of four touches the next window with them, sees three rows more of it, and one by the first convolution.
    """
    assert SwinIR(bands=1, scale=1, **SMALL | {"depth": 1}).reach == 3 + 3 + 1


def test_one_pixel_less_than_the_reach_shows():
    torch.manual_seed(0)
    arguments = SMALL | {"window_size": 2, "global_skip": False}
    spec = ModelSpec("m", "swinir", 1, RGBN[:1], arguments, consistency_mtf=None)
    model = Model(spec).eval()
    assert_tiling_exact(model)
    model.spec = ModelSpec("m", "swinir", 1, RGBN[:1], arguments, halo=model.spec.halo - 2, multiple_of=2)
    with pytest.raises(AssertionError, match="differs from the whole image"):
        assert_tiling_exact(model)


@pytest.mark.parametrize("size", [LIGHT, CLASSIC])
def test_the_published_sizes_reach_farther_than_a_tile(size):
    with torch.device("meta"):
        network = SwinIR(bands=4, scale=2, **size)
    assert network.reach > LARGEST_HALO
    spec = Model(ModelSpec("m", "swinir", 2, RGBN), network).spec
    assert (spec.tiling, spec.halo, spec.multiple_of) == ("approximate", 32, 8)
    with torch.device("meta"):
        odd = SwinIR(bands=4, scale=2, **size | {"window_size": 7})
    assert Model(ModelSpec("m", "swinir", 2, RGBN), odd).spec.halo == 35


def test_parameters_are_those_that_the_paper_counts():
    """Table 3 of the paper: 878, 886 and 897 thousand in the light size at x2, x3 and x4, without the biases."""
    for scale, thousands in ((2, 878), (3, 886), (4, 897)):
        weights = SwinIR(bands=3, scale=scale, **LIGHT).named_parameters()
        counted = sum(value.numel() for name, value in weights if not name.endswith("attention.biases"))
        assert round(counted / 1000) == thousands


def test_operations_include_those_of_attention():
    with torch.device("meta"):
        layer = WindowAttention(12, heads=3, window_size=4, shift=2)
        pixels = torch.empty(1, 16, 12, 12)
    products = 4 * 12**2 + 2 * 16 * 12  # of a pixel: queries, keys, values and the last layer; then 16 pixels twice
    assert count_flop(layer, pixels) == 2 * products * 16 * 12


def test_the_image_is_continued_by_its_reflection():
    torch.manual_seed(0)
    network = SwinIR(bands=2, scale=2, **SMALL | {"global_skip": False})
    lr = random_image(1, 2, 10, 13)
    continued = torch.from_numpy(np.pad(lr.numpy(), ((0, 0), (0, 0), (0, 2), (0, 3)), mode="reflect"))
    torch.testing.assert_close(network(lr), network(continued)[..., :20, :26])


def test_masks_and_offsets_are_not_in_the_state():
    assert not any("offsets" in name or "apart" in name for name in SwinIR(bands=1, scale=1, **SMALL).state_dict())


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = SwinIR(bands=2, scale=2, **SMALL | {"blocks": 2}).train()
        network.body.gradient_checkpointing = checkpointing
        network(random_image(2, 2, 12, 12)).square().mean().backward()
        gradients.append([value.grad for value in network.parameters()])
    for kept, computed_again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, computed_again)


def test_autocast_computes_attention_in_low_precision():
    network, seen = SwinIR(bands=2, scale=2, **SMALL), []
    network.body[0].layers[1].attention.register_forward_hook(lambda layer, given, result: seen.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        sr = network(random_image(1, 2, 8, 8))
    assert seen == [torch.bfloat16]
    assert sr.dtype == torch.float32


@pytest.mark.parametrize("scale", [2, 6])
def test_it_starts_without_a_grid(scale):
    """With ICNR, all SR pixels of an LR pixel are alike before the last convolution."""
    torch.manual_seed(0)
    arguments = SMALL | {"global_skip": False}
    sr = SwinIR(bands=1, scale=scale, **arguments)(random_image(1, 1, 8, 8))
    blocks = sr.unfold(2, scale, scale).unfold(3, scale, scale)
    assert blocks.flatten(4).std(dim=4).max() < 1e-6 < sr.std()
    sr = SwinIR(bands=1, scale=scale, **arguments, use_icnr=False)(random_image(1, 1, 8, 8))
    assert sr.unfold(2, scale, scale).unfold(3, scale, scale).flatten(4).std(dim=4).min() > 1e-4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"heads": 3}, "8 channels cannot be split among 3 heads; take a multiple of 3"),
        ({"window_size": 1}, "a window of 1 pixels there is nothing to attend to"),
        ({"upsampler": "pixelshuffel"}, r"'pixelshuffel' is unknown \(.*\); did you mean 'pixelshuffle'"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, told):
    with pytest.raises(ModelError, match=told):
        SwinIR(bands=1, scale=2, **SMALL | changes)


def test_every_upsampler_that_a_config_may_name_is_there():
    assert tuple(UPSAMPLERS) == names.UPSAMPLERS


def published_names(ours, blocks, depth):
    """Names of the published weights by ours."""
    layers = {"head": "conv_first", "embed": "patch_embed.norm", "norm": "norm", "fuse": "conv_after_body"}
    for block in range(blocks):
        layers[f"body.{block}.fuse"] = f"layers.{block}.conv"
        for layer in range(depth):
            here, there = f"body.{block}.layers.{layer}", f"layers.{block}.residual_group.blocks.{layer}"
            layers |= {f"{here}.attention_norm": f"{there}.norm1", f"{here}.mlp_norm": f"{there}.norm2"}
            layers |= {f"{here}.mlp.0": f"{there}.mlp.fc1", f"{here}.mlp.2": f"{there}.mlp.fc2"}
            layers |= {f"{here}.attention.qkv": f"{there}.attn.qkv", f"{here}.attention.project": f"{there}.attn.proj"}
            layers[f"{here}.attention"] = f"{there}.attn"
    last = max(int(name.split(".")[1]) for name in ours if name.startswith("upsample."))
    if last == 0:
        layers["upsample.0"] = "upsample.0"
    else:
        layers |= {f"upsample.{place}": f"upsample.{place - 2}" for place in range(2, last)}
        layers |= {"upsample.0": "conv_before_upsample.0", f"upsample.{last}": "conv_last"}
    kinds = {"biases": "relative_position_bias_table"}
    split = {name: name.rsplit(".", 1) for name in ours}
    return {name: f"{layers[layer]}.{kinds.get(kind, kind)}" for name, (layer, kind) in split.items()}


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [LIGHT, CLASSIC], ids=["light", "classic"])
def test_with_the_same_weights_spandrel_gives_the_same(size, scale):
    """Random weights, since the published ones cannot be fetched here; sizes that fill windows, and that do not."""
    spandrel = pytest.importorskip("spandrel.architectures.SwinIR")
    mean = [0.4488, 0.4371, 0.4040]  # of DIV2K, which is in spandrel's module
    torch.manual_seed(0)
    ours = SwinIR(bands=3, scale=scale, **size, global_skip=False, use_icnr=False, mean=mean).eval()
    theirs = spandrel.SwinIR(
        img_size=64,
        embed_dim=size["channels"],
        depths=[size["depth"]] * size["blocks"],
        num_heads=[size["heads"]] * size["blocks"],
        window_size=size["window_size"],
        mlp_ratio=2,
        upscale=scale,
        img_range=1.0,
        upsampler=size["upsampler"],
        resi_connection="1conv",
    ).eval()
    for value in ours.parameters():  # the biases too, and attention that prefers some pixels
        value.data.add_(0.02 * torch.randn(value.shape))
    weights = ours.state_dict()
    names = published_names(weights, size["blocks"], size["depth"])
    constant = {name for name in theirs.state_dict() if name.endswith(("relative_position_index", "attn_mask"))}
    missing, unexpected = theirs.load_state_dict({names[name]: value for name, value in weights.items()}, strict=False)
    assert set(missing) == constant
    assert not unexpected
    with torch.inference_mode():
        for height, width in ((16, 24), (19, 9)):
            lr = random_image(1, 3, height, width, seed=height)
            assert ours(lr).std() > 0.1
            torch.testing.assert_close(ours(lr), theirs(lr), atol=1e-5, rtol=0)
