import math

import numpy as np
import pytest
import torch
from evaluation_kit import BANDS, lr_of, textured

from geosr import metrics
from geosr.degrade import PSF
from geosr.degrade.resample import bicubic
from geosr.evaluation.figures import FIGURES, Ground, Tiles, invented, kind_of, measure, pointwise, pooled, with_gain


@pytest.fixture(scope="module")
def images():
    hr = textured(48, 48)
    lr = torch.from_numpy(lr_of(hr) * np.float32(1e-4))[None]
    return torch.from_numpy(hr * np.float32(1e-4))[None], lr, bicubic(lr, 2)


def ground_of(images, *, hr=True, valid=None):
    fine, lr, smooth = images
    valid = torch.ones(1, 48, 48, dtype=torch.bool) if valid is None else valid
    return Ground(lr, smooth, fine if hr else None, valid, BANDS, PSF(2))


def test_every_figure_is_known_and_the_perfect_image_has_the_best(images):
    found = measure(images[0], ground_of(images), tiles=Tiles(32))
    assert {kind_of(name).label for name in found}
    assert found["psnr"] == math.inf
    assert {found[name] for name in ("rmse", "sam", "bias", "ndvi_error", "spectrum_gap", "shift", "ergas")} == {0.0}
    assert found["ssim"] == pytest.approx(1)
    assert found["improvement"] > found["hallucination"]
    assert found["pixels"] == 48 * 48
    assert found["rmse_B08"] == 0
    assert "psnr_gain" not in found


def test_without_hr_there_is_what_lr_can_tell(images):
    moved = torch.roll(images[2], (0, 2), dims=(2, 3))
    still, off = (measure(sr, ground_of(images, hr=False)) for sr in (images[2], moved))
    assert set(still) == {"pixels", "consistency", "consistency_sam", "shift_y", "shift_x", "shift", "seams"}
    assert still["shift"] == pytest.approx(0, abs=0.02)
    assert off["shift_x"] == pytest.approx(2, abs=0.1)
    assert off["consistency"] > still["consistency"]
    assert math.isnan(still["seams"])


def test_nothing_depends_on_what_invalid_pixels_hold(images):
    valid = torch.ones(1, 48, 48, dtype=torch.bool)
    valid[:, 5:9, 10:20] = False
    hole = (~valid).unsqueeze(1)
    fine, lr, smooth = images
    found = []
    for value in (0.0, 0.9):
        changed = torch.where(hole, value, fine), lr, smooth
        found.append(measure(torch.where(hole, value, smooth), ground_of(changed, valid=valid), tiles=Tiles(32)))
    assert found[0] == pytest.approx(found[1], nan_ok=True)
    assert found[0]["pixels"] == valid.sum()


def test_consistency_leaves_out_what_lies_beyond_the_edge(images):
    # The middle of a consistent image is consistent, though its own edge would be continued by reflection.
    from geosr.models.consistency import Consistency

    fine, lr, smooth = images
    sr = Consistency(PSF(2))(smooth, lr)[..., 8:40, 8:40]
    cut = ground_of((fine[..., 8:40, 8:40], lr[..., 4:20, 4:20], smooth[..., 8:40, 8:40]), hr=False)
    cut = Ground(cut.lr, cut.bicubic, None, torch.ones(1, 32, 32, dtype=torch.bool), BANDS, PSF(2))
    whole = float(metrics.consistency(sr, cut.lr, psf=PSF(2)).reflectance)
    assert measure(sr, cut)["consistency"] < whole / 3


def test_seams_are_found_where_tiles_begin_and_nowhere_else(images):
    stepped = images[2].clone()
    stepped[..., 28:, :] += 0.2  # a border at row 28, that is 4 rows after the 24th of a file with tiles of 32
    at, elsewhere = (
        measure(stepped, ground_of(images, hr=False), tiles=Tiles(32, before))["seams"] for before in ((4, 4), (10, 4))
    )
    assert at > 1.5 > elsewhere


def test_figures_of_parts_make_those_of_the_scene(images):
    fine, _, smooth = images
    valid = torch.ones(1, 48, 48, dtype=torch.bool)
    valid[:, :, 40:44] = False
    whole = pointwise(smooth, fine, valid, bands=BANDS, scale=2)
    parts = []
    for columns in (slice(0, 20), slice(20, 48)):
        part = pointwise(smooth[..., columns], fine[..., columns], valid[..., columns], bands=BANDS, scale=2)
        parts.append(part | {"pixels": float(valid[..., columns].sum())})
    joined = pooled(parts)
    for name in ("psnr", "rmse", "rmse_B04", "bias_B08", "sam", "ndvi_error"):
        assert joined[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-7), name
    assert joined["pixels"] == valid.sum()
    empty = dict.fromkeys(parts[0], math.nan) | {"pixels": 0.0}
    assert pooled([*parts, empty]) == pytest.approx(joined)


def test_the_gain_is_over_bicubic():
    found = with_gain({"pixels": 4.0, "psnr": 31.5, "sam": 1.0}, {"psnr": 30.0})
    assert found["psnr_gain"] == 1.5
    assert with_gain({"shift": 0.0}, {"shift": 0.0}) == {"shift": 0.0}


def test_invented_detail_shows_where_it_was_put(images):
    fine, _, _ = images
    sr = fine.clone()
    sr[..., 20:28, 20:28] += 0.2 * torch.from_numpy(np.indices((8, 8)).sum(0) % 2)
    score = invented(sr, ground_of(images))
    assert np.nanmean(score[20:28, 20:28]) > 2 * np.nanmean(score[:16])


def test_labels_name_their_band():
    from geosr.evaluation.figures import label_of

    assert label_of("bias_B8A") == "bias B8A"
    assert all(kind.pooled in ("mean", "square", "decibel") for kind in FIGURES.values())
