"""The loss against TorchGeo's network; small random weights, because the published ones cannot be fetched here."""

import pytest
import torch

from geosr.config.names import SATELLITE_METRICS
from geosr.errors import ConfigError
from geosr.losses.perceptual import SatelliteLoss
from geosr.losses.perceptual.satellite import CHANNELS, NETWORKS

BANDS = ["B8A", "B04", "pan", "B02"]


def images(bands, *, size=40):
    generator = torch.Generator().manual_seed(0)
    hr = 0.4 * torch.rand(2, bands, size, size, generator=generator)
    return hr + 0.05 * torch.randn(hr.shape, generator=generator), hr


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


@torch.no_grad()
def stages(network, image):
    """Output of the four stages of TorchGeo's (timm's) network."""
    image = network.maxpool(network.act1(network.bn1(network.conv1(image))))
    found = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        image = stage(image)
        found.append(image)
    return found


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_it_is_the_distance_of_the_features_of_torchgeos_network(name, tmp_path):
    from torchgeo import models

    torch.manual_seed(4)
    network = getattr(models, name)(in_chans=13, num_classes=0).eval()
    for part in network.modules():  # statistics as if it had learned
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), tmp_path / "network.pth")
    metric = "ssl4eo" if name == "resnet18" else "ssl4eo_resnet50"
    ours = SatelliteLoss(BANDS, network=metric, weights=str(tmp_path / "network.pth"))

    sr, hr = images(4)
    whole = torch.zeros(2, 2, 13, 40, 40)
    for image, placed in zip((sr, hr), whole, strict=True):
        digital = image * 10_000
        placed[:, 8], placed[:, 3], placed[:, 1] = digital[:, 0], digital[:, 1], digital[:, 3]  # B8A, B04 and B02
    normalise = getattr(models, f"ResNet{name[-2:]}_Weights").SENTINEL2_ALL_MOCO.transforms[-1]
    found = [stages(network, normalise(image)) for image in whole]
    expected = sum(float((a - b).abs().mean()) for a, b in zip(*found, strict=True)) / 4
    assert float(ours(sr, hr, everywhere(sr))) == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-3


def test_the_channels_are_torchgeos():
    from torchgeo.models import ResNet18_Weights, ResNet50_Weights

    for known in (ResNet18_Weights, ResNet50_Weights):
        names = [f"B{name[1:].upper():0>2}" for name in known.SENTINEL2_ALL_MOCO.meta["bands"]]
        assert names == list(CHANNELS)


def test_every_metric_of_a_satellite_has_its_network():
    assert tuple(NETWORKS) == SATELLITE_METRICS


def test_every_band_is_seen():
    loss = SatelliteLoss(CHANNELS, network="ssl4eo", weights="random")
    sr, hr = images(13)
    sr.requires_grad_()
    loss(sr, hr, everywhere(hr)).backward()
    assert sr.grad.abs().sum((0, 2, 3)).gt(0).all()


def test_a_band_of_another_sensor_is_not_seen():
    loss = SatelliteLoss(BANDS, network="ssl4eo", weights="random")
    sr, hr = images(4)
    sr.requires_grad_()
    loss(sr, hr, everywhere(hr)).backward()
    assert sr.grad.abs().sum((0, 2, 3)).gt(0).tolist() == [True, True, False, True]


def test_bands_of_which_none_is_known_are_refused():
    with pytest.raises(ConfigError, match=r"ssl4eo looks at B01 B02.*Data\.bands \(red nir\) has none"):
        SatelliteLoss(["red", "nir"], network="ssl4eo", weights="random")
