import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, special
from scipy.stats import multivariate_normal

from geosr.degrade.kernels import _fast_length, filtered, gaussian_kernels, sinc_kernels

SIDES = st.integers(3, 10).map(lambda n: 2 * n + 1)


def covariance(sigma, angle):
    """Rotated ellipse, rows first: columns and rows are x and y."""
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    of_xy = rotation @ np.diag(np.square(sigma)) @ rotation.T
    return of_xy[::-1, ::-1]


def one(kind, side, sigma, angle, beta, canvas=21):
    return gaussian_kernels(
        torch.tensor([kind]),
        torch.tensor([side]),
        torch.tensor([sigma], dtype=torch.float64),
        torch.tensor([angle], dtype=torch.float64),
        torch.tensor([beta], dtype=torch.float64),
        canvas=canvas,
    )[0].numpy()


def centred(values, canvas=21):
    """Values on a side x side grid, normalised, in the middle of the canvas."""
    margin = (canvas - len(values)) // 2
    return np.pad(values / values.sum(), margin)


def places(side):
    line = np.arange(side) - side // 2
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)


@settings(max_examples=60)
@given(side=SIDES, sigma=st.tuples(*[st.floats(0.3, 4)] * 2), angle=st.floats(-math.pi, math.pi))
def test_a_gaussian_is_scipys_normal_distribution(side, sigma, angle):
    density = multivariate_normal([0, 0], covariance(sigma, angle)).pdf(places(side))
    np.testing.assert_allclose(one(0, side, sigma, angle, 1.0), centred(density), atol=1e-10)


@settings(max_examples=60)
@given(
    kind=st.sampled_from([1, 2]),
    side=SIDES,
    sigma=st.tuples(*[st.floats(0.3, 4)] * 2),
    angle=st.floats(-math.pi, math.pi),
    beta=st.floats(0.5, 4),
)
def test_generalised_and_plateau_kernels_follow_their_formulas(kind, side, sigma, angle, beta):
    inverse = np.linalg.inv(covariance(sigma, angle))
    distance = np.einsum("...i,ij,...j", places(side), inverse, places(side)) ** beta
    expected = np.exp(-0.5 * distance) if kind == 1 else 1 / (distance + 1)
    np.testing.assert_allclose(one(kind, side, sigma, angle, beta), centred(expected), atol=1e-10)


@settings(max_examples=60)
@given(side=SIDES, cutoff=st.floats(math.pi / 5, math.pi))
def test_a_sinc_kernel_is_the_transform_of_a_disc(side, cutoff):
    radius = np.hypot(*np.moveaxis(places(side), -1, 0))
    with np.errstate(invalid="ignore"):
        values = np.where(
            radius == 0, cutoff**2 / (4 * np.pi), cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius)
        )
    found = sinc_kernels(torch.tensor([cutoff], dtype=torch.float64), torch.tensor([side]), canvas=21)[0].numpy()
    np.testing.assert_allclose(found, centred(values), atol=5e-7)  # torch's Bessel function is good to 4e-7


def test_the_disc_integrated_numerically_gives_the_same_ratio():
    # Without Bessel functions: the inverse Fourier integral over a disc of radius `cutoff`.
    cutoff = 2.0
    line = (np.arange(400) + 0.5) / 400 * 2 * cutoff - cutoff
    fx, fy = np.meshgrid(line, line)
    disc = fx**2 + fy**2 <= cutoff**2
    values = [np.sum(disc * np.cos(fx * x + fy * y)) for x, y in ((0, 0), (1, 0), (2, 1))]
    kernel = sinc_kernels(torch.tensor([cutoff], dtype=torch.float64), torch.tensor([21]), canvas=21)[0].numpy()
    np.testing.assert_allclose(
        np.divide(values, values[0])[1:], [kernel[10, 11] / kernel[10, 10], kernel[11, 12] / kernel[10, 10]], atol=2e-3
    )


@settings(max_examples=20)
@given(height=st.integers(2, 40), width=st.integers(2, 40), reach=st.integers(0, 12), seed=st.integers(0, 99))
def test_filtering_is_scipys_convolution_with_mirrored_edges(height, width, reach, seed):
    generator = np.random.default_rng(seed)
    image, kernels = (
        generator.normal(size=(2, 3, height, width)),
        generator.normal(size=(2, 2 * reach + 1, 2 * reach + 1)),
    )
    found = filtered(torch.from_numpy(image), torch.from_numpy(kernels)).numpy()
    for own, kernel, result in zip(image, kernels, found, strict=True):
        for band, filtered_band in zip(own, result, strict=True):
            expected = ndimage.convolve(band, kernel, mode="mirror")
            np.testing.assert_allclose(filtered_band, expected, atol=1e-9)


def test_filtering_keeps_float32():
    image, kernel = torch.rand(1, 2, 16, 16), torch.full((1, 3, 3), 1 / 9, dtype=torch.float64)
    assert filtered(image, kernel).dtype == torch.float32


@pytest.mark.parametrize(("length", "fast"), [(1, 1), (7, 8), (276, 288), (306, 320), (243, 243), (97, 100)])
def test_transforms_have_lengths_with_small_factors(length, fast):
    assert _fast_length(length) == fast
