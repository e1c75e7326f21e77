import pytest
import torch
import torch.nn.functional as F

from geosr.errors import ModelError
from geosr.models import ModelSpec
from geosr.models.compact import Compact
from geosr.testing import assert_model_contract

RGBN = ("B02", "B03", "B04", "B08")


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_on_the_nearest_base_it_keeps_the_contract_too():
    arguments = {"channels": 4, "blocks": 1, "base": "nearest", "std": [0.4] * 4}
    assert_model_contract(ModelSpec("test", "compact", 2, RGBN, arguments, consistency_mtf=None))


def test_without_a_residual_the_nearest_base_is_left():
    network = Compact(bands=2, scale=3, channels=4, blocks=1, base="nearest", mean=[0.1, 0.2], std=[0.3, 0.4])
    torch.nn.init.zeros_(network.body[-1].weight)
    lr = random_image(1, 2, 4, 5)
    expected = lr.repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(network(lr), expected, atol=1e-6, rtol=0)


def test_an_unknown_base_is_refused():
    with pytest.raises(ModelError, match=r"'cubic' is unknown \(bicubic nearest\); did you mean 'bicubic'"):
        Compact(bands=1, scale=2, base="cubic")


@pytest.mark.parametrize(
    ("bands", "scale", "channels", "blocks", "mtf"),
    [
        (RGBN, 2, 8, 2, 0.3),
        (RGBN, 4, 8, 1, 0.3),
        (("B04",), 3, 4, 0, 0.2),
        (("B02", "B03", "B04"), 2, 6, 3, None),
        ((*RGBN, "B11", "B12"), 1, 5, 1, None),
    ],
)
def test_it_keeps_the_contract_of_a_model(bands, scale, channels, blocks, mtf):
    arguments = {"channels": channels, "blocks": blocks, "mean": [0.12] * len(bands), "std": [0.05] * len(bands)}
    assert_model_contract(ModelSpec("test", "compact", scale, bands, arguments, consistency_mtf=mtf))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_without_a_residual_it_is_bicubic(scale):
    network = Compact(bands=3, scale=scale, channels=4, blocks=1, mean=[0.1, 0.2, 0.3], std=[0.1, 0.2, 0.3])
    torch.nn.init.zeros_(network.body[-1].weight)
    lr = random_image(2, 3, 7, 9)
    expected = F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(network(lr), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 3])
def test_it_is_convolutions_and_a_pixel_shuffle_on_top_of_bicubic(scale):
    mean, std = torch.tensor([0.1, 0.3]), torch.tensor([0.05, 0.2])
    network = Compact(bands=2, scale=scale, channels=3, blocks=1, mean=mean.tolist(), std=std.tolist())
    lr = random_image(1, 2, 6, 5)
    weights = network.state_dict()
    features = (lr - mean[:, None, None]) / std[:, None, None]
    for layer in (0, 2):
        features = F.conv2d(features, weights[f"body.{layer}.weight"], weights[f"body.{layer}.bias"], padding=1)
        slope = weights[f"body.{layer + 1}.weight"][:, None, None]
        features = features.clamp(min=0) + slope * features.clamp(max=0)
    residual = F.conv2d(features, weights["body.4.weight"], weights["body.4.bias"], padding=1)
    sr = F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False)
    for band in range(2):
        for row in range(scale):
            for column in range(scale):
                channel = (band * scale + row) * scale + column
                sr[:, band, row::scale, column::scale] += residual[:, channel] * std[band]
    torch.testing.assert_close(network(lr), sr, atol=1e-6, rtol=0)


def test_training_starts_near_bicubic():
    torch.manual_seed(0)
    network, lr = Compact(bands=4, scale=2, mean=[0.5] * 4, std=[0.3] * 4), random_image(1, 4, 16, 16)
    bicubic = F.interpolate(lr, scale_factor=2, mode="bicubic", align_corners=False)
    assert 0 < (network(lr) - bicubic).abs().mean() < 0.1 * lr.std()


def test_normalisation_is_in_the_specification_and_not_in_the_weights():
    network = Compact(bands=2, scale=2, channels=4, blocks=1, mean=[0.1, 0.2], std=[0.3, 0.4])
    assert {name.split(".")[0] for name in network.state_dict()} == {"body"}


def test_autocast_runs_the_convolutions_in_low_precision_and_returns_the_precision_of_the_input():
    network, seen = Compact(bands=2, scale=2, channels=4, blocks=1), []
    network.body[2].register_forward_hook(lambda layer, given, result: seen.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        sr = network(random_image(1, 2, 8, 8))
    assert seen == [torch.bfloat16]
    assert sr.dtype == torch.float32


def test_in_float64_it_computes_in_float64():
    network = Compact(bands=2, scale=2, channels=4, blocks=1, mean=[0.1, 0.2], std=[0.3, 0.4])
    lr = random_image(1, 2, 8, 8)
    single, double = network(lr), network.double()(lr.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)
