from dataclasses import fields

import pytest
import torch

from geosr.config.degradation import PRESETS, DegradationSection, HighOrderSection
from geosr.degrade import build_degradation
from geosr.degrade.high_order import HighOrder
from geosr.errors import ConfigError

RGBN = ("B02", "B03", "B04", "B08")
REAL_ESRGAN = {
    "blur_kernel_size": 21,
    "kernel_list": ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"],
    "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
    "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "blur_kernel_size2": 21,
    "kernel_list2": ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"],
    "kernel_prob2": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
    "sinc_prob2": 0.1,
    "blur_sigma2": [0.2, 1.5],
    "betag_range2": [0.5, 4],
    "betap_range2": [1, 2],
    "final_sinc_prob": 0.8,
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
}
"""The options file of x4plus, as its authors published it."""


def build(scale=4, **settings):
    section = DegradationSection(type="high_order", high_order=HighOrderSection(**settings))
    return build_degradation(section, scale=scale, bands=RGBN)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scenes(batch, side=64):
    coarse = torch.rand(batch, 4, side // 8, side // 8, generator=seeded(3)) * 0.4
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)


def quiet():
    """Settings that leave nothing but what a test sets."""
    still = {"resize_prob": [0, 0, 1], "noise_range": [0, 0], "gaussian_noise_prob": 1.0, "compression": "none"}
    return {
        **still,
        **{f"{key}2": value for key, value in still.items()},
        "second_blur_prob": 0.0,
        "final_sinc_prob": 0.0,
        "quantise": False,
    }


def test_the_preset_is_what_real_esrgan_published():
    for key, value in REAL_ESRGAN.items():
        assert PRESETS["real-esrgan"][key] == value, key


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_a_value_for_every_key(preset):
    keys = {entry.name for entry in fields(HighOrderSection)} - {"preset"}
    assert PRESETS[preset].keys() == keys


def test_a_key_that_is_set_wins_over_the_preset():
    step = HighOrder.of(HighOrderSection(preset="real-esrgan", resize_range2=[0.9, 1.1], second_blur_prob=0.0))
    assert step.second.resize_range == [0.9, 1.1]
    assert step.second_blur_prob == 0.0
    assert step.first.resize_range == [0.15, 1.5]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scale", [2, 4])
def test_images_come_out_on_the_lr_grid(preset, scale):
    lr, told = build(scale, preset=preset)(scenes(6), generator=seeded())
    assert lr.shape == (6, 4, 64 // scale, 64 // scale)
    assert torch.isfinite(lr).all()
    assert {len(value) for value in told.values()} == {6}


def test_each_image_draws_its_own():
    _, told = build(preset="real-esrgan")(scenes(12), generator=seeded())
    for name in ("blur.side", "blur.sigma", "resize.factor", "compression.quality", "resize2.factor"):
        assert len(told[name].unique()) > 3, name
    gaussian, poisson = told["noise.sigma"].isfinite(), told["noise.factor"].isfinite()
    assert torch.equal(gaussian, ~poisson)
    assert gaussian.any()
    assert poisson.any()


def test_nothing_but_blur_is_the_blur_and_the_mean():
    from geosr.degrade import steps
    from geosr.degrade.draws import Draws

    hr = scenes(3)
    lr, told = build(**quiet(), blur_sigma=[1.5, 1.5], kernel_list=["iso"], kernel_prob=[1.0], sinc_prob=0.0)(
        hr, generator=seeded()
    )
    for image in range(3):
        draws = Draws.of(seeded(), 3)[image]
        blurred, _ = steps.blur(hr[image : image + 1], draws, sigma=1.5)
        mode = steps.MODES[int(told["resize2.mode"][image])]
        torch.testing.assert_close(lr[image], steps.interpolated(blurred, (16, 16), mode)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("white", [0.2, 1.0])
def test_noise_is_in_255ths_of_the_reflectance_of_white(white):
    settings = quiet() | {"noise_range2": [10, 10], "resize_prob2": [0, 0, 1], "white": white}
    flat = torch.full((4, 4, 512, 512), 0.1)
    lr, _ = build(**settings)(flat, generator=seeded())
    assert lr.std().item() == pytest.approx(10 / 255 * white, rel=0.01)


def test_the_mean_reflectance_is_kept():
    hr = scenes(16)
    lr, _ = build(**quiet() | {"second_blur_prob": 1.0, "compression": "jpeg", "compression2": "jpeg"})(
        hr, generator=seeded()
    )
    assert (lr.mean((2, 3)) - hr.mean((2, 3))).abs().max() < 0.01
    assert (lr.mean() - hr.mean()).abs() < 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_seen_stays_where_it_is(preset):
    line = torch.arange(64) + 0.5
    blob = torch.exp(-((line[:, None] - 24) ** 2 + (line - 38) ** 2) / 2 / 6**2)
    still = {"noise_range": [0, 0], "noise_range2": [0, 0], "gaussian_noise_prob": 1.0, "gaussian_noise_prob2": 1.0}
    degradation = build(preset=preset, **still, compression="none", compression2="none", scale=2)
    lr, _ = degradation(blob.expand(20, 4, -1, -1), generator=seeded())
    lr_line = (torch.arange(32) + 0.5) * 2
    mass = lr.sum((2, 3))
    down, right = ((lr.sum(axis) * lr_line).sum(-1) / mass for axis in (3, 2))
    # sizes are whole numbers, so a resize may stretch the image by up to a pixel of the smallest size
    assert (down - 24).abs().max() < 0.5
    assert (right - 38).abs().max() < 0.5
    assert (down - 24).mean().abs() < 0.1


def test_jpeg2000_takes_its_turn():
    settings = quiet() | {"compression": "jpeg2000", "compression2": "jpeg2000", "jpeg2000_range2": [3.0, 3.0]}
    lr, told = build(**settings)(scenes(2), generator=seeded())
    assert told["compression2.ratio"].tolist() == [3.0, 3.0]
    assert torch.isfinite(lr).all()


def test_the_gradient_reaches_the_image():
    hr = scenes(2).requires_grad_(True)
    lr, _ = build(quantise=False)(hr, generator=seeded())
    lr.sum().backward()
    assert hr.grad.abs().sum() > 0


def test_kernels_and_their_probabilities_belong_together():
    with pytest.raises(ConfigError, match=r"kernel_prob2 has 6 numbers for the 1 kernels of kernel_list2"):
        build(kernel_list2=["iso"])
