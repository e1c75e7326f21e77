"""The Lightning data module: training patches and whole validation scenes."""

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from geosr.config.schema import Config
from geosr.data.scenes import PatchDataset, read_scenes, rows_and_columns
from geosr.errors import ConfigError
from geosr.io.raster import Raster

SMALLEST_SCENE = 32
"""HR pixels along a side of a validation scene: its border does not count, and SSIM's window of 11 must fit inside."""


class ScenesDataModule(L.LightningDataModule):
    """Batches of reflectance that LR images are made from.

    For training ``{"hr": (batch, band, y, x)}``, for validation whole scenes ``{"hr": (1, band, y, x), "valid":
    (1, y, x)}``.

    Raises:
        ConfigError: A scene is missing, too small, or in both parts.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        data = config.Data
        if not data.train_scenes or not data.val_scenes:
            raise ConfigError("Data.train_scenes and Data.val_scenes must each name a scene")
        self.train = read_scenes(data.root, data.train_scenes, data.bands, exclude=data.exclude)
        self.val = read_scenes(data.root, data.val_scenes, data.bands, windows=data.val_windows)
        for name, raster in self.val.items():
            self._require_fit_to_validate(name, raster)
        self.patches = PatchDataset(
            self.train,
            size=data.patch_size * config.Generator.scaling_factor,
            length=config.Training.max_steps * data.train_batch_size,
            detail=data.detail,
            gain=data.gain,
            seed=config.Training.seed,
        )

    def _require_fit_to_validate(self, name: str, raster: Raster) -> None:
        """Raise unless the scene is large enough and none of its pixels is trained on."""
        height, width = raster.valid.shape
        if min(height, width) < SMALLEST_SCENE or not raster.valid.any():
            raise ConfigError(
                f"{name} has {height} x {width} pixels to validate on, {raster.valid.sum()} of them valid; "
                f"it needs {SMALLEST_SCENE} x {SMALLEST_SCENE} with valid ones"
            )
        if name not in self.train:
            return
        trained = self.train[name].valid
        if name in self.config.Data.val_windows:
            trained = trained[rows_and_columns(self.config.Data.val_windows[name], name, trained.shape)]
        if trained.any():
            raise ConfigError(
                f"{name} is in Data.train_scenes and in Data.val_scenes, so validation would flatter; keep what is "
                "validated on out of training with Data.exclude, or validate on another part with Data.val_windows"
            )

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Per-band mean and standard deviation of the valid training reflectance."""
        pixels = np.concatenate([raster.array[:, raster.valid] for raster in self.train.values()], axis=1)
        mean, deviation = pixels.mean(1), np.maximum(pixels.std(1), 1e-4)  # a band may be constant
        return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in deviation]

    def describe(self) -> str:
        """What there is to train and validate on, in a sentence."""
        pixels = [sum(int(raster.valid.sum()) for raster in part.values()) / 1e6 for part in (self.train, self.val)]
        return (
            f"{pixels[0]:.2f} million valid pixels to train on (scenes: {len(self.train)}), "
            f"{pixels[1]:.2f} million to validate on (scenes: {len(self.val)})"
        )

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """As many batches as ``Training.max_steps``."""
        data = self.config.Data
        return DataLoader(self.patches, batch_size=data.train_batch_size, num_workers=data.num_workers, drop_last=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """One whole scene a batch, cut to a multiple of the scale."""
        scenes = [whole_scene(raster, self.config.Generator.scaling_factor) for raster in self.val.values()]
        return DataLoader(scenes, batch_size=1)  # type: ignore[arg-type]

    def sources(self) -> dict[str, list[str]]:
        """Names of the scenes, for the weights file."""
        return {"train": list(self.train), "val": list(self.val)}


def whole_scene(raster: Raster, scale: int) -> dict[str, Tensor]:
    """``hr`` reflectance (band, y, x) and ``valid`` (y, x), cut to a multiple of ``scale``; invalid pixels are 0."""
    height, width = (size // scale * scale for size in raster.valid.shape)
    hr = np.nan_to_num(raster.array[:, :height, :width])
    return {"hr": torch.from_numpy(hr), "valid": torch.from_numpy(raster.valid[:height, :width])}
