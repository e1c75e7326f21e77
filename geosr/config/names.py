"""The words that settings choose from: the one list of each, which checks and builders share."""

GENERATORS = ("compact", "srresnet", "res", "rcab", "rrdb", "lka", "esrgan", "guided", "plksr", "swinir", "stochastic")
"""Architectures that can be trained; keys of ``geosr.models.registry.ARCHITECTURES``."""
UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect")
"""Ways from features to SR in swinir; keys of ``geosr.models.swinir.UPSAMPLERS``."""
VARIANTS = ("standard", "fast", "detail")
"""What a model may be for among those of its bands and resolution: a measurement, large areas, or the eye."""
DISCRIMINATORS = ("srgan", "patchgan", "esrgan", "unet_sn", "multiscale")
"""Networks that they can be trained against; keys of ``geosr.models.discriminators.NETWORKS``."""
NORMS = ("none", "batch", "instance")
"""Normalisations of a discriminator."""
OBJECTIVES = ("bce", "hinge", "lsgan", "wasserstein")
"""What the two want of the discriminator's scores."""
CONTENT_LOSSES = (
    *("l1", "charbonnier", "mse", "fft", "spectrum", "gradient"),
    *("sam", "indices", "tv", "consistency", "perceptual"),
)
"""Losses of SR against HR or LR; each has a weight in ``Training.Losses``."""
ALWAYS_VALIDATED = ("l1", "sam", "tv", "consistency")
"""Those that every validation computes; of the others, the ones with a weight."""
TV_KINDS = ("anisotropic", "isotropic")
"""How the variation down and to the right is put together."""
SATELLITE_METRICS = ("ssl4eo", "ssl4eo_resnet50")
"""Perceptual losses that look at all bands of Sentinel-2."""
PERCEPTUAL_METRICS = ("vgg", "lpips", "lpips_vgg", "dists", *SATELLITE_METRICS)
"""Perceptual losses; those without a satellite look at red, green and blue."""
VGG_LAYERS = tuple(
    f"conv{block}_{layer}" for block, layers in enumerate((2, 2, 4, 4, 4), 1) for layer in range(1, layers + 1)
)
"""Convolutions of VGG19."""
SCHEDULES = ("plateau", "cosine", "multistep", "constant")
"""How learning rates change after their warm-up."""
FIGURES = (*CONTENT_LOSSES, "psnr", "ssim", "psnr_gain")
"""What a validation says about the generator, under ``val_metrics/``."""
HIGHER_IS_BETTER = ("psnr", "ssim", "psnr_gain", "D(y)_prob")
"""Figures of which more is better; of the others, less."""
