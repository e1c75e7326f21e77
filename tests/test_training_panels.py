from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from geosr.training.panels import INVALID, Panels, draw_panel, most_detailed, stretch

RGBN = ("B08", "B02", "B04", "B03")


def images_of(bands, shape=(32, 48), *, scale=2, seed=0):
    """One validation image of random pixels."""
    draws = np.random.default_rng(seed)
    hr = draws.uniform(0.1, 0.3, (bands, *shape)).astype(np.float32)
    lr = hr.reshape(bands, shape[0] // scale, scale, -1, scale).mean((2, 4))
    bicubic = lr.repeat(scale, 1).repeat(scale, 2)
    return {"lr": lr, "hr": hr, "sr": (bicubic + hr) / 2, "bicubic": bicubic, "valid": np.ones(shape, bool)}


def pictures(figure):
    """What the five image axes show, by their title up to a comma."""
    return {
        axis.get_title().split(",")[0]: axis.images[0].get_array()
        for axis in figure.axes
        if axis.get_title() and axis.images
    }


def shown_oracle(image, low, high):
    return (np.clip((image - low) / (high - low), 0, 1) ** (1 / 1.4)).transpose(1, 2, 0)


def test_every_picture_has_true_colours_and_the_stretch_of_hr():
    images = images_of(4)
    found = pictures(draw_panel(images, RGBN, title=""))
    low, high = np.percentile(images["hr"][1:], (1, 99))
    for name in ("lr", "bicubic", "sr", "hr"):
        expected = shown_oracle(images[name][[2, 3, 1]], low, high)
        title = name if name == "bicubic" else name.upper()
        np.testing.assert_allclose(found[title], expected, atol=1e-5)


@pytest.mark.parametrize(("bands", "count"), [(("B05",), 1), (("B08", "B02"), 2), (("B04", "B03", "B08"), 3)])
def test_without_red_green_and_blue_the_first_band_is_grey(bands, count):
    images = images_of(count)
    shown = pictures(draw_panel(images, bands, title=""))["HR"]
    low, high = np.percentile(images["hr"][[0, 0, 0]], (1, 99))
    np.testing.assert_allclose(shown, shown_oracle(images["hr"][[0, 0, 0]], low, high), atol=1e-5)


def test_the_error_is_that_of_sr_and_its_colours_end_at_that_of_bicubic():
    images = images_of(4)
    (axis,) = (axis for axis in draw_panel(images, RGBN, title="").axes if axis.get_title().startswith("|SR - HR|"))
    np.testing.assert_allclose(axis.images[0].get_array(), np.abs(images["sr"] - images["hr"]).mean(0), atol=1e-6)
    theirs = np.abs(images["bicubic"] - images["hr"]).mean(0)
    assert axis.images[0].get_clim() == pytest.approx((0, np.percentile(theirs, 99)))
    assert axis.get_title() == f"|SR - HR|, mean {np.abs(images['sr'] - images['hr']).mean():.4f}"


def test_the_spectra_are_means_of_valid_pixels():
    images = images_of(4)
    images["valid"][:16] = False
    images["hr"][:, :16] = np.nan
    (axis,) = (axis for axis in draw_panel(images, RGBN, title="").axes if axis.get_title() == "mean reflectance")
    drawn = {line.get_label().lower(): line.get_ydata() for line in axis.lines}
    assert drawn.keys() == {"hr", "sr", "bicubic"}
    for name, means in drawn.items():
        np.testing.assert_allclose(means, images[name][:, 16:].mean((1, 2)), rtol=1e-5)
    assert [label.get_text() for label in axis.get_xticklabels()] == list(RGBN)


def test_invalid_pixels_are_marked_and_do_not_count():
    images = images_of(4)
    images["valid"][:7, :8] = False
    clean = pictures(draw_panel(images, RGBN, title=""))
    for value in (np.nan, 1e9):
        for name in ("hr", "sr", "bicubic"):
            images[name][:, ~images["valid"]] = value
        found = pictures(draw_panel(images, RGBN, title=""))
        for title in ("HR", "SR", "bicubic"):
            assert (found[title][~images["valid"]] == INVALID).all()
        assert (found["LR"][:3, :4] == INVALID).all()
        assert not (found["LR"][3, :4] == INVALID).all()  # one of its two rows of HR pixels is valid
        for title in clean:
            np.testing.assert_array_equal(found[title], clean[title])


def test_an_image_without_valid_pixels_can_be_drawn():
    images = images_of(1)
    images["valid"][:] = False
    images["hr"][:] = np.nan
    assert (pictures(draw_panel(images, ("B08",), title=""))["HR"] == INVALID).all()


def test_decibels_are_those_of_the_valid_pixels_shown():
    images = images_of(4)
    titles = [axis.get_title() for axis in draw_panel(images, RGBN, title="").axes]
    for name, title in (("sr", "SR"), ("bicubic", "bicubic")):
        error = np.square(images[name].astype(float) - images["hr"]).mean()
        assert f"{title}, {-10 * np.log10(error):.2f} dB" in titles


@given(
    scale=st.integers(1, 4),
    tall=st.integers(1, 12),
    wide=st.integers(1, 12),
    side=st.integers(1, 20),
    seed=st.integers(0),
)
def test_the_crop_is_the_most_detailed_square(scale, tall, wide, side, seed):
    images = images_of(1, (tall * scale, wide * scale), scale=scale, seed=seed)
    images["valid"] = np.random.default_rng(seed).random(images["valid"].shape) > 0.2
    cut = most_detailed(images, side=side)
    step = max(side // scale, 1)
    shape = min(step, tall) * scale, min(step, wide) * scale
    assert cut["hr"].shape[1:] == cut["valid"].shape == shape
    assert cut["lr"].shape[1:] == (shape[0] // scale, shape[1] // scale)
    places = [
        (row, column)
        for row in range(0, tall * scale - shape[0] + 1, scale)
        for column in range(0, wide * scale - shape[1] + 1, scale)
    ]
    (place,) = (
        p for p in places if np.array_equal(images["hr"][:, p[0] :, p[1] :][:, : shape[0], : shape[1]], cut["hr"])
    )
    lr = images["lr"][:, place[0] // scale :, place[1] // scale :][:, : shape[0] // scale, : shape[1] // scale]
    np.testing.assert_array_equal(cut["lr"], lr)

    def detail(row, column):
        """Differences of the pixels of a square to their upper and left neighbours, where both are valid."""
        grey, valid, total = images["hr"][0].astype(float), images["valid"], 0.0
        for y in range(row, row + shape[0]):
            for x in range(column, column + shape[1]):
                for other in ((y - 1, x), (y, x - 1)):
                    if min(other) >= 0 and valid[y, x] and valid[other]:
                        total += abs(grey[y, x] - grey[other])
        return total

    assert detail(*place) == pytest.approx(max(detail(*p) for p in places))


def test_a_large_scene_is_cropped_to_192_pixels():
    shapes = {name: image.shape for name, image in most_detailed(images_of(1, (400, 300), scale=4)).items()}
    assert shapes["hr"] == (1, 192, 192)
    assert shapes["lr"] == (1, 48, 48)


def test_a_stretch_of_one_value_can_be_divided_by():
    low, high = stretch(np.full(5, 0.5, np.float32))
    assert low == 0.5 < high
    assert stretch(np.empty(0, np.float32)) == (0, 1)


def validate(callback, *, batches, step=500, loggers=(), sanity=False, first=True):
    """What Lightning does with the callback while it validates."""
    trainer = SimpleNamespace(sanity_checking=sanity, is_global_zero=first, loggers=list(loggers))
    module = SimpleNamespace(step=step)
    callback.on_validation_start(trainer, module)
    for index, size in enumerate(batches):
        image = {name: torch.from_numpy(value) for name, value in images_of(4, seed=index).items()}
        outputs = {name: value.expand(size, *value.shape) for name, value in image.items()}
        callback.on_validation_batch_end(trainer, module, outputs | {"other": None}, None, index)


def test_the_first_images_of_each_validation_are_drawn(tmp_path):
    callback = Panels(tmp_path, RGBN, 3)
    validate(callback, batches=(2, 2, 1))
    validate(callback, batches=(1,), step=1000)
    names = [f"step_000500_{index}.png" for index in range(3)] + ["step_001000_0.png"]
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == names
    with Image.open(tmp_path / "panels" / names[0]) as picture:
        assert min(picture.size) > 500


@pytest.mark.parametrize("arguments", [{"sanity": True}, {"first": False}, {"batches": ()}])
def test_nothing_is_drawn_where_nothing_is_to_be_seen(tmp_path, arguments):
    validate(Panels(tmp_path, RGBN, 3), **({"batches": (1,)} | arguments))
    validate(Panels(tmp_path, RGBN, 0), batches=(1,))
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_pictures_too(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    validate(Panels(tmp_path, RGBN, 1), batches=(1,), loggers=[logger])
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Images("validation/image_0")
    with Image.open(tmp_path / "panels" / "step_000500_0.png") as picture:
        assert (event.step, event.width, event.height) == (500, *picture.size)
