import pytest
import torch
from metric_kit import images

from geosr.losses.perceptual import DISTSLoss, LPIPSLoss
from geosr.metrics import dists, lpips

BANDS = ["B02", "B03", "B04", "B08"]


@pytest.fixture(scope="module", params=["lpips", "dists"])
def metric_and_network(request):
    if request.param == "lpips":
        return lpips, LPIPSLoss(BANDS, network="alex", weights="random")
    return dists, DISTSLoss(BANDS, weights="random")


def test_it_is_the_mean_of_the_losses_of_patches_that_are_all_valid(metric_and_network):
    metric, network = metric_and_network
    sr, hr = images((2, 4, 64, 150))
    valid = torch.ones(2, 64, 150, dtype=torch.bool)
    valid[1, 5, 70] = False  # the second patch of the second image
    patches = [(0, 0), (0, 64), (1, 0)]
    everywhere = torch.ones(1, 64, 64, dtype=torch.bool)
    expected = [
        network(*(image[[number], :, :, left : left + 64] for image in (sr, hr)), everywhere)
        for number, left in patches
    ]
    assert float(metric(sr, hr, valid, network=network)) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)


def test_equal_images_are_no_distance_apart_and_a_small_one_is_one_patch(metric_and_network):
    metric, network = metric_and_network
    sr, hr = images((1, 4, 40, 36))
    assert float(metric(hr, hr, network=network)) == pytest.approx(0, abs=1e-6)
    everywhere = torch.ones(1, 40, 36, dtype=torch.bool)
    assert float(metric(sr, hr, network=network)) == pytest.approx(float(network(sr, hr, everywhere)), rel=1e-5)
