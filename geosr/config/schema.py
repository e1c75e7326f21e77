"""Every setting of a training run, its type, unit and default. Sections and keys are those of opensr-srgan."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from geosr.config.degradation import DegradationSection


@dataclass
class DataSection:
    """Scenes, and how patches are cut from them."""

    dataset_type: str = "scenes"
    """scenes (LR is made by the degradation), pairs (LR and HR images of two folders) or store (of geosr prepare)."""
    root: str = "."
    """Folder that the scene paths are relative to; ``demo`` is that of the scene that comes with geosr, ``example``
    that of a set to try training on. A store of ``geosr prepare`` is known as one, brings its own split, and has no use
    for the lists of scenes and windows."""
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
    stand_ins: dict[str, str] = field(default_factory=dict)
    """Bands that take the place of others in scenes that lack those, such as ``B02: B03``: a scene without blue still
    teaches what edges look like. Scenes of ``val_scenes`` must have them all."""
    guide: list[str] = field(default_factory=list)
    """Bands that show the way to ``bands``, which are sampled ``Generator.scaling_factor`` times coarser; of scenes
    alone. The network learns with pixels as many times larger (Wald's protocol): from the degraded guide and the
    degraded ``bands`` what the ``bands`` are."""
    companions: dict[str, str] = field(default_factory=dict)
    """Where the coarser bands of a scene are in a file of their own: the end of the scene's name -> that of the file's,
    such as {_10m.tif: _20m.tif}. A scene whose name has none of these ends holds all bands; where these are on one
    grid, ``bands`` are degraded to a coarser one first. Windows count on what the files of a scene share."""
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
    balance: float = 0.0
    """Scenes are drawn in proportion to (places for patches) ** (1 - balance); 0 draws places alike, so that a large
    scene leaves little for small ones, 1 draws scenes alike."""
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
    """Weights that training starts from: a shipped name, a .safetensors file or hf://owner/repo/file@revision#sha256=...
    (of the generator), or a checkpoint (.ckpt) or run folder, whose discriminator is taken over too where both have
    one. Optimisers and schedules start anew."""
    continue_training: str | None = None
    """Go on where an earlier run stopped, with everything it knew: its folder or checkpoint, or ``auto`` for the latest
    run of this name."""
    variant: str = "standard"
    """standard (a measurement), fast (large areas) or detail (for the eye): what ``geosr predict`` chooses it for."""
    licence: str = "Apache-2.0"


@dataclass
class GeneratorSection:
    """The network that super-resolves."""

    class_path: str | None = None
    """A network of your own instead of ``model_type``: ``package.module.Class``, built from ``bands``, ``scale`` and
    ``init_args``. It is given normalised LR, and with ``global_skip`` learns what bicubic interpolation misses."""
    init_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of that class; the sizes below are not passed to it."""
    model_type: str = "compact"
    """compact, srresnet, res, rcab, rrdb, lka, esrgan, guided, plksr, swinir or stochastic; see ``geosr models
    --architectures``."""
    scaling_factor: int = 2
    """SR pixels per LR pixel along each axis; of guided, guide pixels per pixel of the other bands."""
    n_channels: int = 64
    """Feature channels; of swinir 60 in the size published as light, 180 in the classic one."""
    n_blocks: int = 10
    """Blocks; of swinir groups of layers, 4 in the size published as light, 6 in the classic one."""
    large_kernel_size: int = 9
    """Side of the first and the last kernel of srresnet, res, rcab, rrdb, lka and stochastic; of the partial kernels of
    plksr, which was published with 17, and with 13 in the small size."""
    small_kernel_size: int = 3
    """Side of their other kernels."""
    growth_channels: int = 32
    """Channels that each convolution adds in a dense block of rrdb and esrgan."""
    res_scale: float = 0.2
    """Factor on the residual branch of a block; not of srresnet, compact, plksr and swinir."""
    reduction: int = 16
    """Channels over those in the bottleneck of rcab's attention."""
    noise_dim: int = 16
    """Numbers that stochastic draws, for each LR pixel or for the image."""
    noise_field: bool = True
    """Whether stochastic draws for each LR pixel; false: one vector for the image, as opensr-srgan's stochastic_gan."""
    depth: int = 6
    """Attention layers in a group of swinir; every second one has shifted windows."""
    n_heads: int = 4
    """Heads of swinir's attention, which share the channels; 6 in both published sizes."""
    window_size: int = 8
    """Side of swinir's windows of attention, LR pixels."""
    upsampler: str = "pixelshuffle"
    """How swinir enlarges: pixelshuffle (a stage for each prime factor, as in the classic size) or pixelshuffledirect
    (a single one, as in the light size)."""
    use_icnr: bool = True
    """Start the convolutions before a pixel shuffle as a nearest-neighbour enlargement, so that no grid shows; not of
    compact, esrgan and plksr."""
    global_skip: bool = True
    """Add the network's output to the bicubic-upsampled input, which leaves it only what that misses; compact always
    does."""
    consistency: bool = True
    """Project the output onto the images that degrade to the input; see geosr.models.consistency."""


@dataclass
class DiscriminatorSection:
    """The network that tells SR from HR; only in training."""

    model_type: str = "patchgan"
    """srgan (one score an image), patchgan (one a patch), esrgan (one an image, VGG-like), unet_sn (one a pixel) or
    multiscale (a patchgan on the image, one on the image halved, and so on)."""
    n_blocks: int | None = None
    """Convolution blocks of srgan (null: 8) and stride-2 layers of patchgan and multiscale (null: 3)."""
    n_scales: int = 3
    """How many scales multiscale looks at; each doubles the patch that it needs."""
    base_channels: int = 64
    """Channels of the first layer."""
    linear_size: int = 1024
    """Hidden units of the head of srgan and esrgan."""
    norm: str | None = None
    """Normalisation between the convolutions: none, batch or instance. null is what each network is published with:
    batch of srgan and esrgan, instance of patchgan and multiscale, none of unet_sn."""
    use_spectral_norm: bool | None = None
    """Divide each weight by its largest singular value; null: unet_sn does (all but its first and last), no other."""
    conditional: bool = False
    """Show it the bicubic-upsampled LR beside SR and HR, so that it judges whether they belong together, not only
    whether they look real."""
    detail: bool = False
    """Show it what bicubic interpolation of LR misses instead of the image, each band in units of how much that is in
    HR: a band of much contrast and little detail, such as B08, then counts as much as the others."""


@dataclass
class EMASection:
    """Exponential moving average of the generator's weights, which is what is validated and exported."""

    enabled: bool = True
    decay: float = 0.999
    update_after_step: int = 0
    """Generator updates before the average starts; until then the live weights are validated."""
    use_num_updates: bool = True
    """Start with a smaller decay, (1 + n) / (10 + n) after n updates of the average."""
    device: str | None = None
    """Where the average is kept; null is where the model is, cpu saves memory of the GPU."""


@dataclass
class LossesSection:
    """Weights of the loss terms; one without weight is not computed, but for l1, sam and tv, which are logged."""

    l1_weight: float = 1.0
    """Mean absolute error, reflectance."""
    charbonnier_weight: float = 0.0
    """Mean of sqrt(error^2 + eps^2), reflectance: like l1, and smooth where the error is small."""
    charbonnier_eps: float = 1e-3
    """Reflectance below which an error is small."""
    mse_weight: float = 0.0
    """Mean squared error, reflectance squared."""
    band_weights: dict[str, float] = field(default_factory=dict)
    """How much a band counts in l1, charbonnier and mse, by name; one that is not named: 1. The mean is weighted, so
    only their proportions matter. Validations weigh all bands of l1 alike."""
    fft_weight: float = 0.0
    """Focal frequency loss: squared differences of Fourier coefficients, weighted by their size; reflectance
    squared."""
    fft_alpha: float = 1.0
    """How much more the coefficients that are far off count; 0: all alike, which is mse."""
    spectrum_weight: float = 0.0
    """Mean absolute difference of the power spectra of windows of 32 x 32 pixels, dB: as much detail as in HR, wherever
    it lies. A few thousandths beside l1 bring the detail back that l1 averages away."""
    gradient_weight: float = 0.0
    """Mean absolute error of the steps from pixel to pixel, reflectance."""
    sam_weight: float = 0.0
    """Mean spectral angle, radians."""
    indices_weight: float = 0.0
    """Mean absolute error of the spectral indices that the bands allow: NDVI, NDWI, NDMI, NBR, NDRE."""
    tv_weight: float = 0.0
    """Total variation of SR, reflectance."""
    tv_kind: str = "anisotropic"
    """anisotropic (|dy| + |dx|) or isotropic (the length of the gradient)."""
    consistency_weight: float = 0.0
    """Mean absolute difference between SR, degraded with ``Degradation.sensor.mtf``, and LR; reflectance. It has little
    to say where ``Generator.consistency`` makes them equal."""
    perceptual_weight: float = 0.0
    """Distance of the features of a network."""
    perceptual_metric: str = "vgg"
    """Of red, green and blue: vgg (VGG19, at the layers below), lpips (LPIPS of AlexNet), lpips_vgg (of VGG16) or dists
    (DISTS). Of all bands: ssl4eo (a ResNet18 that learned from Sentinel-2) or ssl4eo_resnet50."""
    perceptual_layers: dict[str, float] = field(
        default_factory=lambda: {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    )
    """VGG19's convolutions, before their ReLU, and the weight of each."""
    perceptual_weights: str = "imagenet"
    """imagenet (the network's published ones, downloaded once: torchvision's, of ssl4eo TorchGeo's), a .pth file of the
    same, or random (for tests)."""
    perceptual_white: float = 0.4
    """Reflectance that a network which looks at red, green and blue sees as white."""
    l1_gt_usm: bool = False
    """Compare with a sharpened HR image (unsharp mask) in l1, charbonnier and mse, as Real-ESRGAN does in l1; then
    reflectance is no longer kept."""
    percep_gt_usm: bool = False
    """The same for the perceptual loss."""
    gan_gt_usm: bool = False
    """The same for what the discriminator sees as real."""
    adv_loss_type: str = "bce"
    """bce, hinge, lsgan or wasserstein."""
    relativistic_average_d: bool = False
    """Judge how much more real HR is than the average SR, and the other way round; bce, hinge and lsgan."""
    adv_loss_beta: float = 1e-3
    """Weight of the adversarial loss after its ramp."""
    adv_loss_schedule: str = "cosine"
    """How the weight rises: linear or cosine."""
    feature_matching_weight: float = 0.0
    """Mean absolute difference between the discriminator's features of SR and of HR (pix2pixHD, where it has 10 times
    the weight of the adversarial loss); it rises as that does."""
    r1_gamma: float = 0.0
    """Weight of the discriminator's gradient penalty on HR (R1); 0 switches it off."""
    r1_every: int = 1
    """Discriminator updates from one R1 to the next; it is multiplied by as much (lazy regularisation)."""
    gp_weight: float = 0.0
    """Weight of the gradient penalty between SR and HR (WGAN-GP); 0 switches it off, 10 is usual for wasserstein."""


@dataclass
class TrainingSection:
    """Length and arithmetic of the run. Steps are generator updates."""

    max_steps: int | None = 10_000
    """Length of the run; null leaves it to ``max_epochs``."""
    max_epochs: int | None = None
    """Length of the run in epochs: as many patches as there are places to cut them. The shorter of the two counts."""
    max_time: str | None = None
    """Stop after days:hours:minutes:seconds, such as 00:02:00:00."""
    val_every: int = 500
    """Steps from one validation, and checkpoint, to the next."""
    limit_val_batches: int | None = None
    """Validation batches at most."""
    early_stopping_patience: int = 250
    """Validations without a better ``Schedulers.metric`` after which the run stops; 0 switches it off."""
    precision: str = "auto"
    """auto (bfloat16 where the hardware multiplies it), 32-true, bf16-mixed, 16-mixed."""
    accelerator: str = "auto"
    """auto, cpu, gpu, cuda or mps."""
    devices: int = 1
    """Processes that train together, each on a device of its own."""
    seed: int = 0
    channels_last: bool = True
    """Memory layout that convolutions are faster in."""
    compile: bool = False
    """Let torch.compile fuse both networks (a discriminator with a gradient penalty stays as it is): the first step
    takes minutes, the others less."""
    gradient_checkpointing: bool = False
    """Compute the generator's blocks again for the gradients instead of keeping their output: less memory, a third
    slower."""
    accumulate_grad_batches: int = 1
    """Batches that make one update."""
    pretrain_g_only: bool = True
    """Start with the generator alone, for ``g_pretrain_steps``."""
    g_pretrain_steps: int = -1
    """Steps of that phase; -1: the whole run, without a discriminator."""
    pretrain_losses: list[str] = field(default_factory=list)
    """Content losses of that phase, such as [l1]; empty: those of the rest of the run."""
    adv_loss_ramp_steps: int = 0
    """Steps after it in which the adversarial loss rises to its weight."""
    label_smoothing: bool = False
    """The discriminator's target for HR is 0.9 instead of 1 (bce, lsgan)."""
    d_steps_per_g: int = 1
    """Discriminator updates for each of the generator, on batches of their own."""
    d_accuracy_limit: float | None = None
    """The discriminator waits while it is right about more than this share of the scores; null: never."""
    Losses: LossesSection = field(default_factory=LossesSection)
    EMA: EMASection = field(default_factory=EMASection)


@dataclass
class OptimizersSection:
    """One optimiser for each network."""

    name: str = "adam"
    """adam or adamw."""
    optim_g_lr: float = 1e-4
    optim_d_lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.0, 0.99])
    eps: float = 1e-7
    weight_decay_g: float = 0.0
    """Weight decay on the generator's kernels; biases, norms and slopes have none. Likewise ``_d``."""
    weight_decay_d: float = 0.0
    gradient_clip_val: float = 0.0
    """Largest norm of each network's gradient; 0 switches it off."""


