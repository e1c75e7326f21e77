"""LPIPS against torchmetrics', which has another program for it; small random weights in the network of both."""

import pytest
import torch
from torchmetrics.functional.image.lpips import _LPIPS, ScalingLayer

from geosr.losses.perceptual import LPIPSLoss
from geosr.losses.perceptual.lpips import HEADS
from geosr.losses.perceptual.weights import packaged

BANDS = ["B04", "B03", "B02"]


def images(white):
    generator = torch.Generator().manual_seed(0)
    hr = white * torch.rand(2, 3, 40, 36, generator=generator)
    return hr + 0.1 * white * torch.randn(hr.shape, generator=generator), hr


def theirs(network, ours):
    """Torchmetrics' LPIPS with the weights of ours; it is not built where its own would be drawn, or fetched."""
    with torch.device("meta"):
        made = _LPIPS(pretrained=False, net=network, pnet_rand=True)
    made.scaling_layer = ScalingLayer()
    state = dict(packaged(HEADS.format(network)))
    for name in made.state_dict():
        if name.startswith("net."):
            state[name] = ours.network.state_dict()["features." + name.split(".", 2)[2]]
        elif name.startswith("lins."):  # the same again
            number, rest = name.split(".", 2)[1:]
            state[name] = state[f"lin{number}.{rest}"]
    made.load_state_dict(state, assign=True)
    return made.eval()


@pytest.mark.parametrize("white", [0.4, 1.0])
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_it_is_that_of_torchmetrics(network, white):
    ours = LPIPSLoss(BANDS, network=network, weights="random", white=white)
    sr, hr = images(white)
    with torch.no_grad():
        expected = theirs(network, ours)(sr / white, hr / white, normalize=True).mean()
    valid = torch.ones(2, 40, 36, dtype=torch.bool)
    assert float(ours(sr, hr, valid)) == pytest.approx(float(expected), rel=1e-4)
    assert float(expected) > 1e-3
