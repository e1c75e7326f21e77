import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from geosr.config.names import VGG_LAYERS
from geosr.errors import ConfigError, GridError
from geosr.losses.perceptual import VGGLoss
from geosr.losses.perceptual.frozen import MEAN, STD

BANDS = ["B02", "B03", "B04", "B08"]
SHALLOW = {"conv1_2": 0.5, "conv2_1": 2.0}


def images(size=16, *, seed=0, bands=4):
    generator = torch.Generator().manual_seed(seed)
    hr = 0.4 * torch.rand(2, bands, size, size, generator=generator)
    return hr + 0.05 * torch.randn(hr.shape, generator=generator), hr


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


@pytest.fixture(scope="module")
def shallow():
    return VGGLoss(BANDS, layers=SHALLOW, weights="random")


@pytest.fixture(scope="module")
def vgg():
    """Torchvision's VGG19 up to conv3_2, by chance, and the file of its state."""
    torch.manual_seed(3)
    return make_layers(cfgs["E"][:8])


@pytest.fixture
def file(vgg, tmp_path):
    path = tmp_path / "vgg19.pth"
    torch.save({f"features.{name}": value for name, value in vgg.state_dict().items()}, path)
    return path


@torch.no_grad()
def features(vgg, image, white):
    """Output of every convolution, by torchvision's network."""
    rgb = image[:, [2, 1, 0]] / white
    out = (rgb - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    found = []
    for layer in vgg:
        out = layer(out)
        if isinstance(layer, nn.Conv2d):
            found.append(out.clone())  # the activation that follows works in place
    return found


@pytest.mark.parametrize("white", [0.4, 1.0])
def test_it_is_the_distance_of_the_features_of_torchvisions_vgg19(vgg, file, white):
    layers = {"conv1_2": 0.1, "conv2_2": 0.7, "conv3_2": 1.5}
    sr, hr = images()
    of_sr, of_hr = (features(vgg, image, white) for image in (sr, hr))
    expected = sum(
        weight * float((of_sr[number] - of_hr[number]).abs().mean())
        for number, weight in zip((1, 3, 5), layers.values(), strict=True)
    )
    ours = VGGLoss(BANDS, layers=layers, weights=str(file), white=white)
    assert float(ours(sr, hr, everywhere(sr))) == pytest.approx(expected, rel=1e-5)


def test_names_of_layers_are_those_of_the_paper():
    assert len(VGG_LAYERS) == 16
    assert VGG_LAYERS[0] == "conv1_1"
    assert VGG_LAYERS[3] == "conv2_2"
    assert VGG_LAYERS[-1] == "conv5_4"


def test_bands_are_found_by_name(shallow):
    sr, hr = images()
    order = [3, 0, 2, 1]
    other = VGGLoss([BANDS[index] for index in order], layers=SHALLOW, weights="random")
    valid = everywhere(sr)
    assert float(other(sr[:, order], hr[:, order], valid)) == pytest.approx(float(shallow(sr, hr, valid)), rel=1e-6)
    changed = sr.clone()
    changed[:, 3] += 1  # near infrared
    assert shallow(changed, hr, valid) == shallow(sr, hr, valid)


def test_no_more_layers_are_built_than_are_needed():
    ours = VGGLoss(BANDS, layers={"conv2_1": 1.0, "conv5_4": 0.0}, weights="random")
    assert len(ours.network.features) == 3


def test_an_image_that_is_too_small_is_refused():
    ours = VGGLoss(BANDS, layers={"conv3_1": 1.0}, weights="random")
    with pytest.raises(GridError, match=r"3 x 8 pixels.*needs 4 x 4.*patch_size"):
        ours(torch.zeros(1, 4, 3, 8), torch.zeros(1, 4, 3, 8), torch.ones(1, 3, 8, dtype=torch.bool))
    image = torch.zeros(1, 4, 4, 4)
    assert ours(image, image, everywhere(image)) == 0


def test_a_missing_band_is_named():
    with pytest.raises(ConfigError, match=r"lacks B03 B02.*perceptual_weight=0"):
        VGGLoss(["B04", "B08"], layers=SHALLOW, weights="random")


def test_layers_may_be_named_in_any_order():
    sr, hr = images()
    turned = VGGLoss(BANDS, layers=dict(reversed(SHALLOW.items())), weights="random")
    straight = VGGLoss(BANDS, layers=SHALLOW, weights="random")
    assert turned(sr, hr, everywhere(sr)) == straight(sr, hr, everywhere(sr))


def test_an_unknown_layer_is_named():
    with pytest.raises(ConfigError, match="did you mean 'conv3_4'"):
        VGGLoss(BANDS, layers={"conv3_44": 1.0}, weights="random")
    for layers in ({}, {"conv1_1": 0.0}):
        with pytest.raises(ConfigError, match="no layer"):
            VGGLoss(BANDS, layers=layers, weights="random")


def test_features_are_taken_before_the_activation():
    ours = VGGLoss(BANDS, layers={"conv1_1": 1.0}, weights="random")
    sr, hr = images()
    seen = (
        ((image[:, [2, 1, 0]] / 0.4) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        for image in (sr, hr)
    )
    of_sr, of_hr = (F.conv2d(image, ours.network.features["0"].weight, padding=1) for image in seen)
    assert float(ours(sr, hr, everywhere(sr))) == pytest.approx(float((of_sr - of_hr).abs().mean()), rel=1e-5)
    assert (of_sr < 0).any()
