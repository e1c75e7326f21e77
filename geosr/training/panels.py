"""Pictures of validation images: LR, bicubic, SR, HR, the error and the mean spectra, in one PNG each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torch import Tensor

from geosr import files
from geosr.sensors import RGB, shown_bands
from geosr.training.folder import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "panels"
"""Where the pictures are, in the folder of a run."""
SIDE = 192
"""HR pixels along a side that are shown of a large scene."""
GAMMA = 1 / 1.4
"""Brightness is reflectance, stretched, to this power."""
INVALID = (0.85, 0.35, 0.75)
"""Colour of invalid pixels, which no land has."""
PLACES = (
    (0.01, 0.5, 0.31, 0.42), (0.345, 0.5, 0.31, 0.42), (0.68, 0.5, 0.31, 0.42),
    (0.01, 0.03, 0.31, 0.42), (0.345, 0.03, 0.31, 0.42), (0.76, 0.06, 0.22, 0.38), (0.66, 0.06, 0.012, 0.36),
)  # fmt: skip
"""Left, bottom, width and height of LR, bicubic, SR; HR, error, spectra; and of the error's colours."""
LINES = (("HR", "black", "-"), ("SR", "tab:red", "--"), ("bicubic", "tab:blue", ":"))

NAMES = ("lr", "sr", "hr", "bicubic", "valid")

Images = Mapping[str, NDArray[np.float32]]


class Panels(Callback):
    """Draws the first images of each validation to ``panels/step_000500_0.png``, TensorBoard and Weights & Biases.

    What ``validation_step`` returns is drawn: ``lr``, ``sr``, ``hr``, ``bicubic`` (batch, band, y, x) and ``valid``
    (batch, y, x).

    Args:
        folder: The run's folder.
        bands: Names of the bands: B04, B03, B02 are shown in colour where all are there, else the first one in grey.
        count: Images per validation; 0 draws none.
    """

    def __init__(self, folder: Path, bands: Sequence[str], count: int) -> None:
        self.folder, self.bands, self.count = folder / FOLDER, tuple(bands), count
        self.drawn = 0

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin with the first image again."""
        self.drawn = 0

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the images of a batch, as long as there are some to draw."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        for index in range(min(len(outputs["hr"]), self.count - self.drawn)):
            images = {name: _to_numpy(outputs[name][index]) for name in NAMES}
            self._draw(images, pl_module.step, trainer.loggers)
            self.drawn += 1

    def _draw(self, images: Images, step: int, loggers: Sequence[Any]) -> None:
        picture = draw_panel(images, self.bands, title=f"step {step:,}, image {self.drawn}")
        path = self.folder / f"step_{step:06d}_{self.drawn}.png"
        with writing(path):
            self.folder.mkdir(exist_ok=True)
            with files.replacing(path, sync=False) as unfinished:
                picture.savefig(unfinished)
        shown = [logger for logger in loggers if isinstance(logger, TensorBoardLogger | WandbLogger)]
        pixels = np.asarray(picture.canvas.buffer_rgba())[..., :3] if shown else None  # type: ignore[attr-defined]
        for logger in shown:
            name = f"validation/image_{self.drawn}"
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, pixels, step, dataformats="HWC")
            else:
                logger.log_image(name, [pixels], step=step)


def draw_panel(images: Images, bands: Sequence[str], *, title: str) -> "Figure":
    """A figure of one validation image: five pictures and the mean spectra.

    All pictures have one stretch, from the 1st to the 99th percentile of HR. The error is the mean over bands, and its
    colours end at the 99th percentile of that of bicubic interpolation, so pictures of different steps compare.

    Args:
        images: ``lr``, ``sr``, ``hr``, ``bicubic`` (band, y, x) and ``valid`` (y, x), which is True where HR holds.
        bands: Names of the bands.
        title: What stands above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images = most_detailed(images)
    hr = images["hr"]
    valid: NDArray[np.bool_] = images["valid"].astype(bool)
    scale = valid.shape[0] // images["lr"].shape[1]
    any_valid = np.asarray(valid.reshape(valid.shape[0] // scale, scale, -1, scale).any(axis=(1, 3)))
    shown = [bands.index(name) for name in shown_bands(bands)]
    low, high = stretch(hr[shown][:, valid])

    figure = Figure(figsize=(9.6, 6.8), dpi=90)
    FigureCanvasAgg(figure)
    colours = " ".join(RGB) if len(set(shown)) == 3 else bands[0]
    figure.suptitle(f"{title}: {colours}, reflectance {low:.3f} to {high:.3f}", fontsize=11, x=0.01, ha="left")
    axes = [figure.add_axes(place) for place in PLACES]
    for axis, (name, image) in zip(
        axes[:4],
        [("LR", images["lr"]), ("bicubic", images["bicubic"]), ("SR", images["sr"]), ("HR", hr)],
        strict=True,
    ):
        brightness = ((image[shown] - low) / (high - low)).clip(0, 1) ** GAMMA
        mask = any_valid if name == "LR" else valid
        axis.imshow(np.where(mask[..., None], brightness.transpose(1, 2, 0), INVALID), interpolation="nearest")
        decibels = "" if name in ("LR", "HR") else f", {_psnr(image, hr, valid):.2f} dB"
        axis.set_title(name + decibels, fontsize=10)
    _draw_error(axes[4], axes[6], images, valid)
    for axis in axes[:5]:
        axis.set_axis_off()
    _draw_spectra(axes[5], images, valid, bands)
    return figure


def _draw_error(axis: "Axes", bar: "Axes", images: Images, valid: NDArray[np.bool_]) -> None:
    from matplotlib import colormaps

    error, theirs = (np.abs(images[name] - images["hr"]).mean(axis=0) for name in ("sr", "bicubic"))
    _, end = stretch(theirs[valid])
    colours = colormaps["magma"].with_extremes(bad=INVALID)
    masked = np.ma.masked_where(~valid, error)
    shown = axis.imshow(masked, cmap=colours, vmin=0, vmax=end, interpolation="nearest")
    axis.set_title(f"|SR - HR|, mean {masked.mean():.4f}" if valid.any() else "|SR - HR|", fontsize=10)
    axis.figure.colorbar(shown, cax=bar)  # type: ignore[union-attr]
    bar.tick_params(labelsize=7, pad=1)


def _draw_spectra(axis: "Axes", images: Images, valid: NDArray[np.bool_], bands: Sequence[str]) -> None:
    if valid.any():
        for name, colour, style in LINES:
            means = images[name.lower()][:, valid].mean(axis=1)
            axis.plot(range(len(bands)), means, style, color=colour, marker="o", markersize=3, label=name)
        axis.legend(fontsize=8, frameon=False)
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0), max(high, 0) * 1.05)
    axis.set_title("mean reflectance", fontsize=10)
    axis.set_xticks(range(len(bands)), bands, rotation=90 if len(bands) > 6 else 0)
    axis.tick_params(labelsize=7, pad=2)


