"""What every metric keeps to, and the squares that some look at."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_kit import images, patchy

from geosr import metrics
from geosr.degrade import PSF, degrade
from geosr.losses.perceptual import LPIPSLoss
from geosr.metrics.masks import largest_square

BANDS = ["B02", "B03", "B04", "B08"]
PSF1 = PSF(1, 0.3)


def numbers(figure):
    """All numbers of a figure in one tensor."""
    if isinstance(figure, torch.Tensor):
        return figure.flatten()
    values = figure.values() if isinstance(figure, dict) else figure if isinstance(figure, tuple) else [figure.power]
    return torch.cat([value.flatten() for value in values])


def power(sr, hr, valid=None):
    return metrics.spectrum(sr, valid)


def gap(sr, hr, valid=None):
    return metrics.spectrum_gap(metrics.spectrum(sr, valid), metrics.spectrum(hr, valid)).largest


def borders(sr, hr, valid=None):
    """Seams of an image that is large enough for one."""
    tall, known = torch.cat([sr, hr], dim=2), None if valid is None else torch.cat([valid, valid], dim=1)
    return metrics.seams(tall, known, period=32)


LR = degrade(images()[1], PSF(2))
LPIPS = LPIPSLoss(BANDS, network="vgg", weights="random")


def three_scores(sr, hr, valid=None):
    found = metrics.correctness(LR, sr, hr, valid, border=2)
    return torch.stack([found.improvement, found.omission, found.hallucination])


def perceived(sr, hr, valid=None):
    """Of images that are large enough for a patch; that of the second is all valid."""
    parts = [one if one is None else one.repeat_interleave(4, -1).repeat_interleave(4, -2) for one in (sr, hr, valid)]
    return metrics.lpips(*parts, network=LPIPS)


METRICS = {
    "psnr": metrics.psnr,
    "rmse": metrics.rmse,
    "bias": metrics.bias,
    "ergas": partial(metrics.ergas, scale=2),
    "sam": metrics.sam,
    "index_error": partial(metrics.index_error, bands=BANDS),
    "ssim": metrics.ssim,
    "uqi": metrics.uqi,
    "scc": metrics.scc,
    "consistency": partial(metrics.consistency, psf=PSF1),
    "spectrum": power,
    "spectrum_gap": gap,
    "shift": metrics.shift,
    "seams": borders,
    "correctness": three_scores,
    "lpips": perceived,
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@every_metric
@pytest.mark.parametrize("stored", [-1e6, 1e30, math.nan, math.inf])
def test_what_an_invalid_pixel_holds_changes_nothing(metric, stored):
    (sr, hr), valid = images(), patchy()
    before = numbers(metric(sr, hr, valid))
    assert before.numel()
    assert before.isfinite().all()
    for image in (sr, hr):
        image.movedim(1, -1)[~valid] = stored
    assert torch.equal(numbers(metric(sr, hr, valid)), before)


@every_metric
def test_what_a_valid_pixel_holds_does(metric):
    (sr, hr), valid = images(), patchy()
    before = numbers(metric(sr, hr, valid))
    assert not torch.equal(numbers(metric(sr.roll((3, 5), (2, 3)), hr, valid)), before)


@every_metric
def test_a_mask_of_valid_pixels_is_no_mask(metric):
    sr, hr = images()
    everywhere = torch.ones(2, 24, 20, dtype=torch.bool)
    assert torch.equal(numbers(metric(sr, hr, everywhere)), numbers(metric(sr, hr)))


@every_metric
def test_metrics_have_no_gradient_and_ignore_autocast(metric):
    sr, hr = images()
    plain = numbers(metric(sr, hr))
    with torch.autocast("cpu", torch.bfloat16):
        value = numbers(metric(sr.requires_grad_(), hr))
    assert torch.equal(value, plain)
    assert not value.requires_grad
    assert value.dtype == torch.float32


@every_metric
def test_without_a_valid_pixel_there_is_nothing_to_measure(metric):
    assert numbers(metric(*images(), torch.zeros(2, 24, 20, dtype=torch.bool))).isnan().all()


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), height=st.integers(1, 9), width=st.integers(1, 9))
def test_no_larger_square_of_valid_pixels_is_found_by_looking_at_all(seed, share, height, width):
    valid = np.random.default_rng(seed).random((height, width)) < share
    rows, columns = largest_square(torch.from_numpy(valid))
    side = rows.stop - rows.start
    assert side == columns.stop - columns.start
    assert valid[rows, columns].shape == (side, side)
    assert valid[rows, columns].all()
    if side < min(valid.shape):
        larger = np.lib.stride_tricks.sliding_window_view(valid, (side + 1, side + 1))
        assert not larger.all((-2, -1)).any()
