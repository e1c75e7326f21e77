import warnings
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geosr.degrade import resample
from geosr.degrade.resample import bicubic, gather, spread


@st.composite
def filters(draw):
    """A kernel, a step and the size of the coarse image."""
    taps, step = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    kernel = np.random.default_rng(draw(st.integers(0, 99))).normal(size=taps)
    return kernel, step, draw(st.integers(1, 6)), draw(st.integers(1, 6))


def random_image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recording(yes=True):
    """As while a graph is recorded."""
    return patch.object(resample, "exporting", lambda: yes)


def outer(kernel):
    return torch.from_numpy(np.outer(kernel, kernel))[None, None]


@settings(max_examples=60)
@given(filters(), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_gather_is_a_strided_convolution(case, more_rows, more_columns, recorded):
    kernel, step, height, width = case
    rows, columns = ((n - 1) * step + len(kernel) for n in (height, width))
    fine = random_image(2, 1, rows + more_rows, columns + more_columns)
    with recording(recorded):
        coarse = gather(fine, kernel.tolist(), step)
    torch.testing.assert_close(coarse, F.conv2d(fine, outer(kernel), stride=step))


@settings(max_examples=60)
@given(filters(), st.booleans())
def test_spread_is_a_transposed_convolution(case, recorded):
    kernel, step, height, width = case
    coarse = random_image(2, 1, height, width)
    expected = F.conv_transpose2d(coarse, outer(kernel), stride=step)
    with recording(recorded):
        fine = spread(coarse, kernel.tolist(), step)
    torch.testing.assert_close(fine, expected)


@settings(max_examples=30)
@given(filters())
def test_spread_is_the_adjoint_of_gather(case):
    kernel, step, height, width = case
    coarse = random_image(height, width)
    fine = random_image(*((n - 1) * step + len(kernel) for n in (height, width)), seed=1)
    there, back = gather(fine, kernel.tolist(), step), spread(coarse, kernel.tolist(), step)
    assert (there * coarse).sum().item() == pytest.approx((fine * back).sum().item(), abs=1e-9)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 2), (7, 9)])
def test_bicubic_is_that_of_torch(scale, shape):
    coarse = random_image(2, 3, *shape)
    expected = F.interpolate(coarse, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(bicubic(coarse, scale), expected)
    assert bicubic(coarse.float(), scale).dtype == torch.float32


@pytest.mark.parametrize("function", [gather, spread])
def test_gradients_are_those_of_the_convolution(function):
    kernel = [0.2, -0.5, 1.0, 0.3]
    image = random_image(1, 1, 8, 7).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: function(x, kernel, 2), image)


@pytest.mark.parametrize("function", [gather, spread])
def test_the_image_that_is_given_stays_as_it_is_and_autocast_changes_nothing(function):
    image = random_image(2, 2, 9, 9).float()
    before, kernel = image.clone(), [0.2, 0.5, 0.3]
    with torch.autocast("cpu", torch.bfloat16):
        low = function(image, kernel, 2)
    assert torch.equal(image, before)
    assert torch.equal(low, function(image, kernel, 2))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_what_is_recorded_of_bicubic_may_be_written_to(scale):
    coarse = random_image(1, 2, 4, 5)
    with recording():
        fine = bicubic(coarse, scale)
    assert fine.is_contiguous()
    torch.testing.assert_close(fine, bicubic(coarse, scale))


def test_a_trace_is_a_recording_and_torch_compile_is_none():
    assert not resample.exporting()
    seen = []

    def look(image):
        seen.append(resample.exporting())
        return image + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(look, (torch.zeros(2),), check_trace=False)
    torch.compile(look, backend="eager")(torch.zeros(2))
    assert seen == [True, False]
