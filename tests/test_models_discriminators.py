import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.config.names import DISCRIMINATORS
from geosr.config.schema import DiscriminatorSection
from geosr.errors import ConfigError, ModelError
from geosr.models.discriminators import build_discriminator

SMALL = {"base_channels": 4, "linear_size": 8}


def build(kind, *, bands=3, **settings):
    torch.manual_seed(0)
    return build_discriminator(DiscriminatorSection(model_type=kind, **(SMALL | settings)), bands=bands)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ALL = [
    (kind, norm, spectral) for kind in DISCRIMINATORS for norm in ("none", "batch", "instance") for spectral in (0, 1)
]


@pytest.mark.parametrize(("kind", "norm", "spectral"), ALL)
def test_any_size_any_batch_and_every_parameter_learns(kind, norm, spectral):
    network = build(kind, norm=norm, use_spectral_norm=bool(spectral))
    for height, width in ((32, 32), (37, 61)):
        logits = network(normal(1, 3, height, width))
        assert logits.shape[:2] == (1, 1)
        assert torch.isfinite(logits).all()
    F.softplus(network(normal(2, 3, 48, 48))).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, f"no gradient reaches {name}"
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", DISCRIMINATORS)
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands(kind, bands):
    assert build(kind, bands=bands)(normal(2, bands, 32, 32)).shape[:2] == (2, 1)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("srgan", (2, 1)), ("esrgan", (2, 1)), ("patchgan", (2, 1, 14, 10)), ("unet_sn", (2, 1, 128, 96))],
)
def test_what_is_scored(kind, shape):
    assert build(kind)(normal(2, 3, 128, 96)).shape == shape


def test_a_patch_is_of_70_pixels():
    """A logit depends on what the paper says it does."""
    image = normal(1, 3, 160, 160).requires_grad_()
    network = build("patchgan", norm="none")
    (gradient,) = torch.autograd.grad(network(image)[0, 0, 9, 9], image)
    touched = gradient[0].abs().amax(0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [70, 70]


@pytest.mark.parametrize(("layers", "least"), [(1, 6), (2, 12), (4, 48)])
def test_layers_of_patchgan(layers, least):
    network = build("patchgan", n_blocks=layers)
    assert network(normal(1, 3, least, least)).shape == (1, 1, 1, 1)
    with pytest.raises(
        ModelError, match=rf"{least - 1} x 99 pixels and needs {least} x {least}; enlarge Data.patch_size"
    ):
        network(normal(1, 3, least - 1, 99))


@pytest.mark.parametrize(("blocks", "least"), [(1, 2), (6, 16), (8, 32), (10, 64)])
def test_blocks_of_srgan(blocks, least):
    network = build("srgan", n_blocks=blocks)
    assert network(normal(2, 3, least, least)).shape == (2, 1)
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == blocks
    with pytest.raises(ModelError, match=f"needs {least} x {least}"):
        network(normal(2, 3, least, least - 1))


@pytest.mark.parametrize(
    ("kind", "settings", "published"),
    [
        # In all three, less the biases of convolutions before a normalisation, which takes them away.
        ("srgan", {"norm": "batch"}, 23_566_081 - (64 + 2 * 128 + 2 * 256 + 2 * 512)),
        ("patchgan", {"norm": "instance"}, 2_765_761 - (128 + 256 + 512)),
        ("esrgan", {"norm": "batch"}, 29_679_361 - (64 + 2 * 128 + 2 * 256 + 2 * 512 + 2 * 1024)),
        ("unet_sn", {}, 4_376_897 + 64 * 9),  # published for three bands
    ],
)
def test_it_has_as_many_parameters_as_others_count(kind, settings, published):
    section = DiscriminatorSection(model_type=kind, **settings)
    network = build_discriminator(section, bands=4)
    assert sum(parameter.numel() for parameter in network.parameters()) == published


@pytest.mark.parametrize("kind", ["srgan", "patchgan", "esrgan"])
@pytest.mark.parametrize(
    ("norm", "layer"), [("none", None), ("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d)]
)
def test_the_normalisation_is_the_one_asked_for(kind, norm, layer):
    norms = [each for each in build(kind, norm=norm).modules() if isinstance(each, nn.BatchNorm2d | nn.InstanceNorm2d)]
    assert {type(each) for each in norms} == ({layer} if layer else set())


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_spectral_normalisation_limits_the_weights(kind):
    network = build(kind, use_spectral_norm=True, norm="none")
    for _ in range(60):
        network(normal(1, 3, 32, 32))
    plain = {network.first, network.last} if kind == "unet_sn" else set()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        largest = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert (abs(largest - 1) > 0.1) if layer in plain else (abs(largest - 1) < 0.02), layer


def test_without_spectral_normalisation_nothing_is_limited():
    assert not [name for name in build("srgan").state_dict() if "parametrizations" in name]


def test_the_u_net_is_the_published_one():
    network = build("unet_sn").eval()
    image = normal(2, 3, 16, 24)
    inner = [*network.down, *network.up, *network.refine]

    def conv(features, layer, stride=1):
        return F.conv2d(features, layer.weight, layer.bias, stride, 1)

    def leaky(features):
        return torch.where(features > 0, features, 0.2 * features)

    def twice(features):
        return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)

    x0 = leaky(conv(image, network.first))
    x1 = leaky(conv(x0, inner[0], 2))
    x2 = leaky(conv(x1, inner[1], 2))
    x3 = leaky(conv(x2, inner[2], 2))
    x4 = leaky(conv(twice(x3), inner[3])) + x2
    x5 = leaky(conv(twice(x4), inner[4])) + x1
    x6 = leaky(conv(twice(x5), inner[5])) + x0
    expected = conv(leaky(conv(leaky(conv(x6, inner[6])), inner[7])), network.last)
    torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=1e-5)
    assert all(layer.bias is None for layer in inner)


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_in_low_precision_it_says_about_the_same(kind):
    network = build(kind, norm="batch").eval()
    image = normal(2, 3, 48, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = network(image)
    exact = network(image)
    assert (low.float() - exact).abs().max() < 0.1 * exact.abs().max() + 0.05


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_its_state_is_whole(kind):
    one, other = build(kind, use_spectral_norm=True), build(kind, use_spectral_norm=True)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    one(normal(2, 3, 32, 32))
    other.load_state_dict(one.state_dict())
    image = normal(2, 3, 32, 32, seed=1)
    assert torch.equal(one.eval()(image), other.eval()(image))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model_type": "pachgan"}, r"'pachgan' is unknown \(srgan patchgan esrgan unet_sn\); did you mean 'patchgan'"),
        ({"model_type": "esrgan", "n_blocks": 4}, "n_blocks is 4, and esrgan has a fixed number of layers"),
        ({"model_type": "unet_sn", "n_blocks": 4}, "n_blocks is 4, and unet_sn has a fixed number of layers"),
        ({"model_type": "srgan", "n_blocks": 0}, "n_blocks is 0; it must be at least 1"),
        ({"model_type": "patchgan", "norm": "layer"}, r"norm is 'layer'; allowed are none batch instance"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        build_discriminator(DiscriminatorSection(**settings), bands=3)
