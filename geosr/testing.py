"""Oracles for tests of models, readers and writers, in geosr and in the code of its users."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import Tensor, nn

from geosr.grid import TilePlan, Window, scaled, size
from geosr.io.raster import Raster
from geosr.models import Model, ModelSpec, measure_halo
from geosr.models.model import LARGEST_HALO
from geosr.models.noise import TakesNoise
from geosr.models.padding import padded
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


def block_model(scale: int, side: int, *, bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")) -> Model:
    """Model that gives each pixel the mean of its block of ``side`` x ``side`` LR pixels."""
    spec = ModelSpec(name="blocks", architecture="blocks", scale=scale, bands=bands, consistency_mtf=None)
    return Model(spec, _Blocks(scale, side))


class _Blocks(nn.Module):
    def __init__(self, scale: int, side: int) -> None:
        super().__init__()
        self.scale, self.multiple_of = scale, side

    def forward(self, lr: Tensor) -> Tensor:
        means = nn.functional.avg_pool2d(padded(lr, multiple_of=self.multiple_of), self.multiple_of)
        sr = nn.functional.interpolate(means, scale_factor=self.scale * self.multiple_of, mode="nearest")
        return sr[..., : lr.shape[2] * self.scale, : lr.shape[3] * self.scale]


def assert_partition(plan: TilePlan) -> None:
    """Fail unless the plan's cores cover every wanted pixel exactly once, each inside what is read for it."""
    count = np.zeros(plan.shape, int)
    for tile in plan:
        count[tile.core] += 1
        for core, read, n in zip(plan.mirrored(tile.core), plan.mirrored(tile.read), plan.shape, strict=True):
            assert 0 <= read.start <= core.start < core.stop <= read.stop <= n, f"{tile} does not fit {plan}"
            before, after = max(core.start - plan.halo, 0) - read.start, read.stop - min(core.stop + plan.halo, n)
            assert min(before, after) >= 0, f"{tile} is read without its whole halo"
            assert max(before, after) < plan.multiple_of, f"{tile} is read with more than its halo"
            assert read.start % plan.multiple_of == 0, f"{tile} begins inside a block of {plan.multiple_of}"
            assert read.stop % plan.multiple_of == 0 or read.stop == n, f"{tile} ends in a block of {plan.multiple_of}"
    wanted = np.zeros(plan.shape, int)
    wanted[plan.window] = 1
    assert (count == wanted).all(), f"{plan} covers pixels {np.unique(count[plan.window])} times"


def assert_model_contract(
    spec: ModelSpec, network: nn.Module | None = None, *, trust: str | Sequence[str] = ()
) -> None:
    """Fail unless a freshly built model of ``spec`` can be trained, cast, stored and tiled the way that geosr does.

    Args:
        spec: Facts about the model.
        network: Its network, where that is none that ``spec`` describes.
        trust: Modules that may be imported, where ``spec`` names a class of one's own.
    """
    torch.manual_seed(0)
    model = Model(spec, network, trust=trust).eval()
    _assert_shapes(model)
    _assert_reach(model)
    _assert_start(model)
    _assert_low_precision(model)
    _assert_state_is_whole(model, deepcopy(model) if network is not None else Model(spec, trust=trust).eval())
    if model.spec.tiling == "exact":
        assert_tiling_exact(model)
        if isinstance(model.network, TakesNoise):
            assert_tiling_exact(model, seed=0)
    _assert_gradients(model.train())


@torch.inference_mode()
def _assert_shapes(model: Model) -> None:
    bands, scale = len(model.spec.bands), model.spec.scale
    for height, width in ((1, 1), (7, 5), (2, 33)):
        sr = model(_reflectance(2, bands, height, width))
        expected = (2, len(model.spec.outputs), height * scale, width * scale)
        assert sr.shape == expected, f"{height} x {width} became {tuple(sr.shape)}"
        assert sr.dtype == torch.float32, f"reflectance became {sr.dtype}"
        assert torch.isfinite(sr).all(), f"reflectance of {height} x {width} pixels is not finite"


