"""Images for tests of metrics."""

import rasterio
import torch


def images(shape=(2, 4, 24, 20), *, seed=0, noise=0.02):
    """SR and HR reflectance that differ a little."""
    generator = torch.Generator().manual_seed(seed)
    hr = 0.05 + 0.4 * torch.rand(shape, generator=generator)
    return hr + noise * torch.randn(shape, generator=generator), hr


def mask(shape=(2, 24, 20), seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7


def patchy():
    """A mask with a column, a block and the last row missing, which leaves whole windows."""
    valid = torch.ones(2, 24, 20, dtype=torch.bool)
    valid[0, :, 0] = valid[0, 0:2, 15:] = valid[1, -1] = False
    return valid


def danube(shared_data, side=256):
    """Reflectance of a real Sentinel-2 scene (1, band, y, x)."""
    with rasterio.open(shared_data / "s2" / "danube_a_10m.tif") as file:
        return torch.from_numpy(file.read()[:, :side, :side] / 1e4).float()[None]
