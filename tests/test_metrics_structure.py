import numpy as np
import pytest
import torch
from metric_kit import images
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import spatial_correlation_coefficient, universal_image_quality_index

from geosr.metrics import scc, ssim, uqi


def hole(height=40, width=33):
    """A mask with two pixels missing, and the pixels that a window of 11 around them leaves."""
    valid = torch.ones(1, height, width, dtype=torch.bool)
    valid[0, 20, 16] = valid[0, 3, 0] = False
    counted = np.ones((height, width), bool)
    counted[15:26, 11:22] = counted[0:9, 0:6] = False
    return valid, counted


def ssim_oracle(sr, hr, peak=1.0):
    """Structural similarity of each pixel (y, x) by scikit-image, mean over bands, edges continued by reflection."""
    pad = ((0, 0), (5, 5), (5, 5))
    sr, hr = (np.pad(image[0].double().numpy(), pad, mode="reflect") for image in (sr, hr))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, similarity = structural_similarity(hr, sr, channel_axis=0, data_range=peak, full=True, **window)
    return similarity.mean(0)[5:-5, 5:-5]


def local_correlation(sr, hr):
    """Correlation of the high pass in each window (y, x) of 8 x 8 pixels, mean over bands."""
    found = []
    for one, other in zip(sr[0].double().numpy(), hr[0].double().numpy(), strict=True):
        views = [np.lib.stride_tricks.sliding_window_view(image, (3, 3)) for image in (one, other)]
        passed = [9 * view[..., 1, 1] - view.sum((-2, -1)) for view in views]
        windows = [np.lib.stride_tricks.sliding_window_view(image, (8, 8)) for image in passed]
        shape = windows[0].shape[:2]
        flat = [window.reshape(*shape, 64) for window in windows]
        found.append(
            [[np.corrcoef(flat[0][i, j], flat[1][i, j])[0, 1] for j in range(shape[1])] for i in range(shape[0])]
        )
    return np.mean(found, axis=0)


@pytest.mark.parametrize("peak", [1.0, 0.5])
def test_ssim_is_that_of_skimage(peak):
    sr, hr = images((1, 3, 40, 33), noise=0.1)
    assert float(ssim(sr, hr, peak=peak)) == pytest.approx(ssim_oracle(sr, hr, peak).mean(), abs=1e-5)
    assert float(ssim(hr, hr)) == pytest.approx(1, abs=1e-6)


def test_ssim_counts_windows_without_an_invalid_pixel():
    sr, hr = images((1, 3, 40, 33), noise=0.1)
    valid, counted = hole()
    assert float(ssim(sr, hr, valid)) == pytest.approx(ssim_oracle(sr, hr)[counted].mean(), abs=1e-5)


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_uqi_and_scc_are_those_of_torchmetrics(noise):
    sr, hr = images((2, 3, 40, 33), noise=noise)
    theirs = universal_image_quality_index(sr.double(), hr.double())
    assert float(uqi(sr, hr)) == pytest.approx(float(theirs), abs=1e-6)
    assert float(scc(sr, hr)) == pytest.approx(float(spatial_correlation_coefficient(sr, hr)), abs=1e-5)


def test_uqi_counts_windows_without_an_invalid_pixel():
    sr, hr = images((1, 3, 40, 33), noise=0.1)
    valid, counted = hole()
    theirs = universal_image_quality_index(sr.double(), hr.double(), reduction="none")[0].mean(0).numpy()
    assert float(uqi(sr, hr, valid)) == pytest.approx(theirs[counted[5:-5, 5:-5]].mean(), abs=1e-6)


def test_scc_counts_windows_without_an_invalid_pixel():
    sr, hr = images((1, 3, 26, 24), noise=0.1)
    valid = torch.ones(1, 26, 24, dtype=torch.bool)
    valid[0, :6] = valid[0, -4:] = valid[0, :, :6] = valid[0, :, -4:] = valid[0, 8, 7] = False
    views = local_correlation(sr, hr)  # of the windows that begin in row and column 1 of the image
    whole = np.lib.stride_tricks.sliding_window_view(valid[0].numpy(), (10, 10)).all((-2, -1))
    assert float(scc(sr, hr, valid)) == pytest.approx(views[whole].mean(), abs=1e-6)
    assert whole.any()


def test_where_nothing_varies_likeness_is_that_of_the_means_and_the_high_pass_has_no_correlation():
    sr, hr = torch.full((1, 2, 16, 16), 0.1), torch.full((1, 2, 16, 16), 0.3)
    assert float(uqi(sr, hr)) == pytest.approx(2 * 0.1 * 0.3 / (0.1**2 + 0.3**2))
    assert uqi(torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16)) == 1
    assert scc(sr, hr) == 0


def test_an_image_too_small_for_a_window_has_no_uqi():
    assert uqi(*images((1, 2, 10, 30))).isnan()
