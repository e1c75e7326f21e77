"""The Lightning data module: training patches and whole validation scenes."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from geosr.config.schema import Config
from geosr.data.scenes import PatchDataset, read_scenes
from geosr.errors import ConfigError
from geosr.io.raster import Raster


class ScenesDataModule(L.LightningDataModule):
    """Batches ``{"hr": (batch, band, y, x)}`` for training; ``{"hr": (1, band, y, x), "valid": (1, y, x)}`` scenes to validate on."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        data = config.Data
        if not data.train_scenes or not data.val_scenes:
            raise ConfigError("Data.train_scenes and Data.val_scenes must each name a scene")
        self.train = read_scenes(data.root, data.train_scenes, data.bands, data.exclude)
        self.val = read_scenes(data.root, data.val_scenes, data.bands)
        both = sorted(set(self.train) & set(self.val))
        if both:
            raise ConfigError(f"{', '.join(both)}: in Data.train_scenes and in Data.val_scenes; validation would flatter")

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Per-band mean and standard deviation of the valid training reflectance."""
        pixels = np.concatenate([raster.array[:, raster.valid] for raster in self.train.values()], axis=1)
        return [round(float(v), 4) for v in pixels.mean(1)], [round(float(v), 4) for v in pixels.std(1)]

    def describe(self) -> str:
        """What there is to train and validate on, in a sentence."""
        pixels = [sum(int(raster.valid.sum()) for raster in part.values()) / 1e6 for part in (self.train, self.val)]
        return (
            f"{len(self.train)} scenes with {pixels[0]:.2f} million valid pixels to train on, "
            f"{len(self.val)} with {pixels[1]:.2f} million to validate on"
        )

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """As many batches as ``Training.max_steps``."""
        data, training = self.config.Data, self.config.Training
        dataset = PatchDataset(
            self.train,
            size=data.patch_size * self.config.Generator.scaling_factor,
            length=training.max_steps * data.train_batch_size,
            detail=data.detail,
            gain=data.gain,
            seed=training.seed,
        )
        return DataLoader(dataset, batch_size=data.train_batch_size, num_workers=data.num_workers, drop_last=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """One whole scene a batch, cut to a multiple of the scale."""
        scenes = [whole_scene(raster, self.config.Generator.scaling_factor) for raster in self.val.values()]
        return DataLoader(scenes, batch_size=1)  # type: ignore[arg-type]

    def sources(self) -> dict[str, list[str]]:
        """Names of the scenes, for the weights file."""
        return {"train": [Path(name).as_posix() for name in self.train], "val": [Path(name).as_posix() for name in self.val]}


def whole_scene(raster: Raster, scale: int) -> dict[str, Tensor]:
    """``hr`` reflectance (band, y, x) and ``valid`` (y, x), cut to a multiple of ``scale``; invalid pixels are 0."""
    height, width = (size // scale * scale for size in raster.valid.shape)
    hr = np.nan_to_num(raster.array[:, :height, :width])
    return {"hr": torch.from_numpy(hr), "valid": torch.from_numpy(raster.valid[:height, :width])}
