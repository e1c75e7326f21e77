import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geosr.config.names import DISCRIMINATORS, NORMS
from geosr.config.schema import DiscriminatorSection
from geosr.errors import ConfigError, ModelError
from geosr.models.discriminators import NETWORKS, build_discriminator
from geosr.models.discriminators.multiscale import halved

SMALL = {"base_channels": 4, "linear_size": 8}


def build(kind, *, bands=3, **settings):
    torch.manual_seed(0)
    if kind == "multiscale":  # two PatchGANs that look at images as small as the others can
        settings = {"n_blocks": 2, "n_scales": 2} | settings
    return build_discriminator(DiscriminatorSection(model_type=kind, **(SMALL | settings)), bands=bands)


def scores(network, image):
    """All scores of each image (batch, score)."""
    return torch.cat([each.flatten(1) for each in network(image).scores], 1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ALL = [(kind, norm, spectral) for kind in DISCRIMINATORS for norm in NORMS for spectral in (False, True)]


@pytest.mark.parametrize(("kind", "norm", "spectral"), ALL)
def test_any_size_any_batch_and_every_parameter_learns(kind, norm, spectral):
    network = build(kind, norm=norm, use_spectral_norm=spectral)
    for height, width in ((32, 32), (37, 61)):
        for logits in network(normal(1, 3, height, width)).scores:
            assert logits.shape[:2] == (1, 1)
            assert torch.isfinite(logits).all()
    F.softplus(scores(network, normal(2, 3, 48, 48))).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, f"no gradient reaches {name}"
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", DISCRIMINATORS)
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands(kind, bands):
    assert scores(build(kind, bands=bands), normal(2, bands, 32, 32)).shape[0] == 2


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_beside_lr_there_are_twice_as_many_bands(kind):
    network = build(kind, bands=4, conditional=True)
    assert network.bands == 8
    assert scores(network, normal(2, 8, 32, 32)).shape[0] == 2


def test_every_name_is_a_network():
    assert tuple(NETWORKS) == DISCRIMINATORS


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("srgan", (2, 1)), ("esrgan", (2, 1)), ("patchgan", (2, 1, 14, 10)), ("unet_sn", (2, 1, 128, 96))],
)
def test_what_is_scored(kind, shape):
    assert [each.shape for each in build(kind)(normal(2, 3, 128, 96)).scores] == [shape]


# (channels, pixels along y) of each feature, from the papers' figures, for 4 channels and 64 pixels
FEATURES = {
    "srgan": [(4, 64), (4, 32), (8, 32), (8, 16), (16, 16), (16, 8), (32, 8), (32, 4)],
    "patchgan": [(4, 32), (8, 16), (16, 8), (32, 7)],
    "esrgan": [(4, 64), (4, 33), (8, 33), (8, 17), (16, 17), (16, 9), (32, 9), (32, 5), (64, 5), (64, 3)],
    "unet_sn": [(4, 64), (8, 32), (16, 16), (32, 8), (16, 16), (8, 32), (4, 64), (4, 64), (4, 64)],
    "multiscale": [(4, 32), (8, 16), (16, 15), (4, 16), (8, 8), (16, 7)],
}


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_features_are_those_of_every_convolution(kind):
    network, image = build(kind), normal(2, 3, 64, 48).requires_grad_()
    look = network(image, with_features=True)
    assert [feature.shape[1:3] for feature in look.features] == FEATURES[kind]
    assert network(image).features == ()
    for feature in look.features:
        (gradient,) = torch.autograd.grad(feature.sum(), image, retain_graph=True)
        assert gradient.any()


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_features_are_what_the_scores_are_made_of(kind):
    network = build(kind).eval()
    look = network(normal(2, 3, 64, 48), with_features=True)
    gradients = torch.autograd.grad(sum(each.sum() for each in look.scores), look.features)
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("kind", ["srgan", "unet_sn", "multiscale"])
def test_it_is_compiled_in_one_piece(kind):
    torch.compiler.reset()
    network, image = build(kind).eval(), normal(2, 3, 40, 48)
    expected = network(image, with_features=True)
    network.compile(backend="eager", fullgraph=True)
    look = network(image, with_features=True)
    torch.testing.assert_close([*look.scores, *look.features], [*expected.scores, *expected.features])


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_several_scales_are_their_parts_run_by_hand(scales):
    network, image = build("multiscale", n_scales=scales), normal(2, 3, 64, 50)
    levels = [image.numpy()]
    for _ in range(scales - 1):
        levels.append(mean_of_neighbours(levels[-1]))
    look, expected = network(image, with_features=True), []
    for part, level in zip(network.parts, levels, strict=True):
        expected.append(part(torch.from_numpy(level), with_features=True))
    assert len(look.scores) == scales
    torch.testing.assert_close(list(look.scores), [one.scores[0] for one in expected])
    torch.testing.assert_close(list(look.features), [feature for one in expected for feature in one.features])


