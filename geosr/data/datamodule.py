"""The Lightning data module: batches of LR and HR reflectance, augmented and degraded on the device."""

from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from geosr.config.schedule import Schedule
from geosr.config.schema import Config
from geosr.data import augment
from geosr.data.batches import collate
from geosr.data.datasets import GeoPairDataset, SceneDataset
from geosr.data.patches import PatchTable, SceneFiles
from geosr.data.reduced import See, reduced
from geosr.data.samplers import PatchSampler, UpdateSampler
from geosr.data.scenes import select_scenes, without_lr
from geosr.data.splits import BlockSplit, hashed
from geosr.degrade import PSF, Degradation, PairPool, build_degradation, degrade, nominal_mtf
from geosr.degrade.masks import coarse_valid, filled
from geosr.errors import ConfigError
from geosr.grid import resolution_m
from geosr.io.raster import Raster
from geosr.io.scene import open_scene

SMALLEST_SCENE = 32
"""HR pixels along a side of a validation image: its border does not count, and SSIM's window of 11 must fit inside."""
TRAIN, VAL, TEST = 0, 1, 2
"""Parts of a split, as `PatchTable.split` counts them."""
NORMALISED_ON = 512
"""Training patches whose pixels say what mean and deviation the network's input has."""

Batch = dict[str, Tensor]


