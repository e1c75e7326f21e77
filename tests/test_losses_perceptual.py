import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from geosr.config.names import VGG_LAYERS
from geosr.errors import ConfigError, GridError
from geosr.losses import Perceptual
from geosr.losses.perceptual import MEAN, STD, URL

BANDS = ["B02", "B03", "B04", "B08"]
SHALLOW = {"conv1_2": 0.5, "conv2_1": 2.0}


def images(size=16, *, seed=0, bands=4):
    generator = torch.Generator().manual_seed(seed)
    hr = 0.4 * torch.rand(2, bands, size, size, generator=generator)
    return hr + 0.05 * torch.randn(hr.shape, generator=generator), hr


def mask(size=16):
    return torch.rand(2, size, size, generator=torch.Generator().manual_seed(9)) < 0.8


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


@pytest.fixture(scope="module")
def shallow():
    return Perceptual(BANDS, layers=SHALLOW, weights="random")


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
    ours = Perceptual(BANDS, layers=layers, weights=str(file), white=white)
    assert float(ours(sr, hr, everywhere(sr))) == pytest.approx(expected, rel=1e-5)


def test_names_of_layers_are_those_of_the_paper():
    assert len(VGG_LAYERS) == 16
    assert VGG_LAYERS[0] == "conv1_1"
    assert VGG_LAYERS[3] == "conv2_2"
    assert VGG_LAYERS[-1] == "conv5_4"


def test_bands_are_found_by_name(shallow):
    sr, hr = images()
    order = [3, 0, 2, 1]
    other = Perceptual([BANDS[index] for index in order], layers=SHALLOW, weights="random")
    valid = everywhere(sr)
    assert float(other(sr[:, order], hr[:, order], valid)) == pytest.approx(float(shallow(sr, hr, valid)), rel=1e-6)
    changed = sr.clone()
    changed[:, 3] += 1  # near infrared
    assert shallow(changed, hr, valid) == shallow(sr, hr, valid)


def test_random_weights_are_the_same_every_time_and_draw_no_global_numbers(shallow):
    state = torch.get_rng_state()
    again = Perceptual(BANDS, layers=SHALLOW, weights="random")
    assert torch.equal(torch.get_rng_state(), state)
    sr, hr = images()
    assert again(sr, hr, everywhere(sr)) == shallow(sr, hr, everywhere(sr))
    assert shallow(sr, hr, everywhere(sr)) > 0.01


def test_the_image_gets_a_gradient_and_the_network_none(shallow):
    sr, hr = images()
    sr.requires_grad_()
    hr.requires_grad_()
    shallow(sr, hr, everywhere(hr)).backward()
    assert sr.grad[:, :3].ne(0).float().mean() > 0.9
    assert not sr.grad[:, 3].any()
    assert hr.grad is None
    (network,) = shallow._network
    assert all(not one.requires_grad and one.grad is None for one in network.parameters())