def most_detailed(images: Images, *, side: int = SIDE) -> Images:
    """The square of HR with the largest differences between valid neighbours, of every image; smaller ones are whole.

    It starts and ends on LR pixels, and depends on HR alone, so it is the same in every validation.

    Args:
        images: As in `draw_panel`.
        side: HR pixels along the square.
    """
    valid: NDArray[np.bool_] = images["valid"].astype(bool)
    scale = valid.shape[0] // images["lr"].shape[1]
    grey = np.where(valid, images["hr"].mean(axis=0), 0).astype(np.float64)
    detail = np.zeros_like(grey)
    detail[1:] += np.abs(np.diff(grey, axis=0)) * (valid[1:] & valid[:-1])
    detail[:, 1:] += np.abs(np.diff(grey, axis=1)) * (valid[:, 1:] & valid[:, :-1])
    sums = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))[::scale, ::scale]
    tall, wide = (min(max(side // scale, 1), length // scale) for length in valid.shape)
    found = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    row, column = (int(place) for place in np.unravel_index(found.argmax(), found.shape))

    def cut(image: NDArray[np.float32], times: int) -> NDArray[np.float32]:
        return image[..., row * times : (row + tall) * times, column * times : (column + wide) * times]

    return {name: cut(image, 1 if name == "lr" else scale) for name, image in images.items()}


def stretch(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 1st and the 99th percentile, which are never the same; 0 and 1 of nothing."""
    low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def _psnr(image: NDArray[np.float32], hr: NDArray[np.float32], valid: NDArray[np.bool_]) -> float:
    """dB for a peak of 1 over the valid pixels that are shown."""
    error = np.square(image - hr, dtype=np.float64)[:, valid]
    return float(-10 * np.log10(error.mean())) if error.any() else float("inf")


def _to_numpy(image: Tensor) -> NDArray[Any]:
    return image.detach().float().cpu().numpy()