class GeoSRDataModule(L.LightningDataModule):
    """Batches ``{"lr", "hr": (batch, band, y, x), "lr_valid", "valid": (batch, y, x)}``: reflectance and masks.

    What the ``Data`` section names decides where they come from: single scenes and pairs of them in any format that
    geosr reads, a store of ``geosr prepare``, a data set of the catalogue. Workers only read; orientation, gain, noise
    and the degradation run on the device, and their random numbers depend on seed and batch number alone. So the same
    seed gives the same batches with any number of workers.

    TorchGeo's own ``GeoDataModule`` is not its base: it builds samplers from one dataset class and its arguments, and
    what differs here (a patch table, splits by block, validation on whole scenes) is all of that.

    Raises:
        ConfigError: The section does not hold, or names scenes that cannot be trained on.
    """

    train: SceneDataset

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        data, self.scale = config.Data, config.Generator.scaling_factor
        self.size = data.patch_size * self.scale
        self.bands = (*data.guide, *data.bands)
        self.step = self.scale if data.guide else 1
        """Pixels that are read along the side of one that is trained on."""
        self.selection = select_scenes(data)
        self.makes_lr = without_lr((*self.selection.train, *self.selection.val))
        self.train = self._dataset(self.selection.train, self.size * self.step)
        table = self.train.table if self.selection.table is None else self._of_store(self.selection.table)
        self.table = table
        self.patches = table.select(table.split == TRAIN)
        self.val = self._validation(table)
        self.degradation = build_degradation(config.Degradation, scale=self.scale, bands=data.bands)
        self.guide_degradation = build_degradation(config.Degradation, scale=self.scale, bands=data.guide or data.bands)
        mtf = config.Degradation.sensor.mtf
        self.psf = PSF(self.scale, nominal_mtf(mtf, data.bands))
        self.guide_psf = PSF(self.scale, nominal_mtf(mtf, data.guide or data.bands))
        self.pool = PairPool(config.Degradation.queue_size if config.Degradation.type != "sensor" else 0)
        self.schedule = Schedule.of(config, self.updates())
        self.batches_made = 0
        self.arrived = 0.0
        """When the last batch came out of the loader, by `time.perf_counter`."""

    # What there is

    def _dataset(self, scenes: Sequence[SceneFiles], size: int, *, split: bool = True) -> SceneDataset:
        """Patches of scenes, alone or in pairs, that a block split parts where nothing else does."""
        data = self.config.Data
        parts = split and not self.selection.val and self.selection.table is None
        given: dict[str, Any] = {
            "size": size,
            "stride": data.stride,
            "split": BlockSplit(tuple(data.split), data.split_block, data.split_buffer) if parts else None,  # type: ignore[arg-type]
            "min_valid": data.min_valid,
            "cache": data.cache,
            "stand_ins": data.stand_ins,
        }
        if self.makes_lr:
            return SceneDataset(scenes, self.bands, unit=self.step, **given)
        return GeoPairDataset(scenes, data.bands, scale=self.scale, **given)

    def _of_store(self, table: PatchTable) -> PatchTable:
        """A store's patches, which must be at least as large as those that are trained on."""
        if table.size < self.size:
            raise ConfigError(
                f"{self.config.Data.root} has patches of {table.size} HR pixels; Data.patch_size "
                f"{self.config.Data.patch_size} at scale {self.scale} needs {self.size}: lower it, or prepare with "
                f"--patch {self.size}"
            )
        kept = table.select(table.valid >= self.config.Data.min_valid)
        for part, name in ((TRAIN, "train on"), (VAL, "validate on")):
            if not (kept.split == part).any():
                raise ConfigError(
                    f"{self.config.Data.root} has no patch to {name} with {self.config.Data.min_valid:.0%} valid "
                    "pixels; lower Data.min_valid, or prepare it with another --split"
                )
        return kept

    def _validation(self, table: PatchTable) -> Dataset[Batch]:
        """Whole scenes where the configuration names them, else the patches that the split keeps for validation."""
        data = self.config.Data
        if self.selection.val and self.makes_lr:
            return WholeScenes(self.selection.val, self.bands, self.scale, step=self.step)
        if self.selection.val:
            apart = self._dataset(self.selection.val, self.size * self.step, split=False)
            return Patches(apart, separate(apart.table, data.val_patches))
        kept = separate(table.select(table.split == VAL), data.val_patches)
        if not len(kept):
            raise ConfigError("no patch is left to validate on; name Data.val_scenes, or give it a share of Data.split")
        return Patches(self.train.resized(table.size), kept)

    def updates(self) -> int:
        """Generator updates of the run: ``Training.max_steps``, or those of its epochs where they are fewer."""
        training = self.config.Training
        limits = [] if training.max_steps is None else [training.max_steps]
        if training.max_epochs is not None:
            limits.append(training.max_epochs * self.updates_per_epoch)
        return min(limits)

    @property
    def updates_per_epoch(self) -> int:
        """Updates in which as many patches are seen as there are places for them."""
        training = self.config.Training
        at_once = self.config.Data.train_batch_size * training.accumulate_grad_batches * training.devices
        return -(-len(self.patches) // at_once)

    def patches_for(self, update: int) -> int:
        """Patches that one process needs for an update, those of the discriminator's further updates included."""
        training = self.config.Training
        rounds = 1 if self.schedule.is_pretraining(update) else training.d_steps_per_g
        return self.config.Data.train_batch_size * training.accumulate_grad_batches * rounds

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Per-band mean and standard deviation of the valid reflectance of some training patches."""
        several = min(NORMALISED_ON, len(self.patches))
        # Evenly over the table: what is drawn more often (detail) is not what the network will meet more often.
        chosen = np.unique(np.linspace(0, len(self.patches) - 1, several).astype(int))
        total = squares = torch.zeros(len(self.bands), dtype=torch.float64)
        count = 0
        for index in chosen:
            sample = self.train[self.patches[int(index)]]
            pixels = sample["hr"][:, sample["valid"]].double()
            total, squares = total + pixels.sum(1), squares + pixels.square().sum(1)
            count += pixels.shape[1]
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1e-4)  # a band may be constant
        return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in deviation]

    def describe(self) -> str:
        """What there is to train and validate on, a few lines."""
        data, table = self.config.Data, self.table
        sides = [(geobox.shape, resolution_m(geobox)) for geobox in self.train.geoboxes]
        area = sum(shape[0] * shape[1] * side**2 / 1e6 for shape, side in sides if side is not None)
        split = [int((table.split == part).sum()) for part in (TRAIN, VAL, TEST)]
        covered = f", {area:.1f} km²" if area else ""
        lines = [] if self.selection.notice is None else [self.selection.notice]
        lines += [
            f"training data: {_several(len(self.selection.train), 'scene')}{covered}, {' '.join(data.bands)}, "
            + (f"guided by {' '.join(data.guide)}, " if data.guide else "")
            + ("LR made by " + self.config.Degradation.type if self.makes_lr else "LR and HR pairs"),
            f"  {len(table):,} places for patches of {table.size} x {table.size} HR pixels, "
            f"{table.valid.mean():.1%} of their pixels valid",
            f"  train {split[0]:,}, validation {self.val}, test {split[2]:,}",
        ]
        return "\n".join(lines)

    def sources(self) -> dict[str, list[str]]:
        """Names of the scenes, for the weights file."""
        return {part: [scene.name for scene in getattr(self.selection, part)] for part in ("train", "val")}

    # Batches

    def train_dataloader(self) -> DataLoader[Batch]:
        """The patches of one update after another, to the end of the run; each rank draws its own."""
        data, trainer = self.config.Data, self.trainer
        ranks = 1 if trainer is None else trainer.world_size
        counts = [self.patches_for(update) for update in range(self.schedule.total)]
        draws = PatchSampler(
            self.patches,
            length=sum(counts) * ranks,
            start=sum(counts[: self.batches_made]) * ranks,
            size=self.size * self.step,
            unit=self.step if self.makes_lr else self.scale,
            seed=self.config.Training.seed,
            detail=data.detail,
            balance=data.balance,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=ranks,
        )
        sampler = UpdateSampler(draws, counts, done=self.batches_made)
        return self._loader(self.train, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Whole scenes one by one, or patches ``Data.val_batch_size`` at a time."""
        several = 1 if isinstance(self.val, WholeScenes) else self.config.Data.val_batch_size
        return self._loader(self.val, batch_size=several)

    def _loader(self, dataset: Dataset[Batch], **how: Any) -> DataLoader[Batch]:
        data = self.config.Data
        # To cut a patch out of memory takes less time than to hand it from one process to another.
        workers = 0 if data.cache == "memory" else data.num_workers
        if workers:
            how |= {"prefetch_factor": data.prefetch_factor, "persistent_workers": data.persistent_workers}
            how |= {"multiprocessing_context": data.start_method}
        pinned = data.pin_memory and torch.cuda.is_available()
        return DataLoader(dataset, num_workers=workers, collate_fn=collate, pin_memory=pinned, **how)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Take the time: until now the training waited for data, what follows is work on them."""
        self.arrived = perf_counter()
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """The batch on its device, complete: augmented and degraded for training, degraded alone for validation."""
        if self.trainer is None or not self.trainer.training:
            return self.with_lr(batch)
        seed = int(hashed(self.config.Training.seed, self.batches_made, self.trainer.global_rank)) >> 1
        self.batches_made += 1
        return self.augmented(batch, Generator().manual_seed(seed))

    def with_lr(self, batch: Batch) -> Batch:
        """The batch with the LR images of the point-spread function alone, where it has none."""
        if "lr" in batch:
            return batch
        return self._complete(batch, partial(degrade, psf=self.psf), partial(degrade, psf=self.guide_psf))

    def _complete(self, batch: Batch, see: See, see_guide: See) -> Batch:
        """The batch with LR images: of ``hr``, or at reduced resolution where a guide is a part of it."""
        if self.config.Data.guide:
            return reduced(batch, guide=len(self.config.Data.guide), step=self.step, see=see, see_guide=see_guide)
        lr = see(filled(batch["hr"], batch["valid"]))
        return {**batch, "lr": lr, "lr_valid": coarse_valid(batch["valid"], self.scale)}

    def augmented(self, batch: Batch, generator: Generator) -> Batch:
        """The batch as training sees it: other orientations, gains and degradations for each generator."""
        data = self.config.Data
        batch = augment.d4(batch, generator)
        if data.gain > 1:
            batch = augment.gain(batch, generator, limit=data.gain)
        if data.band_gain > 1:
            batch = augment.gain(batch, generator, limit=data.band_gain, per_band=True)
        if "lr" not in batch:
            see, see_guide = (partial(_seen, by, generator) for by in (self.degradation, self.guide_degradation))
            batch = self._complete(batch, see, see_guide)
        if data.noise:
            batch = augment.noise(batch, generator, deviation=data.noise)
        if data.cutblur:
            batch = augment.cutblur(batch, generator, probability=data.cutblur)
        names = tuple(batch)
        return dict(zip(names, self.pool.exchange(*batch.values(), generator=generator), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """How many batches were made, and the pool of pairs, so that a run goes on where it stopped."""
        return {"batches_made": self.batches_made, "pool": self.pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that many batches, with those pairs."""
        self.batches_made = state["batches_made"]
        self.pool.load_state_dict(state["pool"])


def _seen(degradation: Degradation, generator: Generator, image: Tensor) -> Tensor:
    """The image, degraded."""
    return degradation(image, generator=generator)[0]


class Patches(Dataset[Batch]):
    """The patches of a table, in its order."""

    def __init__(self, dataset: SceneDataset, table: PatchTable) -> None:
        self.dataset, self.table = dataset, table

    def __str__(self) -> str:
        return _several(len(self), "patch", "patches")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Batch:
        return self.dataset[self.table[index]]


class WholeScenes(Dataset[Batch]):
    """Scenes in one piece each, ``hr`` and ``valid``, cut to a multiple of the scale; invalid pixels are 0.

    Args:
        scenes: The scenes.
        bands: The bands to read.
        scale: HR pixels per LR pixel.
        step: Pixels that are read along the side of an HR pixel.

    Raises:
        ConfigError: A scene is too small to validate on, or has no valid pixel.
    """

    def __init__(self, scenes: Sequence[SceneFiles], bands: Sequence[str], scale: int, *, step: int = 1) -> None:
        self.scenes, self.bands, self.multiple_of = tuple(scenes), tuple(bands), scale * step
        self.pixels, smallest = 0, SMALLEST_SCENE * step
        for index, files in enumerate(self.scenes):
            valid = self[index]["valid"]
            height, width = valid.shape
            if min(height, width) < smallest or not valid.any():
                raise ConfigError(
                    f"{files.name} has {height} x {width} pixels to validate on, {int(valid.sum())} of them valid; "
                    f"it needs {smallest} x {smallest} with valid ones"
                )
            self.pixels += int(valid.sum())

    def __str__(self) -> str:
        return f"{_several(len(self), 'whole scene')} ({self.pixels / 1e6:.2f} million valid pixels)"

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Batch:
        files = self.scenes[index]
        with open_scene(files.hr) as scene:
            return whole_scene(scene.read(files.window, self.bands), self.multiple_of)


def whole_scene(raster: Raster, scale: int) -> Batch:
    """``hr`` reflectance (band, y, x) and ``valid`` (y, x), cut to a multiple of ``scale``; invalid pixels are 0."""
    height, width = (length // scale * scale for length in raster.valid.shape)
    hr = np.nan_to_num(raster.array[:, :height, :width])
    return {"hr": torch.from_numpy(hr), "valid": torch.from_numpy(raster.valid[:height, :width])}


def separate(table: PatchTable, limit: int) -> PatchTable:
    """At most ``limit`` patches spread over the table, one for each cell of a grid of patch size."""
    cells = np.stack([table.scene, table.row // table.size, table.column // table.size], axis=1)
    first = np.sort(np.unique(cells, axis=0, return_index=True)[1])
    spread = np.unique(np.linspace(0, len(first) - 1, min(limit, len(first))).astype(int))
    return table.select(first[spread])


def _several(count: int, one: str, more: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"
