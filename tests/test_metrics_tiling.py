import numpy as np
import pytest
import torch
from metric_kit import danube

from geosr.metrics import seams
from geosr.models import load_model


def checkers(height, width, period):
    """1 on every other tile."""
    return ((torch.arange(height) // period)[:, None] + torch.arange(width) // period) % 2


def oracle(image, period):
    """The ratio, pixel by pixel."""
    image = image[0].double().numpy()
    logs = []
    for one in (image, image.swapaxes(-1, -2)):
        energy = {
            row: np.log((np.diff(one[:, row - 1 : row + 2], 2, axis=1)[:, 0] ** 2).mean(0) + 1e-8)
            for row in range(1, one.shape[1] - 1)
        }
        for border in range(period, one.shape[1], period):
            for row in (border - 1, border):
                for other in (row - 16, row - 8, row + 8, row + 16):
                    if row in energy and other in energy:
                        logs.append(energy[row] - energy[other])
    return np.exp(np.concatenate(logs).mean())


def test_it_is_that_of_the_definition():
    image = torch.rand(1, 3, 70, 97, generator=torch.Generator().manual_seed(0))
    assert float(seams(image, period=32)) == pytest.approx(oracle(image, 32), rel=1e-5)


@pytest.mark.parametrize("period", [32, 48])
def test_a_step_of_one_thousandth_shows_on_smooth_ground(period):
    ramp = (
        0.1
        + torch.linspace(0, 0.05, 128)
        + 1e-4 * torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    )
    assert float(seams(ramp, period=period)) == pytest.approx(1, abs=0.1)
    assert float(seams(ramp + 1e-3 * checkers(128, 128, period), period=period)) > 5


def test_tiles_with_too_narrow_a_halo_show_and_a_whole_image_does_not(shared_data):
    model, scene = load_model("s2-rgbn-x2"), danube(shared_data, 128)
    with torch.inference_mode():
        whole = model(scene)
        tiles = [
            [model(scene[..., row : row + 32, column : column + 32]) for column in (0, 32, 64, 96)]
            for row in (0, 32, 64, 96)
        ]
    tiled = torch.cat([torch.cat(row, dim=-1) for row in tiles], dim=-2)
    assert 0.75 < float(seams(whole, period=64)) < 1.25
    assert float(seams(tiled, period=64)) > 1.5


def test_a_border_that_is_not_valid_does_not_count():
    image = 1e-3 * checkers(96, 64, 64) + 1e-4 * torch.randn(1, 2, 96, 64, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, 96, 64, dtype=torch.bool)
    valid[:, 63:65, :60] = False
    few = seams(image, valid, period=64)
    assert few > 2
    valid[:, 63:65] = False
    assert seams(image, valid, period=64).isnan()


def test_without_a_border_there_is_no_figure():
    assert seams(torch.rand(1, 2, 64, 64), period=64).isnan()


def test_a_period_without_room_beside_a_border_is_refused():
    with pytest.raises(ValueError, match="period of seams is 31 pixels; it must be at least 32"):
        seams(torch.rand(1, 2, 64, 64), period=31)