def mean_of_neighbours(image):
    """Every other pixel, as the mean of it and its neighbours inside the image."""
    rows, columns = image.shape[2:]
    means = [
        [
            image[:, :, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((2, 3), dtype=np.float64)
            for x in range(0, columns, 2)
        ]
        for y in range(0, rows, 2)
    ]
    return np.moveaxis(np.array(means), (0, 1), (2, 3)).astype(np.float32)


@pytest.mark.parametrize(("size", "half"), [((8, 10), (4, 5)), ((7, 11), (4, 6)), ((1, 2), (1, 1))])
def test_half_an_image_is_rounded_up(size, half):
    assert halved(torch.ones(1, 2, *size)).shape[-2:] == half
    torch.testing.assert_close(halved(torch.full((1, 2, *size), 0.3)), torch.full((1, 2, *half), 0.3))


def test_a_coarser_scale_sees_twice_as_far():
    network, image = build("multiscale", norm="none", n_blocks=3, n_scales=2), normal(1, 3, 320, 320).requires_grad_()
    for score, reach in zip(network(image).scores, (70, 70 * 2 + 1), strict=True):  # the mean of 3 adds one to twice 70
        (gradient,) = torch.autograd.grad(score[0, 0, 9, 9], image, retain_graph=True)
        touched = gradient[0].abs().amax(0).nonzero()
        assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [reach, reach]


@pytest.mark.parametrize(("layers", "scales", "least"), [(1, 2, 11), (2, 2, 23), (3, 3, 93)])
def test_scales_of_multiscale(layers, scales, least):
    network = build("multiscale", n_blocks=layers, n_scales=scales)
    assert network(normal(1, 3, least, least)).scores[-1].shape == (1, 1, 1, 1)
    with pytest.raises(
        ModelError, match=rf"'multiscale' .* {least} x {least - 1} pixels .* lower .*n_blocks or n_scales"
    ):
        network(normal(1, 3, least, least - 1))


def test_a_patch_is_of_70_pixels():
    """A logit depends on what the paper says it does."""
    image = normal(1, 3, 160, 160).requires_grad_()
    network = build("patchgan", norm="none")
    (gradient,) = torch.autograd.grad(network(image).scores[0][0, 0, 9, 9], image)
    touched = gradient[0].abs().amax(0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [70, 70]


@pytest.mark.parametrize(("layers", "least"), [(1, 6), (2, 12), (4, 48)])
def test_layers_of_patchgan(layers, least):
    network = build("patchgan", n_blocks=layers)
    assert network(normal(1, 3, least, least)).scores[0].shape == (1, 1, 1, 1)
    with pytest.raises(
        ModelError, match=rf"{least - 1} x 99 pixels and needs {least} x {least}; enlarge Data.patch_size"
    ):
        network(normal(1, 3, least - 1, 99))


@pytest.mark.parametrize(("blocks", "least"), [(1, 2), (6, 16), (8, 32), (10, 64)])
def test_blocks_of_srgan(blocks, least):
    network = build("srgan", n_blocks=blocks)
    assert network(normal(2, 3, least, least)).scores[0].shape == (2, 1)
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == blocks
    with pytest.raises(ModelError, match=f"needs {least} x {least}"):
        network(normal(2, 3, least, least - 1))


@pytest.mark.parametrize(
    ("kind", "settings", "published"),
    [
        # In the first three, less the biases of convolutions before a normalisation, which takes them away.
        ("srgan", {}, 23_566_081 - (64 + 2 * 128 + 2 * 256 + 2 * 512)),
        ("patchgan", {}, 2_765_761 - (128 + 256 + 512)),
        ("esrgan", {}, 29_679_361 - (64 + 2 * 128 + 2 * 256 + 2 * 512 + 2 * 1024)),
        ("unet_sn", {}, 4_376_897 + 64 * 9),  # published for three bands
        ("multiscale", {}, 3 * (2_765_761 - (128 + 256 + 512))),
        ("multiscale", {"n_scales": 2, "conditional": True}, 2 * (2_765_761 - (128 + 256 + 512) + 4 * 64 * 16)),
    ],
)
def test_it_has_as_many_parameters_as_others_count(kind, settings, published):
    section = DiscriminatorSection(model_type=kind, **settings)
    network = build_discriminator(section, bands=4)
    assert sum(parameter.numel() for parameter in network.parameters()) == published


PUBLISHED = {"srgan": "batch", "patchgan": "instance", "esrgan": "batch", "unet_sn": "none", "multiscale": "instance"}


@pytest.mark.parametrize("kind", DISCRIMINATORS)
@pytest.mark.parametrize("norm", [None, *NORMS])
def test_the_normalisation_is_the_one_asked_for_or_the_published_one(kind, norm):
    norms = [each for each in build(kind, norm=norm).modules() if isinstance(each, nn.BatchNorm2d | nn.InstanceNorm2d)]
    layer = {"none": None, "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}[norm or PUBLISHED[kind]]
    assert {type(each) for each in norms} == ({layer} if layer else set())


def largest_singular_values(network):
    """Of each layer's weight as a matrix of one row for each output channel."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return {
        name: np.linalg.svd(layer.weight.detach().numpy().reshape(len(layer.weight), -1), compute_uv=False)[0]
        for name, layer in layers.items()
    }


@pytest.mark.parametrize("kind", DISCRIMINATORS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_spectral_normalisation_limits_the_weights(kind, norm):
    network = build(kind, use_spectral_norm=True, norm=norm)
    for _ in range(60):
        network(normal(2, 3, 32, 32))
    plain = {"first", "last"} if kind == "unet_sn" else set()  # as published
    for name, largest in largest_singular_values(network).items():
        assert (abs(largest - 1) > 0.1) if name in plain else (abs(largest - 1) < 0.02), name


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_without_spectral_normalisation_nothing_is_limited(kind):
    network = build(kind, use_spectral_norm=False)
    assert not [name for name in network.state_dict() if "parametrizations" in name]
    assert max(largest_singular_values(network).values()) > 1.1


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_only_the_u_net_has_spectral_normalisation_of_itself(kind):
    limited = any("parametrizations" in name for name in build(kind).state_dict())
    assert limited == (kind == "unet_sn")


def test_the_u_net_is_the_published_one():
    network = build("unet_sn").eval()
    image = normal(2, 3, 16, 24)
    inner = [*network.down, *network.up, *network.refine]

    def conv(features, layer, stride=1):
        return F.conv2d(features, layer.weight, layer.bias, stride, 1)

    inner = [next(iter(part)) for part in inner]

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
    torch.testing.assert_close(network(image).scores[0], expected, atol=1e-5, rtol=1e-5)
    assert all(layer.bias is None for layer in inner)


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_in_low_precision_it_says_about_the_same(kind):
    network = build(kind, norm="batch").eval()
    image = normal(2, 3, 48, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = scores(network, image)
    exact = scores(network, image)
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
    assert torch.equal(scores(one.eval(), image), scores(other.eval(), image))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"model_type": "pachgan"},
            r"'pachgan' is unknown \(srgan patchgan esrgan unet_sn multiscale\); did you mean 'patchgan'",
        ),
        ({"model_type": "esrgan", "n_blocks": 4}, "n_blocks is 4, and esrgan has a fixed number of layers"),
        ({"model_type": "unet_sn", "n_blocks": 4}, "n_blocks is 4, and unet_sn has a fixed number of layers"),
        ({"model_type": "srgan", "n_blocks": 0}, "n_blocks is 0; it must be at least 1"),
        ({"model_type": "patchgan", "norm": "layer"}, r"norm is 'layer'; allowed are none batch instance, or null"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        build_discriminator(DiscriminatorSection(**settings), bands=3)


PREDICT = """
import sys
from geosr.cli import main
sys.argv = ["geosr", "predict", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in sys.modules if name.startswith(("geosr.models.discriminators", "geosr.training"))])
"""


def test_a_prediction_never_builds_one(make_raster, tmp_path):
    scene = make_raster(np.full((4, 12, 12), 1000, np.uint16), descriptions=("B02", "B03", "B04", "B08"))
    arguments = [scene, "-o", tmp_path / "sr.tif", "--model", "s2-rgbn-x2", "--scale", "1e-4", "--nodata", "0", "-q"]
    done = subprocess.run([sys.executable, "-c", PREDICT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sr.tif").is_file()
    assert done.stdout.splitlines()[-1] == "[]"