def _assert_reach(model: Model) -> None:
    """The halo covers what the output depends on; a reach that the network declares is exactly that."""
    declared = getattr(model.network, "reach", None)
    if model.spec.tiling == "exact":
        assert model.spec.halo is not None
        measured = measure_halo(model, model.spec, largest=model.spec.halo + 1)
        assert measured is not None, f"the output depends on pixels beyond the halo of {model.spec.halo}"
    if declared is not None and declared <= LARGEST_HALO:
        measured = measure_halo(model.network, model.spec, largest=declared + 1)
        assert measured == declared, f"the network reaches {measured} pixels, not {declared} as it says"


@torch.inference_mode()
def _assert_start(model: Model) -> None:
    """With a skip around the network, training starts near bicubic interpolation."""
    if getattr(model.network, "global_skip", False):
        spec = model.spec
        lr = _reflectance(2, len(spec.bands), 24, 24)
        bicubic = nn.functional.interpolate(
            model.observed(lr), scale_factor=spec.scale * spec.guide_scale, mode="bicubic", align_corners=False
        )
        std = getattr(model.network, "std", torch.ones(1, len(spec.bands), 1, 1))[:, len(spec.guide) :]
        difference = ((model.network(lr) - bicubic) / std).abs().mean()
        assert 0 < difference < 0.25, (
            f"fresh weights differ from bicubic by {float(difference):.2f} standard deviations"
        )


@torch.inference_mode()
def _assert_low_precision(model: Model) -> None:
    lr = _reflectance(1, len(model.spec.bands), 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(lr)
    assert low.dtype == torch.float32, f"under autocast, reflectance became {low.dtype}"
    assert (low - model(lr)).abs().max() < 0.02, "bfloat16 changes the output by more than 2 % reflectance"


@torch.inference_mode()
def _assert_state_is_whole(model: Model, other: Model) -> None:
    """Another network with the same state gives the same output."""
    for value in other.network.state_dict().values():
        value.zero_()
    other.network.load_state_dict(model.network.state_dict())
    lr = _reflectance(1, len(model.spec.bands), 9, 8)
    assert torch.equal(other(lr), model(lr)), "the state dictionary does not hold everything"


def _assert_gradients(model: Model) -> None:
    bands, scale = len(model.spec.bands), model.spec.scale
    lr, hr = _reflectance(2, bands, 24, 24), _reflectance(2, len(model.spec.outputs), 24 * scale, 24 * scale)
    (model(lr) - hr).abs().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.abs().sum() > 0, f"no gradient reaches {name}"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def _reflectance(*shape: int) -> Tensor:
    return 0.1 + 0.2 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def assert_tiling_exact(
    model: Model, *, shape: tuple[int, int] = (61, 47), core: int = 16, seed: int | None = None
) -> None:
    """Fail unless tiles with the model's halo give what the whole image gives, within 1e-5 reflectance.

    The tiles are those of the image, and those of a part of it whose edges lie anywhere.

    Args:
        model: The model.
        shape: Height and width of the image, LR pixels.
        core: Side of a tile's core, LR pixels.
        seed: Of the noise, for a network that takes some; None gives it none.
    """
    assert model.spec.halo is not None

    def noise(read: Window) -> tuple[Tensor, ...]:
        if seed is None:
            return ()
        assert isinstance(model.network, TakesNoise)
        origins = torch.tensor([[part.start for part in read]])
        height, width = size(read)
        return (model.network.noise(seed, origins, height=height, width=width),)

    lr = torch.rand(1, len(model.spec.bands), *shape, generator=torch.Generator().manual_seed(0))
    whole = model(lr, *noise((slice(0, shape[0]), slice(0, shape[1]))))
    scale = model.spec.scale
    plan = TilePlan(shape, core, model.spec.halo, model.spec.multiple_of)
    inside = slice(shape[0] // 3, -(-shape[0] * 2 // 3)), slice(shape[1] // 3, -(-shape[1] * 2 // 3))
    for tile in [*plan, *replace(plan, area=inside)]:
        sr = model(lr[..., *tile.read], *noise(tile.read))
        inner, core_sr = scaled(tile.inner, scale), scaled(tile.core, scale)
        difference = float((sr[..., *inner] - whole[..., *core_sr]).abs().max())
        assert difference <= 1e-5, f"tile {tile.index} of {tile.core} differs from the whole image by {difference:.1e}"
