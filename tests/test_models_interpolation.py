import numpy as np
import pytest
import torch

from geosr.models import Model, ModelSpec
from geosr.models.interpolation import Interpolation
from geosr.testing import assert_tiling_exact


def keys_cubic(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def bicubic_oracle(line, scale):
    """Cubic convolution (R. G. Keys, 1981) of a line whose end values continue, pixel centres at half integers."""
    fine = []
    for pixel in range(len(line) * scale):
        position = (pixel + 0.5) / scale - 0.5
        taps = range(int(np.floor(position)) - 1, int(np.floor(position)) + 3)
        fine.append(sum(keys_cubic(position - tap) * line[min(max(tap, 0), len(line) - 1)] for tap in taps))
    return np.array(fine)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_keys_cubic_convolution(scale):
    lr = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = np.stack([bicubic_oracle(line, scale) for line in lr[0, 0].numpy().T], axis=1)
    expected = np.stack([bicubic_oracle(line, scale) for line in rows])
    np.testing.assert_allclose(Interpolation(bands=1, scale=scale)(lr)[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3])
def test_nearest_repeats_each_pixel(scale):
    lr = torch.rand(1, 2, 3, 4)
    sr = Interpolation(bands=2, scale=scale, mode="nearest")(lr)
    torch.testing.assert_close(sr, lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3), atol=0, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_with_a_consistency_layer_it_is_tiled_exactly(scale):
    model = Model(ModelSpec("back-projection", "interpolation", scale, ("B02", "B03")))
    assert_tiling_exact(model)
