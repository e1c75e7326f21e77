import numpy as np
import pytest
import torch
from affine import Affine
from evaluation_kit import BANDS, FINE, hr_file, lr_file, small_resolver, textured
from scipy import ndimage

from geosr.degrade import PSF
from geosr.evaluation import methods
from geosr.evaluation.cases import Case, OpenCases, Reading
from geosr.evaluation.figures import Tiles
from geosr.evaluation.methods import FileMethod, ModelMethod, baselines
from geosr.models.consistency import Consistency

WHOLE = (slice(0, 32), slice(0, 32))


@pytest.fixture
def pair(make_raster):
    dn = textured()
    dn[:, 20:24, 30:33] = 0
    with OpenCases(Reading()) as files:
        yield files.pair(Case("one", hr=(str(hr_file(make_raster, dn)),)), bands=BANDS, scale=2, mtf=0.3)


def test_the_baselines_are_bicubic_interpolation_and_its_back_projection(make_raster):
    with OpenCases(Reading()) as files:
        pair = files.pair(Case("one", hr=(str(hr_file(make_raster)),)), bands=BANDS, scale=2, mtf=0.25)
        lr = torch.from_numpy(pair.read(WHOLE, BANDS).array)[None]
        bicubic, projected = (one.superresolve(pair, WHOLE) for one in baselines(BANDS, 2, 0.25))
    expected = torch.nn.functional.interpolate(lr, scale_factor=2, mode="bicubic")
    np.testing.assert_allclose(bicubic.sr, expected[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(projected.sr, Consistency(PSF(2, 0.25))(expected, lr)[0].numpy(), atol=1e-6)
    assert bicubic.valid.all()
    assert bicubic.expected is None


def test_a_window_has_the_pixels_of_the_whole_image_and_its_mask(pair, monkeypatch):
    monkeypatch.setattr(methods, "TILE", 8)
    method = ModelMethod("small", small_resolver())
    whole, part = method.superresolve(pair, WHOLE), (slice(5, 30), slice(3, 21))
    window = method.superresolve(pair, part)
    fine = (slice(10, 60), slice(6, 42))
    np.testing.assert_allclose(window.sr, whole.sr[:, *fine], atol=1e-6)
    np.testing.assert_array_equal(window.valid, whole.valid[fine])
    assert np.isnan(whole.sr[:, ~whole.valid]).all()
    assert not whole.valid[20:24, 30:33].any()
    assert method.tiles(pair, part) == Tiles(16)


def test_the_order_of_bands_and_rows_in_a_file_changes_no_image(make_raster):
    dn, method = textured(), ModelMethod("small", small_resolver())
    south_up = FINE * Affine.translation(0, 64) * Affine.scale(1, -1)
    images = []
    for array, options in (
        (dn, {}),
        (dn[[3, 2, 1, 0]], {"descriptions": ["nir", "red", "green", "blue"]}),
        (dn[:, ::-1], {"transform": south_up}),
    ):
        with OpenCases(Reading()) as files:
            case = Case("one", hr=(str(hr_file(make_raster, array, **options)),))
            images.append(method.superresolve(files.pair(case, bands=BANDS, scale=2, mtf=0.3), WHOLE).sr)
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_allclose(images[2][:, ::-1], images[0], atol=1e-6)


def test_samples_of_a_noisy_model_come_with_the_error_that_their_spread_promises(pair):
    noisy = small_resolver(architecture="stochastic", arguments={"channels": 4, "blocks": 1, "noise_channels": 2})
    found = ModelMethod("noisy", noisy, noisy.answer(samples=3)).superresolve(pair, WHOLE)
    answers = [noisy.answer(samples=1, seed=seed) for seed in range(3)]
    members = [ModelMethod("one", noisy, answer).superresolve(pair, WHOLE).sr for answer in answers]
    normal = np.std(members, axis=0, ddof=1) * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(found.expected, normal, atol=1e-6)
    assert found.sr.shape == found.expected.shape == (4, 64, 64)
    assert (found.expected[:, found.valid] >= 0).all()


def test_a_calibrated_model_says_what_error_it_expects(pair):
    curve = {"detail": [0.0, 1.0], "error": [0.001, 0.501]}
    calibration = {"window": 5, "bands": dict.fromkeys(BANDS, curve), "scenes": ["one"], "pixels": 1}
    model = small_resolver(calibration=calibration)
    method = ModelMethod("small", model, model.answer(confidence=True, tta=True))
    found = method.superresolve(pair, WHOLE)
    detail = found.sr - baselines(BANDS, 2, 0.3)[0].superresolve(pair, WHOLE).sr
    inside = np.s_[:, 40:60, 4:20]  # far from the hole
    square = np.nan_to_num(detail.astype(float)) ** 2
    expected = 0.001 + 0.5 * np.sqrt(np.maximum(ndimage.uniform_filter(square, (0, 5, 5)), 0))
    np.testing.assert_allclose(found.expected[inside], expected[inside], rtol=1e-3)


def test_tiles_of_a_finished_image_are_counted_from_where_its_file_begins(make_raster):
    hr = textured()
    case = Case("one", lr=(str(lr_file(make_raster, hr)),), sr=(str(hr_file(make_raster, hr, name="sr.tif")),))
    with OpenCases(Reading()) as files:
        pair = files.pair(case, bands=None, scale=None, mtf=0.3)
        method = FileMethod("SR", 40)
        window = (slice(4, 30), slice(22, 32))
        assert method.tiles(pair, window) == Tiles(40, (8, 4))
        image = method.superresolve(pair, window)
    np.testing.assert_allclose(image.sr, hr[:, 8:60, 44:64] * np.float32(1e-4), rtol=1e-6)
