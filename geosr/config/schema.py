"""Every setting of a training run, its type, unit and default. Sections and keys are those of opensr-srgan."""

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from geosr.config.degradation import DegradationSection


@dataclass
class DataSection:
    """Scenes, and how patches are cut from them."""

    dataset_type: str = "scenes"
    """scenes (LR is made by the degradation), pairs (LR and HR images of two folders) or store (of geosr prepare)."""
    root: str = "../shared/data"
    """Folder that the scene paths are relative to; ``demo`` is that of the scene that comes with geosr. A store of
    ``geosr prepare`` is known as one, brings its own split, and has no use for the lists of scenes and windows."""
    lr_root: str | None = None
    """Folder of the LR images of ``pairs``, matched by name; ``root`` is that of the HR images."""
    catalog: str | None = None
    """A data set of the catalogue (``geosr data list``), downloaded to ``root``."""
    train_scenes: list[str] = field(default_factory=list)
    """HR rasters to train on; globs are allowed."""
    val_scenes: list[str] = field(default_factory=list)
    """HR rasters to validate on, none of whose places may be trained on. Without any, ``split`` keeps some blocks."""
    exclude: dict[str, list[int]] = field(default_factory=dict)
    """Windows kept out of training: scene -> [row, column, height, width], in HR pixels."""
    val_windows: dict[str, list[int]] = field(default_factory=dict)
    """Windows to validate on, where it is not the whole scene: scene -> [row, column, height, width]."""
    split: list[float] = field(default_factory=lambda: [0.8, 0.1, 0.1])
    """Shares of train, validation and test, where no ``val_scenes`` are named."""
    split_block: float = 2560.0
    """Side (m) of the blocks of ground that the split deals out whole."""
    split_buffer: float = 0.0
    """Metres that training patches keep away from blocks of another part."""
    val_patches: int = 256
    """Largest number of patches to validate on, where whole scenes are not."""
    bands: list[str] = field(default_factory=lambda: ["B02", "B03", "B04", "B08"])
    gsd: float | None = None
    """Ground sampling distance (m) of the images that the model will be applied to."""
    patch_size: int = 48
    """LR pixels along one side of a training patch."""
    stride: int = 8
    """HR pixels between the places where a patch may start."""
    min_valid: float = 1.0
    """Smallest share of valid pixels in a patch."""
    cache: str = "none"
    """none, or memory: scenes are decoded once, and patches cut by the process that trains; workers are not needed."""
    train_batch_size: int = 16
    val_batch_size: int = 8
    num_workers: int = 0
    prefetch_factor: int = 2
    """Batches that each worker reads ahead."""
    pin_memory: bool = True
    """Batches for a GPU wait in page-locked memory."""
    persistent_workers: bool = True
    start_method: str | None = None
    """How workers start: fork, spawn, forkserver; null is Python's own choice."""
    detail: float = 0.5
    """Patches are drawn in proportion to (local detail) ** detail; 0 draws them uniformly."""
    gain: float = 1.4
    """Patches are multiplied by a random factor between 1/gain and gain, the same for all bands; 1 switches it off."""
    band_gain: float = 1.0
    """The same, with a factor for each band."""
    noise: float = 0.0
    """Reflectance: white noise is added to LR, of a standard deviation drawn up to this."""
    cutblur: float = 0.0
    """Share of the patches in which a rectangle of LR is replaced by the block means of HR."""


@dataclass
class ModelSection:
    """What the exported weights file is called, and what it starts from."""

    name: str = "model"
    load_checkpoint: str | None = None
    """Weights file (.safetensors) whose network weights training starts from."""
    licence: str = "Apache-2.0"


@dataclass
class GeneratorSection:
    """The network."""

    model_type: str = "compact"
    scaling_factor: int = 2
    n_channels: int = 64
    n_blocks: int = 10
    consistency: bool = True
    """Project the output onto the images that degrade to the input; see geosr.models.consistency."""


@dataclass
class EMASection:
    """Exponential moving average of the weights, which is what is validated and exported."""

    enabled: bool = True
    decay: float = 0.999


@dataclass
class LossesSection:
    """Weights of the loss terms."""

    l1_weight: float = 1.0
    l1_gt_usm: bool = False
    """Compare with a sharpened HR image (unsharp mask), as Real-ESRGAN does; reflectance is then no longer kept."""


@dataclass
class TrainingSection:
    """Length and arithmetic of the run. Steps are generator updates."""

    max_steps: int = 10_000
    val_every: int = 500
    precision: str = "auto"
    """auto (bfloat16 where the hardware multiplies it), 32-true, bf16-mixed."""
    accelerator: str = "auto"
    """auto, cpu, gpu, cuda or mps."""
    seed: int = 0
    gradient_clip_val: float = 1.0
    Losses: LossesSection = field(default_factory=LossesSection)
    EMA: EMASection = field(default_factory=EMASection)


@dataclass
class OptimizersSection:
    """Adam on the generator."""

    optim_g_lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])


@dataclass
class SchedulersSection:
    """Linear warm-up, then a cosine to zero at ``Training.max_steps``."""

    g_warmup_steps: int = 200


@dataclass
class LoggingSection:
    """Where a run writes."""

    dir: str = "runs"


@dataclass
class Config:
    """A training run."""

    Data: DataSection = field(default_factory=DataSection)
    Degradation: DegradationSection = field(default_factory=DegradationSection)
    Model: ModelSection = field(default_factory=ModelSection)
    Generator: GeneratorSection = field(default_factory=GeneratorSection)
    Training: TrainingSection = field(default_factory=TrainingSection)
    Optimizers: OptimizersSection = field(default_factory=OptimizersSection)
    Schedulers: SchedulersSection = field(default_factory=SchedulersSection)
    Logging: LoggingSection = field(default_factory=LoggingSection)

    def to_dict(self) -> dict[str, Any]:
        """The resolved settings as plain values."""
        return asdict(self)


def settings(section: type = Config, prefix: str = "") -> dict[str, str]:
    """Every section and setting by its dotted key, with the type of its value.

    >>> settings()["Data.gsd"], settings()["Training.EMA"]
    ('float | None', 'EMASection')
    """
    known = {}
    for entry in fields(section):
        kind: Any = entry.type
        known[prefix + entry.name] = kind.__name__ if isinstance(kind, type) else str(kind)
        if isinstance(kind, type) and is_dataclass(kind):
            known |= settings(kind, f"{prefix}{entry.name}.")
    return known
