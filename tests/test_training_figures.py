import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geosr.config.schema import LossesSection
from geosr.degrade import PSF, degrade
from geosr.degrade.resample import bicubic
from geosr.losses import ContentLoss
from geosr.training.figures import BORDER, central, figures, inside


def image_of(side=48, seed=0):
    hr = torch.rand(1, 2, side, side, generator=torch.Generator().manual_seed(seed)) * 0.3
    lr = degrade(hr, PSF(2))
    valid = torch.ones(1, side, side, dtype=torch.bool)
    return {"lr": lr, "hr": hr, "sr": bicubic(lr, 2), "bicubic": bicubic(lr, 2), "valid": valid}


def values_of(image, **settings):
    return figures(image, PSF(2), ContentLoss(LossesSection(**settings), ["B02", "B03"], PSF(2)))


def test_bicubic_itself_gains_nothing():
    values = values_of(image_of())
    assert values["psnr_gain"] == 0
    for name in ("psnr", "ssim", "sam", "l1", "consistency"):
        assert values[name] == values[name + "_bicubic"]
    assert "tv" in values


def test_losses_that_have_a_weight_are_figures_as_well():
    added = {"mse": 1.0, "charbonnier": 1.0, "fft": 1.0, "spectrum": 1.0, "gradient": 1.0}
    values = values_of(image_of(), **{f"{name}_weight": weight for name, weight in added.items()})
    assert values.keys() == values_of(image_of()).keys() | added.keys()
    assert all(value.isfinite() for value in values.values())


def test_consistency_is_that_of_the_whole_image_whether_it_has_a_weight_or_not():
    image = image_of()
    expected = (degrade(image["sr"], PSF(2)) - image["lr"]).abs().mean()
    assert values_of(image)["consistency"] == pytest.approx(expected.item(), rel=1e-5)
    assert values_of(image, consistency_weight=1.0)["consistency"] == pytest.approx(expected.item(), rel=1e-5)


def test_what_invalid_pixels_hold_changes_no_figure():
    image = image_of()
    image["valid"][:, 30:, 30:] = False
    spoiled = {name: image[name].clone() for name in ("sr", "hr", "bicubic")}
    for one in spoiled.values():
        one[..., 30:, 30:] = 9.0
    assert values_of(image | spoiled) == values_of(image)


def test_a_better_image_is_better_in_every_figure():
    image = image_of()
    image["sr"] = (image["hr"] + image["bicubic"]) / 2
    values = values_of(image)
    assert values["psnr_gain"] == pytest.approx(6.02, abs=0.01)  # half the error
    assert values["l1"] == pytest.approx(values["l1_bicubic"].item() / 2, rel=1e-4)
    assert values["ssim"] > values["ssim_bicubic"]


def test_the_border_does_not_count():
    image = image_of()
    spoiled = image["sr"].clone()
    spoiled[..., :BORDER, :] = 9.0
    ours, theirs = values_of(image), values_of(image | {"sr": spoiled})
    assert ours["psnr"] == theirs["psnr"]
    assert inside(image["hr"]).shape[-2:] == (48 - 2 * BORDER, 48 - 2 * BORDER)
    assert BORDER == 8  # as the judges of the shipped models do


def test_ssim_is_left_out_where_no_window_is_valid():
    image = image_of()
    image["valid"][:, ::5, ::5] = False
    values = values_of(image)
    assert "ssim" not in values
    assert all(value.isfinite() for value in values.values())


@given(height=st.integers(1, 40), width=st.integers(1, 40), side=st.integers(1, 50))
def test_the_middle_of_an_image(height, width, side):
    image = torch.arange(height * width).view(1, height, width)
    middle = central(image, side)
    assert middle.shape == (1, min(height, side), min(width, side))
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    assert middle[0, 0, 0] == image[0, top, left]


@given(height=st.integers(1, 30), width=st.integers(1, 30), side=st.integers(1, 30), scale=st.integers(1, 8))
def test_the_middles_of_lr_and_hr_show_the_same_ground(height, width, side, scale):
    lr = torch.arange(height * width).view(1, height, width)
    hr = lr.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    middle = central(hr, side * scale, step=scale)
    assert torch.equal(middle[:, ::scale, ::scale], central(lr, side))
    assert torch.equal(middle, central(lr, side).repeat_interleave(scale, 1).repeat_interleave(scale, 2))