@dataclass
class SchedulersSection:
    """Learning rates. A key that ends in _g or _d is that of one network; null takes the one without."""

    name: str = "plateau"
    """plateau (lower when the metric stops improving), cosine (to zero at the end), multistep or constant."""
    g_warmup_steps: int = 0
    """Steps in which the generator's rate rises from zero."""
    g_warmup_type: str = "cosine"
    """How it rises: cosine or linear."""
    metric: str = "val_metrics/l1"
    """What the plateau, the best checkpoints and early stopping look at."""
    metric_g: str | None = None
    metric_d: str | None = "validation/DISC_adversarial_loss"
    patience: int = 100
    """Validations without improvement that a plateau may last."""
    patience_g: int | None = None
    patience_d: int | None = None
    factor: float = 0.5
    """What the rate is multiplied by then."""
    factor_g: float | None = None
    factor_d: float | None = None
    cooldown: int = 0
    """Validations after that in which the plateau does not count."""
    cooldown_g: int | None = None
    cooldown_d: int | None = None
    min_lr: float = 0.0
    min_lr_g: float | None = None
    min_lr_d: float | None = None
    threshold: float = 1e-4
    """Relative change that is an improvement."""
    threshold_g: float | None = None
    threshold_d: float | None = None
    milestones: list[int] = field(default_factory=list)
    """Steps at which multistep lowers the rates."""
    gamma: float = 0.5
    """What multistep multiplies them by."""


