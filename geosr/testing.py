"""Oracles for tests of models, readers and writers, in geosr and in the code of its users."""

import numpy as np
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import Tensor, nn

from geosr.grid import TilePlan, scaled
from geosr.io.raster import Raster
from geosr.models import Model, ModelSpec
from geosr.radiometry import Radiometry


def coordinate_raster(height: int, width: int, *, pixel: float = 10.0) -> Raster:
    """Raster whose two bands hold the row and the column of each pixel: any misregistration shows in the numbers."""
    array = np.indices((height, width), dtype=np.float32)
    geobox = GeoBox((height, width), Affine(pixel, 0, 400_000, 0, -pixel, 5_000_000), "EPSG:32633")
    radiometry = Radiometry(scale=1.0, dtype="uint16")
    return Raster(array, np.ones((height, width), bool), geobox, ("row", "column"), radiometry)


def impulse_model(scale: int, reach: int, *, bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")) -> Model:
    """Model that adds up the ``2 reach + 1`` x ``2 reach + 1`` LR pixels around each pixel, with unequal weights."""
    spec = ModelSpec(name="impulse", architecture="impulse", scale=scale, bands=bands, consistency_mtf=None)
    return Model(spec, _Impulse(scale, reach))


class _Impulse(nn.Module):
    weight: Tensor

    def __init__(self, scale: int, reach: int) -> None:
        super().__init__()
        self.scale, self.reach = scale, reach
        weight = torch.linspace(1, 2, (2 * reach + 1) ** 2).view(1, 1, 2 * reach + 1, 2 * reach + 1)
        self.register_buffer("weight", weight / weight.sum())

    def forward(self, lr: Tensor) -> Tensor:
        weight = self.weight.to(lr.dtype).expand(lr.shape[1], -1, -1, -1)
        mean = nn.functional.conv2d(lr, weight, padding=self.reach, groups=lr.shape[1])
        return nn.functional.interpolate(mean, scale_factor=self.scale, mode="nearest")


def assert_partition(plan: TilePlan) -> None:
    """Fail unless the plan's cores cover every pixel of the scene exactly once, each inside what is read for it."""
    count = np.zeros(plan.shape, int)
    for tile in plan:
        count[tile.core] += 1
        for core, read, n in zip(tile.core, tile.read, plan.shape, strict=True):
            assert 0 <= read.start <= core.start < core.stop <= read.stop <= n, f"{tile} does not fit {plan}"
            assert read.start == max(core.start - plan.halo, 0), f"{tile} is read without its whole halo"
            assert read.stop == min(core.stop + plan.halo, n), f"{tile} is read without its whole halo"
    assert (count == 1).all(), f"{plan} covers pixels {np.unique(count)} times"


def assert_model_contract(spec: ModelSpec) -> None:
    """Fail unless a freshly built model of ``spec`` can be trained, cast and tiled the way that geosr does."""
    torch.manual_seed(0)
    model = Model(spec)
    bands, scale = len(spec.bands), spec.scale
    for height, width in ((1, 1), (7, 5), (2, 33)):
        lr = 0.1 + 0.2 * torch.rand(2, bands, height, width)
        sr = model(lr)
        assert sr.shape == (2, bands, height * scale, width * scale), f"{height} x {width} became {tuple(sr.shape)}"
        assert sr.dtype == torch.float32
        assert torch.isfinite(sr).all()
    lr = 0.1 + 0.2 * torch.rand(1, bands, 24, 24)
    hr = 0.1 + 0.2 * torch.rand(1, bands, 24 * scale, 24 * scale)
    (model(lr) - hr).abs().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.abs().sum() > 0, f"no gradient reaches {name}"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        low = model(lr)
    assert (low - model(lr)).abs().max() < 0.02, "bfloat16 changes the output by more than 2 % reflectance"
    assert_tiling_exact(model)


@torch.inference_mode()
def assert_tiling_exact(model: Model, *, shape: tuple[int, int] = (61, 47), core: int = 16) -> None:
    """Fail unless tiles with the model's halo give what the whole image gives, within 1e-5 reflectance."""
    assert model.spec.halo is not None
    lr = torch.rand(1, len(model.spec.bands), *shape, generator=torch.Generator().manual_seed(0))
    whole = model(lr)
    scale = model.spec.scale
    for tile in TilePlan(shape, core, model.spec.halo):
        sr = model(lr[..., *tile.read])
        inner, core_sr = scaled(tile.inner, scale), scaled(tile.core, scale)
        difference = float((sr[..., *inner] - whole[..., *core_sr]).abs().max())
        assert difference <= 1e-5, f"tile {tile.index} differs from the whole image by {difference:.1e}"