@pytest.mark.parametrize("stored", [0.0, -5.0, 1e9, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_neither_loss_nor_gradient(shallow, stored):
    (sr, hr), valid = images(), mask()
    results = []
    for value in (0.1, stored):
        for image in (sr, hr):
            image.movedim(1, -1)[~valid] = value
        leaf = sr.clone().requires_grad_()
        loss = shallow(leaf, hr, valid)
        loss.backward()
        results.append((loss.item(), leaf.grad))
    assert results[0][0] == results[1][0] > 0
    assert torch.equal(results[0][1], results[1][1])
    assert not results[1][1].movedim(1, -1)[~valid].any()


def test_it_is_in_no_state_and_among_no_parameters(shallow):
    holder = nn.Sequential(shallow, nn.Linear(2, 2))
    assert set(holder.state_dict()) == {"1.weight", "1.bias"}
    assert len(list(holder.parameters())) == 2
    holder.load_state_dict(nn.Sequential(nn.Identity(), nn.Linear(2, 2)).state_dict())


def test_it_follows_its_module_to_another_device_or_type(shallow):
    holder = nn.Sequential(copy.deepcopy(shallow)).to("meta", torch.float64)
    image = torch.zeros(1, 4, 16, 16, device="meta", dtype=torch.float64)
    assert holder[0](image, image, everywhere(image)).device.type == "meta"
    assert holder[0]._network[0].convolutions[0].weight.dtype == torch.float64
    assert shallow._network[0].convolutions[0].weight.dtype == torch.float32


def test_under_autocast_it_is_nearly_the_same(shallow):
    sr, hr = images()
    sr.requires_grad_()
    plain = shallow(sr, hr, everywhere(hr))
    with torch.autocast("cpu", torch.bfloat16):
        loss = shallow(sr, hr, everywhere(hr))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain.item(), rel=0.05)
    assert sr.grad.isfinite().all()


def test_no_more_layers_are_built_than_are_needed():
    ours = Perceptual(BANDS, layers={"conv2_1": 1.0, "conv5_4": 0.0}, weights="random")
    assert len(ours._network[0].convolutions) == 3


def test_an_image_that_is_too_small_is_refused():
    ours = Perceptual(BANDS, layers={"conv3_1": 1.0}, weights="random")
    with pytest.raises(GridError, match=r"3 x 8 pixels.*needs 4 x 4.*patch_size"):
        ours(torch.zeros(1, 4, 3, 8), torch.zeros(1, 4, 3, 8), torch.ones(1, 3, 8, dtype=torch.bool))
    image = torch.zeros(1, 4, 4, 4)
    assert ours(image, image, everywhere(image)) == 0


def test_a_missing_band_is_named():
    with pytest.raises(ConfigError, match=r"lacks B03 B02.*perceptual_weight=0"):
        Perceptual(["B04", "B08"], layers=SHALLOW, weights="random")


def test_an_unknown_layer_is_named():
    with pytest.raises(ConfigError, match="did you mean 'conv3_4'"):
        Perceptual(BANDS, layers={"conv3_44": 1.0}, weights="random")
    for layers in ({}, {"conv1_1": 0.0}):
        with pytest.raises(ConfigError, match="no layer"):
            Perceptual(BANDS, layers=layers, weights="random")


def test_a_file_that_is_absent_or_of_something_else_is_refused(tmp_path, file):
    with pytest.raises(ConfigError, match="neither imagenet nor random"):
        Perceptual(BANDS, layers=SHALLOW, weights=str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match=r"'features[.]14' is missing or has another shape"):  # the file ends before
        Perceptual(BANDS, layers={"conv3_3": 1.0}, weights=str(file))
    torch.save({"features.0.weight": torch.zeros(3), "features.0.bias": torch.zeros(64)}, file)
    with pytest.raises(ConfigError, match=r"'features.0'"):
        Perceptual(BANDS, layers=SHALLOW, weights=str(file))
    torch.save([1, 2], file)
    with pytest.raises(ConfigError, match="not those of torchvision's VGG19"):
        Perceptual(BANDS, layers=SHALLOW, weights=str(file))


def test_imagenets_weights_come_from_torchs_cache_or_the_network(monkeypatch, tmp_path, vgg, caplog):
    asked = []

    def fetch(url, **options):
        asked.append((url, options["weights_only"], options["check_hash"]))
        return {f"features.{name}": value for name, value in vgg.state_dict().items()}

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    with caplog.at_level("INFO", "geosr"):
        ours = Perceptual(BANDS, layers=SHALLOW)
    assert asked == [(URL, True, True)]
    assert "548 MB" in caplog.text
    assert torch.equal(ours._network[0].convolutions[0].weight, vgg[0].weight)


def test_the_address_is_torchvisions():
    from torchvision.models import VGG19_Weights

    assert VGG19_Weights.IMAGENET1K_V1.url == URL


@pytest.mark.parametrize("problem", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failed_download_says_how_to_get_the_weights(monkeypatch, problem):
    def fail(url, **options):
        raise problem

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ConfigError) as caught:
        Perceptual(BANDS, layers=SHALLOW)
    assert str(problem) in str(caught.value)
    assert f"curl -O {URL}" in str(caught.value)
    assert "Training.Losses.perceptual_weights=PATH" in str(caught.value)


def test_features_are_taken_before_the_activation():
    ours = Perceptual(BANDS, layers={"conv1_1": 1.0}, weights="random")
    (network,) = ours._network
    sr, hr = images()
    seen = (
        ((image[:, [2, 1, 0]] / 0.4) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        for image in (sr, hr)
    )
    of_sr, of_hr = (F.conv2d(image, network.convolutions[0].weight, padding=1) for image in seen)
    assert float(ours(sr, hr, everywhere(sr))) == pytest.approx(float((of_sr - of_hr).abs().mean()), rel=1e-5)
    assert (of_sr < 0).any()