@dataclass
class WandbSection:
    """Weights & Biases."""

    enabled: bool = False
    """WANDB_MODE=offline keeps everything here."""
    entity: str | None = None


@dataclass
class LoggingSection:
    """What a run writes, into ``dir/project/name``."""

    dir: str = "runs"
    project: str = "geosr"
    name: str | None = None
    """Name of the run; null takes WANDB_NAME, else Model.name and the time."""
    every: int = 10
    """Steps from one logged value to the next."""
    num_val_images: int = 5
    """Validation images that are shown; 0 shows none."""
    tensorboard: bool = True
    wandb: WandbSection = field(default_factory=WandbSection)


@dataclass
class Config:
    """A training run."""

    Data: DataSection = field(default_factory=DataSection)
    Degradation: DegradationSection = field(default_factory=DegradationSection)
    Model: ModelSection = field(default_factory=ModelSection)
    Generator: GeneratorSection = field(default_factory=GeneratorSection)
    Discriminator: DiscriminatorSection = field(default_factory=DiscriminatorSection)
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


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys; a setting that is a mapping itself stays one."""
    known, found = settings(), dict[str, Any]()
    for word, value in values.items():
        key = f"{prefix}{word}"
        if isinstance(value, Mapping) and not known.get(key, "").startswith("dict"):
            found |= flat(value, f"{key}.")
        else:
            found[key] = value
    return found
